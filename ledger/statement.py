"""Signed statements: the texts of the entries that are not votes, on which scores and the right to append depend.

    Genesis     which mesh, which certificate authority, which constants: made once, signed by the authority
    Enrolment   an agent's key, and the node whose voice it is: signed by agent and node, for an owner by the authority,
                for a new key in place of an old one by the old one
    Revocation  an agent's end: signed by the agent, its node or the authority
    Grant       who may append from here on: signed by the authority; the last entry of the epoch before

A text is a context ("cortex-node/genesis/v1" 0x00 and so on), a MessagePack array of the fields in order, each in its
shortest form, and one signature of 64 bytes for each of `signers`, over context and array. Every one names its mesh or
its ledger, so it is worthless elsewhere. Written by nodes only; agents outside sign votes (ledger.vote).

Tests: tests/ledger/test_statement.py.
"""

from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from ledger.ed25519 import KEY_BYTES, SIGNATURE_BYTES, is_signed, public_key, sign
from ledger.entry import HASH_BYTES, MAX_NUMBER, NO_HASH, Kind

MAX_STATEMENT_BYTES: Final = 4_096
"""A grant to MAX_HUBS hubs has 900 bytes."""
MAX_NAME_BYTES: Final = 128
MAX_HUBS: Final = 16
"""etcd's own advice is at most 7 members."""
ENGINES: Final = ("none", "solo", "etcd")


class BadStatement(Exception):
    """A text that is no such statement, or is not signed by all who must. An entry with it has no effect."""


class Constants(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What scores are computed with (ledger.score): the same on every node, because they are in the first entry."""

    prior: int = 800
    start: int = 700_000
    shift: int = 4


class Genesis(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The first entry. `authority`: the Ed25519 key of the mesh's CA. `time_ms` makes a second ledger another one."""

    mesh: bytes
    authority: bytes
    constants: Constants
    time_ms: int


class Enrolment(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """An agent. `voice`: the key of the node that enrols it. `replaces`: its key until now, empty for a new agent."""

    mesh: bytes
    agent: bytes
    name: str
    voice: bytes
    owner: bool
    replaces: bytes
    time_ms: int


class Revocation(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """From its entry on the agent votes no more. `void_from`: the index from which its earlier votes are void, too."""

    mesh: bytes
    agent: bytes
    void_from: int | None
    by: bytes
    time_ms: int


class Grant(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Who may append after `start_size` entries with `start_root`, to which its own entry is added first.

    `hubs`: the keys that sign checkpoints. `previous`: SHA-256 of the text of the grant before; zeros for the first.
    """

    ledger: bytes
    epoch: int
    engine: str
    hubs: tuple[bytes, ...]
    start_size: int
    start_root: bytes
    previous: bytes = NO_HASH


Statement = Genesis | Enrolment | Revocation | Grant

_TYPES: Final[dict[int, type[Statement]]] = {
    Kind.GENESIS: Genesis,
    Kind.ENROLMENT: Enrolment,
    Kind.REVOCATION: Revocation,
    Kind.GRANT: Grant,
}
_encode = msgspec.msgpack.Encoder().encode


def kind_of(statement: Statement) -> Kind:
    return next(Kind(kind) for kind, its_type in _TYPES.items() if isinstance(statement, its_type))


def signers(statement: Statement, authority: bytes) -> list[bytes]:
    """The keys that must sign, in the order of their signatures. `authority`: the key of the mesh's CA."""
    match statement:
        case Genesis() | Grant():
            return [authority]
        case Enrolment(agent=agent, voice=voice, owner=owner, replaces=replaces):
            return [agent, voice, *([authority] if owner else []), *([replaces] if replaces else [])]
        case Revocation(by=by):
            return [by]


def payload(statement: Statement) -> bytes:
    """What is signed. Raises BadStatement for a field out of bounds."""
    _check(statement)
    return _context(kind_of(statement)) + _encode(statement)


def seal(statement: Statement, authority: bytes, secrets: Sequence[bytes]) -> bytes:
    """The text. `secrets` (64 bytes each): of all of `signers`, in any order. Raises BadStatement."""
    signed, by_key = payload(statement), {public_key(secret): secret for secret in secrets}
    if missing := [key for key in signers(statement, authority) if key not in by_key]:
        raise BadStatement(f"no secret key for {missing[0].hex()[:16]}, which must sign")
    return signed + b"".join(sign(by_key[key], signed) for key in signers(statement, authority))


def decode(kind: int, text: bytes) -> Statement:
    """The statement in `text`, checked for form and not for its signatures. Raises BadStatement."""
    if (its_type := _TYPES.get(kind)) is None:
        raise BadStatement(f"kind {kind} is no statement")
    context = _context(Kind(kind))
    if len(text) > MAX_STATEMENT_BYTES or not text.startswith(context):
        raise BadStatement(f"not a statement of kind {kind} in this format")
    for count in range(1, 5):
        body = text[len(context) : -SIGNATURE_BYTES * count]
        try:
            statement = msgspec.msgpack.decode(body, type=its_type)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if _encode(statement) == body and len(signers(statement, bytes(KEY_BYTES))) == count:
            _check(statement)
            return statement
    raise BadStatement("not in canonical form, or not the signatures that it needs")


def verify(kind: int, text: bytes, authority: bytes) -> Statement:
    """The statement in `text`. Raises BadStatement unless all who must have signed it. About 60 us a signature."""
    statement = decode(kind, text)
    keys = signers(statement, authority)
    end = len(text) - SIGNATURE_BYTES * len(keys)
    for place, key in enumerate(keys):
        start = end + SIGNATURE_BYTES * place
        if not is_signed(key, text[:end], text[start : start + SIGNATURE_BYTES]):
            raise BadStatement(f"not signed by {key.hex()[:16]}")
    if isinstance(statement, Genesis) and statement.authority != authority:
        raise BadStatement("the ledger of another certificate authority")
    return statement


def _context(kind: Kind) -> bytes:
    return f"cortex-node/{kind.name.lower()}/v1\0".encode()


def _check(statement: Statement) -> None:
    match statement:
        case Genesis(mesh=mesh, authority=authority, constants=constants):
            fine = 0 < constants.prior <= 1_000_000 and 0 <= constants.start <= 1_000_000 and 0 < constants.shift < 20
            keys, hashes, numbers = [authority], [mesh], [statement.time_ms]
        case Enrolment(mesh=mesh, name=name):
            fine = 0 < len(name.encode()) <= MAX_NAME_BYTES and statement.agent != statement.replaces
            keys = [statement.agent, statement.voice, *([statement.replaces] if statement.replaces else [])]
            hashes, numbers = [mesh], [statement.time_ms]
        case Revocation(mesh=mesh, void_from=void_from):
            fine, keys, hashes = True, [statement.agent, statement.by], [mesh]
            numbers = [statement.time_ms, void_from or 0]
        case Grant(engine=engine, hubs=hubs):
            fine = engine in ENGINES and 0 < len(hubs) <= MAX_HUBS and len(set(hubs)) == len(hubs)
            keys, hashes = list(hubs), [statement.ledger, statement.start_root, statement.previous]
            numbers = [statement.epoch - 1, statement.start_size]
        case _:
            assert_never(statement)
    fine = fine and all(len(key) == KEY_BYTES for key in keys) and all(len(one) == HASH_BYTES for one in hashes)
    if not fine or not all(0 <= number <= MAX_NUMBER for number in numbers):
        raise BadStatement(f"a field of the {type(statement).__name__.lower()} is out of bounds")
