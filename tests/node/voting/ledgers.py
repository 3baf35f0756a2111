"""Ledgers for tests of what stands on one: entries as a hub writes them, without a hub and without the tree."""

import sqlite3
from collections.abc import Iterable
from hashlib import sha256

from ledger import entry as entries
from ledger.entry import NO_HASH, NO_PROJECT, Entry, Kind
from ledger.score import Fold, fold
from ledger.statement import Constants, Enrolment, Genesis, Revocation, seal
from ledger.vote import Vote, reason_hash, sign
from node.migrations import migrate
from node.voting.table import Line, Table
from tests.ledger.world import secret
from tests.node.world import MESH, NOW_MS, PROJECT

AUTHORITY, OWNER, HUB = "authority", "owner", "hub"
YARD = "yard"


def key(name: str) -> bytes:
    return secret(name)[32:]


def tag_of(project: str) -> bytes:
    return entries.project_tag(sha256(b"key of " + project.encode()).digest(), project)


def version_of(fact: str, edit: int = 0) -> bytes:
    return sha256(f"version {edit} of {fact}".encode()).digest()


def a_vote(
    agent: str, fact: str, value: int, counter: int = 1, *, project: str = PROJECT, version: bytes | None = None,
    reason: str = "", time_ms: int = NOW_MS, mesh: bytes = MESH,
) -> Vote:  # fmt: skip
    version = version_of(fact) if version is None else version
    return Vote(mesh, project, fact, version, key(agent), counter, value, reason_hash(reason), time_ms)


def signed(vote: Vote, agent: str) -> bytes:
    return sign(vote, secret(agent))


def enrolment(agent: str, machine: str, *, owner: bool = False, replaces: str = "", time_ms: int = NOW_MS) -> bytes:
    said = Enrolment(MESH, key(agent), agent, key(machine), owner, key(replaces) if replaces else b"", time_ms)
    return seal(said, key(AUTHORITY), [secret(name) for name in (agent, machine, AUTHORITY, replaces) if name])


def a_database() -> sqlite3.Connection:
    """An empty one in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, NOW_MS)
    return connection


class Ledger:
    """A ledger that begins with a genesis and the owner's enrolment. Agents are named, and so are machines.

    Everything is said at another time, so that no text is there twice.
    """

    def __init__(self, constants: Constants | None = None) -> None:
        self.lines: list[Line] = []
        self._last_of: dict[bytes, int] = {}
        self._counters: dict[tuple[str, str, bytes], int] = {}
        genesis = Genesis(MESH, key(AUTHORITY), constants or Constants(), NOW_MS)
        self.add(Kind.GENESIS, seal(genesis, key(AUTHORITY), [secret(AUTHORITY)]))
        self.add(Kind.ENROLMENT, enrolment(OWNER, HUB, owner=True))

    @property
    def _now_ms(self) -> int:
        return NOW_MS + len(self.lines)

    def add(self, kind: int, text: bytes, tag: bytes = NO_PROJECT, *, own: bool = False, lost: bool = False) -> int:
        """The index of a new entry. `lost`: its text is not there."""
        index = len(self.lines)
        prev = entries.entry_hash(self.lines[-1].raw) if self.lines else NO_HASH
        raw = entries.encode(
            Entry(kind, own, index, 1, NOW_MS, prev, self._last_of.get(tag, 0), tag, entries.text_hash(text))
        )
        self.lines.append(Line(raw, None if lost else text))
        self._last_of[tag] = index
        return index

    def enrol(self, *agents: str) -> "Ledger":
        """`agent@machine` each."""
        for agent in agents:
            self.add(Kind.ENROLMENT, enrolment(*agent.split("@"), time_ms=self._now_ms))
        return self

    def rotate(self, former: str, agent: str, machine: str) -> int:
        return self.add(Kind.ENROLMENT, enrolment(agent, machine, replaces=former, time_ms=self._now_ms))

    def revoke(self, agent: str, void_from: int | None = None, by: str = AUTHORITY) -> int:
        said = Revocation(MESH, key(agent), void_from, key(by), self._now_ms)
        return self.add(Kind.REVOCATION, seal(said, key(AUTHORITY), [secret(by)]))

    def vote(
        self, agent: str, fact: str, value: int, counter: int = 0, *, project: str = PROJECT, own: bool = False,
        version: bytes | None = None, forged: bool = False, tag: bytes = b"",
    ) -> int:  # fmt: skip
        version = version_of(fact) if version is None else version
        counter = counter or self._counters.get((agent, fact, version), 0) + 1
        self._counters[agent, fact, version] = counter
        vote = a_vote(agent, fact, value, counter, project=project, version=version, time_ms=self._now_ms)
        text = signed(vote, agent)
        return self.add(Kind.VOTE, text[:-1] + bytes([text[-1] ^ forged]), tag or tag_of(project), own=own)

    def put(self, connection: sqlite3.Connection, indexes: Iterable[int] | None = None) -> None:
        """Into the tables of a node: all entries, or some."""
        chosen = range(len(self.lines)) if indexes is None else indexes
        Table(connection).put([self.lines[index] for index in chosen])

    def fold(self, indexes: Iterable[int] | None = None) -> Fold:
        """The law: what `ledger.score.fold` makes of all entries, or of some."""
        chosen = sorted(range(len(self.lines)) if indexes is None else indexes)
        lines = [(entries.decode(self.lines[index].raw), self.lines[index].text) for index in chosen]
        return fold(lambda: lines, key(AUTHORITY))

    def without_gaps(self, indexes: Iterable[int]) -> list[int]:
        """Those of some entries that follow in their tag without a gap, from the first; none without the genesis."""
        last: dict[bytes, int] = {}
        found = []
        for index in sorted(indexes):
            entry = entries.decode(self.lines[index].raw)
            if entry.project_prev == last.get(entry.project_tag, 0):
                last[entry.project_tag] = index
                found.append(index)
        return found if 0 in found else []

    def tag(self, index: int) -> bytes:
        return entries.decode(self.lines[index].raw).project_tag

    def cut(self, size: int) -> None:
        """Forget the entries from `size` on."""
        del self.lines[size:]
        self._last_of = {self.tag(index): index for index in range(size)}
