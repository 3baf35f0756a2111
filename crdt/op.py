"""The signed op: the one thing that is replicated. An immutable envelope, encoded once, kept and forwarded as received.

Bytes of an op: a MessagePack array (the fields of `Header`, in order, each in its shortest form), then 64 bytes of
Ed25519 signature over

    "cortex-node/op/v1" 0x00  +  mesh id (32 bytes)  +  the array's bytes

so that an op of one mesh is worthless in another. Its `hash` is BLAKE2b-256 of all its bytes, keyed by mesh and
project; the first 16 bits choose the op's Merkle leaf and bytes 8..16 are its fingerprint there (sync/merkle.py).

* `class` and the register (`subject`, `field`) are frozen for ever: they alone decide who dominates whom
  (crdt/survive.py). `kind` only says how to read `body`, so a node that does not know a kind still treats the op like
  every other node does.
* An empty `subject` creates a subject: its id is made of the op's own dot. An empty `field` writes every field at once.
* `seq` counts the author's ops over all projects; `prev` names the author's previous op *in this project* by seq and by
  the first 16 bytes of its hash, so gaps, forks and back-dating show without anybody's claim.
* `clock`: for a write, the version vector of its register as the writer saw it; for an add or a remove, the dots that
  it takes away. An op takes effect when the project's vector has reached its clock.

A bad envelope is the sender's fault and raises `BadOp`. A bad `body` does not: such an op is stored and forwarded
without effect, because whether an op counts must not depend on a node's version or configuration. What may be received
is bounded by the constants here; a node's own limits bind its own users only.

Golden bytes: tests/crdt/golden/. Laws: tests/crdt/test_op.py.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Final

import msgspec
from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError

from crdt.hlc import MAX_TIMESTAMP
from crdt.version import AUTHOR_ID_BYTES, Dot, author_id, subject_id

FORMAT: Final = 1
CONTEXT: Final = b"cortex-node/op/v1\0"
KEY_BYTES: Final = 32
HASH_BYTES: Final = 32
PREV_BYTES: Final = 16
SIGNATURE_BYTES: Final = crypto_sign_BYTES

MAX_TEXT_BYTES: Final = 1 << 20
"""The largest thing that a user may store: one text."""
MAX_BODY_BYTES: Final = MAX_TEXT_BYTES + 8_192
"""Such a text, and what says where it goes and what it replaces."""
MAX_OP_BYTES: Final = MAX_BODY_BYTES + 16_384
"""A body, and an envelope whose every field is full."""
MAX_NAME_BYTES: Final = 128
"""Of a project or a kind."""
MAX_SUBJECT_BYTES: Final = 128
MAX_FIELD_BYTES: Final = 512
"""Room for `link:` + a relation + the id it points to."""
MAX_CLOCK: Final = 64
"""More concurrent authors of one register are not seen in practice; a writer keeps the survivors and the newest."""
MAX_SEQ: Final = (1 << 62) - 1
MAX_EPOCH: Final = (1 << 63) - 1


class OpClass(IntEnum):
    """What an op does to its register. Frozen: a new class would be a new protocol."""

    WRITE = 1
    ADD = 2
    REMOVE = 3
    APPEND = 4


class BadOp(Exception):
    """An envelope that no honest node sends. `reason` is a short code: size, encoding, format, field, signature."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Header(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The signed fields of an op, in the order of their bytes."""

    format: int
    project: str
    op_class: int
    subject: str
    field: str
    node_key: bytes
    epoch: int
    seq: int
    prev_seq: int
    prev_hash: bytes
    timestamp: int
    clock: tuple[tuple[bytes, int], ...]
    kind: str
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Header).decode


@dataclass(frozen=True, eq=False)
class Op:
    """One op: its fields, its bytes as they were received, and its 32-byte hash. Equal ops have equal hashes."""

    header: Header
    raw: bytes
    hash: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @cached_property
    def author(self) -> bytes:
        """The 16-byte name of (node key, epoch)."""
        return author_id(self.header.node_key, self.header.epoch)

    @cached_property
    def dot(self) -> Dot:
        return Dot(self.author, self.header.seq)

    @cached_property
    def subject(self) -> str:
        """What the op is about; an op without a subject creates one, named by its dot."""
        return self.header.subject or subject_id(self.dot)

    @cached_property
    def clock(self) -> dict[bytes, int]:
        """Author id to seq: the version vector that a write saw, or the newest of the dots that the op takes away."""
        seen: dict[bytes, int] = {}
        for author, seq in self.header.clock:
            seen[author] = max(seq, seen.get(author, 0))
        return seen

    @property
    def op_class(self) -> OpClass:
        return OpClass(self.header.op_class)

    @property
    def project(self) -> str:
        return self.header.project

    @property
    def seq(self) -> int:
        return self.header.seq

    @property
    def timestamp(self) -> int:
        return self.header.timestamp

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        """Decides between concurrent writes: the later timestamp, then the author, then the hash. Never equal."""
        return self.header.timestamp, self.author, self.hash


def seal(mesh: bytes, header: Header, secret_key: bytes) -> Op:
    """Encode and sign an op. `secret_key` is libsodium's 64 bytes (seed and public key) of `header.node_key`.

    Raises BadOp when the header breaks a limit: the caller's own checks come first, so that is a programming error.
    """
    _check(header)
    payload = _encode(header)
    signed = crypto_sign(CONTEXT + mesh + payload, secret_key)
    raw = payload + signed[:SIGNATURE_BYTES]
    return Op(header, raw, op_hash(mesh, header.project, raw))


def verify(mesh: bytes, raw: bytes) -> Op:
    """The op in `raw`, received from anybody. Raises BadOp unless its envelope is well formed and truly signed."""
    op = decode(mesh, raw)
    payload, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
    if _encode(op.header) != payload:
        raise BadOp("encoding", "not in canonical form")
    try:
        crypto_sign_open(signature + CONTEXT + mesh + payload, op.header.node_key)
    except BadSignatureError:
        raise BadOp("signature", f"not signed by its author (seq {op.seq})") from None
    return op


def decode(mesh: bytes, raw: bytes) -> Op:
    """The op in `raw`, read back from our own store: checked for form, not for its signature. Raises BadOp."""
    if not SIGNATURE_BYTES < len(raw) <= MAX_OP_BYTES:
        raise BadOp("size", f"{len(raw)} bytes")
    try:
        header = _decode(memoryview(raw)[:-SIGNATURE_BYTES])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadOp("encoding", str(error)) from None
    _check(header)
    return Op(header, raw, op_hash(mesh, header.project, raw))


def op_hash(mesh: bytes, project: str, raw: bytes) -> bytes:
    """BLAKE2b-256 of an op's bytes, keyed by mesh and project, so that no set of ops collides in two meshes at once."""
    return blake2b(raw, digest_size=HASH_BYTES, key=_hash_key(mesh, project)).digest()


@lru_cache(maxsize=1024)
def _hash_key(mesh: bytes, project: str) -> bytes:
    return blake2b(mesh + project.encode(), digest_size=HASH_BYTES, person=b"cortex/project").digest()


def _check(header: Header) -> None:
    """Every limit of the envelope. Raises BadOp naming the field."""
    if header.format != FORMAT:
        raise BadOp("format", f"envelope format {header.format}, this version reads {FORMAT}")
    if not OpClass.WRITE <= header.op_class <= OpClass.APPEND:
        raise BadOp("field", f"class {header.op_class}")
    if len(header.node_key) != KEY_BYTES or not 0 <= header.epoch <= MAX_EPOCH:
        raise BadOp("field", "author")
    me = author_id(header.node_key, header.epoch)
    checks = (
        (0 < len(header.project.encode()) <= MAX_NAME_BYTES, "project"),
        (len(header.subject.encode()) <= MAX_SUBJECT_BYTES, "subject"),
        (len(header.field.encode()) <= MAX_FIELD_BYTES, "field"),
        (0 < len(header.kind.encode()) <= MAX_NAME_BYTES, "kind"),
        (0 < header.seq <= MAX_SEQ, "seq"),
        (0 <= header.prev_seq < header.seq, "prev"),
        (len(header.prev_hash) == (PREV_BYTES if header.prev_seq else 0), "prev"),
        (0 <= header.timestamp <= MAX_TIMESTAMP, "timestamp"),
        (len(header.body) <= MAX_BODY_BYTES, "body"),
        (len(header.clock) <= MAX_CLOCK, "clock"),
        (all(len(author) == AUTHOR_ID_BYTES and 0 < seq <= MAX_SEQ for author, seq in header.clock), "clock"),
        (all(left < right for left, right in zip(header.clock, header.clock[1:], strict=False)), "clock"),
        (header.op_class != OpClass.APPEND or not header.clock, "clock"),
        (all(seq < header.seq for author, seq in header.clock if author == me), "clock"),
    )
    for holds, name in checks:
        if not holds:
            raise BadOp("field", name)
