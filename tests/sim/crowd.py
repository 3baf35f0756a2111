"""Hundreds to tens of thousands of nodes on a LAN where nothing fails: how fast is news, and what does it cost?

The production core and really signed ops, as in tests/sim/world.py, without what takes time and decides nothing: every
node carries everything, the signature of an op is checked once and not by each node, and messages are measured as
frames but handed over as they are. Nodes know some of the others' addresses and find their peers by themselves.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from crdt.op import Op, decode
from sync import codec
from sync.gossip import Core
from sync.messages import Batch, Message, Push, Pushed, Received, Verified
from sync.ready import Commit, Ready
from sync.trickle import LONGEST_S
from tests.sim.disk import Disk
from tests.sim.workload import Writer

MESH = bytes(range(32))
LAN_S = (0.0003, 0.003)
"""One way between two machines: wired, or on a busy Wi-Fi."""
DISK_S = (0.002, 0.03)
"""A commit: an SSD, or a memory card."""
HINTS = 24
"""Addresses that discovery gives a node; of a small crowd all of them."""
DIAL_S = (0.01, 0.05)


@dataclass(eq=False, slots=True)
class Member:
    """One node. `links`: the connections that stand, peer to number."""

    name: str
    disk: Disk
    core: Core
    links: dict[str, int] = field(default_factory=dict)
    sent: dict[str, float] = field(default_factory=dict)
    """When what was sent to each peer last arrives: a connection keeps its order."""
    timer: float = 0.0
    disk_free: float = 0.0


class Crowd:
    """`size` nodes. `said` and `weight`: kinds of message to how many were sent, and how many bytes as frames."""

    def __init__(self, size: int, seed: int = 1, interval_s: float = LONGEST_S) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.said: Counter[str] = Counter()
        self.weight: Counter[str] = Counter()
        self._awaited: Op | None = None
        self._missing: set[str] = set()
        self._arrived: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._links = 0
        self.writer = Writer("writer", MESH, self.rng)
        self.members: dict[str, Member] = {}
        first: list[Op] = []
        for place in range(size):
            name = f"n{place:05}"
            disk = Disk(("*",), MESH)
            if not first:
                first.append(self.writer.introduce(disk))
            disk.commit(first)
            core = Core(name, name, MESH, disk, Random(f"{seed} {name}"), interval_s)
            self.members[name] = Member(name, disk, core)
        self.first = next(iter(self.members.values()))
        self.first.disk.last_seq = 1

    # Time

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay_s, self._count, event))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end and not until():
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = self.now if until() else end

    # What a crowd does

    def meet(self, seconds: float = 120.0) -> "Crowd":
        """Everybody starts, hears of some others, and connects."""
        names = list(self.members)
        for member in self.members.values():
            for address in self.rng.sample(names, min(HINTS, len(names))):
                if address != member.name:
                    self.after(self.rng.uniform(0, 5), lambda m=member, a=address: self._hear(m, a))
        self.run(seconds)
        return self

    def spread(self, ops: int = 1, seconds: float = 30.0) -> list[float]:
        """The first node writes; after how many seconds the last op came to each of the others, sorted."""
        self.said.clear()
        self.weight.clear()
        began, member = self.now, self.first
        written = []
        for _ in range(ops):
            written.append(self.writer.create(member.disk, "plant"))
            member.disk.commit(written[-1:])
        self._awaited, self._missing, self._arrived = written[-1], set(self.members) - {member.name}, []
        self._do(member, member.core.wrote(written, self.now))
        self.run(seconds, lambda: not self._missing)
        assert not self._missing, f"{len(self._missing)} of {len(self.members)} have nothing after {seconds} s"
        return [at - began for at in self._arrived]

    def in_one_piece(self) -> bool:
        seen, todo = set[str](), [self.first.name]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += self.members[name].links
        return len(seen) == len(self.members)

    # One node

    def _hear(self, member: Member, address: str) -> None:
        self._do(member, member.core.heard_of(address, self.now))

    def _do(self, member: Member, ready: Ready) -> None:
        for commit in ready.persist:
            member.disk_free = max(member.disk_free, self.now) + self.rng.uniform(*DISK_S)
            self.after(member.disk_free - self.now, lambda c=commit: self._commit(member, c))
        for send in ready.send:
            self._send(member, send.peer, send.message)
        for close in ready.close:
            self._cut(member, close.peer)
        for address in ready.dial:
            self.after(self.rng.uniform(*DIAL_S), lambda a=address: self._dial(member, self.members[a]))
        deadline = max(member.core.deadline, self.now)
        if deadline < float("inf") and deadline != member.timer:
            member.timer = deadline
            self.after(deadline - self.now, lambda: self._tick(member, deadline))

    def _tick(self, member: Member, deadline: float) -> None:
        if member.timer == deadline:
            member.timer = 0.0
            self._do(member, member.core.tick(self.now))

    def _commit(self, member: Member, commit: Commit) -> None:
        fresh = member.disk.commit(commit.ops)
        if member.name in self._missing and self._awaited in commit.ops:
            self._missing.remove(member.name)
            self._arrived.append(self.now)
        self._do(member, member.core.persisted(commit, fresh, self.now))

    # Connections

    def _dial(self, member: Member, other: Member) -> None:
        for one, peer, address in ((other, member, None), (member, other, other.name)):
            if not one.core.accepts(peer.name, self.now, address):
                self._do(member, member.core.unreachable(other.name, self.now))
                return
        for one, peer in ((other, member), (member, other)):
            if peer.name in one.links:
                self._cut(one, peer.name)
        self._links += 1
        member.links[other.name] = other.links[member.name] = self._links
        self._do(other, other.core.connected(member.name, self.now))
        self._do(member, member.core.connected(other.name, self.now, other.name))

    def _cut(self, member: Member, peer: str) -> None:
        number = member.links.pop(peer, None)
        if number is not None:
            self.after(self.rng.uniform(*LAN_S), lambda: self._hear_of_cut(self.members[peer], member.name, number))

    def _hear_of_cut(self, member: Member, peer: str, number: int) -> None:
        if member.links.get(peer) == number:
            del member.links[peer]
            self._do(member, member.core.disconnected(peer, self.now))

    def _send(self, member: Member, peer: str, message: Message) -> None:
        number = member.links.get(peer)
        kind = type(message).__name__
        self.said[kind] += 1
        self.weight[kind] += len(codec.encode(message))
        other = self.members[peer]
        at = max(member.sent.get(peer, 0.0), self.now + self.rng.uniform(*LAN_S))
        member.sent[peer] = at
        self.after(at - self.now, lambda: self._arrive(other, member.name, number, message))

    def _arrive(self, member: Member, peer: str, number: int | None, message: Message) -> None:
        if number is not None and member.links.get(peer) == number:
            self._do(member, member.core.receive(peer, _read(message), self.now))


def _read(message: Message) -> Received:
    match message:
        case Batch():
            return Verified(message.number, message.project, tuple(map(_decoded, message.ops)))
        case Push():
            return Pushed(message.number, message.project, tuple(map(_decoded, message.ops)))
        case _:
            return message


@lru_cache(maxsize=4_096)
def _decoded(raw: bytes) -> Op:
    return decode(MESH, raw)
