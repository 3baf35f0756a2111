"""When to walk, what to audit: rarely enough to cost nothing, often enough that everything has its turn."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import merkle
from sync.audit import AUDIT_S, AUDITS_S, FRUITLESS_S, RETRY_S, SLICE_OPS, TOO_SOON, WALK_S, Agenda, audited_level
from sync.errors import ProtocolError
from sync.messages import SALT_BYTES


def agenda(secret: int = 7) -> Agenda:
    return Agenda(secret, 0.0)


def test_what_is_suspect_is_walked_once_the_reserved_project_first() -> None:
    made = agenda()
    made.suspect(["plant", "_mesh"])
    made.suspect(["plant", "apple"])
    assert [made.next(0.0) for _ in range(4)] == ["_mesh", "apple", "plant", None]


def test_what_was_walked_in_vain_waits_and_what_moved_does_not() -> None:
    made = agenda()
    made.walked("p", 0, 0, 100.0)
    made.walked("q", 3, 1, 100.0)
    for now, expected in ((100.0, ["q"]), (99.9 + FRUITLESS_S, ["q"]), (100.0 + FRUITLESS_S, ["p", "q"])):
        made.suspect(["p", "q"])
        found = [made.next(now) for _ in range(3)]
        assert [name for name in found if name] == expected
    made.walked("p", 3, 1, 101.0 + FRUITLESS_S)
    made.suspect(["p"])
    assert made.next(102.0 + FRUITLESS_S) == "p"


def test_a_walk_that_the_peer_began_counts_too() -> None:
    made = agenda()
    made.suspect(["p", "q"])
    made.walked("p", 1, 1, 1.0)
    assert [made.next(2.0), made.next(2.0)] == ["q", None]


def test_a_peer_that_walks_again_too_soon_is_refused() -> None:
    made = agenda()
    for ops, wait_s in ((0, FRUITLESS_S), (2, RETRY_S)):
        made.check_walk("p", 0.0)
        made.walked("p", ops, 0, 0.0)
        with pytest.raises(ProtocolError):
            made.check_walk("p", TOO_SOON * wait_s - 1)
        made.check_walk("q", 1.0)
        made.check_walk("p", TOO_SOON * wait_s)
        made.walked("p", 1, 1, 0.0)
    assert TOO_SOON < 1, "an honest peer is never refused"


def test_ops_that_were_of_no_use_yet_are_tried_again_soon() -> None:
    made = agenda()
    made.walked("p", 2, 0, 100.0)
    made.suspect(["p"])
    assert made.next(99.0 + RETRY_S) is None
    made.suspect(["p"])
    assert made.next(100.0 + RETRY_S) == "p"


def test_once_an_hour_projects_are_walked_although_their_vectors_differ() -> None:
    made = agenda()
    made.hourly(["p"], WALK_S - 1)
    assert made.next(WALK_S - 1) is None
    made.hourly(["p"], WALK_S)
    assert made.next(WALK_S) == "p"
    made.hourly(["p"], WALK_S + 1)
    assert made.next(WALK_S + 1) is None
    made.hourly(["p"], 2 * WALK_S)
    assert made.next(2 * WALK_S) == "p"


@given(st.integers(0, 2**256 - 1))
def test_an_audit_is_due_once_an_hour_and_no_two_sessions_ask_the_same(secret: int) -> None:
    made = Agenda(secret, 0.0)
    assert made.audit({"p": 100}, AUDIT_S / 2 - 1) is None
    first = made.audit({"p": 100}, AUDIT_S)
    assert first is not None
    assert len(first.salt) == SALT_BYTES
    assert made.audit({"p": 100}, 2 * AUDIT_S - 1) is None
    assert made.answered() == first
    with pytest.raises(ProtocolError):
        made.answered()
    second = made.audit({"p": 100}, 2 * AUDIT_S)
    assert second is not None
    assert second.salt != first.salt
    assert Agenda(secret ^ 1, 0.0).salt() != Agenda(secret, 0.0).salt()


def test_of_nothing_there_is_no_audit() -> None:
    assert agenda().audit({}, 9 * AUDIT_S) is None


def test_every_op_has_its_turn_as_often_as_any_other() -> None:
    made = agenda()
    sizes = {"small": 1_000, "large": 1 << 20}
    asked = [made.audit(sizes, number * AUDIT_S) for number in range(1, 3_001)]
    found = Counter(audit.project for audit in asked if audit)
    assert found["large"] > 2_900
    assert found["small"] < 30
    large = Counter(audit.place for audit in asked if audit and audit.project == "large")
    assert len(large) == 256, "each of its nodes"
    assert {audit.level for audit in asked if audit and audit.project == "small"} <= {0}


def test_a_slice_is_of_bounded_size_whatever_the_project() -> None:
    for ops in (0, 1, SLICE_OPS, SLICE_OPS + 1, 100_000, 1_000_000, 50_000_000):
        level = audited_level(ops)
        assert ops >> (level * merkle.FAN_OUT_BITS) <= SLICE_OPS
        assert 0 <= level <= merkle.LEVELS
    assert [audited_level(ops) for ops in (SLICE_OPS, SLICE_OPS + 1, 1_000_000, 1 << 40)] == [0, 1, 2, merkle.LEVELS]


def test_a_peer_may_ask_once_a_minute() -> None:
    made = agenda()
    made.check_audit(0.0)
    with pytest.raises(ProtocolError):
        made.check_audit(AUDITS_S - 1)
    made.check_audit(AUDITS_S)
