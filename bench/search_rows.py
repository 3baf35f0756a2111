"""A database with the real schema, filled row by row: what the search benchmarks search in.

The rows are what node.shown writes for facts that were stored in this order and never changed; ops, keys and signatures
play no part in a search and are left out.
"""

import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from crdt.hlc import timestamp
from node.migrations import migrate

NOW_MS = 1_800_000_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One fact. `valid_from` and `valid_until` are milliseconds since 1970 UTC."""

    content: str
    project: str
    source: str | None = None
    fact_type: str = "knowledge"
    tags: Sequence[str] = ()
    valid_from: int | None = None
    valid_until: int | None = None


def database(rows: Iterable[Row], path: str = ":memory:") -> sqlite3.Connection:
    """A database in which the fact of row i, counted from 1, has the rowid i; one is stored every second."""
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, NOW_MS)
    connection.execute("BEGIN")
    projects: dict[str, int] = {}
    for fact, row in enumerate(rows, 1):
        if row.project not in projects:
            projects[row.project] = len(projects) + 1
            connection.execute("INSERT INTO projects (id, name, bits) VALUES (?,?,0)", (len(projects), row.project))
        project = projects[row.project]
        created = timestamp(NOW_MS - 10**9 + 1000 * fact)
        connection.execute(
            "INSERT INTO facts (id, name, project, fact_type, source, created, updated, valid_from, valid_until, shown)"
            " VALUES (?,?,?,?,?,?,?,?,?,'{}')",
            (fact, f"f{fact}", project, row.fact_type, row.source, created, created, row.valid_from, row.valid_until),
        )
        connection.execute(
            "INSERT INTO texts (fact, scope, content, known_from) VALUES (?,?,?,?)",
            (fact, f"p{project}", row.content, created),
        )
        connection.executemany("INSERT INTO tags VALUES (?,?,?)", [(project, tag, fact) for tag in row.tags])
    connection.execute("COMMIT")
    return connection
