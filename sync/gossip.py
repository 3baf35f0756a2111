"""The core of sync: every session of one node, when each has its next round, and one deadline for all of it.

The driver feeds it events and carries out the `Ready` that each returns (sync/ready.py):

    core.accepts(peer, now, address)               whether to keep a new connection with `peer`; if not, close it
    ready = core.connected(peer, now)              it stands; `peer` is the id that its certificate proves
    ready = core.receive(peer, message, now)       a frame came, decoded; ops come as `Verified` or `Pushed`
    ready = core.failed(peer, error, now)          a frame was bad (ProtocolError), or a commit failed (Refused)
    ready = core.disconnected(peer, now)           the connection broke
    ready = core.persisted(commit, fresh, now)     a batch is on disk; `fresh` of its ops were new
    ready = core.wrote(ops, now)                   local writes are on disk
    ready = core.tick(now)                         `deadline` has come

`now` is in seconds on a clock that never runs back; chance is an argument. After each event the driver arms one timer
at `deadline`. Nothing else is asked of it: a core that is driven twice by the same events does the same twice, which
is what tests/sim relies on.

What is fresh is pushed (sync/push.py), outside of rounds. Rounds make sure: with every peer when a session begins, with
a few at the ticks of sync/trickle.py, with one whenever a push was not enough. A round that is wanted while another is
under way comes after it. Whom to be connected to at all is sync/view.py's. Tests: tests/sync/test_gossip.py.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

from crdt.op import Op
from sync.dialling import jittered
from sync.errors import Reason, Refused, Stalled, SyncError
from sync.messages import PUSHES_FROM, Have, Open, Pushed, Received, Took, Want
from sync.overlap import ANYTHING, RESERVED, SECRET_BITS
from sync.push import Pushes
from sync.ready import NOTHING, Close, Commit, Outcome, Ready, RoundEnded
from sync.replica import Chance, Replica
from sync.session import Session, State
from sync.transfer import WINDOW
from sync.trickle import LONGEST_S, Trickle
from sync.view import MAX_SESSIONS, View, welcome

RELAY_S: Final = 0.1
"""From the moment a round is wanted: a bulk transfer passes on in steps of this, not batch by batch."""
CROSSING_S: Final = 10.0
"""Two connections within this time are two peers that dialled each other at once."""
MAX_COMMITTING: Final = 32
"""Batches at our disk from which on peers are granted one at a time: with what is granted already, 6 MiB at most."""
SLOW_COMMIT_S: Final = 1.0
"""A disk that takes this long for a batch is granted one at a time, too."""

_Place = tuple[str, int, int, bool]


def _place(commit: Commit) -> _Place:
    """What tells one commit from all others, without its ops."""
    return commit.peer, commit.session, commit.number, commit.pushed


class Core:
    """See the module. `me`: our node id; `mesh`: 32 bytes; `interval_s`: between rounds that find nothing."""

    def __init__(
        self,
        me: str,
        name: str,
        mesh: bytes,
        replica: Replica,
        chance: Chance,
        interval_s: float = LONGEST_S,
        hub: bool = False,
    ) -> None:
        self._me = me
        self._name = name
        self._mesh = mesh
        self._replica = replica
        self._chance = chance
        self._hub = hub
        self._sessions: dict[str, Session] = {}
        self._opened = 0
        self._view = View(chance)
        self._pushes = Pushes(mesh, replica, chance)
        self._trickle = Trickle(chance, interval_s)
        self._ticked = 0.0
        self._compared: dict[str, float] = {}
        """When the last round with each peer ended, or began if it was a tick's."""
        self._committing: dict[_Place, float] = {}
        self._commit_s = 0.0
        """How long the last batch took at our disk."""

    @property
    def deadline(self) -> float:
        """When to call `tick`, on the clock of `now`; `inf` for never."""
        sessions = (session.deadline for session in self._sessions.values())
        return min([self._view.deadline, self._pushes.deadline, self._trickle.due, *sessions])

    def states(self) -> Mapping[str, State]:
        """Peer to the state of its session."""
        return {peer: session.state for peer, session in self._sessions.items()}

    # Events

    def want(self, address: str, now: float) -> Ready:
        """Keep a connection to this address."""
        self._view.keep(address, now)
        return self.tick(now)

    def heard_of(self, address: str, now: float) -> Ready:
        """A peer may be found at this address: one of many that may be dialled."""
        self._view.hear(address, now)
        return self.tick(now)

    def unwant(self, address: str) -> None:
        """No longer dial this address; a session that stands goes on."""
        self._view.drop(address)

    def unreachable(self, address: str, now: float) -> Ready:
        """An address that was to be dialled did not lead to a peer."""
        self._view.failed(address, now)
        return NOTHING

    def accepts(self, peer: str, now: float, address: str | None = None) -> bool:
        """Whether a new connection with `peer` should stand; `address` if we dialled it.

        Of two that the peers dialled at once the one by the smaller id stays, so both keep the same. Later the newer
        one is better: the older may be dead without anybody having noticed.
        """
        standing = self._sessions.get(peer)
        if standing is None:
            able = peer != self._me and len(self._sessions) < MAX_SESSIONS
            if not able and address is not None:
                self._view.failed(address, now)
            return able
        crossed = standing.dialled != (address is not None) and now < standing.since + CROSSING_S
        if crossed and standing.dialled == (self._me < peer):
            if address is not None:
                self._view.reached(address, peer)
            return False
        return True

    def connected(
        self, peer: str, now: float, address: str | None = None, grants: Sequence[str] = (ANYTHING,)
    ) -> Ready:
        """A connection with `peer` stands; `address` if we dialled it, `grants`: the projects that it may read.

        It takes the place of one before it, which the driver closes without a word to the core.
        """
        if address is not None:
            self._view.reached(address, peer)
        self._forget(peer)
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
            self._hub,
            len(self._sessions),
        )
        self._sessions[peer] = session
        return session.open()

    def disconnected(self, peer: str, now: float) -> Ready:
        """The connection that stood with `peer` broke, or it closed it. What was not committed is asked for again."""
        if self._forget(peer):
            self._view.lost(peer, now)
        return NOTHING

    def failed(self, peer: str, error: SyncError, now: float) -> Ready:
        """End the session with `peer` because of `error`."""
        self.disconnected(peer, now)
        return Ready(close=(Close(peer, error),))

    def receive(self, peer: str, message: Received, now: float) -> Ready:
        """A message of `peer`."""
        session = self._sessions.get(peer)
        if session is None:
            return NOTHING  # it came through a connection that we have closed meanwhile
        if isinstance(message, Open) and not self._welcome(session, message):
            return self.failed(peer, Refused(Reason.FULL, "connected to enough others"), now)
        if isinstance(message, Pushed | Took | Have | Want):
            return self._step(peer, lambda _: self._pushes.receive(peer, message, now), now)
        session.window = self._window()
        return self._step(peer, lambda session: session.receive(message, now), now)

    def persisted(self, commit: Commit, fresh: int, now: float) -> Ready:
        """`commit` is on disk. Its session may be gone by now: then nobody is told, and nobody needs to be."""
        self._commit_s = now - self._committing.pop(_place(commit), now)
        if commit.pushed:
            ready = self._pushes.persisted(commit, fresh, now)
            if fresh:
                self._tell_plain(commit.ops, commit.peer, now)
        else:
            news = fresh and not commit.by_walk  # what a walk mends is old, and the others mend it the same way
            ready = self._spread(commit.ops, commit.peer, now) if news else NOTHING
            session = self._sessions.get(commit.peer)
            if session is not None and session.number == commit.session:
                ready += self._step(commit.peer, lambda session: session.persisted(fresh, now), now)
        self._call_for_rounds(now)
        return ready

    def wrote(self, ops: Sequence[Op], now: float) -> Ready:
        """Ops of this node's own are on disk."""
        ready = self._spread(ops, "", now)
        self._call_for_rounds(now)
        return ready

    def sync(self, peer: str, now: float) -> Ready:
        """Begin a round with `peer` now, or right after the one that is under way."""
        if session := self._sessions.get(peer):
            session.due = now
        return self.tick(now)

    def tick(self, now: float) -> Ready:
        """Whatever is due."""
        ready = Ready(dial=tuple(self._view.take_due(now)))
        ready += self._pushes.tick(now)
        self._call_for_rounds(now)
        if self._trickle.due <= now:
            self._compare(now)
        for peer in [peer for peer, session in self._sessions.items() if session.deadline <= now]:
            ready += self._step(peer, lambda session: session.tick(now), now)
        while stalled := self._pushes.stalled(now):
            ready += self.failed(stalled, Stalled("no answer to a push"), now)
        if parted := self._view.exchange(now, lambda peer: self._shares_nothing(peer)):
            ready += self.failed(parted, Refused(Reason.FULL, "another peer takes this place"), now)
        return ready

    # Sessions

    def _step(self, peer: str, event: Callable[[Session], Ready], now: float) -> Ready:
        """One event for one session, and what follows from the state that it leaves behind."""
        session = self._sessions[peer]
        opening = session.state is State.AGREEING
        try:
            ready = event(session)
        except SyncError as error:
            return self.failed(peer, error, now)
        self._committing |= {_place(commit): now for commit in ready.persist}
        for notice in ready.notify:
            if isinstance(notice, RoundEnded):
                self._ended(session, notice, now)
        self._call_for_rounds(now)
        if session.state is not State.IDLE:
            return ready
        if opening:
            self._view.agreed(peer)
            if session.version >= PUSHES_FROM:
                self._pushes.joined(peer, session.number, session.shares_one)
            self._trickle.start(now)
            session.due = now if self._me < peer else inf
        if session.due <= now and not ready.persist:
            ready += session.begin(now)
        return ready

    def _ended(self, session: Session, ended: RoundEnded, now: float) -> None:
        if not session.began:
            self._compared[session.peer] = now
        if ended.outcome is Outcome.MOVED:
            self._trickle.reset(now)
        elif ended.outcome is Outcome.SAME and not session.began:
            self._trickle.same()

    def _forget(self, peer: str) -> bool:
        """Whether there was a session with `peer`; there is none now."""
        known = self._sessions.pop(peer, None)
        self._pushes.left(peer)
        self._compared.pop(peer, None)
        self._committing = {place: at for place, at in self._committing.items() if place[0] != peer}
        if not self._sessions:
            self._trickle.stop()
        return known is not None

    def _welcome(self, session: Session, theirs: Open) -> bool:
        others = len(self._sessions) - 1
        return session.dialled or welcome(others, self._hub, theirs.hub, theirs.peers)

    def _shares_nothing(self, peer: str) -> bool:
        """Whether `peer` shares no project of which anything is here, though one of them is short of peers."""
        ours = [project for project in self._replica.projects() if project != RESERVED]
        lonely = [p for p in ours if not any(session.shares([p]) for session in self._sessions.values())]
        return bool(lonely) and peer in self._sessions and not self._sessions[peer].shares(ours)

    # Scheduling

    def _compare(self, now: float) -> None:
        """A tick: rounds with every hub, and with those peers with whom the last one is longest ago."""
        rounds = self._trickle.tick(now)
        apart = [
            peer
            for peer, session in self._sessions.items()
            if session.agreed and self._compared.get(peer, -inf) <= self._ticked
        ]
        self._ticked = now
        hubs = [peer for peer in apart if self._sessions[peer].with_hub]
        others = self._chance.sample([peer for peer in apart if peer not in hubs], len(apart) - len(hubs))
        others.sort(key=lambda peer: self._compared.get(peer, -inf))
        for peer in (*hubs, *others[:rounds]):
            self._compared[peer] = self._sessions[peer].due = now

    def _spread(self, ops: Sequence[Op], source: str, now: float) -> Ready:
        """New ops are on disk: push them, and have rounds with whom they can't be pushed to."""
        self._tell_plain(ops, source, now)
        return self._pushes.spread(ops, source, now)

    def _tell_plain(self, ops: Sequence[Op], source: str, now: float) -> None:
        """Peers of a version without pushes hear of ops by a round."""
        projects = {op.project for op in ops}
        for peer, session in self._sessions.items():
            if session.version < PUSHES_FROM and peer != source and session.shares(projects):
                session.due = min(session.due, now + jittered(RELAY_S, self._chance))

    def _call_for_rounds(self, now: float) -> None:
        """Have a round soon with everyone to whom, or from whom, a push was not enough."""
        for peer in sorted(self._pushes.rounds):
            session = self._sessions[peer]
            session.due = min(session.due, now + jittered(RELAY_S, self._chance))
            self._trickle.reset(now)
        self._pushes.rounds.clear()

    def _window(self) -> int:
        """How many batches a peer may have under way to us."""
        slow = self._commit_s > SLOW_COMMIT_S or len(self._committing) > MAX_COMMITTING
        return 1 if slow else WINDOW
