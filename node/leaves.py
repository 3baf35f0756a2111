"""The Merkle leaves of each project, kept in the transaction that adds the ops. The maths is sync/merkle.py.

Only leaves that an op touched are written; a batch adds to each leaf once. A project that outgrows its tree gets a
deeper one, made from the hashes that are stored anyway.

Sums are books, and books can be wrong: a bit flips, a row is lost. `rows` reads what is really there, hashed anew;
`mend` makes the books true again. Tests: tests/node/test_leaves.py.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from crdt.op import op_hash
from sync import merkle
from sync.merkle import Leaf
from sync.replica import Rows

MEND_OPS: Final = 16_384
"""Re-hashed in one transaction, 50 ms on a laptop: more are mended slice by slice."""
AFTER_ALL: Final = b"\xff" * 33


def add(connection: sqlite3.Connection, project: int, hashes: Iterable[bytes]) -> None:
    """Add ops, by their 32-byte hashes, to the project's leaves and its total."""
    bits, total, count = connection.execute("SELECT bits, sum, ops FROM projects WHERE id = ?", (project,)).fetchone()
    added = merkle.leaves(hashes, bits)
    for leaf, (more, number) in added.items():
        row = connection.execute("SELECT sum FROM leaves WHERE project = ? AND leaf = ?", (project, leaf)).fetchone()
        before = merkle.from_signed(row[0]) if row else 0
        connection.execute(
            "INSERT INTO leaves VALUES (?,?,?,?)"
            " ON CONFLICT DO UPDATE SET sum = excluded.sum, ops = ops + excluded.ops",
            (project, leaf, merkle.to_signed(merkle.add(before, more)), number),
        )
        total = merkle.to_signed(merkle.add(merkle.from_signed(total), more))
        count += number
    connection.execute("UPDATE projects SET sum = ?, ops = ? WHERE id = ?", (total, count, project))
    wanted = merkle.bits_for(count)
    if wanted > bits:
        rebuild(connection, project, wanted)


def rebuild(connection: sqlite3.Connection, project: int, bits: int) -> None:
    """Make the leaves anew from the ops' hashes, 2^bits of them, and the total with them."""
    hashes = connection.execute("SELECT hash FROM ops WHERE project = ?", (project,))
    made = merkle.leaves((digest for (digest,) in hashes), bits)
    connection.execute("DELETE FROM leaves WHERE project = ?", (project,))
    _insert(connection, project, made)
    total, count = 0, 0
    for leaf_sum, number in made.values():
        total, count = merkle.add(total, leaf_sum), count + number
    connection.execute(
        "UPDATE projects SET bits = ?, sum = ?, ops = ? WHERE id = ?", (bits, merkle.to_signed(total), count, project)
    )


# What a walk reads: on any connection, of committed state


def sums(connection: sqlite3.Connection, project: str, level: int, place: int) -> dict[int, Leaf]:
    """The children of a node, by the books; below the leaves that are kept, by the hashes that are stored."""
    row = connection.execute("SELECT id, bits FROM projects WHERE name = ?", (project,)).fetchone()
    if row is None:
        return {}
    number, bits = row
    below = (level + 1) * merkle.FAN_OUT_BITS
    if below > bits:
        hashes = connection.execute(
            "SELECT hash FROM ops WHERE project = ? AND hash >= ? AND hash < ?", (number, *_span(level, place))
        )
        return merkle.leaves((digest for (digest,) in hashes), below)
    return _folded(connection, number, bits - below, *_leaves_of(bits, level, place))


def whole(connection: sqlite3.Connection, number: int, bits: int) -> Leaf:
    """The sum over all leaves, and the number of ops in them. `number`: of the project; `bits`: of its tree."""
    return _folded(connection, number, bits, 0, 1 << bits).get(0, merkle.EMPTY)


def rows(connection: sqlite3.Connection, mesh: bytes, project: str, level: int, place: int, most: int) -> Rows:
    """The ops below a node whose bytes are what was hashed once, and whether the books say the same."""
    number, bits = _project(connection, project)
    found = connection.execute(
        "SELECT hash, seq, raw FROM ops WHERE project = ? AND hash >= ? AND hash < ? ORDER BY hash LIMIT ?",
        (number, *_span(level, place), most),
    ).fetchall()
    good = {digest: seq for digest, seq, raw in found if intact(mesh, project, digest, raw)}
    damaged = len(good) < len(found)
    if len(found) < most and level * merkle.FAN_OUT_BITS <= bits:
        books = _folded(connection, number, bits, *_leaves_of(bits, level, place)).get(0, merkle.EMPTY)
        damaged = damaged or books != merkle.leaves(good, 0).get(0, merkle.EMPTY)
    return Rows(good, damaged)


def content(connection: sqlite3.Connection, project: str, level: int, place: int, salt: bytes) -> bytes:
    """BLAKE2b-128, keyed with `salt`, of the bytes below a node, in the order of their hashes."""
    state = blake2b(digest_size=16, key=salt)
    number, _ = _project(connection, project)
    for (raw,) in connection.execute(
        "SELECT CAST(raw AS BLOB) FROM ops WHERE project = ? AND hash >= ? AND hash < ? ORDER BY hash",
        (number, *_span(level, place)),
    ):
        state.update(raw)
    return state.digest()


def intact(mesh: bytes, project: str, digest: bytes, raw: object) -> bool:
    """Whether `raw` is what once had this hash."""
    return isinstance(raw, bytes) and op_hash(mesh, project, raw) == digest


# Mending: on the writer's thread, inside a transaction


class Mended(NamedTuple):
    """What was wrong below a node, and is no longer. `rotten`: rows taken out, as (author, seq, hash, raw)."""

    rotten: list[tuple[int, int, bytes, object]]
    missing: int
    """How many ops fewer are there than the books said, besides the rotten ones."""
    drifted: bool


def mend(connection: sqlite3.Connection, mesh: bytes, project: str, level: int, place: int) -> Mended:
    """Make the books below a node anew from the rows, without the rows that are rotten.

    At the root of a tree that is read in slices only the total is made anew, from the leaves.
    """
    number, bits = _project(connection, project)
    shallow = min(level, bits // merkle.FAN_OUT_BITS)  # whole leaves
    place >>= (level - shallow) * merkle.FAN_OUT_BITS
    first, end = _leaves_of(bits, shallow, place)
    kept = whole(connection, number, bits)
    wanted = connection.execute("SELECT sum, ops FROM projects WHERE id = ?", (number,)).fetchone()
    drifted = (merkle.from_signed(wanted[0]), wanted[1]) != kept
    rotten: list[tuple[int, int, bytes, object]] = []
    missing = 0
    if shallow or kept[1] <= MEND_OPS:
        before = _folded(connection, number, 0, first, end)
        found = connection.execute(
            "SELECT id, author, seq, hash, raw FROM ops WHERE project = ? AND hash >= ? AND hash < ?",
            (number, *_span(shallow, place)),
        ).fetchall()
        rotten = [row[1:] for row in found if not intact(mesh, project, row[3], row[4])]
        for row in found:
            if not intact(mesh, project, row[3], row[4]):
                connection.execute("DELETE FROM waiting WHERE op = ?", (row[0],))
                connection.execute("DELETE FROM ops WHERE id = ?", (row[0],))
        there = merkle.leaves((row[3] for row in found), bits)
        missing = sum(count for _, count in before.values()) - len(found)
        drifted = drifted or (before != there and missing <= 0)
        after = merkle.leaves((row[3] for row in found if intact(mesh, project, row[3], row[4])), bits)
        connection.execute("DELETE FROM leaves WHERE project = ? AND leaf >= ? AND leaf < ?", (number, first, end))
        _insert(connection, number, after)
    held, count = whole(connection, number, bits)
    connection.execute("UPDATE projects SET sum = ?, ops = ? WHERE id = ?", (merkle.to_signed(held), count, number))
    return Mended(rotten, max(0, missing), drifted)


def _project(connection: sqlite3.Connection, name: str) -> tuple[int, int]:
    row = connection.execute("SELECT id, bits FROM projects WHERE name = ?", (name,)).fetchone()
    return row or (0, merkle.bits_for(0))


def _span(level: int, place: int) -> tuple[bytes, bytes]:
    first, end = merkle.span(level, place)
    return first, end or AFTER_ALL


def _leaves_of(bits: int, level: int, place: int) -> tuple[int, int]:
    """The first leaf below a node of a tree of 2^bits leaves, and the one after the last."""
    below = bits - level * merkle.FAN_OUT_BITS
    return place << below, (place + 1) << below


def _folded(connection: sqlite3.Connection, project: int, by: int, first: int, end: int) -> dict[int, Leaf]:
    """Leaves, 2^by of them in one. Summed in halves: SQLite's own sum of 64-bit numbers overflows."""
    found = connection.execute(
        "SELECT leaf >> ?1, sum(sum & 4294967295), sum(sum >> 32), sum(ops) FROM leaves"
        " WHERE project = ?2 AND leaf >= ?3 AND leaf < ?4 GROUP BY 1",
        (by, project, first, end),
    )
    return {node: (merkle.add(high << 32, low), count) for node, low, high, count in found if low or high or count}


def _insert(connection: sqlite3.Connection, project: int, leaves: Mapping[int, Leaf]) -> None:
    connection.executemany(
        "INSERT INTO leaves VALUES (?,?,?,?)",
        ((project, leaf, merkle.to_signed(total), number) for leaf, (total, number) in leaves.items()),
    )
