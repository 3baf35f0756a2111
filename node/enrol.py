"""Enrolment: how a machine with an invitation becomes a member; both sides of the one call without client certificate.

The newcomer (`join`) and the founder (`Enrolment`, on the peer port) speak two requests:

1. `GET /ca` over TLS that trusts nobody yet. The newcomer goes on only with a CA certificate whose SHA-256 is the one
   in its code: an impostor can show a CA of its own, but not one with that fingerprint.
2. `POST /enrol` over TLS that trusts this CA alone. The newcomer signs (mesh, invitation, its key, its name) with the
   invitation's key and with its own. The founder checks both, uses the invitation up, issues the certificate, has the
   member recorded, and answers with certificate and addresses.

The newcomer checks that the certificate is from this CA, for its own key, with the name it asked for, and only then
writes its home. Until then nothing on its disk has changed. What a newcomer may do is in the founder's book, not in the
code. Everything received is bounded before it is parsed; failures are counted, and told with what to do.
Tests: tests/node/test_enrol.py.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta
from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError
from yarl import URL

from crdt.version import node_id
from node import identity, invitation, mesh, tls
from node.clock import rfc3339
from node.errors import Problem
from node.identity import KEY_BYTES, Identity
from node.invitation import Invitation, InvitationBook
from node.mesh import BadCertificate, Member
from node.paths import Home

MAX_BODY_BYTES: Final = 16 * 1024
"""Of a request or an answer: a certificate of 8 KiB in base64, and addresses."""
MAX_UNDER_WAY: Final = 4
"""Enrolments at once. People do this by hand; the rest are told to try again."""
BODY_TIMEOUT_S: Final = 10.0
"""For a request's body, which fits in a few packets."""
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
"""The founder may be a Raspberry Pi that has yet to load what makes certificates."""
ASK_TIMES: Final = 2
"""An answer may be lost; the same node may ask again."""
MAX_PEERS: Final = 16

_CONTEXT = b"cortex-node/enrol/v1\0"
_log = logging.getLogger(__name__)

_Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
_Signature = Annotated[bytes, Meta(min_length=crypto_sign_BYTES, max_length=crypto_sign_BYTES)]


class Request(msgspec.Struct, frozen=True):
    """The body of `POST /enrol`, as JSON with base64. Both signatures are over `statement`."""

    invitation_key: _Key
    node_key: _Key
    name: Annotated[str, Meta(max_length=mesh.MAX_NODE_NAME_BYTES)]
    invitation_signature: _Signature
    node_signature: _Signature


class Answer(msgspec.Struct, frozen=True):
    """`certificate` in DER; `peers` are addresses of nodes to sync with."""

    certificate: Annotated[bytes, Meta(max_length=mesh.MAX_CERTIFICATE_BYTES)]
    peers: Annotated[
        tuple[Annotated[str, Meta(max_length=invitation.MAX_ADDRESS_CHARS)], ...], Meta(max_length=MAX_PEERS)
    ]


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of `join`: the new node, what it may do, and where its first peer is."""

    identity: Identity
    member: Member
    peers: tuple[str, ...]


class Enrolment:
    """The founder's side. `counts`: outcomes by code, `enrolled` among them.

    `addresses()`: where this node can be reached. `admit(member, certificate)`: records the member; on disk when it
    returns, for only then is the newcomer told.
    """

    def __init__(
        self,
        me: Identity,
        book: InvitationBook,
        addresses: Callable[[], Sequence[str]],
        admit: Callable[[Member, bytes], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._me = me
        self._book = book
        self._addresses = addresses
        self._admit = admit
        self._now_ms = now_ms
        self._under_way = 0

    def routes(self) -> list[web.RouteDef]:
        """For the peer port. Both are open to whoever has no client certificate."""
        return [web.get("/ca", self.ca), web.post("/enrol", self.enrol)]

    async def ca(self, _: web.Request) -> web.Response:
        return web.Response(body=self._me.ca, content_type="application/pkix-cert")

    async def enrol(self, request: web.Request) -> web.Response:
        self._under_way += 1
        try:
            if self._under_way > MAX_UNDER_WAY:
                raise Problem(429, "busy", f"{MAX_UNDER_WAY} enrolments are under way", "try again in a minute")
            answer = await self._answer(await _body_of(request))
        except Problem as problem:
            self.counts[problem.code] += 1
            _log.warning("refused to enrol %s: %s", request.remote, problem.detail)
            refusal = web.json_response(
                problem.document(), status=problem.status, content_type="application/problem+json"
            )
            refusal.force_close()
            return refusal
        finally:
            self._under_way -= 1
        self.counts["enrolled"] += 1
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _answer(self, body: bytes) -> Answer:
        request = _checked(self._me.mesh_id, body)
        authority = mesh.load_authority(self._me)
        now_ms = self._now_ms()
        grants_json = await self._book.take(
            invitation.secret_hash(request.invitation_key), now_ms, node_id(request.node_key)
        )
        grants = invitation.read_grants(grants_json)
        # In a thread: the first time, this loads what makes certificates, and the node goes on serving.
        certificate = await asyncio.to_thread(
            mesh.issue, authority, request.node_key, request.name, grants.role, grants.projects, now_ms
        )
        member = mesh.check_member(self._me.ca, certificate)
        await self._admit(member, certificate)
        _log.info("enrolled %s as %s (%s)", member.node_id, member.name, member.role)
        return Answer(certificate, tuple(self._addresses())[:MAX_PEERS])


def statement(mesh_id: bytes, invitation_key: bytes, node_key: bytes, name: str) -> bytes:
    """What a newcomer signs: that this key, under this name, takes up this invitation into this mesh."""
    return _CONTEXT + mesh_id + invitation_key + node_key + name.encode()


async def join(home: Home, code: str, name: str, now_ms: int) -> Joined:
    """Become a member of the mesh that `code` invites to, as `name`, and make `home` this node's home.

    Raises Problem: home_exists, home_partial, home_unwritable, bad_name, invitation_damaged, _version, _expired, _used,
    _unknown, unreachable, ca_mismatch, clock_wrong, bad_answer, busy. After a Problem nothing here has changed.
    """
    identity.require_vacant(home)
    mesh.check_name(name)
    invited = invitation.decode(code, now_ms)
    seed = identity.new_seed()
    address, ca = await _find_inviter(invited)
    answer = await _ask(address, ca, _request(invited, seed, name), now_ms)
    member = _checked_member(ca, answer.certificate, seed, name)
    try:
        me = identity.create(home, seed, answer.certificate, ca)
    except Problem as problem:
        problem.action += "; the invitation is used up: ask for a new one"
        raise
    return Joined(me, member, tuple(dict.fromkeys((address, *answer.peers))))


def _request(invited: Invitation, seed: bytes, name: str) -> Request:
    node_key, node_secret = identity.key_pair(seed)
    invitation_key, invitation_secret = invitation.one_time_key(invited.secret)
    signed = statement(invited.fingerprint, invitation_key, node_key, name)
    by_invitation, by_node = (
        crypto_sign(signed, secret)[:crypto_sign_BYTES] for secret in (invitation_secret, node_secret)
    )
    return Request(invitation_key, node_key, name, by_invitation, by_node)


def _checked(mesh_id: bytes, body: bytes) -> Request:
    """The request in `body`, truly signed by both keys. Raises Problem: bad_request, bad_name, bad_signature."""
    try:
        request = msgspec.json.decode(body, type=Request)
    except msgspec.DecodeError as error:
        raise Problem(400, "bad_request", f"not an enrolment: {error}") from None
    mesh.check_name(request.name)
    signed = statement(mesh_id, request.invitation_key, request.node_key, request.name)
    try:
        crypto_sign_open(request.invitation_signature + signed, request.invitation_key)
        crypto_sign_open(request.node_signature + signed, request.node_key)
    except BadSignatureError:
        raise Problem(403, "bad_signature", "the request is not signed by the keys that it names") from None
    return request


async def _body_of(request: web.Request) -> bytes:
    """Raises Problem: too_large, too_slow."""
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise Problem(413, "too_large", f"more than {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise Problem(408, "too_slow", f"the request took more than {BODY_TIMEOUT_S:g} s") from None
    return body


async def _find_inviter(invited: Invitation) -> tuple[str, bytes]:
    """The first address that answers with the CA that the code names, and that CA (DER). Knocks at all at once."""
    tasks = [asyncio.create_task(_probe(address, invited.fingerprint)) for address in invited.addresses]
    problems: list[Problem] = []
    try:
        for probe in asyncio.as_completed(tasks):
            try:
                return await probe
            except Problem as problem:
                problems.append(problem)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    mismatch = next((problem for problem in problems if problem.code == "ca_mismatch"), None)
    raise mismatch or _unreachable("; ".join(problem.detail for problem in problems))


async def _probe(address: str, fingerprint: bytes) -> tuple[str, bytes]:
    """Raises Problem: unreachable, ca_mismatch."""
    try:
        status, ca = await _call("GET", address, "/ca", tls.newcomer_context(ca=None))
    except (aiohttp.ClientError, OSError) as error:
        raise _unreachable(f"{address}: {_reason(error)}") from error
    if status != 200:
        raise _unreachable(f"{address}: not a cortex-node (HTTP {status})")
    if identity.mesh_id(ca) != fingerprint:
        raise Problem(
            403,
            "ca_mismatch",
            f"the node at {address} belongs to another mesh than the invitation: its CA's fingerprint is "
            f"{identity.mesh_id(ca).hex()}, the invitation says {fingerprint.hex()}. "
            "Either this address is now that of another machine, or somebody is in between. Nothing was sent to it",
            "check the address and ask for a new invitation in a way that nobody can tamper with; do not go on if it "
            "happens again",
        )
    return address, ca


async def _ask(address: str, ca: bytes, request: Request, now_ms: int) -> Answer:
    """Raises Problem: what the founder says, unreachable, clock_wrong, bad_answer."""
    body = msgspec.json.encode(request)
    context = tls.newcomer_context(ca)
    lost = _unreachable(address)
    for _ in range(ASK_TIMES):
        try:
            status, content = await _call("POST", address, "/enrol", context, body)
        except aiohttp.ClientConnectorCertificateError as error:
            raise _untrusted(address, error.certificate_error, now_ms) from error
        except (aiohttp.ClientError, OSError) as error:
            lost = _unreachable(f"{address}: {_reason(error)}")
            continue
        return _read_answer(address, status, content)
    raise lost


def _read_answer(address: str, status: int, content: bytes) -> Answer:
    if status != 200:
        raise _refusal(address, status, content)
    try:
        answer = msgspec.json.decode(content, type=Answer)
    except msgspec.DecodeError as error:
        raise _bad_answer(f"{address} answered something else than a certificate: {error}") from None
    for peer in answer.peers:
        invitation.parse_address(peer)
    return answer


async def _call(
    method: str, address: str, path: str, context: ssl.SSLContext, body: bytes | None = None
) -> tuple[int, bytes]:
    """Status and body of one HTTPS request, at most MAX_BODY_BYTES. Raises aiohttp.ClientError, OSError."""
    host, port = invitation.parse_address(address)
    url = URL.build(scheme="https", host=host, port=port, path=path)
    limits = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    # Nothing is followed and nothing unpacked: an answer is as large as it looks, and from whom it was asked.
    async with (
        aiohttp.ClientSession(timeout=limits, auto_decompress=False) as session,
        session.request(method, url, data=body, ssl=context, allow_redirects=False) as response,
    ):
        content = b""
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise aiohttp.ClientPayloadError(f"an answer of more than {MAX_BODY_BYTES} bytes")
        return response.status, content


def _checked_member(ca: bytes, certificate: bytes, seed: bytes, name: str) -> Member:
    """Raises Problem bad_answer unless the certificate is what was asked for."""
    try:
        member = mesh.check_member(ca, certificate)
    except BadCertificate as error:
        raise _bad_answer(f"the certificate that came is {error}") from None
    if (member.node_key, member.name) != (identity.key_pair(seed)[0], name):
        raise _bad_answer(f"the certificate that came is for {member.name} ({member.node_id}), not for this node")
    return member


def _reason(error: aiohttp.ClientError | OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__


def _unreachable(detail: str) -> Problem:
    return Problem(
        503,
        "unreachable",
        f"the node that invites can't be reached ({detail})",
        "see that it is running, that its port is open and that both machines are on one network; then use the same "
        "code again, while it is valid",
    )


def _untrusted(address: str, error: Exception, now_ms: int) -> Problem:
    return Problem(
        403,
        "certificate_refused",
        f"the certificate of {address} is not good: {getattr(error, 'verify_message', error)}; this machine's clock "
        f"says {rfc3339(now_ms)}",
        "check the clocks of both machines (`timedatectl`); on the other, `cortex-node doctor` checks its certificate",
    )


def _bad_answer(detail: str) -> Problem:
    return Problem(
        502,
        "bad_answer",
        f"{detail}; nothing was written",
        "run the same version of cortex-node on both machines, then ask for a new code",
    )


def _refusal(address: str, status: int, content: bytes) -> Problem:
    """The founder's own words, as far as they are a problem document."""
    try:
        said: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        return _bad_answer(f"{address} answered with HTTP {status}")
    code, detail, action = (
        "".join(filter(str.isprintable, str(said.get(key, ""))))[:500] for key in ("code", "detail", "action")
    )
    return Problem(status, code or "refused", detail or f"{address} answered with HTTP {status}", action)
