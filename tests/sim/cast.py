"""Who is in a world: its nodes, and the connections between them."""

from collections.abc import Mapping
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
    """One machine. Everything but disk and identity is lost in a crash; `boot` tells one life from the next.

    `drift`: how much faster than time its clock runs; `lies`: which it tells (tests/sim/liar.py); `gone`: for good.
    """

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
    full_until: float = 0.0
    drift: float = 0.0
    lies: tuple[str, ...] = ()
    gone: bool = False
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
    edges = acquainted(nodes) | {(a, b) for a in names for b in names if a != b and rng.random() < 0.2}
    for a, b in sorted(edges):
        nodes[a].knows.append(b)
    return nodes


def acquainted(nodes: Mapping[str, Node]) -> set[tuple[str, str]]:
    """Who must know whom, so that those who carry the same project can pass it on."""
    edges = set(pairwise(nodes))
    for project in PROJECTS:
        edges |= set(pairwise(name for name in nodes if nodes[name].disk.carried(project)))
    return edges
