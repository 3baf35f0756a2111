"""Serves an ASGI application on one of aiohttp's routes, so that the node needs no second web server.

Only what an application behind an aiohttp middleware can ask for: one HTTP request, its body in chunks, one answer,
streamed or not. Token, Host and Origin were checked before (node/http.py). aiohttp doesn't tell a handler that the
client has gone, so `receive` looks from time to time.

ASGI 3.0, HTTP spec 2.4. Tests: tests/node/test_asgi.py.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from aiohttp import web

LOOK_S: Final = 5.0
"""How often to see whether the client of an open stream is still there."""

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


async def serve(application: Application, request: web.Request) -> web.StreamResponse:
    """Answer `request` with what `application` sends."""
    exchange = _Exchange(request)
    await application(exchange.scope(), exchange.receive, exchange.send)
    if exchange.response is None:
        raise RuntimeError("the application ended without an answer")
    return exchange.response


class _Exchange:
    """One request and its answer."""

    def __init__(self, request: web.Request) -> None:
        self.response: web.StreamResponse | None = None
        self._request = request
        self._read = False
        self._answered = asyncio.Event()

    def scope(self) -> dict[str, Any]:
        request = self._request
        server = request.transport.get_extra_info("sockname") if request.transport else None
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.scheme,
            "path": request.path,
            "raw_path": request.rel_url.raw_path.encode(),
            "query_string": request.query_string.encode(),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
            "client": None,
            "server": server[:2] if isinstance(server, tuple) else None,
        }

    async def receive(self) -> Message:
        if not self._read:
            body = await self._request.content.readany()
            self._read = self._request.content.at_eof()
            return {"type": "http.request", "body": body, "more_body": not self._read}
        while not self._answered.is_set() and self._request.transport is not None:
            try:
                await asyncio.wait_for(self._answered.wait(), LOOK_S)
            except TimeoutError:
                continue
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self.response = web.StreamResponse(status=message["status"])
                for name, value in message.get("headers", ()):
                    self.response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
                with contextlib.suppress(ConnectionError):  # the client is gone: the body will tell
                    await self.response.prepare(self._request)
            case "http.response.body":
                assert self.response is not None, "an answer begins with its head"
                last = not message.get("more_body")
                try:
                    if body := message.get("body"):
                        await self.response.write(body)
                    if last:
                        await self.response.write_eof()
                except ConnectionError:
                    last = True
                if last:
                    self._answered.set()
            case kind:
                raise RuntimeError(f"an ASGI message that was not asked for: {kind}")
