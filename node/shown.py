"""The derived tables: what is shown of each fact, ready to be listed, filtered and searched.

Nothing here is replicated, and everything can be made anew from the ops. `show` runs in the transaction that changed a
subject's ops, so a fact can be searched the moment its store is acknowledged.

`texts` holds each content that a fact has or had, with the time from which and until which it was shown, so that a
search `as_of` finds what was known then. Tests: tests/node/test_shown.py.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from crdt.fact import Fact, fold, history
from crdt.hlc import wall_ms
from crdt.op import Op
from node.clock import rfc3339

_EMPTY_ALL = ("DELETE FROM facts", "DELETE FROM texts", "DELETE FROM tags", "DELETE FROM links")


_Text = tuple[str, str | None, int, int | None]
"""Content, body, and the timestamps from which and until which they were shown (None: they are)."""


def scope(project: int) -> str:
    """The word that stands for a project inside the full-text index."""
    return f"p{project}"


def show(connection: sqlite3.Connection, project: int, subject: str, ops: Sequence[Op], held_after: int) -> None:
    """Bring the tables up to date with one subject's ops in effect; timestamps above `held_after` are held."""
    fact = fold(ops, held_after)
    row = connection.execute("SELECT id FROM facts WHERE name = ? AND project = ?", (subject, project)).fetchone()
    known = None if row is None else int(row[0])
    if known is not None:
        connection.execute("DELETE FROM tags WHERE fact = ?", (known,))
        connection.execute("DELETE FROM links WHERE origin = ? AND project = ?", (subject, project))
    if fact is None:
        if known is not None:
            connection.execute("DELETE FROM texts WHERE fact = ?", (known,))
            connection.execute("DELETE FROM facts WHERE id = ?", (known,))
        return
    body = read_body(fact)
    number = _put_fact(connection, known, project, fact, body)
    if fact.tags:
        connection.executemany("INSERT INTO tags VALUES (?,?,?)", [(project, tag, number) for tag in fact.tags])
    if fact.links:
        connection.executemany("INSERT INTO links VALUES (?,?,?,?)", [(fact.id, project, *link) for link in fact.links])
    texts = _contents(ops, fact, body, held_after)
    if known is None or texts != _kept_texts(connection, number):
        connection.execute("DELETE FROM texts WHERE fact = ?", (number,))
        connection.executemany(
            "INSERT INTO texts (fact, scope, content, body, known_from, known_until) VALUES (?,?,?,?,?,?)",
            [(number, scope(project), *text) for text in texts],
        )


def clear(connection: sqlite3.Connection) -> None:
    """Empty the derived tables, before they are rebuilt."""
    for statement in _EMPTY_ALL:
        connection.execute(statement)


def validity_changes_after(connection: sqlite3.Connection, ms: int) -> int | None:
    """The next time, in milliseconds since 1970 UTC, at which any fact begins or ceases to be valid; None: never."""
    (next_change,) = connection.execute(
        "SELECT min(change) FROM (SELECT min(valid_from) AS change FROM facts WHERE valid_from > :ms"
        " UNION ALL SELECT min(valid_until) FROM facts WHERE valid_until > :ms)",
        {"ms": ms},
    ).fetchone()
    return None if next_change is None else int(next_change)


def read_body(fact: Fact) -> str | None:
    """The text of the fact's body, None when it has none."""
    if not fact.texts:
        return None
    from crdt import text  # pycrdt costs 11 MB; most nodes never meet a body

    return text.read(fact.texts)


def as_json(fact: Fact) -> dict[str, Any]:
    """The API's Fact, without its body."""
    values = fact.values
    return {
        "id": fact.id,
        "project": fact.project,
        "content": fact.content,
        "fact_type": values["fact_type"],
        "tags": list(fact.tags),
        "confidence": values["confidence"],
        "source": values["source"],
        "meta": values["meta"],
        "valid_from": _time(values["valid_from"]),
        "valid_until": _time(values["valid_until"]),
        "created_at": rfc3339(wall_ms(fact.created)),
        "updated_at": rfc3339(wall_ms(fact.updated)),
        "author": fact.author,
        "agent": values["agent"],
        "version": fact.version,
        "conflict": bool(fact.conflicts),
        "conflicts": list(fact.conflicts),
        "retracted": fact.retracted is not None,
        "retracted_reason": values["retracted"].reason if values["retracted"] else None,
        "links": [{"relation": relation, "to": target} for relation, target in fact.links],
        "has_body": bool(fact.texts),
        "legacy_id": fact.legacy_id,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _put_fact(connection: sqlite3.Connection, row: int | None, project: int, fact: Fact, body: str | None) -> int:
    values = fact.values
    columns = (
        values["fact_type"],
        values["source"],
        fact.created,
        fact.updated,
        fact.retracted,
        values["valid_from"],
        values["valid_until"],
        msgspec.json.encode(as_json(fact)),
        body,
        fact.legacy_id,
    )
    if row is not None:
        connection.execute(
            "UPDATE facts SET fact_type = ?, source = ?, created = ?, updated = ?, retracted = ?, valid_from = ?,"
            " valid_until = ?, shown = ?, body = ?, legacy = ? WHERE id = ?",
            (*columns, row),
        )
        return row
    return int(
        connection.execute(
            "INSERT INTO facts (name, project, fact_type, source, created, updated, retracted, valid_from, valid_until,"
            " shown, body, legacy) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (fact.id, project, *columns),
        ).lastrowid
        or 0
    )


def _kept_texts(connection: sqlite3.Connection, number: int) -> list[_Text]:
    return connection.execute(
        "SELECT content, body, known_from, known_until FROM texts WHERE fact = ? ORDER BY id", (number,)
    ).fetchall()


def _contents(ops: Sequence[Op], fact: Fact, body: str | None, held_after: int) -> list[_Text]:
    """Each content that was ever shown, the current one last. What is held was not shown yet."""
    if len(ops) == 1:
        return [(fact.content, body, fact.created, None)]
    versions = [version for version in history(ops, held_after) if version.field == "content"]
    writes = [version for version in versions if version.state != "no_effect"]
    current = next(version for version in writes if version.state == "current")
    earlier = [version for version in writes if version.op.order < current.op.order]
    starts = [version.op.timestamp for version in [*earlier, current][1:]]
    past = [
        (version.value, None, version.op.timestamp, until)
        for version, until in zip(earlier, starts, strict=True)
        if until > version.op.timestamp
    ]
    return [*past, (fact.content, body, current.op.timestamp, None)]
