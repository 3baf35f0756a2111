"""Nodes in a few words: a store and its verbs with a deterministic key and a clock that stands where it is put.

`Memory` is a database of one connection that commits as node/database.py does, for laws that need hundreds of nodes;
with `on_disk` the real one stands below. Ops move between nodes as in a round of sync: what the vector lacks, verified,
in batches, one transaction each.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from nacl.bindings import crypto_sign_seed_keypair

from crdt.fact import FACT, VALUE, Record, encode_record, encode_value
from crdt.op import FORMAT, PREV_BYTES, Header, Op, OpClass, seal, verify
from crdt.version import author_id, node_id
from node.cache import Cache, Lru
from node.database import Database
from node.errors import Problem
from node.metrics import Metrics
from node.migrations import migrate
from node.recall import Recall
from node.replica import Replica
from node.requests import FactDraft, Limits
from node.store import Draft, Introduction, Merged, Store
from sync.overlap import RESERVED

MESH = bytes(range(32))
NOW_MS = 1_800_000_000_000
PROJECT = "garden"
T = TypeVar("T")


@cache
def keys(number: int) -> tuple[bytes, bytes]:
    """(public key, 64-byte secret key) of node `number`."""
    return crypto_sign_seed_keypair(bytes([number]) * 32)


def admit(op: Op) -> Introduction | None:
    """Believes every member record that a node writes about itself."""
    if op.header.kind != "member" or op.header.subject != node_id(op.header.node_key):
        return None
    return Introduction(op.header.subject, op.header.body.decode(), b"certificate of " + op.header.body)


class Memory:
    """A database in memory, or in `path`, that is its own writer, reader and commit point."""

    def __init__(self, path: Path | None = None) -> None:
        self.direct = sqlite3.connect(path or ":memory:", isolation_level=None)
        self.before_commit: Callable[[], None] = lambda: None
        self.on_commit: Callable[[], Callable[[], None]] = lambda: lambda: None
        self.on_rollback: Callable[[], None] = lambda: None

    def start(self, prepare: Callable[[sqlite3.Connection], T]) -> T:
        return prepare(self.direct)

    def commit(self, job: Callable[[sqlite3.Connection], T]) -> T:
        self.direct.execute("BEGIN IMMEDIATE")
        try:
            result = job(self.direct)
        except BaseException:
            self.direct.execute("ROLLBACK")
            self.on_rollback()
            raise
        self.before_commit()
        self.direct.execute("COMMIT")
        self.on_commit()()
        return result

    async def write(
        self, job: Callable[[sqlite3.Connection], T], after: Callable[[T], None] = lambda result: None
    ) -> T:
        result = self.commit(job)
        after(result)
        return result

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return job(self.direct)

    def close(self) -> None:
        self.direct.close()


class Node:
    """One node: `store`, `replica` and `recall` over one database, at the time `now_ms`."""

    def __init__(self, number: int, database: Any = None, limits: Limits | None = None) -> None:
        self.key, self.secret = keys(number)
        self.name = f"node {number}"
        self.now_ms = NOW_MS
        self.database: Any = Memory() if database is None else database
        self.store = Store(self.database, MESH, self.secret, admit)
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.cache = Cache(
            self.store.generations,
            lambda: self.now_ms,
            Lru(1_000, 1 << 24),
            self.metrics.cache_hits,
            self.metrics.cache_misses,
        )
        self.replica = Replica(self.store, self.limits, lambda: self.now_ms, self.cache)
        self.recall = Recall(
            self.store,
            self.limits,
            lambda: self.now_ms,
            lambda: {"synced_at": None, "behind_ops": 0},
            cache=self.cache,
        )
        self.database.start(self._prepare)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        migrate(connection, self.now_ms)
        self.store.load(connection)

    async def append(self, *drafts: Draft) -> list[Op]:
        return await self.database.write(lambda connection: self.store.append(connection, drafts, self.now_ms))

    async def merge(self, ops: Iterable[Op]) -> Merged:
        ops = list(ops)
        return await self.database.write(lambda connection: self.store.merge(connection, ops, self.now_ms))

    async def introduce(self) -> None:
        await self.append(member(self))

    async def create(self, content: str = "first", **more: Any) -> dict[str, Any]:
        facts, _ = await self.replica.store_facts([FactDraft(content=content, **{"project": PROJECT} | more)])
        return facts[0]

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self.database.direct.execute(sql, values).fetchall()

    def ops(self) -> list[Op]:
        """Every op that has joined, verified again."""
        return [verify(MESH, raw) for (raw,) in self.rows("SELECT raw FROM ops ORDER BY id")]

    async def stop(self) -> None:
        """A clean stop."""
        await self.database.write(self.store.stop)
        self.database.close()


def on_disk(path: Path, number: int = 1, **more: Any) -> Node:
    """A node over the real database at `path`."""
    return Node(number, Database(path), **more)


def member(node: Node) -> Draft:
    return Draft(RESERVED, OpClass.WRITE, node.store.node_id, "member", "member", node.name.encode())


def a_record(content: str, project: str = PROJECT, **more: Any) -> Draft:
    return Draft(project, OpClass.WRITE, "", "", FACT, encode_record(Record(content=content, **more)))


def a_value(subject: str, field: str, value: Any, project: str = PROJECT, **more: Any) -> Draft:
    return Draft(project, OpClass.WRITE, subject, field, VALUE, encode_value(value), **more)


class Forger:
    """Signs whatever it is told, as node `number` in `epoch`: chains with gaps, twins, bad bodies, times to come."""

    def __init__(self, number: int, epoch: int = 7) -> None:
        self.key, self.secret = keys(number)
        self.epoch = epoch
        self.author = author_id(self.key, epoch)
        self.node_id = node_id(self.key)

    def op(
        self,
        seq: int,
        prev: Op | None = None,
        *,
        project: str = PROJECT,
        op_class: OpClass = OpClass.WRITE,
        subject: str = "",
        field: str = "",
        kind: str = FACT,
        body: bytes | None = None,
        content: str = "forged",
        timestamp: int = NOW_MS << 16,
        clock: tuple[tuple[bytes, int], ...] = (),
        mesh: bytes = MESH,
    ) -> Op:
        header = Header(
            format=FORMAT,
            project=project,
            op_class=int(op_class),
            subject=subject,
            field=field,
            node_key=self.key,
            epoch=self.epoch,
            seq=seq,
            prev_seq=prev.seq if prev else 0,
            prev_hash=prev.hash[:PREV_BYTES] if prev else b"",
            timestamp=timestamp,
            clock=clock,
            kind=kind,
            body=encode_record(Record(content=content)) if body is None else body,
        )
        return seal(mesh, header, self.secret)

    def introduction(self, name: str = "forger") -> Op:
        return self.op(1, project=RESERVED, subject=self.node_id, field="member", kind="member", body=name.encode())

    def chain(self, length: int, **more: Any) -> list[Op]:
        """`length` facts, one after the other, from seq 2 on."""
        ops: list[Op] = []
        for seq in range(2, length + 2):
            ops.append(self.op(seq, ops[-1] if ops else None, content=f"fact {seq}", **more))
        return ops


async def pull(to: Node, source: Node, batch: int = 100) -> None:
    """Give `to` what its vectors lack of what `source` has."""
    for project in source.store.projects():
        have = dict(to.store.vector(project))
        for author in source.store.vector(project):
            seq = have.get(author, 0)
            while raws := source.store.ops_after(project, author, seq, batch, 1 << 20):
                ops = [verify(MESH, raw) for raw in raws]
                await to.merge(ops)
                seq = ops[-1].seq


async def sync(*nodes: Node) -> None:
    """Everybody ends up with everything."""
    for _ in range(2):
        for to in nodes:
            for source in nodes:
                await pull(to, source)


async def a_mesh(count: int = 2) -> list[Node]:
    """Nodes in memory that know each other."""
    nodes = [Node(number + 1) for number in range(count)]
    for node in nodes:
        await node.introduce()
    await sync(*nodes)
    return nodes


async def refused(call: Awaitable[Any], status: int, code: str, field: str | None = None) -> Problem:
    """The problem that `call` ends with, which says what to do."""
    with pytest.raises(Problem) as caught:
        await call
    problem = caught.value
    assert (problem.status, problem.code, problem.field) == (status, code, field), problem.detail
    assert problem.action
    return problem
