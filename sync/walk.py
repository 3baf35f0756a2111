"""The Merkle walk: what differs between two sets of ops, found without believing anybody's vector.

Both have a tree over the hashes of a project's ops (sync/merkle.py). The walk goes down it a level a message, 16
children at a time, and only into nodes that differ. A node of few ops, and every leaf, is told as the ids of its ops:
the other then knows what each lacks, asks for what it wants (`wants`) and sends what it has (`gives`), in batches as in
a round.

    a > b  Walk  the root's children         level 0
    b > a  Step  children of those of them that differ here, and so on, level 1 to 3
    a > b  Step  the ids in each leaf that differs, level 4
    b > a  Step  wants, and no node any more: the last step; both stream

So a walk ends after LEVELS + 2 messages, whoever is at the other end: each must be one level below the one before it,
and name only nodes that were told in that. What is found and kept is bounded by MAX_NODES, MAX_IDS and MAX_GIVES; the
rest is left to the next walk.

Ids are taken from the rows, hashed anew, never from what the books say of them. A row whose bytes rotted is therefore
not told, and comes back from the peer. Where rows and books disagree the node is named in `damaged`, for the store to
mend: else a sum that drifted would be "repaired" by the same walk for ever.

Sums of 64 bits don't resist an insider who may choose ops. So now and then the bytes themselves are compared, under a
salt that nobody knew before (sync/audit.py); where they differ a walk begins at that node, with ids.

Part 6: a node whose vector is not above the peer's floor must drop what the floor allows it to drop before it walks;
that rule belongs into `sync/session.py`, where it sets out on a walk or answers one.

Riak's hashtree exchange; Sumner, "Tictac trees". Tests: tests/sync/test_walk.py, which pins what walks cost.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from crdt.op import Op
from sync import merkle
from sync.errors import ProtocolError, Reason
from sync.merkle import EMPTY, LEVELS, Leaf
from sync.messages import (
    ID_BYTES,
    MAX_BATCH_BYTES,
    MAX_BATCH_OPS,
    MAX_IDS,
    MAX_NODES,
    NODE_BYTES,
    Batch,
    Step,
    Walk,
)
from sync.replica import Replica
from sync.transfer import WINDOW, Incoming, Outgoing

FEW_OPS: Final = 8
"""A node of so few ops is told by their ids: 64 bytes, as the digests of 16 children would be, and no level more."""
MAX_GIVES: Final = 4_096
"""Ops that one walk sends: what a peer that lacks everything can make us remember, 300 KB of hashes."""
Node = tuple[int, int]
"""(level, place)."""


class Descent:
    """One walk, seen from one side. Who begins it calls `begin`; then both call `answer` until `over`."""

    def __init__(self, replica: Replica, project: str, salt: bytes) -> None:
        self.project = project
        self.over = False
        self.damaged: list[Node] = []
        """Where rows and books disagree."""
        self.wants: set[bytes] = set()
        """Ids of ops that we lack, and asked for."""
        self.gives: dict[bytes, int] = {}
        """Hash to seq of the ops that the peer lacks."""
        self.told: dict[Node, frozenset[bytes]] = {}
        """The ids that we told, of each node: whatever else is in it the peer may send unasked."""
        self._said: dict[Node, Leaf] = {}
        self._replica = replica
        self._salt = salt
        self._level = 0
        """Of the peer's next message."""
        self._open: set[int] = set()
        self._hashes: dict[bytes, tuple[bytes, int]] = {}
        self._ids_left = MAX_IDS

    def begin(self) -> Walk:
        """The first message, when sums differ."""
        self._level = 1
        self._open = set(merkle.children(0))
        return Walk(self.project, self._salt, 0, {0: self._digests(0, 0)}, {})

    def begin_below(self, level: int, place: int) -> Walk:
        """The first message, when an audit has found that a node differs: the ids of all that is in it."""
        self._level = level + 1
        return Walk(self.project, self._salt, level, {}, {place: self._ids(level, place) or b""})

    def enter(self, walk: Walk) -> Step:
        """The answer to a peer that begins a walk."""
        places = {*walk.nodes, *walk.leaves}
        if len(places) != 1 or max(places) >> (walk.level * merkle.FAN_OUT_BITS):
            raise ProtocolError(Reason.MALFORMED, "a walk begins at one node")
        self._level = walk.level
        self._open = places
        step = self.answer(Step(walk.nodes, walk.leaves, b""))
        assert step
        return step

    def answer(self, theirs: Step) -> Step | None:
        """Compare, and say what differs one level below; None after the last step. Raises ProtocolError."""
        self._check(theirs)
        self._ids_left = MAX_IDS
        self._give(theirs.wants)
        last = not theirs.nodes and not theirs.leaves
        wants = b"".join(self._compare(place, _split(ids)) for place, ids in theirs.leaves.items())
        differ = [node for place, digests in theirs.nodes.items() for node in self._differing(place, digests)]
        self._open, self._hashes = set(), {}
        nodes: dict[int, bytes] = {}
        leaves: dict[int, bytes] = {}
        for place, (_, count) in differ:
            if len(nodes) + len(leaves) == MAX_NODES or self._ids_left <= 0:
                break
            if count <= FEW_OPS or self._level + 1 == LEVELS:
                if (ids := self._ids(self._level + 1, place)) is not None:
                    leaves[place] = ids
            else:
                nodes[place] = self._digests(self._level + 1, place)
                self._open.update(merkle.children(place))
        self._level += 2  # ours is one deeper, and the answer to it two
        self.over = last or not (nodes or leaves)
        return None if last else Step(nodes, leaves, wants)

    # What is compared

    def _check(self, theirs: Step) -> None:
        places = {*theirs.nodes, *theirs.leaves}
        if self.over or not places <= self._open or len(places) < len(theirs.nodes) + len(theirs.leaves):
            raise ProtocolError(Reason.UNEXPECTED, "a step of a walk into nodes that it was not told of")
        if len(places) > MAX_NODES or (theirs.nodes and self._level >= LEVELS):
            raise ProtocolError(Reason.UNEXPECTED, "a step of a walk beyond its bounds")
        ids = sum(map(len, theirs.leaves.values()))
        if ids > MAX_IDS * ID_BYTES or any(len(ids) % ID_BYTES for ids in (*theirs.leaves.values(), theirs.wants)):
            raise ProtocolError(Reason.MALFORMED, f"ids of {ids} bytes in one step")

    def _give(self, wants: bytes) -> None:
        for short in _split(wants):
            if short not in self._hashes:
                raise ProtocolError(Reason.NOT_ASKED, "wants an op that it was not told of")
            digest, seq = self._hashes[short]
            self.gives[digest] = seq

    def _differing(self, place: int, digests: bytes) -> Iterable[tuple[int, Leaf]]:
        """The children of a node that are not the same here."""
        mine = self._sums(self._level, place)
        for number, child in enumerate(merkle.children(place)):
            leaf = mine.get(child, EMPTY)
            if self._digest(leaf) != digests[number * NODE_BYTES : (number + 1) * NODE_BYTES]:
                yield child, leaf

    def _compare(self, place: int, theirs: Sequence[bytes]) -> bytes:
        """Note what the peer lacks of a node whose ids it told; the ids of what we lack."""
        mine = self._rows(self._level, place)
        told = set(theirs)
        lacking = [(digest, seq) for digest, seq in mine.items() if digest[:ID_BYTES] not in told]
        self.gives.update(lacking[: max(0, MAX_GIVES - len(self.gives))])
        have = {digest[:ID_BYTES] for digest in mine}
        if len(mine) >= MAX_IDS:  # there may be more here than was read: compare as far as that
            told = {short for short in told if short <= max(have)}
        wants = told - have
        self.wants |= wants
        return b"".join(sorted(wants))

    # What is told

    def _digests(self, level: int, place: int) -> bytes:
        sums = self._sums(level, place)
        return b"".join(self._digest(sums.get(child, EMPTY)) for child in merkle.children(place))

    def _sums(self, level: int, place: int) -> Mapping[int, Leaf]:
        """The children of a node. Where they are not, together, what was said of the node, the books are wrong."""
        sums = self._replica.sums(self.project, level, place)
        total, count = EMPTY
        for more, ops in sums.values():
            total, count = merkle.add(total, more), count + ops
        said = self._said.get((level, place), (total, count))
        right = merkle.root(total, count) == self._replica.root(self.project) if level == 0 else said == (total, count)
        if not right:
            self._note_damage(level, place)
        self._said.update(((level + 1, child), leaf) for child, leaf in sums.items())
        return sums

    def _digest(self, leaf: Leaf) -> bytes:
        total, count = leaf
        told = total.to_bytes(8, "big") + count.to_bytes(8, "big")
        return blake2b(told, digest_size=NODE_BYTES, key=self._salt, person=b"cortex/node").digest()

    def _ids(self, level: int, place: int) -> bytes | None:
        """The ids of a node, if this message still holds them all: who gets half a list would send us the other."""
        rows = self._rows(level, place)
        self._ids_left -= max(1, len(rows))  # what was read in vain counts too
        if self._ids_left < 0:
            return None
        self._hashes.update((digest[:ID_BYTES], (digest, seq)) for digest, seq in rows.items())
        self.told[level, place] = frozenset(digest[:ID_BYTES] for digest in rows)
        return b"".join(digest[:ID_BYTES] for digest in rows)

    def _rows(self, level: int, place: int) -> Mapping[bytes, int]:
        rows = self._replica.rows(self.project, level, place, MAX_IDS)
        if rows.damaged:
            self._note_damage(level, place)
        return rows.hashes

    def _note_damage(self, level: int, place: int) -> None:
        if (level, place) not in self.damaged:
            self.damaged.append((level, place))


class Returned(Outgoing):
    """What a walk has found that the peer lacks, an op's predecessors before it."""

    def __init__(self, replica: Replica, mesh: bytes, walk: Descent, window: int = WINDOW) -> None:
        super().__init__(replica, mesh, (), window, (len(walk.gives), 0))
        self._project = walk.project
        self._hashes = sorted(walk.gives, key=lambda digest: (walk.gives[digest], digest), reverse=True)

    def _next(self) -> Batch | None:
        ops: list[bytes] = []
        size = 0
        while self._hashes and len(ops) < MAX_BATCH_OPS:
            raw = self._replica.op(self._project, self._hashes[-1])
            if raw is not None and ops and size + len(raw) > MAX_BATCH_BYTES:
                break
            self._hashes.pop()
            if raw is not None:  # else it was found damaged meanwhile
                ops.append(raw)
                size += len(raw)
        return self._batch(self._project, ops)


class Wanted(Incoming):
    """What a walk has found that we lack: the ops that we asked for, and what is in a node whose ids we told."""

    def __init__(self, walk: Descent, window: int = WINDOW) -> None:
        super().__init__({walk.project: {}}, window)
        self._walk = walk
        self._taken: set[bytes] = set()

    def _check(self, project: str, op: Op) -> None:
        short = op.hash[:ID_BYTES]
        levels = range(LEVELS + 1)
        told = [self._walk.told.get((level, merkle.node_of(op.hash, level))) for level in levels]
        lacked = any(ids is not None and short not in ids for ids in told)
        if op.hash in self._taken or not (short in self._walk.wants or lacked):
            raise ProtocolError(Reason.NOT_ASKED, f"an op that the walk did not ask for (seq {op.seq})")
        self._taken.add(op.hash)


def _split(ids: bytes) -> list[bytes]:
    return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
