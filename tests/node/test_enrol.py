"""Over real TLS on loopback: one invitation lets one machine in, and whatever goes wrong leaves nothing behind."""

import asyncio
import dataclasses
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from nacl.bindings import crypto_sign

from node import enrol, identity, invitation, mesh, tls
from node.clock import now_ms
from node.enrol import Answer, Enrolment, Joined
from node.errors import Problem
from node.identity import Identity
from node.invitation import Invitation
from node.mesh import Member, Role
from node.paths import Home

PEERS = ("10.9.8.7:7400",)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Between = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
"""Answers a request itself, or has it answered by the handler and looks on."""


class Book:
    """An invitation book in memory."""

    def __init__(self) -> None:
        self.rows: dict[bytes, list[object]] = {}

    async def put(self, secret_hash: bytes, grants_json: str, expires_ms: int) -> None:
        self.rows[secret_hash] = [grants_json, expires_ms, None]

    async def take(self, secret_hash: bytes, now_ms: int, node_id: str) -> str:
        if secret_hash not in self.rows:
            raise invitation.refused("unknown")
        row = self.rows[secret_hash]
        if row[2] not in (None, node_id):
            raise invitation.refused("used")
        if now_ms >= int(str(row[1])):
            raise invitation.refused("expired")
        row[2] = node_id
        return str(row[0])


class Founder:
    """A founder with its peer port open: what it was asked, and whom it has admitted."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.me: Identity = mesh.found(Home(path), "founder", now_ms())
        self.stack = stack
        self.book = Book()
        self.members: list[tuple[Member, bytes]] = []
        self.ahead_ms = 0
        self.enrolment = Enrolment(self.me, self.book, lambda: PEERS, self.admit, lambda: now_ms() + self.ahead_ms)

    async def admit(self, member: Member, certificate: bytes) -> None:
        self.members.append((member, certificate))

    async def listen(self, between: Between | None = None, context: ssl.SSLContext | None = None) -> str:
        """The address of another open port, where `between` stands before this founder."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await (between(request, handler) if between else handler(request))

        app = web.Application(middlewares=[middleware])
        app.add_routes(self.enrolment.routes())
        runner = web.AppRunner(app, lingering_time=0)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context or tls.server_context(self.me))
        await site.start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    async def invite(self, *addresses: str, **options: object) -> str:
        made = await invitation.invite(self.book, self.me, addresses, **{"now_ms": now_ms()} | options)  # type: ignore[arg-type]
        return invitation.encode(made)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def founder(tmp_path: Path, stack: AsyncExitStack) -> Founder:
    return Founder(tmp_path / "founder", stack)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "new" / "home")


async def refusal(home: Home, code: str, name: str = "newcomer") -> Problem:
    """The Problem that `join` ends with, having changed nothing."""
    with pytest.raises(Problem) as caught:
        await enrol.join(home, code, name, now_ms())
    assert not home.path.parent.exists()
    assert caught.value.action
    return caught.value


async def join(home: Home, code: str) -> Joined:
    return await enrol.join(home, code, "newcomer", now_ms())


async def test_a_newcomer_becomes_a_member(founder: Founder, home: Home) -> None:
    address = await founder.listen()
    code = await founder.invite(address, role=Role.READER, projects=["team/*"])
    joined = await join(home, code)
    assert identity.load(home) == joined.identity
    assert tls.examine(joined.identity) == joined.member
    assert (joined.member.name, joined.member.role, joined.member.projects) == ("newcomer", Role.READER, ("team/*",))
    assert joined.identity.mesh_id == founder.me.mesh_id
    assert not joined.identity.founder
    assert joined.peers == (address, *PEERS)
    assert founder.members == [(joined.member, joined.identity.certificate)]
    assert founder.enrolment.counts == {"enrolled": 1}


async def test_an_invitation_is_for_one(founder: Founder, home: Home, tmp_path: Path) -> None:
    code = await founder.invite(await founder.listen())
    await enrol.join(Home(tmp_path / "first"), code, "first", now_ms())
    problem = await refusal(home, code)
    assert (problem.status, problem.code) == (410, "invitation_used")
    assert founder.enrolment.counts == {"enrolled": 1, "invitation_used": 1}
    assert [member.name for member, _ in founder.members] == ["first"]


async def test_of_two_at_once_one_gets_in(founder: Founder, home: Home, tmp_path: Path) -> None:
    code = await founder.invite(await founder.listen())
    outcomes = await asyncio.gather(
        *(enrol.join(Home(tmp_path / name), code, name, now_ms()) for name in ("one", "two")), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {Joined, Problem}
    assert len(founder.members) == 1


async def test_an_expired_invitation_is_refused_by_the_founders_clock(founder: Founder, home: Home) -> None:
    code = await founder.invite(await founder.listen(), ttl_ms=60_000)
    founder.ahead_ms = 60_000
    assert (await refusal(home, code)).code == "invitation_expired"
    founder.ahead_ms = 0
    await join(home, code)


async def test_an_invitation_that_was_never_made_is_refused(founder: Founder, home: Home) -> None:
    guess = Invitation(bytes(16), founder.me.mesh_id, now_ms() + 60_000, (await founder.listen(),))
    assert (await refusal(home, invitation.encode(guess))).code == "invitation_unknown"
    assert founder.enrolment.counts == {"invitation_unknown": 1}


async def test_another_mesh_at_the_address_gets_nothing(founder: Founder, home: Home, tmp_path: Path) -> None:
    asked: list[str] = []

    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked.append(f"{request.method} {request.path}")
        return await handler(request)

    impostor = Founder(tmp_path / "impostor", founder.stack)
    address = await impostor.listen(watch)
    problem = await refusal(home, await founder.invite(address))
    assert problem.code == "ca_mismatch"
    assert address in problem.detail
    assert "in between" in problem.detail
    assert asked == ["GET /ca"]


async def test_an_impostor_that_shows_the_right_ca_gets_nothing(founder: Founder, home: Home, tmp_path: Path) -> None:
    """The CA's certificate is no secret; a certificate signed by it is what an impostor lacks."""
    asked: list[str] = []

    async def relay(request: web.Request, _: Handler) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=founder.me.ca)

    impostor = Founder(tmp_path / "impostor", founder.stack)
    problem = await refusal(home, await founder.invite(await impostor.listen(relay)))
    assert problem.code == "certificate_refused"
    assert asked == ["/ca"]


async def test_the_right_node_is_found_among_wrong_addresses(founder: Founder, home: Home, tmp_path: Path) -> None:
    impostor = Founder(tmp_path / "impostor", founder.stack)
    address = await founder.listen()
    joined = await join(home, await founder.invite(closed_port(), await impostor.listen(), address))
    assert joined.peers[0] == address


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_nobody_at_the_address(founder: Founder, home: Home) -> None:
    addresses = closed_port(), closed_port()
    code = await founder.invite(*addresses)
    problem = await refusal(home, code)
    assert (problem.status, problem.code) == (503, "unreachable")
    assert all(address in problem.detail for address in addresses)
    assert "same code again" in problem.action


async def test_a_server_without_tls(founder: Founder, home: Home) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        problem = await refusal(home, await founder.invite(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert problem.code == "unreachable"


async def test_a_web_server_that_is_no_node(founder: Founder, home: Home) -> None:
    async def not_found(request: web.Request, _: Handler) -> web.StreamResponse:
        return web.Response(status=404)

    problem = await refusal(home, await founder.invite(await founder.listen(not_found)))
    assert problem.code == "unreachable"
    assert "HTTP 404" in problem.detail


async def test_an_endless_answer_is_cut(founder: Founder, home: Home) -> None:
    sent = 0

    async def flood(request: web.Request, _: Handler) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 1 << 30:
            await response.write(bytes(1 << 16))
            sent += 1 << 16
        return response

    problem = await refusal(home, await founder.invite(await founder.listen(flood)))
    assert problem.code == "unreachable"
    assert sent < 1 << 26


async def test_a_redirect_is_not_followed(founder: Founder, home: Home) -> None:
    elsewhere = await founder.listen()

    async def redirect(request: web.Request, _: Handler) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"https://{elsewhere}{request.path}"})

    assert "HTTP 307" in (await refusal(home, await founder.invite(await founder.listen(redirect)))).detail


async def test_an_expired_founder_is_told_from_an_impostor(
    home: Home, tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "NODE_LIFETIME", -mesh.CA_LIFETIME / 20)
    founder = Founder(tmp_path / "founder", stack)
    problem = await refusal(home, await founder.invite(await founder.listen()))
    assert problem.code == "certificate_refused"
    assert "expired" in problem.detail
    assert "clock" in problem.detail


async def test_a_lost_answer_does_not_use_up_the_invitation(founder: Founder, home: Home) -> None:
    lost = 0

    async def lose(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal lost
        response = await handler(request)
        if request.method == "POST" and not lost:
            lost += 1
            assert request.transport
            request.transport.abort()
        return response

    joined = await join(home, await founder.invite(await founder.listen(lose)))
    assert lost == 1
    assert [member.node_id for member, _ in founder.members] == [joined.member.node_id] * 2


async def test_a_member_that_is_not_recorded_is_not_told(founder: Founder, home: Home) -> None:
    async def full(member: Member, certificate: bytes) -> None:
        raise Problem(507, "disk_full", "no space left", "free some space")

    founder.enrolment._admit = full
    code = await founder.invite(await founder.listen())
    problem = await refusal(home, code)
    assert (problem.status, problem.code, problem.detail) == (507, "disk_full", "no space left")


@pytest.mark.parametrize(
    ("code", "name", "expected"),
    [
        ("CORTEX1-NONSENSE", "newcomer", "invitation_damaged"),
        ("CORTEX9-NONSENSE", "newcomer", "invitation_version"),
        (None, "n" * 65, "bad_name"),
        (None, "", "bad_name"),
    ],
)
async def test_what_is_wrong_here_is_said_before_anybody_is_asked(
    founder: Founder, home: Home, code: str | None, name: str, expected: str
) -> None:
    problem = await refusal(home, code or await founder.invite(await founder.listen()), name)
    assert (problem.status, problem.code) == (422, expected)
    assert not founder.enrolment.counts


async def test_an_existing_home_is_left_alone(founder: Founder, tmp_path: Path) -> None:
    mine = mesh.found(Home(tmp_path / "mine"), "mine", now_ms())
    code = await founder.invite(await founder.listen())
    with pytest.raises(Problem) as caught:
        await enrol.join(mine.home, code, "newcomer", now_ms())
    assert caught.value.code == "home_exists"
    assert identity.load(mine.home) == mine
    assert not founder.enrolment.counts


async def test_a_home_that_cannot_be_written_afterwards(
    founder: Founder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    code = await founder.invite(await founder.listen())
    monkeypatch.setattr("os.fsync", fails)
    problem = await refusal(home, code)
    assert problem.status == 507
    assert "used up" in problem.action


# What a founder may answer wrongly.


def says(founder: Founder, answer: bytes, status: int = 200) -> Between:
    async def say(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(body=answer, status=status) if request.method == "POST" else await handler(request)

    return say


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "something else"),
        (b"[]", "something else"),
        (json.dumps({"certificate": "!", "peers": []}).encode(), "something else"),
        (json.dumps({"certificate": "AAAA", "peers": ["x"] * 17}).encode(), "something else"),
        (json.dumps({"certificate": "AAAA", "peers": []}).encode(), "not a certificate"),
    ],
)
async def test_nonsense_instead_of_a_certificate(founder: Founder, home: Home, answer: bytes, reason: str) -> None:
    problem = await refusal(home, await founder.invite(await founder.listen(says(founder, answer))))
    assert problem.code == "bad_answer"
    assert reason in problem.detail


async def test_a_certificate_for_somebody_else_is_refused(founder: Founder, home: Home) -> None:
    answer = msgspec.json.encode(Answer(founder.me.certificate, ()))
    problem = await refusal(home, await founder.invite(await founder.listen(says(founder, answer))))
    assert problem.code == "bad_answer"
    assert "for founder" in problem.detail


async def test_a_certificate_of_another_mesh_is_refused(founder: Founder, home: Home, tmp_path: Path) -> None:
    stranger = mesh.found(Home(tmp_path / "stranger"), "newcomer", now_ms())
    answer = msgspec.json.encode(Answer(stranger.certificate, ()))
    problem = await refusal(home, await founder.invite(await founder.listen(says(founder, answer))))
    assert problem.code == "bad_answer"


async def test_a_refusal_cannot_write_to_the_terminal(founder: Founder, home: Home) -> None:
    answer = json.dumps({"code": "no", "detail": "\x1b[2J" + "x" * 9000, "action": "wait"}).encode()
    problem = await refusal(home, await founder.invite(await founder.listen(says(founder, answer, 403))))
    assert (problem.status, problem.code, problem.action) == (403, "no", "wait")
    assert problem.detail.isprintable()
    assert len(problem.detail) <= 500


# What anybody may send to the founder.


class Newcomer:
    """Sends to the founder what `join` never would."""

    def __init__(self, founder: Founder, address: str, invited: Invitation) -> None:
        self.address = address
        self.context = tls.newcomer_context(founder.me.ca)
        self.seed = identity.new_seed()
        self.good = enrol._request(invited, self.seed, "newcomer")

    async def post(self, body: object) -> tuple[int, str]:
        """Status and `code`."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"https://{self.address}/enrol", data=body, ssl=self.context) as response,
        ):
            return response.status, (await response.json(content_type=None)).get("code", "")


@pytest.fixture
async def newcomer(founder: Founder) -> Newcomer:
    address = await founder.listen()
    code = await founder.invite(address)
    return Newcomer(founder, address, invitation.decode(code, now_ms()))


def untouched(founder: Founder) -> bool:
    return not founder.members and all(row[2] is None for row in founder.book.rows.values())


@pytest.mark.parametrize(
    "change",
    [
        {"name": "admin"},
        {"node_key": bytes(32)},
        {"node_key": identity.key_pair(bytes(32))[0]},
        {"invitation_key": identity.key_pair(bytes(32))[0]},
        {"invitation_signature": bytes(64)},
        {"node_signature": bytes(64)},
    ],
)
async def test_nothing_in_a_request_can_be_changed_on_the_way(
    founder: Founder, newcomer: Newcomer, change: dict[str, object]
) -> None:
    changed = msgspec.structs.replace(newcomer.good, **change)
    assert await newcomer.post(msgspec.json.encode(changed)) == (403, "bad_signature")
    assert untouched(founder)
    assert await newcomer.post(msgspec.json.encode(newcomer.good)) == (200, "")


async def test_a_request_to_another_mesh_is_worth_nothing_here(founder: Founder, newcomer: Newcomer) -> None:
    invited = invitation.decode(await founder.invite(newcomer.address), now_ms())
    elsewhere = dataclasses.replace(invited, fingerprint=bytes(32))
    request = enrol._request(elsewhere, newcomer.seed, "newcomer")
    assert await newcomer.post(msgspec.json.encode(request)) == (403, "bad_signature")
    assert untouched(founder)


async def test_the_key_of_somebody_else_cannot_be_enrolled(founder: Founder, newcomer: Newcomer) -> None:
    """Whoever has the code must also have the key that it wants certified."""
    invited = invitation.decode(await founder.invite(newcomer.address), now_ms())
    invitation_key, secret = invitation.one_time_key(invited.secret)
    signed = enrol.statement(founder.me.mesh_id, invitation_key, founder.me.node_key, "newcomer")
    signature = crypto_sign(signed, secret)[:64]
    request = enrol.Request(invitation_key, founder.me.node_key, "newcomer", signature, signature)
    assert await newcomer.post(msgspec.json.encode(request)) == (403, "bad_signature")
    assert untouched(founder)


@pytest.mark.parametrize("name", ["", "a\nb", " a"])
async def test_a_bad_name_does_not_use_up_the_invitation(founder: Founder, newcomer: Newcomer, name: str) -> None:
    request = msgspec.structs.replace(newcomer.good, name=name)
    assert await newcomer.post(msgspec.json.encode(request)) == (422, "bad_name")
    assert untouched(founder)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"name":"x"}', b"\xff" * 100, b"[" * 10_000])
async def test_garbage_is_refused_and_counted(founder: Founder, newcomer: Newcomer, body: bytes) -> None:
    assert await newcomer.post(body) == (400, "bad_request")
    assert founder.enrolment.counts == {"bad_request": 1}
    assert untouched(founder)


async def test_a_large_request_is_refused_before_it_is_read(founder: Founder, newcomer: Newcomer) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 26:
            yield bytes(1 << 14)
            sent += 1 << 14

    with suppress(aiohttp.ClientError):  # the door is shut while we are still talking
        assert await newcomer.post(endless()) == (413, "too_large")
    assert sent < 1 << 26
    assert founder.enrolment.counts == {"too_large": 1}


async def test_a_slow_request_is_given_up(
    founder: Founder, newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol, "BODY_TIMEOUT_S", 0.01)
    never = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    assert await newcomer.post(slow()) == (408, "too_slow")
    assert founder.enrolment.counts == {"too_slow": 1}


async def test_enrolments_at_once_are_bounded(founder: Founder, newcomer: Newcomer) -> None:
    full, go_on = asyncio.Event(), asyncio.Event()
    taken = 0
    take = founder.book.take

    async def slow(secret_hash: bytes, now_ms: int, node_id: str) -> str:
        nonlocal taken
        taken += 1
        if taken == enrol.MAX_UNDER_WAY:
            full.set()
        await go_on.wait()
        return await take(secret_hash, now_ms, node_id)

    founder.book.take = slow  # type: ignore[method-assign]
    body = msgspec.json.encode(newcomer.good)
    under_way = [asyncio.create_task(newcomer.post(body)) for _ in range(enrol.MAX_UNDER_WAY)]
    await full.wait()
    assert await newcomer.post(body) == (429, "busy")
    go_on.set()
    assert await asyncio.gather(*under_way) == [(200, "")] * enrol.MAX_UNDER_WAY
    assert await newcomer.post(body) == (200, "")


async def test_a_node_that_did_not_found_the_mesh_enrols_nobody(
    founder: Founder, newcomer: Newcomer, home: Home, tmp_path: Path
) -> None:
    joined = await join(home, await founder.invite(newcomer.address))
    founder.enrolment = Enrolment(joined.identity, founder.book, lambda: (), founder.admit, now_ms)
    newcomer.address = await founder.listen(context=tls.server_context(joined.identity))
    assert await newcomer.post(msgspec.json.encode(newcomer.good)) == (409, "not_the_founder")
    assert [member.name for member, _ in founder.members] == ["newcomer"]
