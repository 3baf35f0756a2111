"""The simulator's disk keeps the promises of `Replica`; so must anything that the core is given."""

from random import Random

from sync import merkle
from sync.replica import Chance, Replica
from tests.sync.wire import disk, writer, written


def test_the_disk_of_the_simulator_is_a_replica() -> None:
    chance: Chance = Random(1)
    replica: Replica = disk("*")
    assert chance.uniform(1, 1) == 1
    assert replica.root("nothing") == merkle.EMPTY_ROOT
    assert replica.vector("nothing") == {}
    assert list(replica.projects()) == []


def test_a_vector_claims_what_ops_after_returns() -> None:
    store, author = disk("*"), writer("a")
    ops = [op for op in written(store, author, "p", 5) if op.project == "p"]
    assert store.vector("p") == {author.author: ops[-1].seq}
    assert store.ops_after("p", author.author, 0, 99, 10**6) == [op.raw for op in ops]
    assert store.ops_after("p", author.author, ops[2].seq, 1, 10**6) == [ops[3].raw]
    assert store.ops_after("p", author.author, 0, 99, 1) == [ops[0].raw], "one, however large"
    assert store.ops_after("p", author.author, ops[-1].seq, 99, 10**6) == []


def test_an_op_ahead_of_a_gap_counts_for_nothing_until_the_gap_is_filled() -> None:
    origin, store, author = disk("*"), disk("*"), writer("a")
    member, first, second, third = written(origin, author, "p", 3)
    assert store.commit([member, first, third]) == 2
    assert store.vector("p") == {author.author: first.seq}
    assert store.commit([second]) == 2
    assert (store.vector("p"), store.root("p")) == (origin.vector("p"), origin.root("p"))
