"""The observed-remove set: tags, links, and later votes.

Each element has a register of its own. An add is its own dot; a remove lists the dots of the adds that its writer had
seen, and takes away those alone. So a concurrent add survives a remove, adding again after a remove works, and no
element comes back that every node had seen removed.

Shapiro et al., "A Comprehensive Study of Convergent and Commutative Replicated Data Types", 2011, section 3.3.5.
Laws: tests/crdt/test_orset.py.
"""

from collections.abc import Iterable

from crdt.op import Op, OpClass
from crdt.survive import removed_dots


def surviving_adds(ops: Iterable[Op], initial: Iterable[Op] = ()) -> list[Op]:
    """The adds of one element that nothing took away, oldest first.

    `ops` are those of the element's register. `initial` are the writes that put the element into the set when they
    created the whole subject; each counts as an add.
    """
    ops = list(ops)
    removed = removed_dots(ops)
    adds = [op for op in ops if op.header.op_class == OpClass.ADD]
    return sorted((op for op in (*initial, *adds) if op.dot not in removed), key=lambda op: op.order)
