"""The core of sync: every session of one node, when each has its next round, and one deadline for all of it.

The driver feeds it events and carries out the `Ready` that each returns (sync/ready.py):

    core.accepts(peer, now)                        whether to keep a new connection with `peer`; if not, close it
    ready = core.connected(peer, now)              it stands; `peer` is the id that its certificate proves
    ready = core.receive(peer, message, now)       a frame came, decoded; a batch comes as `Verified`
    ready = core.failed(peer, error, now)          a frame was bad (ProtocolError), or a commit failed (Refused)
    ready = core.disconnected(peer, now)           the connection broke
    ready = core.persisted(commit, fresh, now)     a batch is on disk; `fresh` of its ops were new
    ready = core.wrote(ops, now)                   local writes are on disk
    ready = core.tick(now)                         `deadline` has come

`now` is in seconds on a clock that never runs back; chance is an argument. After each event the driver arms one timer
at `deadline`. Nothing else is asked of it: a core that is driven twice by the same events does the same twice, which
is what tests/sim relies on.

Rounds: one at a fixed interval with jitter per peer, whoever of the two comes first; at once with every peer that
carries it after a local write; shortly after a batch from one peer with the others. A write under a round that is
under way gets the next one. Tests: tests/sync/test_gossip.py.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Final

from crdt.op import Op
from sync.dialling import Targets, jittered
from sync.errors import SyncError
from sync.messages import Received
from sync.overlap import ANYTHING, SECRET_BITS
from sync.ready import NOTHING, Close, Commit, Ready
from sync.replica import Chance, Replica
from sync.session import Session, State

INTERVAL_S: Final = 30.0
"""Of rounds that find nothing: 90 bytes each, so two peers cost 0.5 MB a day, three times that with TLS and TCP."""
RELAY_S: Final = 0.1
"""After a peer's batch, until the others are asked: a bulk transfer passes on in steps of this, not batch by batch."""
CROSSING_S: Final = 10.0
"""Two connections within this time are two peers that dialled each other at once."""
MAX_SESSIONS: Final = 64
"""Of peers that connected to us, too: 64 windows of 256 KiB are 16 MiB, the most that a node of 128 MB should hold."""


class Core:
    """See the module. `me`: our node id; `mesh`: 32 bytes; `interval_s`: between rounds that find nothing."""

    def __init__(
        self, me: str, name: str, mesh: bytes, replica: Replica, chance: Chance, interval_s: float = INTERVAL_S
    ) -> None:
        self._me = me
        self._name = name
        self._mesh = mesh
        self._replica = replica
        self._chance = chance
        self._interval_s = interval_s
        self._sessions: dict[str, Session] = {}
        self._opened = 0
        self._targets = Targets(chance)

    @property
    def deadline(self) -> float:
        """When to call `tick`, on the clock of `now`; `inf` for never."""
        return min([self._targets.deadline, *(session.deadline for session in self._sessions.values())])

    def states(self) -> Mapping[str, State]:
        """Peer to the state of its session."""
        return {peer: session.state for peer, session in self._sessions.items()}

    # Events

    def want(self, address: str, now: float) -> Ready:
        """Keep a connection to this address."""
        self._targets.want(address, now)
        return self.tick(now)

    def unwant(self, address: str) -> None:
        """No longer dial this address; a session that stands goes on."""
        self._targets.drop(address)

    def unreachable(self, address: str, now: float) -> Ready:
        """An address that was to be dialled did not lead to a peer."""
        self._targets.failed(address, now)
        return NOTHING

    def accepts(self, peer: str, now: float, address: str | None = None) -> bool:
        """Whether a new connection with `peer` should stand; `address` if we dialled it.

        Of two that the peers dialled at once the one by the smaller id stays, so both keep the same. Later the newer
        one is better: the older may be dead without anybody having noticed.
        """
        standing = self._sessions.get(peer)
        if standing is None:
            welcome = peer != self._me and len(self._sessions) < MAX_SESSIONS
            if not welcome and address is not None:
                self._targets.failed(address, now)
            return welcome
        crossed = standing.dialled != (address is not None) and now < standing.since + CROSSING_S
        if crossed and standing.dialled == (self._me < peer):
            if address is not None:
                self._targets.reached(address, peer)
            return False
        return True

    def reached(self, address: str, peer: str) -> None:
        """At this address answers a peer with whom a connection stands already: nothing to dial while it does."""
        self._targets.reached(address, peer)

    def connected(
        self, peer: str, now: float, address: str | None = None, grants: Sequence[str] = (ANYTHING,)
    ) -> Ready:
        """A connection with `peer` stands; `address` if we dialled it, `grants`: the projects that it may read.

        It takes the place of one before it, which the driver closes without a word to the core.
        """
        if address is not None:
            self._targets.reached(address, peer)
        self._opened += 1
        secret = self._chance.getrandbits(SECRET_BITS)
        session = Session(
            self._me,
            self._name,
            self._mesh,
            peer,
            self._opened,
            self._replica,
            secret,
            now,
            address is not None,
            grants,
        )
        self._sessions[peer] = session
        return session.open()

    def disconnected(self, peer: str, now: float) -> Ready:
        """The connection that stood with `peer` broke, or it closed it. What was not committed is asked for again."""
        if self._sessions.pop(peer, None):
            self._targets.lost(peer, now)
        return NOTHING

    def failed(self, peer: str, error: SyncError, now: float) -> Ready:
        """End the session with `peer` because of `error`."""
        self.disconnected(peer, now)
        return Ready(close=(Close(peer, error),))

    def receive(self, peer: str, message: Received, now: float) -> Ready:
        """A message of `peer`."""
        return self._step(peer, lambda session: session.receive(message, now), now)

    def persisted(self, commit: Commit, fresh: int, now: float) -> Ready:
        """`commit` is on disk. Its session may be gone by now: then nobody is told, and nobody needs to be."""
        if fresh:
            projects = {op.project for op in commit.ops}
            self._call_for(projects, now + jittered(RELAY_S, self._chance), but=commit.peer)
        session = self._sessions.get(commit.peer)
        if session is None or session.number != commit.session:
            return NOTHING
        return self._step(commit.peer, lambda session: session.persisted(fresh, now), now)

    def wrote(self, ops: Collection[Op], now: float) -> Ready:
        """Ops of this node's own are on disk."""
        self._call_for({op.project for op in ops}, now)
        return self.tick(now)

    def sync(self, peer: str, now: float) -> Ready:
        """Begin a round with `peer` now, or right after the one that is under way."""
        if session := self._sessions.get(peer):
            session.due = now
        return self.tick(now)

    def tick(self, now: float) -> Ready:
        """Whatever is due."""
        ready = Ready(dial=tuple(self._targets.take_due(now)))
        for peer in [peer for peer, session in self._sessions.items() if session.deadline <= now]:
            ready += self._step(peer, lambda session: session.tick(now), now)
        return ready

    # Scheduling

    def _step(self, peer: str, event: Callable[[Session], Ready], now: float) -> Ready:
        """One event for one session, and what follows from the state that it leaves behind."""
        session = self._sessions.get(peer)
        if session is None:
            return NOTHING  # it came through a connection that we have closed meanwhile
        opening = session.state is State.AGREEING
        try:
            ready = event(session)
        except SyncError as error:
            return self.failed(peer, error, now)
        if session.state is not State.IDLE:
            return ready
        if opening:
            self._targets.agreed(peer)
            session.due = now if self._me < peer else inf
        if session.due <= now:
            return ready + session.begin(now)
        session.due = min(session.due, now + jittered(self._interval_s, self._chance))
        return ready

    def _call_for(self, projects: Iterable[str], at: float, but: str = "") -> None:
        """Have a round with everyone who carries one of `projects` at `at`, or after the one that is under way."""
        projects = set(projects)
        for peer, session in self._sessions.items():
            if peer != but and session.shares(projects):
                session.due = min(session.due, at)
