"""A world of nodes in virtual time: the production core, real ops, and everything around them made to fail.

One seed decides all: who carries what, who knows whom, what users write when, and which faults there are (`Faults`, a
swarm: each seed has some kinds of fault and not others). While faults last users write; then everything heals, and the
oracles (tests/sim/oracle.py) say whether what was promised came true.

A connection is a stream like TCP: in order, until it breaks. A break is seen by both ends, by one, or by none. Frames
that are lost, doubled or overtaken inside a connection happen to no TCP; they are here because the core must survive a
driver's mistake. A crash loses all but the disk, also between a commit and the core's hearing of it.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from crdt.op import Op
from sync import codec, transfer
from sync.errors import ProtocolError, Reason, Refused, SyncError
from sync.gossip import Core
from sync.messages import Batch, Message, Push
from sync.overlap import RESERVED
from sync.ready import Commit, Damaged, Ready
from tests.sim import liar
from tests.sim.cast import PROJECTS, Connection, Node, cast
from tests.sim.disk import Disk, UnknownAuthor
from tests.sim.faults import CLOGGED_S, START_MS, Faults, Trouble
from tests.sim.oracle import Oracle, Violation

MESH = bytes(range(32))
FAULTS_S = 240.0
HEAL_S = 900.0
"""Longest wait for agreement once all is well: stalled sessions give up after 120 s, back-off is at most 360 s."""
LINGER_S = 15.0
"""What is on its way through a slow link when all agree arrives, and is answered."""
QUIET_S = 100.0
SIM_BATCH_OPS = 5
"""Small, so that a few dozen ops already fill windows."""
MAX_EVENTS = 200_000
"""A world that needs more runs in circles."""


class World:
    """See the module. `trace` gets a line for everything that happens."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        trace: Callable[[str], None] | None = None,
        nodes: dict[str, Node] | None = None,
    ) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.faults = faults if faults is not None else Faults.draw(self.rng)
        self.now = 0.0
        self.agreed_at = 0.0
        self._streams_broke = self.faults.breaks_streams
        self._trace = trace
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.blocked: set[tuple[str, str]] = set()
        self.nodes = cast(MESH, self.rng) if nodes is None else nodes
        self.oracle = Oracle(self.nodes)
        self.trouble = Trouble(self)
        self.faults_end = FAULTS_S
        for node in self.nodes.values():
            node.drift = self.rng.uniform(-1, 1) * self.faults.drift
        if self.faults.lies and len(self.nodes) > 2:
            self.rng.choice(list(self.nodes.values())).lies = liar.draw(self.rng)
            self.oracle.in_vain(MAX_EVENTS)  # who is asked for all of it again and again sends it

    # Time

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay_s, self._count, event))

    def run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
            if self._count > MAX_EVENTS:
                raise Violation("liveness", f"more than {MAX_EVENTS} events: something runs in circles")
        self.now = end

    def say(self, line: str) -> None:
        if self._trace:
            self._trace(f"{self.now:9.3f}  {line}")

    # The whole run

    def run(self) -> None:
        """Faults and writes, then healing, then agreement. Raises Violation."""
        with small_batches():
            for node in self.nodes.values():
                late = self.rng.random() < 0.3
                self.after(self.rng.uniform(0, FAULTS_S / 2) if late else 0.0, lambda node=node: self._join(node))
            self._schedule_users()
            self.trouble.schedule(FAULTS_S)
            self.run_until(FAULTS_S)
            self._heal()
            self._agree()
            self.oracle.check_end(START_MS + round(self.now * 1000))
            self._stay_quiet()
            self._notice_damage()

    def _join(self, node: Node) -> None:
        """A node's first start: it introduces itself, and some have written long before they meet anybody."""
        if node.gone:
            return
        self.introduce(node)
        if self.rng.random() < 0.5:
            for _ in range(self.rng.randint(1, 40)):
                self.user_writes(node, node.boot)

    def introduce(self, node: Node) -> None:
        self._write_down(node, node.writer.introduce(self.on_time(node)))
        self.boot(node)

    def _agree(self) -> None:
        deadline = self.now + HEAL_S
        while not self.oracle.agreed():
            if self.now >= deadline:
                raise Violation("convergence", f"no agreement {HEAL_S:.0f} s after healing: {self.oracle.difference()}")
            self.run_until(self.now + 5)
        self.agreed_at = self.now

    def _stay_quiet(self) -> None:
        self.run_until(max(self.now, FAULTS_S + CLOGGED_S) + LINGER_S)
        self.oracle.expect_quiet(True)
        self.run_until(self.now + QUIET_S)
        self.oracle.expect_quiet(False)

    def _notice_damage(self) -> None:
        """A row is gone, rotten, or counted wrongly, while the vector still claims it: a neighbour gives it back."""
        rows = [
            (node, op)
            for node in self.nodes.values()
            if not node.gone
            for ops in node.disk.known.values()
            for op in ops.values()
        ]
        node, op = self.rng.choice(rows)
        neighbours = {
            peer for peer in node.connections if op.project == RESERVED or self.nodes[peer].disk.carried(op.project)
        }
        self.oracle.damaged()
        match self.rng.choice(("lost", "rotten", "drifted")):
            case "lost":
                node.disk.lose_row(op)
            case "rotten":
                node.disk.rot(op)
                node.disk.mend(op.project, 0, 0)  # as the audit of its own disk does, whenever it comes there
            case _:
                node.disk.drift_sum(op)
        self.say(f"{node.name}: a row of {op.project} is damaged")
        self.run_until(self.now + 80)
        self.oracle.check_damage_repaired(node.name, op, neighbours)

    # Users and faults

    def _schedule_users(self) -> None:
        for _ in range(self.rng.randint(10, 50)):
            node = self.rng.choice(list(self.nodes.values()))
            self.after(self.rng.uniform(0, FAULTS_S), lambda node=node: self.user_writes(node, node.boot))

    def user_writes(self, node: Node, boot: int) -> None:
        if node.core is None or self.now < node.full_until:
            return
        self.on_time(node)
        carried = [project for project in (*PROJECTS, RESERVED) if node.disk.carried(project)]
        project = self.rng.choice(carried)
        if node.lies and self.rng.random() < 0.5:
            everybody = [other.writer.author for other in self.nodes.values() if other is not node]
            op = node.writer.poison(node.disk, project, everybody)
        else:
            op = node.writer.write(node.disk, project)
        if self.rng.random() < self.faults.commit_fails:
            return
        if self.rng.random() < self.faults.commit_fails_stored:
            node.disk.commit([op])
            return
        self.write(node, op)

    def write(self, node: Node, op: Op) -> Op:
        """A user of the node was told that the op is stored; a moment later its core hears of it."""
        self._write_down(node, op)
        boot = node.boot
        self.after(0.001, lambda: self._feed(node, boot, lambda core: core.wrote([op], self.now)))
        return op

    def _write_down(self, node: Node, op: Op) -> None:
        node.disk.commit([op])
        self.oracle.acknowledged(op, node.name)
        self.say(f"{node.name} writes {op.project} {op.header.kind} seq {op.seq}")

    def _heal(self) -> None:
        self.say("everything heals")
        self.faults = Faults()
        self.blocked.clear()
        for node in self.nodes.values():
            node.full_until, node.drift, node.clock_offset_ms = 0.0, 0.0, 0
            if node.lies:
                self.trouble.dismiss(node)
        for node in self.nodes.values():
            if node.core is None and not node.gone:
                self.boot(node)

    # Nodes

    def boot(self, node: Node) -> None:
        self.say(f"{node.name} starts")
        self.oracle.check_restart(node.name)
        node.boot += 1
        node.core = Core(node.name, node.name, MESH, node.disk, self.rng)
        for address in node.knows:
            self.want(node, address)

    def want(self, node: Node, address: str) -> None:
        self._feed(node, node.boot, lambda core: core.want(address, self.now))

    def crash(self, node: Node) -> None:
        self.say(f"{node.name} crashes")
        node.core = None
        node.boot += 1
        node.disk_free = node.timer = 0.0
        node.writer.skip_seqs(node.disk)
        for connection in list(node.connections.values()):
            self.break_off(connection, [connection.other(node.name)] if self.rng.random() < 0.7 else [])
        node.connections.clear()
        self.after(self.rng.uniform(1, 40), lambda: node.core or node.gone or self.boot(node))

    def _feed(self, node: Node, boot: int, event: Callable[[Core], Ready]) -> None:
        """One event for a node's core, if it is still alive, and what the core wants done."""
        if node.core is None or node.boot != boot:
            return
        self.on_time(node)
        ready = event(node.core)
        for commit in ready.persist:
            self._schedule_commit(node, commit)
        for send in ready.send:
            self._transmit(node, send.peer, send.message)
        for notice in ready.notify:
            self.say(f"{node.name} notices {notice}")
            self.oracle.noticed(node.name, notice)
            if isinstance(notice, Damaged):
                node.disk.mend(notice.project, notice.level, notice.place)
        for close in ready.close:
            if connection := node.connections.pop(close.peer, None):
                self._blame(node.name, connection, close.error)
                self.break_off(connection, [close.peer])
        for address in ready.dial:
            self.after(self.rng.uniform(0.001, 0.01), lambda address=address: self._dial(node, node.boot, address))
        deadline = max(node.core.deadline, self.now)
        if deadline != node.timer and deadline < float("inf"):
            node.timer = deadline
            self.after(deadline - self.now, lambda: self._tick(node, boot, deadline))

    def on_time(self, node: Node) -> Disk:
        """Its disk, which knows now what the node's clock says."""
        node.disk.now_ms = max(0, START_MS + round(self.now * 1000 * (1 + node.drift)) + node.clock_offset_ms)
        return node.disk

    def _tick(self, node: Node, boot: int, deadline: float) -> None:
        if node.boot == boot and node.timer == deadline:
            node.timer = 0.0
            self._feed(node, boot, lambda core: core.tick(self.now))

    def _schedule_commit(self, node: Node, commit: Commit) -> None:
        node.disk_free = max(node.disk_free, self.now) + self.rng.uniform(0.001, 0.2)
        boot = node.boot
        self.after(node.disk_free - self.now, lambda: self._commit(node, boot, commit))

    def _commit(self, node: Node, boot: int, commit: Commit) -> None:
        if node.core is None or node.boot != boot:
            return
        crash = self.rng.random() < self.faults.crash_in_commit
        if crash and self.rng.random() < 0.5:
            self.crash(node)
            return
        own = [op for op in commit.ops if op.header.node_key == node.writer.node_key and node.disk.forgot(op)]
        try:
            if self.now < node.full_until or self.rng.random() < self.faults.commit_fails:
                raise Refused(Reason.STORE, "no space left")
            self.on_time(node)
            fresh = node.disk.commit(commit.ops, commit.by_walk)
            self.oracle.learnt(node.name, own)
            if any(op.author == node.writer.author for op in own):
                node.writer.renew(node.disk)
            if self.rng.random() < self.faults.commit_fails_stored:
                raise Refused(Reason.STORE, "nobody knows whether it is stored")
        except (Refused, UnknownAuthor) as error:
            self.oracle.in_vain()
            known = isinstance(error, SyncError)
            why = error if known else ProtocolError(Reason.BAD_OP, "an author whom nobody introduced")
            self._feed(node, boot, lambda core: core.failed(commit.peer, why, self.now))
            return
        self.say(f"{node.name} commits {len(commit.ops)} ops from {commit.peer}, {fresh} new")
        if crash:
            self.crash(node)
            return
        self._feed(node, boot, lambda core: core.persisted(commit, fresh, self.now))

    # The network

    def _dial(self, node: Node, boot: int, address: str) -> None:
        target = self.nodes[address]
        connection = Connection(
            node.name, address, self.rng.uniform(0.001, 0.1), 2_000.0 if self.rng.random() < self.faults.slow else 1e6
        )
        if node.core is None or node.boot != boot:
            return
        if target.core is None or target.gone or (node.name, address) in self.blocked:
            self.after(2, lambda: self._feed(node, boot, lambda core: core.unreachable(address, self.now)))
            return
        self.after(connection.delay_s, lambda: self._stand(target, connection, None))
        self.after(2 * connection.delay_s, lambda: self._stand(node, connection, address))

    def _stand(self, node: Node, connection: Connection, address: str | None) -> None:
        """One end of a new connection: the core decides whether it stays."""
        peer = connection.other(node.name)
        if node.core is None or not connection.open or not node.core.accepts(peer, self.now, address):
            self.break_off(connection, [peer])
            if node.core and address and not node.connections.get(peer):
                self._feed(node, node.boot, lambda core: core.unreachable(address, self.now))
            return
        if older := node.connections.pop(peer, None):
            self.break_off(older, [peer])
        node.connections[peer] = connection
        self.oracle.connected(connection, node.name)
        self._feed(node, node.boot, lambda core: core.connected(peer, self.now, address, self.nodes[peer].grants))

    def break_off(self, connection: Connection, told: list[str]) -> None:
        connection.open = False
        for name in told:
            self.after(connection.delay_s, lambda name=name: self._hear_of_break(self.nodes[name], connection))

    def _hear_of_break(self, node: Node, connection: Connection) -> None:
        peer = connection.other(node.name)
        if node.connections.get(peer) is connection:
            del node.connections[peer]
            self.say(f"{node.name} has lost {peer}")
            self._feed(node, node.boot, lambda core: core.disconnected(peer, self.now))

    def _transmit(self, node: Node, peer: str, message: Message) -> None:
        connection = node.connections.get(peer)
        if connection is None or not connection.open:
            return
        if node.lies and self.rng.random() < self.faults.lies:
            message = liar.lie(node.lies, message, self.rng)
        frame = codec.encode(message)
        if not node.lies:
            self.oracle.sent(connection, node.name, message, frame)
        self.say(f"{node.name} > {peer}  {type(message).__name__} {len(frame)} bytes")
        sent = max(connection.free.get(node.name, 0.0), self.now) + len(frame) / connection.bytes_per_s
        connection.free[node.name] = sent
        copies = deque([sent - self.now + connection.delay_s])
        if self.rng.random() < self.faults.loss:
            copies.clear()
        elif self.rng.random() < self.faults.duplicate:
            copies.append(copies[0] + self.rng.uniform(0, 1))
        elif self.rng.random() < self.faults.overtake:
            copies[0] += self.rng.uniform(0, 1)
        for delay in copies:
            self.after(delay, lambda: self._deliver(connection, self.nodes[peer], frame))

    def _deliver(self, connection: Connection, node: Node, frame: bytes) -> None:
        sender = connection.other(node.name)
        if not connection.open or node.connections.get(sender) is not connection:
            return
        try:
            message = codec.decode(frame)
            received = codec.verify(MESH, message) if isinstance(message, Batch | Push) else message
        except ProtocolError as error:
            bad = error
            self._feed(node, node.boot, lambda core: core.failed(sender, bad, self.now))
            return
        self.oracle.delivered(connection, node.name, message, frame, received)
        self._feed(node, node.boot, lambda core: core.receive(sender, received, self.now))

    def _blame(self, node: str, connection: Connection, error: SyncError) -> None:
        self.say(f"{node} ends the session with {connection.other(node)}: {error}")
        lied = any(self.nodes[name].lies for name in (connection.dialler, connection.answerer))
        self.oracle.session_ended(node, error, excused=self._streams_broke or lied)


@contextmanager
def small_batches() -> Iterator[None]:
    before = transfer.MAX_BATCH_OPS
    transfer.MAX_BATCH_OPS = SIM_BATCH_OPS
    try:
        yield
    finally:
        transfer.MAX_BATCH_OPS = before
