"""A question about the ledger that only a hub may answer, put to a hub; and the hub's side, on the peer port.

A read is linearizable when a hub of the current grant answers it from its own table: it sees every commit that has
returned. So by default other nodes pass such questions on (`Forward`), over HTTPS with both certificates: whoever
answers must hold a key that the grant names. What it says is not believed on its word: the checkpoint must be signed by
a granted hub and be no older than the newest that is here (a hub that was put back from a backup has to catch up
first), and an inclusion proof must hold. Where no hub answers in time the asker is told `no_quorum`, and what to do.

`Answers` serves members only, reads only, and of votes' texts only those of projects which the member's certificate
grants. Everything is bounded: addresses, bytes, seconds, questions at once. Tests: tests/node/voting/test_forward.py.
"""

import logging
import sqlite3
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.connector import Connection
from yarl import URL

from crdt.version import node_id
from ledger.checkpoint import hub_keys
from ledger.entry import BadEntry
from ledger.note import BadNote
from ledger.policy import Policy, open_under, policy_of
from ledger.receipt import check_receipt
from ledger.tlog import BadProof
from node import addresses, tls
from node.book import Book
from node.breaker import Breaker, Refused, guarded
from node.database import Database
from node.errors import Problem
from node.identity import Identity
from node.invitation import parse_address
from node.mesh import BadCertificate, Member
from node.store import Store
from node.voting import reads
from node.voting.reads import MayRead, Place
from sync.overlap import RESERVED

CONNECT_S: Final = 2.0
ANSWER_S: Final = 10.0
"""For all hubs together: who asks is waiting."""
MAX_ADDRESSES: Final = 4
"""Tried of one hub, the likeliest first."""
MAX_ANSWER_BYTES: Final = 4 << 20
"""A page of reads.MAX_PAGE entries has a fifth of it."""
MAX_UNDER_WAY: Final = 8
"""Questions of members at once, on a hub."""
PREFIX: Final = "/ledger/"

Question = Callable[[sqlite3.Connection, MayRead], dict[str, Any]]
Whereabouts = Callable[[str], Awaitable[Iterable[str]]]
"""Node id to the addresses where that node may be, the likeliest first."""

log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """No hub has answered; the text says what each did."""


class Forward:
    """Puts questions to the hubs of the current grant."""

    def __init__(self, me: Identity, database: Database, place: Place, where: Whereabouts, breaker: Breaker) -> None:
        self.breaker = breaker
        self._database = database
        self._place = place
        self._where = where
        self._context = tls.client_context(me)

    async def ask(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A hub's answer to `GET /ledger/<path>`. Raises Problem: what a hub says, or no_quorum."""
        rule, known = await self._database.read(self._trusted)
        if rule is None:
            raise no_quorum("no grant that counts has come to this node, so it knows no hub")
        try:
            answer = await guarded(self.breaker, lambda: self._ask(rule, known, path, query), ANSWER_S)
        except NoAnswer as error:
            raise no_quorum(str(error)) from None
        except TimeoutError:
            raise no_quorum(f"no hub answered within {ANSWER_S:g} s") from None
        except Refused:
            raise no_quorum("the hubs were asked in vain again and again, and are given a rest") from None
        if isinstance(answer, Problem):
            raise answer
        return answer

    def _trusted(self, connection: sqlite3.Connection) -> tuple[Policy | None, int]:
        """Whose signature a checkpoint must have, and how large the newest here is."""
        ledger, granted = reads.ledger_id(connection), reads.grant(connection, self._place.authority)
        if ledger is None or granted is None:
            return None, 0
        known = connection.execute("SELECT max(size) FROM ledger_checkpoints").fetchone()[0] or 0
        return policy_of(hub_keys(ledger, granted.hubs)), known

    async def _ask(self, rule: Policy, known: int, path: str, query: Mapping[str, str]) -> dict[str, Any] | Problem:
        said: list[str] = []
        limits = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
        async with aiohttp.ClientSession(timeout=limits, auto_decompress=False, response_class=_Response) as session:
            for hub in (node_id(key.key) for key in rule.logs):
                for address in [*await self._where(hub)][:MAX_ADDRESSES]:
                    try:
                        return await self._ask_at(session, rule, known, hub, address, path, query)
                    except (aiohttp.ClientError, OSError, NoAnswer) as error:
                        said.append(f"{address}: {_why(error)}")
        raise NoAnswer("; ".join(said) or "nobody knows where a hub is")

    async def _ask_at(
        self,
        session: aiohttp.ClientSession,
        rule: Policy,
        known: int,
        hub: str,
        address: str,
        path: str,
        query: Mapping[str, str],
    ) -> dict[str, Any] | Problem:
        host, port = parse_address(address)
        url = URL.build(scheme="https", host=host, port=port, path=PREFIX + path, query=dict(query))
        async with session.get(url, ssl=self._context, allow_redirects=False) as response:
            found = response.node if isinstance(response, _Response) else None
            if found != hub:
                raise NoAnswer(f"there is {found or 'nobody of this mesh'} now")
            status, document = response.status, await _document(response)
        if status != 200:
            return _refusal(status, document)
        _check(document, rule, known)
        return document | {"read": "linearizable", "hub": hub}


def no_quorum(detail: str) -> Problem:
    """The problem of a read that nobody can answer now."""
    return Problem(
        503,
        "no_quorum",
        f"no hub can be asked: {detail}",
        "try again when a hub is within reach; or read what is here, which may be old: read=local, --local",
    )


def whereabouts(database: Database, store: Store, book: Book, dialled: Callable[[str], str | None]) -> Whereabouts:
    """Where a node may be: where we dialled it last, what it has signed itself, where somebody reached it once."""

    async def where(node: str) -> list[str]:
        def told(connection: sqlite3.Connection) -> tuple[str, ...]:
            row = connection.execute("SELECT id FROM projects WHERE name = ?", (RESERVED,)).fetchone()
            return addresses.told(node, store.effective_ops(connection, node, row[0])) if row else ()

        signed = await database.read(told)
        remembered = sorted(
            (place for place in book.addresses() if place.node == node), key=lambda place: -(place.last_contact or 0)
        )
        found = [dialled(node), *signed, *(place.address for place in remembered)]
        return list(dict.fromkeys(address for address in found if address))

    return where


class Answers:
    """The hub's side: GET /ledger/... on the peer port. `ready`: whether this hub has nothing to catch up with."""

    def __init__(self, database: Database, place: Place, ready: Callable[[], bool] = lambda: True) -> None:
        self._database = database
        self._place = place
        self._ready = ready
        self._under_way = 0

    def routes(self) -> list[web.RouteDef]:
        """For the peer port (Network.application)."""
        return [
            web.get(f"{PREFIX}status", self.status),
            web.get(f"{PREFIX}checkpoint", self.checkpoint),
            web.get(f"{PREFIX}entries", self.entries),
            web.get(f"{PREFIX}proof/{{index}}", self.proof),
        ]

    async def status(self, request: web.Request) -> web.Response:
        return await self._answer(request, lambda connection, _: reads.status(connection, self._place))

    async def checkpoint(self, request: web.Request) -> web.Response:
        return await self._answer(request, lambda connection, _: reads.checkpoint(connection, self._place))

    async def entries(self, request: web.Request) -> web.Response:
        return await self._answer(
            request,
            lambda connection, may_read: reads.entry_page(
                connection, whole(request.query, "start", 0), whole(request.query, "limit", reads.MAX_PAGE), may_read
            ),
        )

    async def proof(self, request: web.Request) -> web.Response:
        return await self._answer(
            request, lambda connection, may_read: reads.proof(connection, whole(request.match_info, "index"), may_read)
        )

    async def _answer(self, request: web.Request, question: Question) -> web.Response:
        try:
            return _json(200, await self._asked(request, question))
        except Problem as problem:
            return _json(problem.status, problem.document())

    async def _asked(self, request: web.Request, question: Question) -> dict[str, Any]:
        member = _member(request)
        if self._under_way >= MAX_UNDER_WAY:
            raise Problem(503, "busy", "this hub is answering others", "try again in a second")
        self._under_way += 1
        try:
            return await self._database.read(lambda connection: self._from_table(connection, question, member.may_read))
        finally:
            self._under_way -= 1

    def _from_table(self, connection: sqlite3.Connection, question: Question, may_read: MayRead) -> dict[str, Any]:
        if not self._place.is_hub(connection) or not self._ready():
            raise Problem(503, "not_a_hub", "this node is no hub now, or has to catch up first", "ask another")
        return question(connection, may_read)


def whole(given: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A whole number among a request's parameters. Raises Problem invalid_<name>."""
    text = given.get(name, None if default is None else str(default))
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise Problem(422, f"invalid_{name}", f"{name} is {text!r}", "give a whole number from 0", name)
    return int(text)


def _member(request: web.Request) -> Member:
    """Who asks. Raises Problem certificate_needed."""
    member = _other_end(request.transport.get_extra_info("ssl_object") if request.transport else None)
    if member is None:
        raise Problem(403, "certificate_needed", "only members of this mesh may ask", "join it: cortex-node join")
    return member


class _Response(aiohttp.ClientResponse):
    """Remembers who is at the other end: by the time that an answer is here its connection may be gone."""

    node: str | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        transport = connection.transport
        member = _other_end(transport.get_extra_info("ssl_object") if transport else None)
        self.node = member.node_id if member else None
        return await super().start(connection)


def _why(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__


def _other_end(connection: object) -> Member | None:
    """Which member is at the other end of a TLS connection."""
    try:
        return tls.peer_of(connection) if isinstance(connection, ssl.SSLObject) else None
    except BadCertificate as error:
        log.warning("the certificate at the other end is %s", error)
        return None


async def _document(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Raises NoAnswer unless it is one JSON object of bounded size."""
    content = b""
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise NoAnswer(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoAnswer(f"HTTP {response.status} that is no JSON object") from None


def _refusal(status: int, document: Mapping[str, Any]) -> Problem:
    """What a hub refuses is an answer; what another node or a busy one says is none."""
    code, detail, action = (
        "".join(filter(str.isprintable, str(document.get(name, ""))))[:500] for name in ("code", "detail", "action")
    )
    if status not in (404, 409, 410, 422) or not code:
        raise NoAnswer(detail or f"HTTP {status}")
    return Problem(status, code, detail, action)


def _check(document: Mapping[str, Any], rule: Policy, known: int) -> None:
    """Raises NoAnswer unless what it says is signed, proved, and not older than what is here."""
    try:
        opened = open_under(rule, str(document.get("checkpoint")).encode())
        receipt = document.get("receipt")
        if receipt is not None:
            entry, _ = check_receipt(str(receipt).encode(), rule)
            if entry.index != document.get("index"):
                raise BadProof("a receipt for another entry")
    except (BadNote, BadProof, BadEntry) as error:
        raise NoAnswer(f"what it says does not hold: {error}") from None
    if opened.checkpoint.size < known:
        raise NoAnswer(f"it has {opened.checkpoint.size} entries, and this node has seen {known}")


def _json(status: int, document: dict[str, Any]) -> web.Response:
    kind = "application/json" if status == 200 else "application/problem+json"
    return web.Response(body=msgspec.json.encode(document), status=status, content_type=kind)
