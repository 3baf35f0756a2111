"""Who is in a world: its nodes, the connections between them, and which faults they will meet."""

from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from sync.gossip import Core
from sync.overlap import narrowed
from tests.sim.disk import Disk
from tests.sim.workload import Writer

PROJECTS = ("plant-7c1e", "team/red-9f2a", "team/blue-4d8b", "diary-33b0")
PATTERNS = (("*",), ("team/*",), ("plant-7c1e", "diary-33b0"), ("team/red-9f2a", "plant-7c1e"), ("diary-33b0",))
GRANTS = (("*",), ("*",), ("*",), ("team/*",), ("plant-7c1e", "team/red-9f2a"))
"""What certificates let nodes read."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Which faults there are. Probabilities are per frame or commit, `_s` the mean time between two."""

    loss: float = 0.0
    duplicate: float = 0.0
    overtake: float = 0.0
    cut_s: float = 0.0
    partition_s: float = 0.0
    crash_s: float = 0.0
    crash_in_commit: float = 0.0
    commit_fails: float = 0.0
    slow: float = 0.0

    @classmethod
    def draw(cls, rng: Random) -> "Faults":
        most = cls(0.05, 0.03, 0.03, 20.0, 60.0, 50.0, 0.05, 0.05, 0.5)
        names = [name for name in cls.__slots__ if rng.random() < 0.5]
        return cls(**{name: getattr(most, name) * rng.uniform(0.3, 1.0) for name in names})

    @property
    def breaks_streams(self) -> bool:
        return bool(self.loss or self.duplicate or self.overtake)


@dataclass(eq=False, slots=True)
class Connection:
    """A stream between two nodes. `free`: when each direction is done with what was sent so far."""

    dialler: str
    answerer: str
    delay_s: float
    bytes_per_s: float
    open: bool = True
    free: dict[str, float] = field(default_factory=dict)

    def other(self, name: str) -> str:
        return self.answerer if name == self.dialler else self.dialler


@dataclass(eq=False, slots=True)
class Node:
    """One machine. Everything but disk and identity is lost in a crash; `boot` tells one life from the next."""

    name: str
    disk: Disk
    writer: Writer
    knows: list[str]
    clock_offset_ms: int
    grants: tuple[str, ...] = ("*",)
    core: Core | None = None
    boot: int = 0
    timer: float = 0.0
    disk_free: float = 0.0
    connections: dict[str, Connection] = field(default_factory=dict)


def cast(mesh: bytes, rng: Random) -> dict[str, Node]:
    """Nodes, by name, who carry this and that, and know enough of each other for all to agree in the end."""
    names = [f"n{place}" for place in range(rng.randint(2, 5))]
    nodes = {
        name: Node(name, Disk(rng.choice(PATTERNS)), Writer(name, mesh, rng), [], rng.randint(-(10**6), 10**6))
        for name in names
    }
    for node in nodes.values():  # drawn from the author, so that all else is as it was without grants
        node.grants = Random(node.writer.author).choice(GRANTS)
        node.disk.patterns = narrowed(node.disk.patterns, node.grants)
    edges = set(pairwise(names))
    edges |= {(a, b) for a in names for b in names if a != b and rng.random() < 0.2}
    for project in PROJECTS:  # who carries the same project must be able to pass it on
        edges |= set(pairwise(name for name in names if nodes[name].disk.carried(project)))
    for a, b in sorted(edges):
        nodes[a].knows.append(b)
    return nodes
