"""Trees for walks: sets of hashes without ops behind them, as small as a test likes or as large as a million."""

from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import blake2b
from typing import Any

from sync import codec, merkle
from sync.merkle import LEVELS, Leaf
from sync.messages import Message, Step
from sync.replica import Rows
from sync.walk import Descent

SALT = bytes(range(16))


def hashes(count: int, start: int = 0) -> list[bytes]:
    return [blake2b(number.to_bytes(8, "big"), digest_size=32).digest() for number in range(start, start + count)]


class Tree:
    """The reads of a walk over a set of hashes. The seq of an op is its place in the list."""

    def __init__(self, digests: Iterable[bytes]) -> None:
        self.seqs = {digest: seq for seq, digest in enumerate(digests, 1)}

    def sums(self, project: str, level: int, place: int) -> Mapping[int, Leaf]:
        nodes = merkle.leaves(self.seqs, (level + 1) * 4)
        return {child: leaf for child, leaf in nodes.items() if child >> 4 == place}

    def rows(self, project: str, level: int, place: int, most: int) -> Rows:
        found = sorted(digest for digest in self.seqs if merkle.node_of(digest, level) == place)[:most]
        return Rows({digest: self.seqs[digest] for digest in found}, False)

    def root(self, project: str) -> bytes:
        return merkle.root(*merkle.leaves(self.seqs, 0).get(0, merkle.EMPTY))

    def op(self, project: str, digest: bytes) -> bytes | None:
        return digest if digest in self.seqs else None


class Forest:
    """A million ops, 15 in each of 65,536 leaves; only those that are read are made. Some are missing."""

    PER_LEAF = 15

    def __init__(self, lacking: Iterable[tuple[int, int]] = ()) -> None:
        """`lacking`: (leaf, which of its ops)."""
        self._lacking = set(lacking)
        self._levels = [dict(level) for level in _whole()]
        for leaf, number in self._lacking:
            for level, nodes in enumerate(self._levels):
                place = leaf >> merkle.MAX_BITS - level * merkle.FAN_OUT_BITS
                total, count = nodes[place]
                nodes[place] = merkle.subtract(total, merkle.fingerprint(self._hash(leaf, number))), count - 1

    @staticmethod
    def _hash(leaf: int, number: int) -> bytes:
        return leaf.to_bytes(2, "big") + blake2b(bytes((leaf >> 8, leaf & 255, number)), digest_size=30).digest()

    def sums(self, project: str, level: int, place: int) -> Mapping[int, Leaf]:
        return {child: self._levels[level + 1][child] for child in merkle.children(place)}

    def root(self, project: str) -> bytes:
        return merkle.root(*self._levels[0][0])

    def rows(self, project: str, level: int, place: int, most: int) -> Rows:
        assert level == LEVELS
        numbers = (number for number in range(self.PER_LEAF) if (place, number) not in self._lacking)
        found = sorted((self._hash(place, number), number) for number in numbers)
        return Rows(dict(found), False)


@cache
def _whole() -> list[dict[int, Leaf]]:
    leaves = {leaf: (leaf * 0x9E3779B97F4A7C15 % 2**64, Forest.PER_LEAF) for leaf in range(1 << merkle.MAX_BITS)}
    return [merkle.level(leaves, merkle.MAX_BITS, depth) for depth in range(LEVELS + 1)]


def walk(left: Any, right: Any, begin: tuple[int, int] | None = None) -> tuple[Descent, Descent, list[Message]]:
    """A whole walk, begun by `left`, every message through its frame."""
    a, b = Descent(left, "p", SALT), Descent(right, "p", SALT)
    said: list[Message] = [through(a.begin_below(*begin) if begin else a.begin())]
    said.append(through(b.enter(said[0])))
    turn, other = a, b
    while not (a.over and b.over):
        answer = turn.answer(said[-1])  # type: ignore[arg-type]
        if answer is not None:
            said.append(through(answer))
        turn, other = other, turn
    return a, b, said


def through(message: Any) -> Any:
    """What arrives of it."""
    return codec.decode(codec.encode(message))


def size(messages: Iterable[Message]) -> int:
    return sum(len(codec.encode(message)) for message in messages)


LAST = Step({}, {}, b"")
