"""A memory to search in: the real schema, filled row by row."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache

import pytest

from crdt.hlc import timestamp
from node.embedding.table import Encoder
from node.migrations import migrate
from node.search.nearest import Question, Signs
from node.vectors import adopt, due_now, embed, embed_all, keep, open_encoder

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000


@cache
def encoder() -> Encoder:
    return open_encoder("table")


class Memory:
    """Facts stored a minute apart, unless `at_ms` says otherwise; `store` returns the fact's rowid."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection, NOW_MS)
        self.at_ms = NOW_MS - 10**9

    def store(
        self,
        content: str,
        project: str = "p",
        *,
        source: str | None = None,
        fact_type: str = "knowledge",
        tags: Sequence[str] = (),
        valid_from: int | None = None,
        valid_until: int | None = None,
        body: str | None = None,
        at_ms: int | None = None,
    ) -> int:
        self.at_ms = self.at_ms + MINUTE_MS if at_ms is None else at_ms
        created = timestamp(self.at_ms)
        execute = self.connection.execute
        execute("INSERT INTO projects (name, bits) VALUES (?, 0) ON CONFLICT DO NOTHING", (project,))
        (number,) = execute("SELECT id FROM projects WHERE name = ?", (project,)).fetchone()
        (fact,) = execute("SELECT coalesce(max(id), 0) + 1 FROM facts").fetchone()
        execute(
            "INSERT INTO facts (id, name, project, fact_type, source, created, updated, valid_from, valid_until, shown)"
            " VALUES (?,?,?,?,?,?,?,?,?,'{}')",
            (fact, f"f{fact}", number, fact_type, source, created, created, valid_from, valid_until),
        )
        execute(
            "INSERT INTO texts (fact, scope, content, body, known_from) VALUES (?,?,?,?,?)",
            (fact, f"p{number}", content, body, created),
        )
        for tag in tags:
            execute("INSERT INTO tags VALUES (?,?,?)", (number, tag, fact))
        return int(fact)

    def rewrite(self, fact: int, content: str, at_ms: int) -> None:
        """Replace what the fact says; the old text stays known until then."""
        stamp = timestamp(at_ms)
        execute = self.connection.execute
        (scope,) = execute("SELECT scope FROM texts WHERE fact = ? AND known_until IS NULL", (fact,)).fetchone()
        execute("UPDATE texts SET known_until = ? WHERE fact = ? AND known_until IS NULL", (stamp, fact))
        execute("INSERT INTO texts (fact, scope, content, known_from) VALUES (?,?,?,?)", (fact, scope, content, stamp))

    def embed(self) -> None:
        """Give every text its vector, as node/vectors.py does in the background."""
        table = encoder()
        model = adopt(self.connection, table.model)
        while due := due_now(self.connection):
            keep(self.connection, model, list(zip(due, embed_all(table, due), strict=True)))

    def meaning(self, query: str) -> Question | None:
        """The query as a vector, among those of all texts that have one."""
        table = encoder()
        rows = self.connection.execute("SELECT text, project, vector FROM vectors").fetchall()
        vector = embed(table, query)
        return Question(vector, adopt(self.connection, table.model), Signs.of(rows, table.dims)) if vector else None

    def retract(self, fact: int, at_ms: int) -> None:
        self.connection.execute("UPDATE facts SET retracted = ? WHERE id = ?", (timestamp(at_ms), fact))


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.connection.close()


@pytest.fixture(scope="session")
def new_memory() -> type[Memory]:
    """For tests that need one memory per example."""
    return Memory
