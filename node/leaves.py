"""The Merkle leaves of each project, kept in the transaction that adds the ops. The maths is sync/merkle.py.

Only leaves that an op touched are written; a batch adds to each leaf once. A project that outgrows its tree gets a
deeper one, made from the hashes that are stored anyway. Tests: tests/node/test_leaves.py.
"""

import sqlite3
from collections.abc import Iterable

from sync import merkle


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
    rows = connection.execute("SELECT hash FROM ops WHERE project = ?", (project,))
    sums = merkle.leaves((digest for (digest,) in rows), bits)
    connection.execute("DELETE FROM leaves WHERE project = ?", (project,))
    connection.executemany(
        "INSERT INTO leaves VALUES (?,?,?,?)",
        ((project, leaf, merkle.to_signed(total), number) for leaf, (total, number) in sums.items()),
    )
    total, count = 0, 0
    for leaf_sum, number in sums.values():
        total, count = merkle.add(total, leaf_sum), count + number
    connection.execute(
        "UPDATE projects SET bits = ?, sum = ?, ops = ? WHERE id = ?", (bits, merkle.to_signed(total), count, project)
    )
