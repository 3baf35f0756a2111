"""Ids of an earlier system: wherever a fact's id is asked for, the id that it had there will do.

`resolve` turns what a user gave into an id of this mesh. An id of this mesh stands for itself; `check` refuses one as
an old id, so that nobody's import takes a name away. Two imports from different databases may bring one old id twice:
then nothing is guessed.

Tests: tests/node/test_legacy.py.
"""

import re
import sqlite3
from typing import Final

from crdt.fact import MAX_LEGACY_ID_CHARS
from node.errors import Problem

MAX_NAMED: Final = 10
"""Facts that an error names when an old id stands for several."""
_OURS: Final = re.compile(r"[a-z2-7]{16}-[0-9]+")
"""crdt.op: 80 bits of the author in base 32, and its seq."""


def resolve(connection: sqlite3.Connection, given: str) -> str:
    """The id of the fact that `given` names; `given` itself when no fact has it as an old id.

    Raises Problem 409 `ambiguous_id` when several have.
    """
    if _OURS.fullmatch(given) or not given.isprintable():
        return given
    query = "SELECT DISTINCT name FROM facts WHERE legacy = ? ORDER BY created, id LIMIT ?"
    names = [name for (name,) in connection.execute(query, (given, MAX_NAMED + 1))]
    if len(names) > 1:
        more = " and others" if len(names) > MAX_NAMED else ""
        raise Problem(
            409, "ambiguous_id",
            f"{given} is the old id of several facts: {', '.join(names[:MAX_NAMED])}{more}",
            "use the new id of the one that is meant", "id",
        )  # fmt: skip
    return names[0] if names else given


def check(legacy_id: str | None) -> str | None:
    """An old id that a fact is to have. Raises Problem."""
    if legacy_id is None:
        return None
    if not 0 < len(legacy_id) <= MAX_LEGACY_ID_CHARS or not legacy_id.isprintable() or not legacy_id.strip():
        raise Problem(
            422, "invalid_legacy_id",
            f"the legacy_id is empty, not printable, or longer than {MAX_LEGACY_ID_CHARS} characters",
            "give the id as the earlier system prints it", "legacy_id",
        )  # fmt: skip
    if _OURS.fullmatch(legacy_id):
        raise Problem(
            422, "invalid_legacy_id", f"{legacy_id} looks like an id of this mesh", "leave legacy_id out", "legacy_id"
        )
    return legacy_id
