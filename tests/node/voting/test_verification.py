"""Verification of a node's own ledger: a good one has no findings, damage is named, nothing waits and nothing grows."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger import tlog
from ledger.checkpoint import Checkpoint, Fork
from ledger.note import Algorithm, Signer
from ledger.policy import policy_of
from ledger.verify import Finding
from node.errors import Problem
from node.voting import reads, verification
from node.voting.table import Table
from node.voting.verification import Seen, Verification, Wanted, check
from tests.node.voting.ledger_on_disk import CELLAR, OWNER, LedgerOnDisk

SIZE = 3 + 3 + 2 + 1 + 300


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path_factory.mktemp("hub") / "home")
    made.vote(3)
    made.vote(2, CELLAR)
    made.enrol("ada")
    for _ in range(3):
        made.vote(100)
    yield made
    made.close()


@pytest.fixture
def copy(ledger: LedgerOnDisk) -> Iterator[sqlite3.Connection]:
    """The same ledger, to be damaged."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    ledger.connection.backup(connection)
    yield connection
    connection.close()


@pytest.fixture
def gaps(ledger: LedgerOnDisk, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = ledger.with_gaps(tmp_path / "gaps.db", CELLAR)
    yield connection
    connection.close()


def codes(found: dict[str, Any]) -> set[tuple[int | None, str]]:
    return {(one["index"], one["code"]) for one in found["findings"]}


def test_a_whole_ledger_is_read_to_its_end(ledger: LedgerOnDisk) -> None:
    told: list[tuple[int, int]] = []
    found = check(ledger.connection, ledger.place, Wanted(), lambda *at: told.append(at))
    assert found["ok"] and found["whole"] and not found["findings"]
    assert (found["checked"], found["votes"], found["signatures"]) == (SIZE, SIZE - 4, SIZE)
    assert found["root"] == tlog.root(SIZE, ledger.table).hex() and told[-1] == (SIZE, SIZE)


def flip(connection: sqlite3.Connection, column: str, index: int, at: int) -> None:
    (data,) = connection.execute(f"SELECT {column} FROM ledger_entries WHERE id = ?", (index,)).fetchone()
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    connection.execute(f"UPDATE ledger_entries SET {column} = ? WHERE id = ?", (flipped, index))


def sql(statement: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(statement)


def sign_anew(connection: sqlite3.Connection) -> None:
    """Another byte in the signature of a note."""
    (note,) = connection.execute("SELECT note FROM ledger_checkpoints WHERE size = 6").fetchone()
    head, line = note.rsplit(b" ", 1)
    other = b"A" if line[20:21] != b"A" else b"B"
    changed = head + b" " + line[:20] + other + line[21:]
    connection.execute("UPDATE ledger_checkpoints SET note = ? WHERE size = 6", (changed,))


DAMAGE: dict[str, tuple[Callable[[sqlite3.Connection], object], tuple[int | None, str]]] = {
    "an entry": (lambda c: flip(c, "raw", 7, 60), (7, "leaf")),
    "a vote": (lambda c: flip(c, "text", 7, 60), (7, "text")),
    "a statement that is gone": (sql("UPDATE ledger_entries SET text = NULL WHERE id = 8"), (8, "text_missing")),
    "a hash": (sql("UPDATE ledger_hashes SET value = zeroblob(32) WHERE level = 3 AND number = 1"), (8, "tree")),
    "a hash that is gone": (sql("DELETE FROM ledger_hashes WHERE level = 0 AND number = 9"), (9, "tile")),
    "an entry that is gone": (sql("DELETE FROM ledger_entries WHERE id = 9"), (9, "truncated")),
    "a name": (lambda c: flip(c, "name", 5, 0), (5, "row")),
    "a tag": (lambda c: flip(c, "tag", 5, 0), (5, "row")),
    "a chain hash": (lambda c: flip(c, "hash", 5, 0), (5, "row")),
    "a note": (sign_anew, (None, "checkpoint")),
    "a root without a note": (
        sql("UPDATE ledger_checkpoints SET note = NULL, root = zeroblob(32) WHERE size = 6"),
        (None, "root"),
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_with_its_place(ledger: LedgerOnDisk, copy: sqlite3.Connection, what: str) -> None:
    damage, finding = DAMAGE[what]
    damage(copy)
    found = check(copy, ledger.place, Wanted())
    assert not found["ok"] and finding in codes(found), codes(found)


def test_a_freeze_and_forks_that_are_known_are_findings(ledger: LedgerOnDisk, copy: sqlite3.Connection) -> None:
    Table(copy).freeze(Finding(12, "leaf", "seen at the last append"))
    notes = Table(copy).checkpoints()
    evidence = msgspec.msgpack.encode(Fork(notes[0], notes[1]))
    copy.execute("INSERT INTO ledger_forks VALUES (x'00', ?, 1)", (evidence,))
    copy.execute("INSERT INTO ledger_forks VALUES (x'01', x'ff', 2)")
    found = check(copy, ledger.place, Wanted())
    assert codes(found) == {(12, "frozen"), (None, "fork")} and len(found["findings"]) == 3
    assert "of 3 and of 6 entries" in found["findings"][1]["detail"]


def test_a_kept_checkpoint_of_another_history_is_a_fork(ledger: LedgerOnDisk, gaps: sqlite3.Connection) -> None:
    origin = reads.newest(ledger.connection)[0].origin
    root = tlog.root(6, ledger.table)
    for connection in (ledger.connection, gaps):
        for kept, code in (
            (Checkpoint(origin, 6, root), None),
            (Checkpoint(origin, 6, bytes(32)), "fork"),
            (Checkpoint(origin, SIZE + 1, root), "older"),
        ):
            found = check(connection, ledger.place, Wanted(kept=kept))
            assert found["ok"] if code is None else (None, code) in codes(found)
    found = check(gaps, ledger.place, Wanted(kept=Checkpoint(origin, 7, root)))
    assert codes(found) == {(None, "unproven")}


def test_the_asker_s_policy_decides(ledger: LedgerOnDisk, gaps: sqlite3.Connection) -> None:
    rule = reads.policy(ledger.connection, ledger.place)
    assert rule
    witness = Signer("somebody", OWNER, Algorithm.COSIGNATURE).verifier
    strict = policy_of(rule.logs, [witness], 1)
    for connection in (ledger.connection, gaps):
        assert codes(check(connection, ledger.place, Wanted(strict))) == {(None, "witness")}


def test_entries_that_come_in_meanwhile_change_nothing(tmp_path: Path) -> None:
    """Each piece is read in a transaction of its own, so a hub appends while its ledger is verified."""
    made = LedgerOnDisk(tmp_path / "home")
    for _ in range(3):
        made.vote(100)

    def append(checked: int, size: int) -> None:
        made.vote(5)

    with sqlite3.connect(f"{made.path.as_uri()}?mode=ro", uri=True, isolation_level=None) as reader:
        found = check(reader, made.place, Wanted(), append)
    assert found["ok"] and found["checked"] == 303 and made.table.head().size > 303
    reader.close()
    made.close()


def test_a_commit_without_a_signature_is_not_the_verification_s_to_judge(
    ledger: LedgerOnDisk, copy: sqlite3.Connection
) -> None:
    copy.execute("DELETE FROM ledger_checkpoints WHERE size = ?", (SIZE,))
    found = check(copy, ledger.place, Wanted())
    assert found["ok"] and found["checked"] == SIZE - 100


# With gaps


def test_what_a_node_with_gaps_has_is_checked(ledger: LedgerOnDisk, gaps: sqlite3.Connection) -> None:
    told: list[tuple[int, int]] = []
    found = check(gaps, ledger.place, Wanted(), lambda *at: told.append(at))
    assert found["ok"] and not found["whole"]
    assert (found["checked"], found["votes"], found["signatures"], found["size"]) == (6, 2, 6, SIZE)
    assert told == [(6, SIZE)]


GAPPED: dict[str, tuple[Callable[[sqlite3.Connection], object], tuple[int | None, str]]] = {
    "an entry": (lambda c: flip(c, "raw", 7, 60), (7, "proof")),
    "a malformed entry": (lambda c: flip(c, "raw", 7, 0), (7, "entry")),
    "a proof": (lambda c: flip(c, "proof", 7, 3), (7, "proof")),
    "a vote": (lambda c: flip(c, "text", 7, 60), (7, "text")),
    "a name": (lambda c: flip(c, "name", 7, 0), (7, "row")),
    "a vote left out": (sql("DELETE FROM ledger_entries WHERE id = 6"), (6, "left_out")),
    "a statement left out": (sql("DELETE FROM ledger_entries WHERE id = 2"), (2, "left_out")),
    "a root that nobody accepted": (sql("UPDATE ledger_entries SET size = 5 WHERE id = 7"), (7, "proof")),
    "no proof": (sql("UPDATE ledger_entries SET size = NULL WHERE id = 7"), (7, "proof")),
    "a note": (sign_anew, (None, "checkpoint")),
    "another root": (sql("UPDATE ledger_checkpoints SET root = zeroblob(32) WHERE size = 6"), (None, "root")),
}


@pytest.mark.parametrize("what", GAPPED)
def test_damage_of_a_node_with_gaps_is_named(ledger: LedgerOnDisk, gaps: sqlite3.Connection, what: str) -> None:
    damage, finding = GAPPED[what]
    damage(gaps)
    found = check(gaps, ledger.place, Wanted())
    assert not found["ok"] and finding in codes(found), codes(found)


def test_entries_that_come_in_behind_the_reading_were_not_left_out(
    ledger: LedgerOnDisk, gaps: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "CHUNK", 2)
    late = gaps.execute("SELECT * FROM ledger_entries WHERE id IN (2, 8)").fetchall()
    gaps.execute("DELETE FROM ledger_entries WHERE id IN (2, 8)")

    def arrive(checked: int, size: int) -> None:
        while checked == 4 and late:
            row = late.pop()
            gaps.execute(f"INSERT INTO ledger_entries VALUES ({', '.join('?' * len(row))})", row)

    found = check(gaps, ledger.place, Wanted(), arrive)
    assert not late and found["ok"] and found["checked"] == 6


def test_what_is_whole_from_the_beginning_needs_no_proofs(ledger: LedgerOnDisk, gaps: sqlite3.Connection) -> None:
    gaps.execute("UPDATE ledger_entries SET size = NULL, proof = NULL WHERE id < 3")
    assert check(gaps, ledger.place, Wanted())["ok"]


# On a thread


async def test_it_runs_beside_the_loop_and_tells_how_far_it_is(ledger: LedgerOnDisk) -> None:
    told: list[tuple[int, int]] = []
    found = await Verification(ledger.path, ledger.place).run(progress=lambda *at: told.append(at))
    assert found["ok"] and told[-1] == (SIZE, SIZE)


async def test_one_at_a_time_and_who_leaves_ends_it(ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Verification(ledger.path, ledger.place)
    begun, go_on, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Any, place: Any, wanted: Any, tell: Callable[[int, int], None]) -> dict[str, Any]:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        try:
            tell(1, 2)
        except verification.Stopped:
            loop.call_soon_threadsafe(stopped.set)
            raise
        return {"ok": True}

    monkeypatch.setattr(verification, "check", slow)
    task = asyncio.create_task(runs.run())
    await begun.wait()
    with pytest.raises(Problem) as refused:
        await runs.run()
    assert refused.value.code == "busy"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    async with asyncio.timeout(10):
        await stopped.wait()


async def test_under_pressure_it_waits(ledger: LedgerOnDisk) -> None:
    def refuse() -> None:
        raise Problem(503, "busy", "no memory", "later")

    with pytest.raises(Problem):
        await Verification(ledger.path, ledger.place, refuse).run()


def test_what_was_seen_is_a_set(tmp_path: Path) -> None:
    seen = Seen()
    seen.add(b"a")
    seen.add(b"a")
    seen.add(b"b")
    seen.discard(b"b")
    assert b"a" in seen and b"b" not in seen and len(seen) == 1 and list(seen) == [b"a"]
    seen.close()
