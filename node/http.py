"""REST over aiohttp: one table of routes, served on the unix socket and on loopback TCP.

The socket is for this machine's own user (mode 0600) and asks for no token. Over TCP every call but `/healthz` and
`/readyz` needs the bearer token, Host must name this server, and Origin, which only browsers send, must be its own: a
page somewhere on the web can neither read a node's memory nor write to it (DNS rebinding included).

Every failure is a problem document (RFC 9457). Requests are bounded before they are parsed. The table also makes
`/openapi.json` (node/openapi.py). Tests: tests/node/test_http.py.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import msgspec
from aiohttp import hdrs, web

from node import clock, requests, shapes
from node.admission import Admission
from node.errors import Problem
from node.guard import OPEN_PATHS, Guard
from node.mcp import MESSAGES_PATH, Mcp
from node.metrics import Metrics
from node.pressure import BULK_FACTS
from node.recall import Recall
from node.replica import Replica

MAX_REQUEST_BYTES: Final = 8 << 20
"""A batch of 1,000 ordinary facts, or one fact with a full body, escaped."""
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TURNS: Final = frozenset(
    "store get update retract history tag link projects list search graph import_facts"
    " votes agents agent add_agent rotate_agent revoke_agent".split()
)
"""Calls that work on facts, votes and agents, and take turns. The others wait for peers, stream, or tell how the node
is; a vote takes its turn itself, and waits for its entry without one.
"""
CLIENT: Final = web.RequestKey("client", str)
"""Who calls, as turns are shared out."""
ORDINARY_BYTES: Final = 65_536
STREAMING: Final = web.RequestKey("streaming", bool)
_PLACE: Final = re.compile(r" - at `\$\.?(.+)`$")
_WHICH: Final = re.compile(r"(?:required|unknown) field `([^`]+)`")

log = logging.getLogger(__name__)


class Peers(Protocol):
    """What the routes need of the node beyond its facts."""

    def status(self) -> Awaitable[dict[str, Any]]: ...
    def ready(self) -> bool: ...
    def peers(self) -> Awaitable[dict[str, Any]]: ...
    def add_peer(self, address: str) -> Awaitable[dict[str, Any]]: ...
    def remove_peer(self, address: str) -> Awaitable[dict[str, Any]]: ...
    def sync_now(self, peer: str | None) -> Awaitable[dict[str, Any]]: ...
    def invite(self, role: str, projects: Sequence[str], ttl_s: int) -> Awaitable[dict[str, Any]]: ...
    def refresh_metrics(self) -> Awaitable[None]: ...


class NewPeer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A peer's address, HOST:PORT."""

    address: str


class SyncRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Whom to sync with now: a peer's id, name or address; everybody when left out."""

    peer: str | None = None


class NewInvitation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the machine that joins may do, and how long the code holds."""

    role: str = "member"
    projects: tuple[str, ...] = ("*",)
    ttl_s: int = 600


class NewFacts(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A batch: stored in order, all or none."""

    facts: list[requests.FactDraft]


@dataclass(frozen=True, slots=True)
class Route:
    """One call: `answers` is the shape of success, `query` the names of its parameters with their meaning."""

    method: str
    path: str
    name: str
    summary: str
    call: Callable[[web.Request], Awaitable[web.StreamResponse]]
    body: Any = None
    answers: Any = None
    query: dict[str, str] = field(default_factory=dict)


class Api:
    """The handlers. `token` guards TCP; `more` are the routes of other modules, served with the same guards."""

    def __init__(
        self,
        replica: Replica,
        recall: Recall,
        peers: Peers,
        metrics: Metrics,
        token: str,
        mcp: Mcp,
        admission: Admission | None = None,
        refuse_bulk: Callable[[], None] = lambda: None,
        more: Sequence[Route] = (),
    ) -> None:
        self.replica = replica
        self.recall = recall
        self.peers = peers
        self.metrics = metrics
        self.mcp = mcp
        self._token = token
        self._admission = admission
        self._refuse_bulk = refuse_bulk
        self._more = more

    def served(self) -> list[Route]:
        """Every call there is."""
        return [*self.routes(), *self._more]

    def routes(self) -> list[Route]:
        """The calls about facts, peers and MCP. Those about votes are in node/http_votes.py."""
        r, s = requests, shapes
        retracted = {"include": "`retracted` to see retracted facts too"}
        page = {"limit": "1 to 500", "cursor": "`next_cursor` of the page before", **retracted}
        return [
            Route(
                "POST",
                "/v1/facts",
                "store",
                "Store one fact, or a batch. Header Idempotency-Key: a repeat answers 200.",
                self.store,
                r.FactDraft | NewFacts,
                s.Fact | s.Facts,
            ),
            Route("GET", "/v1/facts/{id}", "get", "One fact.", self.get, None, s.Fact, retracted),
            Route("PATCH", "/v1/facts/{id}", "update", "Change a fact.", self.update, r.FactChanges, s.Fact),
            Route(
                "DELETE",
                "/v1/facts/{id}",
                "retract",
                "Retract a fact; it stays in the history.",
                self.retract,
                None,
                s.Fact,
                {"reason": "why"},
            ),
            Route(
                "GET", "/v1/facts/{id}/history", "history", "Every version of a fact.", self.history, None, s.History
            ),
            Route("POST", "/v1/facts/{id}/tags", "tag", "Add and remove tags.", self.tag, r.TagChange, s.Fact),
            Route("POST", "/v1/facts/{id}/links", "link", "Make or remove a link.", self.link, r.LinkChange, s.Fact),
            Route("GET", "/v1/projects", "projects", "The projects.", self.projects, None, s.Projects),
            Route(
                "GET",
                "/v1/projects/{project}/facts",
                "list",
                "Facts, newest first; project `*` is all.",
                self.list,
                None,
                s.FactPage,
                page,
            ),
            Route("POST", "/v1/search", "search", "Search.", self.search, r.SearchRequest, s.SearchAnswer),
            Route(
                "GET",
                "/v1/search",
                "search",
                "Search.",
                self.search_get,
                None,
                s.SearchAnswer,
                {
                    "query": "what to look for",
                    "project": "",
                    "fact_type": "",
                    "tags": "repeat for several",
                    "top_k": "1 to 500",
                    "as_of": "RFC 3339",
                },
            ),
            Route(
                "GET",
                "/v1/graph/{id}",
                "graph",
                "The facts linked around one.",
                self.graph,
                None,
                s.Graph,
                {"depth": "0 to 8"},
            ),
            Route("GET", "/v1/export", "export", "Every fact that stands, one JSON line each.", self.export),
            Route("GET", "/v1/status", "status", "Sync health: this node, its peers, warnings.", self.status),
            Route("GET", "/v1/peers", "peers", "The peers.", self.list_peers),
            Route("POST", "/v1/peers", "add_peer", "Add a peer by its address.", self.add_peer, NewPeer),
            Route("DELETE", "/v1/peers/{address}", "remove_peer", "Forget a peer's address.", self.remove_peer),
            Route("POST", "/v1/sync", "sync", "Sync now, and say what moved.", self.sync, SyncRequest),
            Route(
                "POST", "/v1/invitations", "invite", "A one-time code for another machine.", self.invite, NewInvitation
            ),
            Route("GET", "/healthz", "healthz", "200 while the process runs.", self.healthz),
            Route("GET", "/readyz", "readyz", "200 while reads and writes work.", self.readyz),
            Route("GET", "/metrics", "metrics", "Prometheus metrics.", self.show_metrics),
            Route("GET", "/openapi.json", "openapi", "This description.", self.openapi),
            Route("POST", "/mcp", "mcp", "MCP over Streamable HTTP: a message.", self.talk),
            Route("GET", "/mcp", "mcp", "MCP over Streamable HTTP: the stream of a session.", self.talk),
            Route("DELETE", "/mcp", "mcp", "MCP over Streamable HTTP: the end of a session.", self.talk),
            Route("GET", "/sse", "sse", "MCP over HTTP with SSE, for older clients.", self.sse),
            Route(
                "POST",
                MESSAGES_PATH,
                "messages",
                "MCP over HTTP with SSE: a message.",
                self.messages,
                query={"session_id": "as the stream's first event names it"},
            ),
            Route("GET", "/ws", "ws", "MCP over WebSocket, on hubs.", self.websocket),
        ]

    def application(self, surface: str, hosts: frozenset[str] | None = None) -> web.Application:
        """The app for one listener. `hosts` given: TCP, with token, Host and Origin checks."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[self._watch(surface, hosts)])
        for route in self.served():
            app.router.add_route(route.method, route.path, route.call, name=f"{route.name}-{route.method.lower()}")
        return app

    # Facts

    async def store(self, request: web.Request) -> web.Response:
        raw = await request.read()
        batch = b'"facts"' in raw and isinstance(shape := _loose(raw), dict) and "facts" in shape
        drafts = decode(raw, NewFacts).facts if batch else [decode(raw, requests.FactDraft)]
        if len(drafts) > BULK_FACTS:
            self._refuse_bulk()
        stored, repeated = await self.replica.store_facts(drafts, request.headers.get("Idempotency-Key"))
        return reply({"facts": stored} if batch else stored[0], status=200 if repeated else 201)

    async def get(self, request: web.Request) -> web.Response:
        return reply(await self.replica.get(request.match_info["id"], retracted=_retracted(request)))

    async def update(self, request: web.Request) -> web.Response:
        changes = decode(await request.read(), requests.FactChanges)
        return reply(await self.replica.update(request.match_info["id"], changes))

    async def retract(self, request: web.Request) -> web.Response:
        return reply(await self.replica.retract(request.match_info["id"], request.query.get("reason")))

    async def history(self, request: web.Request) -> web.Response:
        return reply(await self.replica.history(request.match_info["id"]))

    async def tag(self, request: web.Request) -> web.Response:
        change = decode(await request.read(), requests.TagChange)
        return reply(await self.replica.tag(request.match_info["id"], change))

    async def link(self, request: web.Request) -> web.Response:
        change = decode(await request.read(), requests.LinkChange)
        return reply(await self.replica.link(request.match_info["id"], change))

    async def projects(self, request: web.Request) -> web.Response:
        return reply(await self.replica.projects())

    async def list(self, request: web.Request) -> web.Response:
        return reply(
            await self.replica.list_facts(
                request.match_info["project"],
                _number(request, "limit", 100),
                request.query.get("cursor"),
                retracted=_retracted(request),
            )
        )

    async def search(self, request: web.Request) -> web.Response:
        return reply(await self.recall.search(decode(await request.read(), requests.SearchRequest)))

    async def search_get(self, request: web.Request) -> web.Response:
        query = {name: value for name, value in request.query.items() if name not in ("tags", "top_k")}
        wanted = query | {"tags": request.query.getall("tags", []), "top_k": _number(request, "top_k", 10)}
        return reply(await self.recall.search(_convert(wanted, requests.SearchRequest)))

    async def graph(self, request: web.Request) -> web.Response:
        return reply(await self.replica.graph(request.match_info["id"], _number(request, "depth", 2)))

    async def export(self, request: web.Request) -> web.StreamResponse:
        self._refuse_bulk()
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/jsonl"})
        request[STREAMING] = True
        await response.prepare(request)
        async for line in self.replica.export():
            await response.write(line)
        await response.write_eof()
        return response

    # The node and its peers

    async def status(self, request: web.Request) -> web.Response:
        return reply(await self.peers.status())

    async def list_peers(self, request: web.Request) -> web.Response:
        return reply(await self.peers.peers())

    async def add_peer(self, request: web.Request) -> web.Response:
        return reply(await self.peers.add_peer(decode(await request.read(), NewPeer).address), status=201)

    async def remove_peer(self, request: web.Request) -> web.Response:
        return reply(await self.peers.remove_peer(request.match_info["address"]))

    async def sync(self, request: web.Request) -> web.Response:
        raw = await request.read()
        return reply(await self.peers.sync_now(decode(raw or b"{}", SyncRequest).peer))

    async def invite(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read() or b"{}", NewInvitation)
        return reply(await self.peers.invite(wanted.role, wanted.projects, wanted.ttl_s), status=201)

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        if not self.peers.ready():
            raise Problem(503, "not_ready", "the node is starting or stopping", "try again in a second")
        return web.Response(text="ready\n")

    async def show_metrics(self, request: web.Request) -> web.Response:
        await self.peers.refresh_metrics()
        return web.Response(text=self.metrics.text(), headers={hdrs.CONTENT_TYPE: "text/plain; version=0.0.4"})

    async def openapi(self, request: web.Request) -> web.Response:
        from node.openapi import describe  # only this call needs it

        return reply(describe(self.served()))

    # Agents

    async def talk(self, request: web.Request) -> web.StreamResponse:
        request[STREAMING] = True
        return await self.mcp.http(request)

    async def sse(self, request: web.Request) -> web.StreamResponse:
        request[STREAMING] = True
        return await self.mcp.sse(request)

    async def messages(self, request: web.Request) -> web.Response:
        return await self.mcp.messages(request)

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        request[STREAMING] = True
        return await self.mcp.websocket(request)

    # Every request passes here

    def _watch(self, surface: str, hosts: frozenset[str] | None) -> Any:
        guard = None if hosts is None else Guard(self._token, hosts)

        @web.middleware
        async def watch(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            start = clock.monotonic()
            try:
                if guard is not None:
                    guard.check(request.headers, request.path)
                return await self._admitted(request, handler, surface)
            except Problem as problem:
                return _problem(problem)
            except web.HTTPException as error:
                allow = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
                return _problem(_as_problem(error, request), allow)
            except Exception:
                if STREAMING in request:  # the answer has begun: only breaking it off tells that it isn't whole
                    raise
                log.exception("%s %s failed", request.method, request.path)
                return _problem(Problem(500, "failed", "the node failed; its log says how", "please report it"))
            finally:
                route = request.match_info.route.name or "unknown"
                self.metrics.requests.observe(clock.monotonic() - start, surface, route)

        return watch

    async def _admitted(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]], surface: str
    ) -> web.StreamResponse:
        """Serve a request when it is its client's turn: on TCP an address, on the socket whoever owns it."""
        name = (request.match_info.route.name or "").rpartition("-")[0]
        if self._admission is None or request.path in OPEN_PATHS:
            return await handler(request)
        client = (request.remote or surface) if surface == "tcp" else surface
        self._admission.count(client)
        request[CLIENT] = client
        if name not in TURNS:
            return await handler(request)
        async with self._admission.turn(client, partial(_receive, request)):
            return await handler(request)


async def _receive(request: web.Request) -> None:
    """Have an ordinary body here before its turn comes, lest a slow sender hold the turn."""
    if (request.content_length or 0) <= ORDINARY_BYTES:
        await request.read()


def reply(answer: Any, status: int = 200) -> web.Response:
    """An answer as JSON."""
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type=JSON)


def _problem(problem: Problem, more: Mapping[str, str] | None = None) -> web.Response:
    headers = dict(more or {})
    if problem.status in (429, 503):
        headers[hdrs.RETRY_AFTER] = "1"
    if problem.status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    body = msgspec.json.encode(problem.document())
    return web.Response(body=body, status=problem.status, content_type=PROBLEM, headers=headers)


def _as_problem(error: web.HTTPException, request: web.Request) -> Problem:
    match error.status:
        case 404:
            return Problem(404, "no_such_route", f"there is no {request.path}", "see /openapi.json")
        case 405:
            return Problem(
                405, "method_not_allowed", f"{request.method} is not for {request.path}", "see /openapi.json"
            )
        case 413:
            return Problem(413, "request_too_large", f"more than {MAX_REQUEST_BYTES:,} bytes", "send smaller batches")
        case status:
            return Problem(status, "http_error", error.reason, "see /openapi.json")


def decode(raw: bytes, kind: Any) -> Any:
    """What a body says, as a value of type `kind`. Raises Problem 400 or 422, which names the field."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _wrong_shape(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "invalid_json", f"the body is not JSON: {error}", "send one JSON object") from None


def _loose(raw: bytes) -> Any:
    return decode(raw, Any)


def _convert(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _wrong_shape(error) from None


def _wrong_shape(error: msgspec.ValidationError) -> Problem:
    """msgspec says where (`$.facts[0].tags`) and, of a field that is missing or unknown, which."""
    place, which = _PLACE.search(str(error)), _WHICH.search(str(error))
    path = ".".join(found[1] for found in (place, which) if found)
    return Problem(422, "invalid_request", str(error), "see /openapi.json", path or None)


def _retracted(request: web.Request) -> bool:
    return request.query.get("include") == "retracted"


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise Problem(422, f"invalid_{name}", f"{name} is {text!r}", "give a whole number", name) from None
