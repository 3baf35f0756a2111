"""Which facts may answer a query: its filters, the time it asks about, and who stands beside whom.

Every leg ranks only texts that pass `admit`, so k results come back when k exist. The rules:

* the text is what the fact showed at that time (`known_from` <= time < `known_until`), and the fact was not retracted;
* the fact was valid at that time (`valid_from` <= time < `valid_until`, where they are set);
* project and fact_type are the query's, and all of its tags are on the fact. These are compared with what the fact
  shows today, also in a search `as_of`.

The tables are those of node/migrations.py. Tests: tests/node/search/test_eligible.py.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from crdt.hlc import MAX_TIMESTAMP, timestamp, wall_ms
from node.search.query import Query

STORED_AROUND_MS: Final = 3_600_000
"""Facts of one source that were stored more than an hour apart are not taken for one conversation."""

OPENING_CHARS: Final = 50
"""As much of a text as may tell who speaks in it (rank.speaker)."""

# CROSS JOIN fixes the order of the loops: left to itself SQLite may walk all facts of the project first.
_ADMIT: Final = """
SELECT texts.id, texts.fact, texts.chars
FROM json_each(:texts) AS wanted CROSS JOIN texts ON texts.id = wanted.value CROSS JOIN facts ON facts.id = texts.fact
WHERE texts.known_from <= :known_at AND (texts.known_until IS NULL OR :known_at < texts.known_until)
  AND (facts.retracted IS NULL OR :known_at < facts.retracted)
  AND (facts.valid_from IS NULL OR facts.valid_from <= :valid_at)
  AND (facts.valid_until IS NULL OR :valid_at < facts.valid_until)
  AND (:project IS NULL OR facts.project = :project)
  AND (:fact_type IS NULL OR facts.fact_type = :fact_type)
  AND (:tags = '[]' OR NOT EXISTS (
    SELECT 1 FROM json_each(:tags) AS asked
    WHERE NOT EXISTS (SELECT 1 FROM tags WHERE project = facts.project AND tag = asked.value AND fact = facts.id)
  ))
"""

_BESIDE: Final = """
SELECT fact.id,
  (SELECT json_group_array(id) FROM (
    SELECT id FROM facts AS near
    WHERE near.project = fact.project AND near.source = fact.source
      AND (near.created, near.id) < (fact.created, fact.id) AND near.created >= fact.created - :around
    ORDER BY near.created DESC, near.id DESC LIMIT :reach
  )),
  (SELECT json_group_array(id) FROM (
    SELECT id FROM facts AS near
    WHERE near.project = fact.project AND near.source = fact.source
      AND (near.created, near.id) > (fact.created, fact.id) AND near.created <= fact.created + :around
    ORDER BY near.created, near.id LIMIT :reach
  ))
FROM json_each(:facts) AS wanted CROSS JOIN facts AS fact ON fact.id = wanted.value
"""

_COUNT: Final = """
SELECT coalesce(sum(texts), 0) FROM texts_counts WHERE :project IS NULL OR scope = 'p' || :project
"""
_OF_PROJECT: Final = """
SELECT texts.id FROM projects CROSS JOIN facts ON facts.project = projects.id CROSS JOIN texts ON texts.fact = facts.id
WHERE :project IS NULL OR projects.id = :project LIMIT :limit
"""
_OF_TYPE: Final = """
SELECT texts.id FROM facts CROSS JOIN texts ON texts.fact = facts.id
WHERE facts.fact_type = :fact_type AND (:project IS NULL OR facts.project = :project) LIMIT :limit
"""
_OF_TAG: Final = """
SELECT texts.id FROM projects CROSS JOIN tags ON tags.project = projects.id AND tags.tag = :tag
  CROSS JOIN texts ON texts.fact = tags.fact
WHERE :project IS NULL OR projects.id = :project LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Conditions:
    """A query's filters in the database's terms. `known_at` is a timestamp, `valid_at` milliseconds since 1970 UTC."""

    project: int | None
    fact_type: str | None
    tags: str
    known_at: int
    valid_at: int


class Text(NamedTuple):
    """One text that may answer: its rowid, its fact's rowid, its length in characters."""

    id: int
    fact: int
    chars: int


def conditions(connection: sqlite3.Connection, query: Query) -> Conditions | None:
    """The query's filters, or None when it names a project that is not here."""
    project = None
    if query.project is not None:
        row = connection.execute("SELECT id FROM projects WHERE name = ?", (query.project,)).fetchone()
        if row is None:
            return None
        project = int(row[0])
    return Conditions(
        project=project,
        fact_type=query.fact_type,
        tags=json.dumps(query.tags),
        known_at=MAX_TIMESTAMP if query.as_of is None else query.as_of,
        valid_at=query.now_ms if query.as_of is None else wall_ms(query.as_of),
    )


def admit(connection: sqlite3.Connection, conditions: Conditions, texts: Iterable[int]) -> list[Text]:
    """Those of `texts` (rowids) that may answer."""
    rows = connection.execute(
        _ADMIT,
        {
            "texts": json.dumps(list(texts)),
            "known_at": conditions.known_at,
            "valid_at": conditions.valid_at,
            "project": conditions.project,
            "fact_type": conditions.fact_type,
            "tags": conditions.tags,
        },
    )
    return [Text._make(row) for row in rows]


def texts(connection: sqlite3.Connection, conditions: Conditions, facts: Iterable[int]) -> list[Text]:
    """Those of `facts` that may answer, each with the text that it may answer with."""
    rows = connection.execute(
        "SELECT texts.id FROM json_each(?) AS wanted CROSS JOIN texts ON texts.fact = wanted.value",
        (json.dumps(list(facts)),),
    )
    return admit(connection, conditions, [row[0] for row in rows])


def few(connection: sqlite3.Connection, conditions: Conditions, limit: int) -> list[int] | None:
    """Every text (rowid) that can meet `conditions`, and some more; None when no index narrows them to `limit`."""
    filters = {"project": conditions.project, "fact_type": conditions.fact_type, "limit": limit + 1}
    (count,) = connection.execute(_COUNT, filters).fetchone()
    ways = [(_OF_TAG, {"tag": tag}) for tag in json.loads(conditions.tags)]
    if conditions.fact_type is not None:
        ways.append((_OF_TYPE, {}))
    for way, more in [(_OF_PROJECT, {})] if count <= limit else ways:
        found = [row[0] for row in connection.execute(way, filters | more)]
        if len(found) <= limit:
            return found
    return None


def openings(connection: sqlite3.Connection, conditions: Conditions, facts: Iterable[int]) -> dict[int, str]:
    """The first OPENING_CHARS characters of each fact, as it was known at the time that is asked about."""
    rows = connection.execute(
        "SELECT texts.fact, substr(texts.content, 1, ?) FROM json_each(?) AS wanted"
        " CROSS JOIN texts ON texts.fact = wanted.value"
        " WHERE texts.known_from <= ? AND (texts.known_until IS NULL OR ? < texts.known_until)",
        (OPENING_CHARS, json.dumps(list(facts)), conditions.known_at, conditions.known_at),
    )
    return dict(rows.fetchall())


def neighbours(
    connection: sqlite3.Connection, conditions: Conditions, facts: Sequence[int], reach: int
) -> dict[int, list[tuple[int, int]]]:
    """For each of `facts`: (neighbour, distance) of the facts that the same source stored just before and after it.

    Neighbours are of the same project, at most `reach` away in the order of storing and STORED_AROUND_MS in time; they
    may answer the query as far as its filters go, and need not hold any of its words. A fact without a source has none.
    """
    rows = connection.execute(
        _BESIDE, {"facts": json.dumps(list(facts)), "around": timestamp(STORED_AROUND_MS), "reach": reach}
    )
    beside = {
        fact: [(near, distance) for side in sides for distance, near in enumerate(json.loads(side), 1)]
        for fact, *sides in rows
    }
    found = {near for pairs in beside.values() for near, _ in pairs}
    admitted = {text.fact for text in texts(connection, conditions, found)}
    return {fact: [pair for pair in pairs if pair[0] in admitted] for fact, pairs in beside.items()}
