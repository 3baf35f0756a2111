"""Last write wins: the same winner everywhere, and the loser stays to be seen."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.hlc import MAX_TIMESTAMP
from crdt.op import Op
from crdt.register import Register, resolve
from tests.crdt.world import FAR_MS, HELD_AFTER, NOW_MS, Node, a_fact, meet


def concurrent(*times_ms: int) -> list[Op]:
    """One write by each of several nodes, none of which has seen another's."""
    return [
        Node(number).write_value("content", b"\xa1" + b"abcdefgh"[number : number + 1], clock=(), timestamp=time << 16)
        for number, time in enumerate(times_ms, 1)
    ]


def test_no_write_no_winner() -> None:
    assert resolve([]) == Register(None, (), ())


def test_a_later_write_supersedes_what_its_writer_saw() -> None:
    (node,) = a_fact(nodes=1)
    first, second = node.set("content", "a"), node.set("content", "b")
    assert resolve([second, first]) == Register(second, (), (first,))


def test_a_write_that_saw_the_other_wins_whatever_the_clocks_say() -> None:
    fast, slow = a_fact()
    fast.now_ms += 60_000
    fast.set("content", "early")
    fast.send(slow)
    wins = slow.set("content", "late", timestamp=1)
    meet(fast, slow)
    assert resolve([*fast.ops]).winner == resolve([*slow.ops]).winner == wins


def test_between_concurrent_writes_the_later_wins_and_the_other_is_kept() -> None:
    early, late = concurrent(NOW_MS, NOW_MS + 1)
    assert resolve([late, early]) == resolve([early, late]) == Register(late, (early,), ())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_equal_timestamps_do_not_diverge(count: int) -> None:
    writes = concurrent(*[NOW_MS] * count)
    settled = {resolve(order) for order in permutations(writes)}
    assert settled == {resolve(writes)}
    assert resolve(writes).winner == max(writes, key=lambda op: op.author)


def test_two_ops_with_one_dot_and_time_are_settled_by_their_hash() -> None:
    writes = [Node(1).write_value("content", body, clock=()) for body in (b"\xa1a", b"\xa1b")]
    assert writes[0].dot == writes[1].dot and writes[0].timestamp == writes[1].timestamp
    assert resolve(writes) == resolve(writes[::-1])
    assert resolve(writes).winner == max(writes, key=lambda op: op.hash)


@given(st.lists(st.sampled_from([NOW_MS, NOW_MS + 1, FAR_MS]), max_size=5), st.data())
def test_the_order_of_arrival_decides_nothing(times: list[int], data: st.DataObject) -> None:
    writes = concurrent(*times)
    assert resolve(data.draw(st.permutations(writes)), HELD_AFTER) == resolve(writes, HELD_AFTER)


def test_a_held_write_cannot_win_until_time_has_caught_up() -> None:
    honest, ahead = concurrent(NOW_MS, FAR_MS)
    assert resolve([ahead, honest], HELD_AFTER) == Register(honest, (ahead,), ())
    assert resolve([ahead, honest], ahead.timestamp) == Register(ahead, (honest,), ())
    assert resolve([ahead, honest]).winner == ahead and ahead.timestamp < MAX_TIMESTAMP


def test_a_held_write_is_shown_when_it_stands_alone() -> None:
    (ahead,) = concurrent(FAR_MS)
    assert resolve([ahead], HELD_AFTER).winner == ahead


def test_a_held_write_still_dominates_and_is_dominated() -> None:
    ahead, other = a_fact()
    ahead.now_ms = FAR_MS
    held = ahead.set("content", "from a clock ahead")
    assert resolve(ahead.ops, HELD_AFTER) == Register(held, (), (ahead.ops[0],))
    ahead.send(other)
    mends = other.set("content", "mended")
    assert mends.timestamp < held.timestamp
    assert resolve(other.ops, HELD_AFTER).winner == mends
    assert resolve(other.ops, HELD_AFTER).losers == ()
