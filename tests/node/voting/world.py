"""Nodes that vote: a store, its votes and its ledger, a follower, and on some a hub, all in memory.

What is on disk is a connection that outlives its node: `reopen` is a crash and a start. `image` and `restored` are a
backup and its way back. Ops move as in tests/node/world.py; a node may carry some projects only.
"""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from crdt.op import Op, verify
from ledger import log, statement, tlog, vote
from ledger.ed25519 import public_key, secret_key
from ledger.entry import Kind, decode, entry_hash, project_tag, text_hash
from ledger.statement import Constants, Enrolment, Genesis, Grant, Revocation
from ledger.vote import Vote, reason_hash
from node.paths import Home
from node.store import Draft
from node.voting import claims, grants, records
from node.voting.accepted import accepted_size
from node.voting.ballots import Ballots
from node.voting.follow import Follower, Listeners
from node.voting.hub import Hub
from node.voting.inbox import Inbox
from node.voting.records import Announced, Entries, VoteRecord
from node.voting.scores import Scores
from node.voting.table import Table
from sync.overlap import RESERVED
from tests.ledger.world import Memory as LedgerMemory
from tests.node.world import MESH, NOW_MS, PROJECT, Forger, Memory, Node, keys, member

T = TypeVar("T")
CA = secret_key(sha256(b"certificate authority").digest())
AUTHORITY = public_key(CA)
OWNER = "owner"


def secret(agent: str) -> bytes:
    return secret_key(sha256(agent.encode()).digest())


def key(agent: str) -> bytes:
    return public_key(secret(agent))


@dataclass(frozen=True)
class Me:
    """As much of node.identity.Identity as a hub asks for."""

    node_key: bytes
    secret_key: bytes
    mesh_id: bytes
    home: Home


class Crash(BaseException):
    """The power went."""


class Disk(Memory):
    """A database over a connection that is there already; `crash_in` counts writes down to a crash.

    `stored`: the write of the crash is on disk.
    """

    def __init__(self, connection: sqlite3.Connection | None = None) -> None:
        super().__init__()
        if connection is not None:
            self.direct.close()
            self.direct = connection
        self.crash_in: int | None = None
        self.stored = False

    def commit(self, job: Callable[[sqlite3.Connection], T]) -> T:
        if self.crash_in is None:
            return super().commit(job)
        self.crash_in -= 1
        if self.crash_in > 0:
            return super().commit(job)
        if self.stored:
            super().commit(job)
        raise Crash


class Voter(Node):
    """Node `number` with all that votes need. `carries`: the projects that it takes, all when None.

    `folder`: where a hub keeps its mark; with one the node can be a hub.
    """

    def __init__(
        self,
        number: int,
        disk: Disk | None = None,
        carries: Collection[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(number, disk or Disk())
        self.number = number
        self.carries = carries
        self.folder = folder
        self.committed: dict[bytes, int] = {}
        """What was told to be in the ledger, by a hub here or by the follower: text hash to index."""
        self.alerts: list[tuple[str, str]] = []
        self.inbox = Inbox(MESH, AUTHORITY)
        self.ballots = Ballots(MESH)
        self.scores = Scores(AUTHORITY)
        self.store.shows = {records.LEDGER: self.inbox.show, records.VOTES: self.ballots.show}
        listeners = Listeners(self.committed.update, lambda code, text: self.alerts.append((code, text)))
        self.follower = Follower(
            self.store, self.inbox, self.scores, self.ballots, self.secret, lambda: self.now_ms, listeners
        )
        self.hub: Hub | None = self._hub(folder) if folder else None

    def _hub(self, folder: Path) -> Hub:
        hub = Hub(
            self.me(folder), self.store, self.ballots, self.scores,
            authority=AUTHORITY, engine="solo", carries=["*"],
            now_ms=lambda: self.now_ms, now=lambda: self.now_ms / 1_000,
        )  # fmt: skip
        hub.on_entries = self.committed.update
        hub.on_alert = lambda code, text: self.alerts.append((code, text))
        return hub

    def me(self, folder: Path) -> Any:
        return Me(self.key, self.secret, MESH, Home(folder))

    # Disks

    def reopen(self) -> "Voter":
        """The same disk after a crash."""
        return Voter(self.number, Disk(self.database.direct), self.carries, self.folder)

    def image(self) -> bytes:
        return bytes(self.database.direct.serialize())

    def restored(self, image: bytes, folder: Path | None = None) -> "Voter":
        """Another life of this node, from a backup: another author, as `cortex-node restore` makes it."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.deserialize(image)
        node = Voter(self.number, Disk(connection), self.carries, folder or self.folder)
        node.database.commit(node.store.renew_epoch)
        return node

    # What agents do

    async def enrol(self, agent: str, owner: bool = False) -> bytes:
        """An agent of this node; the hash of the statement."""
        said = Enrolment(MESH, key(agent), agent, self.key, owner, b"", self.now_ms)
        return await self.state_(Kind.ENROLMENT, statement.seal(said, AUTHORITY, [secret(agent), self.secret, CA]))

    async def revoke(self, agent: str, void_from: int | None = None) -> bytes:
        said = Revocation(MESH, key(agent), void_from, self.key, self.now_ms)
        return await self.state_(Kind.REVOCATION, statement.seal(said, AUTHORITY, [self.secret]))

    async def state_(self, kind: Kind, text: bytes) -> bytes:
        await self.append(records.statement_draft(kind, text))
        return text_hash(text)

    async def vote(self, agent: str, fact: dict[str, Any], value: int, counter: int = 1) -> bytes:
        """The vote's id."""
        said = Vote(
            MESH, fact["project"], fact["id"], bytes.fromhex(fact["version"]), key(agent), counter, value,
            reason_hash(), self.now_ms,
        )  # fmt: skip
        signed = vote.sign(said, secret(agent))
        await self.append(records.vote_draft(said, VoteRecord(signed, "", *claims.newest(self.database.direct)), ()))
        return text_hash(signed)

    # What the ledger does

    async def found(self) -> None:
        """The mesh's first hub, with an owner and itself introduced."""
        await self.append(member(self))
        assert self.folder is not None
        me = self.me(self.folder)
        await self.database.write(
            lambda connection: grants.found(connection, me, CA, secret(OWNER), OWNER, "solo", self.now_ms)
        )
        await self.work()

    async def work(self) -> None:
        """Everything that can be done with what is here: the hub's turns, and the follower's."""
        await self.follower.catch_up()
        if self.hub:
            self.hub.wake()
            for _ in range(1_000):
                delay = await self.hub.turn()
                self.now_ms += 1_000 if delay else 0
                if delay is None or delay > 20:
                    break
            await self.follower.catch_up()

    @property
    def table(self) -> Table:
        return Table(self.database.direct)

    @property
    def size(self) -> int:
        return self.table.head().size

    @property
    def accepted(self) -> int:
        return accepted_size(self.database.direct)

    def entries(self) -> dict[int, bytes]:
        return dict(self.rows("SELECT id, raw FROM ledger_entries"))

    def carries_(self, project: str) -> bool:
        return self.carries is None or project == RESERVED or project in self.carries


async def pull(to: Voter, source: Voter, batch: int = 100) -> int:
    """Give `to` what it lacks of what both carry; how many ops."""
    moved = 0
    for project in source.store.projects():
        if not (to.carries_(project) and source.carries_(project)):
            continue
        have = dict(to.store.vector(project))
        for author in source.store.vector(project):
            seq = have.get(author, 0)
            while raws := source.store.ops_after(project, author, seq, batch, 1 << 20):
                ops = [verify(MESH, raw) for raw in raws]
                moved += len((await to.merge(ops)).new)
                seq = ops[-1].seq
    return moved


async def settle(*nodes: Voter) -> None:
    """Exchange and work until nobody has anything new."""
    for _ in range(30):
        moved = 0
        for to in nodes:
            await to.work()
        for to in nodes:
            for source in nodes:
                if to is not source:
                    moved += await pull(to, source)
        if not moved:
            return
    raise AssertionError("it goes on for ever")


async def a_mesh(folder: Path, count: int = 2, *, carries: Sequence[Collection[str] | None] = ()) -> list[Voter]:
    """The founder, who is the hub, and others that know it; `carries` of the others."""
    folder.mkdir(exist_ok=True)
    hub = Voter(1, folder=folder)
    await hub.found()
    others = [Voter(number + 2, carries=carries[number] if carries else None) for number in range(count - 1)]
    for other in others:
        await other.append(member(other))
    await settle(hub, *others)
    return [hub, *others]


class Script:
    """A hub that says what it is told to: a ledger in memory, and the records that a hub makes of it.

    `hub`: the node number whose key signs. Votes are on facts of PROJECT, by the owner.
    """

    def __init__(self, hub: int = 1) -> None:
        self.hub = hub
        self.key, self.secret = keys(hub)
        self.storage = LedgerMemory()
        self.notes: dict[int, bytes] = {}

    def found(self, *hubs: int) -> "Script":
        genesis = Genesis(MESH, AUTHORITY, Constants(), NOW_MS)
        owner = Enrolment(MESH, key(OWNER), OWNER, self.key, True, b"", NOW_MS)
        granted = tuple(keys(number)[0] for number in hubs) or (self.key,)

        def grant(ledger: bytes, size: int, root: bytes) -> bytes:
            return sealed(Grant(ledger, 1, "solo", granted, size, root))

        enrolled = statement.seal(owner, AUTHORITY, [secret(OWNER), self.secret, CA])
        appended = log.found(self.storage, sealed(genesis), [enrolled], grant, self.secret, NOW_MS)
        self.notes[self.size] = appended.checkpoint
        return self

    def copy(self) -> "Script":
        """A second life, from here on with a history of its own."""
        return deepcopy(self)

    @property
    def size(self) -> int:
        return self.storage.head().size

    @property
    def ledger(self) -> bytes:
        return entry_hash(self.storage.entries[0])

    def add(self, *facts: str) -> "Script":
        """One commit of votes on these facts, and its checkpoint."""
        drafts = [log.Draft(Kind.VOTE, owner_vote(fact), TAG) for fact in facts]
        note = log.append(self.storage, drafts, self.secret, NOW_MS).checkpoint
        self.notes[self.size] = note
        return self

    def grant(self, number: int, **more: Any) -> bytes:
        """The text of the grant of the next epoch to node `number`, from here on."""
        head = self.storage.head()
        previous = next(text_hash(text) for text in reversed(self.storage.texts) if text and b"/grant/" in text)
        root = tlog.root(head.size, self.storage)
        said = Grant(self.ledger, head.epoch + 1, "solo", (keys(number)[0],), head.size, root, previous)
        return sealed(msgspec.structs.replace(said, **more))

    def hand_over(self, number: int) -> "Script":
        """The same ledger in the hands of another hub, which has appended its grant."""
        other = self.copy()
        other.key, other.secret = keys(number)
        text = self.grant(number)
        other.notes[self.size + 1] = log.append(
            other.storage, [log.Draft(Kind.GRANT, text)], other.secret, NOW_MS
        ).checkpoint
        return other

    def checkpoint(self, size: int, since: int = 0, **more: Any) -> Draft:
        proof = tuple(tlog.prove_consistency(since, size, self.storage))
        return records.checkpoint_draft(
            size, Announced(**{"note": self.notes[size], "since": since, "proof": proof} | more)
        )

    def entries(self, indices: Sequence[int], size: int, project: str = PROJECT) -> Draft:
        return records.entries_draft(project, indices[0], self.proved(indices, size))

    def proved(self, indices: Sequence[int], size: int) -> Entries:
        proofs = [tlog.prove_inclusion(index, size, self.storage) for index in indices]
        places: dict[bytes, int] = {}
        found = tuple(tuple(places.setdefault(value, len(places)) for value in proof) for proof in proofs)
        lines = tuple((self.storage.entries[index], self.storage.texts[index] or b"") for index in indices)
        return Entries(size, lines, tuple(places), found)

    def beginning(self) -> list[Draft]:
        """What everybody gets first: the grant, the first checkpoint, and the first entries."""
        grant = records.statement_draft(Kind.GRANT, self.storage.texts[2] or b"")
        return [grant, self.checkpoint(3), self.entries(range(3), 3, RESERVED)]

    def spoken(self, *drafts: Draft) -> list[Op]:
        """The ops by which the hub introduces itself and says this."""
        forger = Forger(self.hub)
        ops = [forger.introduction()]
        last = {RESERVED: ops[0]}
        for seq, draft in enumerate(drafts, 2):
            assert isinstance(draft.body, bytes)
            op = forger.op(
                seq, last.get(draft.project), project=draft.project, op_class=draft.op_class, subject=draft.subject,
                field=draft.field, kind=draft.kind, body=draft.body,
            )  # fmt: skip
            last[draft.project] = op
            ops.append(op)
        return ops


TAG = project_tag(sha256(b"project key").digest(), PROJECT)


def sealed(said: statement.Statement) -> bytes:
    return statement.seal(said, AUTHORITY, [CA])


def owner_vote(fact: str) -> bytes:
    version = sha256(fact.encode()).digest()
    return vote.sign(Vote(MESH, PROJECT, fact, version, key(OWNER), 1, 1, reason_hash(), NOW_MS), secret(OWNER))


async def a_reader(script: Script, *drafts: Draft, number: int = 9) -> Voter:
    """A node that has been told the beginning of the script's ledger, and these ops, and has taken them in."""
    reader = Voter(number)
    await reader.append(member(reader))
    await reader.merge(script.spoken(*script.beginning()))
    await reader.append(*drafts)
    await reader.work()
    return reader


FACTS = [f"fact-{number}" for number in range(40)]


def script_of(*batches: int) -> Script:
    """A ledger of the beginning's three entries and then these many, batch by batch."""
    script, facts = Script().found(), iter(FACTS)
    for count in batches:
        script.add(*(next(facts) for _ in range(count)))
    return script


def announced(script: Script) -> list[Draft]:
    """Everything that the hub told after the beginning."""
    sizes = sorted(script.notes)
    drafts = []
    for before, size in pairwise(sizes):
        votes = [index for index in range(before, size) if decode(script.storage.entries[index]).kind == Kind.VOTE]
        rest = sorted(set(range(before, size)) - set(votes))
        drafts.append(script.checkpoint(size, before))
        drafts += [script.entries(rest, size, RESERVED)] if rest else []
        drafts += [script.entries(votes, size)] if votes else []
    return drafts


async def told(reader: Voter, *drafts: Draft) -> Voter:
    await reader.append(*drafts)
    await reader.work()
    return reader


def forked(at: int, one: int, two: int) -> tuple[Script, Script]:
    """Two histories that part after `at` entries."""
    first = script_of(at - 3)
    second = first.copy()
    return first.add(*FACTS[20 : 20 + one]), second.add(*FACTS[30 : 30 + two])


__all__ = ["AUTHORITY", "CA", "MESH", "NOW_MS", "OWNER", "PROJECT", "Crash", "Disk", "Voter", "a_mesh", "keys"]
