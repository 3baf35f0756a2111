"""Who may vote, entry by entry: a fold over enrolments and revocations, in ledger order.

A key votes from its enrolment on until it is replaced or its agent is revoked. An agent that changes its key stays one
agent: it is named by its first key, its *principal*, and reputation and counters go on. All agents that one node
enrolled are one *voice*.

Statements come here after their signatures were checked (ledger.statement.verify). What they may not say even then -
a key enrolled twice, a stranger's revocation - has no effect, on every node alike. Tests: tests/ledger/test_agents.py.
"""

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, replace

from ledger.statement import Enrolment, Revocation


@dataclass(frozen=True, slots=True)
class Agent:
    """One key of an agent. It votes in entries above `since` and below `until`."""

    key: bytes
    principal: bytes
    name: str
    voice: bytes
    owner: bool
    since: int
    until: int | None = None


class Agents:
    """Keys to agents, and from which index on a principal's votes are void. Both may be the caller's own mappings.

    `keys_of`: all keys of a principal, and maybe others; without it every key is looked at.
    """

    def __init__(
        self,
        authority: bytes,
        known: MutableMapping[bytes, Agent] | None = None,
        void_from: MutableMapping[bytes, int] | None = None,
        keys_of: Callable[[bytes], Iterable[bytes]] | None = None,
    ) -> None:
        self._authority = authority
        self._keys_of = keys_of
        self.known: MutableMapping[bytes, Agent] = {} if known is None else known
        self.void_from: MutableMapping[bytes, int] = {} if void_from is None else void_from

    def objection(self, statement: Enrolment | Revocation) -> str | None:
        """Why the statement would have no effect here and now; None when it has one. For the hub, before it appends."""
        match statement:
            case Enrolment(agent=key) if key in self.known:
                return "this key is enrolled already"
            case Enrolment(replaces=replaced) if replaced:
                former = self.known.get(replaced)
                return None if former and former.until is None else "the key that it replaces is not in use"
            case Enrolment():
                return None
            case Revocation(agent=key, by=by):
                if (agent := self.known.get(key)) is None:
                    return "the agent is not enrolled"
                allowed = by in (key, agent.voice, self._authority)
                return None if allowed else "neither the agent, nor its node, nor the certificate authority says so"

    def apply(self, index: int, statement: Enrolment | Revocation) -> bool:
        """The entry at `index` says this. Returns whether votes that were counted before are now void."""
        if self.objection(statement):
            return False
        match statement:
            case Enrolment(agent=key, replaces=replaced):
                former = self.known.get(replaced) if replaced else None
                if former:
                    self.known[former.key] = replace(former, until=index)
                principal = former.principal if former else key
                self.known[key] = Agent(key, principal, statement.name, statement.voice, statement.owner, index)
                return False
            case Revocation(agent=key, void_from=void_from):
                principal = self.known[key].principal
                if agent := self.in_use(key):
                    self.known[agent.key] = replace(agent, until=index)
                before = self.void_from.get(principal)
                if void_from is None or void_from >= (index if before is None else before):
                    return False
                self.void_from[principal] = void_from
                return True

    def in_use(self, key: bytes) -> Agent | None:
        """The one key with which the agent that has or had `key` votes now; None when it has ended."""
        agent = self.known[key]
        if agent.until is None:
            return agent
        of_it = (self.known[one] for one in (self._keys_of(agent.principal) if self._keys_of else self.known))
        return next((one for one in of_it if one.principal == agent.principal and one.until is None), None)

    def voter(self, key: bytes, index: int) -> Agent | None:
        """Whose vote by this key the entry at `index` counts; None when nobody's."""
        agent = self.known.get(key)
        if agent is None or agent.since >= index or (agent.until is not None and agent.until <= index):
            return None
        void_from = self.void_from.get(agent.principal)
        return None if void_from is not None and void_from <= index else agent
