"""The Merkle tree's maths: sums of fingerprints that do not depend on the order in which ops came.

An op's 32-byte hash (crdt.op.op_hash) places it: its first `bits` bits name its leaf, its bytes 8..16 are its
fingerprint. A leaf is the sum mod 2^64 of the fingerprints in it, and their number. Sums form a group, so

* adding needs only the leaf that an op falls into, and removing undoes adding;
* a tree with fewer leaves is the fold of one with more, so peers whose trees have different depths still compare;
* the root of a project is made from its total alone.

A small project keeps a shallow tree (`bits_for`). Inner levels (`level`, fan-out 16) are not stored anywhere. SQLite
has signed 64-bit integers only: `to_signed`, `from_signed`.

A sum of 64-bit fingerprints does not resist an insider who may choose ops; signatures, keyed hashes and a salted audit
do that. Sumner, "Tictac trees" (kv_index_tictactree). Laws: tests/sync/test_merkle.py.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

ROOT_BYTES: Final = 16
FAN_OUT_BITS: Final = 4
"""16 children: of 16, 64 and 256 the fewest bytes per difference (15.6 KB against 165 KB for 100 in 10,000)."""
MAX_BITS: Final = 16
BITS: Final = (8, 12, MAX_BITS)
"""The depths that a tree grows through: each is a whole number of levels."""
OPS_PER_LEAF: Final = 8
"""A tree grows when its leaves hold more on average: short ids of 8 ops fit one small message."""

_MODULUS: Final = 1 << 64

Leaf = tuple[int, int]
"""(sum, number of ops)."""
EMPTY: Final[Leaf] = (0, 0)


def leaf_of(digest: bytes, bits: int) -> int:
    """The leaf, 0..2^bits - 1, of the op whose 32-byte hash is `digest`."""
    return int.from_bytes(digest[:2], "big") >> (MAX_BITS - bits)


def fingerprint(digest: bytes) -> int:
    """What the op adds to the sum of its leaf."""
    return int.from_bytes(digest[8:16], "big")


def add(left: int, right: int) -> int:
    """Two sums in one."""
    return (left + right) % _MODULUS


def subtract(left: int, right: int) -> int:
    """`left` without what `right` had added to it."""
    return (left - right) % _MODULUS


def to_signed(value: int) -> int:
    """A sum as SQLite can hold it: -2^63..2^63 - 1."""
    return value - _MODULUS if value >= _MODULUS >> 1 else value


def from_signed(value: int) -> int:
    """A sum as SQLite held it, 0..2^64 - 1 again."""
    return value % _MODULUS


def bits_for(count: int) -> int:
    """How deep the tree of a project with `count` ops is. It never gets shallower again: see the caller."""
    return next((bits for bits in BITS if count <= OPS_PER_LEAF << bits), MAX_BITS)


def root(total: int, count: int) -> bytes:
    """16 bytes for the sum over all leaves and the number of ops in them, whatever the depth of the tree."""
    state = blake2b(digest_size=ROOT_BYTES, person=b"cortex/root")
    state.update(total.to_bytes(8, "big") + count.to_bytes(8, "big"))
    return state.digest()


EMPTY_ROOT: Final = root(*EMPTY)
"""Of a project of which nothing is here."""


def leaves(digests: Iterable[bytes], bits: int) -> dict[int, Leaf]:
    """The leaves, those that are not empty, of the ops with these hashes."""
    made: dict[int, Leaf] = {}
    for digest in digests:
        place = leaf_of(digest, bits)
        held, count = made.get(place, EMPTY)
        made[place] = add(held, fingerprint(digest)), count + 1
    return made


def fold(tree: Mapping[int, Leaf], bits: int, to_bits: int) -> dict[int, Leaf]:
    """The same ops in a tree of 2^to_bits leaves, `to_bits` <= `bits`."""
    folded: dict[int, Leaf] = {}
    for place, (held, count) in tree.items():
        above = place >> (bits - to_bits)
        total, number = folded.get(above, EMPTY)
        folded[above] = add(total, held), number + count
    return folded


def level(tree: Mapping[int, Leaf], bits: int, depth: int) -> dict[int, Leaf]:
    """The nodes at `depth` below the root (0: the root alone), each the sum of its 16 children."""
    return fold(tree, bits, depth * FAN_OUT_BITS)


def children(node: int) -> range:
    """The places, one level down, of a node's children."""
    return range(node << FAN_OUT_BITS, (node + 1) << FAN_OUT_BITS)
