"""A few nodes that write real signed ops about one fact, and exchange some of them.

A `Node` writes as the product does: with a clock over what it has in effect in that register, removes that list the
dots it sees, and a `prev` chain. It also does what no honest node does, when told to: kinds of tomorrow, bad bodies,
clocks that claim ops which nobody wrote, two ops with one dot. Nothing is random; keys come from the node's number.
"""

from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

from nacl.bindings import crypto_sign_seed_keypair

from crdt import fact, text
from crdt.fact import Record, Retraction
from crdt.hlc import DEFAULT_AHEAD_MS, Clock, horizon
from crdt.op import FORMAT, PREV_BYTES, Header, Op, OpClass, seal
from crdt.survive import clock_over, dots_of, in_effect, in_register
from crdt.version import Dot, Vector, author_id

MESH = bytes(range(32))
PROJECT = "garden"
EPOCH = 7
NOW_MS = 1_700_000_000_000
HELD_AFTER = horizon(NOW_MS)
FAR_MS = NOW_MS + 10 * DEFAULT_AHEAD_MS
"""The time on a clock that is too far ahead: what is written then is held."""


@cache
def keys(number: int) -> tuple[bytes, bytes]:
    """(public key, 64-byte secret key) of node `number`."""
    return crypto_sign_seed_keypair(bytes([number]) * 32)


def vector_of(ops: Iterable[Op]) -> Vector:
    """The last seq of each author's gapless chain in `ops`."""
    vector: Vector = {}
    for op in sorted(ops, key=lambda op: (op.author, op.seq)):
        last = vector.get(op.author, 0)
        if op.header.prev_seq == last or op.seq == last:
            vector[op.author] = op.seq
    return vector


def effective(ops: Collection[Op]) -> list[Op]:
    """Those of `ops`, in the order given, that take effect in a node that has them all and no others."""
    vector = vector_of(ops)
    return [op for op in ops if in_effect(op, vector)]


def lacking(ops: Collection[Op], vector: Vector) -> list[Op]:
    """What a node with `vector` lacks of `ops`."""
    return [op for op in ops if op.seq > vector.get(op.author, 0)]


class Node:
    """One author of one project. `ops` are what it has, in the order of their arrival."""

    def __init__(self, number: int, now_ms: int = NOW_MS) -> None:
        self.key, self.secret = keys(number)
        self.author = author_id(self.key, EPOCH)
        self.now_ms = now_ms
        self.clock = Clock()
        self.ops: list[Op] = []
        self.subject = ""

    # --- what it knows ---

    @property
    def mine(self) -> list[Op]:
        return [op for op in self.ops if op.author == self.author]

    @property
    def next_dot(self) -> Dot:
        return Dot(self.author, max((op.seq for op in self.mine), default=0) + 1)

    @property
    def vector(self) -> Vector:
        return vector_of(self.ops)

    @property
    def about(self) -> list[Op]:
        """What it has in effect about the one fact."""
        return [op for op in effective(self.ops) if op.subject == self.subject]

    @property
    def shown(self) -> fact.Fact:
        found = fact.fold(self.about, HELD_AFTER)
        assert found is not None
        return found

    @property
    def history(self) -> list[fact.Version]:
        return fact.history(self.about, HELD_AFTER)

    @property
    def body(self) -> str:
        return text.read(fact.text_ops(self.about))

    def states(self, field: str) -> dict[Any, str]:
        """Value to state, of every version of one field."""
        return {version.value: version.state for version in self.history if version.field == field}

    # --- what it writes ---

    def write(
        self,
        op_class: OpClass,
        field: str,
        kind: str,
        body: bytes = b"",
        clock: Iterable[tuple[bytes, int]] = (),
        subject: str | None = None,
        timestamp: int | None = None,
    ) -> Op:
        """Sign the next op, whatever it says."""
        last = max(self.mine, key=lambda op: op.seq, default=None)
        header = Header(
            format=FORMAT,
            project=PROJECT,
            op_class=op_class,
            subject=self.subject if subject is None else subject,
            field=field,
            node_key=self.key,
            epoch=EPOCH,
            seq=self.next_dot.seq,
            prev_seq=last.seq if last else 0,
            prev_hash=last.hash[:PREV_BYTES] if last else b"",
            timestamp=self.clock.issue(self.now_ms) if timestamp is None else timestamp,
            clock=tuple(clock),
            kind=kind,
            body=body,
        )
        op = seal(MESH, header, self.secret)
        self.ops.append(op)
        return op

    def create(self, record: Record | None = None) -> Op:
        body = fact.encode_record(record or Record(content="first"))
        op = self.write(OpClass.WRITE, "", fact.FACT, body, subject="")
        self.subject = op.subject
        return op

    def seen(self, field: str) -> tuple[tuple[bytes, int], ...]:
        """The clock of a write to `field` now."""
        return clock_over(in_register(self.about, field))

    def set(self, field: str, value: Any, **more: Any) -> Op:
        return self.write_value(field, fact.encode_value(value), **more)

    def write_value(self, field: str, body: bytes, kind: str = fact.VALUE, **more: Any) -> Op:
        return self.write(OpClass.WRITE, field, kind, body, more.pop("clock", self.seen(field)), **more)

    def retract(self, reason: str | None = None) -> Op:
        return self.set(fact.RETRACTED, Retraction(reason))

    def rewrite(self, record: Record) -> Op:
        """Write every field of the fact at once."""
        return self.write_value("", fact.encode_record(record), fact.FACT)

    def add(self, element: str, kind: str = fact.ELEMENT) -> Op:
        """Add `tag:NAME` or `link:RELATION:ID`."""
        return self.write(OpClass.ADD, element, kind)

    def remove(self, element: str, kind: str = fact.ELEMENT) -> list[Op]:
        """Take away what it sees of an element."""
        prefix = next(prefix for prefix in (fact.TAG_PREFIX, fact.LINK_PREFIX) if element.startswith(prefix))
        adds = fact.elements(self.about, prefix).get(element.removeprefix(prefix), [])
        return [self.write(OpClass.REMOVE, element, kind, clock=dots) for dots in dots_of(adds)]

    def edit(self, becomes: str) -> Op:
        update = text.edit(fact.text_ops(self.about), self.next_dot, becomes)
        return self.append(update)

    def append(self, update: bytes, kind: str = fact.TEXT) -> Op:
        return self.write(OpClass.APPEND, fact.BODY_FIELD, kind, update)

    def forget_last(self) -> None:
        """Lose its own last op, as after a restore without a new epoch: the next op has the same dot."""
        if len(self.mine) > 1:
            self.ops.remove(self.mine[-1])

    # --- what it receives ---

    def receive(self, ops: Iterable[Op]) -> None:
        there = set(self.ops)
        for op in ops:
            if op not in there:
                there.add(op)
                self.ops.append(op)
                self.clock.observe(op.timestamp, self.now_ms)
                self.subject = self.subject or op.subject

    def send(self, to: "Node", at_most: int | None = None) -> None:
        """Give another node what it lacks; `at_most` so many ops of each author, as when the connection breaks."""
        missing = sorted((op for op in self.ops if op not in set(to.ops)), key=lambda op: op.seq)
        given: dict[bytes, int] = {}
        for op in missing:
            given[op.author] = given.get(op.author, 0) + 1
            if at_most is None or given[op.author] <= at_most:
                to.receive([op])


def meet(*nodes: Node) -> None:
    """Everybody ends up with everything."""
    everything = [op for node in nodes for op in node.ops]
    for node in nodes:
        node.receive(everything)


def a_fact(record: Record | None = None, nodes: int = 2) -> list[Node]:
    """Nodes that all have one fact, which the first of them created."""
    founder, *others = [Node(number + 1) for number in range(nodes)]
    founder.create(record)
    meet(founder, *others)
    return [founder, *others]
