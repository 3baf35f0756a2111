"""Nodes of one mesh with a real database each, and what a hub needs: agents, facts, votes, a clock that is put forward.

`Site` is a machine: its home stays when `crash` drops the process in it, and `open` begins another one. Ops move as in
a round of sync (`pull`). What was told by `on_entries` is the test's own book of acknowledged commits.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from crdt.op import Op, verify
from ledger import ed25519, statement, vote
from ledger.checkpoint import Checkpoint, origin_of
from ledger.statement import Enrolment, Revocation
from ledger.verify import Report
from ledger.verify import verify as verify_ledger
from node import identity, members, mesh, startmark
from node.database import Database
from node.identity import Identity
from node.mesh import Role
from node.migrations import migrate
from node.paths import Home
from node.store import Draft, Store
from node.voting import founding, grants, records
from node.voting.ballots import Ballots
from node.voting.claims import NOTHING, Claim
from node.voting.follow import Follower
from node.voting.hub import Hub
from node.voting.inbox import Inbox
from node.voting.records import VoteRecord
from node.voting.scores import Scores
from node.voting.table import Table
from tests.ledger.world import key, secret
from tests.node.world import a_record

NOW_MS = 1_800_000_000_000
PROJECT = "garden"


class Site:
    """One machine. `open` before anything else, and after `crash`."""

    def __init__(self, path: Path, me: Identity, engine: str = "solo") -> None:
        self.path = path
        self.me = me
        self.engine = engine
        self.make_database: Callable[[Path], Database] = Database
        self.now_ms = NOW_MS
        self.now_s = 1_000.0
        self.acknowledged: dict[bytes, int] = {}
        self.alerts: list[tuple[str, str]] = []
        self.sent: list[Op] = []

    @property
    def authority(self) -> bytes:
        return identity.public_key_of(self.me.ca)

    async def open(self, engine: str | None = None, carries: tuple[str, ...] = ("*",)) -> "Site":
        self.engine = engine or self.engine
        self.database = self.make_database(self.me.home.database)
        self.store = Store(
            self.database, self.me.mesh_id, self.me.secret_key, lambda op: members.introduction(self.me.ca, op)
        )
        self.ballots, self.scores = Ballots(self.me.mesh_id), Scores(self.authority)
        self.inbox = Inbox(self.me.mesh_id, self.authority)
        self.store.shows = {"vote": self.ballots.show, "ledger": self.inbox.show}
        self.database.start(self._prepare)
        self.hub = Hub(
            self.me, self.store, self.ballots, self.scores, authority=self.authority, engine=self.engine,
            carries=carries, now_ms=lambda: self.now_ms, now=lambda: self.now_s,
        )  # fmt: skip
        self.hub.on_entries = self._acknowledge
        self.hub.on_alert = lambda code, text: self.alerts.append((code, text))
        self.hub.wrote = self.sent.extend
        await self.write(members.draft(self.me, []))
        return self

    def crash(self) -> None:
        """The process is gone; the disk has what was committed."""
        self.database.close()

    def backup(self, path: Path) -> None:
        shutil.copy(self.me.home.database, path)

    def restore(self, path: Path) -> None:
        shutil.copy(path, self.me.home.database)

    def claims(self, size: int, root: bytes = bytes(32)) -> Claim:
        """That there is such a checkpoint, truly signed by this machine's hub."""
        origin = origin_of(grants.ledger_of(self.table) or b"")
        return Claim(size, root, ed25519.sign(self.me.secret_key, Checkpoint(origin, size, root).text.encode()))

    async def write(self, *drafts: Any) -> list[Op]:
        return await self.database.write(lambda connection: self.store.append(connection, drafts, self.now_ms))

    async def settle(self, turns: int = 200) -> None:
        """Turn until there is nothing to do now; the clock goes on to the next announcement."""
        self.hub.wake()
        for _ in range(turns):
            delay = await self.hub.turn()
            if delay is None or delay > 1.0:
                return
            self.now_s += delay
        raise AssertionError("it never settles")

    async def enrol(self, name: str, replaces: str = "") -> bytes:
        said = Enrolment(
            self.me.mesh_id, key(name), name, self.me.node_key, False, key(replaces) if replaces else b"", self.now_ms
        )
        secrets = [secret(name), self.me.secret_key, *([secret(replaces)] if replaces else [])]
        return await self.say(2, statement.seal(said, self.authority, secrets))

    async def revoke(self, name: str, void_from: int | None = None) -> bytes:
        said = Revocation(self.me.mesh_id, key(name), void_from, key(name), self.now_ms)
        return await self.say(3, statement.seal(said, self.authority, [secret(name)]))

    async def say(self, kind: int, text: bytes) -> bytes:
        await self.write(records.statement_draft(kind, text))
        return text

    async def fact(self, content: str = "the beans are up", project: str = PROJECT) -> Op:
        self.now_ms += 1
        return (await self.write(a_record(content, project)))[0]

    async def vote(self, name: str, fact: Op, value: int = 1, counter: int = 1, seen: Claim = NOTHING) -> bytes:
        self.now_ms += 1
        signed, draft = self.vote_on(name, fact, value, counter, self.now_ms, seen)
        await self.write(draft)
        return signed

    def vote_on(
        self, name: str, fact: Op, value: int, counter: int, time_ms: int, seen: Claim = NOTHING
    ) -> tuple[bytes, Draft]:
        said = vote.Vote(
            self.me.mesh_id, fact.project, fact.subject, fact.hash, key(name), counter, value, vote.reason_hash(),
            time_ms,
        )  # fmt: skip
        signed = vote.sign(said, secret(name))
        return signed, records.vote_draft(said, VoteRecord(signed, "", *seen), ())

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self.database.direct.execute(sql, values).fetchall()

    @property
    def table(self) -> Table:
        return Table(self.database.direct)

    @property
    def size(self) -> int:
        return self.table.head().size

    def texts(self) -> list[bytes]:
        return [text or b"" for text in self.table.read_texts(0, 100_000)]

    def pending(self) -> int:
        return int(self.rows("SELECT count(*) FROM ballots WHERE entry IS NULL")[0][0])

    def refused(self) -> list[str]:
        return [reason for (reason,) in self.rows("SELECT reason FROM ledger_refused ORDER BY reason")]

    def check(self) -> Report:
        """Everything verified again, and every acknowledged commit found where it was said to be."""
        for name, index in self.acknowledged.items():
            assert self.table.find(name) == index
        return verify_ledger(self.table, authority=self.authority)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        migrate(connection, self.now_ms)
        self.store.load(connection)
        startmark.check(connection, self.store, self.me.home.start_mark, self.now_ms)

    def _acknowledge(self, entries: list[tuple[bytes, int]]) -> None:
        for name, index in entries:
            assert self.acknowledged.setdefault(name, index) == index


async def founder(path: Path, engine: str = "solo") -> Site:
    me = founding.found(Home(path), path.name, engine, NOW_MS).me
    return await Site(path, me, engine).open()


async def joined(path: Path, founded: Site, engine: str = "none") -> Site:
    """Another member of the mesh."""
    seed = identity.new_seed()
    authority = mesh.load_authority(founded.me)
    certificate = mesh.issue(authority, identity.key_pair(seed)[0], path.name, Role.MEMBER, ["*"], NOW_MS)
    me = identity.create(Home(path), seed, certificate, authority.ca)
    return await Site(path, me, engine).open()


def authority_secret(site: Site) -> bytes:
    return ed25519.secret_key(identity.load_ca_seed(site.me))


async def pull(to: Site, source: Site, projects: Iterable[str] | None = None) -> None:
    """Give `to` the ops that its vectors lack, of these projects or of all."""
    for project in source.store.projects() if projects is None else projects:
        have = dict(to.store.vector(project))
        for author in source.store.vector(project):
            seq = have.get(author, 0)
            while raws := source.store.ops_after(project, author, seq, 100, 1 << 20):
                ops = [verify(to.me.mesh_id, raw) for raw in raws]
                merge: Callable[[sqlite3.Connection], Any] = lambda c, ops=ops: to.store.merge(c, ops, to.now_ms)  # type: ignore[misc]  # noqa: E731
                await to.database.write(merge)
                seq = ops[-1].seq


async def follow(site: Site) -> None:
    """Take in what gossip has brought of the ledger."""
    follower = Follower(site.store, site.inbox, site.scores, site.ballots, site.me.secret_key, lambda: site.now_ms)
    await follower.catch_up()
