"""What must be true, judged from outside: by a book of its own, by what went over the wires, by what is on the disks.

| oracle | says |
| --- | --- |
| lost | an op that was acknowledged to a user is missing somewhere that carries its project; not one that was on no |
|  | other disk when its own was rolled back, or left |
| winner | a fact shows another content than the latest of the writes that are neither waiting, held nor dominated |
| epoch | a node goes on writing as an author of whom it has found ops that it doesn't remember |
| convergence | carriers of a project do not hold the same ops, vectors, roots and facts, though all is well |
| claim | a vector that was sent claims an op that is not on the sender's disk, or its chain has a gap |
| backwards | a node has less than it once told a peer, or acknowledged |
| early ack | a batch or a push was acknowledged that is not on the acknowledger's disk |
| echo | an op was pushed back to where it came from |
| root | a root is not the sum of the ops that it stands for |
| order | the reserved project did not come first |
| foreign name | a node was sent the name of a project that it does not carry |
| bound | more batches under way than granted, or a frame larger than allowed |
| blame | a session between two honest nodes ended for a breach of the protocol |
| quiet | something was said although nobody had anything new, or an empty round cost more than 150 bytes |
| waste | ops travelled more often than nodes can need them |
| damage | a row that was lost, or rotten, was not noticed, or did not come back from a peer |
| liveness | the world runs in circles |

Nothing here calls the code under test, but for the sums of `sync.merkle`, whose laws have tests of their own.
"""

import zlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crdt.op import PREV_BYTES, Op, OpClass
from sync import merkle
from sync.codec import MAX_FRAME_BYTES
from sync.errors import ProtocolError, SyncError
from sync.messages import (
    Ack,
    Batch,
    Carries,
    Fate,
    Have,
    Hello,
    Known,
    Message,
    Open,
    Push,
    Pushed,
    Received,
    Same,
    Step,
    Took,
    Vectors,
    Verified,
    Walk,
)
from sync.overlap import RESERVED
from sync.ready import Notice, RootsDiffer
from sync.transfer import WINDOW
from tests.sim.disk import Disk

QUIET_ROUND_BYTES = 150
AHEAD_MS = 300_000
"""A clock that is further ahead is wrong."""
PUSHES = 2
"""Under way to one peer."""
SOCKET_BYTES = 6
"""Of a WebSocket frame below 126 bytes: 2, and 4 of mask from who dialled."""
UNDER_WAY = 40
"""Ops, to one node: a few windows of the small batches of worlds."""
WASTE = 4
"""Ops sent, for each that a node needed: rounds with several peers at once overlap, broken sessions repeat a window."""


class Violation(Exception):
    """A promise was broken."""

    def __init__(self, oracle: str, detail: str) -> None:
        super().__init__(f"{oracle}: {detail}")
        self.oracle = oracle


@dataclass
class Direction:
    """What one end of a connection has sent and not yet been answered."""

    granted: int = 0
    unacked: int = 0
    arrived: deque[tuple[Op, ...]] = field(default_factory=deque)
    pushes: dict[int, tuple[Op, ...]] = field(default_factory=dict)
    """Pushes that arrived and have no answer yet."""
    pushing: int = 0
    given: set[bytes] = field(default_factory=set)
    """The ops that were pushed to this end."""
    beyond_reserved: bool = False


class Oracle:
    """Watches a world. Every method raises Violation when it sees one. `nodes`: by name, each with a `disk`."""

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self._disks: dict[str, Disk] = {name: node.disk for name, node in nodes.items()}
        self._names = _all_projects(self._disks.values())
        self._book: dict[bytes, Op] = {}
        self._told: dict[tuple[str, str, bytes], int] = {}
        self._directions: dict[tuple[int, str], Direction] = {}
        self._connections: list[object] = []
        self._closed: set[tuple[str, bytes]] = set()
        self._quiet = False
        self._in_vain = 0
        self._departed = 0
        """Ops on the disks of nodes that left: they were needed there, too."""
        self._moved: Counter[str] = Counter()
        self._damaged = False
        self._damage: set[tuple[str, str, str]] = set()

    # Users

    def acknowledged(self, op: Op, name: str = "") -> None:
        """A user of the node `name` was told that the write is stored."""
        _require((name, op.author) not in self._closed, "epoch", f"{name} writes seq {op.seq} of a forgotten past")
        self._book[op.hash] = op
        self._names.add(op.project)

    def learnt(self, name: str, ops: Iterable[Op]) -> None:
        """A node was given ops of its own that it doesn't remember."""
        self._closed |= {(name, op.author) for op in ops}

    # Wires

    def connected(self, connection: Any, name: str) -> None:
        self._connections.append(connection)  # so that no id is used twice
        self._directions[id(connection), name] = Direction()

    def sent(self, connection: Any, sender: str, message: Message, frame: bytes) -> None:
        """A node has sent a frame: what it says must be true of its disk now."""
        mine = self._directions[id(connection), sender]
        _require(len(frame) <= MAX_FRAME_BYTES, "bound", f"a frame of {len(frame)} bytes")
        if self._quiet:
            small = len(frame) + 2 * SOCKET_BYTES <= QUIET_ROUND_BYTES - 20
            known = isinstance(message, Hello | Same | Open | Carries)
            _require(known and (small or not isinstance(message, Hello)), "quiet", f"{sender} sent {message}")
        match message:
            case Vectors():
                mine.beyond_reserved = False
                for project, known_ops in message.projects.items():
                    self._check_claim(sender, project, known_ops)
            case Batch():
                mine.unacked += 1
                _require(mine.unacked <= mine.granted, "bound", f"{sender} has {mine.unacked} batches under way")
                _require(
                    message.project != RESERVED or not mine.beyond_reserved, "order", f"{sender} sends {RESERVED} late"
                )
                mine.beyond_reserved = message.project != RESERVED
                self._moved[sender] += len(message.ops)
            case Push():
                mine.pushing += 1
                _require(mine.pushing <= PUSHES, "bound", f"{sender} has {mine.pushing} pushes under way")
                self._moved[sender] += len(message.ops)
                back = [raw for raw in message.ops if raw in mine.given]
                _require(not back, "echo", f"{sender} pushes {len(back)} ops back to where they came from")
            case Took():
                ops = mine.pushes.pop(message.number, ())
                vectors = {op.project: self._disks[sender].vector(op.project) for op in ops}
                stored = all(op.seq <= vectors[op.project].get(op.author, 0) for op in ops)  # the other side of a fork
                _require(
                    stored or message.fate is Fate.DROPPED, "early ack", f"{sender} took ops that it has not stored"
                )
            case Have():
                self._check_have(sender, message)
            case Ack():
                ops = mine.arrived.popleft() if mine.arrived else ()
                missing = [op for op in ops if not self._disks[sender].has(op)]
                _require(not missing, "early ack", f"{sender} acknowledged {len(missing)} ops that it has not stored")
                for op in ops:
                    self._tell(sender, op.project, op.author, self._disks[sender].vector(op.project).get(op.author, 0))

    def delivered(self, connection: Any, receiver: str, message: Message, frame: bytes, received: Received) -> None:
        """A frame has reached a node."""
        mine = self._directions[id(connection), receiver]
        match message:
            case Vectors():
                mine.granted, mine.unacked = message.window, 0
            case Walk() | Step():
                mine.granted, mine.unacked, mine.beyond_reserved = WINDOW, 0, False
            case Ack():
                mine.unacked -= 1
            case Took():
                mine.pushing -= 1
        if isinstance(received, Verified):
            mine.arrived.append(received.ops)
        elif isinstance(received, Pushed):
            mine.pushes[received.number] = received.ops
            mine.given |= {op.raw for op in received.ops}
        body = _uncompressed(frame)
        for name in self._names:
            if not self._disks[receiver].carried(name):
                _require(name.encode() not in body, "foreign name", f"{receiver} was sent {name}: {message}")

    def session_ended(self, node: str, error: SyncError, excused: bool) -> None:
        _require(excused or not isinstance(error, ProtocolError), "blame", f"{node} ended a session: {error}")

    def noticed(self, node: str, notice: Notice) -> None:
        if isinstance(notice, RootsDiffer):
            self._damage.add((node, notice.peer, notice.project))

    # Disks

    def in_vain(self, ops: int = UNDER_WAY) -> None:
        """A disk took nothing: all that was under way to it comes again."""
        self._in_vain += ops

    def check_restart(self, name: str) -> None:
        """What a node has said before a crash must still be true after it."""
        for (node, project, author), seq in self._told.items():
            if node == name:
                has = self._disks[name].vector(project).get(author, 0)
                _require(has >= seq, "backwards", f"{name} told a peer {seq} of {project}, and has {has}")

    def rolled_back(self, name: str, gone: Iterable[Op]) -> None:
        """A disk is what it was earlier. What is on no other one is lost by that, and not by the code."""
        self._told = {place: seq for place, seq in self._told.items() if place[0] != name}
        self._closed = {place for place in self._closed if place[0] != name}
        for op in gone:
            if not any(op.hash in disk.known.get(op.project, {}) for disk in self._disks.values()):
                self._book.pop(op.hash, None)

    def left(self, name: str) -> None:
        """A node is gone for good, and what only it had."""
        disk = self._disks.pop(name)
        self._departed += sum(len(ops) for ops in disk.known.values())
        self.rolled_back(name, [op for ops in disk.known.values() for op in ops.values()])

    def agreed(self) -> bool:
        return not self.difference()

    def difference(self) -> str:
        """The first project whose carriers hold different ops, or "" when there is none."""
        for project in sorted(self._projects()):
            carriers = [disk for disk in self._disks.values() if disk.carried(project)]
            held = [disk.known.get(project, {}).keys() for disk in carriers]
            if any(ops != held[0] for ops in held):
                return f"{project}: {sorted(map(len, held))} ops"
        return ""

    def check_end(self, now_ms: int) -> None:
        """After healing: nothing lost, nothing different, nothing claimed in vain. `now_ms`: what all clocks say."""
        for name, disk in self._disks.items():
            disk.now_ms = now_ms
            self.check_restart(name)
            for project in sorted(self._projects()):
                if not disk.carried(project):
                    _require(not disk.known.get(project), "foreign name", f"{name} holds {project}")
                    continue
                lost = [
                    op
                    for op in self._book.values()
                    if op.project == project and op.hash not in disk.known.get(project, {})
                ]
                _require(not lost, "lost", f"{name} lacks {len(lost)} acknowledged ops of {project}")
                self._check_root(name, project)
                self._check_winners(name, project)
        for project in sorted(self._projects()):
            states = {
                name: (disk.vector(project), disk.root(project), disk.shown(project))
                for name, disk in self._disks.items()
                if disk.carried(project)
            }
            first = next(iter(states.values()), None)
            _require(all(state == first for state in states.values()), "convergence", f"{project} is not the same")
        needed = self._departed + sum(len(ops) for disk in self._disks.values() for ops in disk.known.values())
        moved = sum(self._moved.values())
        _require(moved <= WASTE * needed + self._in_vain, "waste", f"{moved} ops sent, {needed} needed")

    def damaged(self) -> None:
        """From here on a disk is known to lie."""
        self._damaged = True

    def check_damage_repaired(self, name: str, op: Op, neighbours: set[str]) -> None:
        """By any of those who have it; and that something was wrong was not kept quiet."""
        if not neighbours:
            return
        noticed = [place for place in self._damage if name in place and place[2] == op.project]
        _require(bool(noticed), "damage", f"nobody noticed that {name} has lost a row of {op.project}")
        back = self._disks[name].op(op.project, op.hash) == op.raw
        _require(back, "damage", f"{name} has lost a row of {op.project}, and it did not come back")
        self._check_root(name, op.project)

    def expect_quiet(self, quiet: bool) -> None:
        self._quiet = quiet

    def _check_have(self, name: str, have: Have) -> None:
        vector = self._disks[name].vector(have.project)
        vain = [seq for author, seq in have.dots if vector.get(author, 0) < seq]
        _require(not vain or self._damaged, "claim", f"{name} tells of ops of {have.project} that it has not stored")

    def _check_claim(self, name: str, project: str, known: Known) -> None:
        disk = self._disks[name]
        for author, seq in known.vector.items():
            chain = [op for op in disk.known.get(project, {}).values() if op.author == author]
            by_hash = {op.hash[:PREV_BYTES]: op for op in chain}
            at, op = seq, next((op for op in chain if op.seq == seq), None)
            while at and not self._damaged:
                _require(op is not None and op.seq == at, "claim", f"{name} claims {seq} of {project} and lacks {at}")
                assert op is not None
                at, op = op.header.prev_seq, by_hash.get(op.header.prev_hash)
            self._tell(name, project, author, seq)

    def _tell(self, node: str, project: str, author: bytes, seq: int) -> None:
        place = (node, project, author)
        _require(seq >= self._told.get(place, 0), "backwards", f"{node} claimed {self._told.get(place)}, now {seq}")
        self._told[place] = seq

    def _check_winners(self, name: str, project: str) -> None:
        """The content of each fact, settled once more, by other means."""
        disk = self._disks[name]
        vector = disk.vector(project)
        writes: dict[str, list[Op]] = {}
        for op in disk.known.get(project, {}).values():
            covered = all(seq <= vector.get(author, 0) for author, seq in op.header.clock)
            if op.header.op_class == OpClass.WRITE and op.header.field in ("", "content") and covered:
                writes.setdefault(op.subject, []).append(op)
        for subject, shown in disk.shown(project).items():
            about = writes.get(subject, [])
            free = [op for op in about if not any(dict(w.header.clock).get(op.author, 0) >= op.seq for w in about)]
            on_time = [op for op in free if op.timestamp >> 16 <= disk.now_ms + AHEAD_MS]
            if shown and free:
                right = max(on_time or free, key=lambda op: (op.timestamp, op.author, op.hash))
                _require(shown.version == right.hash.hex(), "winner", f"{name} shows another content of {subject}")

    def _projects(self) -> set[str]:
        return self._names.union(*(disk.known for disk in self._disks.values()))

    def _check_root(self, name: str, project: str) -> None:
        ops = self._disks[name].known.get(project, {})
        total = sum(int.from_bytes(digest[8:16], "big") for digest in ops) % 2**64
        _require(self._disks[name].root(project) == merkle.root(total, len(ops)), "root", f"{name}: {project}")


def _uncompressed(frame: bytes) -> bytes:
    """What a frame says, in the clear: see sync/PROTOCOL.md."""
    packed_from = {0: len(frame), 1: 1, 2: 3 + 64 * int.from_bytes(frame[1:3], "big")}[frame[0]]
    return frame[:packed_from] + zlib.decompress(frame[packed_from:]) if frame[0] else frame


def _all_projects(disks: Any) -> set[str]:
    return {pattern for disk in disks for pattern in disk.patterns if not pattern.endswith("*")} | {RESERVED}


def _require(holds: bool, oracle: str, detail: str) -> None:
    if not holds:
        raise Violation(oracle, detail)
