"""Arbitrary histories: what several nodes might write about one fact, and what of it reaches whom.

`histories` draws steps and plays them, so a failing example shrinks to the fewest steps, printed one a line. The steps
include equal timestamps (a clock that stands still), clocks far ahead, kinds of tomorrow, bad bodies, foreign updates,
clocks that claim what nobody wrote, and two ops with one dot.
"""

from collections.abc import Callable

from hypothesis import note, settings
from hypothesis import strategies as st

from crdt import fact
from crdt.fact import Record, Retraction
from crdt.op import MAX_SEQ, OpClass
from tests.crdt.world import FAR_MS, NOW_MS, Node

NODES = 3
FIELDS = ("content", "content", "source", "meta", "valid_from", fact.RETRACTED)
ELEMENTS = ("tag:red", "tag:blue", "link:causes:x-1")
WORDS = ("eins", "zwei ", "drei\n", "vier 😀", "é")
VALUES = {
    "content": st.sampled_from(["a", "b", "c"]),
    "source": st.sampled_from([None, "x", "y"]),
    "meta": st.sampled_from([{}, {"a": 1}, {"a": [None, {"b": 2.5}]}]),
    "valid_from": st.sampled_from([None, 0, NOW_MS]),
    fact.RETRACTED: st.sampled_from([None, Retraction(), Retraction("wrong")]),
}
RECORDS = st.builds(
    Record,
    content=st.sampled_from(["first", "other"]),
    source=st.sampled_from([None, "x"]),
    tags=st.sampled_from([(), ("red",), ("red", "blue")]),
)
# A history takes milliseconds to play and many tests play some: each has its share of what the profile allows.
share = settings(max_examples=settings().max_examples // 2)
Step = tuple[str, int, Callable[[list[Node]], object]]


def _set(n: int) -> st.SearchStrategy[Step]:
    return st.sampled_from(FIELDS).flatmap(
        lambda field: VALUES[field].map(
            lambda value: (f"node {n} sets {field} to {value!r}", n, lambda nodes: nodes[n].set(field, value))
        )
    )


def _add(n: int) -> st.SearchStrategy[Step]:
    return st.sampled_from(ELEMENTS).map(
        lambda element: (f"node {n} adds {element}", n, lambda nodes: nodes[n].add(element))
    )


def _remove(n: int) -> st.SearchStrategy[Step]:
    return st.sampled_from(ELEMENTS).map(
        lambda element: (f"node {n} removes {element}", n, lambda nodes: nodes[n].remove(element))
    )


def _edit(n: int) -> st.SearchStrategy[Step]:
    def play(nodes: list[Node], word: str, at: int, cut: int) -> None:
        old = nodes[n].body
        nodes[n].edit(old[:at] + word + old[at + cut :])

    return st.tuples(st.sampled_from(WORDS), st.integers(0, 20), st.integers(0, 6)).map(
        lambda drawn: (f"node {n} edits the body: {drawn}", n, lambda nodes: play(nodes, *drawn))
    )


def _rewrite(n: int) -> st.SearchStrategy[Step]:
    return RECORDS.map(lambda record: (f"node {n} writes {record}", n, lambda nodes: nodes[n].rewrite(record)))


def _unknown(n: int) -> st.SearchStrategy[Step]:
    """An op of a kind that this version does not know."""

    def play(nodes: list[Node], op_class: OpClass, field: str) -> None:
        clock = () if op_class == OpClass.APPEND else nodes[n].seen(field)
        nodes[n].write(op_class, field, "tomorrow", b"?", clock)

    registers = st.sampled_from([*FIELDS, *ELEMENTS, "", fact.BODY_FIELD, "mood"])
    return st.tuples(st.sampled_from(list(OpClass)), registers).map(
        lambda drawn: (f"node {n} writes an unknown kind: {drawn}", n, lambda nodes: play(nodes, *drawn))
    )


def _bad(n: int) -> st.SearchStrategy[Step]:
    """An op whose body can't be read."""
    bodies = st.sampled_from([b"", b"\xc1", b"\x93\x01", b"\xa1", b"\x81\xa1a\xc4\x01b", b"\xff" * 9])
    fields = st.sampled_from([*FIELDS, ""])
    return st.tuples(fields, bodies).map(
        lambda drawn: (
            f"node {n} writes a bad body: {drawn}",
            n,
            lambda nodes: nodes[n].write_value(*drawn, kind=fact.VALUE if drawn[0] else fact.FACT),
        )
    )


def _foreign_text(n: int) -> st.SearchStrategy[Step]:
    """Somebody else's update once more, in an op of one's own; or bytes that are none."""

    def play(nodes: list[Node], which: int, cut: int) -> None:
        others = [op.header.body for op in fact.text_ops(nodes[n].ops)] or [b"\xff\x00"]
        nodes[n].append(others[which % len(others)][cut:])

    return st.tuples(st.integers(0, 5), st.integers(0, 2)).map(
        lambda drawn: (f"node {n} sends a foreign update: {drawn}", n, lambda nodes: play(nodes, *drawn))
    )


def _impossible(n: int) -> st.SearchStrategy[Step]:
    """A write that claims to have seen more than was ever written."""

    def play(nodes: list[Node], field: str) -> None:
        claims = sorted((node.author, MAX_SEQ) for node in nodes if node is not nodes[n])
        nodes[n].set(field, None, clock=claims)

    return st.sampled_from(FIELDS).map(
        lambda field: (f"node {n} claims everything, on {field}", n, lambda nodes: play(nodes, field))
    )


def _fork(n: int) -> st.SearchStrategy[Step]:
    return st.just((f"node {n} forgets its last op", n, lambda nodes: nodes[n].forget_last()))


def _send(n: int) -> st.SearchStrategy[Step]:
    others = st.sampled_from([number for number in range(NODES) if number != n])
    return st.tuples(others, st.sampled_from([None, None, 1, 2])).map(
        lambda drawn: (
            f"node {n} sends to {drawn[0]}, at most {drawn[1]}",
            n,
            lambda nodes: nodes[n].send(nodes[drawn[0]], drawn[1]),
        )
    )


COMMON = (_set, _add, _remove, _edit, _send, _send)
RARE = (_rewrite, _unknown, _bad, _foreign_text, _impossible, _fork)


@st.composite
def histories(draw: st.DrawFn, max_steps: int = 20) -> list[Node]:
    """Nodes that have lived through up to `max_steps` steps; each has a part of what was written."""
    steps = st.sampled_from((*COMMON, *COMMON, *RARE)).flatmap(lambda kind: st.integers(0, NODES - 1).flatmap(kind))
    nodes = [Node(number + 1) for number in range(NODES)]
    nodes[0].create(draw(RECORDS))
    for node in nodes:
        node.receive(nodes[0].ops)
    for _ in range(draw(st.integers(0, max_steps))):
        said, n, play = draw(steps)
        # A clock that mostly stands still gives equal timestamps; now and then one runs far ahead.
        nodes[n].now_ms = draw(st.sampled_from([NOW_MS] * 6 + [NOW_MS + 1, FAR_MS]))
        note(f"{said}, at +{nodes[n].now_ms - NOW_MS} ms")
        play(nodes)
    return nodes
