"""The rankings that the search benchmarks put beside each other: ours leg by leg, SQLite's bm25(), and RRF.

All of them see the same words, the same index and the same vectors, within the project of the query.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_rows import Row, database

from node import extension
from node.search import POOL, Meaning, Query, eligible, rank, search, text, vector
from node.search.nearest import Question, Signs
from node.search.query import words
from node.vectors import adopt, due_now, embed, embed_all, keep, open_encoder

RRF_K = 60
"""The usual constant of reciprocal rank fusion."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Facts to search in. `meaning` gives the vector of a query, None when the encoder can't read it."""

    connection: sqlite3.Connection
    meaning: Callable[[str], Meaning | None]


Ranking = Callable[[Memory, Query], Sequence[int]]


def remember(rows: Sequence[Row], encoder: str = "table") -> Memory:
    """A memory of these rows, each with its vector."""
    extension.register()
    connection = database(rows)
    made = open_encoder(encoder)
    model, signs = adopt(connection, made.model), Signs.none(made.dims)
    connection.execute("BEGIN")
    while due := due_now(connection):
        vectors = embed_all(made, due)
        keep(connection, model, list(zip(due, vectors, strict=True)))
        new = [(one.text, one.project, vector) for one, vector in zip(due, vectors, strict=True)]
        signs = signs.put(Signs.of(new, made.dims))
    connection.execute("COMMIT")

    def meaning(query: str) -> Meaning | None:
        embedded = embed(made, query)
        return Question(embedded, model, signs) if embedded else None

    return Memory(connection, meaning)


def fts5(memory: Memory, query: Query) -> list[int]:
    """SQLite's own bm25()."""
    (project,) = memory.connection.execute("SELECT id FROM projects WHERE name = ?", (query.project,)).fetchone()
    either = " OR ".join(f'"{word}"' for word in words(query.text))
    found = memory.connection.execute(
        "SELECT rowid FROM texts_fts WHERE texts_fts MATCH ? ORDER BY bm25(texts_fts, 1, 1, 0) LIMIT ?",
        (f"scope:p{project} AND {{content body}}:({either})", query.top_k),
    )
    return [row[0] for row in found]


def text_alone(memory: Memory, query: Query) -> list[int]:
    """The text leg, nothing around it."""
    return rank.best(_by_text(memory, query), query.top_k)


def vector_alone(memory: Memory, query: Query) -> list[int]:
    """The vector leg, nothing around it."""
    return rank.best(_by_vector(memory, query), query.top_k)


def fused(memory: Memory, query: Query) -> list[int]:
    """Both legs as a search fuses them, nothing around them."""
    return rank.best(rank.fused(_by_text(memory, query), _by_vector(memory, query)), query.top_k)


def rrf(memory: Memory, query: Query) -> list[int]:
    """Reciprocal rank fusion of both legs (Cormack, Clarke and Buettcher, SIGIR 2009)."""
    scores: dict[int, float] = {}
    for leg in (_by_text(memory, query), _by_vector(memory, query)):
        for place, fact in enumerate(rank.best(leg, POOL), 1):
            scores[fact] = scores.get(fact, 0.0) + 1 / (RRF_K + place)
    return rank.best(scores, query.top_k)


def search_text(memory: Memory, query: Query) -> list[int]:
    """What a user gets without vectors: mode `bm25`."""
    return [hit.fact for hit in search(memory.connection, query)]


def search_hybrid(memory: Memory, query: Query) -> list[int]:
    """What a user gets."""
    return [hit.fact for hit in search(memory.connection, query, memory.meaning(query.text))]


def _by_text(memory: Memory, query: Query) -> dict[int, float]:
    conditions = eligible.conditions(memory.connection, query)
    assert conditions is not None
    found = text.leg(memory.connection, words(query.text), conditions, POOL, query.top_k)
    return {text.fact: share for text, share in found.items()}


def _by_vector(memory: Memory, query: Query) -> dict[int, float]:
    conditions, meaning = eligible.conditions(memory.connection, query), memory.meaning(query.text)
    assert conditions is not None
    found = vector.leg(memory.connection, meaning, conditions, (), query.top_k) if meaning else {}
    return {text.fact: cosine for text, cosine in found.items()}


LEGS: dict[str, tuple[tuple[str, Ranking], ...]] = {
    "text": (("SQLite's bm25()", fts5), ("text", text_alone), ("search, mode bm25", search_text)),
    "vector": (("vector", vector_alone),),
    "hybrid": (
        ("RRF of text and vector", rrf),
        ("text and vector, fused", fused),
        ("**search, mode hybrid**", search_hybrid),
    ),
}
LEGS["all"] = tuple(ranking for rankings in list(LEGS.values()) for ranking in rankings)
