"""Ledger entries: ENTRY_BYTES bytes each, the same for every kind, hashed and stored verbatim.

An entry is the hub's sequencing data and the SHA-256 of a text that lies beside it: a signed vote (ledger.vote) or a
signed statement (ledger.statement). So a text can be deleted and the chain still checks, and an inclusion proof shows
nothing about anybody's vote: the hash covers a signature, which cannot be guessed.

    offset  bytes
         0     16  "cortex-entry/v1" 0x00
        16      1  kind
        17      1  flags: 1 = the voter wrote the version that it votes on
        18      8  index, from 0                          (numbers are unsigned, big-endian)
        26      8  epoch: the number of grants before it
        34      8  time, milliseconds since 1970 UTC, by the hub's clock; decides nothing
        42     32  prev: the hash of the entry before it, zeros for the first
        74      8  project_prev: the index of the entry before it with the same tag, 0 when there is none
        82     32  project tag, zeros when it is about no project
       114     32  SHA-256 of the text

The hash of an entry is SHA-256("cortex-chain/v1" 0x00 + its bytes): the chain. Its leaf in the tree is
ledger.tlog.leaf_hash of its bytes. The hash of entry 0 is the ledger's id.

A project's tag is a hash keyed with a secret that only its carriers and the hubs have, so nobody else can test a name.
`project_prev` links a project's entries, and those without one, so that a node which is sent only some of a ledger sees
what was left out. Kinds are open: one that is not known freezes scores, never the chain.
Tests: tests/ledger/test_entry.py.
"""

from enum import IntEnum
from hashlib import blake2b, sha256
from struct import Struct
from typing import Final

import msgspec

CONTEXT: Final = b"cortex-entry/v1\0"
CHAIN_CONTEXT: Final = b"cortex-chain/v1\0"
HASH_BYTES: Final = 32
TAG_BYTES: Final = 32
PROJECT_KEY_BYTES: Final = 32
NO_HASH: Final = bytes(HASH_BYTES)
NO_PROJECT: Final = bytes(TAG_BYTES)
MAX_NUMBER: Final = (1 << 62) - 1
_OWN: Final = 1
_LAYOUT: Final = Struct(">16sBBQQQ32sQ32s32s")
ENTRY_BYTES: Final = _LAYOUT.size


class BadEntry(Exception):
    """Bytes that no hub writes."""


class Kind(IntEnum):
    """What the text of an entry is. A number that is not here belongs to a later version."""

    GENESIS = 1
    ENROLMENT = 2
    REVOCATION = 3
    GRANT = 4
    VOTE = 5


class Entry(msgspec.Struct, frozen=True):
    """One line of the ledger. `own`: the voter wrote the version, so its vote weighs nothing (ledger.score)."""

    kind: int
    own: bool
    index: int
    epoch: int
    time_ms: int
    prev: bytes
    project_prev: int
    project_tag: bytes
    text_hash: bytes


def encode(entry: Entry) -> bytes:
    """The entry's bytes. Raises BadEntry for what `decode` would refuse: a mistake of the caller."""
    kind, own, *rest = msgspec.structs.astuple(entry)
    raw = _LAYOUT.pack(CONTEXT, kind, _OWN if own else 0, *rest)
    if decode(raw) != entry:
        raise BadEntry(f"entry {entry.index} does not come back from its bytes")
    return raw


def decode(raw: bytes) -> Entry:
    """The entry in `raw`, checked for form. Raises BadEntry."""
    if len(raw) != ENTRY_BYTES:
        raise BadEntry(f"{len(raw)} bytes, not {ENTRY_BYTES}")
    context, kind, flags, index, epoch, time_ms, prev, project_prev, tag, text_hash = _LAYOUT.unpack(raw)
    if context != CONTEXT:
        raise BadEntry("not an entry of this format")
    if max(index, epoch, time_ms) > MAX_NUMBER or flags & ~_OWN or kind == 0:
        raise BadEntry("a number out of bounds")
    if project_prev and project_prev >= index:
        raise BadEntry(f"entry {index} names {project_prev} as the entry before it")
    if kind in _KINDS and (kind == Kind.VOTE) != (tag != NO_PROJECT):
        raise BadEntry("a vote has a project, a statement has none")
    if flags and kind != Kind.VOTE:
        raise BadEntry("a flag of votes on something else")
    return Entry(kind, flags == _OWN, index, epoch, time_ms, prev, project_prev, tag, text_hash)


def entry_hash(raw: bytes) -> bytes:
    """The link of the chain: what the next entry names as `prev`."""
    return sha256(CHAIN_CONTEXT + raw).digest()


def text_hash(text: bytes) -> bytes:
    return sha256(text).digest()


def project_tag(project_key: bytes, project: str) -> bytes:
    """The tag of a project's entries. `project_key`: 32 secret bytes, the same for the project's whole life."""
    if len(project_key) != PROJECT_KEY_BYTES:
        raise ValueError(f"a project key has {PROJECT_KEY_BYTES} bytes")
    return blake2b(project.encode(), digest_size=TAG_BYTES, key=project_key, person=b"cortex/tag").digest()


_KINDS: Final = frozenset(Kind)
