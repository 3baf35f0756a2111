"""Connections that carry MCP messages: lines over a unix socket, events over SSE, frames over WebSocket.

Each is a `mcp_edge.server.Channel`: whole messages in, whole messages out. A message that comes in is bounded by
MAX_MESSAGE_BYTES, what goes out waits until the other side takes it, and a side that is gone ends the channel.
Tests: tests/node/test_mcp_channels.py.
"""

import asyncio
import contextlib
from collections import deque
from typing import Final

from aiohttp import WSMsgType, web

from mcp_edge.lines import MAX_MESSAGE_BYTES, Lines, TooLong

CHUNK_BYTES: Final = 65_536
MAX_QUEUED: Final = 16
"""Messages posted to an SSE session and not yet taken; the next post waits."""
BEAT_S: Final = 15.0
"""A comment on a silent SSE stream: proxies keep it open, and a client that is gone is noticed."""


class LineChannel:
    """A line per message, over an asyncio stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lines = Lines()
        self._ready: deque[bytes | TooLong] = deque()
        self.spoke = False
        """Whether anything has ever come in."""

    async def speaks(self) -> bool:
        """Wait for the first message. False when there will be none."""
        while not self._ready:
            try:
                data = await self._reader.read(CHUNK_BYTES)
            except ConnectionError:
                return False
            if not data:
                return False
            self.spoke = True
            self._ready.extend(self._lines.feed(data))
        return True

    async def receive(self) -> bytes | TooLong | None:
        return self._ready.popleft() if await self.speaks() else None

    async def send(self, message: bytes) -> None:
        self._writer.write(message + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def end(self) -> None:
        """Take nothing more; what was taken is still answered."""
        if not self._reader.at_eof() and not self._writer.transport.is_closing():
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # every stream's transport has it
            self._reader.feed_eof()

    def abort(self) -> None:
        """Break it off."""
        self._writer.transport.abort()


class EventChannel:
    """MCP's HTTP with SSE of 2024-11-05: messages come by POST, answers go as events of one GET."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._posted: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_QUEUED)
        self._ended = False

    async def post(self, message: bytes) -> None:
        """Hand a message in; waits while many are queued."""
        await self._posted.put(message)

    async def receive(self) -> bytes | None:
        return None if self._ended else await self._posted.get()

    async def send(self, message: bytes) -> None:
        await self.event("message", message)

    async def event(self, kind: str, data: bytes) -> None:
        """Send one event; `data` holds no line end."""
        await self._write(b"event: " + kind.encode() + b"\r\ndata: " + data + b"\r\n\r\n")

    async def beat(self) -> None:
        """Send comments until the client is gone."""
        while not self._ended:
            await asyncio.sleep(BEAT_S)
            await self._write(b": still here\r\n\r\n")

    def end(self) -> None:
        """Take nothing more."""
        self._ended = True
        if not self._posted.full():  # else the next `receive` finds the flag by itself
            self._posted.put_nowait(None)

    async def _write(self, data: bytes) -> None:
        try:
            await self._response.write(data)
        except ConnectionError:
            self.end()


class FrameChannel:
    """A text frame per message, over WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> bytes | None:
        frame = await self._socket.receive()
        if frame.type is WSMsgType.TEXT:
            return str(frame.data).encode(errors="replace")
        return frame.data if frame.type is WSMsgType.BINARY else None

    async def send(self, message: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_str(message.decode())


def web_socket() -> web.WebSocketResponse:
    """As MCP over WebSocket has it: subprotocol `mcp`."""
    return web.WebSocketResponse(protocols=("mcp",), heartbeat=30.0, max_msg_size=MAX_MESSAGE_BYTES)
