"""A store in a few words: what node/store.py promises, kept in dictionaries that survive a crash.

It holds what was committed and nothing else. An op joins its author's chain when the op that its `prev` names is the
head; until then it lies `ahead` and counts for nothing. Only an author whose introduction is here may write: an
introduction is any op of the reserved project. Sums are kept op by op, so that an op counted twice shows in the root.
"""

from collections.abc import Iterable, Mapping, Sequence

from crdt.op import PREV_BYTES, Op
from sync import merkle
from sync.overlap import RESERVED, covers


class UnknownAuthor(Exception):
    """An op of somebody who was not introduced. Nothing of its transaction stays."""


class Disk:
    """What one node has on disk, and the reads that its core makes of it (sync.replica.Replica)."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        self.now_ms = 0
        self.chains: dict[tuple[str, bytes], list[Op]] = {}
        self.ahead: dict[tuple[str, bytes], dict[bytes, Op]] = {}
        self.known: dict[str, dict[bytes, Op]] = {}
        self.sums: dict[str, merkle.Leaf] = {}
        self.introduced: set[bytes] = set()
        self.last_seq = 0

    def carried(self, project: str) -> bool:
        return project == RESERVED or any(covers(pattern, project) for pattern in self.patterns)

    # One transaction

    def commit(self, ops: Iterable[Op]) -> int:
        """Take in verified ops, all or none; returns how many of them now count that did not before."""
        ops = list(ops)
        introduced = {op.header.node_key for op in ops if op.project == RESERVED} | self.introduced
        if any(op.header.node_key not in introduced for op in ops):
            raise UnknownAuthor
        self.introduced = introduced
        return sum(self._take(op) for op in ops)

    def _take(self, op: Op) -> int:
        place = (op.project, op.author)
        chain = self.chains.setdefault(place, [])
        head = (chain[-1].seq, chain[-1].hash[:PREV_BYTES]) if chain else (0, b"")
        if op.hash in self.known.get(op.project, {}):
            return 0
        if (op.header.prev_seq, op.header.prev_hash) != head:
            if op.header.prev_seq > head[0]:
                self.ahead.setdefault(place, {})[op.hash] = op
            return 0
        chain.append(op)
        self.known.setdefault(op.project, {})[op.hash] = op
        total, count = self.sums.get(op.project, merkle.EMPTY)
        self.sums[op.project] = merkle.add(total, merkle.fingerprint(op.hash)), count + 1
        following = [late for late in self.ahead.get(place, {}).values() if late.header.prev_seq == op.seq]
        for late in following:
            del self.ahead[place][late.hash]
        return 1 + sum(self._take(late) for late in following)

    # What the core reads

    def carries(self) -> Sequence[str]:
        return self.patterns

    def projects(self) -> Iterable[str]:
        return [project for project in self.known if self.carried(project)]

    def vector(self, project: str) -> Mapping[bytes, int]:
        return {author: chain[-1].seq for (name, author), chain in self.chains.items() if name == project and chain}

    def root(self, project: str) -> bytes:
        return merkle.root(*self.sums.get(project, merkle.EMPTY))

    def ops_after(self, project: str, author: bytes, seq: int, max_ops: int, max_bytes: int) -> list[bytes]:
        found: list[bytes] = []
        size = 0
        for op in self.chains.get((project, author), []):
            if op.seq > seq:
                size += len(op.raw)
                if found and (len(found) == max_ops or size > max_bytes):
                    break
                found.append(op.raw)
        return found

    def lacking(self, project: str, vector: Mapping[bytes, int]) -> tuple[int, int]:
        ops = [op for op in self.known.get(project, {}).values() if op.seq > vector.get(op.author, 0)]
        return len(ops), min((op.timestamp >> 16 for op in ops), default=0)

    def wall_ms(self) -> int:
        return self.now_ms

    # What the tests read

    def has(self, op: Op) -> bool:
        """Whether the op is on disk, part of its chain or ahead of it."""
        return op.hash in self.known.get(op.project, {}) or op.hash in self.ahead.get((op.project, op.author), {})

    def in_effect(self, project: str) -> list[Op]:
        """The ops whose clocks the project's vector covers."""
        vector = self.vector(project)
        return [
            op
            for op in self.known.get(project, {}).values()
            if all(vector.get(author, 0) >= seq for author, seq in op.header.clock)
        ]

    def lose_row(self, op: Op) -> None:
        """Damage: a row that is gone, and the leaf with it, while the head still claims it."""
        del self.known[op.project][op.hash]
        total, count = self.sums[op.project]
        self.sums[op.project] = merkle.subtract(total, merkle.fingerprint(op.hash)), count - 1
