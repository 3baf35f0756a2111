"""Steps are taken in order, before memory runs out, and left again without fluttering; single calls always go on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import Problem
from node.pressure import BUSY, ENTER, HOLD_S, IDLE, LEAVE, Pressure, Step, Watch
from node.usage import Usage

MAX = 1_000_000


def used(share: float, cpu_s: float = 0.0, **more: int) -> Usage:
    return Usage(memory_bytes=round(share * MAX), cpu_s=cpu_s, cpus=0.5, **more)


def test_steps_begin_one_after_the_other_and_end_in_reverse() -> None:
    pressure, now = Pressure(MAX), 0.0
    seen = []
    for share in (0.5, 0.75, 0.85, 0.95, 0.95, 0.75, 0.65, 0.5):
        now += 2 * HOLD_S
        pressure.judge(used(share), now)
        seen.append(pressure.degraded)
    everything = [Step.CACHES, Step.BACKGROUND, Step.BULK]
    assert seen == [[], everything[:1], everything[:2], everything, everything, everything[:2], everything[:1], []]


def test_a_leap_takes_all_steps_at_once() -> None:
    pressure = Pressure(MAX)
    assert pressure.judge(used(0.99), 0.0) == dict.fromkeys(Step, True)


def test_the_cgroups_limit_counts_where_it_is_nearer() -> None:
    pressure = Pressure(MAX)
    pressure.judge(used(0.1, group_bytes=95, group_max_bytes=100), 0.0)
    assert Step.BULK in pressure.degraded


@given(st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 10)), max_size=60))
def test_a_step_that_begins_lasts_and_is_left_only_with_room(steps: list[tuple[float, float]]) -> None:
    pressure, now = Pressure(MAX), 0.0
    began: dict[Step, float] = {}
    for share, passed in steps:
        now += passed
        for step, begins in pressure.judge(used(share), now).items():
            if begins:
                assert share >= ENTER[step] - 1e-6
                began[step] = now
            else:
                assert share < ENTER[step] - LEAVE + 1e-6
                assert now - began.pop(step) >= HOLD_S
        assert pressure.degraded == [step for step in Step if step in began]
        assert all(step in began for step in Step if share >= ENTER[step] + 1e-6)


def test_background_work_waits_while_the_processor_is_busy_for_long() -> None:
    pressure, cpu_s, now = Pressure(MAX), 0.0, 0.0
    pressure.judge(used(0.1), now)

    def pass_time(seconds: int, share: float) -> None:
        nonlocal cpu_s, now
        for _ in range(seconds):
            now += 1
            cpu_s += share * 0.5  # half a processor is allowed
            pressure.judge(used(0.1, cpu_s), now)

    pass_time(round(HOLD_S) - 1, BUSY + 0.05)
    assert pressure.degraded == []
    pass_time(2, BUSY + 0.05)
    assert pressure.degraded == [Step.BACKGROUND]
    pass_time(30, (BUSY + IDLE) / 2)
    assert pressure.degraded == [Step.BACKGROUND], "not idle yet"
    pass_time(round(HOLD_S) + 1, IDLE - 0.1)
    assert pressure.degraded == []


def test_bulk_work_is_told_to_come_again_and_nothing_else_is() -> None:
    pressure = Pressure(MAX)
    pressure.judge(used(0.85), 0.0)
    pressure.refuse_bulk()
    pressure.judge(used(0.95), 1.0)
    with pytest.raises(Problem) as refused:
        pressure.refuse_bulk()
    assert (refused.value.status, refused.value.code) == (503, "busy")
    assert "memory_max_mb" in refused.value.action


def test_who_must_act_hears_of_each_change_once() -> None:
    seen = [used(0.75), used(0.75), used(0.1)]
    heard: list[tuple[Step, bool]] = []
    watch = Watch(Pressure(MAX), lambda step, begins: heard.append((step, begins)), lambda: seen.pop(0))
    for now in (0.0, 1.0, 2 * HOLD_S):
        watch.look(now)
    assert heard == [(Step.CACHES, True), (Step.CACHES, False)]
    assert watch.describe() == {"rss_max_bytes": MAX, "degraded": []}


async def test_it_watches_by_itself_and_stops() -> None:
    watch = Watch(Pressure(MAX), lambda step, begins: None)
    watch.start()
    await watch.stop()
    await watch.stop()
