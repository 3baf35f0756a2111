"""Survival: it follows from class, register and clock alone; a clock must be reached before its op counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import fact
from crdt.op import MAX_CLOCK, MAX_SEQ, Op, OpClass
from crdt.survive import clock_over, dots_of, in_effect, in_register, removed_dots, surviving_writes
from crdt.version import Dot
from tests.crdt.histories import ELEMENTS, FIELDS, histories, share
from tests.crdt.world import NOW_MS, Node, a_fact, meet

WRITE, ADD, REMOVE, APPEND = OpClass


def test_an_op_waits_until_everything_it_builds_on_is_here() -> None:
    left, right = a_fact()
    seen = left.set("content", "a")
    left.set("source", "s")
    left.send(right)
    op = right.set("content", "b")
    assert op.clock == {left.author: seen.seq}
    assert in_effect(op, {left.author: seen.seq}) and in_effect(op, {left.author: seen.seq + 1})
    assert not in_effect(op, {left.author: seen.seq - 1}) and not in_effect(op, {right.author: MAX_SEQ})


def test_an_op_without_a_clock_never_waits() -> None:
    assert in_effect(a_fact()[0].ops[0], {})


def test_a_clock_that_claims_everything_is_not_in_effect_and_kills_nothing() -> None:
    left, right = a_fact()
    left.set("content", "liar", clock=sorted([(left.author, 1), (right.author, MAX_SEQ)]))
    right.set("content", "honest")
    meet(left, right)
    assert left.shown.content == right.shown.content == "honest"
    right.set("content", "later")
    meet(left, right)
    assert left.shown.content == right.shown.content == "later"
    assert "liar" not in left.states("content")


def test_a_write_dominates_at_and_below_its_clock_and_nothing_above() -> None:
    left, right = a_fact()
    first, second = left.set("content", "1"), left.set("content", "2")
    left.send(right)
    over_both = right.set("content", "both")
    third = left.set("content", "3")
    ops = [left.ops[0], first, second, third, over_both]
    assert set(surviving_writes(ops)) == {third, over_both}
    assert surviving_writes([first, second]) == [second]


def test_a_write_of_another_register_dominates_nothing_here() -> None:
    (left,) = a_fact(nodes=1)
    content = left.set("content", "a")
    source = left.set("source", "b")
    assert in_register(left.ops, "content") == [left.ops[0], content]
    assert in_register(left.ops, "source") == [left.ops[0], source]


def test_of_writes_that_dominate_each_other_in_a_circle_the_latest_stands() -> None:
    left, right = Node(1), Node(2)
    one = left.write(WRITE, "content", fact.VALUE, clock=[(right.author, 1)], subject="s", timestamp=2)
    two = right.write(WRITE, "content", fact.VALUE, clock=[(left.author, 1)], subject="s", timestamp=1)
    assert surviving_writes([one, two]) == surviving_writes([two, one]) == [one]
    assert surviving_writes([]) == []


def test_only_adds_and_removes_take_dots_away() -> None:
    (node,) = a_fact(nodes=1)
    first = node.add("tag:a")
    dots = [(first.author, first.seq)]
    for op_class, taken in ((WRITE, set()), (ADD, {first.dot}), (REMOVE, {first.dot})):
        op = node.write(op_class, "tag:a", fact.ELEMENT, clock=dots)
        assert removed_dots([first, op]) == taken
    assert removed_dots([node.write(APPEND, "tag:a", fact.ELEMENT)]) == set()


def test_a_dot_is_taken_away_by_author_and_seq() -> None:
    left, right = a_fact()
    mine, _, theirs = left.add("tag:a"), right.add("tag:x"), right.add("tag:a")
    assert mine.seq == theirs.seq
    assert removed_dots(left.remove("tag:a")) == {Dot(left.author, mine.seq)} != {theirs.dot}


@share
@given(histories(), st.sampled_from(FIELDS))
def test_a_new_write_stands_alone(nodes: list[Node], field: str) -> None:
    for node in nodes:
        op = node.set(field, None)
        standing = surviving_writes(in_register(node.about, field))
        # Two ops with one dot fall together, or stand together.
        assert op in standing and {other.dot for other in standing} == {op.dot}


@share
@given(histories())
def test_only_class_register_and_clock_decide(nodes: list[Node]) -> None:
    """A node that knows no kind at all agrees about who survives."""
    meet(*nodes)
    other = Node(1)
    for op in sorted(nodes[0].mine, key=lambda op: op.seq):
        if op.seq == other.next_dot.seq:
            header = op.header
            other.write(
                op.op_class, header.field, "tomorrow", b"?", header.clock, header.subject, timestamp=header.timestamp
            )
    theirs = [op for op in nodes[0].ops if op.author != nodes[0].author]
    mine = [op for op in nodes[0].mine if op.dot in {op.dot for op in other.ops}]
    for field in FIELDS:
        known, unknown = in_register([*theirs, *mine], field), in_register([*theirs, *other.ops], field)
        assert {op.dot for op in surviving_writes(known)} == {op.dot for op in surviving_writes(unknown)}
    for element in ELEMENTS:
        known, unknown = in_register([*theirs, *mine], element), in_register([*theirs, *other.ops], element)
        assert removed_dots(known) == removed_dots(unknown)


def crowd(size: int) -> list[Op]:
    """A write to one register by each of many authors. Of all but the first three the next author has seen it."""
    ops: list[Op] = []
    for number in range(1, size + 1):
        node = Node(number, NOW_MS + number)
        clock = sorted((op.author, op.seq) for op in ops[3:][-1:])
        ops.append(node.write(WRITE, "content", fact.VALUE, clock=clock, subject="s"))
    return ops


def test_a_full_clock_keeps_the_survivors_first_then_the_newest() -> None:
    ops = crowd(MAX_CLOCK + 10)
    survivors = surviving_writes(ops)
    assert set(survivors) == {*ops[:3], ops[-1]}, "three old ones, and the end of the chain"
    clock = clock_over(ops)
    assert len(clock) == MAX_CLOCK and list(clock) == sorted(clock)
    assert set(clock) == {(op.author, op.seq) for op in [*ops[:3], *ops[-MAX_CLOCK + 3 :]]}
    new = Node(200).write(WRITE, "content", fact.VALUE, clock=clock, subject="s")
    assert surviving_writes([*ops, new]) == [new]


def test_a_clock_names_the_newest_op_of_each_author() -> None:
    (node,) = a_fact(nodes=1)
    ops = [node.ops[0], node.set("content", "a"), node.set("content", "b")]
    assert clock_over(ops) == clock_over(ops[::-1]) == ((node.author, 3),)
    assert clock_over([]) == ()


@pytest.mark.parametrize("count", [0, 1, MAX_CLOCK, MAX_CLOCK + 1, 3 * MAX_CLOCK])
def test_removes_are_split_where_a_clock_is_full(count: int) -> None:
    (node,) = a_fact(nodes=1)
    adds = [node.add("tag:a") for _ in range(count)]
    clocks = dots_of(adds)
    assert len(clocks) == -(-count // MAX_CLOCK) and all(0 < len(clock) <= MAX_CLOCK for clock in clocks)
    assert [dot for clock in clocks for dot in clock] == [tuple(op.dot) for op in adds]
    node.remove("tag:a")
    assert node.shown.tags == ()
