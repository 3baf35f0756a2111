"""One peer's session, from its first message to its last: a state machine without I/O.

    OPENING    our Open is out                    <- Open      -> Carries
    AGREEING   our Carries is out                 <- Carries
    IDLE       nothing under way                  <- Hello     -> Same | Vectors | Digests
    ASKED      our Hello is out                   <- Same | Vectors | Digests
    OFFERED    our Digests are out                <- Vectors   -> Vectors, Batch...
    TOLD       our Vectors are out, theirs aren't <- Vectors   -> Batch...
    STREAMING  both know what the other has       <- Batch | Ack | Done
    SET_OUT    our Walk is out                    <- Step      -> Step
    WALKING    a Step of ours is out              <- Step      -> Step, Batch...

A round is what lies between leaving IDLE and returning to it. Either side may begin one; when two hellos cross, the one
of the smaller id counts. Whoever began a round that moved anything begins another at once, until the digests are equal.
It walks the tree (sync/walk.py) of projects that are suspect (sync/audit.py) before that; a walk, too, may be begun by
either side, crosses like a hello, and ends in STREAMING. An Audit is answered in any state and changes none.
Messages in any other state end the session, so lost, repeated or reordered messages (no transport of ours does that)
cost a reconnect and never an op.

A round compares snapshots and takes every decision from them: the projects of the round, what we told the peer, the
chains to send. The reserved project is in every round that differs, so that an author is introduced before its first
op.

Every method returns a `Ready`, or raises SyncError, and then the session is over. Tests: tests/sync/test_session.py.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from math import inf
from typing import Final, assert_never

from sync import digest
from sync.audit import Agenda
from sync.errors import Mismatch, ProtocolError, Reason, Stalled
from sync.merkle import EMPTY_ROOT
from sync.messages import (
    HELLO_PROJECTS,
    MAX_ENTRIES,
    MAX_PROJECTS,
    PROTO_MAX,
    PROTO_MIN,
    WALKS_FROM,
    Ack,
    Audit,
    Audited,
    Carries,
    Digests,
    Done,
    Hello,
    Known,
    Message,
    Open,
    Received,
    Same,
    Step,
    Vectors,
    Verified,
    Walk,
)
from sync.overlap import ANYTHING, RESERVED, Overlap, in_order, narrowed
from sync.ready import (
    NOTHING,
    AuditFailed,
    ClockSeen,
    Commit,
    Damaged,
    Lagging,
    Outcome,
    PeerAgreed,
    PeerOpened,
    Ready,
    RootsDiffer,
    RoundEnded,
    Send,
    WalkEnded,
    Withheld,
)
from sync.replica import Replica
from sync.transfer import WINDOW, Chain, Incoming, Outgoing
from sync.walk import Descent, Node, Returned, Wanted

OPEN_S: Final = 20.0
"""For Open and Carries: a peer that connects and says nothing holds a place for no longer."""
STALL_S: Final = 120.0
"""In a round, between two messages of the peer: a batch of 64 KiB at 550 bytes a second. Whether an idle connection is
alive is the WebSocket's ping to find out."""

MESH_BYTES_TOLD: Final = 16
UNKNOWN: Final = Known(EMPTY_ROOT, {})


class State(Enum):
    """See the module."""

    OPENING = "opening"
    AGREEING = "agreeing"
    IDLE = "idle"
    ASKED = "asked"
    OFFERED = "offered"
    TOLD = "told"
    STREAMING = "streaming"
    SET_OUT = "set out on a walk"
    WALKING = "walking"


class Session:
    """The session `number` of the node `me` with `peer`, over one connection; `dialled` if we made it.

    `grants`: the projects that the peer may read; `hub`: whether we are one; `peers`: how many we have besides.
    """

    def __init__(
        self,
        me: str,
        name: str,
        mesh: bytes,
        peer: str,
        number: int,
        replica: Replica,
        secret: int,
        now: float,
        dialled: bool = False,
        grants: Sequence[str] = (ANYTHING,),
        hub: bool = False,
        peers: int = 0,
    ) -> None:
        self.peer = peer
        self.number = number
        self.since = now
        self.dialled = dialled
        self.state = State.OPENING
        self.due = inf
        """When the next round begins; while one is under way, whether another is wanted after it. The owner sets it."""
        self.window = WINDOW
        """How many batches to grant in the next round. The owner sets it."""
        self.with_hub = False
        self.began = False
        """Whether the round under way, or the last one, was ours."""
        self._says = hub, peers
        self._granted = WINDOW
        self._me = me
        self._name = name
        self._mesh = mesh
        self._replica = replica
        self._overlap = Overlap(narrowed(replica.carries(), grants), mesh, secret)
        self._heard = now
        self._listed: tuple[str, ...] = ()
        self._told: dict[str, Known] = {}
        self._outgoing = Outgoing(replica, mesh, (), WINDOW)
        self._incoming = Incoming({})
        self.version = PROTO_MIN
        """Of the protocol, that both speak."""
        self._agenda = Agenda(secret, now)
        self._claims: dict[str, Mapping[bytes, int]] = {}
        """What the peer said in this round that it has."""
        self._differing: tuple[str, ...] = ()
        self._moved = False
        self._walk: Descent | None = None

    @property
    def deadline(self) -> float:
        """When `tick` has something to do: the round that is due, or the peer's silence."""
        match self.state:
            case State.OPENING | State.AGREEING:
                return self._heard + OPEN_S
            case State.IDLE:
                return self.due
            case State.ASKED | State.OFFERED | State.TOLD | State.SET_OUT | State.WALKING:
                return self._heard + STALL_S
            case State.STREAMING:
                return inf if self._incoming.waits_for_disk else self._heard + STALL_S
            case unreachable:
                assert_never(unreachable)

    def shares(self, projects: Iterable[str]) -> bool:
        """Whether the peer carries any of `projects` too."""
        return self.agreed and any(map(self._overlap.shared, projects))

    @property
    def agreed(self) -> bool:
        """Whether both know what both carry."""
        return self.state not in (State.OPENING, State.AGREEING)

    def shares_one(self, project: str) -> bool:
        """Whether the peer carries `project` too."""
        return self._overlap.shared(project)

    def open(self) -> Ready:
        """Say who we are."""
        prefixes, points = self._overlap.offer()
        return self._send(
            Open(PROTO_MIN, PROTO_MAX, self._mesh[:MESH_BYTES_TOLD], self._name, prefixes, points, *self._says)
        )

    def tick(self, now: float) -> Ready:
        """The deadline has passed: begin a round, or give the peer up. Raises Stalled."""
        if now < self.deadline:
            return NOTHING
        if self.state is State.IDLE:
            return self.begin(now)
        raise Stalled(f"no word for {now - self._heard:.0f} s while {self.state.value}")

    def begin(self, now: float) -> Ready:
        """Begin a round. Only in IDLE."""
        assert self.state is State.IDLE, self.state
        digests = self._digests()
        self._listed = tuple(in_order(digests))
        shorts = tuple(digests[name][: digest.SHORT_BYTES] for name in self._listed)
        self.state = State.ASKED
        self.began = True
        self._heard = now
        self.due = inf
        hello = Hello(
            digest.of_all(digests.values()), self._replica.wall_ms(), shorts if len(shorts) <= HELLO_PROJECTS else None
        )
        return self._send(hello)

    def receive(self, message: Received, now: float) -> Ready:
        """Whatever the peer sent, already decoded and, if it is a batch, verified."""
        self._heard = now
        match self.state, message:
            case State.OPENING, Open():
                return self._open(message)
            case State.AGREEING, Carries():
                self._overlap.conclude(message.names, message.points)
                self.state = State.IDLE
                return Ready(notify=(PeerAgreed(self.peer, self._overlap.patterns),))
            case State.IDLE, Hello():
                return self._clock(message) + self._answer(message)
            case State.ASKED, Hello():
                crossed = self._answer(message) if self.peer < self._me else NOTHING
                return self._clock(message) + crossed
            case State.ASKED, Same():
                return self._end(Outcome.SAME)
            case State.ASKED, Digests():
                return self._tell_where_different(message)
            case State.ASKED, Vectors():
                unnamed = [self._listed[place] for place in message.unmatched if place < len(self._listed)]
                return self._tell({*message.projects, *unnamed}) + self._stream(message, self._told)
            case State.OFFERED, Vectors():
                return self._tell(message.projects) + self._stream(message, self._told)
            case State.TOLD, Vectors():
                self._check_shared(message.projects)
                return self._stream(message, message.projects)
            case State.STREAMING, Verified():
                self._incoming.take(message)
                by_walk = self._walk is not None
                return Ready(persist=(Commit(self.peer, self.number, message.number, message.ops, by_walk=by_walk),))
            case State.STREAMING, Ack():
                self._outgoing.acknowledge(message)
                return self._go_on()
            case State.STREAMING, Done():
                self._incoming.done()
                return self._go_on()
            case State.IDLE, Walk():
                return self._enter(message)
            case (State.ASKED | State.SET_OUT, Walk()) | (State.SET_OUT, Hello()) if self.peer > self._me:
                return NOTHING  # crossed, and ours counts
            case State.ASKED | State.SET_OUT, Walk():
                return self._enter(message)
            case State.SET_OUT, Hello():
                self._walk = None
                return self._clock(message) + self._answer(message)
            case State.SET_OUT | State.WALKING, Step():
                return self._step(message)
            case state, Audit() if state not in (State.OPENING, State.AGREEING):
                return self._read_aloud(message)
            case _, Audited():
                return self._compare(message)
            case state, _:
                raise ProtocolError(Reason.UNEXPECTED, f"{type(message).__name__} while {state.value}")

    def persisted(self, fresh: int, now: float) -> Ready:
        """The oldest batch handed out is on disk: only now may the peer hear of it."""
        self._heard = now
        return self._send(self._incoming.committed(fresh)) + self._go_on()

    # Opening

    def _open(self, theirs: Open) -> Ready:
        if theirs.mesh != self._mesh[:MESH_BYTES_TOLD]:
            raise Mismatch(Reason.MESH, f"{theirs.name or self.peer} belongs to another mesh")
        if theirs.proto_max < PROTO_MIN or theirs.proto_min > PROTO_MAX:
            versions = f"it speaks {theirs.proto_min} to {theirs.proto_max}, we speak {PROTO_MIN} to {PROTO_MAX}"
            raise Mismatch(Reason.VERSION, f"no common version of the protocol: {versions}")
        names, points = self._overlap.answer(theirs.prefixes, theirs.points)
        self.with_hub = theirs.hub
        self.state = State.AGREEING
        self.version = min(PROTO_MAX, theirs.proto_max)
        return self._send(Carries(names, points)) + Ready(notify=(PeerOpened(self.peer, theirs.name),))

    # Comparing

    def _digests(self) -> dict[str, bytes]:
        """The digest of each project that we share and of which something is here."""
        shared = [name for name in self._replica.projects() if self._overlap.shared(name)]
        states = ((name, self._replica.vector(name), self._replica.root(name)) for name in shared)
        return {name: digest.of_project(name, vector, root) for name, vector, root in states if vector}

    def _answer(self, hello: Hello) -> Ready:
        self.began = False
        self.due = inf
        digests = self._digests()
        if digest.of_all(digests.values()) == hello.digest:
            return self._send(Same()) + self._end(Outcome.SAME)
        shorts = {name: digests[name][: digest.SHORT_BYTES] for name in in_order(digests)}
        if hello.projects is None:
            self.state = State.OFFERED
            return self._send(Digests(dict(list(shorts.items())[:MAX_PROJECTS])))
        theirs, ours = set(hello.projects), set(shorts.values())
        self.state = State.TOLD
        unmatched = tuple(place for place, short in enumerate(hello.projects) if short not in ours)
        return self._tell([name for name, short in shorts.items() if short not in theirs], unmatched)

    def _tell_where_different(self, theirs: Digests) -> Ready:
        ours = {name: whole[: digest.SHORT_BYTES] for name, whole in self._digests().items()}
        names = ours.keys() | theirs.projects.keys()
        self.state = State.TOLD
        return self._tell([name for name in names if ours.get(name) != theirs.projects.get(name)])

    def _tell(self, names: Iterable[str], unmatched: tuple[int, ...] = ()) -> Ready:
        """Send what we have of `names`, and of the reserved project.

        When it is too much for one message the rest waits for the next round, in which these no longer differ.
        """
        names = in_order({RESERVED, *names})
        self._granted = self.window
        self._check_shared(names)
        self._told = {}
        entries = 0
        for name in names:
            vector = self._replica.vector(name)
            entries += len(vector)
            if self._told and (entries > MAX_ENTRIES or len(self._told) == MAX_PROJECTS):
                unmatched = ()
                break
            self._told[name] = Known(self._replica.root(name), dict(vector))
        return self._send(Vectors(self._granted, self._told, unmatched))

    def _check_shared(self, names: Iterable[str]) -> None:
        if not all(map(self._overlap.shared, names)):
            raise ProtocolError(Reason.NOT_ASKED, "names a project that we don't both carry")

    # Streaming

    def _stream(self, theirs: Vectors, names: Collection[str]) -> Ready:
        """Both have told: send what the peer lacks, take what we lack.

        `names`: the projects of the message that came second, and with it of the round. One that only that message
        names is not known to who spoke first.
        """
        told = {name: self._told.get(name, UNKNOWN) for name in names}
        has = {name: theirs.projects.get(name, UNKNOWN) for name in names}
        differ = [name for name in in_order(names) if told[name].vector == has[name].vector]
        chains = []
        for name in in_order(names):
            vector, reached = self._replica.vector(name), has[name].vector
            lacking = sorted(author for author, seq in vector.items() if seq > reached.get(author, 0))
            chains += [Chain(name, author, reached.get(author, 0)) for author in lacking]
        counts = [self._replica.lacking(name, has[name].vector) for name in {chain.project for chain in chains}]
        total = sum(ops for ops, _ in counts), min((oldest_ms for _, oldest_ms in counts), default=0)
        self._outgoing = Outgoing(self._replica, self._mesh, chains, theirs.window, total)
        self._incoming = Incoming({name: known.vector for name, known in told.items()}, self._granted)
        self.state = State.STREAMING
        self._claims = {name: known.vector for name, known in has.items()}
        self._differing = tuple(name for name in in_order(names) if told[name] != has[name])
        rotten = [name for name in differ if told[name].root != has[name].root]
        self._agenda.suspect(rotten)
        return Ready(notify=tuple(RootsDiffer(self.peer, name) for name in rotten)) + self._go_on()

    def _go_on(self) -> Ready:
        """Send what the window lets through; end the round when both directions are finished."""
        lag = Lagging(self.peer, *self._outgoing.lag, *self._incoming.lag)
        ready = self._send(*self._outgoing.fill()) + Ready(notify=(lag,))
        if not (self._outgoing.finished and self._incoming.finished):
            return ready
        moved = bool(self._outgoing.fresh or self._incoming.fresh)
        if self._walk:
            return ready + self._end_walk(self._walk, moved)
        withheld = self._withheld()
        if not moved:
            self._agenda.suspect({claim.project for claim in withheld})
        self._agenda.hourly(self._differing, self._heard)
        self.began = self.began or (bool(withheld) and not moved)  # who lacks something looks for it
        return ready + Ready(notify=withheld) + self._end(Outcome.MOVED if moved else Outcome.STUCK)

    def _withheld(self) -> tuple[Withheld, ...]:
        """What the peer claims, and did not give although it said that it has nothing more."""
        vectors = {name: self._replica.vector(name) for name in self._claims}
        claims = ((name, *claim) for name, vector in self._claims.items() for claim in vector.items())
        missing = (claim for claim in claims if vectors[claim[0]].get(claim[1], 0) < claim[2])
        return tuple(Withheld(self.peer, *claim) for claim in missing)

    def _end(self, outcome: Outcome) -> Ready:
        ended = RoundEnded(self.peer, outcome, self._outgoing.ops, self._incoming.ops, self._incoming.fresh)
        self._rest()
        self._moved = outcome is Outcome.MOVED
        return Ready(notify=(ended,)) + (self._what_next() if self.began else NOTHING)

    def _rest(self) -> None:
        self.state = State.IDLE
        self._told, self._claims, self._differing = {}, {}, ()
        self._walk = None
        self._outgoing, self._incoming = Outgoing(self._replica, self._mesh, (), WINDOW), Incoming({})

    def _what_next(self) -> Ready:
        """After a round or a walk that we began: walk what is suspect, then see whether all is equal now."""
        if self.version >= WALKS_FROM:
            while project := self._agenda.next(self._heard):
                if self._overlap.shared(project):
                    return self._set_out(project)
        if self._moved:
            return self.begin(self._heard)
        return self._ask_for_audit()

    # Walking

    def _set_out(self, project: str, node: Node | None = None) -> Ready:
        """Begin a walk; of `node` alone when an audit has failed there. (Part 6 drops first what the floor lets go.)"""
        self._walk = Descent(self._replica, project, self._agenda.salt())
        self.state = State.SET_OUT
        self.began = True
        self.due = inf
        return self._damaged(self._send(self._walk.begin_below(*node) if node else self._walk.begin()))

    def _enter(self, walk: Walk) -> Ready:
        self._check_shared([walk.project])
        self._agenda.check_walk(walk.project, self._heard)
        self.began = False
        self.due = inf
        self._walk = Descent(self._replica, walk.project, walk.salt)
        return self._walked(self._walk.enter(walk))

    def _step(self, step: Step) -> Ready:
        assert self._walk, self.state
        return self._walked(self._walk.answer(step))

    def _walked(self, step: Step | None) -> Ready:
        assert self._walk, self.state
        self.state = State.WALKING
        ready = self._damaged(self._send(step) if step else NOTHING)
        if not self._walk.over:
            return ready
        self._outgoing = Returned(self._replica, self._mesh, self._walk)
        self._incoming = Wanted(self._walk)
        self.state = State.STREAMING
        return ready + self._go_on()

    def _damaged(self, ready: Ready) -> Ready:
        """With what the walk has come across on our own disk."""
        assert self._walk, self.state
        found, self._walk.damaged = self._walk.damaged, []
        return ready + Ready(notify=tuple(Damaged(self.peer, self._walk.project, *node) for node in found))

    def _end_walk(self, walk: Descent, moved: bool) -> Ready:
        ended = WalkEnded(self.peer, walk.project, self._outgoing.ops, self._incoming.ops, self._incoming.fresh)
        ops, fresh = self._outgoing.ops + self._incoming.ops, self._outgoing.fresh + self._incoming.fresh
        self._agenda.walked(walk.project, ops, fresh, self._heard)
        self._moved = self._moved or moved
        self._rest()
        return Ready(notify=(ended,)) + (self._what_next() if self.began else NOTHING)

    # Auditing

    def _ask_for_audit(self) -> Ready:
        if self.version < WALKS_FROM or not self._agenda.audit_due(self._heard):
            return NOTHING
        names = [name for name in self._replica.projects() if self._overlap.shared(name)]
        sizes = {name: sum(count for _, count in self._replica.sums(name, 0, 0).values()) for name in names}
        asked = self._agenda.audit(sizes, self._heard)
        return self._send(asked) if asked else NOTHING

    def _read_aloud(self, audit: Audit) -> Ready:
        self._check_shared([audit.project])
        self._agenda.check_audit(self._heard)
        content = self._replica.content(audit.project, audit.level, audit.place, audit.salt)
        return self._send(Audited(content))

    def _compare(self, theirs: Audited) -> Ready:
        """Only where nothing has happened since: else there are reasons to differ."""
        audit = self._agenda.answered()
        if self.state is not State.IDLE:
            return NOTHING
        if theirs.digest == self._replica.content(audit.project, audit.level, audit.place, audit.salt):
            return NOTHING
        failed = AuditFailed(self.peer, audit.project)
        return Ready(notify=(failed,)) + self._set_out(audit.project, (audit.level, audit.place))

    def _clock(self, hello: Hello) -> Ready:
        return Ready(notify=(ClockSeen(self.peer, hello.wall_ms - self._replica.wall_ms()),))

    def _send(self, *messages: Message) -> Ready:
        return Ready(send=tuple(Send(self.peer, message) for message in messages))
