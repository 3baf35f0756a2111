"""A hub commits what is pending, once, whatever happens in between; and stops when it is not the one to go on."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crdt.op import Op
from ledger.entry import Kind, decode, text_hash
from ledger.log import Batch, Head
from ledger.quorum import NoQuorum
from node.breaker import State
from node.database import Database
from node.errors import Problem
from node.voting import hub as hubs
from node.voting.commits import OneDisk
from node.voting.hub import ANNOUNCE_BURST, ANNOUNCE_S, RETRY_MOST_S
from node.voting.mark import Mark
from node.voting.permission import Mode
from tests.node.voting.hubs import PROJECT, Site, authority_secret, follow, founder, joined, pull
from tests.node.world import a_record

Found = Callable[..., Awaitable[Site]]


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Found]:
    sites: list[Site] = []

    async def make(name: str = "hub", engine: str = "solo", of: Site | None = None) -> Site:
        path = tmp_path / name
        sites.append(await (joined(path, of, engine) if of else founder(path, engine)))
        return sites[-1]

    yield make
    for site in sites:
        site.crash()


async def voted(site: Site, count: int = 1, agent: str = "anna") -> list[bytes]:
    """Votes of an agent on as many new facts."""
    site.now_ms += 1
    facts = await site.write(*(a_record(f"fact {number}", PROJECT) for number in range(count)))
    said = [site.vote_on(agent, fact, 1, 1, site.now_ms + number) for number, fact in enumerate(facts)]
    site.now_ms += count
    await site.write(*(draft for _, draft in said))
    return [signed for signed, _ in said]


async def test_what_is_pending_is_committed_signed_and_told(found: Found) -> None:
    hub = await found()
    await hub.enrol("anna")
    (signed,) = await voted(hub)
    await hub.settle()
    kinds = [decode(raw).kind for raw in hub.table.read_entries(0, 9)]
    assert kinds == [Kind.GENESIS, Kind.ENROLMENT, Kind.GRANT, Kind.ENROLMENT, Kind.VOTE]
    assert hub.acknowledged[text_hash(signed)] == 4 and hub.pending() == 0
    report = hub.check()
    assert report.ok and report.opened and report.opened.checkpoint.size == 5
    assert Mark(hub.me.home.ledger_mark).read() == (1, 5, report.root)
    assert hub.hub.state() == {
        "mode": "idle", "reason": None, "engine": "solo", "waiting": 0, "failures": 0, "signed": 5,
    }  # fmt: skip
    assert not hub.alerts


async def test_more_than_a_batch_is_committed_in_batches(found: Found) -> None:
    hub = await found()
    await hub.enrol("anna")
    signed = await voted(hub, 230)
    await hub.settle()
    assert hub.texts()[4:] == signed, "the oldest first"
    sizes = [size for (size,) in hub.rows("SELECT size FROM ledger_checkpoints ORDER BY size")]
    assert sizes == [3, 103, 203, 234]
    assert hub.check().ok


async def test_a_fault_of_ours_is_shown_and_tried_again(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = await found()
    turned = asyncio.Event()

    async def faulty() -> float | None:
        turned.set()
        raise ValueError("a bug")

    monkeypatch.setattr(hub.hub, "turn", faulty)
    hub.hub.start()
    await turned.wait()
    state = hub.hub.state()
    await hub.hub.stop()
    assert (state["mode"], state["reason"], state["failures"]) == (Mode.RETRYING, "a bug", 1)


async def test_it_works_as_a_task_and_is_woken(found: Found) -> None:
    hub = await found()
    heard: asyncio.Queue[list[tuple[bytes, int]]] = asyncio.Queue()
    hub.hub.on_entries = heard.put_nowait
    await hub.enrol("anna")
    hub.hub.start()
    assert [index for _, index in await asyncio.wait_for(heard.get(), 10)] == [3]
    (signed,) = await voted(hub)
    hub.hub.wake()
    assert await asyncio.wait_for(heard.get(), 10) == [(text_hash(signed), 4)]
    await hub.hub.stop()
    await hub.hub.stop()


async def test_what_was_sent_twice_has_one_entry(found: Found) -> None:
    hub = await found()
    await hub.enrol("anna")
    fact = await hub.fact()
    await hub.vote("anna", fact)
    await hub.settle()
    for forget in ("UPDATE ballots SET entry = NULL", "UPDATE statements SET entry = NULL WHERE kind = 2"):
        await hub.database.write(lambda connection, sql=forget: connection.execute(sql))  # type: ignore[misc]
    await hub.settle()
    assert hub.size == 5 and hub.pending() == 0
    assert hub.rows("SELECT count(*) FROM statements WHERE entry IS NULL") == [(0,)]


async def test_it_is_told_at_once_when_idle_and_once_a_second_under_load(found: Found) -> None:
    hub = await found()
    await hub.enrol("anna")
    await hub.settle()
    hub.now_s += 10
    hub.sent.clear()

    async def commit() -> float | None:
        await voted(hub)
        hub.hub.wake()
        while (delay := await hub.hub.turn()) == 0.0:
            pass
        return delay

    def announced() -> list[int]:
        return [int(op.subject.rpartition("/")[2]) for op in hub.sent if op.header.kind == "checkpoint"]

    at_once = list(range(5, 5 + ANNOUNCE_BURST))
    for _ in at_once:
        assert await commit() is None
    assert announced() == at_once
    for _ in range(3):
        hub.now_s += ANNOUNCE_S / 4
        delay = await commit()
    assert announced() == at_once and delay == pytest.approx(ANNOUNCE_S / 4)
    hub.now_s += delay or 0.0
    assert await hub.hub.turn() is None
    assert announced() == [*at_once, at_once[-1] + 3]
    assert await commit() == pytest.approx(ANNOUNCE_S), "under load, once in that time"


# --- what is not to be appended ---


async def test_only_the_granted_hub_appends(found: Found) -> None:
    hub = await found()
    other = await found("other", "solo", of=hub)
    await other.enrol("anna")
    await voted(other)
    for site in (hub, other):
        await site.settle()
    await pull(other, hub)
    await follow(other)
    await other.settle()
    assert other.size == 3 and other.hub.mode is Mode.NOT_GRANTED and other.alerts[0][0] == "ledger_not_granted"
    await pull(hub, other)
    await hub.settle()
    assert hub.size == 5 and hub.check().ok
    await pull(other, hub)
    await follow(other)
    assert other.texts() == hub.texts() and other.pending() == 0


async def test_a_mesh_that_was_founded_without_a_hub_tells_its_ledger_and_waits(found: Found) -> None:
    site = await found("idle", "none")
    await site.enrol("anna")
    await voted(site)
    await site.settle()
    assert site.hub.mode is Mode.DORMANT and site.size == 3 and site.pending() == 1
    assert {op.header.kind for op in site.sent} == {"checkpoint", "statement", "entries"}
    with pytest.raises(Problem) as caught:
        await site.hub.takeover(authority_secret(site), site.now_ms)
    assert caught.value.code == "no_engine" and caught.value.field == "quorum.engine"
    site.crash()
    await site.open("solo")
    await site.hub.takeover(authority_secret(site), site.now_ms)
    await site.settle()
    assert site.size == 6 and site.pending() == 0 and site.check().ok


async def test_damage_between_commit_and_signature_freezes_it_for_good(found: Found) -> None:
    hub = await found()
    await hub.enrol("anna")
    commit = OneDisk.commit

    async def damaged(self: OneDisk, batch: Batch) -> None:
        await commit(self, batch)
        spoil = (
            "UPDATE ledger_entries SET raw = CAST(substr(raw, 1, 40) || x'00' || substr(raw, 42) AS BLOB) WHERE id = 3"
        )
        await hub.database.write(lambda connection: connection.execute(spoil))

    hub.hub._commits._quorum.commit = damaged.__get__(hub.hub._commits._quorum)  # type: ignore[method-assign]
    await hub.settle()
    assert hub.hub.mode is Mode.FROZEN and [code for code, _ in hub.alerts] == ["ledger_frozen"]
    assert hub.rows("SELECT max(size) FROM ledger_checkpoints") == [(3,)] and not hub.acknowledged
    hub.crash()
    await hub.open()
    await voted(hub)
    await hub.settle()
    assert hub.hub.mode is Mode.FROZEN and hub.size == 4
    with pytest.raises(Problem, match="wrong with the ledger"):
        await hub.hub.takeover(authority_secret(hub), hub.now_ms)


# --- a database that is not the newest ---


async def grown(hub: Site, path: Path, votes: int = 3) -> None:
    """A ledger of four, a backup of it, and more votes."""
    await hub.enrol("anna")
    await hub.settle()
    await hub.database.write(lambda connection: None)
    hub.crash()
    hub.backup(path)
    await hub.open()
    await voted(hub, votes)
    await hub.settle()


async def test_a_hub_that_was_restored_appends_nothing_until_it_has_caught_up(found: Found, tmp_path: Path) -> None:
    hub = await found()
    peer = await found("peer", "none", of=hub)
    await grown(hub, tmp_path / "backup")
    await pull(peer, hub)
    before = hub.texts()
    hub.crash()
    hub.restore(tmp_path / "backup")
    await hub.open()
    await voted(hub, 2)
    await hub.settle()
    assert hub.hub.mode is Mode.BEHIND and "has signed 7 entries" in hub.hub.state()["reason"]
    assert hub.size == 4 and hub.alerts[-1][0] == "ledger_behind"
    await pull(hub, peer)
    await follow(hub)
    assert hub.texts() == before
    await hub.settle()
    assert hub.texts()[:7] == before and hub.size == 9 and hub.pending() == 0
    assert hub.check().ok and hub.hub.mode is Mode.IDLE


async def test_a_ledger_that_contradicts_the_mark_freezes_the_hub(found: Found) -> None:
    hub = await found()
    await hub.enrol("anna")
    await hub.settle()
    mark = Mark(hub.me.home.ledger_mark)
    mark.write(mark.read()._replace(root=bytes(32)))  # type: ignore[union-attr]
    hub.crash()
    await hub.open()
    await voted(hub)
    await hub.settle()
    assert hub.hub.mode is Mode.FROZEN and hub.size == 4
    with pytest.raises(Problem) as caught:
        await hub.hub.takeover(authority_secret(hub), hub.now_ms)
    assert caught.value.code == "ledger_frozen"
    await hub.hub.takeover(authority_secret(hub), hub.now_ms, abandon=True)
    await hub.settle()
    assert hub.size == 6 and hub.hub.mode is Mode.IDLE and hub.check().ok


# --- takeover ---


async def test_another_node_takes_over_and_the_former_hub_stops_by_itself(found: Found) -> None:
    hub = await found()
    heir = await found("heir", "solo", of=hub)
    await hub.enrol("anna")
    await voted(hub, 3)
    await hub.settle()
    await pull(heir, hub)
    await follow(heir)
    answer = await heir.hub.takeover(authority_secret(hub), heir.now_ms)
    assert answer == {"epoch": 2, "start": 7, "abandoned": 0}
    await heir.settle()
    assert heir.check().ok and heir.size == 8
    await pull(hub, heir, ["_mesh"])
    await voted(hub, 2)
    await hub.settle()
    assert hub.size == 7 and hub.hub.mode is Mode.NOT_GRANTED
    await pull(heir, hub)
    await heir.settle()
    assert heir.size == 10 and heir.pending() == 0 and heir.check().ok
    await pull(hub, heir)
    await follow(hub)
    assert hub.texts() == heir.texts() and hub.pending() == 0 and hub.check().ok


async def test_votes_of_an_abandoned_tail_are_committed_again(found: Found) -> None:
    hub = await found()
    heir = await found("heir", "solo", of=hub)
    await hub.enrol("anna")
    await hub.settle()
    await pull(heir, hub)
    await follow(heir)
    signed = await voted(hub, 3)
    await hub.settle()
    await pull(heir, hub, ["_mesh"])
    await follow(heir)
    secret = authority_secret(hub)
    with pytest.raises(Problem) as caught:
        await heir.hub.takeover(secret, heir.now_ms)
    assert caught.value.code == "ledger_incomplete" and "first 4 entries of 7" in caught.value.detail
    await heir.hub.takeover(secret, heir.now_ms, abandon=True)
    await heir.settle()
    await pull(heir, hub)
    await follow(heir)
    await heir.settle()
    assert sorted(heir.texts()[5:]) == sorted(signed) and heir.check().ok
    await pull(hub, heir)
    await follow(hub)
    assert hub.texts() == heir.texts() and hub.pending() == 0


async def test_a_crash_in_the_middle_of_a_takeover_is_taken_up(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = await found()
    await hub.enrol("anna")
    await hub.settle()

    async def gone(*_: Any, **__: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(hub.hub, "_publish", gone)
        await hub.hub.takeover(authority_secret(hub), hub.now_ms)
    assert hub.size == 5
    hub.crash()
    await hub.open()
    await voted(hub)
    await hub.settle()
    assert hub.size == 6 and hub.hub.mode is Mode.IDLE and hub.check().ok
    assert [op.subject for op in hub.sent if op.header.kind == "checkpoint"] == [
        "ledger/checkpoint/4",
        "ledger/checkpoint/6",
    ]


async def test_two_takeovers_of_one_epoch_stop_each_other_until_a_third(found: Found) -> None:
    hub = await found()
    heirs = [await found(name, "solo", of=hub) for name in ("one", "two")]
    await hub.enrol("anna")
    await hub.settle()
    secret = authority_secret(hub)
    for heir in heirs:
        await pull(heir, hub)
        await follow(heir)
        await heir.hub.takeover(secret, heir.now_ms)
        await heir.settle()
    one, two = heirs
    await pull(one, two)
    await pull(two, one)
    for heir in heirs:
        await voted(heir)
        await heir.settle()
        assert heir.hub.mode is Mode.NOT_GRANTED and "two grants for epoch 2" in heir.hub.state()["reason"]
        assert heir.size == 5
    assert (await one.hub.takeover(secret, one.now_ms))["epoch"] == 3
    await pull(one, two)
    await one.settle()
    assert one.check().ok and one.size == 8
    await pull(two, one)
    await follow(two)
    await two.settle()
    assert two.texts() == one.texts() and two.hub.mode is Mode.NOT_GRANTED


# --- failures ---


async def test_nobody_is_told_before_the_mark_is_written(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = await found()
    await hub.settle()
    hub.sent.clear()
    await hub.enrol("anna")
    hub.hub.wake()

    def full(self: Mark, signed: Any) -> None:
        raise Problem(500, "ledger_mark_damaged", "the disk is full", "make room")

    with monkeypatch.context() as patch:
        patch.setattr(Mark, "write", full)
        for _ in range(3):
            hub.now_s += RETRY_MOST_S
            await hub.hub.turn()
        assert hub.size == 4 and hub.hub.mode is Mode.RETRYING
        assert not hub.acknowledged and not hub.sent
    hub.now_s += RETRY_MOST_S
    await hub.settle()
    assert sorted(hub.acknowledged.values()) == [3] and hub.sent


class Unsure:
    """A quorum of one disk that fails when it is told to: before the batch is stored, or after."""

    def __init__(self, inner: OneDisk, failures: list[str]) -> None:
        self._inner = inner
        self.failures = failures
        self.batches: list[Batch] = []

    async def head(self) -> Head:
        if self.failures[:1] == ["gone"]:
            raise NoQuorum("gone")
        return await self._inner.head()

    async def commit(self, batch: Batch) -> None:
        self.batches.append(batch)
        failure = self.failures.pop(0) if self.failures else ""
        if failure != "not stored":
            await self._inner.commit(batch)
        if failure:
            raise NoQuorum(failure)


@pytest.mark.parametrize("failures", [["stored"], ["not stored"], ["not stored"] * 3, ["not stored", "stored"]])
async def test_an_uncertain_commit_is_settled_before_another_batch_is_sent(found: Found, failures: list[str]) -> None:
    hub = await found()
    quorum = hub.hub._commits._quorum = Unsure(OneDisk(hub.database), failures)
    await hub.enrol("anna")
    hub.hub.wake()
    waits = []
    while quorum.failures:
        waits.append(await hub.hub.turn())
        await voted(hub)
        hub.now_s += (waits[-1] or 0.0) / 2
        assert await hub.hub.turn() == pytest.approx((waits[-1] or 0.0) / 2), "it rests"
        assert hub.hub.mode is Mode.RETRYING
        hub.now_s += waits[-1] or 0.0
    assert waits == [2.0**number for number in range(len(waits))]
    await hub.settle()
    assert all(batch == quorum.batches[0] for batch in quorum.batches[: len(failures)]), "the same, until it is known"
    assert hub.pending() == 0 and hub.check().ok and hub.size == 4 + len(waits)


async def test_what_fails_for_long_is_tried_once_a_minute(found: Found) -> None:
    hub = await found()
    hub.hub._commits._quorum = Unsure(OneDisk(hub.database), ["not stored", *["gone"] * 30])
    await hub.enrol("anna")
    hub.hub.wake()
    for _ in range(12):
        delay = await hub.hub.turn()
        hub.now_s += delay or 0.0
    assert delay == RETRY_MOST_S and hub.hub.state()["failures"] == 12
    assert hub.hub.breaker.state is State.HALF_OPEN or hub.hub.breaker.state is State.OPEN


class Crash(Exception):
    """The process is gone."""


class Crashing(Database):
    """A database whose process is gone after the write of number `crash_at`, or just before."""

    crash_at = -1
    stored = False
    writes = 0

    async def write(
        self, job: Callable[[sqlite3.Connection], Any], after: Callable[[Any], None] = lambda _: None
    ) -> Any:
        cls = type(self)
        cls.writes += 1
        crashes = cls.writes == cls.crash_at
        if crashes and not cls.stored:
            raise Crash
        result = await super().write(job, (lambda _: None) if crashes else after)
        if crashes:
            raise Crash
        return result


async def work(hub: Site, chance: random.Random, facts: list[Op]) -> None:
    """A few statements and votes, and turns of the hub."""
    for _ in range(chance.randrange(1, 5)):
        agent = chance.choice(["anna", "ben", "carl"])
        match chance.randrange(6):
            case 0:
                await hub.enrol(agent)
            case 1:
                facts.append(await hub.fact(f"fact {len(facts)}"))
            case _ if facts:
                await hub.vote(agent, chance.choice(facts), chance.choice([1, -1, 0]), chance.randrange(1, 4))
        hub.hub.wake()
        for _ in range(chance.randrange(4)):
            await hub.hub.turn()
            hub.now_s += chance.random()


@pytest.mark.parametrize("seed", range(12))
async def test_a_crash_between_any_two_jobs_loses_nothing_and_doubles_nothing(
    found: Found, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    hub = await found()
    peer = await found("peer", "none", of=hub)
    hub.make_database = Crashing
    hub.crash()
    Crashing.crash_at = -1
    await hub.open()
    write = Mark.write

    def lost(self: Mark, signed: Any) -> None:
        if chance.random() < 0.05:
            raise Crash
        write(self, signed)

    monkeypatch.setattr(Mark, "write", lost)
    facts: list[Op] = []
    crashes = 0
    while crashes < 12:
        Crashing.writes, Crashing.crash_at = 0, chance.randrange(1, 30)
        Crashing.stored = chance.random() < 0.5
        try:
            while True:
                await work(hub, chance, facts)
        except Crash:
            crashes += 1
            Crashing.crash_at = -1
            hub.crash()
            await hub.open()
            known = {op.subject for op in facts}
            facts = [op for op in facts if hub.rows("SELECT 1 FROM ops WHERE subject = ?", op.subject)]
            assert len(facts) == len(known)
    monkeypatch.setattr(Mark, "write", write)
    hub.now_s += 1_000
    await hub.settle()
    texts = hub.texts()
    assert len(texts) == len(set(texts)) == hub.size == hub.rows("SELECT max(id) + 1 FROM ledger_entries")[0][0]
    report = hub.check()
    assert report.ok and report.checked == hub.size
    await pull(peer, hub)
    await follow(peer)
    assert peer.texts() == texts, "every entry was announced, with its proof"
    for table in ("tallies", "reputations", "agents"):
        order = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
        assert hub.rows(order) == peer.rows(order)


def test_its_numbers() -> None:
    assert hubs.RETRY_S < RETRY_MOST_S and ANNOUNCE_S <= 1.0
