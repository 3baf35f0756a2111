"""Batches: what the peer lacks and only that, in order, bounded, and no more under way than granted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.op import Op
from sync import transfer
from sync.errors import ProtocolError, Reason
from sync.messages import MAX_BATCH_BYTES, Ack, Batch, Done, Verified
from sync.transfer import Chain, Incoming, Outgoing
from tests.sim.disk import Disk
from tests.sync.wire import MESH, disk, writer, written


def chains(store: Disk, *projects: str) -> list[Chain]:
    return [Chain(project, author, 0) for project in projects for author in sorted(store.vector(project))]


def drain(outgoing: Outgoing) -> list[Batch]:
    """Every batch, with a peer that acknowledges each at once."""
    batches: list[Batch] = []
    while not outgoing.finished:
        for message in outgoing.fill():
            if isinstance(message, Batch):
                batches.append(message)
                outgoing.acknowledge(Ack(message.number, 0))
    return batches


def two_authors(counts: tuple[int, int], size: int = 0) -> tuple[Disk, list[Op]]:
    store = disk("*")
    ops: list[Op] = []
    for name, count in zip("ab", counts, strict=True):
        author = writer(name)
        if size:
            author.sentence = lambda: "x" * size  # type: ignore[method-assign]
        ops += [op for op in written(store, author, "p", count) if op.project == "p"]
    return store, ops


# Outgoing


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 9))
def test_everything_is_sent_once_each_author_upwards(first: int, second: int, window: int) -> None:
    store, ops = two_authors((first, second))
    outgoing = Outgoing(store, MESH, chains(store, "p"), window)
    sent = [raw for batch in drain(outgoing) for raw in batch.ops]
    by_author = {a: [op.raw for op in ops if op.author == a] for a in sorted({op.author for op in ops})}
    assert sent == [raw for raws in by_author.values() for raw in raws]
    assert outgoing.ops == len(ops)


def test_only_what_lies_above_the_peers_vector() -> None:
    store, ops = two_authors((5, 0))
    outgoing = Outgoing(store, MESH, [Chain("p", ops[0].author, ops[2].seq)], 4)
    assert [batch.ops for batch in drain(outgoing)] == [(ops[3].raw, ops[4].raw)]


def test_batches_are_bounded_by_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_BATCH_OPS", 4)
    store, _ = two_authors((6, 5))
    assert [len(batch.ops) for batch in drain(Outgoing(store, MESH, chains(store, "p"), 4))] == [4, 4, 3]


def test_batches_are_bounded_by_bytes() -> None:
    for size in (10, 20_000, 30_000, 40_000):
        store, ops = two_authors((4, 3), size)
        batches = drain(Outgoing(store, MESH, chains(store, "p"), 4))
        assert sum(len(batch.ops) for batch in batches) == len(ops)
        assert all(sum(map(len, batch.ops)) <= MAX_BATCH_BYTES for batch in batches)


def test_an_op_larger_than_a_batch_goes_alone() -> None:
    store, ops = two_authors((2, 2), MAX_BATCH_BYTES + 1)
    assert [len(batch.ops) for batch in drain(Outgoing(store, MESH, chains(store, "p"), 4))] == [1] * len(ops)


def test_a_batch_holds_one_project() -> None:
    store, author = disk("*"), writer("a")
    written(store, author, "p", 2)
    written(store, author, "q", 2)
    batches = drain(Outgoing(store, MESH, chains(store, "_mesh", "p", "q"), 4))
    assert [(batch.project, len(batch.ops)) for batch in batches] == [("_mesh", 1), ("p", 2), ("q", 2)]
    assert [batch.number for batch in batches] == [1, 2, 3]


@pytest.mark.parametrize("window", [1, 3])
def test_no_more_is_under_way_than_the_peer_granted(window: int) -> None:
    store, _ = two_authors((3, 3), 40_000)
    outgoing = Outgoing(store, MESH, chains(store, "p"), window)
    assert len(outgoing.fill()) == window
    assert outgoing.fill() == []
    outgoing.acknowledge(Ack(1, 1))
    assert [message.number for message in outgoing.fill() if isinstance(message, Batch)] == [window + 1]
    assert not outgoing.finished


def test_it_is_finished_when_all_is_on_the_peers_disk() -> None:
    store, ops = two_authors((2, 0))
    outgoing = Outgoing(store, MESH, chains(store, "p"), 4)
    assert [type(message) for message in outgoing.fill()] == [Batch, Done]
    assert not outgoing.finished
    outgoing.acknowledge(Ack(1, len(ops)))
    assert outgoing.finished and outgoing.fresh == len(ops)


def test_with_nothing_to_send_it_says_so_once() -> None:
    outgoing = Outgoing(disk("*"), MESH, [], 4)
    assert outgoing.fill() == [Done()] and outgoing.fill() == []
    assert outgoing.finished


@pytest.mark.parametrize("number", [2, 3])
def test_an_ack_of_what_was_not_sent_is_refused(number: int) -> None:
    store, _ = two_authors((2, 0))
    outgoing = Outgoing(store, MESH, chains(store, "p"), 4)
    outgoing.fill()
    with pytest.raises(ProtocolError, match="acknowledged"):
        outgoing.acknowledge(Ack(number, 0))


def test_the_same_ack_twice_is_refused() -> None:
    store, _ = two_authors((2, 0))
    outgoing = Outgoing(store, MESH, chains(store, "p"), 4)
    outgoing.fill()
    outgoing.acknowledge(Ack(1, 0))
    with pytest.raises(ProtocolError):
        outgoing.acknowledge(Ack(1, 0))


# Incoming


def refused(incoming: Incoming, batch: Verified) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        incoming.take(batch)
    return caught.value.reason


def test_what_was_asked_for_is_taken() -> None:
    _, ops = two_authors((3, 3))
    incoming = Incoming({"p": {ops[0].author: ops[0].seq}})
    incoming.take(Verified(1, "p", tuple(ops[1:4])))
    incoming.take(Verified(2, "p", tuple(ops[4:])))
    incoming.done()
    assert incoming.waits_for_disk and not incoming.finished
    assert [incoming.committed(3), incoming.committed(1)] == [Ack(1, 3), Ack(2, 1)]
    assert incoming.finished and (incoming.ops, incoming.fresh) == (5, 4)


def test_what_was_not_asked_for_is_refused() -> None:
    store, ops = two_authors((3, 0))
    other = written(store, writer("a"), "q", 1)[-1]
    told = {"p": {ops[0].author: ops[0].seq}}
    assert refused(Incoming(told), Verified(1, "q", (other,))) is Reason.NOT_ASKED
    assert refused(Incoming(told), Verified(1, "p", (other,))) is Reason.NOT_ASKED
    assert refused(Incoming(told), Verified(1, "p", (ops[0],))) is Reason.NOT_ASKED
    assert refused(Incoming(told), Verified(1, "p", (ops[2], ops[1]))) is Reason.NOT_ASKED
    assert refused(Incoming(told), Verified(1, "p", (ops[1], ops[1]))) is Reason.NOT_ASKED


def test_an_op_of_an_earlier_batch_is_refused() -> None:
    _, ops = two_authors((3, 0))
    incoming = Incoming({"p": {}})
    incoming.take(Verified(1, "p", tuple(ops[:2])))
    assert refused(incoming, Verified(2, "p", (ops[1],))) is Reason.NOT_ASKED


def test_batches_come_in_their_order_and_within_the_window() -> None:
    _, ops = two_authors((6, 0))
    assert refused(Incoming({"p": {}}), Verified(2, "p", (ops[0],))) is Reason.UNEXPECTED
    incoming = Incoming({"p": {}}, window=2)
    incoming.take(Verified(1, "p", (ops[0],)))
    incoming.take(Verified(2, "p", (ops[1],)))
    assert refused(incoming, Verified(3, "p", (ops[2],))) is Reason.WINDOW
    incoming.committed(1)
    incoming.take(Verified(3, "p", (ops[2],)))


def test_nothing_comes_after_done() -> None:
    _, ops = two_authors((1, 0))
    incoming = Incoming({"p": {}})
    incoming.done()
    assert refused(incoming, Verified(1, "p", (ops[0],))) is Reason.UNEXPECTED
    with pytest.raises(ProtocolError, match="twice"):
        incoming.done()


def test_both_sides_of_a_fork_may_come() -> None:
    """Two ops of one author with one seq follow each other by hash."""
    left, right = disk("*"), disk("*")
    one = written(left, writer("a"), "p", 1)[1]
    author = writer("a")
    author.sentence = lambda: "something else"  # type: ignore[method-assign]
    two = written(right, author, "p", 1)[1]
    assert one.dot == two.dot and one != two
    first, second = sorted((one, two), key=lambda op: op.hash)
    Incoming({"p": {}}).take(Verified(1, "p", (first, second)))
    assert refused(Incoming({"p": {}}), Verified(1, "p", (second, first))) is Reason.NOT_ASKED
