"""Addresses are tried at once, then ever less often, and never by all at the same moment."""

from math import inf
from random import Random

from sync.dialling import FIRST_RETRY_S, JITTER, MAX_RETRY_S, Targets


def failing(seed: int, times: int) -> list[float]:
    """The waits between attempts at an address where nobody answers."""
    targets, now, waits = Targets(Random(seed)), 0.0, []
    targets.want("x", now)
    for _ in range(times):
        assert list(targets.take_due(now)) == ["x"]
        assert targets.deadline == inf, "not again while it is being dialled"
        targets.failed("x", now)
        waits.append(targets.deadline - now)
        now = targets.deadline
    return waits


def test_waits_double_up_to_a_cap_with_jitter() -> None:
    for attempt, wait in enumerate(failing(1, 40)):
        expected = min(FIRST_RETRY_S * 2**attempt, MAX_RETRY_S)
        assert expected * (1 - JITTER) <= wait <= expected * (1 + JITTER)
    assert failing(1, 5) == failing(1, 5) != failing(2, 5)


def test_a_session_that_worked_clears_what_went_wrong_before() -> None:
    targets = Targets(Random(1))
    targets.want("x", 0.0)
    for _ in range(6):
        list(targets.take_due(inf))
        targets.failed("x", 0.0)
    list(targets.take_due(inf))
    targets.reached("x", "peer")
    assert targets.deadline == inf
    targets.agreed("peer")
    targets.lost("peer", 100.0)
    assert 100 < targets.deadline <= 100 + FIRST_RETRY_S * (1 + JITTER)


def test_a_session_that_never_agreed_counts_as_a_failure() -> None:
    targets, now = Targets(Random(1)), 0.0
    targets.want("x", now)
    for _ in range(5):
        list(targets.take_due(now))
        targets.reached("x", "peer")
        targets.lost("peer", now)
        wait, now = targets.deadline - now, targets.deadline
    assert wait > 10


def test_wanting_an_address_again_tries_it_at_once_but_never_twice_at_a_time() -> None:
    targets = Targets(Random(1))
    targets.want("x", 0.0)
    assert list(targets.take_due(0.0)) == ["x"]
    targets.want("x", 1.0)
    assert list(targets.take_due(1.0)) == []
    targets.failed("x", 1.0)
    targets.want("x", 1.1)
    assert list(targets.take_due(1.1)) == ["x"]


def test_a_dropped_address_is_forgotten() -> None:
    targets = Targets(Random(1))
    targets.want("x", 0.0)
    targets.drop("x")
    targets.failed("x", 0.0)
    targets.reached("x", "peer")
    assert list(targets.take_due(inf)) == [] and targets.deadline == inf
