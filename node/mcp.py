"""MCP on this node: the socket for `cortex-node mcp`, Streamable HTTP, SSE, and on hubs WebSocket.

`mcp.sock` (0600) carries bare lines, beside `node.sock`, which speaks HTTP: the pipe at its other end needs no HTTP
client, and bytes flow both ways without an upgrade that aiohttp's parser would have to let go of. Over TCP everything
is a route of the API (node/http.py), behind its checks of token, Host and Origin.

The SDK costs a second and 35 MB; it is imported, on a thread, when the first client has said something. Connections and
streams are bounded; one that never speaks gives way to a new one, so that nobody can keep clients out by silence.

Stopping takes nothing more, answers what was taken, and then closes: a pipe tells the rest to the next process.
Tests: tests/node/test_mcp.py, tests/e2e/test_mcp.py.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import hdrs, web

from mcp_edge.lines import INTERNAL_ERROR, MAX_MESSAGE_BYTES, error
from mcp_edge.memory import Memory
from node import __version__, asgi, clock
from node.errors import Problem
from node.mcp_channels import EventChannel, FrameChannel, LineChannel, web_socket
from node.metrics import Metrics
from node.paths import Home

if TYPE_CHECKING:
    from mcp_edge.server import Face

MAX_CONNECTIONS: Final = 128
"""Pipes at once. A client keeps one; every one may hold a message of MAX_MESSAGE_BYTES while it comes in."""
MAX_STREAMS: Final = 64
"""SSE and WebSocket connections at once."""
STOP_S: Final = 6.0
"""How long conversations have to end by themselves: a little longer than they wait for their last answers."""
MESSAGES_PATH: Final = "/messages"

log = logging.getLogger(__name__)


class Mcp:
    """The MCP face of one node. `hub`: also over WebSocket."""

    def __init__(self, home: Home, memory: Memory, metrics: Metrics, *, hub: bool) -> None:
        self._home = home
        self._memory = memory
        self._metrics = metrics
        self._hub = hub
        self._face: Face | None = None
        self._loading = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._connections: dict[LineChannel, asyncio.Task[Any] | None] = {}
        self._streams: dict[str, EventChannel] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._stopped = asyncio.Event()
        self._sessions: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on the socket. The lock on the home says that nobody else does."""
        path = self._home.mcp_socket
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._attached, path, backlog=MAX_CONNECTIONS)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Answer what was taken, and close everything."""
        self._stopped.set()
        if self._server is not None:
            self._server.close()
            self._home.mcp_socket.unlink(missing_ok=True)
        for channel in list(self._connections):
            channel.end()
        for stream in list(self._streams.values()):
            stream.end()
        for socket in list(self._sockets):
            await socket.close()
        talking = [task for task in self._connections.values() if task]
        if talking:
            await asyncio.wait(talking, timeout=STOP_S)
        for channel in list(self._connections):
            channel.abort()
        if self._sessions is not None:
            await self._sessions

    async def face(self) -> "Face":
        """The server, made at the first call."""
        async with self._loading:
            if self._face is None:
                await asyncio.to_thread(__import__, "mcp_edge.server")
                from mcp_edge.server import Face

                self._face = Face(self._memory, __version__, self._observe)
        return self._face

    async def _observe(self, tool: str, call: Awaitable[Any]) -> Any:
        start = clock.monotonic()
        try:
            return await call
        finally:
            self._metrics.requests.observe(clock.monotonic() - start, "mcp", tool)

    # The socket

    async def _attached(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = LineChannel(reader, writer)
        try:
            if not self._admit(channel):
                await channel.send(error("null", INTERNAL_ERROR, f"{MAX_CONNECTIONS} clients are attached already"))
            elif await channel.speaks():
                await (await self.face()).converse(channel)
        except Exception:
            log.exception("an MCP connection failed")
        finally:
            self._connections.pop(channel, None)
            writer.close()

    def _admit(self, channel: LineChannel) -> bool:
        if len(self._connections) >= MAX_CONNECTIONS:
            silent = next((other for other in self._connections if not other.spoke), None)
            if silent is None:
                return False
            del self._connections[silent]
            silent.abort()
        self._connections[channel] = asyncio.current_task()
        return True

    # HTTP

    async def http(self, request: web.Request) -> web.StreamResponse:
        """Streamable HTTP."""
        return await asgi.serve(await self.application(), request)

    async def application(self) -> asgi.Application:
        """The ASGI application of Streamable HTTP, which keeps its sessions from the first call on."""
        face = await self.face()
        async with self._loading:
            if self._sessions is None:
                running = asyncio.Event()
                self._sessions = asyncio.create_task(self._run_sessions(face, running))
                await running.wait()
        return face.http

    async def _run_sessions(self, face: "Face", running: asyncio.Event) -> None:
        async with face.sessions.run():
            running.set()
            await self._stopped.wait()

    async def sse(self, request: web.Request) -> web.StreamResponse:
        """The stream of HTTP with SSE: its first event says where to post."""
        self._room_for_a_stream()
        face = await self.face()
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store"})
        await response.prepare(request)
        channel, session = EventChannel(response), secrets.token_urlsafe(16)
        self._streams[session] = channel
        beat = asyncio.create_task(channel.beat())
        try:
            await channel.event("endpoint", f"{MESSAGES_PATH}?session_id={session}".encode())
            await face.converse(channel)
        finally:
            del self._streams[session]
            beat.cancel()
        return response

    async def messages(self, request: web.Request) -> web.Response:
        """A message for an SSE session."""
        channel = self._streams.get(request.query.get("session_id", ""))
        if channel is None:
            raise Problem(404, "no_such_session", "there is no such session", "open a new one with GET /sse")
        body = await request.read()
        if len(body) > MAX_MESSAGE_BYTES:
            raise Problem(413, "request_too_large", f"more than {MAX_MESSAGE_BYTES:,} bytes", "send less at once")
        await channel.post(body)
        return web.Response(status=202, text="Accepted")

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket, on hubs."""
        if not self._hub:
            raise Problem(404, "not_a_hub", "only hubs serve WebSocket", 'use /mcp, or set profile = "hub"')
        self._room_for_a_stream()
        face = await self.face()
        socket = web_socket()
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await face.converse(FrameChannel(socket))
        finally:
            self._sockets.discard(socket)
        return socket

    def _room_for_a_stream(self) -> None:
        if len(self._streams) + len(self._sockets) >= MAX_STREAMS:
            raise Problem(503, "too_many_streams", f"{MAX_STREAMS} streams are open", "close one, or use /mcp")
