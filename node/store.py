"""The set of ops on disk, and the books kept of it: chains, vectors, the Merkle leaves. The only SQL about ops.

`append` writes our own ops, `merge` those of peers; both run inside one transaction on the writer's thread. The same
transaction keeps each author's head, the Merkle leaves (node/leaves.py), the waiting list and the derived tables
(node/shown.py). So the version vector moves with the commit or not at all, and a broken connection resumes by itself.

* An op joins its author's chain when the op that its `prev` names is here; until then it is kept in `ahead`, bounded,
  and counts for nothing: a peer that is asked again sends it again.
* An op of the chain whose clock names ops that are not here *waits*: stored, forwarded and hashed, without effect.
* Two ops of one author that name the same `prev` are a fork, and both are kept: somebody runs one identity twice, or
  went on from an old copy. An op of *our own* author that we don't have means that we are the old copy: we go on in a
  new epoch.
* Our own seqs come from blocks reserved on disk beforehand. After an unclean stop the rest of the block is skipped, so
  a number that may have left this machine is never used again.

`vector`, `root` and `ops_after` are reads for the event loop's thread; they see committed state only.
Tests: tests/node/test_store.py; tests/sim drives the same rules against oracles of its own.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crdt.hlc import Clock, horizon, timestamp
from crdt.op import FORMAT, PREV_BYTES, Header, Op, OpClass, decode, seal
from crdt.survive import Clock as OpClock
from crdt.version import Dot, author_id, node_id
from node import leaves, shown
from node.database import Database
from sync import merkle
from sync.overlap import RESERVED

SEQ_BLOCK = 1_024
HLC_RESERVE_MS = 10_000
"""The clock's floor is saved this far ahead, so that it costs one small write every ten seconds, not one per op."""
MAX_AHEAD = 10_000
"""Ops kept per project beyond a gap. What does not fit is refused without loss: nobody was told that we have it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An op of ours that has yet to get its dot. `body` may need the dot: a text update derives its client from it."""

    project: str
    op_class: OpClass
    subject: str
    field: str
    kind: str
    body: bytes | Callable[[Dot], bytes]
    clock: OpClock = ()


@dataclass(slots=True)
class Merged:
    """What became of a batch of ops from a peer."""

    new: list[Op] = field(default_factory=list)
    ahead: int = 0
    known: int = 0


Admit = Callable[[Op], "Introduction | None"]
"""Reads a member record; None when the op is none, or not a valid one about its own author."""


class Introduction(NamedTuple):
    """Who an author is, by a certificate of this mesh."""

    node: str
    name: str
    certificate: bytes


class UnknownAuthor(Exception):
    """An op by a node that has no certificate of this mesh."""


class Store:
    """The ops of one node in `database`. `mesh`: 32 bytes; `secret_key`: libsodium's 64 bytes."""

    def __init__(self, database: Database, mesh: bytes, secret_key: bytes, admit: Admit) -> None:
        self.database = database
        self.mesh = mesh
        self.node_key = secret_key[32:]
        self.node_id = node_id(self.node_key)
        self.clock = Clock()
        self.epoch = 0
        self.on_change: Callable[[set[str]], None] = lambda projects: None
        self._secret_key = secret_key
        self._admit = admit
        self._seq = 0
        self._seq_limit = 0
        self._hlc_limit = 0
        self._projects: dict[str, int] = {}
        self._authors: dict[bytes, int] = {}
        self._chains: dict[int, dict[bytes, tuple[int, bytes]]] = {}
        self._longer: set[tuple[int, bytes]] = set()
        self._members: set[bytes] = set()
        self._touched: set[str] = set()
        self._vectors: dict[str, dict[bytes, int]] = {}
        self._roots: dict[str, bytes] = {}
        database.on_commit = self._committed
        database.on_rollback = self._forget

    # Opening and closing

    def load(self, connection: sqlite3.Connection) -> None:
        """Continue where this node stopped, or in a new epoch on a new database. Runs before any job."""
        saved = dict(connection.execute("SELECT key, value FROM meta"))
        self.epoch = saved.get("epoch") or secrets.randbits(63)
        self._seq = saved.get("seq", 0)
        self.clock.last = saved.get("hlc", 0)
        connection.execute("BEGIN IMMEDIATE")
        self._save(connection, "epoch", self.epoch)
        self._reserve(connection)
        connection.execute("COMMIT")

    def stop(self, connection: sqlite3.Connection) -> None:
        """The last job of a clean stop: the next start goes on with the very next seq."""
        self._save(connection, "seq", self._seq)
        self._save(connection, "hlc", self.clock.last)

    def renew_epoch(self, connection: sqlite3.Connection) -> None:
        """Go on as a new author, when we can't be sure that we remember all that we have sent."""
        self.epoch = secrets.randbits(63)
        self._save(connection, "epoch", self.epoch)
        self._seq = 0
        self._seq_limit = 0
        self._reserve(connection)

    # Writing: on the writer's thread, inside a transaction

    def append(self, connection: sqlite3.Connection, drafts: Sequence[Draft], now_ms: int) -> list[Op]:
        """Stamp, chain, sign and insert our own ops, in order; they show at once."""
        ops = []
        for draft in drafts:
            self._seq += 1
            if self._seq_limit - self._seq < SEQ_BLOCK // 2:
                self._reserve(connection)
            stamp = self.clock.issue(now_ms)
            me = author_id(self.node_key, self.epoch)
            project = self._project(connection, draft.project)
            prev_seq, prev_hash = self._chain(connection, project).get(me, (0, b""))
            body = draft.body if isinstance(draft.body, bytes) else draft.body(Dot(me, self._seq))
            header = Header(
                format=FORMAT,
                project=draft.project,
                op_class=int(draft.op_class),
                subject=draft.subject,
                field=draft.field,
                node_key=self.node_key,
                epoch=self.epoch,
                seq=self._seq,
                prev_seq=prev_seq,
                prev_hash=prev_hash[:PREV_BYTES],
                timestamp=stamp,
                clock=draft.clock,
                kind=draft.kind,
                body=body,
            )
            op = seal(self.mesh, header, self._secret_key)
            self._insert(connection, project, op)
            ops.append(op)
        self._finish(connection, ops, now_ms)
        return ops

    def merge(self, connection: sqlite3.Connection, ops: Iterable[Op], now_ms: int) -> Merged:
        """Take in verified ops of peers. Raises UnknownAuthor, and then nothing of the transaction stays."""
        merged = Merged()
        for op in ops:
            project = self._project(connection, op.project)
            head = self._chain(connection, project).get(op.author, (0, b""))
            if op.seq <= head[0] and self._known(connection, project, op):
                merged.known += 1
                continue
            self._check_author(connection, op)
            if not self._joins(connection, project, op):
                merged.ahead += self._keep_ahead(connection, op)
                continue
            following: Op | None = op
            while following is not None:
                self._insert(connection, project, following)
                self.clock.observe(following.timestamp, now_ms)
                merged.new.append(following)
                following = self._next_ahead(connection, following)
        me = author_id(self.node_key, self.epoch)
        if any(op.author == me for op in merged.new):
            self.renew_epoch(connection)
        self._finish(connection, merged.new, now_ms)
        return merged

    def rebuild(self, connection: sqlite3.Connection, now_ms: int) -> int:
        """Make every derived table anew from the ops; returns how many facts are shown."""
        shown.clear(connection)
        for project, subject in connection.execute("SELECT DISTINCT project, subject FROM ops").fetchall():
            self._show(connection, project, subject, now_ms)
        (facts,) = connection.execute("SELECT count(*) FROM facts").fetchone()
        return int(facts)

    def effective_ops(self, connection: sqlite3.Connection, subject: str, project: int) -> list[Op]:
        """The ops of one subject that are in effect, on any connection."""
        rows = connection.execute(
            "SELECT raw FROM ops WHERE subject = ? AND project = ? AND waiting = 0", (subject, project)
        )
        return [decode(self.mesh, raw) for (raw,) in rows]

    def held_after(self, now_ms: int) -> int:
        """The highest timestamp that is not held now."""
        return horizon(now_ms, self.clock.ahead_ms)

    # Reading committed state: on the event loop's thread

    def projects(self) -> list[str]:
        """The projects of which any op is here, the reserved one first."""
        return [
            name
            for (name,) in self.database.direct.execute(
                "SELECT name FROM projects ORDER BY name <> ?, name", (RESERVED,)
            )
        ]

    def vector(self, project: str) -> Mapping[bytes, int]:
        """Author id to the seq of the last op of its gapless chain here."""
        cached = self._vectors.get(project)
        if cached is None:
            rows = self.database.direct.execute(
                "SELECT a.name, h.seq FROM heads h JOIN authors a ON a.id = h.author"
                " JOIN projects p ON p.id = h.project WHERE p.name = ?",
                (project,),
            )
            cached = self._vectors[project] = dict(rows.fetchall())
        return cached

    def root(self, project: str) -> bytes:
        """The 16-byte Merkle root of all ops of `project`."""
        cached = self._roots.get(project)
        if cached is None:
            row = self.database.direct.execute("SELECT sum, ops FROM projects WHERE name = ?", (project,)).fetchone()
            total, count = row or (0, 0)
            cached = self._roots[project] = merkle.root(merkle.from_signed(total), count)
        return cached

    def ops_after(self, project: str, author: bytes, seq: int, max_ops: int, max_bytes: int) -> list[bytes]:
        """The author's next ops above `seq`, in chain order: at least one if there is one, within both bounds."""
        rows = self.database.direct.execute(
            "SELECT o.raw FROM ops o WHERE o.project = (SELECT id FROM projects WHERE name = ?)"
            " AND o.author = (SELECT id FROM authors WHERE name = ?) AND o.seq > ? ORDER BY o.seq, o.hash LIMIT ?",
            (project, author, seq, max_ops),
        )
        ops: list[bytes] = []
        size = 0
        for (raw,) in rows:
            size += len(raw)
            if ops and size > max_bytes:
                break
            ops.append(raw)
        return ops

    # The books

    def _insert(self, connection: sqlite3.Connection, project: int, op: Op) -> None:
        chain = self._chain(connection, project)
        missing = _missing_cause(op, chain)
        row = connection.execute(
            "INSERT INTO ops (project, author, seq, hash, subject, timestamp, waiting, raw) VALUES (?,?,?,?,?,?,?,?)",
            (
                project,
                self._author(connection, op),
                op.seq,
                op.hash,
                op.subject,
                op.timestamp,
                missing is not None,
                op.raw,
            ),
        )
        if missing:
            connection.execute("INSERT INTO waiting VALUES (?,?,?,?)", (project, *missing, row.lastrowid))
        if op.seq > chain.get(op.author, (0, b""))[0]:
            chain[op.author] = (op.seq, op.hash)
            self._longer.add((project, op.author))

    def _finish(self, connection: sqlite3.Connection, ops: Sequence[Op], now_ms: int) -> None:
        """Once a job: leaf sums, ops that no longer wait, and what is shown of every subject touched."""
        if self.clock.last > self._hlc_limit:
            self._hlc_limit = self.clock.last + timestamp(HLC_RESERVE_MS)
            self._save(connection, "hlc", self._hlc_limit)
        for project, author in self._longer:
            connection.execute(
                "INSERT INTO heads VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
                (project, self._authors[author], *self._chains[project][author]),
            )
        self._longer.clear()
        subjects = {(self._project(connection, op.project), op.subject): None for op in ops}
        by_project: dict[str, list[Op]] = {}
        for op in ops:
            by_project.setdefault(op.project, []).append(op)
        for name, added in by_project.items():
            project = self._project(connection, name)
            self._touched.add(name)
            leaves.add(connection, project, (op.hash for op in added))
            for op in self._wake(connection, project, {op.author for op in added}):
                subjects[project, op.subject] = None
        for project, subject in subjects:
            self._show(connection, project, subject, now_ms)

    def _show(self, connection: sqlite3.Connection, project: int, subject: str, now_ms: int) -> None:
        ops = self.effective_ops(connection, subject, project)
        shown.show(connection, project, subject, ops, self.held_after(now_ms))

    def _known(self, connection: sqlite3.Connection, project: int, op: Op) -> bool:
        row = connection.execute("SELECT 1 FROM ops WHERE project = ? AND hash = ?", (project, op.hash)).fetchone()
        return row is not None

    def _joins(self, connection: sqlite3.Connection, project: int, op: Op) -> bool:
        """Whether the op that `prev` names is here. Two ops may name the same: then the author's chain has forked."""
        seq, digest = op.header.prev_seq, op.header.prev_hash
        if seq == 0:
            return True
        head_seq, head_hash = self._chain(connection, project).get(op.author, (0, b""))
        if seq == head_seq:
            return digest == head_hash[:PREV_BYTES]
        if seq > head_seq:
            return False
        rows = connection.execute(
            "SELECT hash FROM ops WHERE project = ? AND author = ? AND seq = ?",
            (project, self._author(connection, op), seq),
        )
        return any(known[:PREV_BYTES] == digest for (known,) in rows)

    def _keep_ahead(self, connection: sqlite3.Connection, op: Op) -> int:
        (kept,) = connection.execute("SELECT count(*) FROM ahead WHERE project = ?", (op.project,)).fetchone()
        if kept < MAX_AHEAD:
            connection.execute(
                "INSERT OR IGNORE INTO ahead VALUES (?,?,?,?,?)",
                (op.project, op.author, op.header.prev_seq, op.hash, op.raw),
            )
        return 1

    def _next_ahead(self, connection: sqlite3.Connection, op: Op) -> Op | None:
        """The kept op that follows `op` in its author's chain, taken out of `ahead`."""
        rows = connection.execute(
            "SELECT raw FROM ahead WHERE project = ? AND author = ? AND prev_seq = ?", (op.project, op.author, op.seq)
        ).fetchall()
        following = [decode(self.mesh, raw) for (raw,) in rows]
        joined = [nxt for nxt in following if nxt.header.prev_hash == op.hash[:PREV_BYTES]]
        if rows:
            connection.execute(
                "DELETE FROM ahead WHERE project = ? AND author = ? AND prev_seq <= ?", (op.project, op.author, op.seq)
            )
        return min(joined, key=lambda nxt: nxt.hash, default=None)

    def _wake(self, connection: sqlite3.Connection, project: int, authors: set[bytes]) -> list[Op]:
        """The ops whose causes have all arrived now that the chains of `authors` are longer."""
        chain = self._chain(connection, project)
        woken = []
        for author in authors:
            due = connection.execute(
                "SELECT w.seq, w.op, o.raw FROM waiting w JOIN ops o ON o.id = w.op"
                " WHERE w.project = ? AND w.author = ? AND w.seq <= ?",
                (project, author, chain.get(author, (0, b""))[0]),
            ).fetchall()
            for seq, row, raw in due:
                connection.execute(
                    "DELETE FROM waiting WHERE op = ? AND project = ? AND author = ? AND seq = ?",
                    (row, project, author, seq),
                )
                op = decode(self.mesh, raw)
                if missing := _missing_cause(op, chain):
                    connection.execute("INSERT INTO waiting VALUES (?,?,?,?)", (project, *missing, row))
                else:
                    connection.execute("UPDATE ops SET waiting = 0 WHERE id = ?", (row,))
                    woken.append(op)
        return woken

    # Names and numbers

    def _check_author(self, connection: sqlite3.Connection, op: Op) -> None:
        """Only members write. A node's first op is its own member record, so it introduces itself."""
        key = op.header.node_key
        introduction = self._admit(op) if op.project == RESERVED else None
        if introduction is not None:
            connection.execute("INSERT OR REPLACE INTO members VALUES (?,?,?)", introduction)
        elif key not in self._members:
            node = node_id(key)
            if connection.execute("SELECT 1 FROM members WHERE node = ?", (node,)).fetchone() is None:
                raise UnknownAuthor(f"node {node} has shown no certificate of this mesh")
        self._members.add(key)

    def _project(self, connection: sqlite3.Connection, name: str) -> int:
        if name not in self._projects:
            connection.execute("INSERT OR IGNORE INTO projects (name, bits) VALUES (?, ?)", (name, merkle.bits_for(0)))
            (self._projects[name],) = connection.execute("SELECT id FROM projects WHERE name = ?", (name,)).fetchone()
        return self._projects[name]

    def _author(self, connection: sqlite3.Connection, op: Op) -> int:
        if op.author not in self._authors:
            connection.execute(
                "INSERT OR IGNORE INTO authors (name, node_key, epoch) VALUES (?,?,?)",
                (op.author, op.header.node_key, op.header.epoch),
            )
            (self._authors[op.author],) = connection.execute(
                "SELECT id FROM authors WHERE name = ?", (op.author,)
            ).fetchone()
        return self._authors[op.author]

    def _chain(self, connection: sqlite3.Connection, project: int) -> dict[bytes, tuple[int, bytes]]:
        if project not in self._chains:
            rows = connection.execute(
                "SELECT a.name, h.seq, h.hash FROM heads h JOIN authors a ON a.id = h.author WHERE h.project = ?",
                (project,),
            )
            self._chains[project] = {name: (seq, digest) for name, seq, digest in rows}
        return self._chains[project]

    def _reserve(self, connection: sqlite3.Connection) -> None:
        self._seq_limit = self._seq + SEQ_BLOCK
        self._save(connection, "seq", self._seq_limit)

    def _save(self, connection: sqlite3.Connection, key: str, value: int) -> None:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _committed(self) -> Callable[[], None]:
        touched, self._touched = self._touched, set()

        def announce() -> None:
            for name in touched:
                self._vectors.pop(name, None)
                self._roots.pop(name, None)
            if touched:
                self.on_change(touched)

        return announce

    def _forget(self) -> None:
        """After a rollback: what was read or reserved in the transaction may not be true. Seqs are simply skipped."""
        self._projects.clear()
        self._authors.clear()
        self._chains.clear()
        self._longer.clear()
        self._members.clear()
        self._seq_limit = 0
        self._hlc_limit = 0


def _missing_cause(op: Op, chain: Mapping[bytes, tuple[int, bytes]]) -> Dot | None:
    """The first entry of the op's clock that the chains here don't reach; None when the op is in effect."""
    if not op.header.clock:
        return None
    return next((Dot(a, s) for a, s in op.header.clock if s > chain.get(a, (0, b""))[0]), None)
