"""Search: from free text to ranked facts, with filters that hold before the ranking.

    words (query.py) -> text.py  \
                                  > scores of facts, fused -> with neighbours, who is named, and trust (rank.py)
    meaning          -> vector.py /

Each leg gives a score in 0..1 to facts that pass the filters (eligible.py). Without a `Meaning` (no encoder, a query
in a language that it does not know, vectors that are not there yet) the text leg ranks alone.

A search answers with what is shown and valid at one time: now, or `as_of`. When at least `top_k` facts match and pass
the filters it returns `top_k` hits. Trust is today's, so an `as_of` search goes without. It runs on one reader's
connection in one snapshot and writes nothing. A query without a single word finds nothing; no query is an error.
Tests: tests/node/search/.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping

from ledger.score import Trust
from node.search import eligible, rank, text, vector
from node.search.query import Hit, Query, words
from node.search.vector import Meaning

__all__ = ["Hit", "Meaning", "Query", "Trusting", "no_trust", "search"]

POOL = 100
"""Facts of a leg that are ranked: ten times a page of answers. With 200 recall on dialogue is no better."""


Trusting = Callable[[sqlite3.Connection, Iterable[int]], Mapping[int, Trust]]
"""Gives the trust in those of some facts on which anything is committed."""


def no_trust(connection: sqlite3.Connection, facts: Iterable[int]) -> Mapping[int, Trust]:
    """Nobody has voted."""
    return {}


def search(
    connection: sqlite3.Connection, query: Query, meaning: Meaning | None = None, trust: Trusting = no_trust
) -> list[Hit]:
    """The best `query.top_k` facts, best first. `meaning` is the query's vector, where there is one."""
    conditions = eligible.conditions(connection, query)
    terms = words(query.text)
    if conditions is None or not terms or query.top_k < 1:
        return []
    said = text.leg(connection, terms, conditions, max(POOL, query.top_k), query.top_k)
    meant = vector.leg(connection, meaning, conditions, said, query.top_k) if meaning else {}
    by_text, by_vector = ({text.fact: score for text, score in leg.items()} for leg in (said, meant))
    scores = rank.fused(by_text, by_vector)
    around = eligible.neighbours(connection, conditions, rank.best(scores, rank.GIVERS), len(rank.NEIGHBOUR_WEIGHTS))
    matches = rank.with_neighbours(scores, around)
    pool = {fact: matches[fact] for fact in rank.best(matches, max(POOL, query.top_k))}
    openings = eligible.openings(connection, conditions, pool)
    speakers = {fact: words(rank.speaker(opening)) for fact, opening in openings.items()}
    matches = rank.named(pool, speakers, terms)
    if query.as_of is None:
        matches = rank.trusted(matches, trust(connection, matches))
    return [
        Hit(fact, matches[fact], by_text.get(fact), by_vector.get(fact)) for fact in rank.best(matches, query.top_k)
    ]
