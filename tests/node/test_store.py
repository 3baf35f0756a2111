"""The set of ops on disk. What is acknowledged is there after any stop, and what the books say is what the ops say.

`check` and `dump` are of tests/node/books.py, which makes the books from nothing but the bytes of the ops. The laws
over random histories: tests/node/test_store_laws.py.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt import fact
from crdt.fact import VALUE
from crdt.hlc import DEFAULT_AHEAD_MS, timestamp, wall_ms
from crdt.op import PREV_BYTES, OpClass, verify
from node.database import Database
from node.errors import Problem
from node.requests import FactChanges, TagChange
from node.store import HLC_RESERVE_MS, SEQ_BLOCK, Draft, UnknownAuthor
from sync import merkle
from sync.overlap import RESERVED
from tests.node.books import check, dump
from tests.node.world import (
    MESH,
    NOW_MS,
    PROJECT,
    Forger,
    Memory,
    Node,
    a_mesh,
    a_record,
    on_disk,
    sync,
)

# --- acknowledged is on disk ---


async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    node = on_disk(tmp_path / "n.db")
    await node.introduce()
    stored = [await node.create(f"fact {number}", tags=["t"]) for number in range(5)]
    await node.replica.update(stored[0]["id"], FactChanges(content="new", append="a body"))
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):  # what a power cut leaves: the files as they are now, nobody said goodbye
        copy.with_name(copy.name + suffix).write_bytes((tmp_path / f"n.db{suffix}").read_bytes())
    killed = on_disk(copy)
    assert {**dump(killed), "meta": None} == {**dump(node), "meta": None}
    assert killed.store.vector(PROJECT) == node.store.vector(PROJECT)
    assert killed.store.root(PROJECT) == node.store.root(PROJECT)
    assert (await killed.replica.get(stored[0]["id"]))["body"] == "a body"
    check(killed)
    node.database.close()
    killed.database.close()


async def test_a_clean_stop_skips_no_seq_and_an_unclean_one_skips_the_block(tmp_path: Path) -> None:
    node = on_disk(tmp_path / "n.db")
    (first,) = await node.append(a_record("one"))
    await node.stop()
    node = on_disk(tmp_path / "n.db")
    (second,) = await node.append(a_record("two"))
    assert second.seq == first.seq + 1
    assert second.author == first.author
    node.database.close()
    node = on_disk(tmp_path / "n.db")
    (third,) = await node.append(a_record("three"))
    assert third.author == first.author
    assert second.seq + SEQ_BLOCK // 2 <= third.seq <= second.seq + SEQ_BLOCK + 1
    assert third.header.prev_seq == second.seq
    check(node)
    node.database.close()


@settings(max_examples=10)
@given(st.lists(st.tuples(st.lists(st.integers(1, SEQ_BLOCK // 2), max_size=4), st.booleans()), min_size=1, max_size=5))
def test_no_seq_is_used_twice_whatever_the_stops(runs: list[tuple[list[int], bool]]) -> None:
    """And each was reserved by an earlier commit than its own, so also when the disk forgets the last one."""
    database = Memory()
    seqs: list[int] = []

    async def live() -> None:
        for jobs, clean in runs:
            node = Node(1, database)
            for length in jobs:
                ((reserved,),) = node.rows("SELECT value FROM meta WHERE key = 'seq'")
                seqs.extend(op.seq for op in await node.append(*[a_record("x")] * length))
                assert seqs[-1] <= reserved
            if clean:
                await node.database.write(node.store.stop)

    asyncio.run(live())
    assert seqs == sorted(set(seqs))


async def test_the_clock_never_runs_back_over_a_restart(tmp_path: Path) -> None:
    for stop in (True, False):
        path = tmp_path / f"{stop}.db"
        node = on_disk(path)
        (before,) = await node.append(a_record("before"))
        await (node.stop() if stop else asyncio.to_thread(node.database.close))
        node = on_disk(path)
        node.now_ms = NOW_MS - 3_600_000
        (after,) = await node.append(a_record("after"))
        assert after.timestamp > before.timestamp
        assert wall_ms(after.timestamp) <= NOW_MS + (0 if stop else HLC_RESERVE_MS)
        node.database.close()


async def test_the_clock_stays_above_what_was_received_over_a_restart(tmp_path: Path) -> None:
    forger = Forger(9)
    node = on_disk(tmp_path / "n.db")
    later = forger.op(2, timestamp=timestamp(NOW_MS + DEFAULT_AHEAD_MS - 1))
    await node.merge([forger.introduction(), later])
    node.database.close()
    node = on_disk(tmp_path / "n.db")
    (mine,) = await node.append(a_record("mine"))
    assert mine.timestamp > later.timestamp
    node.database.close()


async def test_the_clock_costs_a_write_every_ten_seconds_not_one_an_op() -> None:
    (node,) = await a_mesh(1)
    await node.append(a_record("one"))
    saved = node.rows("SELECT value FROM meta WHERE key = 'hlc'")
    node.now_ms += HLC_RESERVE_MS - 1_000
    await node.append(a_record("two"))
    assert node.rows("SELECT value FROM meta WHERE key = 'hlc'") == saved
    node.now_ms += 2_000
    await node.append(a_record("three"))
    assert node.rows("SELECT value FROM meta WHERE key = 'hlc'") > saved


# --- our own ops ---


async def test_ops_of_ours_are_signed_chained_and_stamped() -> None:
    (node,) = await a_mesh(1)
    ops = await node.append(a_record("one"), a_record("elsewhere", "other"), a_record("two"))
    for op in ops:
        assert verify(MESH, op.raw) == op
        assert op.author == node.store.author
    assert [op.seq for op in ops] == [2, 3, 4]
    assert [op.header.prev_seq for op in ops] == [0, 0, 2]
    assert ops[2].header.prev_hash == ops[0].hash[:PREV_BYTES]
    assert ops[0].timestamp < ops[1].timestamp < ops[2].timestamp
    check(node)


async def test_another_home_writes_in_another_epoch() -> None:
    assert Node(1).store.author != Node(1).store.author


async def test_an_op_of_ours_that_we_lost_starts_a_new_epoch() -> None:
    forger = Forger(1)
    node = Node(1)
    node.store.epoch = forger.epoch  # as if restored from before the forger's ops
    await node.introduce()
    theirs = forger.op(5, content="forgotten")
    before = node.store.author
    assert before == forger.author
    await node.merge([theirs])
    assert node.store.author != before
    (mine,) = await node.append(a_record("new"))
    assert (mine.author, mine.seq, mine.header.prev_seq) == (node.store.author, 1, 0)
    check(node)


async def test_a_lost_op_of_ours_is_noticed_also_beyond_a_gap() -> None:
    forger = Forger(1)
    node = Node(1)
    node.store.epoch = forger.epoch
    await node.introduce()
    ops = forger.chain(3)
    merged = await node.merge(ops[2:])
    assert merged.ahead == 1
    assert node.store.author != forger.author


async def test_an_op_of_ours_that_we_have_changes_nothing() -> None:
    (node,) = await a_mesh(1)
    ops = await node.append(a_record("mine"))
    before = node.store.author
    assert (await node.merge(ops)).known == 1
    assert node.store.author == before


@pytest.mark.parametrize("clean", [True, False])
async def test_a_new_epoch_survives_a_restart_even_when_its_beginning_was_undone(tmp_path: Path, clean: bool) -> None:
    """Else the old epoch would go on with seqs that it has used."""
    node = on_disk(tmp_path / "n.db")
    await node.append(*[a_record("old")] * (SEQ_BLOCK + 2))
    old = node.store.author

    def fails(connection: sqlite3.Connection) -> None:
        node.store.renew_epoch(connection)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await node.database.write(fails)
    (op,) = await node.append(a_record("new"))
    assert op.author != old
    await (node.stop() if clean else asyncio.to_thread(node.database.close))
    node = on_disk(tmp_path / "n.db")
    (next_op,) = await node.append(a_record("newer"))
    assert next_op.author == op.author
    assert next_op.header.prev_seq == op.seq
    check(node)
    node.database.close()


# --- who may write ---


async def test_an_unknown_author_refuses_the_whole_batch() -> None:
    known, unknown = Forger(8), Forger(9)
    (node,) = await a_mesh(1)
    await node.merge([known.introduction()])
    before = dump(node)
    with pytest.raises(UnknownAuthor, match=unknown.node_id):
        await node.merge([*known.chain(2), unknown.op(2)])
    assert dump(node) == before
    assert (await node.merge(known.chain(2))).new == known.chain(2)
    assert (await node.merge([unknown.introduction(), unknown.op(2)])).ahead == 0
    check(node)


async def test_who_was_known_in_a_job_that_was_undone_is_unknown() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)

    def fails(connection: sqlite3.Connection) -> None:
        node.store.merge(connection, [forger.introduction(), forger.op(2)], NOW_MS)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await node.database.write(fails)
    with pytest.raises(UnknownAuthor):
        await node.merge([forger.op(2)])


async def test_a_member_record_of_somebody_else_introduces_nobody() -> None:
    forger, victim = Forger(9), Forger(8)
    (node,) = await a_mesh(1)
    lie = forger.op(1, project=RESERVED, subject=victim.node_id, field="member", kind="member", body=b"x")
    with pytest.raises(UnknownAuthor):
        await node.merge([lie])


async def test_the_newest_certificate_of_a_node_counts_in_any_order() -> None:
    forger = Forger(9)
    old = forger.introduction("old")
    new = forger.op(
        2, old, project=RESERVED, subject=forger.node_id, field="member", kind="member", body=b"new",
        timestamp=old.timestamp + 1,
    )  # fmt: skip
    for order in ([old, new], [new, old]):
        (node,) = await a_mesh(1)
        await node.merge(order)
        assert node.rows("SELECT name FROM members WHERE node = ?", forger.node_id) == [("new",)]


async def test_our_own_member_record_is_in_the_book() -> None:
    (node,) = await a_mesh(1)
    assert node.rows("SELECT node, name FROM members") == [(node.store.node_id, "node 1")]


async def test_rebuilding_keeps_the_order_in_which_facts_came() -> None:
    (node,) = await a_mesh(1)
    for number in range(20):
        await node.create(f"fact {number}")
    before = dump(node)
    assert await node.database.write(lambda connection: node.store.rebuild(connection, node.now_ms)) == 20
    assert dump(node) == before, "row for row"


async def test_a_version_that_shows_more_shows_everything_anew_once() -> None:
    learnt: list[str] = []
    (node,) = await a_mesh(1)
    node.store.shows["later"] = lambda connection, project, subject, ops: learnt.append(subject)
    assert node.store.show_anew(node.database.direct, node.now_ms), "nobody has said who shows this database"
    assert not node.store.show_anew(node.database.direct, node.now_ms)
    await node.create("a fact")
    before = dump(node)
    await node.append(Draft(PROJECT, OpClass.ADD, "later/thing", "field", "of a later version", b""))
    node.database.direct.execute("DELETE FROM facts")
    node.database.direct.execute("UPDATE meta SET value = 1 WHERE key = 'shown_by'")
    learnt.clear()
    assert node.store.show_anew(node.database.direct, node.now_ms)
    assert learnt == ["later/thing"]
    assert dump(node)["facts"] == before["facts"]
    assert not node.store.show_anew(node.database.direct, node.now_ms)


# --- held ---


async def test_what_is_held_shows_when_time_has_caught_up_with_it() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    stored = await node.create("first")
    ahead_ms = NOW_MS + DEFAULT_AHEAD_MS + 5_000
    held = forger.op(
        2, subject=stored["id"], field="content", kind=VALUE, body=fact.encode_value("from the future"),
        timestamp=timestamp(ahead_ms), clock=((node.store.author, node.ops()[-1].seq),),
    )  # fmt: skip
    await node.replica.update(stored["id"], FactChanges(content="second"))
    await node.merge([forger.introduction(), held])
    shown_now = await node.replica.get(stored["id"])
    assert (shown_now["content"], shown_now["conflict"]) == ("second", True)
    assert node.store.clock.last < timestamp(ahead_ms)
    assert await node.database.write(lambda connection: node.store.release(connection, node.now_ms)) == 1
    node.now_ms += 5_000
    assert await node.database.write(lambda connection: node.store.release(connection, node.now_ms)) == 0
    assert (await node.replica.get(stored["id"]))["content"] == "from the future"
    assert node.store.clock.last >= timestamp(ahead_ms)
    check(node)


async def test_a_write_releases_what_is_due() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    await node.merge([forger.introduction(), forger.op(2, timestamp=timestamp(NOW_MS + DEFAULT_AHEAD_MS + 1_000))])
    assert len(node.rows("SELECT * FROM held")) == 1
    node.now_ms += 2_000
    await node.create("any")
    assert node.rows("SELECT * FROM held") == []
    check(node)


# --- all or nothing ---


async def test_a_job_that_fails_in_a_group_leaves_the_others_right(tmp_path: Path) -> None:
    node = on_disk(tmp_path / "n.db")
    await node.introduce()

    def fails(connection: sqlite3.Connection) -> None:
        node.store.append(connection, [a_record("lost", project) for project in (PROJECT, "never")], NOW_MS)
        raise KeyError("mine")

    jobs: list[Any] = []
    groups: list[int] = []
    node.database.on_group = groups.append
    for number in range(30):
        jobs += [node.append(a_record(f"kept {number}")), node.database.write(fails)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(result) for result in results[1::2]] == [KeyError] * 30
    assert all(isinstance(result, list) for result in results[::2])
    assert max(groups) > 1
    assert {one["content"] for one in (await node.replica.list_facts())["facts"]} == {f"kept {n}" for n in range(30)}
    assert node.store.projects() == [RESERVED, PROJECT]
    check(node)
    node.database.close()


class Failing(sqlite3.Connection):
    """A connection whose writes fail from the n-th on."""

    left = 10**9

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._count(sql)
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._count(sql)
        return super().executemany(sql, *parameters)

    def _count(self, sql: str) -> None:
        if sql.lstrip().startswith(("INSERT", "UPDATE", "DELETE")):
            self.left -= 1
            if self.left < 0:
                raise sqlite3.OperationalError("disk I/O error")


async def test_wherever_a_transaction_fails_nothing_is_half_done() -> None:
    forger = Forger(9)
    waits = forger.op(2, subject="x-1", field="content", kind=VALUE, body=b"\xa1a", clock=((Forger(8).author, 4),))
    batch = [forger.introduction(), waits, *forger.chain(3)[1:], Forger(8).introduction(), *Forger(8).chain(3)]
    tags = TagChange(add=["new"], remove=["red"])
    writes: list[Callable[[Node, str], Any]] = [
        lambda node, name: node.merge(batch),
        lambda node, name: node.create("new", tags=["red"], body="a body"),
        lambda node, name: node.replica.update(name, FactChanges(content="edited", append="more")),
        lambda node, name: node.replica.tag(name, tags),
        lambda node, name: node.database.write(lambda c: node.store.rebuild(c, node.now_ms)),
    ]
    for write in writes:
        database = Memory()
        database.direct = sqlite3.connect(":memory:", isolation_level=None, factory=Failing)
        node = Node(1, database)
        await node.introduce()
        name = (await node.create("first", tags=["red"]))["id"]
        before = dump(node)
        failures = 0
        while True:
            node.database.direct.left = failures
            try:
                await write(node, name)
                break
            except sqlite3.OperationalError:
                failures += 1
            finally:
                node.database.direct.left = 10**9
            assert dump(node) == before
            check(node)
        assert failures > 2
        check(node)


async def test_a_full_disk_refuses_the_write_and_keeps_the_rest(tmp_path: Path) -> None:
    node = Node(1, Database(tmp_path / "n.db", max_bytes=600_000))
    await node.introduce()
    stored = 0
    with pytest.raises(Problem) as refused:
        while True:
            await node.create("x" * 5_000 + str(stored))
            stored += 1
    assert refused.value.status == 507
    assert stored > 10
    assert len((await node.replica.list_facts(limit=500))["facts"]) == stored
    check(node)
    node.database.close()


# --- reading committed state ---


async def test_what_is_read_is_never_stale_after_a_commit_and_never_ahead_of_it(tmp_path: Path) -> None:
    node = on_disk(tmp_path / "n.db")
    await node.introduce()
    changes: list[set[str]] = []
    node.store.on_change = changes.append
    for number in range(5):
        seen = (dict(node.store.vector(PROJECT)), node.store.root(PROJECT))
        done = asyncio.ensure_future(node.append(a_record(f"fact {number}")))
        assert (dict(node.store.vector(PROJECT)), node.store.root(PROJECT)) == seen
        (op,) = await done
        assert node.store.vector(PROJECT)[op.author] == op.seq
        assert node.store.root(PROJECT) != seen[1]
        check(node)
    assert changes == [{PROJECT}] * 5
    node.database.close()


async def test_a_root_stands_for_the_ops_of_the_vector_also_between_commit_and_announcement() -> None:
    (node,) = await a_mesh(1)
    await node.append(a_record("one"))
    vector = dict(node.store.vector(PROJECT))
    announce: list[Callable[[], None]] = []
    original = node.database.on_commit
    node.database.on_commit = lambda: lambda: announce.append(original())
    await node.append(a_record("two"))
    root = node.store.root(PROJECT)
    ops = [op for op in node.ops() if op.project == PROJECT and op.seq <= vector[op.author]]
    assert dict(node.store.vector(PROJECT)) == vector
    assert root == merkle.root(*merkle.leaves((op.hash for op in ops), 0)[0])
    for late in announce:
        late()
    assert node.store.vector(PROJECT) != vector
    assert node.store.root(PROJECT) != root


async def test_what_is_not_here_is_empty() -> None:
    (node,) = await a_mesh(1)
    assert node.store.vector("nowhere") == {}
    assert node.store.root("nowhere") == merkle.EMPTY_ROOT
    assert node.store.ops_after("nowhere", node.store.author, 0, 10, 1_000) == []
    assert node.store.projects() == [RESERVED]
    assert node.store.vector_digest("nowhere") == Node(2).store.vector_digest("elsewhere")


async def test_the_reserved_project_comes_first() -> None:
    (node,) = await a_mesh(1)
    await node.append(a_record("a", "Zebra"), a_record("b", "!early"))
    assert node.store.projects() == [RESERVED, "!early", "Zebra"]


async def test_ops_after_keeps_within_its_bounds_and_gives_at_least_one() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    ops = forger.chain(10)
    await node.merge([forger.introduction(), *ops])
    raws = [op.raw for op in ops]

    def after(seq: int, most: int, size: int) -> list[bytes]:
        return node.store.ops_after(PROJECT, forger.author, seq, most, size)

    assert after(0, 100, 1 << 20) == raws
    assert after(4, 100, 1 << 20) == raws[3:]
    assert after(5, 2, 1 << 20) == raws[4:6]
    assert after(0, 100, len(raws[0]) + len(raws[1])) == raws[:2]
    assert after(0, 100, len(raws[0]) + len(raws[1]) - 1) == raws[:1]
    assert after(0, 100, 1) == raws[:1]
    assert after(11, 100, 1 << 20) == []
    assert after(2**62, 100, 1 << 20) == []


async def test_a_tree_that_grows_in_use_keeps_its_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merkle, "OPS_PER_LEAF", 0.25)
    monkeypatch.setattr(merkle, "bits_for", lambda count: 8 if count <= 64 else 12)
    grown, same = await a_mesh(2)
    for number in range(70):
        await grown.append(a_record(f"fact {number}"))
    assert grown.rows("SELECT bits FROM projects WHERE name = ?", PROJECT) == [(12,)]
    await sync(grown, same)
    assert same.store.root(PROJECT) == grown.store.root(PROJECT)
    check(grown)
    check(same)
