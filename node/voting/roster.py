"""Who the agents are, as a node sees them now: what the ledger says, and the statements that are on their way to it.

The scores count by the table `agents`, which follows from the ledger alone (node/voting/scores.py). People want to see
more: an agent that was just enrolled votes at once, as pending as its enrolment, and one that was just revoked is
refused at once. So a `Roster` puts the pending statements on top, by the ledger's own rules (ledger.agents). It lives
as long as a job or a read.

What an agent is called, and what it says of itself, is the profile that the node wrote which is its voice; without one
the name in its enrolment stands. Everybody may write a profile, so each writer has a row and readers choose: rows are
a function of the ops, and do not change when an enrolment comes later. Names are not unique; keys are.

Tests: tests/node/voting/test_roster.py.
"""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from crdt.op import Op
from crdt.register import resolve
from ledger import statement as statements
from ledger.agents import Agent, Agents
from ledger.ed25519 import KEY_BYTES
from ledger.entry import MAX_NUMBER, Kind
from ledger.statement import Enrolment, Revocation
from node.errors import Problem
from node.voting import records
from node.voting.mappings import agent_of
from node.voting.records import PROFILE, Profile, short
from sync.overlap import RESERVED

MAX_KEYS_OF_VOICE: Final = 1_024
"""Keys that one node may ever have enrolled: four times what it may have in use (agents.MAX_AGENTS), the rest for new
keys and for agents that come and go. Every node reads and writes the tally of a version whole for each vote on it, and
the keys of an agent for its end: ten times as many cost it a hundred times as much. A hub takes in no more; of what is
in a ledger all counts. Owners are not bounded: the authority signs for each.
"""
UNPLACED: Final = MAX_NUMBER
"""From this index on is what pending statements say: after everything that is in the ledger."""
MIN_PREFIX_DIGITS: Final = 8
"""Of a key that is given by its first digits."""
MAX_NAMED: Final = 5
"""Agents that an error names when a name stands for several."""
PENDING, ENROLLED, REVOKED = "pending", "enrolled", "revoked"
_COLUMNS: Final = "SELECT key, principal, name, voice, owner, since, until FROM agents"
_PRINCIPAL: Final = re.compile("[0-9a-f]{32}")
_PREFIX: Final = re.compile(f"[0-9a-f]{{{MIN_PREFIX_DIGITS},64}}")


class Known(NamedTuple):
    """One agent. `agent` is its newest key; `since` the entry that enrolled it, None while that is pending.

    `in_ledger`: nothing about it is on its way to the ledger.
    """

    agent: Agent
    name: str
    about: str
    state: str
    since: int | None
    in_ledger: bool

    @property
    def principal(self) -> bytes:
        return self.agent.principal

    @property
    def revoked(self) -> bool:
        return self.state == REVOKED


class Roster:
    """The agents, through one connection. `authority`: the key of the mesh's certificate authority."""

    def __init__(self, connection: sqlite3.Connection, authority: bytes) -> None:
        self._connection = connection
        self._moved: dict[bytes, Agent] = {}
        """By key: the agents that pending statements are about, with these taken into account."""
        self._void_from: dict[bytes, int] = {}
        self._next = UNPLACED
        self._apply(Agents(authority, self._moved, self._void_from))

    def by_key(self, key: bytes) -> Known | None:
        """The agent that has or had this key."""
        agent = self._moved.get(key) or next(iter(self._rows("key = ?", key)), None)
        return None if agent is None else self._known(agent.principal)

    def named(self, name: str) -> list[Known]:
        """The agents that are called so."""
        found = [agent.principal for agent in self._rows("name = ?", name)]
        found += [agent.principal for agent in self._moved.values() if agent.name == name]
        profiles = self._connection.execute("SELECT agent FROM profiles WHERE name = ?", (name,)).fetchall()
        for (principal,) in profiles:
            first = bytes.fromhex(principal)
            found += [agent.principal for agent in self._rows("principal >= ? AND principal < ?", *_range(first))]
            found += [agent.principal for agent in self._moved.values() if agent.principal.startswith(first)]
        return [known for known in self._all(found) if known.name == name]

    def find(self, word: str, voice: bytes) -> Known:
        """The agent that `word` names: its name, or its key or the first digits of that.

        Of agents with one name those of this `voice` come first, and those that are not revoked. Raises Problem
        unknown_agent, ambiguous_agent.
        """
        found = self.named(word)
        if not found and _PREFIX.fullmatch(word):
            first = bytes.fromhex(word[: len(word) // 2 * 2])
            keys = [
                agent for agent in self._rows("key >= ? AND key < ?", *_range(first)) if agent.key not in self._moved
            ]
            keys += [agent for agent in self._moved.values() if agent.key.startswith(first)]
            found = self._all(agent.principal for agent in keys if agent.key.hex().startswith(word))
        for better in (lambda known: known.agent.voice == voice, lambda known: not known.revoked):
            found = [known for known in found if better(known)] or found
        if not found:
            raise unknown_agent(word)
        if len(found) > 1:
            shown = ", ".join(known.agent.key.hex()[:16] for known in found[:MAX_NAMED])
            raise Problem(
                409, "ambiguous_agent", f"{len(found)} agents are called {word!r}: their keys begin with {shown}",
                "give the first digits of its key instead of its name", "agent",
            )  # fmt: skip
        return found[0]

    def everybody(self) -> list[Known]:
        """All agents, by name."""
        found = [agent.principal for agent in (*self._rows("1"), *self._moved.values())]
        return sorted(self._all(found), key=lambda known: (known.name, known.principal))

    def of_voice(self, voice: bytes) -> list[Known]:
        """The agents of one node."""
        found = [agent.principal for agent in (*self._rows("voice = ?", voice), *self._moved.values())]
        return [known for known in self._all(found) if known.agent.voice == voice]

    def key_count(self, voice: bytes) -> int:
        """How many keys the node ever enrolled, with those that are on their way to the ledger."""
        (enrolled,) = self._connection.execute("SELECT count(*) FROM agents WHERE voice = ?", (voice,)).fetchone()
        coming = (agent for agent in self._moved.values() if agent.voice == voice and agent.since >= UNPLACED)
        return int(enrolled) + sum(1 for _ in coming)

    def keys_of(self, principal: bytes) -> list[bytes]:
        """All keys that the agent has or had."""
        return [agent.key for agent in self._keys(principal)]

    def void_from(self, principal: bytes) -> int | None:
        """The index from which revocations make its votes void, if they make any."""
        row = self._connection.execute("SELECT since FROM voided WHERE principal = ?", (principal,)).fetchone()
        said = [index for index in (row and row[0], self._void_from.get(principal)) if index is not None]
        return min(said, default=None)

    def _known(self, principal: bytes) -> Known:
        keys = self._keys(principal)
        now = max(keys, key=lambda agent: (agent.until is None, agent.since))
        since = min(agent.since for agent in keys)
        state = REVOKED if now.until is not None else PENDING if since >= UNPLACED else ENROLLED
        row = self._connection.execute(
            "SELECT name, about FROM profiles WHERE agent = ? AND writer = ?", (short(principal), now.voice)
        ).fetchone()
        name, about = row or (now.name, "")
        in_ledger = not any(agent.principal == principal for agent in self._moved.values())
        return Known(now, name, about, state, None if since >= UNPLACED else since, in_ledger)

    def _all(self, principals: Iterable[bytes]) -> list[Known]:
        return [self._known(principal) for principal in dict.fromkeys(principals)]

    def _keys(self, principal: bytes) -> list[Agent]:
        moved = [agent for agent in self._moved.values() if agent.principal == principal]
        return moved or self._rows("principal = ?", principal)

    def _rows(self, where: str, *values: object) -> list[Agent]:
        rows = self._connection.execute(f"{_COLUMNS} WHERE {where}", values)
        return [agent_of(row) for row in rows]

    # Pending statements

    def _apply(self, agents: Agents) -> None:
        """As the ledger would, in the order of their times; what has no effect yet may have one after another."""
        waiting = self._pending()
        for said in waiting:
            self._load(said.agent)
            if isinstance(said, Enrolment) and said.replaces:
                self._load(said.replaces)
        moved: set[bytes] = set()
        before = -1
        while len(waiting) != before:
            before = len(waiting)
            waiting = [said for said in waiting if not self._take(agents, said, moved)]
        for key in [key for key, agent in self._moved.items() if agent.principal not in moved]:
            del self._moved[key]

    def _take(self, agents: Agents, said: Enrolment | Revocation, moved: set[bytes]) -> bool:
        if agents.objection(said):
            return False
        agents.apply(self._next, said)
        self._next += 1
        moved.add(self._moved[said.agent].principal)
        return True

    def _load(self, key: bytes) -> None:
        for (principal,) in self._connection.execute("SELECT principal FROM agents WHERE key = ?", (key,)).fetchall():
            self._moved.update((agent.key, agent) for agent in self._rows("principal = ?", principal))

    def _pending(self) -> list[Enrolment | Revocation]:
        rows = self._connection.execute(
            "SELECT hash, kind, text FROM statements WHERE entry IS NULL AND kind IN (?, ?)",
            (int(Kind.ENROLMENT), int(Kind.REVOCATION)),
        )
        found: list[tuple[int, bytes, Enrolment | Revocation]] = []
        for name, kind, text in rows:
            statement = statements.decode(kind, text)  # checked when it came: node/voting/inbox.py
            if isinstance(statement, Enrolment | Revocation):
                found.append((statement.time_ms, name, statement))
        return [statement for *_, statement in sorted(found, key=lambda one: one[:2])]


def show_profile(connection: sqlite3.Connection, project: int, subject: str, ops: Sequence[Op]) -> None:
    """`Store.shows["agent"]`: what each writer's profile of one agent says last, by the rules of a register."""
    principal = subject.removeprefix(f"{records.AGENTS}/")
    if not (_PRINCIPAL.fullmatch(principal) and (not ops or ops[0].project == RESERVED)):
        return
    by_writer: dict[bytes, list[Op]] = {}
    for op in ops:
        if op.header.kind == PROFILE and op.header.field == "profile" and records.read(op, Profile) is not None:
            by_writer.setdefault(op.header.node_key, []).append(op)
    connection.execute("DELETE FROM profiles WHERE agent = ?", (principal,))
    for writer, writes in by_writer.items():
        winner = resolve(writes).winner
        if winner is not None and (said := records.read(winner, Profile)):
            row = (principal, writer, said.name, said.about)
            connection.execute("INSERT INTO profiles VALUES (?,?,?,?)", row)


def clear_profiles(connection: sqlite3.Connection) -> None:
    """Before all subjects are shown again."""
    connection.execute("DELETE FROM profiles")


def unknown_agent(word: str, field: str = "agent") -> Problem:
    """Nobody is called so."""
    return Problem(
        404, "unknown_agent", f"there is no agent {word!r} here",
        "see who there is: cortex-node agent list; enrol one: cortex-node agent add NAME", field,
    )  # fmt: skip


def _range(first: bytes) -> tuple[bytes, bytes]:
    """The keys that begin with `first`, from and to."""
    return first, first + b"\xff" * (KEY_BYTES + 1 - len(first))
