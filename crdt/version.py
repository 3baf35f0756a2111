"""Dots and version vectors: what a node has seen, author by author.

An author is one epoch of one node key, named by 16 bytes (`author_id`). Each op has a dot, (author, seq). A version
vector maps an author to the seq of the last op of its gapless chain that is here. It always names a real op: seqs have
holes (an author counts over all projects, and skips the rest of a block after an unclean stop), so a vector claims a
chain, never a range of numbers.

Vectors are plain dictionaries; these functions never change one in place. A missing author counts as 0, and no entry is
0, so that equal knowledge is an equal dictionary with an equal `digest`.

Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", 1983; Preguiça et al., "Dotted Version
Vectors", 2010. Laws: tests/crdt/test_version.py.
"""

from base64 import b32encode
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

AUTHOR_ID_BYTES = 16
DIGEST_BYTES = 16
ID_BYTES = 10
"""Ids shown to people carry 80 bits of the author: 16 characters, and no two offline nodes ever mint the same."""

Vector = dict[bytes, int]
"""Author id to seq."""


class Dot(NamedTuple):
    """One op's place: `author` (16 bytes) and `seq` (from 1)."""

    author: bytes
    seq: int


class Ordering(Enum):
    """How one vector stands to another."""

    EQUAL = "equal"
    BEFORE = "before"
    AFTER = "after"
    CONCURRENT = "concurrent"


@lru_cache(maxsize=4096)
def author_id(node_key: bytes, epoch: int) -> bytes:
    """The 16-byte name of (node key, epoch)."""
    return blake2b(node_key + epoch.to_bytes(8, "big"), digest_size=AUTHOR_ID_BYTES, person=b"cortex/author").digest()


@lru_cache(maxsize=4096)
def node_id(node_key: bytes) -> str:
    """The name of a node as people see it: 16 characters of base32, from its 32-byte Ed25519 key."""
    return _base32(blake2b(node_key, digest_size=ID_BYTES, person=b"cortex/node").digest())


def subject_id(dot: Dot) -> str:
    """The id of what an op creates, as people see it: `author tag - seq`, such as `k7q2m4zx5tvb3nya-17`."""
    return f"{_base32(dot.author[:ID_BYTES])}-{dot.seq}"


def covers(vector: Mapping[bytes, int], other: Mapping[bytes, int]) -> bool:
    """Whether `vector` has everything that `other` has."""
    return all(vector.get(author, 0) >= seq for author, seq in other.items())


def compare(left: Mapping[bytes, int], right: Mapping[bytes, int]) -> Ordering:
    """Where `left` stands to `right`: BEFORE means that `right` has more."""
    match covers(left, right), covers(right, left):
        case True, True:
            return Ordering.EQUAL
        case True, False:
            return Ordering.AFTER
        case False, True:
            return Ordering.BEFORE
        case _:
            return Ordering.CONCURRENT


def merge(left: Mapping[bytes, int], right: Mapping[bytes, int]) -> dict[bytes, int]:
    """The least vector that covers both."""
    merged = dict(left)
    for author, seq in right.items():
        if seq > merged.get(author, 0):
            merged[author] = seq
    return merged


def digest(vector: Mapping[bytes, int]) -> bytes:
    """16 bytes that are equal when the vectors are equal."""
    state = blake2b(digest_size=DIGEST_BYTES, person=b"cortex/vector")
    for author in sorted(vector):
        state.update(author + vector[author].to_bytes(8, "big"))
    return state.digest()


@lru_cache(maxsize=4096)
def _base32(data: bytes) -> str:
    return b32encode(data).decode().lower()
