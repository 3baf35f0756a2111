"""Damage: what a chain lacks that it claims, what was repaired and why, and who runs one identity twice.

A repair is an op that came back, or a sum that was made true again. Its cause:

    bit_rot          the bytes of a row were not those that were hashed once
    lost_row         a row was gone although its chain goes on
    drifted_sum      a leaf's sum was not that of its rows; no op moved
    withheld         a peer claimed an op and did not give it; another peer did
    fork             two ops follow the same op of their author: one identity runs twice, or went on from an old copy
    restored_backup  the same, and the author is this node: ops that it wrote and does not remember

A *gap* is an op that is known to be missing, because a later one names it or because its bytes rotted (they are kept).
For GAP_PATIENCE_MS it is left to walks; after that the vector ends ahead of it, so that nobody is promised what can't
be given. An op that comes back closes its gap.

One identity that runs twice shows in the times of its epochs. A node opens an epoch when it can't be sure of the one
before, and never goes back to it. So when an earlier epoch goes on while a later one is in use (A, B, A, B, with
TWINS_MS between) there are two nodes. Restoring a backup, even an old one, gives A, B, A at most.

Everything is a function of a connection. Tests: tests/node/test_repairs.py.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

from crdt.hlc import timestamp
from crdt.op import PREV_BYTES, BadOp, Op, decode
from crdt.version import node_id
from node.clock import rfc3339

MAX_REPAIRS: Final = 1_000
"""Kept, the newest: a disk that fails produces them for as long as it lasts."""
MAX_GAPS: Final = 10_000
GAP_PATIENCE_MS: Final = 3_600_000
"""An hour: time for a walk with every peer that is connected."""
TWINS_MS: Final = 300_000
"""Epochs must overlap by more than clocks may be apart."""

FORK_TOLD_MS: Final = 7 * 24 * 3_600_000
"""For a week `status` tells of a fork. The repairs go on telling."""


class Cause(StrEnum):
    """See the module."""

    BIT_ROT = "bit_rot"
    LOST_ROW = "lost_row"
    DRIFTED_SUM = "drifted_sum"
    WITHHELD = "withheld"
    FORK = "fork"
    RESTORED_BACKUP = "restored_backup"


class Gap(NamedTuple):
    """An op that is missing. `project` and `author` are this database's numbers, `hash` its first 16 bytes."""

    project: int
    author: int
    seq: int
    hash: bytes
    before: int


def record(
    connection: sqlite3.Connection, at_ms: int, peer: str | None, repaired: Counter[tuple[str, Cause, str | None]]
) -> None:
    """Note repairs: how many ops for each (project, cause, node that wrote them)."""
    connection.executemany(
        "INSERT INTO repairs (at, peer, project, cause, ops, author) VALUES (?,?,?,?,?,?)",
        [(at_ms, peer, project, cause, ops, node) for (project, cause, node), ops in repaired.items()],
    )
    connection.execute("DELETE FROM repairs WHERE id <= (SELECT max(id) FROM repairs) - ?", (MAX_REPAIRS,))


def recent(connection: sqlite3.Connection, most: int = 50) -> list[dict[str, Any]]:
    """The latest repairs, the newest first, as `status` shows them."""
    rows = connection.execute(
        "SELECT at, peer, project, cause, ops, author FROM repairs ORDER BY id DESC LIMIT ?", (most,)
    )
    return [
        {"at": rfc3339(at), "peer": peer, "project": project, "cause": cause, "ops": ops, "author": author}
        for at, peer, project, cause, ops, author in rows
    ]


def cause_of(connection: sqlite3.Connection, project: int, head_seq: int, op: Op, own_key: bytes) -> Cause:
    """Why an op that joins anywhere but at the end of its chain was not here. Before it is inserted."""
    gap = connection.execute(
        "SELECT raw IS NOT NULL FROM gaps g JOIN authors a ON a.id = g.author"
        " WHERE g.project = ? AND a.name = ? AND g.seq = ? AND g.hash = ?",
        (project, op.author, op.seq, op.hash[:PREV_BYTES]),
    ).fetchone()
    if gap:
        return Cause.BIT_ROT if gap[0] else Cause.LOST_ROW
    if op.seq > head_seq:
        return Cause.RESTORED_BACKUP if op.header.node_key == own_key else Cause.WITHHELD
    if _in_a_hole(connection, project, op):
        return Cause.LOST_ROW
    return Cause.RESTORED_BACKUP if op.header.node_key == own_key else Cause.FORK


def _in_a_hole(connection: sqlite3.Connection, project: int, op: Op) -> bool:
    """Whether the chain here goes on after `op` with one whose predecessor is missing. Else it goes on without `op`."""
    row = connection.execute(
        "SELECT a.id, o.raw FROM authors a JOIN heads h ON h.author = a.id AND h.project = ?1"
        " LEFT JOIN ops o ON o.project = ?1 AND o.author = a.id AND o.seq >= ?2"
        " WHERE a.name = ?3 ORDER BY o.seq, o.hash LIMIT 1",
        (project, op.seq, op.author),
    ).fetchone()
    if row is None:
        return False
    author, following = row
    if following is None:  # the end of the chain is lost
        return True
    seq, digest = _prev(following)
    known = connection.execute(
        "SELECT hash FROM ops WHERE project = ? AND author = ? AND seq = ?", (project, author, seq)
    )
    return seq > 0 and digest not in (one[:PREV_BYTES] for (one,) in known)


# Gaps


def note_gaps(connection: sqlite3.Connection, gaps: Iterable[Gap], now_ms: int) -> None:
    """Remember what is missing."""
    connection.executemany(
        "INSERT INTO gaps (project, author, seq, hash, before, found) SELECT ?,?,?,?,?,?"
        " WHERE (SELECT count(*) FROM gaps) < ? ON CONFLICT DO NOTHING",
        [(*gap, now_ms, MAX_GAPS) for gap in gaps],
    )


def note_rotten(
    connection: sqlite3.Connection, project: int, rows: Iterable[tuple[int, int, bytes, object]], now_ms: int
) -> None:
    """Remember rows that were taken out because their bytes rotted: (author, seq, hash, raw)."""
    for author, seq, digest, raw in rows:
        (before,) = connection.execute(
            "SELECT coalesce(max(seq), 0) FROM ops WHERE project = ? AND author = ? AND seq < ?", (project, author, seq)
        ).fetchone()
        connection.execute(
            "INSERT OR REPLACE INTO gaps VALUES (?,?,?,?,?,0,?,?)",
            (project, author, seq, digest[:PREV_BYTES], before, now_ms, raw),
        )


def close_gap(connection: sqlite3.Connection, project: int, op: Op) -> None:
    """The op is here again."""
    connection.execute(
        "DELETE FROM gaps WHERE project = ? AND author = (SELECT id FROM authors WHERE name = ?) AND seq = ?"
        " AND hash = ?",
        (project, op.author, op.seq, op.hash[:PREV_BYTES]),
    )


def give_up(connection: sqlite3.Connection, now_ms: int) -> list[str]:
    """Claim no longer what has been missing for GAP_PATIENCE_MS; the projects whose vectors that changes."""
    old = (now_ms - GAP_PATIENCE_MS,)
    names = connection.execute(
        "SELECT DISTINCT p.name FROM gaps g JOIN projects p ON p.id = g.project WHERE told = 0 AND found <= ?", old
    ).fetchall()
    if names:
        connection.execute("UPDATE gaps SET told = 1 WHERE found <= ?", old)
    return [name for (name,) in names]


def find_gaps(connection: sqlite3.Connection, mesh: bytes, project: int) -> Iterator[Gap]:
    """Every op of a project that another one, or a head, names and that is not here. Reads the whole project."""
    author, seen = 0, {0: {b""}}
    rows = connection.execute(
        "SELECT author, seq, hash, raw FROM ops WHERE project = ? ORDER BY author, seq", (project,)
    )
    for writer, seq, digest, raw in rows:
        if writer != author:
            author, seen = writer, {0: {b""}}
        prev_seq, prev_hash = _prev(raw)
        if prev_hash not in seen.get(prev_seq, ()):
            yield Gap(project, author, prev_seq, prev_hash, max((s for s in seen if s < prev_seq), default=0))
        seen.setdefault(seq, set()).add(digest[:PREV_BYTES])
    heads = connection.execute(
        "SELECT h.author, h.seq, h.hash, (SELECT coalesce(max(o.seq), 0) FROM ops o WHERE o.project = h.project"
        " AND o.author = h.author AND o.seq < h.seq) FROM heads h WHERE h.project = ? AND NOT EXISTS"
        " (SELECT 1 FROM ops o WHERE o.project = h.project AND o.hash = h.hash)",
        (project,),
    )
    yield from (Gap(project, writer, seq, digest[:PREV_BYTES], before) for writer, seq, digest, before in heads)


def _prev(raw: object) -> tuple[int, bytes]:
    """What an op names as the one before it; nothing when it can't be read: another finding's business."""
    try:
        header = decode(bytes(32), raw).header if isinstance(raw, bytes) else None
    except BadOp:
        header = None
    return (header.prev_seq, header.prev_hash) if header else (0, b"")


# One identity, twice


def twins(connection: sqlite3.Connection) -> list[str]:
    """The ids of nodes that run twice with one key."""
    keys = connection.execute("SELECT node_key FROM authors GROUP BY node_key HAVING count(*) > 1").fetchall()
    return sorted(node_id(key) for (key,) in keys if _runs_twice(connection, key))


def _runs_twice(connection: sqlite3.Connection, node_key: bytes) -> bool:
    authors = connection.execute("SELECT id FROM authors WHERE node_key = ?", (node_key,)).fetchall()
    spans = [(author, span) for (author,) in authors if (span := _span(connection, author))]
    apart = timestamp(TWINS_MS)
    return any(
        earlier[0] <= later[0] and _wrote_between(connection, author, later[0] + apart, later[1] - apart)
        for author, earlier in spans
        for other, later in spans
        if other != author
    )


def _wrote_between(connection: sqlite3.Connection, author: int, first: int, last: int) -> bool:
    found = connection.execute(
        "SELECT 1 FROM heads h JOIN ops o ON o.project = h.project AND o.author = h.author"
        " WHERE h.author = ? AND o.timestamp > ? AND o.timestamp < ? LIMIT 1",
        (author, first, last),
    )
    return first < last and found.fetchone() is not None


def _span(connection: sqlite3.Connection, author: int) -> tuple[int, int] | None:
    """The timestamps of an author's first and last op."""
    first, last = connection.execute(
        "SELECT min((SELECT o.timestamp FROM ops o WHERE o.project = h.project AND o.author = h.author"
        " ORDER BY o.seq LIMIT 1)), max((SELECT o.timestamp FROM ops o WHERE o.project = h.project"
        " AND o.author = h.author ORDER BY o.seq DESC LIMIT 1)) FROM heads h WHERE h.author = ?",
        (author,),
    ).fetchone()
    return None if first is None else (first, last)


def warnings(connection: sqlite3.Connection, me: str, now_ms: int) -> list[dict[str, str]]:
    """What somebody should look at. `me`: our node id."""
    found = []
    for node in twins(connection):
        who = "this node" if node == me else f"node {node}"
        found.append(
            {
                "code": "twins",
                "text": f"two nodes run with the identity of {who}; nothing is lost, and both write on in its name",
                "action": "stop one, move its home elsewhere, and enrol it anew: cortex-node join CODE",
            }
        )
    gaps, told = connection.execute("SELECT count(*), coalesce(sum(told), 0) FROM gaps").fetchone()
    if gaps:
        more = f"; {told} of them no peer had within an hour" if told else ""
        found.append(
            {
                "code": "damage",
                "text": f"{gaps} ops are damaged or lost on this disk, and wait to be given back by a peer{more}",
                "action": "check the disk and its cable; connect a peer that carries the same projects",
            }
        )
    forks = connection.execute(
        "SELECT DISTINCT author FROM repairs WHERE cause IN ('fork', 'restored_backup') AND author IS NOT NULL"
        " AND at > ?",
        (now_ms - FORK_TOLD_MS,),
    )
    for (node,) in forks:
        who = "this node" if node == me else f"node {node}"
        found.append(
            {
                "code": "fork",
                "text": f"{who} has written twice from one point on: a backup was restored, or its home copied",
                "action": "nothing, when a backup was restored: both are kept; else see that it runs once",
            }
        )
    return found
