"""Who signed a vote: an agent of the ledger, or one whose enrolment is still on the way.

What an agent says counts provisionally at once, also far from any hub. Its enrolment is a row of `statements` without
an entry; whoever must have signed it has, or it would not be there (node/voting/inbox.py).

Tests: tests/node/voting/test_voters.py.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from ledger import statement
from ledger.agents import Agent
from ledger.entry import MAX_NUMBER, Kind
from ledger.statement import BadStatement, Enrolment
from ledger.vote import Vote
from node.voting.mappings import agent_of

MAX_WANTED: Final = 1_000
"""Enrolments on the way that are looked through: a hub takes them in by the hundred."""
AT_ONCE: Final = 900
"""Values in one query: every build of SQLite takes 999."""


def voters(connection: sqlite3.Connection, cast: Collection[Vote]) -> dict[bytes, Agent]:
    """Who signed these votes, by key: as the ledger says, or else an enrolment that is still on the way."""
    keys = {vote.agent for vote in cast}
    found = agents(connection, keys)
    missing = keys - found.keys()
    return found | _wanted(connection, missing, next(iter(cast)).mesh) if missing else found


def agents(connection: sqlite3.Connection, keys: Iterable[bytes]) -> dict[bytes, Agent]:
    """Those of `keys` that the ledger knows, in use or not."""
    found = {}
    for some in chunks(keys):
        query = "SELECT key, principal, name, voice, owner, since, until FROM agents WHERE key IN (?"
        found.update({row[0]: agent_of(row) for row in connection.execute(f"{query}{',?' * (len(some) - 1)})", some)})
    return found


def _wanted(connection: sqlite3.Connection, keys: Iterable[bytes], mesh: bytes) -> dict[bytes, Agent]:
    """Those of `keys` whose enrolment is on the way, as it will enrol them: above every entry that there is."""
    rows = connection.execute(
        "SELECT text FROM statements WHERE kind = ? AND entry IS NULL ORDER BY hash LIMIT ?",
        (Kind.ENROLMENT, MAX_WANTED),
    )
    wanted: dict[bytes, Enrolment] = {}
    for (text,) in rows:
        said = _enrolment(text)
        if said is not None and said.mesh == mesh:
            wanted.setdefault(said.agent, said)
    found = {}
    for key in wanted.keys() & set(keys):
        said = wanted[key]
        principal = _principal(connection, wanted, key)
        if principal is not None:
            found[key] = Agent(key, principal, said.name, said.voice, said.owner, since=MAX_NUMBER)
    return found


def _principal(connection: sqlite3.Connection, wanted: Mapping[bytes, Enrolment], key: bytes) -> bytes | None:
    """The first key of the agent that `key` will be enrolled for, None when it will not be."""
    passed = set()
    while key in wanted and key not in passed:
        passed.add(key)
        said = wanted[key]
        if not said.replaces:
            return key
        former = agents(connection, [said.replaces]).get(said.replaces)
        if former is not None:
            return former.principal if former.until is None else None
        key = said.replaces
    return None


def chunks(values: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The values in lists that are short enough for one query."""
    ordered = sorted(values)
    for start in range(0, len(ordered), AT_ONCE):
        yield ordered[start : start + AT_ONCE]


@lru_cache(maxsize=MAX_WANTED)
def _enrolment(text: bytes) -> Enrolment | None:
    try:
        said = statement.decode(Kind.ENROLMENT, text)
    except BadStatement:
        return None
    return said if isinstance(said, Enrolment) else None
