"""Under load everyone gets a share: rates hold, turns are fair and never lost, a deadline ends what takes too long."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from node import admission
from node.admission import CLIENTS_MAX, WAITING_MAX, WAITING_PER_CLIENT, Admission, Rates, Turns
from node.errors import Problem


async def let_run() -> None:
    """Let whatever is ready run, and what that makes ready."""
    for _ in range(3):
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


# --- rates ---


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200), st.sampled_from([1.0, 5.0, 50.0]))
def test_no_window_of_time_lets_more_through_than_its_rate_and_a_burst(steps: list[float], rate: float) -> None:
    rates, now, granted = Rates(rate), 0.0, []
    for step in steps:
        now += step
        if rates.take("a", now):
            granted.append(now)
    for first, began in enumerate(granted):
        for last, ended in enumerate(granted[first:], 1):
            assert last <= rate * (ended - began) + rate + 1e-6


def test_a_client_that_keeps_to_its_rate_is_never_refused() -> None:
    rates = Rates(10)
    assert all(rates.take("a", number / 10) for number in range(1_000))


def test_clients_do_not_share_and_nothing_grows_without_bound() -> None:
    rates = Rates(1)
    assert all(rates.take(str(number), 0) for number in range(3 * CLIENTS_MAX))
    assert not rates.take(str(3 * CLIENTS_MAX - 1), 0)
    assert len(rates._buckets) == CLIENTS_MAX


def test_zero_is_no_limit() -> None:
    rates = Rates(0)
    assert all(rates.take("a", 0) for _ in range(1_000))


# --- turns ---


async def test_a_client_with_many_calls_delays_another_by_one() -> None:
    turns, served = Turns(1), []

    async def call(client: str) -> None:
        await turns.take(client)
        served.append(client)
        await let_run()
        turns.give()

    calls = [asyncio.ensure_future(call("greedy")) for _ in range(50)]
    await let_run()
    calls += [asyncio.ensure_future(call("modest")) for _ in range(3)]
    await asyncio.gather(*calls)
    first, second, third = (place for place, client in enumerate(served) if client == "modest")
    assert first <= 4
    assert (second - first, third - second) == (2, 2)
    assert (turns.running, turns.waiting) == (0, 0)


async def test_a_clients_own_queue_is_bounded_and_others_are_not_refused_for_it() -> None:
    turns = Turns(1)
    await turns.take("x")
    calls = [asyncio.ensure_future(turns.take("greedy")) for _ in range(WAITING_PER_CLIENT)]
    await let_run()
    with pytest.raises(Problem) as refused:
        await turns.take("greedy")
    assert (refused.value.status, refused.value.code) == (429, "too_many_calls")
    other = asyncio.ensure_future(turns.take("modest"))
    await let_run()
    assert not other.done()
    for call in [*calls, other]:
        call.cancel()
    await asyncio.gather(*calls, other, return_exceptions=True)
    assert turns.waiting == 0


async def test_when_all_queues_are_full_the_longest_gives_way() -> None:
    turns = Turns(1)
    await turns.take("x")
    clients = WAITING_MAX // WAITING_PER_CLIENT
    calls = [asyncio.ensure_future(turns.take(str(number % clients))) for number in range(WAITING_MAX)]
    await let_run()
    modest = asyncio.ensure_future(turns.take("modest"))
    await let_run()
    refused = [call for call in calls if call.done()]
    assert len(refused) == 1
    assert isinstance(problem := refused[0].exception(), Problem)
    assert (problem.status, problem.code) == (503, "busy")
    assert not modest.done()
    assert turns.waiting == WAITING_MAX
    for call in [*calls, modest]:
        call.cancel()
    await asyncio.gather(*calls, modest, return_exceptions=True)


class Queueing(RuleBasedStateMachine):
    """Calls come, end and are cancelled in any order: never more than allowed, no turn lost, no turn idle."""

    @initialize(most=st.integers(1, 3))
    def begin(self, most: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.turns = Turns(most)
        self.calls: list[asyncio.Task[None]] = []
        self.ends: dict[asyncio.Task[None], asyncio.Event] = {}
        self.working: Counter[str] = Counter()

    async def work(self, client: str, end: asyncio.Event) -> None:
        await self.turns.take(client)
        try:
            self.working[client] += 1
            await end.wait()
        finally:
            self.working[client] -= 1
            self.turns.give()

    @rule(client=st.sampled_from("abc"))
    def call(self, client: str) -> None:
        end = asyncio.Event()
        task = self.loop.create_task(self.work(client, end))
        self.calls.append(task)
        self.ends[task] = end
        self.loop.run_until_complete(let_run())

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99), settle=st.booleans())
    def end_one(self, which: int, settle: bool) -> None:
        self.ends[self.calls[which % len(self.calls)]].set()
        if settle:
            self.loop.run_until_complete(let_run())

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99))
    def cancel_one(self, which: int) -> None:
        self.calls.pop(which % len(self.calls)).cancel()
        self.loop.run_until_complete(let_run())

    @invariant()
    def turns_are_neither_lost_nor_doubled(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.loop.run_until_complete(let_run())
        assert self.working.total() == self.turns.running <= self.turns.most
        assert not self.turns.waiting or self.turns.running == self.turns.most
        self.calls = [call for call in self.calls if not call.done()]

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for call in self.calls:
                call.cancel()
            self.loop.run_until_complete(let_run())
            self.loop.close()


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=60, stateful_step_count=30)


# --- a whole call ---


async def test_a_call_beyond_its_deadline_is_cancelled_and_gives_its_turn_back() -> None:
    gate = Admission(0, 1, 0.0, lambda: 0.0)
    stopped = False
    with pytest.raises(Problem) as late:
        async with gate.turn("a"):
            try:
                await asyncio.Event().wait()
            finally:
                stopped = True
    assert (late.value.status, late.value.code) == (503, "deadline")
    assert stopped
    assert gate.turns.running == 0


async def test_waiting_and_what_comes_before_a_turn_count_towards_the_deadline() -> None:
    gate = Admission(0, 1, 0.0, lambda: 0.0)
    gate.turns.running = 1
    for before in (None, asyncio.Event().wait):
        with pytest.raises(Problem, match="not done"):
            async with gate.turn("a", before):
                raise AssertionError("it has no turn")
    assert gate.turns.waiting == 0


async def test_a_timeout_of_the_works_own_is_its_own() -> None:
    gate = Admission(0, 1, 60.0, lambda: 0.0)
    with pytest.raises(TimeoutError):
        async with gate.turn("a"):
            raise TimeoutError("the peer's")
    assert gate.turns.running == 0


async def test_a_client_beyond_its_rate_is_told_so() -> None:
    gate = Admission(2, 1, 60.0, lambda: 0.0)
    gate.count("a")
    gate.count("a")
    with pytest.raises(Problem) as refused:
        gate.count("a")
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")
    gate.count("b")


def test_the_queue_of_one_client_is_a_part_of_all() -> None:
    assert admission.WAITING_PER_CLIENT * 2 <= admission.WAITING_MAX
