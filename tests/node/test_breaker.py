"""The breaker opens after failures in a row, lets one probe through, and never lets more through than it says."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.breaker import FAILURES, REST_S, SLOW_S, Breaker, Call, Refused, State, guarded


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker("redis")
    for _ in range(FAILURES):
        call = breaker.begin(at)
        assert call
        breaker.end(call, at, ok=False)
    assert breaker.state is State.OPEN
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_starts_the_count_anew() -> None:
    breaker = Breaker("redis")
    for ok in [*[False] * (FAILURES - 1), True, *[False] * (FAILURES - 1)]:
        call = breaker.begin(0)
        assert call
        breaker.end(call, 0, ok=ok)
        assert breaker.state is State.CLOSED
    call = breaker.begin(0)
    assert call
    breaker.end(call, 0, ok=False)
    assert breaker.state is State.OPEN


def test_a_call_that_took_too_long_has_failed() -> None:
    breaker = Breaker("redis")
    for number in range(FAILURES):
        call = breaker.begin(number * SLOW_S)
        assert call
        breaker.end(call, (number + 1) * SLOW_S, ok=True)
    assert breaker.state is State.OPEN


def test_after_a_rest_one_probe_decides() -> None:
    breaker = opened()
    assert breaker.begin(REST_S - 0.1) is None
    probe = breaker.begin(REST_S)
    assert probe
    assert breaker.state is State.HALF_OPEN
    assert breaker.begin(REST_S) is None, "one probe"
    breaker.end(probe, REST_S + 1, ok=False)
    assert breaker.state is State.OPEN
    assert breaker.begin(2 * REST_S) is None, "the rest begins anew"
    probe = breaker.begin(2 * REST_S + 1)
    assert probe
    breaker.end(probe, 2 * REST_S + 2, ok=True)
    assert breaker.state is State.CLOSED
    assert breaker.begin(2 * REST_S + 2)


def test_a_probe_that_never_ends_makes_way_for_another() -> None:
    breaker = opened()
    lost = breaker.begin(REST_S)
    assert lost
    assert breaker.begin(REST_S + SLOW_S - 1) is None
    another = breaker.begin(REST_S + SLOW_S)
    assert another
    breaker.end(lost, REST_S + SLOW_S + 1, ok=True)
    assert breaker.state is State.HALF_OPEN, "the lost one decides nothing any more"
    breaker.end(another, REST_S + SLOW_S + 2, ok=True)
    assert breaker.state is State.CLOSED


def test_calls_from_before_it_opened_do_not_close_it() -> None:
    breaker = Breaker("redis")
    early = breaker.begin(0)
    assert early
    for _ in range(FAILURES):
        call = breaker.begin(0)
        assert call
        breaker.end(call, 0, ok=False)
    breaker.end(early, 1, ok=True)
    assert breaker.state is State.OPEN


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "well", "badly"]), st.floats(0, 40), st.integers(0, 9)), max_size=80
)


@given(STEPS)
def test_while_it_is_not_closed_at_most_one_call_in_a_rest_gets_through(steps: list[tuple[str, float, int]]) -> None:
    breaker, now = Breaker("redis"), 0.0
    out: list[Call] = []
    probes: list[float] = []
    for what, passed, which in steps:
        now += passed
        if what == "begin":
            closed = breaker.state is State.CLOSED
            if call := breaker.begin(now):
                out.append(call)
                if not closed:
                    assert not probes or now - probes[-1] >= REST_S
                    probes.append(now)
        elif out:
            breaker.end(out.pop(which % len(out)), now, ok=what == "well")
        if breaker.state is State.CLOSED:
            probes.clear()


async def fails() -> None:
    raise ConnectionError("gone")


async def test_what_is_open_is_not_called() -> None:
    breaker, now = Breaker("redis"), 0.0
    for _ in range(FAILURES):
        with pytest.raises(ConnectionError):
            await guarded(breaker, fails, now=lambda: now)
    with pytest.raises(Refused, match="redis"):
        await guarded(breaker, fails, now=lambda: now)


async def test_a_call_that_hangs_is_given_up_and_counts_as_failed() -> None:
    breaker = Breaker("redis")
    for _ in range(FAILURES):
        with pytest.raises(TimeoutError):
            await guarded(breaker, asyncio.Event().wait, timeout_s=0, now=lambda: 0.0)
    assert breaker.state is State.OPEN


async def test_a_caller_that_leaves_says_nothing_about_the_target() -> None:
    breaker = Breaker("redis")
    for _ in range(FAILURES):
        waiting = asyncio.ensure_future(guarded(breaker, asyncio.Event().wait, now=lambda: 0.0))
        asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert breaker.state is State.CLOSED


def test_a_probe_whose_caller_left_hands_over_to_the_next_call() -> None:
    breaker = opened()
    probe = breaker.begin(REST_S)
    assert probe
    breaker.end(probe, REST_S + 1, ok=None)
    assert breaker.begin(REST_S + 1)
    assert breaker.state is State.HALF_OPEN
    assert breaker.begin(REST_S + 1) is None
