"""`GET /v1/events`: what happens on this node, as server-sent events (WHATWG HTML, section 9.2).

A client resumes where it was by the header Last-Event-ID, which browsers' EventSource sends by itself. A comment every
KEEP_ALIVE_S tells it, and whatever is in between, that the connection lives. One that does not read what it is sent is
cut off. What the events are: node/events.py. Tests: tests/node/test_http_events.py.
"""

from contextlib import suppress
from typing import Final

from aiohttp import hdrs, web

from node.events import Events
from node.http import STREAMING, Route

KEEP_ALIVE_S: Final = 15.0
"""Below the minute after which proxies give an idle connection up, by a factor that survives a lost packet."""
KEEP_ALIVE: Final = b": still here\n\n"
RESUME_MS: Final = 1_000
"""After how long a client that lost the connection comes back."""


class EventsApi:
    """The route. `keep_alive_s`: after how long a silence a comment is sent."""

    def __init__(self, events: Events, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._events = events
        self._keep_alive_s = keep_alive_s

    def routes(self) -> list[Route]:
        """The calls that are answered here."""
        return [
            Route(
                "GET",
                "/v1/events",
                "events",
                "What happens, as server-sent events: write, round, commit, alert, degraded, and gap after a"
                " Last-Event-ID that is too old.",
                self.listen,
            )
        ]

    async def listen(self, request: web.Request) -> web.StreamResponse:
        listener = self._events.listen(request.headers.get("Last-Event-ID"))
        if request.transport is not None:
            listener.on_drop = request.transport.abort  # the handler may hang in a write that nobody reads
        headers = {hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        request[STREAMING] = True
        try:
            with suppress(ConnectionError):  # the client has gone, or was cut off
                await response.prepare(request)
                await response.write(b"retry: %d\n\n" % RESUME_MS)
                while (frames := await listener.take(self._keep_alive_s)) is not None:
                    await response.write(frames or KEEP_ALIVE)
                await response.write_eof()
        finally:
            listener.close()
        return response
