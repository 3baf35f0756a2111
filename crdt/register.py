"""The last-writer-wins register: one value, written by anybody, offline or not.

A write dominates those that its writer had seen. Between concurrent ones the later timestamp wins, then the author, so
every node that has the same writes shows the same value, also when the timestamps are equal. The loser is not lost: it
stands in the history, and the register says `conflict` until someone writes again.

A *held* write, one whose clock runs too far ahead (`held_after`), cannot win between concurrent writes until time has
caught up with it. Nothing else about it changes.

Shapiro et al., "Conflict-free Replicated Data Types", 2011. Laws: tests/crdt/test_register.py.
"""

from collections.abc import Collection
from dataclasses import dataclass

from crdt.hlc import MAX_TIMESTAMP
from crdt.op import Op
from crdt.survive import surviving_writes


@dataclass(frozen=True, slots=True)
class Register:
    """What one register shows: the winning write, the concurrent losers, and whom they all dominate."""

    winner: Op | None
    losers: tuple[Op, ...]
    superseded: tuple[Op, ...]


def resolve(writes: Collection[Op], held_after: int = MAX_TIMESTAMP) -> Register:
    """Settle the writes of one register that are in effect; timestamps above `held_after` are held."""
    surviving = surviving_writes(writes)
    surviving.sort(key=lambda op: (op.timestamp <= held_after, op.order))
    stands = {op.hash for op in surviving}
    superseded = sorted((op for op in writes if op.hash not in stands), key=lambda op: op.order)
    return Register(surviving[-1] if surviving else None, tuple(surviving[:-1]), tuple(superseded))
