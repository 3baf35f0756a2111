"""The signed vote: what an agent says about one version of a fact, in bytes that any language can make.

The agent signs, with Ed25519, exactly these bytes; the vote is these bytes and then the 64 of the signature:

    "cortex-node/vote/v1" 0x00
    mesh id (32 bytes)
    length (2 bytes), project in UTF-8
    length (2 bytes), fact id in UTF-8
    version (32 bytes): the hash of the op that wrote the content
    agent's public key (32 bytes)
    counter (8 bytes): 1 + the highest that the agent has seen of its own on this version
    value (1 byte): 0x01 up, 0xff down, 0x00 withdrawn
    SHA-256 of the reason in UTF-8 (32 bytes), of nothing when there is none
    time (8 bytes), milliseconds since 1970 UTC, by the agent's clock; decides nothing

Numbers are big-endian. Everything that the vote is about is in it, so it is worthless on another version, in another
project or mesh, or for another agent. The SHA-256 of the whole names it: by that name a ledger holds it once.

Vectors: ledger/FORMAT.md, checked by tests/ledger/test_vote.py.
"""

from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple

from ledger.ed25519 import KEY_BYTES, SIGNATURE_BYTES, is_signed, public_key
from ledger.ed25519 import sign as sign_bytes

CONTEXT: Final = b"cortex-node/vote/v1\0"
MESH_BYTES: Final = 32
HASH_BYTES: Final = 32
MAX_NAME_BYTES: Final = 128
"""Of a project or a fact id, as in an op."""
MAX_COUNTER: Final = (1 << 53) - 1
"""The largest number that JSON carries everywhere."""
MAX_TIME_MS: Final = (1 << 53) - 1
UP, WITHDRAWN, DOWN = 1, 0, -1
_LENGTH_BYTES: Final = 2
_TAIL: Final = Struct(">32s32sQb32sQ")


class BadVote(Exception):
    """Bytes that are no vote, or not one by the agent that they name. `reason`: encoding, field, mesh, signature."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Vote(NamedTuple):
    """What was signed. `agent`: its public key; `version`, `reason_hash`: 32 bytes each."""

    mesh: bytes
    project: str
    fact: str
    version: bytes
    agent: bytes
    counter: int
    value: int
    reason_hash: bytes
    time_ms: int


def reason_hash(reason: str = "") -> bytes:
    return sha256(reason.encode()).digest()


def vote_id(signed: bytes) -> bytes:
    """The name of a signed vote: the text hash of its entry, and what submissions are deduplicated by."""
    return sha256(signed).digest()


def statement(vote: Vote) -> bytes:
    """The bytes that the agent signs. Raises BadVote for a field out of bounds."""
    _check(vote)
    names = b"".join(len(name).to_bytes(_LENGTH_BYTES, "big") + name for name in _names(vote))
    return CONTEXT + vote.mesh + names + _TAIL.pack(*vote[3:])


def sign(vote: Vote, secret: bytes) -> bytes:
    """The signed vote. `secret`: libsodium's 64 bytes of `vote.agent`."""
    if public_key(secret) != vote.agent:
        raise BadVote("signature", "the secret key is not that of the agent in the vote")
    return attach(vote, sign_bytes(secret, statement(vote)))


def attach(vote: Vote, signature: bytes) -> bytes:
    """The signed vote of an agent that signs elsewhere and sends fields and signature. Unverified: see `verify`."""
    return statement(vote) + signature


def verify(signed: bytes, mesh: bytes) -> Vote:
    """The vote in `signed`. Raises BadVote unless it is of this mesh and truly signed by its agent."""
    vote = decode(signed)
    if vote.mesh != mesh:
        raise BadVote("mesh", f"a vote of mesh {vote.mesh.hex()[:16]}")
    if not is_signed(vote.agent, signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:]):
        raise BadVote("signature", f"not signed by agent {vote.agent.hex()[:16]}")
    return vote


def decode(signed: bytes) -> Vote:
    """The vote in `signed`, checked for form and not for its signature. Raises BadVote.

    There is one way to write each vote, so what decodes also encodes to the same bytes.
    """
    place = len(CONTEXT) + MESH_BYTES
    if signed[: len(CONTEXT)] != CONTEXT:
        raise BadVote("encoding", "not a vote of this format")
    names = []
    for _ in range(2):
        length = int.from_bytes(signed[place : place + _LENGTH_BYTES], "big")
        names.append(signed[place + _LENGTH_BYTES : place + _LENGTH_BYTES + length])
        place += _LENGTH_BYTES + length
    if len(signed) != place + _TAIL.size + SIGNATURE_BYTES:
        raise BadVote("encoding", f"{len(signed)} bytes, where the lengths in it make {place + _TAIL.size} and 64")
    try:
        project, fact = (name.decode() for name in names)
    except UnicodeDecodeError:
        raise BadVote("encoding", "a name is not UTF-8") from None
    mesh = signed[len(CONTEXT) : len(CONTEXT) + MESH_BYTES]
    vote = Vote(mesh, project, fact, *_TAIL.unpack(signed[place:-SIGNATURE_BYTES]))
    _check(vote)
    return vote


def _names(vote: Vote) -> tuple[bytes, bytes]:
    return vote.project.encode(), vote.fact.encode()


def _check(vote: Vote) -> None:
    checks = (
        (len(vote.mesh) == MESH_BYTES, "mesh"),
        (all(0 < len(name) <= MAX_NAME_BYTES for name in _names(vote)), "project or fact"),
        (len(vote.version) == HASH_BYTES, "version"),
        (len(vote.agent) == KEY_BYTES, "agent"),
        (0 < vote.counter <= MAX_COUNTER, "counter"),
        (vote.value in (UP, WITHDRAWN, DOWN), "value"),
        (len(vote.reason_hash) == HASH_BYTES, "reason"),
        (0 <= vote.time_ms <= MAX_TIME_MS, "time"),
    )
    for holds, name in checks:
        if not holds:
            raise BadVote("field", name)
