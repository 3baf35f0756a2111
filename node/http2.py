"""MCP over HTTP/2, on a hub, beside the API: many sessions of many agents through one connection.

aiohttp has no HTTP/2, so this listener is hypercorn's (extra `hub`), in the same process and loop, with the same checks
of token, Host and Origin, and the same sessions as /mcp. It serves nothing else. Tests: tests/node/test_http2.py.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from multidict import CIMultiDict

from node.asgi import Application, Message
from node.errors import Problem
from node.guard import Guard

PATH = "/mcp"
STOP_S = 3.0


class Http2:
    """One listener. `application` gives the MCP application at the first request."""

    def __init__(self, application: Callable[[], Awaitable[Application]], guard: Guard) -> None:
        self._application = application
        self._guard = guard
        self._stopped = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    def start(self, host: str, port: int, certificate: tuple[str, str] | None) -> None:
        """Listen. `certificate`: its file and the key's, for TLS. Raises OSError; Problem without the extra."""
        try:
            from hypercorn.asyncio import serve
            from hypercorn.config import Config
        except ImportError:
            raise Problem(
                409, "no_hypercorn", "HTTP/2 needs a library that is not installed", "install cortex-node[hub]", "http2"
            ) from None
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = listener.getsockname()[1]
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = STOP_S
        config.loglevel = "WARNING"
        if certificate:
            config.certfile, config.keyfile = certificate
        application: Any = self  # hypercorn's type of an application is narrower than ASGI's
        self._serving = asyncio.create_task(serve(application, config, shutdown_trigger=self._stopped.wait))

    async def stop(self) -> None:
        """Finish what is under way, and close."""
        self._stopped.set()
        if self._serving is not None:
            await self._serving

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            headers = CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
            self._guard.check(headers, scope["path"])
            if scope["path"] != PATH:
                raise Problem(404, "no_such_route", f"there is no {scope['path']} here", f"use {PATH}")
        except Problem as problem:
            await _refuse(send, problem)
            return
        await (await self._application())(scope, receive, send)


async def _lifespan(receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
    while (event := (await receive())["type"]) != "lifespan.shutdown":
        await send({"type": event + ".complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _refuse(send: Callable[[Message], Awaitable[None]], problem: Problem) -> None:
    kind = (b"content-type", b"application/problem+json")
    await send({"type": "http.response.start", "status": problem.status, "headers": [kind]})
    await send({"type": "http.response.body", "body": msgspec.json.encode(problem.document())})
