"""Version vectors: a partial order with a least upper bound, and names that do not collide."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.version import (
    AUTHOR_ID_BYTES,
    Dot,
    Ordering,
    Vector,
    author_id,
    compare,
    covers,
    digest,
    merge,
    node_id,
    subject_id,
)

AUTHORS = st.sampled_from([bytes([n]) * AUTHOR_ID_BYTES for n in range(4)])
VECTORS = st.dictionaries(AUTHORS, st.integers(1, 5))
A, B = bytes(AUTHOR_ID_BYTES), b"b" * AUTHOR_ID_BYTES
OPPOSITE = {Ordering.BEFORE: Ordering.AFTER, Ordering.AFTER: Ordering.BEFORE}


@pytest.mark.parametrize(
    ("left", "right", "ordering"),
    [
        ({}, {}, Ordering.EQUAL),
        ({A: 2}, {A: 2}, Ordering.EQUAL),
        ({}, {A: 1}, Ordering.BEFORE),
        ({A: 1, B: 2}, {A: 1, B: 3}, Ordering.BEFORE),
        ({A: 1, B: 1}, {A: 1}, Ordering.AFTER),
        ({A: 2, B: 1}, {A: 1, B: 2}, Ordering.CONCURRENT),
        ({A: 1}, {B: 1}, Ordering.CONCURRENT),
    ],
)
def test_compare(left: Vector, right: Vector, ordering: Ordering) -> None:
    assert compare(left, right) is ordering
    assert compare(right, left) is OPPOSITE.get(ordering, ordering)


@given(VECTORS, VECTORS, VECTORS)
def test_to_cover_is_a_partial_order(a: Vector, b: Vector, c: Vector) -> None:
    assert covers(a, a)
    assert not (covers(a, b) and covers(b, a)) or a == b
    assert not (covers(a, b) and covers(b, c)) or covers(a, c)


@given(VECTORS, VECTORS, VECTORS)
def test_merge_is_the_least_that_covers_both(a: Vector, b: Vector, other: Vector) -> None:
    both = merge(a, b)
    assert covers(both, a) and covers(both, b)
    assert not (covers(other, a) and covers(other, b)) or covers(other, both)


@given(VECTORS, VECTORS)
def test_merge_changes_neither_side(a: Vector, b: Vector) -> None:
    before = dict(a), dict(b)
    merge(a, b)[A] = 99
    assert (a, b) == before


@given(VECTORS, VECTORS)
def test_equal_vectors_have_equal_digests_and_no_others(a: Vector, b: Vector) -> None:
    assert digest(a) == digest(dict(reversed(a.items())))
    assert (digest(a) == digest(b)) == (a == b)


def test_names_do_not_collide() -> None:
    keys = [bytes([n]) * 32 for n in range(8)]
    names = {author_id(key, epoch) for key in keys for epoch in (0, 1, 2**63 - 1)}
    assert len(names) == 24 and {len(name) for name in names} == {AUTHOR_ID_BYTES}
    assert len({node_id(key) for key in keys}) == 8
    assert len({subject_id(Dot(name, seq)) for name in names for seq in (1, 11, 111)}) == 72


def test_ids_can_be_read_aloud() -> None:
    assert re.fullmatch("[a-z2-7]{16}", node_id(bytes(32)))
    assert re.fullmatch("[a-z2-7]{16}-17", subject_id(Dot(author_id(bytes(32), 3), 17)))
