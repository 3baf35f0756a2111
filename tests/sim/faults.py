"""What goes wrong in a world, and when. A seed draws some kinds of fault and not others, each as bad as it may be.

Faults of frames and commits strike by chance as world.py comes across them; those of time (`_s`) are scheduled here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from tests.sim.cast import Node, acquainted

if TYPE_CHECKING:
    from tests.sim.world import World

START_MS = 1_800_000_000_000
"""What right clocks say when a world begins."""
CLOGGED_S = 90.0
"""The longest that a link takes to let go what it held up."""
HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Faults:
    """Which faults there are. Probabilities are per frame or commit, `_s` the mean time between two."""

    loss: float = 0.0
    duplicate: float = 0.0
    overtake: float = 0.0
    cut_s: float = 0.0
    partition_s: float = 0.0
    one_way_s: float = 0.0
    clog_s: float = 0.0
    slow: float = 0.0
    crash_s: float = 0.0
    crash_in_commit: float = 0.0
    commit_fails: float = 0.0
    commit_fails_stored: float = 0.0
    full_s: float = 0.0
    clock_s: float = 0.0
    drift: float = 0.0
    restore_s: float = 0.0
    leave_s: float = 0.0
    lies: float = 0.0

    @classmethod
    def draw(cls, rng: Random) -> "Faults":
        names = [name for name in cls.__slots__ if rng.random() < 0.4]
        return cls(**{name: getattr(MOST, name) * rng.uniform(0.3, 1.0) for name in names})

    @property
    def breaks_streams(self) -> bool:
        return bool(self.loss or self.duplicate or self.overtake)


MOST = Faults(
    loss=0.05,
    duplicate=0.03,
    overtake=0.03,
    cut_s=20.0,
    partition_s=60.0,
    one_way_s=60.0,
    clog_s=40.0,
    slow=0.5,
    crash_s=50.0,
    crash_in_commit=0.05,
    commit_fails=0.05,
    commit_fails_stored=0.05,
    full_s=80.0,
    clock_s=60.0,
    drift=0.05,
    restore_s=120.0,
    leave_s=200.0,
    lies=0.3,
)


class Trouble:
    """The faults that come by time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng

    def schedule(self, until: float) -> None:
        faults = self._world.faults
        kinds: tuple[tuple[float, Callable[[], None]], ...] = (
            (faults.cut_s, self.cut),
            (faults.partition_s, self.partition),
            (faults.one_way_s, self.one_way),
            (faults.clog_s, self.clog),
            (faults.crash_s, self.crash),
            (faults.full_s, self.fill),
            (faults.clock_s, self.jump),
            (faults.restore_s, self.back_up),
            (faults.leave_s, self.leave),
        )
        for mean, fault in kinds:
            at = self._rng.expovariate(1 / mean) if mean else until
            while at < until:
                self._world.after(at, fault)
                at += self._rng.expovariate(1 / mean)

    # The network

    def cut(self) -> None:
        """A connection breaks: both ends hear of it, one, or none."""
        if standing := self._standing():
            connection = self._rng.choice(standing)
            told = [name for name in (connection.dialler, connection.answerer) if self._rng.random() < 0.7]
            self._world.break_off(connection, told)

    def partition(self) -> None:
        """Some nodes can't reach the others for a while, in both directions."""
        world, names, inside = self._world, list(self._world.nodes), self._some()
        between = {(a, b) for a in names for b in names if (a in inside) != (b in inside)} - world.blocked
        world.blocked |= between
        world.say(f"partition {sorted(inside)}")
        for connection in self._standing():
            if (connection.dialler, connection.answerer) in between:
                world.break_off(connection, [])
        world.after(self._rng.uniform(5, 60), lambda: world.blocked.difference_update(between))

    def one_way(self) -> None:
        """What some nodes send doesn't arrive for a while. No connection can be made, and those that stand say nothing.

        TCP sends again what was lost, so it comes when the way is free, if the connection lasts.
        """
        world, names, inside = self._world, list(self._world.nodes), self._some()
        lasts_s = self._rng.uniform(5, 60)
        between = {(a, b) for a in names for b in names if (a in inside) != (b in inside)} - world.blocked
        world.blocked |= between
        world.say(f"nothing from {sorted(inside)} arrives")
        for connection in self._standing():
            for name in (connection.dialler, connection.answerer):
                if name in inside and connection.other(name) not in inside:
                    connection.free[name] = max(connection.free.get(name, 0.0), world.now + lasts_s)
        world.after(lasts_s, lambda: world.blocked.difference_update(between))

    def clog(self) -> None:
        """A link takes everything and passes on nothing, then all at once."""
        if standing := self._standing():
            connection = self._rng.choice(standing)
            until = self._world.now + self._rng.uniform(1, CLOGGED_S)
            for name in (connection.dialler, connection.answerer):
                connection.free[name] = max(connection.free.get(name, 0.0), until)

    # Nodes

    def crash(self) -> None:
        node = self._node()
        if node.core:
            self._world.crash(node)

    def fill(self) -> None:
        """A disk is full for a while: it keeps what it has, and takes nothing."""
        self._node().full_until = self._world.now + self._rng.uniform(5, 60)

    def jump(self) -> None:
        """A clock is set: a year ahead, to 1970, an hour off, or right again."""
        node = self._node()
        node.clock_offset_ms = self._rng.choice((YEAR_MS, -START_MS, HOUR_MS, -HOUR_MS, 0, 0))
        self._world.say(f"the clock of {node.name} is {node.clock_offset_ms} ms ahead")

    def back_up(self) -> None:
        """A backup, and some time later its return."""
        node = self._node()
        backup = node.disk.snapshot(), node.writer.epoch
        self._world.after(self._rng.uniform(1, 100), lambda: self.restore(node, *backup, self._rng.random() < 0.5))

    def restore(self, node: Node, content: dict[str, Any], epoch: int, noticed: bool) -> None:
        """The disk is what it was. `noticed`: the node sees it, by the mark beside its database; else peers tell it."""
        world = self._world
        if node.gone or not content["known"] or world.now >= world.faults_end:
            return
        if node.core:
            world.crash(node)
        world.say(f"{node.name} is restored from a backup")
        before = [op for ops in node.disk.known.values() for op in ops.values()]
        node.disk.restore(content)
        node.writer.epoch = epoch
        node.writer.skip_seqs(node.disk)
        if noticed:
            node.writer.renew(node.disk)
        world.oracle.rolled_back(node.name, [op for op in before if not node.disk.has(op)])
        world.boot(node)
        for _ in range(self._rng.randint(0, 3)):  # before anybody can tell it what it has forgotten
            world.user_writes(node, node.boot)

    def leave(self) -> None:
        """A node goes for good; who knew each other through it, hear of each other."""
        here = [node for node in self._world.nodes.values() if not node.gone and not node.lies]
        if len(here) > 2:
            self.dismiss(self._rng.choice(here))

    def dismiss(self, node: Node) -> None:
        world = self._world
        world.say(f"{node.name} leaves")
        if node.core:
            world.crash(node)
        node.gone = True
        world.oracle.left(node.name)
        here = {name: node for name, node in world.nodes.items() if not node.gone}
        for name, other in sorted(acquainted(here)):
            if other not in here[name].knows:
                here[name].knows.append(other)
                world.want(here[name], other)

    def _node(self) -> Node:
        return self._rng.choice([node for node in self._world.nodes.values() if not node.gone])

    def _some(self) -> set[str]:
        names = list(self._world.nodes)
        return set(self._rng.sample(names, self._rng.randint(1, len(names) - 1)))

    def _standing(self) -> list[Any]:
        return [c for node in self._world.nodes.values() for c in node.connections.values() if c.open]
