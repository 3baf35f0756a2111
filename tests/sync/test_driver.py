"""The driver over real TLS on loopback: two cores meet, agree, and get rid of peers that break the rules."""

import asyncio
import itertools
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from crdt.fact import FACT, Record, encode_record
from crdt.op import FORMAT, PREV_BYTES, Header, Op, OpClass, seal
from node import identity, mesh, tls
from node.identity import Identity
from node.mesh import Role
from node.paths import Home
from sync import codec, driver
from sync.driver import PATH, Driver, Link, Outgoing, Remote, Surroundings
from sync.errors import Reason, SyncError
from sync.gossip import Core
from sync.messages import PROTO_MAX, PROTO_MIN, Batch, Carries, Done, Fate, Open, Push, Took
from sync.overlap import RESERVED
from sync.ready import Commit, Notice, RoundEnded
from tests.sim.disk import Disk

NOW_MS = 1_800_000_000_000
DEADLINE_S = 20.0


class Member:
    """A node of this test: an identity, a disk and a driver on a port of its own."""

    def __init__(self, me: Identity, name: str) -> None:
        self.me, self.name = me, name
        self.disk = Disk(["*"])
        self.notices: list[Notice] = []
        self.errors: list[tuple[str, SyncError | None]] = []
        self.unreachable: list[str] = []
        self.told: list[str] = []
        self.changed = asyncio.Event()
        self.fail_commit: Exception | None = None
        self.address = ""
        self._written: dict[str, Op] = {}
        self._seq = itertools.count(1)
        core = Core(me.node_id, name, me.mesh_id, self.disk, random.Random(name))
        self.driver = Driver(
            core,
            Surroundings(
                me.node_id, me.mesh_id, lambda: tls.client_context(me), identify, self._commit, self._notify,
                self._ended, self._not_reached,
            ),
        )  # fmt: skip
        self.write(RESERVED, "I am here")

    def write(self, project: str, content: str) -> Op:
        before = self._written.get(project)
        header = Header(
            format=FORMAT, project=project, op_class=OpClass.WRITE, subject="", field="", node_key=self.me.node_key,
            epoch=1, seq=next(self._seq), prev_seq=before.seq if before else 0,
            prev_hash=before.hash[:PREV_BYTES] if before else b"", timestamp=NOW_MS << 16, clock=(), kind=FACT,
            body=encode_record(Record(content=content)),
        )  # fmt: skip
        op = self._written[project] = seal(self.me.mesh_id, header, self.me.secret_key)
        self.disk.commit([op])
        return op

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition that the driver's own events bring about."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def rounds(self) -> int:
        return sum(isinstance(notice, RoundEnded) for notice in self.notices)

    async def _commit(self, commit: Commit) -> int:
        if self.fail_commit:
            raise self.fail_commit
        fresh = self.disk.commit(commit.ops, commit.by_walk)
        self.changed.set()
        return fresh

    def _notify(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.changed.set()

    def _ended(self, link: Link, error: SyncError | None) -> None:
        self.errors.append((link.remote.node, error))
        self.told.append(link.told)
        self.changed.set()

    def _not_reached(self, address: str, why: str) -> None:
        self.unreachable.append(address)
        self.changed.set()


def identify(connection: ssl.SSLObject) -> Remote | None:
    member = tls.peer_of(connection)
    return Remote(member.node_id, member.name, member.projects) if member else None


Start = Callable[[str], Awaitable[Member]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts members of one mesh."""
    authority = mesh.found_authority(NOW_MS)
    running: list[tuple[Member, web.AppRunner]] = []

    async def begin(name: str) -> Member:
        seed = identity.new_seed()
        certificate = mesh.issue(authority, identity.key_pair(seed)[0], name, Role.MEMBER, ("*",), NOW_MS)
        member = Member(identity.create(Home(tmp_path / name), seed, certificate, authority.ca), name)
        app = web.Application()
        app.add_routes(member.driver.routes())
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context(member.me))
        await site.start()
        member.address = f"127.0.0.1:{runner.addresses[0][1]}"
        member.driver.start()
        running.append((member, runner))
        return member

    yield begin
    for member, runner in running:
        await member.driver.stop()
        await runner.cleanup()


@asynccontextmanager
async def raw(me: Identity, address: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A peer with a true certificate that says what it likes."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"https://{address}{PATH}", ssl=tls.client_context(me)) as socket,
    ):
        yield socket


async def closed(socket: aiohttp.ClientWebSocketResponse) -> str:
    """The reason with which the other side closed."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            message = await socket.receive()
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return str(message.extra or "")


async def test_two_nodes_that_meet_hold_the_same_ops(start: Start) -> None:
    one, two = await start("one"), await start("two")
    written = [one.write("p", f"from one {number}") for number in range(30)]
    written += [two.write("p", f"from two {number}") for number in range(30)]
    two.driver.want(one.address)
    for member in (one, two):
        await member.until(lambda disk=member.disk: all(disk.has(op) for op in written))
    assert one.disk.root("p") == two.disk.root("p")


async def test_a_write_reaches_a_connected_peer_at_once(start: Start) -> None:
    one, two = await start("one"), await start("two")
    two.driver.want(one.address)
    await two.until(lambda: two.rounds() > 0)
    op = one.write("p", "fresh")
    one.driver.wrote([op])
    await two.until(lambda: two.disk.has(op))


async def test_two_nodes_that_dial_each_other_keep_one_connection(start: Start) -> None:
    one, two = await start("one"), await start("two")
    one.driver.want(two.address)
    two.driver.want(one.address)
    smaller = min(one.me.node_id, two.me.node_id)
    for member, other in ((one, two), (two, one)):
        await member.until(lambda m=member: m.rounds() > 0)
        assert list(member.driver.links) == [other.me.node_id]
    op = one.write("p", "through the one that stays")
    one.driver.wrote([op])
    await two.until(lambda: two.disk.has(op))
    for member, other in ((one, two), (two, one)):
        await member.until(lambda m=member, o=other: m.driver.links[o.me.node_id].dialler == smaller)


async def test_a_connection_from_an_address_that_is_gone_is_given_up_at_once(start: Start) -> None:
    one, two = await start("one"), await start("two")
    two.driver.want(one.address)
    await two.until(lambda: two.rounds() > 0)
    two.driver.moved({"127.0.0.1"})
    assert two.driver.links
    two.driver.moved({"10.0.0.5"})
    await two.until(lambda: any(error and error.reason is Reason.STALLED for _, error in two.errors))
    await one.until(lambda: bool(one.errors))


async def test_after_a_sleep_only_those_who_answer_are_kept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = await start("one"), await start("two"), await start("three")
    for other in (two, three):
        one.driver.want(other.address)
        await other.until(lambda o=other: o.rounds() > 0)
    await one.until(lambda: one.rounds() > 1)
    monkeypatch.setattr(two.driver, "_do", lambda ready: None)  # it hears, and says nothing
    monkeypatch.setattr(driver, "PROBE_S", 0.3)
    await one.driver.probe()
    assert list(one.driver.links) == [three.me.node_id]


async def test_why_a_peer_ends_the_session_is_told(start: Start) -> None:
    one, liar = await start("one"), await start("liar")
    async with raw(liar.me, one.address) as socket:
        await socket.close(code=4000, message=b"quota: the store is full")
    await one.until(lambda: bool(one.told))
    assert one.told == ["quota: the store is full"]


async def test_a_commit_that_fails_ends_the_session_and_loses_nothing(start: Start) -> None:
    one, two = await start("one"), await start("two")
    op = one.write("p", "hard to store")
    two.fail_commit = OSError("disk full")
    two.driver.want(one.address)
    await two.until(lambda: any(error and error.reason is Reason.STORE for _, error in two.errors))
    assert not two.disk.has(op)
    two.fail_commit = None
    await two.until(lambda: two.disk.has(op))


async def test_a_forged_op_closes_the_session_and_is_not_stored(start: Start) -> None:
    one, two = await start("one"), await start("two")
    op = one.write("p", "true")
    forged = bytearray(op.raw)
    forged[-1] ^= 1
    one.disk.ops_after = lambda project, *_: [bytes(forged)] if project == "p" else []  # type: ignore[method-assign]
    two.driver.want(one.address)
    await two.until(lambda: any(error and error.reason is Reason.BAD_OP for _, error in two.errors))
    assert not two.disk.known.get("p")


@pytest.mark.parametrize(
    "frame", [b"", b"\x07abc", b"\x00\xc1", b"\x01not zlib", codec.encode(Open(1, 1, bytes(16), "x", (), ()))]
)
async def test_garbage_closes_the_session(start: Start, frame: bytes) -> None:
    one, liar = await start("one"), await start("liar")
    async with raw(liar.me, one.address) as socket:
        await socket.send_bytes(frame)
        assert await closed(socket)
    await one.until(lambda: bool(one.errors))
    node, error = one.errors[0]
    assert node == liar.me.node_id
    assert error is not None


async def test_a_text_frame_closes_the_session(start: Start) -> None:
    one, liar = await start("one"), await start("liar")
    async with raw(liar.me, one.address) as socket:
        await socket.send_str("hello")
        assert (await closed(socket)).startswith(Reason.MALFORMED)


async def test_a_frame_beyond_the_limit_is_refused(start: Start) -> None:
    one, liar = await start("one"), await start("liar")
    async with raw(liar.me, one.address) as socket:
        await socket.send_bytes(bytes(codec.MAX_FRAME_BYTES + 1))
        await closed(socket)
    await one.until(lambda: bool(one.errors))
    error = one.errors[0][1]
    assert error is not None
    assert error.reason is Reason.TOO_LARGE


async def test_who_shows_no_certificate_gets_no_session(start: Start) -> None:
    one = await start("one")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"https://{one.address}{PATH}", ssl=tls.newcomer_context(one.me.ca))
    assert refused.value.status == 403
    assert not one.driver.links


async def test_an_address_without_a_peer_is_told(start: Start) -> None:
    one, two = await start("one"), await start("two")
    await two.driver.stop()
    one.driver.want("127.0.0.1:1")
    await one.until(lambda: one.unreachable == ["127.0.0.1:1"])


async def test_dialling_oneself_is_given_up(start: Start) -> None:
    one = await start("one")
    one.driver.want(one.address)
    async with raw(one.me, one.address):
        assert not one.notices


def test_the_versions_that_the_garbage_test_relies_on() -> None:
    assert PROTO_MIN <= 1 <= PROTO_MAX


async def test_what_is_fresh_goes_ahead_of_a_backlog_and_the_opening_ahead_of_both() -> None:
    outgoing = Outgoing()
    batch, push = Batch(1, "p", (bytes(64),)), Push(1, "q", (bytes(64),))
    for message in (Carries((), ()), batch, Done(), push, Took(1, Fate.STORED)):
        outgoing.put(message)
    left = []
    while outgoing:
        await outgoing.ready()
        left.append(type(codec.decode(outgoing.take())))
    assert left == [Carries, Push, Took, Batch, Done]


async def test_a_slow_rate_delays_a_backlog_and_not_what_is_fresh(start: Start) -> None:
    one, two = await start("one"), await start("two")
    one.driver.want(two.address)
    await one.until(lambda: one.rounds() > 0 and two.rounds() > 0)
    one.driver.limit(2_000)
    backlog = [one.write("bulk", f"{number} {'x' * 400} {number * 7919}") for number in range(400)]
    one.driver.wrote(backlog)
    await two.until(lambda: two.disk.has(backlog[0]))
    fresh = one.write("fresh", "now")
    one.driver.wrote([fresh])
    await two.until(lambda: two.disk.has(fresh))
    assert not two.disk.has(backlog[-1])
