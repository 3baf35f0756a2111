"""What joins, what waits, what lies ahead of a gap: in whatever order ops come, the same books come out of it."""

import itertools
import random

import pytest

from crdt.fact import ELEMENT
from crdt.op import Op, OpClass
from node import chains
from tests.node.world import PROJECT, Forger, Node, a_mesh, a_record


async def a_reader(*forgers: Forger) -> Node:
    """A node that knows the forgers and has nothing of theirs."""
    node = Node(1)
    await node.merge([forger.introduction() for forger in forgers])
    return node


def contents(node: Node) -> set[str]:
    return {content for (content,) in node.rows("SELECT shown ->> 'content' FROM facts")}


async def test_ops_beyond_a_gap_count_for_nothing_until_it_closes() -> None:
    forger = Forger(9)
    node = await a_reader(forger)
    ops = forger.chain(5)
    merged = await node.merge(ops[2:])
    assert (len(merged.new), merged.ahead, merged.known) == (0, 3, 0)
    assert node.store.vector(PROJECT) == {}
    assert PROJECT not in node.store.projects()
    assert contents(node) == set()
    assert node.store.ops_after(PROJECT, forger.author, 0, 100, 1 << 20) == []

    merged = await node.merge(ops[:2])
    assert merged.new == ops
    assert node.store.vector(PROJECT) == {forger.author: 6}
    assert contents(node) == {f"fact {seq}" for seq in range(2, 7)}
    assert node.rows("SELECT count(*) FROM ahead") == [(0,)]


async def test_every_order_of_a_chain_ends_alike() -> None:
    forger = Forger(9)
    ops = forger.chain(4)
    roots = set()
    for order in itertools.permutations(ops):
        node = await a_reader(forger)
        for op in order:
            await node.merge([op])
        assert [op.hash for op in node.ops() if op.project == PROJECT] == [op.hash for op in ops]
        roots.add(node.store.root(PROJECT))
    assert len(roots) == 1


async def test_what_is_aside_is_aside_once_however_often_it_comes() -> None:
    forger = Forger(9)
    node = await a_reader(forger)
    late = forger.chain(3)[2]
    for _ in range(3):
        assert (await node.merge([late, late])).ahead == 2
    assert node.rows("SELECT count(*) FROM ahead") == [(1,)]


async def test_a_chain_does_not_reach_over_projects() -> None:
    forger = Forger(9)
    node = await a_reader(forger)
    first = forger.op(2, project="one")
    other = forger.op(3, first, project="two")
    merged = await node.merge([first, other])
    assert merged.new == [first]
    assert merged.ahead == 1


@pytest.mark.parametrize("limit", ["MAX_AHEAD_OPS", "MAX_AHEAD_BYTES"])
async def test_what_does_not_fit_aside_is_refused_and_comes_again(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(9)
    node = await a_reader(forger)
    ops = forger.chain(10)
    monkeypatch.setattr(chains, limit, 3 if limit == "MAX_AHEAD_OPS" else sum(len(op.raw) for op in ops[1:4]))
    assert (await node.merge(ops[1:])).ahead == 9
    assert node.rows("SELECT count(*) FROM ahead") == [(3,)]
    assert (await node.merge(ops[:1])).new == ops[:4]
    assert (await node.merge(ops)).new == ops[4:]
    # The room is free again, also for what comes after a restart.
    assert (await node.merge([forger.op(50, forger.op(49))])).ahead == 1
    assert node.rows("SELECT count(*) FROM ahead") == [(1,)]


async def test_room_aside_is_free_again_when_it_was_taken_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(9)
    node = await a_reader(forger)
    monkeypatch.setattr(chains, "MAX_AHEAD_OPS", 3)

    def fails(connection: object) -> None:
        node.store.merge(node.database.direct, forger.chain(4)[1:], node.now_ms)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await node.database.write(fails)
    await node.merge(forger.chain(4)[1:])
    assert node.rows("SELECT count(*) FROM ahead") == [(3,)]


async def test_room_aside_is_counted_on_disk_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(9)
    node = await a_reader(forger)
    ops = forger.chain(6)
    monkeypatch.setattr(chains, "MAX_AHEAD_OPS", 2)
    await node.merge(ops[1:3])
    node.store._forget()
    await node.merge(ops[3:])
    assert node.rows("SELECT count(*) FROM ahead") == [(2,)]


def a_fork(forger: Forger) -> list[Op]:
    """Two branches after seq 3, with the same seqs: 2, 3, then 4 and 5 twice."""
    trunk = forger.chain(2)
    branches = []
    for name in ("left", "right"):
        first = forger.op(4, trunk[-1], content=f"{name} 4")
        branches += [first, forger.op(5, first, content=f"{name} 5")]
    return trunk + branches


async def test_both_branches_of_a_fork_are_kept_in_every_order() -> None:
    forger = Forger(9)
    ops = a_fork(forger)
    ends = set()
    for seed in range(60):
        order = random.Random(seed).sample(ops, len(ops))
        node = await a_reader(forger)
        for op in order:
            await node.merge([op])
        assert {op.hash for op in node.ops() if op.project == PROJECT} == {op.hash for op in ops}, seed
        assert node.rows("SELECT count(*) FROM ahead") == [(0,)], seed
        heads = node.rows(
            "SELECT seq, hash FROM heads WHERE project = (SELECT id FROM projects WHERE name = ?)", PROJECT
        )
        ends.add((node.store.root(PROJECT), *heads))
    assert len(ends) == 1
    ((_, head),) = ends
    assert head == (5, min(ops[3].hash, ops[5].hash))


async def test_a_fork_at_the_very_start_is_kept_as_well() -> None:
    forger = Forger(9)
    node = await a_reader(forger)
    one, other = forger.op(2, content="one"), forger.op(2, content="other")
    assert (await node.merge([one])).new == [one]
    assert (await node.merge([other, one])).new == [other]
    assert len(node.store.ops_after(PROJECT, forger.author, 0, 10, 1 << 20)) == 2


async def test_an_op_whose_clock_names_what_is_not_here_waits() -> None:
    forger, friend = Forger(9), Forger(8)
    node = await a_reader(forger, friend)
    fact = forger.op(2, content="a fact")
    causes = friend.chain(3)
    add = forger.op(
        3, fact, op_class=OpClass.WRITE, subject=fact.subject, field="content", kind="value", body=b"\xa3new",
        clock=tuple(sorted([(forger.author, 2), (friend.author, 4)])),
    )  # fmt: skip
    await node.merge([fact, add])
    assert node.store.vector(PROJECT) == {forger.author: 3}, "it counts"
    assert contents(node) == {"a fact"}, "and has no effect"
    await node.merge(causes[:2])
    assert "a fact" in contents(node)
    assert node.rows("SELECT count(*) FROM waiting") == [(1,)]
    await node.merge(causes[2:])
    assert contents(node) == {"new", "fact 2", "fact 3", "fact 4"}
    assert node.rows("SELECT count(*) FROM waiting") == [(0,)]
    assert node.rows("SELECT count(*) FROM ops WHERE waiting") == [(0,)]


async def test_an_op_with_several_causes_waits_for_the_last() -> None:
    forgers = [Forger(number) for number in (7, 8, 9)]
    node = await a_reader(*forgers)
    fact = forgers[0].op(2)
    firsts = [forger.op(2) for forger in forgers[1:]]
    clock = tuple(sorted((forger.author, 2) for forger in forgers))
    tag = forgers[0].op(
        3, fact, op_class=OpClass.ADD, subject=fact.subject, field="tag:x", kind=ELEMENT, body=b"", clock=clock
    )
    for order in itertools.permutations([[tag], *([op] for op in firsts)]):
        node = await a_reader(*forgers)
        await node.merge([fact])
        for number, batch in enumerate(order):
            assert node.rows("SELECT tag FROM tags") == []
            await node.merge(batch)
            assert (node.rows("SELECT tag FROM tags") == [("x",)]) == (number == 2)


async def test_an_op_wakes_by_a_later_op_of_its_own_author() -> None:
    """Its clock names a seq of its own author, in another branch of time, that the chain passes with the op itself."""
    forger = Forger(9)
    node = await a_reader(forger)
    fact = forger.op(2)
    tag = forger.op(
        9, fact, op_class=OpClass.ADD, subject=fact.subject, field="tag:x", kind=ELEMENT, body=b"",
        clock=((forger.author, 7),),
    )  # fmt: skip
    await node.merge([fact, tag])
    assert node.rows("SELECT tag FROM tags") == [("x",)]


async def test_chains_are_read_again_after_a_rollback() -> None:
    (node,) = await a_mesh(1)
    (first,) = await node.append(a_record("first"))

    def fails(connection: object) -> None:
        node.store.append(node.database.direct, [a_record("lost"), a_record("lost too", "elsewhere")], node.now_ms)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await node.database.write(fails)
    (second,) = await node.append(a_record("second"))
    assert second.header.prev_seq == first.seq
    assert second.header.prev_hash == first.hash[:16]
    assert second.seq > first.seq + 2, "the seqs of what was undone are skipped"
    assert node.store.projects() == ["_mesh", PROJECT]
    (elsewhere,) = await node.append(a_record("there", "elsewhere"))
    assert elsewhere.header.prev_seq == 0
