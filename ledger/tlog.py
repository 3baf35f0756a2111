"""The Merkle tree of a log: roots, inclusion proofs, consistency proofs (RFC 6962 section 2.1, RFC 9162 section 2.1).

A tree of any size is made of complete subtrees. The hash of a complete subtree never changes, so it is stored once,
under `Node(level, number)`: it stands over the entries [number << level, (number + 1) << level). Everything else is
computed from at most 2 log2(size) of those. The tree itself is never in memory: what an appender keeps is a `Frontier`,
the at most 64 subtrees at the right edge.

Proofs come in pairs: `prove_*` reads stored hashes, `check_*` needs nothing but its arguments and raises BadProof. The
hash is SHA-256; a leaf is hashed with 0x00 before it and an inner node with 0x01, so neither can pass for the other.

All trees of 0..64 entries, every proof, every flipped bit: tests/ledger/test_tlog.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
MAX_SIZE: Final = 1 << 62
"""Entries of a log; also what a size read from outside may claim."""
MAX_PROOF_HASHES: Final = 64
"""A tree of MAX_SIZE is no higher; a longer proof is none."""


class BadProof(Exception):
    """A proof that does not show what it should. It convicts nobody: a fork takes two signed checkpoints."""


class Node(NamedTuple):
    """A complete subtree: 2**level entries, from entry number * 2**level on. Level 0 is the leaves."""

    level: int
    number: int


class HashReader(Protocol):
    """Where the hashes of complete subtrees are stored: a table, tiles, a dictionary."""

    def read_hashes(self, nodes: Sequence[Node]) -> Sequence[bytes]:
        """The hashes of `nodes`, in their order. Raises LookupError when one is not stored."""
        ...


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree of `size` entries: the hashes of its complete subtrees, the largest first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()


Stored = tuple[Node, bytes]
"""A complete subtree and its hash: what an append adds to the store."""


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def read_frontier(size: int, reader: HashReader) -> Frontier:
    """The right edge of the first `size` entries. One read of at most 62 hashes."""
    return Frontier(size, tuple(reader.read_hashes(list(_cover(0, size)))))


def extend(frontier: Frontier, leaves: Iterable[bytes]) -> tuple[Frontier, list[Stored]]:
    """The frontier after `leaves` (leaf hashes), and all subtrees that they complete. Two hashes an entry."""
    edge, size, stored = list(frontier.hashes), frontier.size, []
    for leaf in leaves:
        level, number, top = 0, size, leaf
        stored.append((Node(level, number), top))
        while number & 1:
            level, number, top = level + 1, number >> 1, node_hash(edge.pop(), top)
            stored.append((Node(level, number), top))
        edge.append(top)
        size += 1
    return Frontier(size, tuple(edge)), stored


def frontier_root(frontier: Frontier) -> bytes:
    """The Merkle tree hash of the whole tree (RFC 9162 section 2.1.1)."""
    return _fold(frontier.hashes) if frontier.hashes else EMPTY_ROOT


def root(size: int, reader: HashReader) -> bytes:
    """The Merkle tree hash of the first `size` entries, also when the log has more. One read."""
    return frontier_root(read_frontier(size, reader))


def prove_inclusion(index: int, size: int, reader: HashReader) -> list[bytes]:
    """The audit path of entry `index` in the tree of the first `size` entries (RFC 9162 section 2.1.3.1). One read."""
    if not 0 <= index < size:
        raise ValueError(f"no entry {index} in a tree of {size}")
    low, high, ranges = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return _hashes_of(ranges[::-1], reader)


def check_inclusion(proof: Sequence[bytes], index: int, size: int, leaf: bytes, expected_root: bytes) -> None:
    """Raises BadProof unless `proof` shows the leaf hash at `index` under the root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size <= MAX_SIZE:
        raise BadProof(f"no entry {index} in a tree of {size}")
    _check_hashes([*proof, leaf, expected_root])
    place, last, top = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise BadProof(f"the proof of entry {index} is too long for a tree of {size}")
        if place & 1 or place == last:
            top = node_hash(sibling, top)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            top = node_hash(top, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof(f"the proof of entry {index} is too short for a tree of {size}")
    if top != expected_root:
        raise BadProof(f"the proof of entry {index} does not lead to the root of {size} entries")


def prove_consistency(old_size: int, new_size: int, reader: HashReader) -> list[bytes]:
    """The proof that the tree of `old_size` is the beginning of that of `new_size` (RFC 9162 section 2.1.4.1).

    Empty for an empty or an equal tree, about which the RFC says nothing. One read.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError(f"a tree of {new_size} does not begin with one of {old_size}")
    if old_size in (0, new_size):
        return []
    low, high, ranges = 0, new_size, []
    while old_size != high:
        middle = low + _split(high - low)
        if old_size <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    if low:
        ranges.append((low, high))
    return _hashes_of(ranges[::-1], reader)


def check_consistency(proof: Sequence[bytes], old_size: int, old_root: bytes, new_size: int, new_root: bytes) -> None:
    """Raises BadProof unless `proof` shows that the old tree is the beginning of the new one."""
    if old_size == 0 and not proof and old_root == EMPTY_ROOT and 0 <= new_size <= MAX_SIZE:
        return
    old, new = rebuild_roots(proof, old_size, new_size, old_root)
    if (old, new) != (old_root, new_root):
        raise BadProof(f"the proof from {old_size} to {new_size} entries does not lead to both roots")


def rebuild_roots(proof: Sequence[bytes], old_size: int, new_size: int, old_root: bytes) -> tuple[bytes, bytes]:
    """The two roots that a consistency proof leads to (RFC 9162 section 2.1.4.2), for whoever has to tell them apart.

    Where `old_size` is a power of two the proof begins, unsaid, with the old root: then `old_root` is that beginning,
    and comes back as it is. Raises BadProof when the proof has not the length that the sizes ask for.
    """
    if not 0 < old_size <= new_size <= MAX_SIZE:
        raise BadProof(f"no proof leads from {old_size} to {new_size} entries")
    _check_hashes([*proof, old_root])
    if old_size == new_size:
        if proof:
            raise BadProof("a proof between trees of one size is empty")
        return old_root, old_root
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    place, last = old_size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not path:
        raise BadProof(f"an empty proof from {old_size} to {new_size} entries")
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadProof(f"the proof from {old_size} to {new_size} entries is too long")
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof(f"the proof from {old_size} to {new_size} entries is too short")
    return old, new


def _split(width: int) -> int:
    """The largest power of two below `width`: where the RFC divides a tree."""
    return 1 << ((width - 1).bit_length() - 1)


def _cover(low: int, high: int) -> Iterator[Node]:
    """The complete subtrees of [low, high), the largest first. `low` is a multiple of the first one's width."""
    while low < high:
        level = (high - low).bit_length() - 1
        yield Node(level, low >> level)
        low += 1 << level


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The hash over neighbouring subtrees, the largest first."""
    top = hashes[-1]
    for left in reversed(hashes[:-1]):
        top = node_hash(left, top)
    return top


def _hashes_of(ranges: Sequence[tuple[int, int]], reader: HashReader) -> list[bytes]:
    """The tree hash of each range of entries, by one read."""
    covers = [list(_cover(low, high)) for low, high in ranges]
    hashes = iter(reader.read_hashes([node for cover in covers for node in cover]))
    return [_fold([next(hashes) for _ in cover]) for cover in covers]


def _check_hashes(hashes: Sequence[bytes]) -> None:
    """Bounds what came from outside before anything is computed from it."""
    if len(hashes) > MAX_PROOF_HASHES + 2 or any(len(value) != HASH_BYTES for value in hashes):
        raise BadProof("not a list of SHA-256 hashes")
