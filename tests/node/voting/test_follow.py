"""The task: short jobs, no turn in vain, crashes between any two writes, and what it tells when."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crdt.op import Op
from ledger.verify import Finding
from node.database import Database
from node.errors import Problem
from node.voting import follow, inbox, records
from node.voting.follow import Follower, Listeners
from node.voting.intake import Intake, Waits
from node.voting.permission import Mode
from node.voting.records import Announced
from node.voting.table import ANNOUNCED
from tests.node.voting.world import (
    CA,
    PROJECT,
    Crash,
    Script,
    Voter,
    a_mesh,
    a_reader,
    announced,
    pull,
    script_of,
    settle,
    told,
)
from tests.node.world import member


def counted(node: Voter) -> list[int]:
    """How many jobs were written so far, in a list of one."""
    jobs, commit = [0], node.database.commit

    def commit_counted(job: Any) -> Any:
        jobs[0] += 1
        return commit(job)

    node.database.commit = commit_counted
    return jobs


async def test_without_a_grant_nothing_is_judged() -> None:
    script = script_of(2)
    reader = Voter(9)
    await reader.append(member(reader))
    await reader.merge(script.spoken(*script.beginning()[1:]))
    await told(reader, *announced(script))
    assert reader.accepted == 0 and reader.follower.state(reader.database.direct)["inbox"] == 4
    await told(reader, script.beginning()[0])
    assert reader.size == 5 and reader.follower.state(reader.database.direct)["inbox"] == 0


async def test_a_job_takes_in_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MAX_WORK", 5)
    monkeypatch.setattr(follow, "ROWS", 4)
    script = script_of(*[3] * 10)
    reader = await a_reader(script)
    await reader.append(*announced(script))
    jobs = counted(reader)
    await reader.follower.catch_up()
    assert reader.size == script.size
    assert 8 <= jobs[0] < 20


async def test_what_waits_is_looked_at_once_until_something_changes() -> None:
    """One pass over it and no more, however long it waits."""
    script = script_of(1, *[1] * 20)
    reader = await a_reader(script, *announced(script)[2:])
    assert reader.follower.state(reader.database.direct)["unproven"] == 20
    jobs = counted(reader)
    await reader.follower.catch_up()
    assert jobs[0] == 1
    await told(reader, *announced(script)[:2])
    assert reader.size == script.size and reader.follower.state(reader.database.direct)["inbox"] == 0


async def test_what_waits_for_a_root_is_not_judged_again_before_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who writes what never comes true costs everybody one look at each."""
    script = script_of(2, 3)
    reader = await a_reader(script)
    proved, absurd = script.proved([5, 6], 8), range(1 << 40, (1 << 40) + 20)
    await reader.append(
        *(records.checkpoint_draft(8, Announced(script.notes[8], since)) for since in absurd),
        *(records.entries_draft(PROJECT, 5, msgspec.structs.replace(proved, size=size)) for size in absurd),
    )
    judged, judge = list[str](), reader.follower._judge

    def noted(intake: Intake, kind: str, op: Op) -> Waits | None:
        judged.append(kind)
        return judge(intake, kind, op)

    monkeypatch.setattr(reader.follower, "_judge", noted)
    await reader.work()
    assert len(judged) == 40
    await told(reader, script.checkpoint(5, 3), script.entries([3, 4], 5))
    assert len(judged) == 42 and reader.size == 5
    await told(reader, script.checkpoint(8, 5))
    assert judged[42:].count("checkpoint") == 21 and judged[42:].count("entries") == 0
    assert reader.accepted == 8 and reader.follower.state(reader.database.direct)["inbox"] == 20
    judged.clear()
    await reader.database.write(inbox.put_back)
    await reader.work()
    assert judged.count("entries") > 20 and reader.follower.state(reader.database.direct)["inbox"] == 20


async def test_a_crash_in_any_write_loses_nothing_and_tells_nothing_twice() -> None:
    script = script_of(2, 3, 1)
    whole = await a_reader(script, *announced(script))
    for stored in (False, True):
        for crash_in in range(1, 6):
            reader = Voter(9)
            await reader.append(member(reader))
            await reader.merge(script.spoken(*script.beginning(), *announced(script)))
            reader.database.crash_in, reader.database.stored = crash_in, stored
            told_before = set[bytes]()
            try:
                await reader.follower.catch_up()
            except Crash:
                told_before = set(reader.committed)
                reader = reader.reopen()
            reader.database.crash_in = None
            await reader.work()
            assert reader.entries() == whole.entries() and reader.table.head() == whole.table.head()
            assert not (told_before and told_before & set(reader.committed)) and not reader.alerts


async def test_a_takeover_is_followed_in_one_transaction() -> None:
    old = script_of(3)
    new = old.hand_over(2).add("x")
    old.add("a", "b")
    drafts = [records.statement_draft(4, new.storage.texts[6] or b""), *announced(new)[2:]]
    for stored in (False, True):
        reader = await a_reader(old, *announced(old))
        before = (reader.table.head(), reader.entries())
        await reader.append(*drafts)
        reader.database.crash_in, reader.database.stored = 1, stored
        with pytest.raises(Crash):
            await reader.work()
        reader = reader.reopen()
        if not stored:
            assert (reader.table.head(), reader.entries()) == before
        await reader.work()
        assert (reader.table.head().epoch, reader.accepted) == (2, 8)


async def test_what_a_hub_told_before_its_grant_came_is_looked_at_again() -> None:
    old = script_of(3)
    new = old.hand_over(2).add("x")
    reader = await a_reader(old, *announced(new))
    assert (reader.size, reader.accepted) == (6, 6) and not reader.follower.state(reader.database.direct)["unproven"]
    await told(reader, records.statement_draft(4, new.storage.texts[6] or b""))
    assert reader.table.head() == new.storage.head() and not reader.alerts


async def test_votes_of_a_tail_that_was_left_behind_are_pending_again(tmp_path: Path) -> None:
    """And are committed again, by the hub that took over, with the same bytes."""
    hub, second, third = await a_mesh(tmp_path / "one", 3)
    (tmp_path / "two").mkdir()
    second = Voter(2, second.database, folder=tmp_path / "two")
    second.now_ms = hub.now_ms
    await second.enrol("ann")
    fact = await second.create("first")
    await settle(hub, second, third)
    size = second.size
    vote = await third.enrol("bob"), await second.vote("ann", fact, 1)
    await pull(hub, second)
    await pull(hub, third)
    await hub.work()
    await pull(third, hub)
    await third.work()
    assert third.size > size and set(vote) <= set(third.committed)
    assert second.hub is not None
    await second.hub.takeover(CA, second.now_ms, abandon=True)
    await pull(third, second)
    await third.work()
    assert not third.rows("SELECT * FROM ballots WHERE entry IS NOT NULL")
    await settle(second, third, hub)
    assert third.entries() == second.entries() == hub.entries() and not third.alerts
    assert set(vote) <= set(second.committed) and hub.hub is not None and hub.hub.mode is Mode.NOT_GRANTED
    assert not third.rows("SELECT * FROM ballots WHERE entry IS NULL")
    assert hub.table.state(ANNOUNCED) is None, "what another hub commits is for that one to tell"


async def test_a_hub_from_an_old_backup_comes_back_by_what_it_had_told(tmp_path: Path) -> None:
    hub, other = await a_mesh(tmp_path / "hub", 2)
    image = hub.image()
    await other.enrol("ann")
    await settle(hub, other)
    again = hub.restored(image)
    again.now_ms = hub.now_ms
    assert again.hub is not None
    await again.enrol("bob")
    await again.work()
    assert again.hub.mode is Mode.BEHIND and again.size == 3
    await settle(again, other)
    assert again.entries() == other.entries() and again.size == 5 and not again.table.frozen()


async def test_what_is_left_out_is_counted() -> None:
    script = script_of(2, 3)
    reader = await a_reader(script, script.checkpoint(5, 3), script.checkpoint(8, 5), script.entries([5, 6], 8))
    state = reader.follower.state(reader.database.direct)
    assert (state["accepted"], state["whole"], state["missing"], state["inbox"]) == (8, 3, 3, 0)


# The self-check


async def checked(node: Voter, *findings: Finding, paused: bool = False) -> list[str]:
    async def verify() -> dict[str, Any]:
        said = [{"index": one.index, "code": one.code, "detail": one.detail} for one in findings]
        return {"ok": not said, "findings": said}

    heard: list[str] = []
    follower = Follower(
        node.store, node.inbox, node.scores, node.ballots, node.secret, lambda: node.now_ms,
        Listeners(on_alert=lambda code, text: heard.append(f"{code}: {text}")), verify, lambda: paused,
    )  # fmt: skip
    await follower.self_check()
    return heard


async def test_damage_that_the_self_check_finds_is_told_and_freezes_a_hub() -> None:
    script = Script().found()
    for number in (1, 9):
        node = await a_reader(script, number=number)
        assert not await checked(node)
        for harmless in ("unsigned", "left_out", "fork", "frozen"):
            assert not await checked(node, Finding(None, harmless, "said elsewhere"))
        heard = await checked(node, Finding(2, "leaf", "another byte"))
        assert heard == ["ledger_damaged: entry 2: leaf: another byte"]
        assert (node.table.frozen() is not None) == (number == 1)


async def test_the_self_check_comes_every_six_hours_unless_the_node_is_under_pressure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = await a_reader(Script().found())
    checks: list[int] = []

    async def check() -> list[Finding]:
        checks.append(node.now_ms)
        raise Problem(503, "busy", "a verification is under way already", "come again when it has ended")

    monkeypatch.setattr(node.follower, "self_check", check)
    hour_ms, waits = 3_600_000, []
    for _ in range(13):
        waits.append(await node.follower._guarded(node.follower._turn))
        node.now_ms += hour_ms
    assert len(checks) == 2 and checks[1] - checks[0] == 6 * hour_ms
    assert all(follow.RETRY_S <= wait_s <= follow.SELF_CHECK_S for wait_s in waits)
    monkeypatch.setattr(node.follower, "_paused", lambda: True)
    node.now_ms += 6 * hour_ms
    assert await node.follower._turn() == follow.RETRY_S and len(checks) == 2


# The task itself, over the real database


async def test_the_task_wakes_by_what_comes_and_stops(tmp_path: Path) -> None:
    script = script_of(2, 2)
    node = Voter(9, Database(tmp_path / "cortex.db"))  # type: ignore[arg-type]
    heard = asyncio.Event()
    node.follower._listeners = Listeners(lambda places: heard.set() if any(at == 6 for _, at in places) else None)
    node.follower.start()
    await node.append(member(node))
    await node.merge(script.spoken(*script.beginning()))
    await node.append(*announced(script))
    async with asyncio.timeout(20):
        await heard.wait()
    await node.follower.stop()
    assert node.size == 7
    await node.stop()


async def test_after_a_failure_there_is_another_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RETRY_S", 0.0)
    node = await a_reader(Script().found())
    failures: list[Exception] = [Problem(507, "store_full", "the disk is full", "free some space"), ValueError("a bug")]
    done, catch_up = asyncio.Event(), node.follower.catch_up

    async def failing() -> None:
        if failures:
            raise failures.pop(0)
        done.set()
        await catch_up()

    monkeypatch.setattr(node.follower, "catch_up", failing)
    node.follower.start()
    async with asyncio.timeout(20):
        await done.wait()
    await node.follower.stop()
    assert [code for code, _ in node.alerts] == ["ledger_damaged"], "of the bug, not of the disk"
