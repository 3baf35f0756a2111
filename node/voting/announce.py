"""What a hub has committed, told to the others: as ops, so that sync takes it to whoever carries the project.

One checkpoint with the proof that it continues the one announced before; the entries of statements, and every grant as
a statement besides, in the reserved project; the entries of votes in the projects that they are about; each with its
text and with its inclusion proof under that checkpoint. Neighbours share most of their proofs' hashes.

How far has been announced is kept in the ledger's state and moves in the job that writes the ops. So a crash between a
commit and its announcement loses nothing: what is still to be told is found again. Only who committed announces:
`begin` is called when a ledger is founded or taken over. Tests: tests/node/voting/test_announce.py.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from crdt.op import Op
from ledger import tlog
from ledger.checkpoint import parse_text
from ledger.entry import Kind, decode
from ledger.log import MAX_BATCH
from ledger.note import parse
from ledger.tlog import Node
from node.store import Draft, Store
from node.voting import records
from node.voting.records import Announced, Entries
from node.voting.table import ANNOUNCED, Table
from sync.overlap import RESERVED

MAX_ENTRIES: Final = 10 * MAX_BATCH
"""Entries that one job announces: some 0.1 s, in which nothing else is written."""


class Told(NamedTuple):
    """The first `entries` entries have been announced, and the checkpoint of `checkpoint` entries."""

    entries: int
    checkpoint: int


class _Line(NamedTuple):
    place: int
    raw: bytes
    text: bytes


def begin(table: Table, told: Told) -> None:
    """From here on this node announces what comes after `told`, or what it has yet to announce before that."""
    raw = table.state(ANNOUNCED)
    before = _told(raw) if raw else told
    _set(table, Told(min(told.entries, before.entries), min(told.checkpoint, before.checkpoint)))


def begin_anew(table: Table, told: Told) -> None:
    """After a takeover: what this node announced beyond is no longer so."""
    _set(table, told)


def heard(table: Table, size: int) -> None:
    """A checkpoint of this size was taken in from an op, so all have it: what is announced next continues that one.

    Only on a node that announces. It had been away: it was put back from a backup, or is one hub of several.
    """
    if (raw := table.state(ANNOUNCED)) is not None and size > (told := _told(raw)).checkpoint:
        _set(table, told._replace(checkpoint=size))


def due(table: Table) -> bool:
    """Whether anything that is signed has yet to be told."""
    raw, newest = table.state(ANNOUNCED), table.newest_checkpoint()
    if raw is None or newest is None:
        return False
    size = parse_text(parse(newest).text).size
    return _told(raw) != (size, size)


def announce(connection: sqlite3.Connection, store: Store, now_ms: int) -> list[Op]:
    """Write, in a job, the next ops that are due; the caller tells the network. Call it until `due` says no."""
    table = Table(connection)
    raw, newest = table.state(ANNOUNCED), table.newest_checkpoint()
    if raw is None or newest is None or not due(table):
        return []
    told, size = _told(raw), parse_text(parse(newest).text).size
    end = min(size, told.entries + MAX_ENTRIES)
    drafts = _entries(table, told.entries, end, size)
    if size != told.checkpoint:
        proof = tuple(tlog.prove_consistency(told.checkpoint, size, table))
        drafts.insert(0, records.checkpoint_draft(size, Announced(newest, told.checkpoint, proof)))
    ops = store.append(connection, drafts, now_ms)
    _set(table, Told(end, size))
    return ops


def _entries(table: Table, start: int, end: int, size: int) -> list[Draft]:
    """The ops about the entries from `start` to `end`, proved under the checkpoint of `size`."""
    by_project: dict[str, list[_Line]] = {}
    grants = []
    query = "SELECT id, raw, text, project FROM ledger_entries WHERE id >= ? AND id < ? ORDER BY id"
    for index, raw, text, project in table.connection.execute(query, (start, end)):
        kind = decode(raw).kind
        if text is None or (kind == Kind.VOTE and project is None):
            continue  # a text that was deleted has nobody to be told to
        by_project.setdefault(project if kind == Kind.VOTE else RESERVED, []).append(_Line(index, raw, text))
        if kind == Kind.GRANT:
            grants.append(records.statement_draft(kind, text))
    hashes = _Remembered(table)
    return grants + [
        records.entries_draft(project, lines[0].place, _with_proofs(lines, size, hashes))
        for project, whole in sorted(by_project.items(), key=lambda one: one[0] != RESERVED)
        for lines in _in_batches(whole)
    ]


def _with_proofs(lines: Sequence[_Line], size: int, reader: "_Remembered") -> Entries:
    places: dict[bytes, int] = {}
    proofs = tuple(
        tuple(places.setdefault(value, len(places)) for value in tlog.prove_inclusion(line.place, size, reader))
        for line in lines
    )
    return Entries(size, tuple((line.raw, line.text) for line in lines), tuple(places), proofs)


def _in_batches(lines: Sequence[_Line]) -> Iterator[Sequence[_Line]]:
    for start in range(0, len(lines), MAX_BATCH):
        yield lines[start : start + MAX_BATCH]


def _told(raw: bytes) -> Told:
    return Told(*msgspec.msgpack.decode(raw, type=tuple[int, int]))


def _set(table: Table, told: Told) -> None:
    table.set_state(ANNOUNCED, msgspec.msgpack.encode(tuple(told)))


class _Remembered:
    """Stored hashes, each read once: the proofs of neighbours go through the same subtrees."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[Node, bytes] = {}

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        if missing := [node for node in nodes if node not in self._known]:
            self._known.update(zip(missing, self._table.read_hashes(missing), strict=True))
        return [self._known[node] for node in nodes]
