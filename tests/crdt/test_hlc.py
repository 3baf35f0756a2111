"""Hybrid logical clocks: never backwards, never far ahead of the wall clock, and not dragged along by a broken one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.hlc import DEFAULT_AHEAD_MS, MAX_COUNTER, MAX_TIMESTAMP, Clock, horizon, timestamp, wall_ms

NOW_MS = 1_700_000_000_000
TIMES = st.integers(0, NOW_MS) | st.integers(NOW_MS - 3, NOW_MS + 3)
STAMPS = TIMES.map(timestamp) | st.integers(0, MAX_TIMESTAMP)


@given(TIMES, st.integers(0, MAX_COUNTER))
def test_a_timestamp_unpacks_to_its_wall_clock(time: int, counter: int) -> None:
    assert wall_ms(timestamp(time, counter)) == time


@given(st.tuples(TIMES, st.integers(0, MAX_COUNTER)), st.tuples(TIMES, st.integers(0, MAX_COUNTER)))
def test_timestamps_order_by_wall_clock_then_counter(left: tuple[int, int], right: tuple[int, int]) -> None:
    assert (timestamp(*left) < timestamp(*right)) == (left < right)


@given(st.lists(st.tuples(st.booleans(), TIMES, STAMPS)))
def test_what_is_issued_is_above_all_issued_and_accepted(events: list[tuple[bool, int, int]]) -> None:
    clock, highest = Clock(), 0
    for issues, now_ms, stamp in events:
        if issues:
            issued = clock.issue(now_ms)
            assert issued > highest and wall_ms(issued) >= now_ms
            highest = issued
        elif clock.observe(stamp, now_ms):
            highest = max(highest, stamp)


@given(STAMPS, TIMES)
def test_a_restart_does_not_turn_time_back(last: int, now_ms: int) -> None:
    assert Clock(last).issue(now_ms) > last


def test_it_follows_the_wall_clock_when_that_moves() -> None:
    clock = Clock()
    assert [clock.issue(NOW_MS), clock.issue(NOW_MS), clock.issue(NOW_MS + 1)] == [
        timestamp(NOW_MS),
        timestamp(NOW_MS, 1),
        timestamp(NOW_MS + 1),
    ]


def test_a_wall_clock_before_1970_counts_as_1970() -> None:
    assert Clock().issue(-5) == 1


def test_a_full_counter_moves_on_to_the_next_millisecond() -> None:
    assert Clock(timestamp(NOW_MS, MAX_COUNTER)).issue(NOW_MS) == timestamp(NOW_MS + 1)


@pytest.mark.parametrize("ahead_ms", [0, 1, DEFAULT_AHEAD_MS])
def test_a_timestamp_too_far_ahead_is_held_and_moves_nothing(ahead_ms: int) -> None:
    clock = Clock(5, ahead_ms)
    limit = horizon(NOW_MS, ahead_ms)
    assert not clock.observe(limit + 1, NOW_MS)
    assert clock.last == 5
    assert clock.observe(limit, NOW_MS)
    assert clock.last == limit
    assert wall_ms(limit) == NOW_MS + ahead_ms


def test_a_timestamp_from_the_past_is_welcome() -> None:
    clock = Clock(timestamp(NOW_MS))
    assert clock.observe(1, NOW_MS)
    assert clock.last == timestamp(NOW_MS)
