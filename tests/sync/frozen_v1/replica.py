"""What the core of sync asks of the store: reads that are cheap, synchronous, and of committed state only.

`node` supplies it (node/store.py does; tests/sim/disk.py does in the simulator). The core never writes through it: what
it received it returns as `Ready.persist`, and it learns what became of that by reading again.

All reads between two events see one state: a vector never claims an op that `ops_after` would not return, and `root`
stands for the same ops as `vector`. Tests: tests/sync/test_replica.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol


class Replica(Protocol):
    """The projects of one node. An author is named by 16 bytes (crdt.version.author_id)."""

    def carries(self) -> Sequence[str]:
        """What this node carries and may read: names, and prefixes that end in `*`. See sync/overlap.py."""
        ...

    def projects(self) -> Iterable[str]:
        """The names of the projects of which any op is here."""
        ...

    def vector(self, project: str) -> Mapping[bytes, int]:
        """Author to the seq of the last op of its gapless chain here; empty for a project that is not here.

        It claims what is on disk and nothing else: never what a peer says, never an op ahead of a gap.
        """
        ...

    def root(self, project: str) -> bytes:
        """The 16-byte Merkle root of the project's ops (sync.merkle.root); EMPTY_ROOT for none."""
        ...

    def ops_after(self, project: str, author: bytes, seq: int, max_ops: int, max_bytes: int) -> Sequence[bytes]:
        """The author's next ops above `seq`, as received, in chain order.

        At most `max_ops`, together at most `max_bytes`, but always at least one if there is one.
        """
        ...

    def lacking(self, project: str, vector: Mapping[bytes, int]) -> tuple[int, int]:
        """How many ops are here that `vector` does not claim, and when the oldest was written (ms since 1970 UTC)."""
        ...

    def wall_ms(self) -> int:
        """This node's wall clock, milliseconds since 1970 UTC: peers tell each other, and say who is wrong."""
        ...


class Chance(Protocol):
    """Where randomness comes from: `random.SystemRandom()` in a node, a seeded `random.Random` in the simulator."""

    def uniform(self, a: float, b: float, /) -> float: ...

    def getrandbits(self, k: int, /) -> int: ...
