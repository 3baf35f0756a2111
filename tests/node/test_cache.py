"""A kept answer is the answer: for any order of writes, synced writes, reads that overlap them, and time that passes.

`Overlapping` drives the cache alone through interleavings of a commit's phases with reads in flight. The second law
runs two real nodes and compares each answer with that of a node without a cache. The rest is bounds and counters.
"""

import asyncio
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from types import coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crdt.op import Op
from node.cache import LARGEST_SHARE, Cache, Computed, Entry, Lru
from node.errors import Problem
from node.generations import EVERYTHING, Generations
from node.metrics import Metric
from node.recall import Recall
from node.replica import Replica
from node.requests import FactChanges, LinkChange, SearchRequest, TagChange
from tests.node.world import NOW_MS, Forger, Node, a_mesh, sync

SCOPES = ["garden", "yard", EVERYTHING]
PERIOD_MS = 10


def counters() -> tuple[Metric, Metric]:
    return Metric("hits", "counter", "", ("tier",)), Metric("misses", "counter", "", ("tier",))


@coroutine
def a_pause() -> Generator[None, None, None]:
    """Whoever drives the coroutine decides when it goes on."""
    yield


class Shelf:
    """A second tier that answers whenever its driver lets it, and forgets nothing."""

    def __init__(self) -> None:
        self.kept: dict[tuple[bytes, str, int], Entry] = {}

    async def get(self, key: bytes, scope: str, generation: int) -> Entry | None:
        await a_pause()
        return self.kept.get((key, scope, generation))

    def put(self, key: bytes, entry: Entry) -> None:
        self.kept[key, entry.scope, entry.generation] = entry


@dataclass
class Call:
    """One question on its way, and every answer that was right at some moment since it was asked."""

    scope: str
    work: Coroutine[Any, Any, Any]
    right: list[list[int]] = field(default_factory=list)


class Overlapping(RuleBasedStateMachine):
    """What is true of a scope is (how often it was written, which period of time it is)."""

    @initialize(deep=st.booleans(), entries=st.sampled_from([0, 2, 100]))
    def begin(self, deep: bool, entries: int) -> None:
        self.generations = Generations()
        self.now_ms = 1_000
        self.shelf = Shelf()
        self.cache = Cache(
            self.generations, lambda: self.now_ms, Lru(entries, 1 << 20), *counters(), self.shelf if deep else None
        )
        self.written = dict.fromkeys(SCOPES, 0)
        self.phase = "idle"
        self.touched: set[str] = set()
        self.calls: list[Call] = []

    def true(self, scope: str) -> list[int]:
        return [self.written[scope], self.now_ms // PERIOD_MS]

    # A commit, in its phases

    @precondition(lambda self: self.phase == "idle")
    @rule(touched=st.sets(st.sampled_from(SCOPES[:2]), min_size=1))
    def before_commit(self, touched: set[str]) -> None:
        self.touched, self.phase = touched | {EVERYTHING}, "begun"
        self.generations.begin(touched)

    @precondition(lambda self: self.phase == "begun")
    @rule()
    def commit(self) -> None:
        self.phase = "done"
        for scope in self.touched:
            self.written[scope] += 1

    @precondition(lambda self: self.phase in ("begun", "done"))
    @rule()
    def after_commit_or_rollback(self) -> None:
        self.phase = "idle"
        self.generations.end()

    @rule(touched=st.sets(st.sampled_from(SCOPES[:2]), min_size=1))
    def change_in_memory(self, touched: set[str]) -> None:
        for scope in touched | {EVERYTHING}:
            self.written[scope] += 1
        self.generations.move(touched)

    # Time

    @rule(ms=st.integers(-PERIOD_MS // 2, PERIOD_MS // 2))
    def let_time_pass(self, ms: int) -> None:
        self.now_ms += ms

    # Questions

    @rule(scope=st.sampled_from(SCOPES), deep=st.booleans(), steps=st.integers(1, 4))
    def ask(self, scope: str, deep: bool, steps: int) -> None:
        async def compute() -> Computed:
            await a_pause()
            answer, now_ms = self.true(scope), self.now_ms
            await a_pause()
            since = now_ms // PERIOD_MS * PERIOD_MS
            return Computed(answer, scope, since, since + PERIOD_MS)

        call = Call(scope, self.cache.answer(scope.encode(), scope, compute, deep=deep))
        self.calls.append(call)
        self.note_what_is_true()
        for _ in range(steps):
            if call in self.calls:
                self.let_go_on(self.calls.index(call))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 100))
    def let_go_on(self, which: int) -> None:
        call = self.calls[which % len(self.calls)]
        try:
            call.work.send(None)
        except StopIteration as ended:
            self.calls.remove(call)
            assert ended.value in call.right, f"{call.scope} was answered {ended.value}, right was {call.right}"

    @invariant()
    def note_what_is_true(self) -> None:
        for call in getattr(self, "calls", []):
            if (truth := self.true(call.scope)) not in call.right:
                call.right.append(truth)

    def teardown(self) -> None:
        for call in getattr(self, "calls", []):
            call.work.close()


TestOverlapping = Overlapping.TestCase
TestOverlapping.settings = settings(max_examples=150, stateful_step_count=40)


# --- two nodes ---

PROJECTS = ["garden", "yard"]
WORDS = st.sampled_from(["valve", "pump", "the valve leaks", "a pump and a valve"])
TIMES = st.none() | st.integers(-3, 6).map(lambda step: f"2027-01-15T08:0{step + 3}:00Z")
QUESTIONS = st.builds(
    SearchRequest,
    query=st.sampled_from(["valve", "pump leaks"]),
    project=st.sampled_from([None, *PROJECTS, "nowhere"]),
    tags=st.sampled_from([[], ["wet"]]),
    top_k=st.sampled_from([1, 10]),
    as_of=st.none() | st.just("2027-01-15T08:04:00Z"),
)
STEP_MS = 60_000
"""NOW_MS is 2027-01-15T08:00:00Z; validity in TIMES begins and ends around it, in steps of a minute."""


@st.composite
def changes(draw: st.DrawFn) -> tuple[Any, ...]:
    """(what, on which node, with what)."""
    what = draw(
        st.sampled_from(
            ["store", "store", "time", "time", "sync", "held", "update", "tag", "link", "append", "retract", "restore"]
        )
    )
    return (
        what,
        draw(st.integers(0, 1)),
        draw(st.integers(0, 5)),
        draw(WORDS),
        draw(TIMES),
        draw(st.sampled_from(PROJECTS)),
    )


@dataclass
class Mesh:
    """Two nodes, the facts that they made, and what a third with a clock of its own has sent."""

    nodes: list[Node]
    third: Forger = field(default_factory=lambda: Forger(9))
    ids: list[str] = field(default_factory=list)
    sent: list[Op] = field(default_factory=list)


async def change(mesh: Mesh, step: tuple[Any, ...]) -> None:
    what, which, number, words, time, project = step
    nodes, ids, sent = mesh.nodes, mesh.ids, mesh.sent
    node, replica = nodes[which], nodes[which].replica
    name = ids[number % len(ids)] if ids else ""
    match what:
        case "store":
            fact = await node.create(words, project=project, valid_from=time, source="ann")
            ids.append(fact["id"])
        case "sync":
            await sync(*nodes)
        case "time":
            for one in nodes:
                one.now_ms += (number - 2) * STEP_MS
        case "held":
            later, before = (NOW_MS + (number + 4) * STEP_MS) << 16, sent[-1] if sent else None
            sent.append(mesh.third.op(2 + len(sent), before, content=words, project="garden", timestamp=later))
            await node.merge(sent)
            await node.database.write(lambda connection: node.store.release(connection, node.now_ms))
        case "update":
            await replica.update(name, FactChanges(content=words, valid_until=time))
        case "tag":
            await replica.tag(name, TagChange(add=["wet"]) if number % 2 else TagChange(remove=["wet"]))
        case "link":
            await replica.link(name, LinkChange(relation="see", to=name))
        case "append":
            await replica.update(name, FactChanges(append=words))
        case "retract":
            await replica.retract(name)
        case "restore":
            await replica.update(name, FactChanges(restore=True))


async def outcome(call: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await call
    except Problem as problem:
        return problem.code


@settings(max_examples=60)
@given(st.lists(changes(), min_size=6, max_size=12), st.lists(QUESTIONS, min_size=4, max_size=6), st.integers(0, 6))
def test_a_kept_answer_is_the_one_that_would_be_computed(
    steps: list[tuple[Any, ...]], questions: list[SearchRequest], elsewhere: int
) -> None:
    """`elsewhere`: facts of another project, beside which the ones in question are small or not."""

    async def run() -> None:
        mesh = Mesh(await a_mesh(2))
        for node in mesh.nodes:
            await node.merge([mesh.third.introduction()])
            for number in range(elsewhere):
                await node.create(f"the valve {number} elsewhere", project="elsewhere")
        for step in steps:
            await outcome(change(mesh, step))
            for node in mesh.nodes:
                plain = Recall(node.store, node.limits, lambda n=node: n.now_ms, node.recall.freshness)  # type: ignore[misc]
                for question in questions:
                    assert await outcome(node.recall.search(question)) == await outcome(plain.search(question))
                bare = Replica(node.store, node.limits, lambda n=node: n.now_ms)  # type: ignore[misc]
                for name in mesh.ids:
                    for retracted in (False, True):
                        kept = await outcome(node.replica.get(name, retracted=retracted))
                        assert kept == await outcome(bare.get(name, retracted=retracted))

    asyncio.run(run())


async def test_a_second_question_is_answered_from_memory_until_something_is_written_about_it() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("the valve leaks"))["id"]
    other = (await node.create("the pump leaks"))["id"]
    for _ in range(3):
        await node.recall.search(SearchRequest(query="valve"))
        await node.replica.get(name)
    hits = node.metrics.cache_hits.values
    assert hits == {("l1",): 4}
    await node.replica.tag(other, TagChange(add=["wet"]))
    await node.replica.get(name)
    assert hits == {("l1",): 5}, "another fact was written"
    await node.recall.search(SearchRequest(query="valve"))
    assert hits == {("l1",): 5}, "its project was written"


async def test_a_small_project_does_not_care_for_writes_elsewhere() -> None:
    (node,) = await a_mesh(1)
    for number in range(3):
        await node.create(f"the pump {number} leaks", project="large")
    await node.create("the valve leaks", project="small")
    question = SearchRequest(query="valve", project="small")
    await node.recall.search(question)
    await node.create("the pump leaks", project="large")
    await node.recall.search(question)
    assert node.metrics.cache_hits.values == {("l1",): 1}


async def test_a_large_project_does_since_they_make_its_words_rarer() -> None:
    (node,) = await a_mesh(1)
    for content in ("a pump", "the valve leaks", "a gate", "a hose"):
        await node.create(content, project="large")
    question = SearchRequest(query="pump leaks", project="large")
    before = await node.recall.search(question)
    for _ in range(2):
        await node.create("a pump", project="small")
    assert await node.recall.search(question) != before
    assert node.metrics.cache_hits.values == {}


async def test_answers_are_copies() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("the valve leaks", tags=["wet"]))["id"]
    for _ in range(3):
        fact = await node.replica.get(name)
        assert fact["tags"] == ["wet"]
        fact["tags"].append("mine")


async def a_computed(answer: int, scope: str | None) -> Computed:
    return Computed(answer, scope)


async def test_nothing_is_kept_or_given_while_its_scope_is_moving() -> None:
    generations = Generations()
    cache = Cache(generations, lambda: 0, Lru(10, 1 << 20), *counters())
    for answer in (1, 2):
        generations.begin(["garden"])
        assert await cache.answer(b"k", "garden", lambda n=answer: a_computed(n, "garden")) == answer  # type: ignore[misc]
        assert len(cache.lru) == 0
    generations.end()
    assert await cache.answer(b"k", "garden", lambda: a_computed(3, "garden")) == 3


@pytest.mark.parametrize("scope", ["yard", EVERYTHING, None])
async def test_an_answer_that_turns_out_to_depend_on_something_else_is_not_kept(scope: str | None) -> None:
    cache = Cache(Generations(), lambda: 0, Lru(10, 1 << 20), *counters())
    for answer in (1, 2):
        assert await cache.answer(b"k", "garden", lambda n=answer: a_computed(n, scope)) == answer  # type: ignore[misc]


# --- bounds ---


def entry(size: int, generation: int = 0) -> Entry:
    return Entry("garden", generation, None, None, b"x" * size)


def test_the_least_recently_used_leaves_first() -> None:
    lru = Lru(2, 1 << 20)
    for key in (b"a", b"b"):
        lru.put(key, entry(1))
    assert lru.get(b"a")
    lru.put(b"c", entry(1))
    assert [lru.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.integers(0, 3_000)), max_size=60))
def test_the_bounds_hold_and_the_bytes_are_counted_right(puts: list[tuple[bytes, int]]) -> None:
    lru = Lru(4, 16_000)
    for key, size in puts:
        lru.put(key, entry(size))
        assert len(lru) <= 4
        assert lru.bytes <= 16_000
    for key in (b"a", b"b", b"c", b"d", b"e"):
        lru.drop(key)
    assert (lru.bytes, len(lru)) == (0, 0)


def test_one_huge_answer_does_not_drive_out_all_others() -> None:
    lru = Lru(100, 80_000)
    lru.put(b"small", entry(10))
    lru.put(b"huge", entry(80_000 // LARGEST_SHARE))
    assert lru.get(b"small")
    assert lru.get(b"huge") is None


def test_bounds_can_be_drawn_in_and_let_out() -> None:
    lru = Lru(100, 80_000)
    for number in range(50):
        lru.put(b"%d" % number, entry(100))
    lru.bound(10, 80_000)
    assert len(lru) == 10
    lru.bound(100, 2_000)
    assert lru.bytes <= 2_000
    lru.bound(100, 80_000)
    lru.put(b"again", entry(100))
    assert lru.get(b"again")


@pytest.mark.parametrize("failing", [Problem(404, "unknown_fact", "none"), RuntimeError("broken")])
async def test_what_fails_is_not_kept(failing: Exception) -> None:
    cache = Cache(Generations(), lambda: 0, Lru(10, 1 << 20), *counters())

    async def fail() -> Computed:
        raise failing

    for _ in range(2):
        with pytest.raises(type(failing)):
            await cache.answer(b"k", "garden", fail)
    assert len(cache.lru) == 0
