"""Invitations: a one-time code that lets one machine into the mesh, and the inviter's book of them.

A code carries where to knock (addresses), whom to trust (the fingerprint of the mesh's CA), a 128-bit secret and an
expiry. It is text for people and for QR codes: upper case, digits and one dash, in which spaces, line breaks, lower
case and the usual slips (0 for O, 1 for I) do no harm, and any other slip is noticed.

    CORTEX1-  base32( MessagePack [secret, fingerprint, expires_s, addresses]  +  first 4 bytes of its SHA-256 )

The 1 is the version of what follows it. The secret never travels: it is the seed of an Ed25519 key with which the
newcomer signs its request, and the inviter keeps only a hash of the public half. So neither a stolen database nor a
member who gets in between can use an invitation, for the signature names the one node that it is for.

An invitation is used up by the first node that shows it. That node may show it again, for its answer may have been
lost. Tests: tests/node/test_invitation.py.
"""

import io
import re
import secrets
from base64 import b32decode, b32encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from node import mesh
from node.clock import rfc3339
from node.errors import Problem
from node.identity import Identity, key_pair
from node.mesh import Role

VERSION: Final = 1
SECRET_BYTES: Final = 16
"""128 bits: guessing is hopeless at any rate, so wrong guesses are counted but nobody is locked out."""
FINGERPRINT_BYTES: Final = 32
CHECKSUM_BYTES: Final = 4
MAX_ADDRESSES: Final = 8
"""A machine's own addresses. With eight of IPv4 the QR code still fits on a terminal of 80 columns."""
MAX_ADDRESS_CHARS: Final = 80
MAX_CODE_CHARS: Final = 2_000
"""What eight addresses at their longest take, and the line breaks of a mail program."""
DEFAULT_TTL_MS: Final = 10 * 60_000
MAX_TTL_MS: Final = 7 * 86_400_000
"""A code is a password in somebody's chat history."""
CLOCK_SLACK_MS: Final = 5 * 60_000
"""How far the newcomer's clock may be ahead. The inviter judges by its own clock, without slack."""

_PREFIX = re.compile(r"CORTEX([0-9]{1,4})-")
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_KEY_CONTEXT = b"cortex-node/invitation/v1\0"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a code says. `fingerprint`: SHA-256 of the CA's DER, the mesh id."""

    secret: bytes = field(repr=False)
    fingerprint: bytes
    expires_ms: int
    addresses: tuple[str, ...]


class Grants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the newcomer will be: kept by the inviter, never in the code, so nobody can change it on the way."""

    role: Role
    projects: tuple[str, ...]


class InvitationBook(Protocol):
    """The inviter's record of open and used invitations; node.store keeps it on disk."""

    async def put(self, secret_hash: bytes, grants_json: str, expires_ms: int) -> None:
        """Record an invitation; on disk when this returns."""

    async def take(self, secret_hash: bytes, now_ms: int, node_id: str) -> str:
        """Mark the invitation as used by this node, on disk when this returns, and return its grants_json.

        In one transaction. Raises what `refused` makes: unknown; used, by another node; expired, from its `expires_ms`.
        """


class _Payload(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    fingerprint: Annotated[bytes, Meta(min_length=FINGERPRINT_BYTES, max_length=FINGERPRINT_BYTES)]
    expires_s: Annotated[int, Meta(ge=0, lt=1 << 40)]
    addresses: Annotated[
        tuple[Annotated[str, Meta(max_length=MAX_ADDRESS_CHARS)], ...], Meta(min_length=1, max_length=MAX_ADDRESSES)
    ]


async def invite(
    book: InvitationBook,
    me: Identity,
    addresses: Iterable[str],
    *,
    role: Role = Role.MEMBER,
    projects: Iterable[str] = (mesh.ALL_PROJECTS,),
    ttl_ms: int = DEFAULT_TTL_MS,
    now_ms: int,
) -> Invitation:
    """A new invitation into my mesh. `addresses`: where this node's peer port can be reached, the likeliest first.

    Raises Problem: not_the_founder, bad_grant, bad_address, bad_ttl. After a Problem nothing was recorded.
    """
    mesh.load_authority(me)
    grants = Grants(role, mesh.check_grants(projects))
    knocks = tuple(addresses)
    if not 0 < len(knocks) <= MAX_ADDRESSES:
        raise _bad_address(f"{len(knocks)} addresses: an invitation carries 1 to {MAX_ADDRESSES}")
    for address in knocks:
        parse_address(address)
    if not 1_000 <= ttl_ms <= MAX_TTL_MS:
        raise Problem(
            422,
            "bad_ttl",
            f"an invitation can't be valid for {ttl_ms / 1000:g} s",
            f"choose --ttl from 1s to {MAX_TTL_MS // 86_400_000}d",
            "ttl",
        )
    expires_ms = (now_ms + ttl_ms) // 1000 * 1000
    invitation = Invitation(secrets.token_bytes(SECRET_BYTES), me.mesh_id, expires_ms, knocks)
    await book.put(secret_hash(one_time_key(invitation.secret)[0]), msgspec.json.encode(grants).decode(), expires_ms)
    return invitation


def read_grants(grants_json: str) -> Grants:
    """What `invite` recorded. Raises msgspec.ValidationError when the book was written by a different version."""
    return msgspec.json.decode(grants_json, type=Grants)


def one_time_key(secret: bytes) -> tuple[bytes, bytes]:
    """The invitation's key pair (32 and 64 bytes, libsodium's), which the newcomer signs with."""
    return key_pair(sha256(_KEY_CONTEXT + secret).digest())


def secret_hash(public_key: bytes) -> bytes:
    """What the book knows an invitation by: 32 bytes from which neither secret nor signature can be had."""
    return sha256(_KEY_CONTEXT + public_key).digest()


def refused(reason: str, more: str = "") -> Problem:
    """The Problem of an invitation that is `unknown`, `expired` or `used`; `more` ends the sentence that says so."""
    status, detail = {
        "unknown": (403, "the node that was asked has made no such invitation, or has forgotten it"),
        "expired": (410, "the invitation has expired"),
        "used": (410, "the invitation has been used by another node; each is for one"),
    }[reason]
    return Problem(status, f"invitation_{reason}", detail + more, "ask for a new code: `cortex-node invite`")


def encode(invitation: Invitation) -> str:
    """The code, in characters that QR codes pack tightly."""
    payload = msgspec.msgpack.encode(
        _Payload(invitation.secret, invitation.fingerprint, invitation.expires_ms // 1000, invitation.addresses)
    )
    return f"CORTEX{VERSION}-" + b32encode(payload + _checksum(payload)).decode().rstrip("=")


def decode(code: str, now_ms: int) -> Invitation:
    """What a code says, however it was copied. Raises Problem: invitation_damaged, _version, _expired."""
    if len(code) > MAX_CODE_CHARS:
        raise _damaged(f"it has {len(code)} characters")
    text = "".join(code.split()).upper()
    start = _PREFIX.match(text)
    if not start:
        raise _damaged(f"it does not begin with CORTEX{VERSION}-")
    if int(start[1]) != VERSION:
        raise Problem(
            422,
            "invitation_version",
            f"the code is of version {int(start[1])}, this program reads version {VERSION}",
            "bring cortex-node to the same version on both machines, then ask for a new code",
            "code",
        )
    body = text[start.end() :].replace("-", "")
    try:
        raw = b32decode(body + "=" * (-len(body) % 8), map01="I")
    except ValueError as error:
        raise _damaged(f"it can't be read ({error})") from None
    if raw[-CHECKSUM_BYTES:] != _checksum(raw[:-CHECKSUM_BYTES]):
        raise _damaged("its checksum is wrong")
    try:
        payload = msgspec.msgpack.decode(raw[:-CHECKSUM_BYTES], type=_Payload)
    except msgspec.DecodeError as error:
        raise _damaged(f"it can't be read ({error})") from None
    for address in payload.addresses:
        parse_address(address)
    if now_ms >= payload.expires_s * 1000 + CLOCK_SLACK_MS:
        ended = rfc3339(payload.expires_s * 1000)
        raise refused("expired", f", at {ended}; this machine's clock says {rfc3339(now_ms)}")
    return Invitation(payload.secret, payload.fingerprint, payload.expires_s * 1000, payload.addresses)


def parse_address(address: str) -> tuple[str, int]:
    """Host (an IPv6 address without its brackets) and port of `HOST:PORT`. Raises Problem bad_address."""
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < int(found["port"]) < 65_536 or len(address) > MAX_ADDRESS_CHARS:
        raise _bad_address(f"{address[:MAX_ADDRESS_CHARS]!r} is not an address")
    return found["host"].strip("[]"), int(found["port"])


def qr(code: str) -> str:
    """The code as a QR code, in half blocks of a terminal."""
    import segno  # 2 MB that only this needs

    drawn = io.StringIO()
    segno.make(code, error="l", micro=False).terminal(drawn, compact=True)
    return drawn.getvalue()


def _checksum(payload: bytes) -> bytes:
    return sha256(payload).digest()[:CHECKSUM_BYTES]


def _damaged(why: str) -> Problem:
    return Problem(
        422,
        "invitation_damaged",
        f"this is not a whole invitation: {why}",
        "copy the code again, all of it; or ask for a new one: `cortex-node invite`",
        "code",
    )


def _bad_address(detail: str) -> Problem:
    return Problem(
        422, "bad_address", detail, "give HOST:PORT, such as 192.168.1.5:7400 or [2001:db8::5]:7400", "address"
    )
