"""Fresh ops, passed on at once: whole to a few peers, by their dots to the others, never back to where they came from.

    Push  ->   ops that the receiver probably lacks                  answered by  Took
    Have  ->   dots of ops that the sender has; no answer if they come from elsewhere meanwhile, else  Want  -> Push

All of it lies outside of rounds, so a small write doesn't stand behind a backlog. A peer is *eager* (gets ops whole) or
*lazy* (gets dots). Eager ones that answer "known" turn lazy, on both sides; a lazy one that asks turns eager. So the
eager connections thin out to a tree, and the lazy ones mend it when it breaks: Leitão, Pereira and Rodrigues,
"Epidemic Broadcast Trees", SRDS 2007. Took KNOWN is its PRUNE, Want its GRAFT.

What is pushed is committed before it is acknowledged or passed on. It is taken only where it joins its chain and its
author is known, else dropped, and a round (which begins with the reserved project) brings it. A push is an attempt:
rounds alone make sure that everything arrives, so whatever exceeds a bound here is left to one (`Pushes.rounds`).

While two pushes are unacknowledged, what is written gathers for the next one. Tests: tests/sync/test_push.py; what it
costs a large mesh: tests/sim/test_crowd.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from crdt.op import MAX_OP_BYTES, Op, decode
from sync.dialling import jittered
from sync.errors import ProtocolError, Reason
from sync.messages import MAX_BATCH_BYTES, MAX_DOTS, MAX_PUSH_OPS, Fate, Have, Push, Pushed, Took, Want
from sync.overlap import RESERVED
from sync.ready import NOTHING, Commit, Ready, Send
from sync.replica import Chance, Replica

EAGER: Final = 2
"""Peers that get our own writes whole, at least: news reaches four fifths of a mesh, and Want does the rest."""
PUSH_WINDOW: Final = 2
"""Pushes under way to one peer: one on the wire, one at its disk."""
HAVE_S: Final = 0.05
"""Dots wait this long: a peer that hears of the op meanwhile, and says so, needn't be told."""
WANT_S: Final = 0.2
"""How long an op may take after its dot, until we ask for it."""
ASK_NEXT_S: Final = 1.0
"""How long it may take when we have asked, until we ask the next peer that has it."""
UNANSWERED_S: Final = 120.0
"""A push of 64 KiB at 550 bytes a second, as in a round (sync/session.py)."""
MAX_QUEUED_OPS: Final = 256
MAX_QUEUED_BYTES: Final = 262_144
"""For one peer: 16 MiB with 64 of them. Beyond it is a backlog, and a round takes over."""
MAX_TOLD: Final = 1_024
"""Dots that wait to be told to one peer."""
MAX_WANTED: Final = 1_024
"""Dots that we have heard of and lack."""
MAX_SEEN: Final = 2_048
"""Fresh ops of which we remember who has them."""

Key = tuple[str, bytes, int]
"""Project, author and seq of an op."""
Heard = Pushed | Took | Have | Want


def key_of(op: Op) -> Key:
    return op.project, op.author, op.seq


@dataclass(slots=True)
class _Peer:
    session: int
    shares: Callable[[str], bool]
    eager: bool
    queue: dict[Key, bytes] = field(default_factory=dict)
    queued_bytes: int = 0
    dots: dict[Key, None] = field(default_factory=dict)
    dots_due: float = inf
    sent: int = 0
    unanswered: dict[int, float] = field(default_factory=dict)
    received: int = 0
    storing: int = 0


_Place = tuple[str, int, int]
"""Peer, session and number of a push."""


@dataclass(frozen=True, slots=True)
class _Storing:
    """A push at our disk; `dropped`: whether something of it did not get that far."""

    ops: tuple[Op, ...]
    dropped: bool


@dataclass(slots=True)
class _Wanted:
    due: float
    at: list[str]
    """Peers that have it and have not been asked, in the order in which they said so."""
    asked: str = ""


class Pushes:
    """The pushes of one node, to and from all of its peers. `mesh`: 32 bytes.

    `rounds`: peers with whom only a round helps; whoever reads it empties it.
    """

    def __init__(self, mesh: bytes, replica: Replica, chance: Chance) -> None:
        self.rounds: set[str] = set()
        self._mesh = mesh
        self._replica = replica
        self._chance = chance
        self._peers: dict[str, _Peer] = {}
        self._storing: dict[_Place, _Storing] = {}
        self._wanted: dict[Key, _Wanted] = {}
        self._want_due = inf
        self._seen: dict[Key, set[str]] = {}

    @property
    def deadline(self) -> float:
        """When to call `tick`."""
        return min([self._want_due, *(peer.dots_due for peer in self._peers.values())])

    @property
    def eager(self) -> frozenset[str]:
        """The peers that get ops whole."""
        return frozenset(name for name, peer in self._peers.items() if peer.eager)

    # Who is there

    def joined(self, name: str, session: int, shares: Callable[[str], bool]) -> None:
        """The session number `session` with `name` has agreed on what both carry, which `shares` tells."""
        self._peers[name] = _Peer(session, shares, eager=len(self.eager) < EAGER)

    def left(self, name: str) -> None:
        """The session is over. What it stores at this moment may still come to be stored."""
        self._peers.pop(name, None)
        self._storing = {place: storing for place, storing in self._storing.items() if place[0] != name}
        self.rounds.discard(name)

    def stalled(self, now: float) -> str | None:
        """A peer that owes an answer for too long."""
        late = (n for n, p in self._peers.items() if min(p.unanswered.values(), default=now) + UNANSWERED_S <= now)
        return next(late, None)

    # Sending

    def spread(self, ops: Sequence[Op], source: str, now: float) -> Ready:
        """New ops are on disk: pass on those that joined their chains. `source`: who sent them, "" for ourselves."""
        vectors = {project: self._replica.vector(project) for project in {op.project for op in ops}}
        ops = [op for op in ops if op.seq <= vectors[op.project].get(op.author, 0)]
        for op in ops:
            self._wanted.pop(key_of(op), None)
        if not source:
            self._have_enough_eager({op.project for op in ops})
        ready = NOTHING
        for name, peer in self._peers.items():
            if name != source:
                self._enqueue(name, peer, ops, now)
                ready += self._flush(name, peer, now)
        return ready

    def _have_enough_eager(self, projects: Iterable[str]) -> None:
        sharing = [name for name, peer in self._peers.items() if any(map(peer.shares, projects))]
        lazy = [name for name in sharing if not self._peers[name].eager]
        missing = EAGER - (len(sharing) - len(lazy))
        for name in self._chance.sample(lazy, max(0, min(missing, len(lazy)))):
            self._promote(name)

    def _enqueue(self, name: str, peer: _Peer, ops: Iterable[Op], now: float) -> None:
        for op in ops:
            key = key_of(op)
            if not peer.shares(op.project) or name in self._seen.get(key, ()):
                continue
            if peer.eager:
                self._add(peer, key, op.raw)
            else:
                peer.dots[key] = None
                peer.dots_due = min(peer.dots_due, now + jittered(HAVE_S, self._chance))
        if len(peer.queue) > MAX_QUEUED_OPS or peer.queued_bytes > MAX_QUEUED_BYTES or len(peer.dots) > MAX_TOLD:
            peer.queue, peer.queued_bytes = {}, 0
            peer.dots, peer.dots_due = {}, inf
            self.rounds.add(name)

    def _add(self, peer: _Peer, key: Key, raw: bytes) -> None:
        if key not in peer.queue:
            peer.queue[key] = raw
            peer.queued_bytes += len(raw)

    def _flush(self, name: str, peer: _Peer, now: float) -> Ready:
        """The pushes that may go out to this peer now."""
        sends = []
        while len(peer.unanswered) < PUSH_WINDOW and (cut := self._cut(name, peer)):
            project, ops = cut
            peer.sent += 1
            peer.unanswered[peer.sent] = now
            sends.append(Send(name, Push(peer.sent, project, ops)))
        return Ready(send=tuple(sends))

    def _cut(self, name: str, peer: _Peer) -> tuple[str, tuple[bytes, ...]] | None:
        """The oldest of what gathered, as much of one project as one push may hold."""
        project, size = "", 0
        ops: list[bytes] = []
        for key, raw in list(peer.queue.items()):
            if name not in self._seen.get(key, ()):
                if ops and (key[0] != project or len(ops) == MAX_PUSH_OPS or size + len(raw) > MAX_BATCH_BYTES):
                    break
                project = key[0]
                ops.append(raw)
                size += len(raw)
            peer.queued_bytes -= len(peer.queue.pop(key))
        return (project, tuple(ops)) if ops else None

    # Receiving

    def receive(self, name: str, message: Heard, now: float) -> Ready:
        """What a peer says of pushes. Raises ProtocolError."""
        peer = self._peers.get(name)
        if peer is None:
            raise ProtocolError(Reason.UNEXPECTED, f"{type(message).__name__} before both have agreed")
        if not isinstance(message, Took) and not peer.shares(message.project):
            raise ProtocolError(Reason.NOT_ASKED, "names a project that we don't both carry")
        match message:
            case Pushed():
                return self._pushed(name, peer, message)
            case Took():
                return self._took(name, peer, message, now)
            case Have():
                return self._told(name, message, now)
            case Want():
                return self._asked(name, peer, message, now)

    def _pushed(self, name: str, peer: _Peer, push: Pushed) -> Ready:
        peer.received += 1
        if push.number != peer.received or peer.storing == PUSH_WINDOW:
            raise ProtocolError(Reason.WINDOW, f"push {push.number} with {peer.storing} at our disk")
        if any(op.project != push.project for op in push.ops):
            raise ProtocolError(Reason.NOT_ASKED, "an op of another project than its push")
        vector = self._replica.vector(push.project)
        introduced = self._replica.vector(RESERVED)
        reach = self._reach(push.project)
        new, dropped = [], False
        for op in push.ops:
            self._saw(key_of(op), name)
            here, expected = vector.get(op.author, 0), max(vector.get(op.author, 0), reach.get(op.author, 0))
            if op.seq <= here:
                continue
            known = push.project == RESERVED or here or op.author in introduced
            if known and (op.header.prev_seq == expected or op.seq <= expected):
                reach[op.author] = max(op.seq, expected)
                new.append(op)
            else:
                dropped = True
        if dropped:
            self.rounds.add(name)
        if not new:
            return self._answer(name, peer, push.number, Fate.DROPPED if dropped else Fate.KNOWN)
        commit = Commit(name, peer.session, push.number, tuple(new), pushed=True)
        self._storing[name, peer.session, push.number] = _Storing(commit.ops, dropped)
        peer.storing += 1
        return Ready(persist=(commit,))

    def _reach(self, project: str) -> dict[bytes, int]:
        """Author to the seq that its chain will have when what is at the disk now is stored."""
        reach: dict[bytes, int] = {}
        for storing in self._storing.values():
            for op in storing.ops:
                if op.project == project:
                    reach[op.author] = max(op.seq, reach.get(op.author, 0))
        return reach

    def persisted(self, commit: Commit, fresh: int, now: float) -> Ready:
        """A push is on disk: answer, and pass it on. Its session may be gone by now."""
        storing = self._storing.pop((commit.peer, commit.session, commit.number), None)
        ready = self.spread(commit.ops, commit.peer, now) if fresh else NOTHING
        peer = self._peers.get(commit.peer)
        if peer is None or peer.session != commit.session:
            return ready
        peer.storing -= 1
        dropped = storing is None or storing.dropped
        if not all(op.seq <= self._replica.vector(op.project).get(op.author, 0) for op in commit.ops):
            self.rounds.add(commit.peer)  # its number fits our chain and its hash doesn't: a fork
            dropped = True
        fate = Fate.DROPPED if dropped else Fate.STORED if fresh else Fate.KNOWN
        return ready + self._answer(commit.peer, peer, commit.number, fate)

    def _answer(self, name: str, peer: _Peer, number: int, fate: Fate) -> Ready:
        if fate is Fate.KNOWN:
            peer.eager = False
        return Ready(send=(Send(name, Took(number, fate)),))

    def _took(self, name: str, peer: _Peer, took: Took, now: float) -> Ready:
        if peer.unanswered.pop(took.number, None) is None:
            raise ProtocolError(Reason.UNEXPECTED, f"an answer to push {took.number}, which waits for none")
        if took.fate is Fate.KNOWN:
            peer.eager = False
        return self._flush(name, peer, now)

    def _told(self, name: str, have: Have, now: float) -> Ready:
        vector, reach = self._replica.vector(have.project), self._reach(have.project)
        due = now + jittered(WANT_S, self._chance)
        for author, seq in have.dots:
            key = have.project, author, seq
            self._saw(key, name)
            if max(vector.get(author, 0), reach.get(author, 0)) >= seq:
                continue
            if wanted := self._wanted.get(key):
                if name not in wanted.at:
                    wanted.at.append(name)
            elif len(self._wanted) < MAX_WANTED:
                self._wanted[key] = _Wanted(due, [name])
                self._want_due = min(self._want_due, due)
            else:
                self.rounds.add(name)
        return NOTHING

    def _asked(self, name: str, peer: _Peer, want: Want, now: float) -> Ready:
        self._promote(name)
        for author, seq in want.dots:
            key = want.project, author, seq
            self._seen.get(key, set()).discard(name)
            self._look_up(peer, key)
        return self._flush(name, peer, now)

    # Dots

    def _promote(self, name: str) -> None:
        """Ops go whole to this peer from now on, and first those of which it would have got the dots."""
        peer = self._peers[name]
        peer.eager = True
        for key in peer.dots:
            self._look_up(peer, key)
        peer.dots, peer.dots_due = {}, inf

    def _look_up(self, peer: _Peer, key: Key) -> None:
        project, author, seq = key
        if len(peer.queue) < MAX_QUEUED_OPS and peer.queued_bytes < MAX_QUEUED_BYTES:
            for raw in self._replica.ops_after(project, author, seq - 1, 1, MAX_OP_BYTES):
                if decode(self._mesh, raw).seq == seq:
                    self._add(peer, key, raw)

    def _saw(self, key: Key, name: str) -> None:
        """The peer has this op."""
        if key not in self._seen and len(self._seen) == MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen.setdefault(key, set()).add(name)

    def tick(self, now: float) -> Ready:
        """Tell dots that have waited, and ask for ops that have not come."""
        sends: list[Send] = []
        for name, peer in self._peers.items():
            if peer.dots_due <= now:
                told = [key for key in peer.dots if name not in self._seen.get(key, ())]
                peer.dots, peer.dots_due = {}, inf
                sends += [Send(name, Have(project, dots)) for project, dots in _by_project(told)]
        if self._want_due <= now:
            for name, keys in self._due(now).items():
                self._promote(name)
                sends += [Send(name, Want(project, dots)) for project, dots in _by_project(keys)]
        return Ready(send=tuple(sends))

    def _due(self, now: float) -> Mapping[str, list[Key]]:
        """What to ask for now, of whom. An op for which nobody is left to ask is left to a round."""
        ask: dict[str, list[Key]] = {}
        again = now + jittered(ASK_NEXT_S, self._chance)
        for key, wanted in list(self._wanted.items()):
            project, author, seq = key
            if self._replica.vector(project).get(author, 0) >= seq:
                del self._wanted[key]
            elif wanted.due <= now + HAVE_S:  # what is due together is asked for together
                wanted.at = [name for name in wanted.at if name in self._peers]
                if wanted.at:
                    wanted.asked = wanted.at.pop(0)
                    wanted.due = again
                    ask.setdefault(wanted.asked, []).append(key)
                else:
                    del self._wanted[key]
                    self.rounds |= {wanted.asked} & self._peers.keys()
        self._want_due = min((wanted.due for wanted in self._wanted.values()), default=inf)
        return ask


def _by_project(keys: Iterable[Key]) -> list[tuple[str, tuple[tuple[bytes, int], ...]]]:
    """Project and dots, as many as one message may hold."""
    by_project: dict[str, list[tuple[bytes, int]]] = {}
    for project, author, seq in keys:
        by_project.setdefault(project, []).append((author, seq))
    return [
        (project, tuple(dots[at : at + MAX_DOTS]))
        for project, dots in by_project.items()
        for at in range(0, len(dots), MAX_DOTS)
    ]
