"""The ledger on disk: the laws of Storage against lists in memory, gaps that close, tails that go, writes that fail."""

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import log, statement, tlog, verify
from ledger.checkpoint import parse_text
from ledger.entry import NO_PROJECT, Kind, decode, text_hash
from ledger.log import EMPTY, Draft, Frozen
from ledger.note import parse
from ledger.tlog import Node
from ledger.verify import Finding
from node.database import Database
from node.migrations import migrate
from node.voting.table import NEWEST_NOTES, Line, Table
from tests.ledger.world import (
    AUTHORITY,
    HUB,
    MESH,
    NOW_MS,
    OWNER,
    DiskError,
    Memory,
    Mesh,
    drafts,
    enrolment,
    grant_text,
    key,
    secret,
    signed_vote,
)

GENESIS = statement.seal(
    statement.Genesis(MESH, key(AUTHORITY), statement.Constants(), NOW_MS), key(AUTHORITY), [secret(AUTHORITY)]
)


def a_table() -> Table:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, NOW_MS)
    return Table(connection)


def found(table: Any) -> None:
    log.found(table, GENESIS, [enrolment(OWNER, HUB, owner=True)], grant_text, secret(HUB), NOW_MS)


def both() -> tuple[Table, Memory]:
    table, memory = a_table(), Memory()
    for storage in (table, memory):
        found(storage)
    return table, memory


def append(storage: Any, wanted: list[Draft]) -> log.Appended:
    return log.append(storage, wanted, secret(HUB), NOW_MS)


def assert_equal(table: Table, memory: Memory) -> None:
    size = len(memory.entries)
    assert table.head() == memory.head()
    assert table.read_entries(0, size + 5) == memory.entries
    assert table.read_texts(0, size + 5) == memory.texts
    assert table.read_hashes(sorted(memory.hashes)) == [memory.hashes[node] for node in sorted(memory.hashes)]
    for raw in memory.entries:
        entry = decode(raw)
        assert table.find(entry.text_hash) == entry.index
        assert table.last_of(entry.project_tag) == memory.last_of(entry.project_tag)
    assert table.newest_checkpoint() == memory.newest_checkpoint()
    assert table.checkpoints() == memory.checkpoints()
    assert verify.verify(table).ok


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=8), max_size=8))
def test_it_is_the_storage_that_lists_in_memory_are(batches: list[list[int]]) -> None:
    table, memory = both()
    votes = [
        *drafts(18),
        *(Draft(Kind.VOTE, signed_vote(OWNER, f"x{n}", 1, project="b"), bytes([8]) * 32) for n in "abc"),
    ]
    for batch in batches:
        wanted = [votes[number] for number in batch]
        assert append(table, wanted) == append(memory, wanted)
    assert_equal(table, memory)
    assert log.receipt(table, 2) == log.receipt(memory, 2)


def test_an_empty_table_is_an_empty_ledger() -> None:
    table = a_table()
    assert table.head() == EMPTY and table.newest_checkpoint() is None and table.frozen() is None
    assert table.find(bytes(32)) is None and table.last_of(NO_PROJECT) == 0
    assert (table.read_entries(0, 9), table.read_texts(0, 9), table.checkpoints()) == ([], [], [])
    with pytest.raises(LookupError):
        table.read_hashes([Node(0, 0)])


def test_what_froze_it_is_remembered() -> None:
    table, _ = both()
    finding = Finding(7, "leaf", "damaged")
    table.freeze(finding)
    assert Table(table.connection).frozen() == finding
    with pytest.raises(Frozen, match="damaged"):
        append(table, drafts(1))
    table.freeze(None)
    assert table.frozen() is None and append(table, drafts(1)).places == ((3, False),)


def test_repair_puts_the_committed_bytes_back() -> None:
    table, _ = both()
    append(table, drafts(5))
    good = table.read_entries(4, 1)[0]
    table.replace_entry(4, good[:50] + b"\xff" + good[51:])
    assert not verify.verify(table).ok
    log.repair(table, 4, good)
    assert log.thaw(table).ok


# --- a node that has only some of it ---


@settings(max_examples=25)
@given(st.permutations(range(30)), st.integers(0, 30), st.integers(0, 30))
def test_entries_in_any_order_close_the_gap(order: list[int], few: int, cut: int) -> None:
    source = Mesh().found()
    source.append(drafts(27))
    memory, table = source.storage, a_table()
    size = len(memory.entries)
    lines = [
        Line(memory.entries[at], memory.texts[at], size, tuple(tlog.prove_inclusion(at, size, memory)))
        for at in range(30)
    ]
    here: set[int] = set()
    for at in order[:few]:
        table.put([lines[at]])
        here.add(at)
        whole = next(n for n in range(31) if n not in here)
        assert table.close_gap().size == table.head().size == whole
        assert table.proof(at) == (size, lines[at].proof)
    table.put(lines[at] for at in order[few:])
    assert table.close_gap() == memory.head()
    assert table.proof(99) is None
    assert table.read_hashes(sorted(memory.hashes)) == [memory.hashes[node] for node in sorted(memory.hashes)]
    names = table.cut(cut)
    assert names == [text_hash(text or b"") for text in memory.texts[cut:]]
    kept = Mesh().found() if cut >= 3 else None
    if kept and cut > 3:
        kept.append(drafts(cut - 3))
    assert table.head().size == cut
    if kept:
        assert table.head().frontier == kept.storage.head().frontier
    (hashes,) = table.connection.execute("SELECT count(*) FROM ledger_hashes").fetchone()
    assert hashes == len(tlog.extend(tlog.Frontier(), [bytes(32)] * cut)[1])
    table.put(lines[at] for at in range(cut, 30))
    assert table.close_gap() == memory.head(), "what was cut off comes again"


def test_reads_end_at_a_gap() -> None:
    source = Mesh().found()
    source.append(drafts(7))
    table = a_table()
    table.put(Line(source.storage.entries[at], None, 10, ()) for at in (0, 1, 2, 5, 6))
    assert table.read_entries(0, 10) == source.storage.entries[:3]
    assert table.read_entries(1, 2) == source.storage.entries[1:3]
    assert table.read_texts(5, 10) == [None, None]
    assert table.read_entries(3, 5) == []


def test_an_entry_is_there_once() -> None:
    table, memory = both()
    with pytest.raises(sqlite3.IntegrityError):
        table.put([Line(memory.entries[2], memory.texts[2])])


# --- what it costs ---


def test_of_old_notes_one_in_a_thousand_entries_stays_and_every_root() -> None:
    table, _ = both()
    note = table.newest_checkpoint()
    assert note is not None
    root, sizes = parse_text(parse(note).text).root, range(10, 6_000, 7)
    for size in sizes:
        table.add_checkpoint(size, note)
    roots = table.connection.execute("SELECT size, root FROM ledger_checkpoints").fetchall()
    assert dict(roots) == dict.fromkeys((3, *sizes), root)
    kept = [size for (size,) in table.connection.execute("SELECT size FROM ledger_checkpoints WHERE note NOT NULL")]
    assert kept[-NEWEST_NOTES:] == list(sizes)[-NEWEST_NOTES:]
    old = kept[:-NEWEST_NOTES]
    assert old == sorted({size // 1_000: size for size in sizes if size < kept[-NEWEST_NOTES]}.values())[: len(old)]
    assert max(later - earlier for earlier, later in itertools.pairwise(kept)) < 2_000


def test_an_append_reads_and_writes_no_more_when_the_log_is_long() -> None:
    table, _ = both()

    def steps(number: int) -> int:
        count = 0

        def step() -> None:
            nonlocal count
            count += 1

        table.connection.set_progress_handler(step, 100)
        append(table, drafts(20, start=1_000_000 + number))
        table.connection.set_progress_handler(None, 0)
        return count

    append(table, drafts(100))
    short = steps(0)
    for number in range(20):
        append(table, drafts(100, start=100 + 100 * number))
    assert steps(100) < 2 * short + 50


# --- every write failed in two ways, in a real database ---


class Flaky:
    """A database whose write of number `fails_at` raises, after it was stored or without that."""

    def __init__(self, path: Path, fails_at: int, stored: bool) -> None:
        self.database = Database(path)
        self.database.start(lambda connection: migrate(connection, NOW_MS))
        self.writes = 0
        self._fails_at = fails_at
        self._stored = stored

    async def write(self, job: Callable[[Table], Any]) -> Any:
        self.writes += 1
        fails = self.writes == self._fails_at

        def run(connection: sqlite3.Connection) -> Any:
            result = job(Table(connection))
            if fails and not self._stored:
                raise DiskError(f"write {self.writes}")
            return result

        result = await self.database.write(run)
        if fails:
            raise DiskError(f"write {self.writes}")
        return result

    async def append(self, wanted: list[Draft]) -> list[int]:
        """As a hub does: sign what is there, commit, sign."""
        await self.write(lambda table: log.publish(table, secret(HUB)))

        def commit(table: Table) -> tuple[tuple[int, bool], ...]:
            batch, places = log.plan(table, wanted, NOW_MS)
            table.commit(batch)
            return places

        places = await self.write(commit)
        await self.write(lambda table: log.publish(table, secret(HUB)))
        return [index for index, _ in places]


async def run(flaky: Flaky) -> None:
    for _ in range(2):
        try:
            await flaky.write(lambda table: None if table.head().size else found(table))
        except DiskError:
            continue
    acknowledged: dict[bytes, int] = {}
    for number in range(4):
        batch = drafts(3, start=number * 2)
        for _ in range(3):
            try:
                indices = await flaky.append(batch)
            except DiskError:
                continue
            for draft, index in zip(batch, indices, strict=True):
                assert acknowledged.setdefault(draft.text, index) == index
            break

    def check(connection: sqlite3.Connection) -> None:
        table = Table(connection)
        assert table.read_texts(3, 50) == list(acknowledged)
        report = verify.verify(table)
        assert report.ok and report.checked == 12 and report.votes == 9

    await flaky.database.read(check)


@pytest.fixture
def flaky(tmp_path: Path) -> Iterator[Callable[[int, bool], Flaky]]:
    made: list[Flaky] = []

    def make(fails_at: int, stored: bool) -> Flaky:
        made.append(Flaky(tmp_path / "cortex.db", fails_at, stored))
        return made[-1]

    yield make
    for one in made:
        one.database.close()


WRITES = 14


async def test_the_number_of_writes(flaky: Callable[[int, bool], Flaky]) -> None:
    never = flaky(0, False)
    await run(never)
    assert never.writes == WRITES


@pytest.mark.parametrize("stored", [True, False], ids=["raised and stored", "raised and not stored"])
@pytest.mark.parametrize("fails_at", range(1, WRITES + 1))
async def test_a_write_that_fails_loses_nothing_and_doubles_nothing(
    flaky: Callable[[int, bool], Flaky], fails_at: int, stored: bool
) -> None:
    await run(flaky(fails_at, stored))
