"""The routes of the ledger: /v1/ledger/... and the tiles under /tlog/, composed into the table of node/http.py.

A hub answers reads from its own table. Every other node passes them on to a hub (node/voting/forward.py), unless the
asker says `read=local`: then the answer is what is here, with the time of the checkpoint that it stands under. Tiles,
exports and verification are always about what is here.

Exports and the progress of a verification are streamed; one that is broken off is not whole, and says so by breaking
off. Tests: tests/node/test_http_ledger.py.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from ledger.checkpoint import parse_text
from ledger.note import MAX_NOTE_BYTES, BadNote, parse
from ledger.policy import MAX_POLICY_BYTES, BadPolicy, parse_policy
from node import clock
from node.database import Database
from node.errors import Problem
from node.http import STREAMING, Route, decode, reply
from node.shapes import Shape
from node.voting import exports, forward, reads
from node.voting.forward import Forward
from node.voting.reads import Place
from node.voting.verification import Verification, Wanted

PROGRESS_S: Final = 0.5
JSON_LINES: Final = "application/jsonl"
FOR_EVER: Final = "public, max-age=31536000, immutable"


class VerifyRequest(Shape, kw_only=True):
    """What to verify against: a policy (C2SP tlog-policy), and the note of a checkpoint that was kept earlier."""

    policy: Annotated[str, Meta(max_length=MAX_POLICY_BYTES)] | None = None
    checkpoint: Annotated[str, Meta(max_length=MAX_NOTE_BYTES)] | None = None


class TakeoverRequest(Shape, kw_only=True):
    """`ca_seed`: the 32-byte seed of the mesh's CA key in hex, where the key is not on this machine. `abandon`: go on
    without entries that nobody has any more.
    """

    abandon: bool = False
    ca_seed: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None


class Finding(Shape):
    """What is wrong, at which entry; null: with the ledger as a whole. The codes: ledger/FORMAT.md."""

    index: int | None
    code: str
    detail: str


class Verified(Shape):
    """What a verification found. `whole`: whether every entry is here, and not only those of some projects."""

    ok: bool
    checked: int
    votes: int
    signatures: int
    size: int
    root: str
    whole: bool
    findings: list[Finding]


class LedgerApi:
    """The handlers. `takeover(seed, abandon)`: `seed` of the CA's key, None: the one in the home."""

    def __init__(
        self,
        database: Database,
        place: Place,
        forward: Forward,
        verification: Verification,
        *,
        takeover: Callable[[bytes | None, bool], Awaitable[dict[str, Any]]],
        anchor: Callable[[], Awaitable[dict[str, Any]]],
        ready: Callable[[], bool] = lambda: True,
        refuse_bulk: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._place = place
        self._forward = forward
        self._verification = verification
        self._takeover = takeover
        self._anchor = anchor
        self._ready = ready
        """Whether this hub, if it is one, has nothing to catch up with."""
        self._refuse_bulk = refuse_bulk

    def routes(self) -> list[Route]:
        """Every call about the ledger."""
        local = {"read": "`local`: what is here, however old; else a hub is asked"}
        page = {"start": "the first index", "limit": f"1 to {reads.MAX_PAGE}"} | local
        at = "/v1/ledger"
        return [
            Route("GET", f"{at}/status", "ledger_status", "How the ledger is.", self.status, query=local),
            Route(
                "GET", f"{at}/checkpoint", "ledger_checkpoint", "The newest checkpoint: its signed note, who has"
                " signed, and the policy to check it by.", self.checkpoint, query=local,
            ),
            Route("GET", f"{at}/entries", "ledger_entries", "Entries, by index.", self.entries, query=page),
            Route(
                "GET", f"{at}/proof/{{index}}", "ledger_proof", "That an entry is in the ledger: inclusion proof,"
                " checkpoint, and both as a `.tlog-proof` receipt.", self.proof, query=local,
            ),
            Route(
                "GET", f"{at}/export", "ledger_export", "The whole ledger as files in a tar archive, for"
                " `cortex-node ledger verify DIR` and other verifiers.", self.export,
                query={"project": "leave out the texts of other projects' votes"},
            ),
            Route(
                "POST", f"{at}/verify", "ledger_verify", "Verify everything of the ledger that is here. With `Accept:"
                f" {JSON_LINES}` lines of progress come first.", self.verify, VerifyRequest, Verified,
            ),
            Route(
                "POST", f"{at}/takeover", "ledger_takeover", "Make this node the ledger's hub, when the one that was"
                " is lost for good.", self.takeover, TakeoverRequest,
            ),
            Route(
                "POST", f"{at}/anchor", "ledger_anchor", "Have the newest checkpoint stamped by the time-stamping"
                " authority of `anchor.tsa_url`.", self.anchor,
            ),
            Route(
                "GET", "/tlog/{path:.+}", "tlog", "`checkpoint`, `tile/...` and `tile/entries/...`"
                " (C2SP tlog-tiles), where the ledger is whole.", self.file,
            ),
        ]  # fmt: skip

    async def status(self, request: web.Request) -> web.Response:
        return await self._read(request, "status", lambda connection: reads.status(connection, self._place))

    async def checkpoint(self, request: web.Request) -> web.Response:
        return await self._read(request, "checkpoint", lambda connection: reads.checkpoint(connection, self._place))

    async def entries(self, request: web.Request) -> web.Response:
        start, limit = (forward.whole(request.query, *of) for of in (("start", 0), ("limit", reads.MAX_PAGE)))
        return await self._read(request, "entries", lambda connection: reads.entry_page(connection, start, limit))

    async def proof(self, request: web.Request) -> web.Response:
        index = forward.whole(request.match_info, "index")
        return await self._read(request, f"proof/{index}", lambda connection: reads.proof(connection, index))

    async def file(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        data, fixed = await self._database.read(lambda connection: reads.file(connection, path))
        kind = "text/plain" if path == "checkpoint" else "application/octet-stream"
        headers = {hdrs.CACHE_CONTROL: FOR_EVER if fixed else "no-store"}
        return web.Response(body=data, content_type=kind, headers=headers)

    async def export(self, request: web.Request) -> web.StreamResponse:
        self._refuse_bulk()
        pieces = exports.stream(self._database.path, self._place, request.query.get("project"), clock.now_ms() // 1_000)
        first = await anext(pieces)  # what can be refused is refused before the answer begins
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/x-tar"})
        request[STREAMING] = True
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    async def verify(self, request: web.Request) -> web.StreamResponse:
        wanted = _wanted(decode(await request.read() or b"{}", VerifyRequest))
        if request.headers.get(hdrs.ACCEPT) != JSON_LINES:
            return reply(await self._verification.run(wanted))
        told: asyncio.Queue[tuple[int, int]] = asyncio.Queue(1)
        task = asyncio.create_task(self._verification.run(wanted, _newest_into(told)))
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: JSON_LINES})
        try:
            await asyncio.wait([task], timeout=PROGRESS_S)
            if task.done():
                task.result()  # a Problem is a problem document, not the first line of an answer
            request[STREAMING] = True
            await response.prepare(request)
            while not task.done():
                if not told.empty():
                    checked, size = told.get_nowait()
                    await response.write(_line({"checked": checked, "size": size}))
                await asyncio.wait([task], timeout=PROGRESS_S)
            await response.write(_line(task.result()))
        finally:
            task.cancel()
        await response.write_eof()
        return response

    async def takeover(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read() or b"{}", TakeoverRequest)
        seed = bytes.fromhex(wanted.ca_seed) if wanted.ca_seed else None
        return reply(await self._takeover(seed, wanted.abandon))

    async def anchor(self, request: web.Request) -> web.Response:
        return reply(await self._anchor())

    async def _read(
        self, request: web.Request, path: str, question: Callable[[sqlite3.Connection], dict[str, Any]]
    ) -> web.Response:
        """The answer of a hub: this node, if it is one, else another; or of this node, if that is asked for."""
        wanted = request.query.get("read", "linearizable")
        if wanted not in ("linearizable", "local"):
            raise Problem(422, "invalid_read", f"read is {wanted!r}", "leave it out, or say read=local", "read")

        def here(connection: sqlite3.Connection) -> dict[str, Any] | None:
            if wanted == "local":
                return question(connection) | {"read": "local", "checkpoint_at": _at(connection)}
            if self._place.is_hub(connection) and self._ready():
                return question(connection) | {"read": "linearizable"}
            return None

        answer = await self._database.read(here)
        query = {name: value for name, value in request.query.items() if name != "read"}
        return reply(answer if answer is not None else await self._forward.ask(path, query))


def _at(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT at FROM ledger_checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    return clock.rfc3339(row[0]) if row and row[0] else None


def _wanted(asked: VerifyRequest) -> Wanted:
    try:
        policy = None if asked.policy is None else parse_policy(asked.policy.encode())
    except BadPolicy as error:
        raise Problem(422, "invalid_policy", str(error), "see c2sp.org/tlog-policy", "policy") from None
    try:
        kept = None if asked.checkpoint is None else parse_text(parse(asked.checkpoint.encode()).text)
    except BadNote as error:
        raise Problem(422, "invalid_checkpoint", str(error), "give the whole signed note", "checkpoint") from None
    return Wanted(policy, kept)


def _newest_into(queue: asyncio.Queue[tuple[int, int]]) -> Callable[[int, int], None]:
    """Keeps only what was told last."""

    def tell(checked: int, size: int) -> None:
        if queue.full():
            queue.get_nowait()
        queue.put_nowait((checked, size))

    return tell


def _line(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document) + b"\n"
