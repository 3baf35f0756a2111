"""Damage planted by hand in real stores is found, repaired by a peer, and told; nothing is lost on either side."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdt.hlc import timestamp
from crdt.op import Op
from node import repairs
from node.repairs import FORK_TOLD_MS, GAP_PATIENCE_MS, MAX_REPAIRS, TWINS_MS, Cause
from sync.ready import RootsDiffer, Withheld
from tests.node.books import check, tables
from tests.node.meeting import Meeting
from tests.node.world import NOW_MS, PROJECT, Forger, Node, a_mesh, a_record, on_disk, sync

FACTS = 40


async def a_meeting(count: int = 2) -> Meeting:
    """Nodes that have all that any of them wrote."""
    nodes = await a_mesh(count)
    for node in nodes:
        await node.append(*(a_record(f"{node.name} says {n}") for n in range(FACTS // count)))
    return await Meeting(**dict(zip("abc", nodes, strict=False))).connect()


def ops_of(node: Node) -> list[Op]:
    return [op for op in node.ops() if op.project == PROJECT]


def agree(meeting: Meeting) -> bool:
    first, *others = [{op.hash for op in node.ops()} for node in meeting.nodes.values()]
    return all(other == first for other in others)


def told(node: Node) -> list[tuple[str, int, str | None]]:
    """(cause, ops, peer) of each repair, the oldest first."""
    found = repairs.recent(node.database.direct)
    return [(one["cause"], one["ops"], one["peer"]) for one in reversed(found)]


# Planted by hand


def rot(node: Node, op: Op) -> None:
    node.rows("UPDATE ops SET raw = ? WHERE hash = ?", op.raw[:-70] + bytes((op.raw[-70] ^ 4,)) + op.raw[-69:], op.hash)


def cut_short(node: Node, op: Op) -> None:
    node.rows("UPDATE ops SET raw = ? WHERE hash = ?", op.raw[:20], op.hash)


def not_even_bytes(node: Node, op: Op) -> None:
    node.rows("UPDATE ops SET raw = 'gone' WHERE hash = ?", op.hash)


def delete(node: Node, op: Op) -> None:
    node.rows("DELETE FROM ops WHERE hash = ?", op.hash)


def change_leaf(node: Node, op: Op) -> None:
    node.rows("UPDATE leaves SET sum = sum + 77 WHERE leaf = ?", op.hash[0])


def change_total(node: Node, op: Op) -> None:
    node.rows("UPDATE projects SET sum = sum + 77 WHERE name = ?", op.project)


DAMAGE: dict[str, tuple[Callable[[Node, Op], None], Cause, int]] = {
    "a flipped bit": (rot, Cause.BIT_ROT, 1),
    "a row cut short": (cut_short, Cause.BIT_ROT, 1),
    "a row of another type": (not_even_bytes, Cause.BIT_ROT, 1),
    "a deleted row": (delete, Cause.LOST_ROW, 1),
    "a leaf's sum": (change_leaf, Cause.DRIFTED_SUM, 0),
    "the total": (change_total, Cause.DRIFTED_SUM, 0),
}


@pytest.mark.parametrize("place", [3, FACTS // 2 - 1], ids=["in the middle", "at the end of a chain"])
@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found_repaired_and_told(damage: str, place: int) -> None:
    plant, cause, ops = DAMAGE[damage]
    meeting = await a_meeting()
    a = meeting.nodes["a"]
    before = tables(a)
    victim = ops_of(a)[place]
    plant(a, victim)
    auditor = meeting.auditors["a"]
    await auditor.begin()
    for _ in range(256):
        a.now_ms += 900_000
        await auditor.tick()
    await meeting.later()
    assert tables(a) == before
    check(a)
    assert not meeting.closes
    assert told(a) == [(cause, ops, "b" if ops else None)]
    assert meeting.metric == {cause: 1}
    assert told(meeting.nodes["b"]) == []
    assert a.rows("SELECT * FROM gaps") == []


@pytest.mark.parametrize("first", [2, FACTS // 2 - 10], ids=["in the middle", "to the end"])
async def test_rows_lost_in_line_come_back_as_such_and_start_no_epoch(first: int) -> None:
    """Of our own: only the last of them is named by an op that is here, or by the head."""
    meeting = await a_meeting()
    a = meeting.nodes["a"]
    before, author = tables(a), a.store.author
    mine = [op for op in ops_of(a) if op.author == author]
    for op in mine[first : first + 10]:
        delete(a, op)
    await meeting.auditors["a"].begin()
    await meeting.later()
    assert tables(a) == before
    assert told(a) == [(Cause.LOST_ROW, 10, "b")]
    assert a.store.author == author
    assert a.rows("SELECT * FROM gaps") == []


@pytest.mark.parametrize("plant", [delete, change_leaf], ids=["a deleted row", "a leaf's sum"])
async def test_damage_of_the_books_alone_is_found_by_a_walk_without_any_audit(
    plant: Callable[[Node, Op], None],
) -> None:
    """The other has written meanwhile, and roots differ: whoever walks finds its own books wrong, too."""
    meeting = await a_meeting()
    a, b = meeting.nodes["a"], meeting.nodes["b"]
    victim = ops_of(a)[3]
    plant(a, victim)
    change_total(a, victim)
    a.store._books.clear()
    await meeting.later(4)
    assert agree(meeting)
    check(a)
    check(b)
    assert any(isinstance(notice, RootsDiffer) for _, notice in meeting.notices)


async def test_a_rotten_row_is_never_sent_and_a_fact_is_shown_without_it() -> None:
    """Nobody is given a row that he would call forged, and no read fails because of it."""
    (node,) = await a_mesh(1)
    fact = await node.create("right")
    ops = ops_of(node)
    await node.append(a_record("later"))
    rot(node, ops[0])
    assert node.store.ops_after(PROJECT, ops[0].author, 0, 100, 1 << 20) == []
    assert node.store.suspects == {(PROJECT, ops[0].hash)}
    assert (await node.replica.get(fact["id"]))["content"] == "right", "what was shown was made of good bytes"
    project = node.rows("SELECT id FROM projects WHERE name = ?", PROJECT)[0][0]
    assert node.store.effective_ops(node.database.direct, ops[0].subject, project) == []


async def test_bytes_that_rotted_are_kept_until_the_op_is_back() -> None:
    meeting = await a_meeting()
    a = meeting.nodes["a"]
    victim = ops_of(a)[3]
    rot(a, victim)
    await meeting.auditors["a"].mend(PROJECT, 0, 0)
    [(seq, raw)] = a.rows("SELECT seq, raw FROM gaps")
    assert seq == victim.seq
    assert len(raw) == len(victim.raw)
    await meeting.later()
    assert a.rows("SELECT * FROM gaps") == []


async def test_a_chain_with_a_hole_is_not_claimed_for_ever() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    ops = forger.chain(5)
    await node.merge([forger.introduction(), *ops])
    meeting = Meeting(a=node)
    delete(node, ops[2])
    await meeting.auditors["a"].begin()
    assert node.store.vector(PROJECT) == {forger.author: ops[-1].seq}, "walks have an hour"
    node.now_ms += GAP_PATIENCE_MS
    await meeting.auditors["a"].tick()
    assert node.store.vector(PROJECT) == {forger.author: ops[1].seq}
    assert (await node.merge(ops[2:3])).repaired == {(PROJECT, Cause.LOST_ROW, forger.node_id): 1}
    assert node.store.vector(PROJECT) == {forger.author: ops[-1].seq}
    check(node)


async def test_the_first_op_of_a_chain_lost_means_that_nothing_is_claimed() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    ops = forger.chain(3)
    await node.merge([forger.introduction(), *ops])
    meeting = Meeting(a=node)
    for op in ops[:2]:
        delete(node, op)
    await meeting.auditors["a"].begin()
    node.now_ms += GAP_PATIENCE_MS
    await meeting.auditors["a"].tick()
    assert node.store.vector(PROJECT) == {}
    await node.merge(ops)
    assert node.store.vector(PROJECT) == {forger.author: ops[-1].seq}
    check(node)


async def test_what_one_peer_withholds_another_gives_and_it_is_told() -> None:
    """c lost an op and does not know it: what follows it can't join at a, until b gives the one that is missing."""
    a, b, c = await a_mesh(3)
    forger = Forger(9)
    ops = [forger.introduction(), *forger.chain(5)]
    for node in (b, c):
        await node.merge(ops)
    delete(c, ops[3])
    meeting = await Meeting(a=a, c=c).connect()
    assert ("a", Withheld("c", PROJECT, forger.author, ops[-1].seq)) in meeting.notices
    assert a.store.vector(PROJECT) == {forger.author: ops[2].seq}
    meeting.adopt("b", b)
    await meeting.connect()
    await meeting.later(4)
    assert agree(meeting)
    assert (Cause.WITHHELD, 1, "b") in told(a)


# Restored backups, identities that run twice


async def test_a_node_restored_from_an_old_copy_of_its_file_loses_nothing_on_either_side(tmp_path: Path) -> None:
    a, b = on_disk(tmp_path / "a.db", 1), on_disk(tmp_path / "b.db", 2)
    for node in (a, b):
        await node.introduce()
        await node.append(a_record(f"{node.name} before"))
    meeting = await Meeting(a=a, b=b).connect()
    copied(tmp_path / "a.db", tmp_path / "old.db")
    lost = await a.append(*(a_record(f"after the backup {n}") for n in range(5)))
    await meeting.later()
    assert agree(meeting)
    old_author = a.store.author
    a.database.close()

    a = on_disk(tmp_path / "old.db", 1)
    assert a.store.author == old_author, "it does not know yet"
    mine = await a.append(*(a_record(f"after the restore {n}") for n in range(3)))
    meeting.adopt("a", a)
    await meeting.connect()
    await meeting.later(4)
    assert agree(meeting)
    everything = {op.hash for op in ops_of(b)}
    assert {op.hash for op in (*lost, *mine)} <= everything
    assert a.store.author != old_author
    (new,) = await a.append(a_record("goes on"))
    assert (new.author, new.seq) == (a.store.author, 1)
    await meeting.later()
    assert agree(meeting)
    check(a)
    check(b)
    assert {cause for cause, _, _ in told(a)} == {Cause.RESTORED_BACKUP}
    assert sum(ops for _, ops, _ in told(a)) == len(lost)
    assert [one["code"] for one in repairs.warnings(a.database.direct, a.store.node_id, a.now_ms)] == ["fork"]
    assert repairs.warnings(a.database.direct, a.store.node_id, a.now_ms + FORK_TOLD_MS) == []
    for node in (a, b):
        node.database.close()


async def test_a_restored_node_that_has_not_written_just_catches_up(tmp_path: Path) -> None:
    a, b = on_disk(tmp_path / "a.db", 1), on_disk(tmp_path / "b.db", 2)
    for node in (a, b):
        await node.introduce()
    meeting = await Meeting(a=a, b=b).connect()
    copied(tmp_path / "a.db", tmp_path / "old.db")
    await a.append(*(a_record(f"after the backup {n}") for n in range(5)))
    await meeting.later()
    before = a.store.author
    a.database.close()
    a = on_disk(tmp_path / "old.db", 1)
    meeting.adopt("a", a)
    await meeting.connect()
    assert agree(meeting)
    assert a.store.author != before
    assert told(a) == [(Cause.RESTORED_BACKUP, 5, "b")]
    for node in (a, b):
        node.database.close()


def copied(path: Path, to: Path) -> None:
    """As an administrator copies it: the file, and the log beside it."""
    for end in ("", "-wal"):
        if path.with_name(path.name + end).exists():
            shutil.copy(path.with_name(path.name + end), to.with_name(to.name + end))


async def test_a_lost_row_of_our_own_is_no_reason_for_another_epoch() -> None:
    meeting = await a_meeting()
    a = meeting.nodes["a"]
    before = a.store.author
    victim = next(op for op in ops_of(a) if op.author == before)
    delete(a, victim)
    await meeting.auditors["a"].begin()
    await meeting.later()
    assert agree(meeting)
    assert told(a) == [(Cause.LOST_ROW, 1, "b")]
    assert a.store.author == before


async def test_an_own_op_beyond_a_gap_starts_a_new_epoch() -> None:
    forger = Forger(1)
    node = Node(1)
    node.store.epoch = forger.epoch
    await node.introduce()
    await node.merge(forger.chain(3)[2:])
    assert node.store.author != forger.author


async def test_both_sides_of_a_fork_are_kept_and_named() -> None:
    """Two ops with one dot, on two nodes: after the walk both have both."""
    forger = Forger(9)
    a, b = await a_mesh(2)
    ops = forger.chain(3)
    one, two = (forger.op(5, ops[-1], content=content) for content in ("this", "that"))
    assert one.dot == two.dot
    await a.merge([forger.introduction(), *ops, one])
    await b.merge([forger.introduction(), *ops, two, forger.op(6, two)])
    meeting = await Meeting(a=a, b=b).connect()
    await meeting.later(4)
    assert agree(meeting)
    assert {one.hash, two.hash} <= {op.hash for op in ops_of(a)}
    assert not meeting.closes
    for node in (a, b):
        check(node)
        assert Cause.FORK in {cause for cause, _, _ in told(node)}
        (warning,) = repairs.warnings(node.database.direct, node.store.node_id, node.now_ms)
        assert forger.node_id in warning["text"]
    assert tables(a) == tables(b)


def epoch(number: int, minutes: list[int]) -> list[Op]:
    """Ops of one key in epoch `number`, at these minutes."""
    forger = Forger(9, number)
    ops: list[Op] = []
    for seq, minute in enumerate(minutes, 2):
        stamp = timestamp(NOW_MS - 10**8 + minute * 60_000)
        ops.append(forger.op(seq, ops[-1] if ops else None, timestamp=stamp))
    return ops


@pytest.mark.parametrize(
    ("epochs", "twice"),
    [
        ([[0, 10, 20], [30, 60]], False),
        ([[0, 10, 20, 90], [30, 60]], False),
        ([[0, 10, 20, 60], [30, 40, 70]], True),
        ([[0, 10, 40, 60], [30, 50, 60]], True),
        ([[0, 10], [20, 30], [40, 50]], False),
        ([[0, 10, 33], [31, 34]], False),
        ([[0, 10, 60], [20, 90], [100]], True),
    ],
    ids=[
        "a new epoch",
        "an old backup",
        "two nodes",
        "two at once",
        "three epochs",
        "clocks apart",
        "two nodes, later one",
    ],
)
async def test_one_identity_that_runs_twice_is_named(epochs: list[list[int]], twice: bool) -> None:
    (node,) = await a_mesh(1)
    await node.merge([Forger(9).introduction()])
    for number, minutes in enumerate(epochs, 1):
        await node.merge(epoch(number, minutes))
    assert repairs.twins(node.database.direct) == ([Forger(9).node_id] if twice else [])
    codes = [one["code"] for one in repairs.warnings(node.database.direct, node.store.node_id, node.now_ms)]
    assert codes == (["twins"] if twice else [])
    assert TWINS_MS == 300_000


async def test_two_nodes_with_one_copied_home_end_in_epochs_of_their_own(tmp_path: Path) -> None:
    a, b = on_disk(tmp_path / "a.db", 1), on_disk(tmp_path / "b.db", 2)
    for node in (a, b):
        await node.introduce()
    await sync(a, b)
    copied(tmp_path / "a.db", tmp_path / "twin.db")
    twin = on_disk(tmp_path / "twin.db", 1)
    for minute in range(0, 60, 10):
        for node in (a, twin):
            node.now_ms = NOW_MS + minute * 60_000
            await node.append(a_record(f"minute {minute}"))
            await Meeting(x=node, b=b).connect()
            b.now_ms = node.now_ms
    meeting = await Meeting(a=a, b=b).connect()
    await meeting.later(3)
    assert a.store.author != twin.store.author
    assert repairs.twins(b.database.direct) == [a.store.node_id]
    assert sum(op.header.node_key == a.key and op.project == PROJECT for op in ops_of(b)) == 12
    for node in (a, b, twin):
        node.database.close()


# What is kept


def test_repairs_are_kept_the_newest_only() -> None:
    node = Node(1)
    for number in range(MAX_REPAIRS + 5):
        counted: Counter[tuple[str, Cause, str | None]] = Counter({("p", Cause.LOST_ROW, "n"): number})
        node.database.commit(lambda c, counted=counted: repairs.record(c, 0, "peer", counted))
    assert node.rows("SELECT count(*), max(ops) FROM repairs") == [(MAX_REPAIRS, MAX_REPAIRS + 4)]
    latest: dict[str, Any] = repairs.recent(node.database.direct, 1)[0]
    assert latest == {
        "at": "1970-01-01T00:00:00.000Z",
        "peer": "peer",
        "project": "p",
        "cause": "lost_row",
        "ops": MAX_REPAIRS + 4,
        "author": "n",
    }


async def test_gaps_are_found_from_the_chains_alone() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    ops = forger.chain(6)
    await node.merge([forger.introduction(), *ops])
    (number,) = node.rows("SELECT id FROM projects WHERE name = ?", PROJECT)[0]

    def gaps() -> list[tuple[int, int]]:
        found = repairs.find_gaps(node.database.direct, b"", number)
        return [(gap.seq, gap.before) for gap in found]

    assert gaps() == []
    delete(node, ops[1])
    delete(node, ops[2])
    delete(node, ops[5])
    assert gaps() == [(ops[2].seq, ops[0].seq), (ops[5].seq, ops[4].seq)]


async def test_many_gaps_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "MAX_GAPS", 3)
    connection: sqlite3.Connection = Node(1).database.direct
    repairs.note_gaps(connection, [repairs.Gap(1, 1, seq, b"h", 0) for seq in range(9)], 0)
    assert connection.execute("SELECT count(*) FROM gaps").fetchone() == (3,)
