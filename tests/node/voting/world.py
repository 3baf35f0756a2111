"""Nodes that vote: a store, its votes and its ledger, a follower, and on some a hub, all in memory.

What is on disk is a connection that outlives its node: `reopen` is a crash and a start. `image` and `restored` are a
backup and its way back. Ops move as in tests/node/world.py; a node may carry some projects only.
"""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from crdt.op import verify
from ledger import statement, vote
from ledger.ed25519 import public_key, secret_key
from ledger.entry import Kind, text_hash
from ledger.statement import Enrolment, Revocation
from ledger.vote import Vote, reason_hash
from node.paths import Home
from node.voting import grants, records
from node.voting.ballots import Ballots
from node.voting.follow import Follower, Listeners
from node.voting.hub import Hub
from node.voting.inbox import Inbox
from node.voting.intake import accepted_size, root_at
from node.voting.records import VoteRecord
from node.voting.scores import Scores
from node.voting.table import Table
from sync.overlap import RESERVED
from tests.node.world import MESH, NOW_MS, PROJECT, Memory, Node, keys, member

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
        seen = accepted_size(self.database.direct)
        root = root_at(self.database.direct, seen) if seen else b""
        await self.append(records.vote_draft(said, VoteRecord(signed, "", seen, root or b""), ()))
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


__all__ = ["AUTHORITY", "CA", "MESH", "NOW_MS", "OWNER", "PROJECT", "Crash", "Disk", "Voter", "a_mesh", "keys"]
