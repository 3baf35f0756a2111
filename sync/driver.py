"""The driver: connections, frames and the clock for the core of sync. The only aiohttp in this package.

A connection is a WebSocket over mutual TLS, one per peer, kept. The driver turns bytes into messages and back, checks
signatures on a thread, and does what each `Ready` asks, in its order: commit, tell the core, send, notify. It decides
nothing about the protocol and holds no state of it.

* Identity comes from the certificate alone (`identify`), never from an address.
* When two nodes dial each other at once both keep the connection that the node with the smaller id dialled, so one
  stays. Later a new connection replaces the one before it, which may be dead without anybody knowing (Core.accepts).
* Frames are bounded before they are read, and a peer whose frames nobody waits for is not read from: back-pressure is
  TCP's. What leaves is bounded by the windows that peers grant, and by `bytes_per_second` (sync/rate.py).
* Pushed ops go ahead of the batches that wait on the same connection, so a backlog does not delay what is fresh.

Tests: tests/sync/test_driver.py, tests/e2e.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import WSMsgType, web

from crdt.op import Op
from sync import codec
from sync.errors import ProtocolError, Reason, Refused, Stalled, SyncError
from sync.gossip import Core
from sync.messages import Batch, Carries, Have, Message, Open, Push, Received, Took, Want
from sync.rate import Bucket
from sync.ready import Commit, Notice, Ready

PATH: Final = "/sync"
DIAL_TIMEOUT_S: Final = 10.0
PING_S: Final = 60.0
"""A connection whose other end is gone without a word is noticed within one and a half of these."""
CLOSE_TIMEOUT_S: Final = 2.0
PROBE_S: Final = 5.0
WEBSOCKET_CLOSE: Final = 4000
"""Private use, RFC 6455 section 7.4.2; the reason text says more."""

log = logging.getLogger(__name__)

FRESH = Open | Carries | Push | Took | Have | Want
"""What may overtake a round. The opening is here because a push must not overtake it."""

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse
_CLOSED: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)


@dataclass(frozen=True, slots=True)
class Remote:
    """Who is at the other end, by its certificate."""

    node: str
    name: str
    grants: tuple[str, ...]
    """The projects that it may read, as patterns."""


class Outgoing:
    """Frames on their way to one peer: each kind in order, and what is fresh ahead of what belongs to a round."""

    def __init__(self) -> None:
        self._fresh: deque[bytes] = deque()
        self._round: deque[bytes] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._fresh) + len(self._round)

    def put(self, message: Message) -> None:
        """Encode and queue a message."""
        frames = self._fresh if isinstance(message, FRESH) else self._round
        frames.append(codec.encode(message))
        self._filled.set()

    async def ready(self) -> bool:
        """Wait until there is a frame; whether it is a fresh one."""
        while not self._fresh and not self._round:
            self._filled.clear()
            await self._filled.wait()
        return bool(self._fresh)

    async def fresh_within(self, seconds: float) -> None:
        """Wait that long, or until there is a fresh frame."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._fresh:
                    self._filled.clear()
                    await self._filled.wait()

    def take(self) -> bytes:
        """The next frame. Only after `ready`."""
        return self._fresh.popleft() if self._fresh else self._round.popleft()


@dataclass(slots=True)
class Link:
    """One live connection. `dialler` is the node that made it; `told` is why the peer ended it, in its words."""

    remote: Remote
    socket: Socket
    dialler: str
    address: str
    outgoing: "Outgoing" = field(default_factory=lambda: Outgoing())
    bytes_in: int = 0
    bytes_out: int = 0
    error: SyncError | None = None
    told: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the driver needs of the node. `commit` returns how many of the ops were new, and raises what went wrong;
    `proven` hears of each incoming connection whose certificate is that of a member.
    """

    me: str
    mesh: bytes
    client_tls: Callable[[], ssl.SSLContext]
    identify: Callable[[ssl.SSLObject], Remote | None]
    commit: Callable[[Commit], Awaitable[int]]
    notify: Callable[[Notice], None]
    ended: Callable[[Link, SyncError | None], None]
    unreachable: Callable[[str, str], None]
    proven: Callable[[asyncio.Transport], None] = lambda transport: None


class Driver:
    """Runs one core over the network."""

    def __init__(self, core: Core, around: Surroundings, bytes_per_second: int = 0) -> None:
        self.core = core
        self.links: dict[str, Link] = {}
        self._around = around
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(bytes_per_second, self._loop.time())
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._client: aiohttp.ClientSession | None = None
        self._closing = False

    # Life

    def routes(self) -> Iterable[web.RouteDef]:
        """What the peer port serves for us."""
        return [web.get(PATH, self._serve)]

    def start(self) -> None:
        """Begin to dial and to tick."""
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=DIAL_TIMEOUT_S))
        self._do(self.core.tick(self._loop.time()))

    async def stop(self) -> None:
        """End every connection; what was committed stays, and the next session goes on from there."""
        self._closing = True
        if self._timer:
            self._timer.cancel()
        for link in list(self.links.values()):
            await link.socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client:
            await self._client.close()

    def limit(self, bytes_per_second: int) -> None:
        """Send no faster than this from now on; 0 for as fast as the network is."""
        self._bucket = Bucket(bytes_per_second, self._loop.time())

    def want(self, address: str) -> None:
        """Keep a connection to `address`."""
        self._do(self.core.want(address, self._loop.time()))

    def heard_of(self, address: str) -> None:
        """A peer may be found at `address`: one of many that may be dialled."""
        self._do(self.core.heard_of(address, self._loop.time()))

    def unwant(self, address: str) -> None:
        """No longer dial `address`."""
        self.core.unwant(address)

    def wrote(self, ops: Sequence[Op]) -> None:
        """Ops of our own are on disk."""
        self._do(self.core.wrote(ops, self._loop.time()))

    def sync(self, peer: str) -> None:
        """Begin a round with a connected peer, now or right after the one under way."""
        self._do(self.core.sync(peer, self._loop.time()))

    def moved(self, addresses: Collection[str]) -> None:
        """This machine's addresses are these now: a connection from another one can't be answered any more."""
        for peer, link in list(self.links.items()):
            local = (link.socket.get_extra_info("sockname") or ("",))[0].partition("%")[0]
            if local and local not in addresses:
                self._fail(peer, Stalled(f"this machine has the address {local} no longer"))

    async def probe(self) -> None:
        """After a long sleep: ask every peer something, and give up whoever says nothing within PROBE_S."""
        before = {peer: (link, link.bytes_in) for peer, link in self.links.items()}
        for peer in before:
            self.sync(peer)
        await asyncio.sleep(PROBE_S)
        for peer, (link, bytes_in) in before.items():
            if self.links.get(peer) is link and link.bytes_in == bytes_in:
                self._fail(peer, Stalled(f"no answer within {PROBE_S:.0f} s of waking up"))

    # What the core asks for

    def _do(self, ready: Ready) -> None:
        for commit in ready.persist:
            self._spawn(self._commit(commit))
        for send in ready.send:
            if link := self.links.get(send.peer):
                link.outgoing.put(send.message)
        for notice in ready.notify:
            self._around.notify(notice)
        for close in ready.close:
            if link := self.links.pop(close.peer, None):
                link.error = close.error
                self._spawn(self._close(link))
        for address in ready.dial:
            self._spawn(self._dial(address))
        self._arm()

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
        if not self._closing and self.core.deadline != float("inf"):
            self._timer = self._loop.call_at(self.core.deadline, self._tick)

    def _tick(self) -> None:
        self._do(self.core.tick(self._loop.time()))

    async def _commit(self, commit: Commit) -> None:
        try:
            fresh = await self._around.commit(commit)
        except SyncError as error:
            self._fail(commit.peer, error)
        except Exception as error:  # the store's own trouble ends the session, not the node
            log.warning("a batch from %s was not committed: %s", commit.peer, error)
            self._fail(commit.peer, Refused(Reason.STORE, str(error)))
        else:
            self._do(self.core.persisted(commit, fresh, self._loop.time()))

    def _fail(self, peer: str, error: SyncError) -> None:
        self._do(self.core.failed(peer, error, self._loop.time()))

    async def _close(self, link: Link) -> None:
        """Tell the peer why, and end the connection. Closing twice does no harm."""
        text = link.error.close_text if link.error else ""
        await link.socket.close(code=WEBSOCKET_CLOSE if link.error else 1000, message=text.encode())

    # Connections

    async def _dial(self, address: str) -> None:
        assert self._client, "start() comes first"
        try:
            socket = await asyncio.wait_for(
                self._client.ws_connect(
                    f"https://{address}{PATH}",
                    ssl=self._around.client_tls(),
                    max_msg_size=codec.MAX_FRAME_BYTES,
                    heartbeat=PING_S,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                ),
                DIAL_TIMEOUT_S,
            )
            remote = self._identify(socket.get_extra_info("ssl_object"))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._around.unreachable(address, _why(error))
            self._do(self.core.unreachable(address, self._loop.time()))
            return
        if remote is None or remote.node == self._around.me:
            await socket.close()
            self.core.unwant(address)
            return
        await self._run(Link(remote, socket, self._around.me, address), address)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        remote = self._identify(transport.get_extra_info("ssl_object")) if transport else None
        if remote is None:
            raise web.HTTPForbidden(text="a certificate of this mesh is needed\n")
        if transport is not None:  # uvloop's are no asyncio.Transport
            self._around.proven(transport)
        socket = web.WebSocketResponse(
            max_msg_size=codec.MAX_FRAME_BYTES, heartbeat=PING_S, compress=False, timeout=CLOSE_TIMEOUT_S
        )
        await socket.prepare(request)
        peername = transport.get_extra_info("peername") if transport else None
        await self._run(Link(remote, socket, remote.node, f"{peername[0]}:{peername[1]}" if peername else "?"))
        return socket

    def _identify(self, connection: ssl.SSLObject | None) -> Remote | None:
        return self._around.identify(connection) if connection is not None else None

    async def _run(self, link: Link, dialled: str | None = None) -> None:
        """One connection from beginning to end; `dialled` is the address if it was us who called."""
        peer = link.remote.node
        if not self._admit(link, dialled):
            await link.socket.close(code=WEBSOCKET_CLOSE, message=Reason.REPLACED.encode())
            return
        self.links[peer] = link
        writer = asyncio.create_task(self._write(link))
        self._do(self.core.connected(peer, self._loop.time(), dialled, link.remote.grants))
        try:
            await self._read(link)
        finally:
            writer.cancel()
            if self.links.get(peer) is link:
                del self.links[peer]
                self._do(self.core.disconnected(peer, self._loop.time()))
            self._around.ended(link, link.error)
            await self._close(link)

    def _admit(self, link: Link, dialled: str | None) -> bool:
        """Whether this connection stays; one with the same peer that it replaces is ended."""
        peer = link.remote.node
        if self._closing or not self.core.accepts(peer, self._loop.time(), dialled):
            return False
        if peer in self.links:
            self._fail(peer, Refused(Reason.REPLACED, "another connection with the same peer took its place"))
        return True

    async def _read(self, link: Link) -> None:
        peer = link.remote.node
        while True:
            frame = await link.socket.receive()
            if self.links.get(peer) is not link:
                return
            if frame.type in _CLOSED:
                link.told = str(frame.extra or "")
                return
            if frame.type is WSMsgType.ERROR:
                too_large = "exceeds limit" in str(frame.data)
                self._fail(peer, ProtocolError(Reason.TOO_LARGE if too_large else Reason.MALFORMED, str(frame.data)))
                return
            try:
                if frame.type is not WSMsgType.BINARY:
                    raise ProtocolError(Reason.MALFORMED, "a text frame")
                link.bytes_in += len(frame.data)
                received = await self._decode(frame.data)
            except ProtocolError as error:
                self._fail(peer, error)
                return
            if self.links.get(peer) is link:
                self._do(self.core.receive(peer, received, self._loop.time()))

    async def _decode(self, frame: bytes) -> Received:
        """The message in a frame; the signatures of a batch are checked on a thread, so that others are served."""
        message = codec.decode(frame)
        if isinstance(message, Batch | Push):
            return await asyncio.to_thread(codec.verify, self._around.mesh, message)
        return message

    async def _write(self, link: Link) -> None:
        while True:
            fresh = await link.outgoing.ready()
            if not fresh and (wait_s := self._bucket.wait_s(self._loop.time())):
                await link.outgoing.fresh_within(wait_s)
                continue
            frame = link.outgoing.take()
            self._bucket.spend(len(frame), self._loop.time())
            try:
                await link.socket.send_bytes(frame)
            except (ConnectionError, aiohttp.ClientError, RuntimeError) as error:
                log.debug("connection to %s ended while sending: %s", link.remote.node, error)
                return
            link.bytes_out += len(frame)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why(error: Exception) -> str:
    """What went wrong while dialling, in words for people."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"it refused the connection (HTTP {error.status})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not of this mesh: {error.certificate_error}"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
