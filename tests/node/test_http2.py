"""MCP over HTTP/2: hypercorn in our loop, behind the same guard. Skipped, with a word, without the extra `hub`."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from node.guard import Guard
from node.http2 import Http2

hypercorn = pytest.importorskip("hypercorn", reason="needs the extra `hub`: pip install 'cortex-node[hub]'")
import h2.config  # noqa: E402 - comes with hypercorn
import h2.connection  # noqa: E402
import h2.events  # noqa: E402

GUARD = Guard("secret", frozenset({"127.0.0.1"}))
TOKEN = ("authorization", "Bearer secret")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-version", scope["http_version"].encode())]}
    )
    await send({"type": "http.response.body", "body": body[::-1]})


async def application() -> Any:
    return echo


@pytest.fixture
async def listener() -> AsyncIterator[Http2]:
    made = Http2(application, GUARD)
    made.start("127.0.0.1", 0, None)
    yield made
    await made.stop()


async def ask(port: int, path: str, body: bytes, *headers: tuple[str, str]) -> tuple[dict[str, str], bytes]:
    """One request over a connection that speaks HTTP/2 from its first byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    fields = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", f"127.0.0.1:{port}"), *headers]
    connection.send_headers(1, fields)
    connection.send_data(1, body, end_stream=True)
    writer.write(connection.data_to_send())
    answered: dict[str, str] = {}
    data = b""
    async with asyncio.timeout(20):
        while True:
            for event in connection.receive_data(await reader.read(65_536)):
                match event:
                    case h2.events.ResponseReceived():
                        answered = dict(event.headers)
                    case h2.events.DataReceived():
                        data += event.data
                    case h2.events.StreamEnded():
                        writer.close()
                        return answered, data
            writer.write(connection.data_to_send())


async def test_it_speaks_http2(listener: Http2) -> None:
    headers, body = await ask(listener.port, "/mcp", b"abc", TOKEN)
    assert (headers[":status"], headers["x-version"], body) == ("200", "2", b"cba")


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/mcp", (), "401", "no_token"),
        ("/mcp", (TOKEN, ("origin", "http://evil.example")), "403", "wrong_origin"),
        ("/v1/facts", (TOKEN,), "404", "no_such_route"),
    ],
)
async def test_the_guard_stands_before_it(listener: Http2, path: str, headers: Any, status: str, code: str) -> None:
    answered, body = await ask(listener.port, path, b"", *headers)
    assert (answered[":status"], json.loads(body)["code"]) == (status, code)


async def test_a_port_that_is_taken_is_an_error(listener: Http2) -> None:
    with pytest.raises(OSError, match="in use"):
        Http2(application, GUARD).start("127.0.0.1", listener.port, None)
