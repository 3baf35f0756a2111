"""Messages over lines, events and frames: whole, bounded, and at an end when the other side is gone."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from mcp_edge.lines import MAX_MESSAGE_BYTES, TooLong
from node import mcp_channels
from node.mcp_channels import EventChannel, FrameChannel, LineChannel, web_socket
from tests.node.served_app import served_app


class Lines:
    """A LineChannel and the other end of its socket."""

    def __init__(self, channel: LineChannel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.channel, self.reader, self.writer = channel, reader, writer


@pytest.fixture
async def lines(tmp_path: Path) -> AsyncIterator[Lines]:
    arrived: asyncio.Queue[LineChannel] = asyncio.Queue()

    async def attached(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait(LineChannel(reader, writer))

    server = await asyncio.start_unix_server(attached, tmp_path / "s")
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    made = Lines(await arrived.get(), reader, writer)
    yield made
    made.channel.abort()
    writer.close()
    server.close()
    await server.wait_closed()


async def test_lines_come_and_go(lines: Lines) -> None:
    assert not lines.channel.spoke
    lines.writer.write(b'{"a":1}\n\n{"b"')
    assert await lines.channel.receive() == b'{"a":1}'
    assert lines.channel.spoke
    lines.writer.write(b":2}\n")
    assert await lines.channel.receive() == b'{"b":2}'
    await lines.channel.send(b"{}")
    assert await lines.reader.readline() == b"{}\n"


async def test_a_line_that_is_too_long_is_told_and_the_next_one_comes(lines: Lines) -> None:
    async def write() -> None:
        for _ in range(10):
            lines.writer.write(b"x" * (MAX_MESSAGE_BYTES // 4))
            await lines.writer.drain()
        lines.writer.write(b"\nnext\n")

    writing = asyncio.create_task(write())
    assert isinstance(await lines.channel.receive(), TooLong)
    assert await lines.channel.receive() == b"next"
    await writing


async def test_the_other_sides_end_is_the_end_and_sending_to_it_does_nothing(lines: Lines) -> None:
    lines.writer.close()
    assert await lines.channel.receive() is None
    for _ in range(3):
        await lines.channel.send(b"x" * 1_000_000)


async def test_our_end_takes_nothing_more_but_still_sends(lines: Lines) -> None:
    lines.writer.write(b"first\n")
    assert await lines.channel.receive() == b"first"
    waiting = asyncio.create_task(lines.channel.receive())
    await asyncio.wait([waiting], timeout=0)
    lines.channel.end()
    lines.writer.write(b"too late\n")
    assert await waiting is None
    await lines.channel.send(b"answer")
    assert await lines.reader.readline() == b"answer\n"


async def test_events_are_posted_in_and_streamed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_channels, "BEAT_S", 0.01)
    made: asyncio.Queue[EventChannel] = asyncio.Queue()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        channel = EventChannel(response)
        made.put_nowait(channel)
        await channel.beat()
        return response

    app = web.Application()
    app.router.add_get("/", stream)
    async with served_app(app) as client, asyncio.timeout(10):
        answer = await client.get("/")
        channel = await made.get()
        await channel.event("endpoint", b"/messages")
        await channel.send(b'{"a":1}')
        await channel.post(b"in")
        assert await channel.receive() == b"in"
        seen = b""
        while seen.count(b"\r\n\r\n") < 3:
            seen += await answer.content.readline()
        events = seen.replace(b": still here\r\n\r\n", b"")
        assert events.startswith(b'event: endpoint\r\ndata: /messages\r\n\r\nevent: message\r\ndata: {"a":1}\r\n\r\n')
        answer.close()
        assert await channel.receive() is None  # a beat that can't be sent is the end


async def test_frames_come_and_go_and_a_long_one_ends_the_socket() -> None:
    heard: list[Any] = []

    async def socket(request: web.Request) -> web.StreamResponse:
        made = web_socket()
        await made.prepare(request)
        channel = FrameChannel(made)
        while (message := await channel.receive()) is not None:
            heard.append(message)
            await channel.send(message)
        return made

    app = web.Application()
    app.router.add_get("/ws", socket)
    async with served_app(app) as client, asyncio.timeout(20), client.ws_connect("/ws", protocols=("mcp",)) as ws:
        assert ws.protocol == "mcp"
        await ws.send_str(json.dumps({"a": "é"}))
        assert json.loads(await ws.receive_str()) == {"a": "é"}
        with contextlib.suppress(ConnectionError):  # closed while it is still being sent
            await ws.send_str("x" * (MAX_MESSAGE_BYTES + 1))
        assert (await ws.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
    assert len(heard) == 1
