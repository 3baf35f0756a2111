"""Observed-remove sets: a remove takes away what its writer saw, and a concurrent add survives."""

from hypothesis import given

from crdt import fact
from crdt.fact import Record
from crdt.op import OpClass
from crdt.orset import surviving_adds
from tests.crdt.histories import ELEMENTS, histories, share
from tests.crdt.world import Node, a_fact, meet


def test_added_removed_added_again() -> None:
    (node,) = a_fact(nodes=1)
    node.add("tag:a")
    assert node.shown.tags == ("a",)
    node.remove("tag:a")
    assert node.shown.tags == ()
    again = node.add("tag:a")
    assert node.shown.tags == ("a",)
    assert surviving_adds(node.ops[1:]) == [again]


def test_a_concurrent_add_survives_a_remove() -> None:
    left, right = a_fact()
    left.add("tag:a")
    meet(left, right)
    left.remove("tag:a")
    right.add("tag:a")
    meet(left, right)
    assert left.shown.tags == right.shown.tags == ("a",)


def test_a_remove_takes_away_every_add_that_it_saw() -> None:
    left, right = a_fact()
    left.add("tag:a")
    right.add("tag:a")
    meet(left, right)
    (remove,) = left.remove("tag:a")
    assert {author for author, _ in remove.header.clock} == {left.author, right.author}
    meet(left, right)
    assert left.shown.tags == right.shown.tags == ()


def test_a_remove_that_overtakes_its_add_waits_for_it() -> None:
    left, right, late = a_fact(nodes=3)
    left.add("tag:a")
    left.send(right)
    (remove,) = right.remove("tag:a")
    late.receive([remove])
    assert remove not in late.about
    left.send(late)
    assert remove in late.about and late.shown.tags == ()


def test_a_remove_of_one_element_leaves_the_others() -> None:
    left, right = a_fact()
    left.add("tag:a")
    left.add("tag:b")
    left.add("link:causes:x-1")
    left.send(right)
    right.remove("tag:a")
    assert right.shown.tags == ("b",) and right.shown.links == (("causes", "x-1"),)


def test_an_add_takes_away_the_dots_that_it_lists() -> None:
    """What a vote does: it is an add that replaces the agent's earlier ones."""
    (node,) = a_fact(nodes=1)
    first = node.add("vote")
    second = node.write(OpClass.ADD, "vote", "vote", clock=[tuple(first.dot)])
    assert surviving_adds([second, first]) == [second]


def test_what_the_record_brought_is_an_add() -> None:
    left, right = a_fact(Record(content="c", tags=("a", "b")))
    left.remove("tag:a")
    assert left.shown.tags == ("b",)
    right.add("tag:a")
    meet(left, right)
    assert left.shown.tags == right.shown.tags == ("a", "b")


def test_a_remove_by_one_seq_spares_the_same_seq_of_another() -> None:
    left, right = a_fact()
    right.set("source", "so that the seqs are equal")
    mine, theirs = left.add("tag:a"), right.add("tag:a")
    assert mine.seq == theirs.seq
    left.remove("tag:a")
    meet(left, right)
    assert left.shown.tags == right.shown.tags == ("a",)
    assert surviving_adds([op for op in left.ops if op.header.field == "tag:a"]) == [theirs]


@share
@given(histories())
def test_what_everybody_saw_removed_does_not_come_back(nodes: list[Node]) -> None:
    meet(*nodes)
    for element in ELEMENTS:
        nodes[0].remove(element)
    meet(*nodes)
    for node in nodes:
        assert node.shown.tags == () and node.shown.links == ()


@share
@given(histories())
def test_survivors_are_adds_oldest_first_and_none_was_taken_away(nodes: list[Node]) -> None:
    for node in nodes:
        for prefix in (fact.TAG_PREFIX, fact.LINK_PREFIX):
            for name, adds in fact.elements(node.about, prefix).items():
                assert adds == sorted(adds, key=lambda op: op.order)
                takers = [op for op in node.about if op.header.field == prefix + name and op.op_class in (2, 3)]
                taken = {dot for op in takers for dot in op.header.clock}
                assert not taken & {tuple(op.dot) for op in adds}
