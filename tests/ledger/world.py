"""A ledger in memory for the tests: storage that can be told to fail, keys from numbers, and a mesh that votes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from ledger import log, statement, vote
from ledger.ed25519 import public_key, secret_key
from ledger.entry import Kind, decode, entry_hash, project_tag
from ledger.log import EMPTY, Appended, Batch, Draft, Head
from ledger.statement import Constants, Enrolment, Genesis, Grant, Revocation
from ledger.tlog import Node
from ledger.verify import Finding
from ledger.vote import Vote, reason_hash

MESH = sha256(b"mesh").digest()
PROJECT = "factory-7"
NOW_MS = 1_760_000_000_000


def secret(name: str) -> bytes:
    """The secret key of whoever has this name."""
    return secret_key(sha256(name.encode()).digest())


def key(name: str) -> bytes:
    return public_key(secret(name))


AUTHORITY, HUB, OWNER = "authority", "hub", "owner"
TAG = project_tag(sha256(b"project key").digest(), PROJECT)


class Memory:
    """A ledger.log.Storage. Lists and dictionaries stand for tables."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.texts: list[bytes | None] = []
        self.hashes: dict[Node, bytes] = {}
        self.notes: dict[int, bytes] = {}
        self.now_head = EMPTY
        self.finding: Finding | None = None

    def head(self) -> Head:
        return self.now_head

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return [self.hashes[node] for node in nodes]

    def read_entries(self, start: int, count: int) -> list[bytes]:
        return self.entries[start : start + count]

    def read_texts(self, start: int, count: int) -> list[bytes | None]:
        return self.texts[start : start + count]

    def checkpoints(self) -> list[bytes]:
        return [self.notes[size] for size in sorted(self.notes)]

    def find(self, name: bytes) -> int | None:
        return next((at for at, raw in enumerate(self.entries) if decode(raw).text_hash == name), None)

    def last_of(self, tag: bytes) -> int:
        return max((at for at, raw in enumerate(self.entries) if decode(raw).project_tag == tag), default=0)

    def commit(self, batch: Batch) -> None:
        assert self.now_head == batch.before
        self.entries += batch.entries
        self.texts += batch.texts
        self.hashes |= dict(batch.stored)
        self.now_head = batch.after

    def newest_checkpoint(self) -> bytes | None:
        return self.notes[max(self.notes)] if self.notes else None

    def add_checkpoint(self, size: int, note: bytes) -> None:
        self.notes[size] = note

    def frozen(self) -> Finding | None:
        return self.finding

    def freeze(self, finding: Finding | None) -> None:
        self.finding = finding

    def replace_entry(self, index: int, raw: bytes) -> None:
        self.entries[index] = raw


class DiskError(Exception):
    """What a failing storage raises."""


class Failing(Memory):
    """The write of number `fails_at` raises, after it was stored or without that."""

    def __init__(self, fails_at: int, stored: bool) -> None:
        super().__init__()
        self.writes = 0
        self._fails_at = fails_at
        self._stored = stored

    def _write(self, write: Callable[[], None]) -> None:
        self.writes += 1
        if self.writes != self._fails_at:
            return write()
        if self._stored:
            write()
        raise DiskError(f"write {self.writes}")

    def commit(self, batch: Batch) -> None:
        self._write(lambda: super(Failing, self).commit(batch))

    def add_checkpoint(self, size: int, note: bytes) -> None:
        self._write(lambda: super(Failing, self).add_checkpoint(size, note))


@dataclass
class Mesh:
    """One mesh and its ledger: who is enrolled where, and what they say. Names stand for keys."""

    storage: Memory = field(default_factory=Memory)
    constants: Constants = field(default_factory=Constants)
    counters: dict[tuple[str, str], int] = field(default_factory=dict)

    def found(self) -> "Mesh":
        genesis = Genesis(MESH, key(AUTHORITY), self.constants, NOW_MS)
        text = statement.seal(genesis, key(AUTHORITY), [secret(AUTHORITY)])
        owner = enrolment(OWNER, HUB, owner=True)
        log.found(self.storage, text, [owner], grant_text, secret(HUB), NOW_MS)
        return self

    @property
    def ledger(self) -> bytes:
        return entry_hash(self.storage.entries[0])

    def append(self, drafts: Iterable[Draft]) -> Appended:
        return log.append(self.storage, list(drafts), secret(HUB), NOW_MS + len(self.storage.entries))

    def enrol(self, *agents: str) -> None:
        """`agent@machine`, up to a hundred of them."""
        self.append(Draft(Kind.ENROLMENT, enrolment(*name.split("@"))) for name in agents)

    def revoke(self, agent: str, void_from: int | None = None, by: str = AUTHORITY) -> None:
        self.append([Draft(Kind.REVOCATION, revocation(agent, void_from, by))])

    def vote(self, agent: str, fact: str, value: int, *, counter: int = 0, own: bool = False) -> int:
        """The index of the entry."""
        counter = counter or self.counters.get((agent, fact), 0) + 1
        self.counters[agent, fact] = counter
        signed = signed_vote(agent, fact, value, counter)
        return self.append([Draft(Kind.VOTE, signed, TAG, own)]).places[0][0]


def enrolment(agent: str, machine: str, owner: bool = False, replaces: str = "") -> bytes:
    said = Enrolment(MESH, key(agent), agent, key(machine), owner, key(replaces) if replaces else b"", NOW_MS)
    secrets = [secret(name) for name in (agent, machine, AUTHORITY, *([replaces] if replaces else []))]
    return statement.seal(said, key(AUTHORITY), secrets)


def revocation(agent: str, void_from: int | None = None, by: str = AUTHORITY) -> bytes:
    said = Revocation(MESH, key(agent), void_from, key(by), NOW_MS)
    return statement.seal(said, key(AUTHORITY), [secret(by)])


def grant_text(
    ledger: bytes, size: int, root: bytes, epoch: int = 1, previous: bytes = bytes(32), hubs: Sequence[str] = (HUB,)
) -> bytes:
    grant = Grant(ledger, epoch, "solo", tuple(key(hub) for hub in hubs), size, root, previous)
    return statement.seal(grant, key(AUTHORITY), [secret(AUTHORITY)])


def version_of(fact: str) -> bytes:
    return sha256(b"version of " + fact.encode()).digest()


def vote_of(agent: str, fact: str, value: int, counter: int = 1, project: str = PROJECT) -> Vote:
    return Vote(MESH, project, fact, version_of(fact), key(agent), counter, value, reason_hash(), NOW_MS)


def signed_vote(agent: str, fact: str, value: int, counter: int = 1, project: str = PROJECT) -> bytes:
    return vote.sign(vote_of(agent, fact, value, counter, project), secret(agent))


def drafts(count: int, agent: str = OWNER, start: int = 0) -> list[Draft]:
    """Votes on as many facts."""
    return [Draft(Kind.VOTE, signed_vote(agent, f"fact-{start + at}", 1), TAG) for at in range(count)]


def flips(data: bytes) -> Iterable[bytes]:
    """`data` with each of its bits flipped in turn."""
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)
