"""ASGI behind aiohttp: requests and answers arrive whole, streams flow, and a client that leaves is noticed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from node import asgi
from tests.node.served_app import served_app

Start = Callable[[asgi.Application], Awaitable[aiohttp.ClientSession]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as ends:

        async def begin(application: asgi.Application) -> aiohttp.ClientSession:
            async def answer(request: web.Request) -> web.StreamResponse:
                return await asgi.serve(application, request)

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            return await ends.enter_async_context(served_app(app))

        yield begin


async def whole_body(receive: Callable[[], Awaitable[asgi.Message]]) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return body


async def test_a_request_arrives_whole_and_so_does_its_answer(start: Start) -> None:
    seen: dict[str, Any] = {}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        body = await whole_body(receive)
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
        await send({"type": "http.response.body", "body": body[::-1]})

    client = await start(application)
    sent = bytes(range(256)) * 2_000
    answer = await client.post("/a%20b?c=d", data=sent, headers={"X-Test": "y"})
    assert (answer.status, await answer.read(), answer.headers.getall("X-A")) == (201, sent[::-1], ["1", "2"])
    assert (seen["method"], seen["path"], seen["query_string"]) == ("POST", "/a b", b"c=d")
    assert (b"x-test", b"y") in seen["headers"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_request_without_a_body_has_an_empty_one(start: Start, method: str) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert await whole_body(receive) == b""
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    answer = await (await start(application)).request(method, "/")
    assert (answer.status, await answer.read()) == (204, b"")


async def test_a_stream_is_sent_as_it_comes(start: Start) -> None:
    go = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"second"})

    answer = await (await start(application)).get("/")
    assert await answer.content.readexactly(5) == b"first"
    go.set()
    assert await answer.read() == b"second"


async def test_a_client_that_leaves_is_noticed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "LOOK_S", 0.01)
    gone = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    answer = await (await start(application)).get("/")
    await answer.content.readexactly(1)
    answer.close()
    async with asyncio.timeout(10):
        await gone.wait()


async def test_an_application_that_does_not_answer_is_a_fault(start: Start) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        return

    assert (await (await start(application)).get("/")).status == 500
