"""Search: from free text to ranked facts, with filters that hold before the ranking.

    words (query.py) -> scores of facts (text.py) -> ranking with neighbours (rank.py)

Every leg gives a score in 0..1 to facts that pass the filters (eligible.py); rank.py orders them. Text is the only leg
so far. A second one joins in `search` below: its scores are fused with those of the text, linearly, before the
neighbours are looked at.

A search answers with what is shown and valid at one time: now, or `as_of`. When at least `top_k` facts match and pass
the filters it returns `top_k` hits. It runs on one reader's connection in one snapshot and writes nothing. A query
without a single word finds nothing; no query is an error. Tests: tests/node/search/.
"""

import sqlite3

from node.search import eligible, rank, text
from node.search.query import Hit, Query, words

__all__ = ["Hit", "Query", "search"]

POOL = 100
"""Facts of a leg that are ranked: ten times a page of answers. With 200 recall on dialogue is no better."""


def search(connection: sqlite3.Connection, query: Query) -> list[Hit]:
    """The best `query.top_k` facts, best first."""
    conditions = eligible.conditions(connection, query)
    terms = words(query.text)
    if conditions is None or not terms or query.top_k < 1:
        return []
    scores = rank.relative(text.leg(connection, terms, conditions, max(POOL, query.top_k), query.top_k))
    around = eligible.neighbours(connection, conditions, rank.best(scores, rank.GIVERS), len(rank.NEIGHBOUR_WEIGHTS))
    matches = rank.with_neighbours(scores, around)
    return [Hit(fact, matches[fact], scores.get(fact), None) for fact in rank.best(matches, query.top_k)]
