"""Digests of what a node has: equal digests, equal knowledge, and nothing needs to be said.

A project's digest is taken over its name, its version vector and its Merkle root. Two nodes with equal vectors and
different roots therefore differ: bit rot or a lost row cannot hide behind a vector that claims otherwise. A project of
which nothing is here has no digest, so that it does not matter whether a node has heard of its name.

The digest of all shared projects opens each round (sync/PROTOCOL.md). Tests: tests/sync/test_digest.py.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

from crdt import version

DIGEST_BYTES: Final = 16
SHORT_BYTES: Final = 8
"""Names a project's state inside one round. The whole digest still decides, so a collision only costs a round."""


def of_project(name: str, vector: Mapping[bytes, int], root: bytes) -> bytes:
    """16 bytes for one project's state."""
    state = blake2b(digest_size=DIGEST_BYTES, person=b"cortex/project")
    state.update(version.digest(vector) + root + name.encode())
    return state.digest()


def of_all(digests: Iterable[bytes]) -> bytes:
    """16 bytes for the states of all projects that two peers share, in any order."""
    state = blake2b(digest_size=DIGEST_BYTES, person=b"cortex/shared")
    for digest in sorted(digests):
        state.update(digest)
    return state.digest()
