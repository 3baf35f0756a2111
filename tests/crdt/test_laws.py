"""The laws that every replicated type keeps, in one suite over all of them.

A state of most types is the ops that a node has, in the order of their arrival; to merge is to append what one lacks.
So "commutative" says that what is *shown* does not depend on who sent first, and so on. The ops are real, signed, and
from arbitrary histories (tests/crdt/histories.py): partial exchange, equal and held timestamps, kinds of tomorrow, bad
bodies, impossible clocks, forks. Version vectors and clocks are states of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import fact, register, text, version
from crdt.hlc import MAX_TIMESTAMP, Clock, horizon
from crdt.op import Op, OpClass, decode, verify
from crdt.orset import surviving_adds
from crdt.survive import in_register
from tests.crdt.histories import ELEMENTS, FIELDS, histories, share
from tests.crdt.world import HELD_AFTER, MESH, NOW_MS, effective, lacking, vector_of

State = Any


@dataclass(frozen=True)
class Type:
    """How the laws look at one type."""

    name: str
    three: st.SearchStrategy[tuple[State, State, State]]
    merge: Callable[[State, State], State]
    show: Callable[[State], Any]
    delta: Callable[[State, State], State]
    """What the first lacks of the second."""
    atoms: Callable[[State], list[State]]
    """The smallest states that a state is merged from."""
    covers: Callable[[State, State], bool]


def merge_ops(left: list[Op], right: list[Op]) -> list[Op]:
    there = set(left)
    return [*left, *(op for op in right if op not in there)]


def lacking_ops(left: list[Op], right: list[Op]) -> list[Op]:
    """By version vector, as sync does; and what a fork hides from the vector, as its audit finds."""
    hidden = [op for op in right if op not in set(left) and op.seq <= vector_of(left).get(op.author, 0)]
    return lacking(right, vector_of(left)) + hidden


def of_ops(name: str, show: Callable[[list[Op]], Any]) -> Type:
    """A type whose state is a set of ops; `show` is given those in effect, in the order of arrival."""
    return Type(
        name,
        histories().map(lambda nodes: (nodes[0].ops, nodes[1].ops, nodes[2].ops)),
        merge_ops,
        lambda ops: show(effective(ops)),
        lacking_ops,
        lambda ops: [[op] for op in ops],
        lambda left, right: set(left) >= set(right) and version.covers(vector_of(left), vector_of(right)),
    )


def registers(ops: list[Op]) -> list[register.Register]:
    return [
        register.resolve([op for op in in_register(ops, field) if op.op_class == OpClass.WRITE], HELD_AFTER)
        for field in FIELDS
    ]


def sets(ops: list[Op]) -> list[list[Op]]:
    initial = [op for op in ops if not op.header.field and op.op_class == OpClass.WRITE]
    return [surviving_adds([op for op in ops if op.header.field == element], initial) for element in ELEMENTS]


def texts(ops: list[Op]) -> str:
    there = set(fact.text_ops(ops))
    return text.read([op for op in ops if op in there])


def facts(ops: list[Op]) -> Any:
    return fact.fold(ops, HELD_AFTER), fact.history(ops, HELD_AFTER)


def observe(left: int, right: int) -> int:
    clock = Clock(left)
    clock.observe(right, NOW_MS)
    return clock.last


AUTHORS = st.sampled_from([bytes([n]) * version.AUTHOR_ID_BYTES for n in range(5)])
VECTORS = st.dictionaries(AUTHORS, st.integers(1, 9))
STAMPS = st.integers(0, horizon(NOW_MS)) | st.integers(horizon(NOW_MS) - 2, horizon(NOW_MS))

TYPES = (
    of_ops("register", registers),
    of_ops("set", sets),
    of_ops("text", texts),
    of_ops("fact", facts),
    Type(
        "vector",
        st.tuples(VECTORS, VECTORS, VECTORS),
        version.merge,
        lambda vector: (vector, version.digest(vector)),
        lambda left, right: {author: seq for author, seq in right.items() if seq > left.get(author, 0)},
        lambda vector: [{author: seq} for author, seq in vector.items()],
        version.covers,
    ),
    Type(
        "clock",
        st.tuples(STAMPS, STAMPS, STAMPS),
        observe,
        lambda stamp: stamp,
        lambda left, right: right if right > left else left,
        lambda stamp: [stamp],
        lambda left, right: left >= right,
    ),
)
OF_OPS = [kind for kind in TYPES if kind.merge is merge_ops]

every_type = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
every_type_of_ops = pytest.mark.parametrize("kind", OF_OPS, ids=lambda kind: kind.name)


@every_type
@share
@given(data=st.data())
def test_merge_is_commutative(kind: Type, data: st.DataObject) -> None:
    a, b, _ = data.draw(kind.three)
    assert kind.show(kind.merge(a, b)) == kind.show(kind.merge(b, a))


@every_type
@share
@given(data=st.data())
def test_merge_is_associative(kind: Type, data: st.DataObject) -> None:
    a, b, c = data.draw(kind.three)
    assert kind.show(kind.merge(kind.merge(a, b), c)) == kind.show(kind.merge(a, kind.merge(b, c)))


@every_type
@share
@given(data=st.data())
def test_merge_is_idempotent(kind: Type, data: st.DataObject) -> None:
    a, b, _ = data.draw(kind.three)
    both = kind.merge(a, b)
    assert kind.show(kind.merge(a, a)) == kind.show(a)
    assert kind.show(kind.merge(both, b)) == kind.show(kind.merge(both, a)) == kind.show(both)


@every_type
@share
@given(data=st.data())
def test_a_delta_does_what_the_whole_does(kind: Type, data: st.DataObject) -> None:
    a, b, _ = data.draw(kind.three)
    assert kind.show(kind.merge(a, kind.delta(a, b))) == kind.show(kind.merge(a, b))


@every_type
@share
@given(data=st.data())
def test_merge_loses_nothing(kind: Type, data: st.DataObject) -> None:
    a, b, _ = data.draw(kind.three)
    both = kind.merge(a, b)
    assert kind.covers(both, a) and kind.covers(both, b)


@every_type
@share
@given(data=st.data())
def test_any_order_of_arrival_shows_the_same(kind: Type, data: st.DataObject) -> None:
    a, b, _ = data.draw(kind.three)
    both = kind.merge(a, b)
    shuffled = data.draw(st.permutations(kind.atoms(both)))
    assert not shuffled or kind.show(reduce(kind.merge, shuffled)) == kind.show(both)


@every_type_of_ops
@share
@given(data=st.data())
def test_what_went_through_bytes_shows_the_same(kind: Type, data: st.DataObject) -> None:
    a, _, _ = data.draw(kind.three)
    received, stored = [verify(MESH, op.raw) for op in a], [decode(MESH, op.raw) for op in a]
    assert [op.header for op in received] == [op.header for op in stored] == [op.header for op in a]
    assert kind.show(received) == kind.show(stored) == kind.show(a)


@share
@given(histories())
def test_every_write_in_effect_is_in_its_register(nodes: list[Any]) -> None:
    for node in nodes:
        for field, settled in zip(FIELDS, registers(node.about), strict=True):
            writes = [op for op in in_register(node.about, field) if op.op_class == OpClass.WRITE]
            told = [*settled.superseded, *settled.losers, *([settled.winner] if settled.winner else [])]
            assert sorted(told, key=lambda op: op.hash) == sorted(writes, key=lambda op: op.hash)


@share
@given(histories())
def test_the_history_tells_of_every_op_in_effect(nodes: list[Any]) -> None:
    for node in nodes:
        assert {told.op for told in node.history} == set(node.about)


@share
@given(histories())
def test_a_register_never_falls_silent(nodes: list[Any]) -> None:
    """Also when every write dominates another: a fact that somebody created is shown, until it is forgotten."""
    for node in nodes:
        assert fact.fold(node.about, HELD_AFTER) is not None
        assert fact.fold(node.about, MAX_TIMESTAMP) is not None
