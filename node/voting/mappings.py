"""Tables as mappings, so that `ledger.score.Fold` keeps what it knows on disk.

Each mapping lives as long as one job: what it writes is in the job's transaction, and what it remembers of its reads
ends with it. A mapping that outlived a job would believe what a rollback has undone.

Tests: tests/node/voting/test_mappings.py.
"""

import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from ledger.agents import Agent
from ledger.score import Key, Tally

REMEMBERED: Final = 1_000
"""Rows that one mapping remembers: a fold from nothing meets the same agents again and again, and a tally has a KiB."""

K = TypeVar("K")
V = TypeVar("V")
Row = tuple[Any, ...]
_tally = msgspec.msgpack.Decoder(Tally).decode


@dataclass(frozen=True, slots=True)
class Layout(Generic[K, V]):
    """How a table holds a mapping: its statements, and keys and values as rows."""

    read: str
    write: str
    delete: str
    keys: str
    count: str
    key_row: Callable[[K], Row]
    value_row: Callable[[V], Row]
    key: Callable[[Row], K]
    value: Callable[[Row], V]


TALLIES: Final[Layout[Key, Tally]] = Layout(
    read="SELECT tally FROM tallies WHERE project = ? AND fact = ? AND version = ?",
    write="INSERT OR REPLACE INTO tallies (project, fact, version, tally) VALUES (?,?,?,?)",
    delete="DELETE FROM tallies WHERE project = ? AND fact = ? AND version = ?",
    keys="SELECT project, fact, version FROM tallies",
    count="SELECT count(*) FROM tallies",
    key_row=tuple,
    value_row=lambda tally: (msgspec.msgpack.encode(tally),),
    key=Key._make,
    value=lambda row: _tally(row[0]),
)
REPUTATIONS: Final[Layout[tuple[str, bytes], int]] = Layout(
    read="SELECT reputation FROM reputations WHERE project = ? AND agent = ?",
    write="INSERT OR REPLACE INTO reputations (project, agent, reputation) VALUES (?,?,?)",
    delete="DELETE FROM reputations WHERE project = ? AND agent = ?",
    keys="SELECT project, agent FROM reputations",
    count="SELECT count(*) FROM reputations",
    key_row=tuple,
    value_row=lambda reputation: (reputation,),
    key=lambda row: (row[0], row[1]),
    value=lambda row: int(row[0]),
)
AGENTS: Final[Layout[bytes, Agent]] = Layout(
    read="SELECT key, principal, name, voice, owner, since, until FROM agents WHERE key = ?",
    write="INSERT OR REPLACE INTO agents (key, principal, name, voice, owner, since, until) VALUES (?,?,?,?,?,?,?)",
    delete="DELETE FROM agents WHERE key = ?",
    keys="SELECT key FROM agents",
    count="SELECT count(*) FROM agents",
    key_row=lambda key: (key,),
    value_row=lambda agent: (agent.principal, agent.name, agent.voice, agent.owner, agent.since, agent.until),
    key=lambda row: bytes(row[0]),
    value=lambda row: agent_of(row),
)
VOIDED: Final[Layout[bytes, int]] = Layout(
    read="SELECT since FROM voided WHERE principal = ?",
    write="INSERT OR REPLACE INTO voided (principal, since) VALUES (?,?)",
    delete="DELETE FROM voided WHERE principal = ?",
    keys="SELECT principal FROM voided",
    count="SELECT count(*) FROM voided",
    key_row=lambda key: (key,),
    value_row=lambda since: (since,),
    key=lambda row: bytes(row[0]),
    value=lambda row: int(row[0]),
)
STOPPED: Final[Layout[bytes, int]] = Layout(
    read="SELECT entry FROM scores_stopped WHERE tag = ?",
    write="INSERT OR REPLACE INTO scores_stopped (tag, entry) VALUES (?,?)",
    delete="DELETE FROM scores_stopped WHERE tag = ?",
    keys="SELECT tag FROM scores_stopped",
    count="SELECT count(*) FROM scores_stopped",
    key_row=lambda key: (key,),
    value_row=lambda entry: (entry,),
    key=lambda row: bytes(row[0]),
    value=lambda row: int(row[0]),
)


def agent_of(row: Row) -> Agent:
    """The agent in a row of `agents`, whose columns are its fields."""
    key, principal, name, voice, owner, since, until = row
    return Agent(key, principal, name, voice, bool(owner), since, until)


def keys_of(connection: sqlite3.Connection, principal: bytes) -> list[bytes]:
    """The keys that an agent has or had."""
    return [key for (key,) in connection.execute("SELECT key FROM agents WHERE principal = ?", (principal,))]


class Mapped(MutableMapping[K, V]):
    """One table through one connection. Writes go through at once; reads are remembered until the job ends."""

    def __init__(self, connection: sqlite3.Connection, layout: Layout[K, V]) -> None:
        self._connection = connection
        self._layout = layout
        self._remembered: dict[K, V | None] = {}

    def __getitem__(self, key: K) -> V:
        if key not in self._remembered:
            row = self._connection.execute(self._layout.read, self._layout.key_row(key)).fetchone()
            self._remember(key, None if row is None else self._layout.value(row))
        value = self._remembered[key]
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._connection.execute(self._layout.write, (*self._layout.key_row(key), *self._layout.value_row(value)))
        self._remember(key, value)

    def __delitem__(self, key: K) -> None:
        if self._connection.execute(self._layout.delete, self._layout.key_row(key)).rowcount == 0:
            raise KeyError(key)
        self._remember(key, None)

    def __iter__(self) -> Iterator[K]:
        return iter([self._layout.key(row) for row in self._connection.execute(self._layout.keys)])

    def __len__(self) -> int:
        return int(self._connection.execute(self._layout.count).fetchone()[0])

    def _remember(self, key: K, value: V | None) -> None:
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = value
