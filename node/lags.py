"""How far this node and its peers are apart: ops and seconds, in both directions, and why.

*ahead* is what a peer lacks of ours, *behind* what we lack of the peer's. While a round is under way the core tells
both (sync.ready.Lagging): each side counts what the other's vector doesn't claim. A round that ends equal sets both to
zero. From then on `ahead` grows with each op that is written or taken in here from somebody else. What a peer writes
while it is away nobody can know, so `behind` stays what it was, and the reason says since when.

A `Standing` outlives a restart: it holds for the ops up to a row of the table `ops`, and those after it are counted
when the node starts. After a crash that row is an older one, so a lag may be told too large until the next contact.
Tests: tests/node/test_lags.py.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from crdt.hlc import wall_ms
from crdt.op import Op
from crdt.version import node_id
from sync.overlap import covers


@dataclass(frozen=True, slots=True)
class Lag:
    """`ops` are missing on one side, the oldest of them written at `since_ms` (ms since 1970 UTC)."""

    ops: int = 0
    since_ms: int = 0

    def more(self, ops: int, since_ms: int) -> "Lag":
        """With `ops` more, the oldest of them written at `since_ms`."""
        if not ops:
            return self
        return Lag(self.ops + ops, min(self.since_ms, since_ms) if self.ops else since_ms)

    def shown(self, now_ms: int) -> dict[str, int]:
        """As `status` tells it."""
        return {"ops": self.ops, "seconds": max(0, now_ms - self.since_ms) // 1000 if self.ops else 0}


LEVEL = Lag()


@dataclass(frozen=True, slots=True)
class Standing:
    """How we stand with one peer. `patterns`: what both carry; empty until the first session has settled it."""

    ahead: Lag = LEVEL
    behind: Lag = LEVEL
    patterns: tuple[str, ...] = ()

    def shares(self, project: str) -> bool:
        """Whether the peer carries `project` too."""
        return any(covers(pattern, project) for pattern in self.patterns)

    def with_news(self, ops: Iterable[Op]) -> "Standing":
        """After `ops` came to be on this node's disk, and not from that peer."""
        shared = [op.timestamp for op in ops if self.shares(op.project)]
        if not shared:
            return self
        return replace(self, ahead=self.ahead.more(len(shared), wall_ms(min(shared))))


@dataclass(frozen=True, slots=True)
class Held:
    """Ops from a clock too far ahead, the last of them until `until_ms`, ms since 1970 UTC."""

    ops: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is on disk and not in effect, by the node that wrote it; `aside`: ops beyond a gap in their chain."""

    held: Mapping[str, Held]
    waiting: Mapping[str, int]
    aside: int


def backlog(connection: sqlite3.Connection, ahead_ms: int) -> Backlog:
    """`ahead_ms`: how far ahead of ours a clock may be."""
    held = connection.execute(
        "SELECT a.node_key, count(*), max(o.timestamp) FROM held h JOIN ops o ON o.subject = h.subject"
        " AND o.project = h.project AND o.timestamp = h.timestamp JOIN authors a ON a.id = o.author GROUP BY a.node_key"
    )
    waiting = connection.execute(
        "SELECT a.node_key, count(*) FROM ops o JOIN authors a ON a.id = o.author"
        " WHERE o.id IN (SELECT op FROM waiting) GROUP BY a.node_key"
    )
    (aside,) = connection.execute("SELECT count(*) FROM ahead").fetchone()
    return Backlog(
        {node_id(key): Held(count, wall_ms(latest) - ahead_ms) for key, count, latest in held},
        {node_id(key): count for key, count in waiting},
        aside,
    )


def lacking(
    connection: sqlite3.Connection, project: str, ours: Mapping[bytes, int], theirs: Mapping[bytes, int]
) -> tuple[int, int]:
    """How many ops of `project` are here above the vector `theirs`, and when the oldest was written."""
    total, oldest = 0, 0
    for author in (author for author, seq in ours.items() if seq > theirs.get(author, 0)):
        count, first = connection.execute(
            "SELECT count(*), min(o.seq) FROM ops o WHERE o.project = (SELECT id FROM projects WHERE name = ?)"
            " AND o.author = (SELECT id FROM authors WHERE name = ?) AND o.seq > ?",
            (project, author, theirs.get(author, 0)),
        ).fetchone()
        if not count:
            continue
        # An author's timestamps rise with its seqs, so its first op is its oldest.
        (stamp,) = connection.execute(
            "SELECT o.timestamp FROM ops o WHERE o.project = (SELECT id FROM projects WHERE name = ?)"
            " AND o.author = (SELECT id FROM authors WHERE name = ?) AND o.seq = ?",
            (project, author, first),
        ).fetchone()
        oldest = min(oldest, wall_ms(stamp)) if total else wall_ms(stamp)
        total += count
    return total, oldest


def save(connection: sqlite3.Connection, standings: Mapping[str, Standing]) -> None:
    """Note how we stand with each peer (by node id), as of the last row."""
    (row,) = connection.execute("SELECT coalesce(max(id), 0) FROM ops").fetchone()
    connection.executemany(
        "INSERT OR REPLACE INTO standings VALUES (?,?,?,?,?,?,?)",
        [
            (node, row, s.ahead.ops, s.ahead.since_ms, s.behind.ops, s.behind.since_ms, json.dumps(s.patterns))
            for node, s in standings.items()
        ],
    )


def load(connection: sqlite3.Connection) -> dict[str, Standing]:
    """How we stand with each peer by now: as it was saved, and the ops that came since."""
    standings = {}
    projects = connection.execute("SELECT id, name FROM projects").fetchall()
    for node, row, *counts, patterns in connection.execute("SELECT * FROM standings").fetchall():
        standing = Standing(Lag(*counts[:2]), Lag(*counts[2:]), tuple(json.loads(patterns)))
        shared = [number for number, name in projects if standing.shares(name)]
        ahead = standing.ahead.more(*_since(connection, row, shared))
        standings[node] = replace(standing, ahead=ahead)
    return standings


def _since(connection: sqlite3.Connection, row: int, projects: Sequence[int]) -> tuple[int, int]:
    count, oldest = connection.execute(
        "SELECT count(*), min(timestamp) FROM ops WHERE id > ? AND project IN (SELECT value FROM json_each(?))",
        (row, json.dumps(projects)),
    ).fetchone()
    return count, wall_ms(oldest or 0)
