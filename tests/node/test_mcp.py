"""MCP on a node: its socket, its routes, their bounds, and an orderly end. Clients that are not ours: tests/e2e."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from node import mcp as mcp_module
from node.http import Api
from node.mcp import Mcp
from node.mcp_memory import NodeMemory
from node.metrics import Metrics
from node.paths import Home
from tests.node.world import a_mesh

TOKEN = "t"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
STREAMABLE = {**AUTHORIZED, "Accept": "application/json, text/event-stream"}


def ping(number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "ping"}


class Around:
    """What the routes ask of the rest of the node; MCP asks for the status only."""

    async def status(self) -> dict[str, Any]:
        return {"node": {"id": "a", "name": "n", "uptime_s": 1}, "projects": [], "peers": [], "warnings": []}


class Place:
    """One node's MCP, on a socket and over TCP."""

    def __init__(self, home: Path, node: Any, *, hub: bool) -> None:
        around: Any = Around()
        self.home = Home(home)
        self.metrics = Metrics()
        self.mcp = Mcp(self.home, NodeMemory(node.replica, node.recall, around.status), self.metrics, hub=hub)
        api = Api(node.replica, node.recall, around, self.metrics, TOKEN, self.mcp)
        self.server = TestServer(api.application("tcp", frozenset({"127.0.0.1"})))

    async def start(self) -> None:
        await self.mcp.start()
        await self.server.start_server()

    async def stop(self) -> None:
        await self.mcp.stop()
        await self.server.close()

    def url(self, path: str) -> str:
        return str(self.server.make_url(path))

    async def attach(self) -> "Line":
        return Line(*await asyncio.open_unix_connection(self.home.mcp_socket))


class Line:
    """A client on the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, message: dict[str, Any]) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> Any:
        async with asyncio.timeout(20):
            return json.loads(await self.reader.readline())

    async def greet(self) -> None:
        self.say(HELLO)
        assert (await self.hear())["result"]["serverInfo"]["name"] == "cortex-node"


@pytest.fixture
async def place(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    (node,) = await a_mesh(1)
    made = Place(tmp_path, node, hub=getattr(request, "param", False))
    await made.start()
    yield made
    await made.stop()


async def test_the_socket_is_its_owners_and_goes_with_the_node(place: Place) -> None:
    assert stat.S_IMODE(place.home.mcp_socket.stat().st_mode) == 0o600
    await place.mcp.stop()
    assert not place.home.mcp_socket.exists()


async def test_a_client_on_the_socket_is_answered_and_measured(place: Place) -> None:
    line = await place.attach()
    await line.greet()
    line.say({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "cortex_status"}})
    assert not (await line.hear())["result"]["isError"]
    assert 'cortex_request_seconds_count{surface="mcp",name="cortex_status"} 1' in place.metrics.text()
    line.writer.close()


async def test_who_says_nothing_gives_way_and_costs_no_server(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_module, "MAX_CONNECTIONS", 4)
    silent = [await place.attach() for _ in range(10)]
    for line in silent[:6]:
        assert await line.reader.read() == b""
    assert place.mcp._face is None
    line = await place.attach()
    await line.greet()
    assert len(place.mcp._connections) <= 4
    for one in [*silent, line]:
        one.writer.close()


async def test_who_has_spoken_does_not_give_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_module, "MAX_CONNECTIONS", 1)
    first = await place.attach()
    await first.greet()
    second = await place.attach()
    assert "attached already" in (await second.hear())["error"]["message"]
    assert await second.reader.read() == b""
    first.say(ping(1))
    assert (await first.hear())["id"] == 1
    for line in (first, second):
        line.writer.close()


async def test_who_does_not_read_stops_only_itself(place: Place) -> None:
    deaf, line = await place.attach(), await place.attach()
    await deaf.greet()
    for number in range(20_000):
        deaf.say({"jsonrpc": "2.0", "id": number, "method": "tools/list"})
    await line.greet()
    for number in range(20):
        line.say(ping(number))
        assert (await line.hear())["id"] == number
    [channel] = [channel for channel in place.mcp._connections if channel._writer.transport.get_write_buffer_size()]
    assert channel._writer.transport.get_write_buffer_size() < 1 << 20
    deaf.writer.transport.abort()
    line.writer.close()


async def test_stopping_answers_what_was_taken(place: Place) -> None:
    line = await place.attach()
    await line.greet()
    line.say({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "cortex_status"}})
    assert (await line.hear())["id"] == 5
    await place.mcp.stop()
    assert await line.reader.read() == b""
    line.writer.close()


async def test_streamable_http_keeps_sessions_and_forgets_them(place: Place) -> None:
    async with aiohttp.ClientSession(headers=STREAMABLE) as http:
        async with http.post(place.url("/mcp"), json=HELLO) as answer:
            session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
            assert (await answer.json())["id"] == 0
        async with http.post(place.url("/mcp"), json=ping(1), headers=session) as answer:
            assert (await answer.json()) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        async with http.delete(place.url("/mcp"), headers=session) as answer:
            assert answer.status == 200
        async with http.post(place.url("/mcp"), json=ping(2), headers=session) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages", "/ws"])
async def test_every_route_is_behind_token_host_and_origin(place: Place, path: str) -> None:
    method = "POST" if path in ("/mcp", "/messages") else "GET"
    async with aiohttp.ClientSession() as http:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            (AUTHORIZED | {"Host": "evil.example"}, 403),
            (AUTHORIZED | {"Origin": "http://evil.example"}, 403),
        ):
            async with http.request(method, place.url(path), headers=headers) as answer:
                assert answer.status == status
    assert place.mcp._face is None


async def test_sessions_over_http_are_bounded(place: Place) -> None:
    (await place.mcp.face()).sessions.max_sessions = 2
    async with aiohttp.ClientSession(headers=STREAMABLE) as http:
        statuses = []
        for _ in range(3):
            async with http.post(place.url("/mcp"), json=HELLO) as answer:
                statuses.append(answer.status)
    assert statuses == [200, 200, 503]


async def test_a_body_that_is_too_long_is_refused_unread(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.server.port)
    writer.write(
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n"
        b"Accept: application/json, text/event-stream\r\nContent-Length: 10000000\r\n\r\n{"
    )
    async with asyncio.timeout(20):
        assert (await reader.readline()).split()[1] == b"413"
    writer.close()


async def test_sse_says_where_to_post_and_answers_as_events(place: Place) -> None:
    async with aiohttp.ClientSession(headers=AUTHORIZED) as http, asyncio.timeout(20):
        async with http.get(place.url("/sse")) as stream:
            assert await stream.content.readline() == b"event: endpoint\r\n"
            where = (await stream.content.readline()).decode().removeprefix("data: ").strip()
            async with http.post(place.url(where), json=HELLO) as answer:
                assert answer.status == 202
            line = b""
            while not line.startswith(b"data: {"):
                line = await stream.content.readline()
            assert json.loads(line[6:])["id"] == 0
        async with http.post(place.url("/messages?session_id=none"), json=HELLO) as answer:
            assert answer.status == 404


async def test_streams_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_module, "MAX_STREAMS", 1)
    async with aiohttp.ClientSession(headers=AUTHORIZED) as http, http.get(place.url("/sse")) as stream:
        await stream.content.readline()
        async with http.get(place.url("/sse")) as refused:
            assert refused.status == 503 and (await refused.json())["code"] == "too_many_streams"


@pytest.mark.parametrize("place", [True], indirect=True)
async def test_a_hub_serves_websocket(place: Place) -> None:
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession(headers=AUTHORIZED) as http,
        http.ws_connect(place.url("/ws"), protocols=("mcp",)) as socket,
    ):
        await socket.send_json(HELLO)
        assert (await socket.receive_json())["id"] == 0


async def test_others_do_not(place: Place) -> None:
    async with aiohttp.ClientSession(headers=AUTHORIZED) as http, http.get(place.url("/ws")) as answer:
        assert answer.status == 404 and (await answer.json())["code"] == "not_a_hub"


async def test_a_node_that_stops_ends_its_streams(place: Place) -> None:
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession(headers=AUTHORIZED) as http,
        http.get(place.url("/sse")) as stream,
    ):
        await stream.content.readline()
        await place.mcp.stop()
        await stream.content.read()


def test_every_route_is_in_the_table() -> None:
    paths = {route.path for route in object.__new__(Api).routes()}
    assert {"/mcp", "/sse", mcp_module.MESSAGES_PATH, "/ws"} <= paths
