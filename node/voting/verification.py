"""Verification of the ledger that this node has: all of it where it is whole, everything that is there where it is not.

The ledger is read in pieces of 256 entries over a connection of its own, each piece in its own short transaction, on a
thread: nothing waits for it, and the log of the database is not held back. What is checked is as large as the newest
checkpoint was at the beginning. Memory does not grow with the ledger: which votes were seen stands in a file without a
name, that is gone with the process.

* Whole: `ledger.verify.verify`, and every root that was accepted, also those whose notes are gone.
* With gaps: each entry's inclusion proof under a root that was accepted, what was left out (ledger.verify.left_out),
  the notes, and every text (ledger.texts).
* In both: that what the database has drawn from an entry, to find it by, is what the entry says; forks that are known;
  and why the ledger is frozen, if it is.

Tests: tests/node/voting/test_verification.py.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, MutableSet, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from ledger import entry as entries
from ledger import note, tlog
from ledger.checkpoint import Checkpoint, Fork, Opened, open_checkpoint, origin_of, parse_text
from ledger.entry import BadEntry, Entry
from ledger.note import BadNote
from ledger.policy import Policy, cosigned
from ledger.texts import Texts
from ledger.tlog import BadProof, Node
from ledger.verify import CHUNK, MAX_FINDINGS, Finding, Report, left_out, verify
from node.database import connect
from node.errors import Problem
from node.voting import reads
from node.voting.reads import Place
from node.voting.table import Table
from node.voting.witness import witnessed

SEEN_CACHE_KIB: Final = 2_048
READINGS: Final = 3
"""Of a ledger with gaps into which entries come in while it is read."""
Progress = Callable[[int, int], None]
"""Told (entries checked, entries in all)."""


class Stopped(Exception):
    """Nobody waits for the result any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to verify against. `policy`: what the newest checkpoint must satisfy, of the current grant when None;
    `kept`: a checkpoint that the asker accepted earlier."""

    policy: Policy | None = None
    kept: Checkpoint | None = None


class Verification:
    """Runs verifications of the database at `path`, one at a time."""

    def __init__(self, path: Path, place: Place, refuse_bulk: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._place = place
        self._refuse_bulk = refuse_bulk
        self._lock = threading.Lock()
        """Held by the thread, which may outlive the caller for as long as it takes to check a piece."""

    async def run(
        self, wanted: Wanted | None = None, progress: Progress = lambda checked, size: None
    ) -> dict[str, Any]:
        """What was found. Raises Problem busy, no_ledger. Who is cancelled stops it."""
        self._refuse_bulk()
        loop, stopped = asyncio.get_running_loop(), threading.Event()

        def tell(checked: int, size: int) -> None:
            if stopped.is_set():
                raise Stopped
            loop.call_soon_threadsafe(progress, checked, size)

        try:
            return await asyncio.to_thread(self._run, wanted or Wanted(), tell)
        except asyncio.CancelledError:
            stopped.set()
            raise

    def _run(self, wanted: Wanted, tell: Progress) -> dict[str, Any]:
        if not self._lock.acquire(blocking=False):
            raise Problem(503, "busy", "a verification is under way already", "come again when it has ended")
        try:
            with closing(connect(self._path, read_only=True)) as connection:
                return check(connection, self._place, wanted, tell)
        except Stopped:
            return {}
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            return document(Report(), [Finding(None, "database", f"SQLite: {error}")], 0, whole=False)
        finally:
            self._lock.release()


def check(
    connection: sqlite3.Connection, place: Place, wanted: Wanted, tell: Progress = lambda checked, size: None
) -> dict[str, Any]:
    """Verifies what is behind `connection`, which is in autocommit mode. Raises Problem no_ledger."""
    source, report, whole = _read(connection, place, wanted, tell)
    for _ in range(READINGS - 1):
        if report.ok or whole or report.checked == source.count():
            break  # else entries came in behind the reading, and what was missing may be among them
        source, report, whole = _read(connection, place, wanted, tell)
    findings = [*_standing(connection), *report.findings, *source.findings][:MAX_FINDINGS]
    return document(report, findings, source.size, whole=whole)


def _read(connection: sqlite3.Connection, place: Place, wanted: Wanted, tell: Progress) -> tuple["Kept", Report, bool]:
    """One reading, and whether every entry is here."""
    connection.execute("BEGIN")
    try:
        source, whole = Kept(connection), reads.is_whole(connection)
        rule = wanted.policy or reads.policy(connection, place)
    finally:
        connection.execute("ROLLBACK")
    with closing(Seen()) as seen:
        if whole:
            report = verify(source, rule, authority=place.authority, kept=wanted.kept, seen=seen, progress=tell)
            source.findings += _roots_without_notes(connection, source)
        else:
            report = _Lines(connection, source, place, rule, wanted.kept, seen).run(tell)
    return source, report, whole


def document(report: Report, findings: Sequence[Finding], size: int, *, whole: bool) -> dict[str, Any]:
    """A report as it is answered. `root`: of what was read."""
    return {
        "ok": not findings,
        "checked": report.checked,
        "votes": report.votes,
        "signatures": report.signatures,
        "size": size,
        "root": report.root.hex(),
        "whole": whole,
        "findings": [{"index": one.index, "code": one.code, "detail": one.detail} for one in findings],
    }


class Kept:
    """A ledger.verify.Source over a node's own tables: as large as its newest checkpoint when it was made."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.newest = reads.newest(connection)[0]
        self.size = self.newest.size
        self.findings: list[Finding] = []
        """What is wrong with the columns beside the entries."""
        self._connection = connection
        self._table = Table(connection)
        *earlier, newest = self._table.checkpoints()
        self._notes = [*earlier, witnessed(connection, newest)]

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return self._table.read_hashes(nodes)

    def read_entries(self, start: int, count: int) -> list[bytes]:
        rows = self.rows(start, count)
        together = [row for at, row in enumerate(rows, start) if row[0] == at]
        return [raw for _, raw, _ in together]

    def read_texts(self, start: int, count: int) -> list[bytes | None]:
        return self._table.read_texts(start, min(count, self.size - start))

    def checkpoints(self) -> list[bytes]:
        return self._notes

    def count(self) -> int:
        """How many of the entries are here now."""
        query = "SELECT count(*) FROM ledger_entries WHERE id < ?"
        return int(self._connection.execute(query, (self.size,)).fetchone()[0])

    def rows(self, start: int, count: int) -> list[tuple[int, bytes, bytes | None]]:
        """Up to `count` of the entries from `start` on that are here: (index, bytes, text)."""
        query = "SELECT id, raw, text, name, tag, hash FROM ledger_entries WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        found = self._connection.execute(query, (start, self.size, count)).fetchall()
        for index, raw, _, *columns in found:
            if columns != _drawn(raw) and len(self.findings) < MAX_FINDINGS:
                self.findings.append(Finding(index, "row", "what the database has drawn from the entry is not in it"))
        return [(index, raw, text) for index, raw, text, *_ in found]


class _Lines:
    """One reading of a ledger with gaps."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        source: Kept,
        place: Place,
        rule: Policy | None,
        kept: Checkpoint | None,
        seen: MutableSet[bytes],
    ) -> None:
        self._connection = connection
        self._source = source
        self._rule = rule
        self._kept = kept
        self._table = Table(connection)
        self._report = Report(root=source.newest.root)
        self._texts = Texts(place.authority, seen, self._find)
        self._root: tuple[int, bytes | None] = (0, None)

    def run(self, tell: Progress) -> Report:
        for finding in left_out(self._lines(tell)):
            self._find(finding.index, finding.code, finding.detail)
        self._report.votes, self._report.signatures = self._texts.votes, self._texts.signatures
        self._check_notes()
        self._check_kept()
        return self._report

    def _lines(self, tell: Progress) -> Iterator[Entry]:
        """Each entry that is here, in order, after it was checked by itself."""
        start = 0
        while rows := self._source.rows(start, CHUNK):
            for index, raw, text in rows:
                if index == 0:
                    self._texts.origin = origin_of(entries.entry_hash(raw))
                try:
                    entry = entries.decode(raw)
                    self._check_place(index, raw, entry)
                except (BadEntry, BadProof, LookupError) as error:
                    code = "entry" if isinstance(error, BadEntry) else "proof"
                    self._find(index, code, str(error))
                    continue
                self._texts.read(entry, text)
                yield entry
            self._report.checked += len(rows)
            start = rows[-1][0] + 1
            tell(self._report.checked, self._source.size)

    def _check_place(self, index: int, raw: bytes, entry: Entry) -> None:
        if entry.index != index:
            raise BadEntry(f"the entry says that it is number {entry.index}")
        came = self._table.proof(index)
        size, proof = came or self._from_the_tree(index)
        if self._root[0] != size:
            row = self._connection.execute("SELECT root FROM ledger_checkpoints WHERE size = ?", (size,)).fetchone()
            self._root = size, row[0] if row else None
        if self._root[1] is None:
            raise BadProof(f"its proof is for {size} entries, and no checkpoint of that size was accepted")
        tlog.check_inclusion(proof, index, size, tlog.leaf_hash(raw), self._root[1])

    def _from_the_tree(self, index: int) -> tuple[int, tuple[bytes, ...]]:
        """The proof of an entry that came without one, as far as the tree is whole."""
        query = "SELECT min(size) FROM ledger_checkpoints WHERE size > ? AND size <= ?"
        (size,) = self._connection.execute(query, (index, self._table.head().size)).fetchone()
        if size is None:
            raise BadProof("no proof came with it, and no checkpoint reaches it without a gap")
        return size, tuple(tlog.prove_inclusion(index, size, self._table))

    def _check_notes(self) -> None:
        """Every note that was kept says what was accepted, and a hub that was granted has signed it."""
        rule = self._rule
        hubs = [*(rule.logs if rule else ()), *self._texts.hubs]
        for raw in self._source.checkpoints():
            try:
                witnesses = rule.witnesses.values() if rule else ()
                opened = open_checkpoint(raw, self._texts.origin, hubs, witnesses)
            except BadNote as error:
                self._find(None, "checkpoint", str(error))
                continue
            said = opened.checkpoint
            query = "SELECT root FROM ledger_checkpoints WHERE size = ?"
            row = self._connection.execute(query, (said.size,)).fetchone()
            if row is None or row[0] != said.root:
                self._find(None, "root", f"at size {said.size} another root was accepted than the note says")
            self._check_newest(opened)

    def _check_newest(self, opened: Opened) -> None:
        if opened.checkpoint == self._source.newest:
            self._report.opened = opened
            if self._rule and not cosigned(self._rule, opened):
                self._find(None, "witness", "the newest checkpoint is cosigned by too few witnesses for the policy")

    def _check_kept(self) -> None:
        kept, newest = self._kept, self._source.newest
        if kept is None:
            return
        if kept.size > newest.size:
            return self._find(None, "older", f"a checkpoint of {kept.size} entries was kept, here are {newest.size}")
        query = "SELECT root FROM ledger_checkpoints WHERE size = ?"
        row = self._connection.execute(query, (kept.size,)).fetchone()
        if row is None:
            self._find(None, "unproven", f"this node has gaps, and has accepted no checkpoint of {kept.size} entries")
        elif row[0] != kept.root or kept.origin != newest.origin:
            self._find(None, "fork", f"the first {kept.size} entries are not those of the checkpoint that was kept")

    def _find(self, index: int | None, code: str, detail: str) -> None:
        if len(self._report.findings) < MAX_FINDINGS:
            self._report.findings.append(Finding(index, code, detail))


class Seen(MutableSet[bytes]):
    """A set on disk: a temporary database without a name, which SQLite keeps in memory while it is small."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{SEEN_CACHE_KIB}")
        self._connection.execute("CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID")
        self._connection.execute("BEGIN")

    def __contains__(self, name: object) -> bool:
        return self._connection.execute("SELECT 1 FROM seen WHERE name = ?", (name,)).fetchone() is not None

    def __iter__(self) -> Iterator[bytes]:
        return (name for (name,) in self._connection.execute("SELECT name FROM seen"))

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM seen").fetchone()[0])

    def add(self, name: bytes) -> None:
        self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (name,))

    def discard(self, name: bytes) -> None:
        self._connection.execute("DELETE FROM seen WHERE name = ?", (name,))

    def close(self) -> None:
        self._connection.close()


def _drawn(raw: bytes) -> list[bytes]:
    """What the columns name, tag and hash have of an entry."""
    try:
        entry = entries.decode(raw)
    except BadEntry:
        return []
    return [entry.text_hash, entry.project_tag, entries.entry_hash(raw)]


def _roots_without_notes(connection: sqlite3.Connection, source: Kept) -> Iterator[Finding]:
    """Accepted roots whose notes are gone, against the tree, which `verify` has compared with the entries."""
    query = (
        "SELECT size, root FROM ledger_checkpoints WHERE note IS NULL AND size > ? AND size <= ? ORDER BY size LIMIT ?"
    )
    last = 0
    while rows := connection.execute(query, (last, source.size, CHUNK)).fetchall():
        for last, root in rows:
            try:
                fits = tlog.root(last, source) == root
            except LookupError as error:
                yield Finding(None, "root", f"size {last}: {error}")
            else:
                if not fits:
                    yield Finding(None, "root", f"the first {last} entries have another root than was accepted")


def _standing(connection: sqlite3.Connection) -> Iterator[Finding]:
    """What was found before, and still stands."""
    if frozen := Table(connection).frozen():
        yield Finding(frozen.index, "frozen", f"nothing is appended since {frozen.code}: {frozen.detail}")
    for (raw,) in connection.execute("SELECT fork FROM ledger_forks ORDER BY at LIMIT ?", (MAX_FINDINGS,)):
        yield Finding(None, "fork", _of_fork(raw))


def _of_fork(raw: bytes) -> str:
    try:
        fork = msgspec.msgpack.decode(raw, type=Fork)
        older, newer = (parse_text(note.parse(one).text) for one in (fork.older, fork.newer))
    except (msgspec.MsgspecError, BadNote) as error:
        return f"the evidence of a fork that is kept here can't be read: {error}"
    return f"two checkpoints were signed that contradict each other, of {older.size} and of {newer.size} entries"
