"""A store in a few words: what node/store.py promises, kept in dictionaries that survive a crash.

It holds what was committed and nothing else. An op joins its author's chain when the op that its `prev` names is there;
until then it lies `ahead` and counts for nothing. Two that name the same one are a fork, and both are kept. Only an
author whose introduction is here may write: an introduction is any op of the reserved project. Sums are kept op by op,
so that an op counted twice shows in the root. A `snapshot` is a backup: what the disk held then, the clock and all.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from crdt import fact, hlc, survive
from crdt.op import PREV_BYTES, Op, op_hash
from sync import merkle
from sync.overlap import RESERVED, covers
from sync.replica import Rows

CONTENT = ("chains", "ahead", "known", "totals", "introduced", "last_seq")


class UnknownAuthor(Exception):
    """An op of somebody who was not introduced. Nothing of its transaction stays."""


class Disk:
    """What one node has on disk, and the reads that its core makes of it (sync.replica.Replica)."""

    def __init__(self, patterns: Sequence[str], mesh: bytes = bytes(range(32))) -> None:
        self.patterns = tuple(patterns)
        self.now_ms = 0
        self.chains: dict[tuple[str, bytes], list[Op]] = {}
        self.ahead: dict[tuple[str, bytes], dict[bytes, Op]] = {}
        self.known: dict[str, dict[bytes, Op]] = {}
        self.totals: dict[str, merkle.Leaf] = {}
        self.introduced: set[bytes] = set()
        self.last_seq = 0
        self.clock = hlc.Clock()
        self.mesh = mesh
        self.drift: dict[tuple[str, int], int] = {}

    def carried(self, project: str) -> bool:
        return project == RESERVED or any(covers(pattern, project) for pattern in self.patterns)

    # One transaction

    def commit(self, ops: Iterable[Op], by_walk: bool = False) -> int:
        """Take in verified ops, all or none; returns how many of them now count that did not before.

        `by_walk`: they come back to a place in a chain that was theirs.
        """
        ops = list(ops)
        introduced = {op.header.node_key for op in ops if op.project == RESERVED} | self.introduced
        if any(op.header.node_key not in introduced for op in ops):
            raise UnknownAuthor
        self.introduced = introduced
        return sum(self._restore(op) if by_walk else self._take(op) for op in ops)

    def _restore(self, op: Op) -> int:
        """What a walk brought. The chain may still name it, although its row is gone or its bytes rotted."""
        known = self.known.setdefault(op.project, {})
        if op.hash not in {there.hash for there in self.chains.get((op.project, op.author), [])}:
            return self._take(op)
        if op.hash in known:
            return 0
        known[op.hash] = op
        self.totals[op.project] = _sum(known)
        return 1

    def _take(self, op: Op) -> int:
        place = (op.project, op.author)
        chain = self.chains.setdefault(place, [])
        if op.hash in self.known.get(op.project, {}):
            return 0
        if op.header.prev_seq and not any(_follows(op, there) for there in reversed(chain)):
            self.ahead.setdefault(place, {})[op.hash] = op
            return 0
        insort(chain, op, key=lambda op: (op.seq, op.hash))
        self.clock.observe(op.timestamp, self.now_ms)
        self.known.setdefault(op.project, {})[op.hash] = op
        total, count = self.totals.get(op.project, merkle.EMPTY)
        self.totals[op.project] = merkle.add(total, merkle.fingerprint(op.hash)), count + 1
        following = [late for late in self.ahead.get(place, {}).values() if _follows(late, op)]
        for late in following:
            del self.ahead[place][late.hash]
        return 1 + sum(self._take(late) for late in following)

    def snapshot(self) -> dict[str, Any]:
        """All that a backup would hold."""
        return {name: _copy(getattr(self, name)) for name in CONTENT} | {"clock": self.clock.last}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Put a backup back: whatever came after it was never here."""
        for name in CONTENT:
            setattr(self, name, _copy(snapshot[name]))
        self.clock.last = snapshot["clock"]

    # What the core reads

    def carries(self) -> Sequence[str]:
        return self.patterns

    def projects(self) -> Iterable[str]:
        return [project for project in self.known if self.carried(project)]

    def vector(self, project: str) -> Mapping[bytes, int]:
        return {author: chain[-1].seq for (name, author), chain in self.chains.items() if name == project and chain}

    def root(self, project: str) -> bytes:
        return merkle.root(*self.totals.get(project, merkle.EMPTY))

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

    def sums(self, project: str, level: int, place: int) -> Mapping[int, merkle.Leaf]:
        """Of the hashes under which the ops lie here, and of what a hand did to the books (`drift`)."""
        nodes: dict[int, merkle.Leaf] = {}
        for digest in self.known.get(project, {}):
            number = int.from_bytes(digest[:2], "big")
            if number >> 16 - 4 * level == place:
                child = number >> 12 - 4 * level
                total, count = nodes.get(child, merkle.EMPTY)
                nodes[child] = merkle.add(total, merkle.fingerprint(digest)), count + 1
        for (name, leaf), drift in self.drift.items():
            if name == project and leaf >> 16 - 4 * level == place:
                child = leaf >> 12 - 4 * level
                total, count = nodes.get(child, merkle.EMPTY)
                nodes[child] = merkle.add(total, drift), count
        return nodes

    def rows(self, project: str, level: int, place: int, most: int) -> Rows:
        found = self._below(project, level, place)
        good = {digest: op.seq for digest, op in found if self._truly(project, op) == digest}
        drifted = any(name == project and leaf >> 16 - 4 * level == place for name, leaf in self.drift)
        return Rows(dict(list(good.items())[:most]), drifted or len(good) < len(found))

    def op(self, project: str, digest: bytes) -> bytes | None:
        op = self.known.get(project, {}).get(digest)
        return op.raw if op and self._truly(project, op) == digest else None

    def content(self, project: str, level: int, place: int, salt: bytes) -> bytes:
        everything = b"".join(op.raw for _, op in self._below(project, level, place))
        return blake2b(everything, digest_size=16, key=salt).digest()

    def wall_ms(self) -> int:
        return self.now_ms

    def _below(self, project: str, level: int, place: int) -> list[tuple[bytes, Op]]:
        ops = sorted(self.known.get(project, {}).items())
        return [(digest, op) for digest, op in ops if int.from_bytes(digest[:2], "big") >> 16 - 4 * level == place]

    def _truly(self, project: str, op: Op) -> bytes:
        return op_hash(self.mesh, project, op.raw)

    # What the tests read

    def has(self, op: Op) -> bool:
        """Whether the op is on disk, part of its chain or ahead of it."""
        return op.hash in self.known.get(op.project, {}) or op.hash in self.ahead.get((op.project, op.author), {})

    def forgot(self, op: Op) -> bool:
        """Whether nothing here has ever heard of the op: not even that its row was lost."""
        return not self.has(op) and op not in self.chains.get((op.project, op.author), [])

    def head(self, project: str, author: bytes) -> tuple[int, bytes]:
        """What the author's next op follows: the highest seq, and of two the one with the smaller hash."""
        chain = self.chains.get((project, author), [])
        digests = [op.hash for op in chain if op.seq == chain[-1].seq]
        return (chain[-1].seq, min(digests)[:PREV_BYTES]) if chain else (0, b"")

    def in_effect(self, project: str) -> list[Op]:
        """The ops whose clocks the project's vector covers."""
        vector = self.vector(project)
        return [op for op in self.known.get(project, {}).values() if survive.in_effect(op, vector)]

    def shown(self, project: str) -> dict[str, fact.Fact | None]:
        """What users see now: every subject, and its fact. Ops from clocks too far ahead of ours are held."""
        subjects: dict[str, list[Op]] = {}
        for op in self.in_effect(project):
            subjects.setdefault(op.subject, []).append(op)
        limit = hlc.horizon(self.now_ms)
        return {subject: fact.fold(ops, limit) for subject, ops in sorted(subjects.items())}

    # Damage, and how it is mended

    def lose_row(self, op: Op) -> None:
        """A row that is gone, and the leaf with it, while the head still claims it."""
        del self.known[op.project][op.hash]
        self.totals[op.project] = _sum(self.known[op.project])

    def rot(self, op: Op) -> None:
        """A bit that has flipped: the books still stand for what was there."""
        raw = op.raw[:-1] + bytes((op.raw[-1] ^ 1,))
        self.known[op.project][op.hash] = Op(op.header, raw, op.hash)

    def drift_sum(self, op: Op) -> None:
        """The sum of the op's leaf changes by itself."""
        self.drift[op.project, int.from_bytes(op.hash[:2], "big")] = 12345
        total, count = self.totals[op.project]
        self.totals[op.project] = merkle.add(total, 12345), count

    def mend(self, project: str, level: int, place: int) -> None:
        """What the core calls `Damaged`: rotten rows are no longer there, and sums are those of the rows."""
        for digest, op in self._below(project, level, place):
            if self._truly(project, op) != digest:
                del self.known[project][digest]
        self.drift = {at: by for at, by in self.drift.items() if at[0] != project or at[1] >> 16 - 4 * level != place}
        total, count = _sum(self.known[project])
        for (name, _), by in self.drift.items():
            total = merkle.add(total, by) if name == project else total
        self.totals[project] = total, count


def _follows(op: Op, there: Op) -> bool:
    return op.header.prev_seq == there.seq and op.header.prev_hash == there.hash[:PREV_BYTES]


def _copy(content: Any) -> Any:
    """As deep as a disk's dictionaries go; ops never change."""
    if isinstance(content, dict):
        return {key: _copy(value) for key, value in content.items()}
    return content.copy() if isinstance(content, list | set) else content


def _sum(hashes: Iterable[bytes]) -> merkle.Leaf:
    digests = list(hashes)
    return sum(int.from_bytes(digest[8:16], "big") for digest in digests) % 2**64, len(digests)
