"""The ops of the ledger as they come: what is simple is taken in at once, the rest is noted for node/voting/follow.py.

`Inbox.show` runs in the transaction that changed a subject's ops, so it is short: it decodes, checks a signature or
two, and writes a row. What needs the ledger - checkpoints, entries, forks - becomes a row of `ledger_inbox`, by kind
and place, and is judged in jobs of its own.

* Statements are kept when all who must have signed them, and enrolments when the node that is the voice wrote the op:
  so every voice is a member, and nobody makes up a hundred. What waits for an entry is bounded for each node that
  stands behind it (MAX_PENDING); beyond that a statement waits in the inbox until there is room, and is not lost.
* Of a project's keys the register decides, like of any value that was written twice.
* A cosignature is kept when it is the work of the node in whose place it stands, for the newest checkpoints.

All of it follows from the ops, in any order, twice, or again on a rebuild. `clear` empties what is made here and
nothing else: the entries, roots and notes of `node.voting.table` stay, also on a rebuild. On a hub they are the first
to know; everywhere the roots are what was accepted and vouched for, and forgetting them would let a second history in.
Tests: tests/node/voting/test_inbox.py.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from crdt.op import Op
from crdt.register import resolve
from crdt.version import node_id
from ledger import entry as entries
from ledger import note, statement
from ledger.checkpoint import Checkpoint
from ledger.note import Algorithm, BadNote, VerifierKey
from ledger.statement import BadStatement, Enrolment, Genesis, Grant, Revocation
from node.voting import records
from node.voting.records import COSIGNATURE, ENTRIES, PROJECT_KEY, STATEMENT, Cosigned, Wanted, read
from node.voting.signers import read_signers
from sync.overlap import RESERVED

MAX_PENDING: Final = 1_000
"""Statements of one node that wait for an entry. A machine enrols a handful of agents; a hub takes 100 at a time."""
MAX_COSIGNATURES: Final = 16
"""What the note of a checkpoint carries at most, beside those of the hubs (ledger.note.MAX_SIGNATURES)."""
_AGAIN: Final = "INSERT OR IGNORE INTO ledger_inbox (kind, at, hash, project) VALUES (?, ?, ?, ?)"
_LEDGER_PREFIX: Final = records.LEDGER + "/"
_NUMBERED: Final = (records.CHECKPOINT, ENTRIES)


class Inbox:
    """Shows the subjects under `ledger/`. `mesh`: its id; `authority`: the key of its certificate authority."""

    def __init__(self, mesh: bytes, authority: bytes) -> None:
        self.mesh = mesh
        self.authority = authority
        self.on_filled: Callable[[], None] = lambda: None
        """Called on the writer's thread when a row was added, before its commit; a later job sees the row."""

    def show(self, connection: sqlite3.Connection, project: int, subject: str, ops: Sequence[Op]) -> None:
        """`Store.shows["ledger"]`."""
        kind, _, rest = subject.removeprefix(_LEDGER_PREFIX).partition("/")
        name = ops[0].project if ops else ""
        if kind == "key" and not rest:
            self._show_key(connection, name, ops)
        elif kind == ENTRIES or (name == RESERVED and kind in (records.CHECKPOINT, records.FORK)):
            self._note(connection, project, kind, rest, ops)
        elif kind == STATEMENT and name == RESERVED:
            self._show_statements(connection, project, ops)
        elif kind == "witness" and name == RESERVED:
            self._show_cosignature(connection, project, rest, ops)

    def clear(self, connection: sqlite3.Connection) -> None:
        """Before all subjects are shown again. A statement that has its entry here may have no op yet, on a hub."""
        connection.execute("DELETE FROM statements WHERE hash NOT IN (SELECT name FROM ledger_entries)")
        for table in ("project_keys", "ledger_cosignatures", "ledger_inbox"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608  # three words of ours

    def _note(self, connection: sqlite3.Connection, project: int, kind: str, place: str, ops: Sequence[Op]) -> None:
        at = 0
        if kind in _NUMBERED:
            if not (place.isascii() and place.isdecimal() and len(place) < 20 and int(place) <= entries.MAX_NUMBER):
                return
            at = int(place)
        found = [op for op in ops if op.header.kind == kind]
        connection.executemany(_AGAIN, [(kind, at, op.hash, project) for op in found])
        if found:
            self.on_filled()

    def _show_key(self, connection: sqlite3.Connection, project: str, ops: Sequence[Op]) -> None:
        writes = [op for op in ops if op.header.kind == PROJECT_KEY and read(op, bytes) is not None]
        if winner := resolve(writes).winner:
            row = (project, read(winner, bytes))
            connection.execute("INSERT OR REPLACE INTO project_keys VALUES (?, ?)", row)

    # Statements

    def _show_statements(self, connection: sqlite3.Connection, project: int, ops: Sequence[Op]) -> None:
        for op in ops:
            if (wanted := read(op, Wanted)) is None:
                continue
            name = entries.text_hash(wanted.text)
            known = connection.execute("SELECT 1 FROM statements WHERE hash = ?", (name,)).fetchone()
            if known or (said := self._said(wanted)) is None or not _is_by(op, said):
                continue
            entry = connection.execute("SELECT id FROM ledger_entries WHERE name = ?", (name,)).fetchone()
            behind = _behind(said)
            if entry is None and not _has_room(connection, behind):  # its signatures are checked when there is room
                connection.execute(_AGAIN, (STATEMENT, 0, op.hash, project))
                continue
            if not self._is_signed(wanted):
                continue
            row = (name, wanted.kind, wanted.text, entry[0] if entry else None, behind)
            connection.execute("INSERT INTO statements (hash, kind, text, entry, behind) VALUES (?, ?, ?, ?, ?)", row)
            self.on_filled()

    def _said(self, wanted: Wanted) -> statement.Statement | None:
        """The statement, if it is of this mesh; unchecked. A grant names its ledger instead."""
        try:
            said = statement.decode(wanted.kind, wanted.text)
        except BadStatement:
            return None
        return said if isinstance(said, Grant) or said.mesh == self.mesh else None

    def _is_signed(self, wanted: Wanted) -> bool:
        try:
            statement.verify(wanted.kind, wanted.text, self.authority)
        except BadStatement:
            return False
        return True

    # Cosignatures

    def _show_cosignature(self, connection: sqlite3.Connection, project: int, node: str, ops: Sequence[Op]) -> None:
        own = [op for op in ops if op.header.kind == COSIGNATURE and node_id(op.header.node_key) == node]
        if (winner := resolve(own).winner) is None or (record := read(winner, Cosigned)) is None:
            return
        if (signers := read_signers(connection)) is None:
            connection.execute(_AGAIN, (COSIGNATURE, 0, winner.hash, project))
        elif is_cosigned(record, signers.origin, winner.header.node_key):
            row = (node, record.size, record.root, record.line)
            connection.execute("INSERT OR REPLACE INTO ledger_cosignatures VALUES (?, ?, ?, ?)", row)
            connection.execute(
                "DELETE FROM ledger_cosignatures WHERE node NOT IN"
                " (SELECT node FROM ledger_cosignatures ORDER BY size DESC, node LIMIT ?)",
                (MAX_COSIGNATURES,),
            )


def is_cosigned(record: Cosigned, origin: str, node_key: bytes) -> bool:
    """Whether the line is this node's cosignature of that checkpoint, and nothing besides."""
    key = VerifierKey(node_id(node_key), Algorithm.COSIGNATURE, node_key)
    text = Checkpoint(origin, record.size, record.root).text
    try:
        opened, _ = note.open_note(f"{text}\n{record.line}\n".encode(), [key])
    except BadNote:
        return False
    return opened.text == text and len(opened.signatures) == 1


def put_back(connection: sqlite3.Connection) -> None:
    """Notes every checkpoint, entry and fork again, from the ops: what had no effect may have one now."""
    connection.execute("UPDATE ledger_inbox SET size = NULL, since = NULL WHERE size NOT NULL")
    for kind in (records.CHECKPOINT, ENTRIES, records.FORK):
        first = f"{_LEDGER_PREFIX}{kind}/"
        place = f"CAST(substr(o.subject, {len(first) + 1}) AS INTEGER)" if kind in _NUMBERED else "0"
        connection.execute(
            f"INSERT OR IGNORE INTO ledger_inbox (kind, at, hash, project) SELECT ?1, {place}, o.hash, o.project"  # noqa: S608
            " FROM ops o JOIN projects p ON p.id = o.project WHERE o.subject > ?2 AND o.subject < ?3"
            " AND o.waiting = 0 AND (?1 = ?4 OR p.name = ?5)",
            (kind, first, first[:-1] + "0", ENTRIES, RESERVED),  # 0 comes after the slash
        )


def _is_by(op: Op, said: statement.Statement) -> bool:
    """Whether the node that answers for the statement wrote the op, where one does."""
    return not isinstance(said, Enrolment) or op.header.node_key == said.voice


def _behind(said: statement.Statement) -> bytes | None:
    """Whose room it takes: a node's key, or none. Ends that agents sign share that of one node: anybody makes keys."""
    match said:
        case Enrolment(voice=voice):
            return voice
        case Revocation(agent=agent, by=by):
            return b"" if by == agent else by
        case Genesis() | Grant():
            return None


def _has_room(connection: sqlite3.Connection, behind: bytes | None) -> bool:
    query = "SELECT count(*) FROM statements WHERE entry IS NULL AND behind = ?"
    return int(connection.execute(query, (behind,)).fetchone()[0]) < MAX_PENDING
