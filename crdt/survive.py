"""Who dominates whom: the one rule behind every replicated type.

All ops stay; what is shown follows from the ops that no other op dominates. Within one register:

* a write dominates the writes at or below its `clock`, the version vector that its writer had seen of this register;
* an add or a remove dominates exactly the dots that its `clock` lists; a concurrent add survives;
* an append dominates nothing.

An op whose field is empty wrote every field of its subject, so it stands in each of their registers. Only `class`, the
register and `clock` are read here, never `kind` or `body`: a node that does not know a kind still agrees about
survival.

An op takes effect only when the project's vector covers its clock (`in_effect`). Until then it waits, so a clock that
claims ops nobody has written cannot kill later writes.

Laws: tests/crdt/test_survive.py, tests/crdt/test_laws.py.
"""

from collections.abc import Collection, Iterable, Mapping

from crdt.op import MAX_CLOCK, Op, OpClass
from crdt.version import Dot

Clock = tuple[tuple[bytes, int], ...]


def missing_cause(op: Op, vector: Mapping[bytes, int]) -> Dot | None:
    """The first entry of the op's clock that is not here yet. `vector`: author id to seq, of the op's project."""
    return next((Dot(author, seq) for author, seq in op.header.clock if seq > vector.get(author, 0)), None)


def in_effect(op: Op, vector: Mapping[bytes, int]) -> bool:
    """Whether everything that `op` builds on is here."""
    return missing_cause(op, vector) is None


def in_register(ops: Iterable[Op], field: str) -> list[Op]:
    """The ops of one subject that stand in its register `field`."""
    return [op for op in ops if op.header.field in (field, "")]


def surviving_writes(ops: Collection[Op]) -> list[Op]:
    """The writes of one register that no other write dominates, the winner between them last.

    Never empty when there is a write: should writes dominate each other in a circle, which takes a liar, the latest
    stands.
    """
    writes = sorted((op for op in ops if op.header.op_class == OpClass.WRITE), key=lambda op: op.order)
    seen: dict[bytes, int] = {}
    for op in writes:
        for author, seq in op.clock.items():
            seen[author] = max(seq, seen.get(author, 0))
    return [op for op in writes if op.seq > seen.get(op.author, 0)] or writes[-1:]


def removed_dots(ops: Iterable[Op]) -> set[Dot]:
    """The dots that the adds and removes of one register take away."""
    return {
        Dot(author, seq)
        for op in ops
        if op.header.op_class in (OpClass.ADD, OpClass.REMOVE)
        for author, seq in op.header.clock
    }


def clock_over(ops: Collection[Op]) -> Clock:
    """The clock of a write that has seen `ops`, all that is in effect in its register.

    At most MAX_CLOCK authors: the survivors first, since the rest is dominated through them, then the newest.
    """
    surviving = {op.author for op in surviving_writes(ops)}
    newest: dict[bytes, Op] = {}
    for op in ops:
        if op.header.op_class == OpClass.WRITE and (op.author not in newest or op.seq > newest[op.author].seq):
            newest[op.author] = op
    kept = sorted(newest.values(), key=lambda op: (op.author in surviving, op.order), reverse=True)[:MAX_CLOCK]
    return tuple(sorted((op.author, op.seq) for op in kept))


def dots_of(ops: Iterable[Op]) -> list[Clock]:
    """The clocks of the removes that take `ops` away: one, unless there are more than MAX_CLOCK of them."""
    dots = sorted({(op.author, op.seq) for op in ops})
    return [tuple(dots[start : start + MAX_CLOCK]) for start in range(0, len(dots), MAX_CLOCK)]
