"""The chains: each author's ops of a project, one after the other, and what is known of those that don't fit yet.

Every op names the author's previous one in its project (`prev`), so where a new op belongs shows in the op itself:

* it *joins* when the op that it names is here, and counts from then on: hashed, forwarded, claimed by the vector;
* beyond a gap it is set aside in `ahead` and counts for nothing. What doesn't fit there is refused without loss: nobody
  was told that it is here, so it comes again;
* one that has joined, but whose clock names ops that are not here, *waits*: it counts, and has no effect yet.

Two ops of one author that name the same `prev` are a fork: somebody runs one identity twice, or went on from an old
copy. Both are kept, with all that follows them. The head is then the op with the highest seq, and of two the one with
the smaller hash, so that it doesn't depend on who came first.

Everything here runs on the writer's thread, inside a transaction; what is remembered between jobs is true as long as
nothing was undone (`forget`). Tests: tests/node/test_chains.py.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from crdt.op import PREV_BYTES, Op, decode
from crdt.survive import missing_cause
from crdt.version import Dot
from sync import merkle

MAX_AHEAD_OPS: Final = 10_000
MAX_AHEAD_BYTES: Final = 32 << 20
"""Set aside per project: what a peer may send while an earlier op is still under way, and no more."""


class Head(NamedTuple):
    """The last op of a chain; NO_HEAD where there is none."""

    seq: int
    hash: bytes


NO_HEAD: Final = Head(0, b"")


class _Aside(NamedTuple):
    ops: int
    bytes: int


class Chains:
    """The chains of every project in one database. Projects and authors have a number there."""

    def __init__(self, mesh: bytes) -> None:
        self._mesh = mesh
        self._projects: dict[str, int] = {}
        self._authors: dict[bytes, int] = {}
        self._heads: dict[int, dict[bytes, Head]] = {}
        self._moved: set[tuple[int, bytes]] = set()
        self._aside: dict[str, _Aside] = {}

    def forget(self) -> None:
        """After a rollback: what was read or made in the transaction may not be true."""
        self._projects.clear()
        self._authors.clear()
        self._heads.clear()
        self._moved.clear()
        self._aside.clear()

    def project(self, connection: sqlite3.Connection, name: str) -> int:
        """The number of a project, made on first use."""
        number = self._projects.get(name)
        if number is None:
            connection.execute("INSERT OR IGNORE INTO projects (name, bits) VALUES (?, ?)", (name, merkle.bits_for(0)))
            (number,) = connection.execute("SELECT id FROM projects WHERE name = ?", (name,)).fetchone()
            self._projects[name] = number
        return number

    def head(self, connection: sqlite3.Connection, project: int, author: bytes) -> Head:
        """The last op of an author's chain."""
        return self._chains(connection, project).get(author, NO_HEAD)

    def has(self, connection: sqlite3.Connection, project: int, op: Op) -> bool:
        """Whether `op` has joined already."""
        if op.seq > self.head(connection, project, op.author).seq:
            return False
        row = connection.execute("SELECT 1 FROM ops WHERE project = ? AND hash = ?", (project, op.hash)).fetchone()
        return row is not None

    def joins(self, connection: sqlite3.Connection, project: int, op: Op) -> bool:
        """Whether the op that `op` follows is here."""
        seq, digest = op.header.prev_seq, op.header.prev_hash
        head = self.head(connection, project, op.author)
        if seq == 0 or (seq == head.seq and digest == head.hash[:PREV_BYTES]):
            return True
        if seq > head.seq:
            return False
        rows = connection.execute(
            "SELECT hash FROM ops WHERE project = ? AND author = ? AND seq = ?",
            (project, self._author(connection, op), seq),
        )
        return any(known[:PREV_BYTES] == digest for (known,) in rows)

    def insert(self, connection: sqlite3.Connection, project: int, op: Op) -> None:
        """Add an op that joins; `save_heads` once the batch is in."""
        chains = self._chains(connection, project)
        missing = _missing_cause(op, chains)
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
        head = chains.get(op.author, NO_HEAD)
        if op.seq > head.seq or (op.seq == head.seq and op.hash < head.hash):
            chains[op.author] = Head(op.seq, op.hash)
            self._moved.add((project, op.author))

    def save_heads(self, connection: sqlite3.Connection) -> None:
        """Write the heads that moved."""
        connection.executemany(
            "INSERT INTO heads VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
            [(project, self._authors[author], *self._heads[project][author]) for project, author in self._moved],
        )
        self._moved.clear()

    def set_aside(self, connection: sqlite3.Connection, op: Op) -> None:
        """Keep an op that doesn't join yet, if there is room."""
        aside = self._kept_aside(connection, op.project)
        if aside.ops >= MAX_AHEAD_OPS or aside.bytes + len(op.raw) > MAX_AHEAD_BYTES:
            return
        added = connection.execute(
            "INSERT OR IGNORE INTO ahead VALUES (?,?,?,?,?)",
            (op.project, op.author, op.header.prev_seq, op.hash, op.raw),
        )
        if added.rowcount > 0:
            self._aside[op.project] = _Aside(aside.ops + 1, aside.bytes + len(op.raw))

    def take_following(self, connection: sqlite3.Connection, op: Op) -> list[Op]:
        """The ops that were set aside until `op` came, aside no longer: one, or several where the author has forked."""
        if not self._kept_aside(connection, op.project).ops:
            return []
        rows = connection.execute(
            "SELECT raw FROM ahead WHERE project = ? AND author = ? AND prev_seq = ? ORDER BY hash",
            (op.project, op.author, op.seq),
        ).fetchall()
        candidates = [decode(self._mesh, raw) for (raw,) in rows]
        following = [later for later in candidates if later.header.prev_hash == op.hash[:PREV_BYTES]]
        for later in following:
            connection.execute(
                "DELETE FROM ahead WHERE project = ? AND author = ? AND prev_seq = ? AND hash = ?",
                (op.project, op.author, op.seq, later.hash),
            )
            aside = self._aside[op.project]
            self._aside[op.project] = _Aside(aside.ops - 1, aside.bytes - len(later.raw))
        return following

    def wake(self, connection: sqlite3.Connection, project: int, authors: Iterable[bytes]) -> list[Op]:
        """The ops that waited and take effect now that the chains of `authors` are longer."""
        chains = self._chains(connection, project)
        woken = []
        for author in authors:
            due = connection.execute(
                "SELECT w.seq, w.op, o.raw FROM waiting w JOIN ops o ON o.id = w.op"
                " WHERE w.project = ? AND w.author = ? AND w.seq <= ?",
                (project, author, chains.get(author, NO_HEAD).seq),
            ).fetchall()
            for seq, row, raw in due:
                connection.execute(
                    "DELETE FROM waiting WHERE project = ? AND author = ? AND seq = ? AND op = ?",
                    (project, author, seq, row),
                )
                op = decode(self._mesh, raw)
                if missing := _missing_cause(op, chains):
                    connection.execute("INSERT INTO waiting VALUES (?,?,?,?)", (project, *missing, row))
                else:
                    connection.execute("UPDATE ops SET waiting = 0 WHERE id = ?", (row,))
                    woken.append(op)
        return woken

    def _chains(self, connection: sqlite3.Connection, project: int) -> dict[bytes, Head]:
        heads = self._heads.get(project)
        if heads is None:
            rows = connection.execute(
                "SELECT a.name, h.seq, h.hash FROM heads h JOIN authors a ON a.id = h.author WHERE h.project = ?",
                (project,),
            )
            heads = self._heads[project] = {name: Head(seq, digest) for name, seq, digest in rows}
        return heads

    def _author(self, connection: sqlite3.Connection, op: Op) -> int:
        number = self._authors.get(op.author)
        if number is None:
            connection.execute(
                "INSERT OR IGNORE INTO authors (name, node_key, epoch) VALUES (?,?,?)",
                (op.author, op.header.node_key, op.header.epoch),
            )
            (number,) = connection.execute("SELECT id FROM authors WHERE name = ?", (op.author,)).fetchone()
            self._authors[op.author] = number
        return number

    def _kept_aside(self, connection: sqlite3.Connection, project: str) -> _Aside:
        aside = self._aside.get(project)
        if aside is None:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(length(raw)), 0) FROM ahead WHERE project = ?", (project,)
            ).fetchone()
            aside = self._aside[project] = _Aside(*row)
        return aside


def _missing_cause(op: Op, chains: Mapping[bytes, Head]) -> Dot | None:
    """The first entry of the op's clock that the chains here don't reach; None when the op is in effect."""
    if not op.header.clock:  # most ops
        return None
    return missing_cause(op, {author: chains.get(author, NO_HEAD).seq for author, _ in op.header.clock})
