"""Ticks come often after something differed, seldom when all is quiet, and others' rounds save ours."""

from math import inf
from random import Random

from sync.dialling import JITTER
from sync.trickle import LONGEST_S, ROUNDS, SHORTEST_S, Trickle


def started(longest_s: float = LONGEST_S) -> Trickle:
    made = Trickle(Random(1), longest_s)
    made.start(0.0)
    return made


def waits(trickle: Trickle, times: int) -> list[float]:
    found = []
    for _ in range(times):
        now = trickle.due
        trickle.tick(now)
        found.append(trickle.due - now)
    return found


def test_it_stands_still_until_there_is_somebody() -> None:
    made = Trickle(Random(1), LONGEST_S)
    assert made.due == inf
    made.start(5.0)
    assert made.due <= 5.0 + SHORTEST_S * (1 + JITTER)
    made.stop()
    assert made.due == inf


def test_waits_double_up_to_the_longest_with_jitter() -> None:
    for longest, wait in enumerate(waits(started(), 20)):
        expected = min(SHORTEST_S * 2 ** (longest + 1), LONGEST_S)
        assert expected * (1 - JITTER) <= wait <= expected * (1 + JITTER)
    assert len({round(wait, 3) for wait in waits(started(), 40)[10:]}) > 20


def test_a_difference_brings_the_next_tick_forward_and_never_puts_it_off() -> None:
    made = started()
    waits(made, 10)
    now = made.due - 20
    made.reset(now)
    assert made.due <= now + SHORTEST_S * (1 + JITTER)
    soon = made.due
    made.reset(now + 0.5)
    assert made.due == soon
    assert waits(made, 1)[0] <= 2 * SHORTEST_S * (1 + JITTER)


def test_rounds_that_others_began_save_ours_but_one() -> None:
    made = started()
    for heard, begun in ((0, ROUNDS), (1, ROUNDS - 1), (2, 1), (9, 1), (0, ROUNDS)):
        for _ in range(heard):
            made.same()
        assert made.tick(made.due) == begun


def test_an_interval_below_the_shortest_is_kept() -> None:
    assert all(wait <= 0.1 * (1 + JITTER) for wait in waits(started(0.1), 5))
