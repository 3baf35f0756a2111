"""A walk finds what differs and nothing else, in six messages, at a price that is pinned; and repairs it."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.op import Op
from sync import merkle, messages, walk
from sync.audit import FRUITLESS_S, WALK_S
from sync.errors import ProtocolError, Reason
from sync.merkle import LEVELS
from sync.messages import Ack, Batch, Carries, Done, Hello, Open, Step, Walk
from sync.ready import AuditFailed, Damaged, Outcome, Ready, RootsDiffer, RoundEnded, WalkEnded, Withheld
from sync.session import Session, State
from sync.transfer import WINDOW
from sync.walk import Descent, Returned, Wanted
from tests.sim.disk import Disk
from tests.sync import trees
from tests.sync.trees import LAST, SALT, Forest, Tree
from tests.sync.wire import MESH, Pair, agree, copied, disk, writer, written

ROUND_S = 30.0
"""Long enough for a round that finds nothing to be due again, whoever of the two has it."""
DIGESTS = st.lists(st.binary(min_size=32, max_size=32), unique=True, max_size=80)
CROWDED = DIGESTS.map(lambda some: [bytes((digest[0] & 1, digest[1] & 3)) + digest[2:] for digest in some])
"""All of them in a handful of leaves."""


# What is found


@given(st.one_of(DIGESTS, CROWDED), st.randoms(use_true_random=False), st.floats(0, 1))
def test_each_gives_what_the_other_lacks_and_wants_what_it_lacks(ops: list[bytes], rng: Random, shared: float) -> None:
    left = [op for op in ops if rng.random() < shared or rng.random() < 0.5]
    right = [op for op in ops if op not in left or rng.random() < shared]
    a, b, said = trees.walk(Tree(left), Tree(right))
    assert set(a.gives) == set(left) - set(right)
    assert set(b.gives) == set(right) - set(left)
    assert len(said) <= LEVELS + 2
    for mine, theirs in ((a, b), (b, a)):
        assert {digest[:8] for digest in theirs.gives} >= mine.wants
        incoming = Wanted(mine)
        for digest in theirs.gives:
            incoming._check("p", an_op(digest))


@given(DIGESTS, st.randoms(use_true_random=False))
def test_bounds_cut_a_walk_short_and_walks_end_in_agreement(ops: list[bytes], rng: Random) -> None:
    left = Tree(op for op in ops if rng.random() < 0.6)
    right = Tree(op for op in ops if op not in left.seqs or rng.random() < 0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "MAX_NODES", 2)
        patch.setattr(walk, "MAX_IDS", 12)
        patch.setattr(walk, "MAX_GIVES", 3)
        walks = 0
        while set(left.seqs) != set(right.seqs):
            a, b, _ = trees.walk(left, right)
            assert a.gives or b.gives, "nothing moved"
            right.seqs |= a.gives
            left.seqs |= b.gives
            walks += 1
            left, right = right, left
    assert walks <= len(ops)


def test_a_whole_store_is_given_as_far_as_one_walk_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_GIVES", 50)
    everything = trees.hashes(2_000)
    a, b, said = trees.walk(Tree(()), Tree(everything))
    assert not a.gives
    assert 50 <= len(b.gives) <= 50 + len(a.wants)
    assert trees.size(said) < 1 << 20


def test_ops_are_given_in_the_order_of_their_seqs() -> None:
    ops = trees.hashes(40)
    a, _, _ = trees.walk(Tree(ops), Tree(ops[:3]))
    batch = Returned(Tree(ops), MESH, a).fill()[0]  # type: ignore[arg-type]
    assert isinstance(batch, Batch)
    assert list(batch.ops) == ops[3:]


def test_a_walk_that_an_audit_begins_tells_the_ids_of_one_node() -> None:
    ops = [b"\x12" + digest[1:] for digest in trees.hashes(60)]
    a, b, said = trees.walk(Tree(ops[1:]), Tree(ops[:-1]), begin=(2, 0x12))
    assert (list(a.gives), list(b.gives), len(said)) == (ops[-1:], ops[:1], 2)


# What it costs


def test_one_difference_in_a_million_costs_less_than_a_kilobyte_with_the_op() -> None:
    _, b, said = trees.walk(Forest([(0xBEEF, 3)]), Forest())
    assert len(b.gives) == 1
    assert len(said) == LEVELS + 2
    batch = Batch(1, "p", (bytes(Random(1).randbytes(364)),))
    moving = [batch, Ack(1, 1), Done(), Done()]
    assert (trees.size(said), trees.size(moving)) == (ONE_WALK, ONE_OP)
    assert ONE_WALK + ONE_OP <= 1_000


def test_a_hundred_differences_in_a_million_cost_less_than_45_kilobytes() -> None:
    rng = Random(7)
    lacking = [[(rng.randrange(1 << 16), rng.randrange(15)) for _ in range(50)] for _ in range(2)]
    a, b, said = trees.walk(Forest(lacking[0]), Forest(lacking[1]))
    assert len(a.gives) + len(b.gives) == 100
    assert trees.size(said) == HUNDRED
    assert HUNDRED <= 45_000
    assert len(said) == LEVELS + 2


def test_equal_trees_cost_two_messages() -> None:
    _, _, said = trees.walk(Forest(), Forest())
    assert trees.size(said) == 100


def test_a_shallow_tree_and_a_deep_one_meet() -> None:
    """Whatever the books keep, a level is a level: the smaller set is told by ids as soon as there are few."""
    deep = trees.hashes(40_000)
    _, b, said = trees.walk(Tree(deep[:30]), Tree(deep[:31]))
    assert list(b.gives) == deep[30:31]
    assert trees.size(said) < 300


ONE_WALK, ONE_OP, HUNDRED = 449, 400, 26_289


# What a hostile peer may send


def begun(tree: Tree | None = None) -> Descent:
    made = Descent(tree or Tree(trees.hashes(300)), "p", SALT)
    made.begin()
    return made


CHILDREN = bytes(64)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Step({16: CHILDREN}, {}, b""), Reason.UNEXPECTED),
        (Step({}, {1_000: b""}, b""), Reason.UNEXPECTED),
        (Step({1: CHILDREN}, {1: b""}, b""), Reason.UNEXPECTED),
        (Step({}, {1: bytes(7)}, b""), Reason.MALFORMED),
        (Step({}, {}, bytes(9)), Reason.MALFORMED),
        (Step({}, {}, bytes(8)), Reason.NOT_ASKED),
    ],
    ids=[
        "a node not told of",
        "a leaf not told of",
        "a place twice",
        "half an id",
        "wants half an id",
        "wants a secret",
    ],
)
def test_a_step_out_of_line_is_refused(step: Step, reason: Reason) -> None:
    with pytest.raises(ProtocolError) as caught:
        begun().answer(step)
    assert caught.value.reason is reason


@pytest.mark.parametrize("places", [{}, {0: CHILDREN, 1: CHILDREN}, {1: CHILDREN}])
def test_a_walk_begins_at_one_node_of_its_level(places: dict[int, bytes]) -> None:
    with pytest.raises(ProtocolError):
        begun().enter(Walk("p", SALT, 0, places, {}))


def test_a_walk_never_goes_on_for_ever() -> None:
    """A peer that says that everything differs, always: it is over after as many messages as there are levels."""
    made = Descent(Tree(trees.hashes(3_000)), "p", SALT)
    step = made.enter(Walk("p", SALT, 0, {0: CHILDREN}, {}))
    told = 2
    while not made.over:
        told += 2
        assert told <= LEVELS + 2
        below = [child for place in step.nodes for child in merkle.children(place)]
        step = made.answer(Step(dict.fromkeys(below, CHILDREN) if told < LEVELS + 2 else {}, {}, b"")) or LAST
    with pytest.raises(ProtocolError):
        made.answer(LAST)
    assert len(made.gives) <= walk.MAX_GIVES


def test_digests_of_leaves_have_no_children() -> None:
    made = Descent(Tree([bytes(2) + bytes((n,)) * 30 for n in range(20)]), "p", SALT)
    with pytest.raises(ProtocolError):
        made.enter(Walk("p", SALT, LEVELS, {0: CHILDREN}, {}))


def test_only_what_was_asked_for_is_taken_and_only_once() -> None:
    ops = trees.hashes(300)
    a, _, _ = trees.walk(Tree(ops[1:]), Tree(ops))
    incoming = Wanted(a)
    with pytest.raises(ProtocolError) as caught:
        incoming._check("p", an_op(ops[5]))
    assert caught.value.reason is Reason.NOT_ASKED
    incoming._check("p", an_op(ops[0]))
    with pytest.raises(ProtocolError):
        incoming._check("p", an_op(ops[0]))


def an_op(digest: bytes) -> Op:
    class Header:
        seq = 1

    return Op(Header(), b"", digest)  # type: ignore[arg-type]


# Walks between cores


def met(count: int = 30) -> tuple[Pair, list[Op]]:
    """Two nodes that agree about `count` facts by a third, connected."""
    pair = Pair(disk(), disk())
    ops = written(pair.disks["a"], writer("c"), "p", count)
    copied(ops, pair.disks["b"])
    return pair.connect().settle(), [op for op in ops if op.project == "p"]


def later(pair: Pair, seconds: float = 2 * ROUND_S) -> Pair:
    pair.now += seconds
    for name, core in pair.cores.items():
        pair.do(name, core.tick(pair.now))
    return pair.settle()


def ends(pair: Pair, kind: type) -> list[object]:
    return [notice for _, notice in pair.notices if isinstance(notice, kind)]


def lose(store: Disk, *ops: Op) -> None:
    for op in ops:
        store.lose_row(op)


def lose_on_both(a: Disk, b: Disk, ops: list[Op]) -> None:
    a.lose_row(ops[1])
    b.lose_row(ops[2])


def rot_and_drift(a: Disk, b: Disk, ops: list[Op]) -> None:
    a.rot(ops[7])
    b.drift_sum(ops[7])


DAMAGE: dict[str, Callable[[Disk, Disk, list[Op]], None]] = {
    "a lost row": lambda a, b, ops: lose(b, ops[7]),
    "the last of a chain": lambda a, b, ops: lose(b, ops[-1]),
    "three rows in line": lambda a, b, ops: lose(b, *ops[3:6]),
    "a row on either side": lose_on_both,
    "a sum that drifted": lambda a, b, ops: b.drift_sum(ops[7]),
    "a rotten row, and a sum that drifted": rot_and_drift,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_repaired(damage: str) -> None:
    pair, ops = met()
    DAMAGE[damage](pair.disks["a"], pair.disks["b"], ops)
    for _ in range(2):
        later(pair, FRUITLESS_S + ROUND_S)
    assert agree(pair)
    assert not pair.closes
    for store in pair.disks.values():
        assert all(store.op("p", op.hash) == op.raw for op in ops)
        assert not store.drift
    assert RootsDiffer("b", "p") in ends(pair, RootsDiffer)
    before = len(pair.log)
    later(pair)
    assert pair.kinds()[before:] in (["a Hello", "b Same"], ["b Hello", "a Same"], ["a Hello", "b Hello", "b Same"])


def test_a_drifted_sum_moves_no_op() -> None:
    pair, ops = met()
    pair.disks["b"].drift_sum(ops[7])
    later(pair)
    place = merkle.node_of(ops[7].hash, 1)
    assert (("b", Damaged("a", "p", 1, place))) in pair.notices
    assert {(end.sent_ops, end.received_ops) for end in ends(pair, WalkEnded)} == {(0, 0)}  # type: ignore[attr-defined]


def test_the_reserved_project_is_walked_first() -> None:
    pair, ops = met()
    member = next(iter(pair.disks["a"].known["_mesh"].values()))
    pair.disks["b"].lose_row(ops[7])
    pair.disks["b"].lose_row(member)
    later(pair)
    walked = [message.project for _, message, _ in pair.log if isinstance(message, Walk)]
    assert walked == ["_mesh", "p"]
    assert agree(pair)


def test_what_cannot_be_repaired_is_walked_again_after_a_while_only() -> None:
    pair, ops = met()
    for store in pair.disks.values():
        store.mend = lambda *node: None  # type: ignore[method-assign, misc]
    pair.disks["b"].drift_sum(ops[7])
    for _ in range(8):
        later(pair)
    assert pair.kinds().count("a Walk") + pair.kinds().count("b Walk") == 1
    later(pair, FRUITLESS_S)
    assert pair.kinds().count("a Walk") + pair.kinds().count("b Walk") == 2
    assert not pair.closes


def test_a_round_that_is_stuck_is_followed_by_a_walk() -> None:
    """What a chain has forked into can't be had by asking for what comes after the fork."""
    pair, ops = met(5)
    twin = disk()
    copied([*pair.disks["a"].known["_mesh"].values(), *ops[:3]], twin)
    other = writer("c")
    twin.last_seq = ops[2].seq
    forked = [other.create(twin, "p")]
    twin.commit(forked)
    pair.disks["b"].known["p"][forked[0].hash] = forked[0]
    pair.disks["b"].chains["p", other.author].append(forked[0])
    later(pair)
    assert Outcome.STUCK in {end.outcome for end in ends(pair, RoundEnded)}  # type: ignore[attr-defined]
    assert ends(pair, WalkEnded)


def test_a_peer_that_gives_less_than_it_claims_is_named() -> None:
    pair, ops = met(5)
    more = written(pair.disks["a"], writer("c"), "p", 0) + [writer_goes_on(pair, ops) for _ in range(3)]
    del pair.disks["a"].known["p"][more[-2].hash]
    pair.disks["a"].chains["p", more[0].author].remove(more[-2])
    later(pair)
    assert ("b", Withheld("a", "p", more[0].author, more[-1].seq)) in pair.notices
    assert not [notice for name, notice in pair.notices if name == "a" and isinstance(notice, Withheld)]


def writer_goes_on(pair: Pair, ops: list[Op]) -> Op:
    author = writer("c")
    store = pair.disks["a"]
    store.last_seq = store.vector("p")[author.author]
    op = author.create(store, "p")
    store.commit([op])
    return op


def test_an_audit_finds_what_no_sum_shows() -> None:
    """The bytes of a row have changed, and nobody has read them since: sums and vectors agree."""
    pair, ops = met()
    pair.disks["b"].rot(ops[7])
    later(pair)
    assert not ends(pair, RootsDiffer), "the books look well"
    for _ in range(3):
        later(pair, WALK_S)
    assert ends(pair, AuditFailed)
    assert pair.disks["b"].op("p", ops[7].hash) == ops[7].raw
    assert agree(pair)


def test_an_audit_that_finds_nothing_costs_little() -> None:
    pair, _ = met()
    before = len(pair.log)
    later(pair, WALK_S)
    audits = [size for _, message, size in pair.log[before:] if isinstance(message, messages.Audit | messages.Audited)]
    assert audits
    assert len(audits) % 2 == 0
    assert max(audits) <= 40
    assert not ends(pair, AuditFailed)


# The session's part


def idle(me: str, peer: str) -> Session:
    store = disk()
    written(store, writer(peer), "p", 30)
    made = Session(me, me, MESH, peer, 1, store, 7, 0.0)
    made.open()
    made.receive(Open(1, messages.PROTO_MAX, MESH[:16], peer, ("*",), ()), 0.0)
    made.receive(Carries((), ()), 0.0)
    assert made.state is State.IDLE
    return made


def set_out(made: Session) -> Session:
    made._set_out("p")
    assert made.state is State.SET_OUT
    return made


A_WALK = Walk("p", SALT, 0, {0: CHILDREN}, {})


@pytest.mark.parametrize("theirs", [A_WALK, Hello(bytes(16), 0, ())])
def test_of_a_walk_and_what_crosses_it_the_smaller_ids_counts(theirs: Walk | Hello) -> None:
    mine = set_out(idle("a", "b"))
    assert not mine.receive(theirs, 1.0).send
    assert mine.state is State.SET_OUT
    other = set_out(idle("b", "a"))
    assert other.receive(theirs, 1.0).send
    assert other.state in (State.WALKING, State.TOLD)


def test_a_hello_that_a_walk_crosses_is_void_when_the_other_id_is_smaller() -> None:
    for me, peer, state in (("a", "b", State.ASKED), ("b", "a", State.WALKING)):
        made = idle(me, peer)
        made.begin(0.0)
        made.receive(A_WALK, 1.0)
        assert made.state is state


def refused(made: Session, message: messages.Received, now: float = 1.0) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        made.receive(message, now)
    return caught.value.reason


def test_a_walk_begun_again_and_again_for_nothing_is_refused() -> None:
    made = idle("b", "a")
    end_of_walk(made, 1.0)
    assert refused(made, A_WALK, 2.0) is Reason.UNEXPECTED
    later = idle("b", "a")
    end_of_walk(later, 1.0)
    assert later.receive(A_WALK, 2.0 + FRUITLESS_S).send


def end_of_walk(made: Session, now: float) -> None:
    """As the peer that has nothing and wants nothing."""
    equal = Descent(made._replica, "p", SALT).begin()
    made.receive(equal, now)
    assert made.state is State.STREAMING
    made.receive(Done(), now)
    assert made.state is State.IDLE


def test_a_project_that_is_not_shared_is_not_walked_nor_audited() -> None:
    for message in (Walk("secret", SALT, 0, {0: CHILDREN}, {}), messages.Audit("secret", 0, 0, SALT)):
        made = Session("b", "b", MESH, "a", 1, disk("p"), 7, 0.0)
        made.open()
        made.receive(Open(1, messages.PROTO_MAX, MESH[:16], "a", ("*",), ()), 0.0)
        made.receive(Carries((), tuple(made._overlap.offer()[1])), 0.0)
        assert refused(made, message) is Reason.NOT_ASKED


def test_audits_are_answered_once_a_minute_and_not_unasked() -> None:
    made = idle("b", "a")
    audit = messages.Audit("p", 0, 0, SALT)
    assert made.receive(audit, 1.0).send
    assert refused(made, audit, 2.0) is Reason.UNEXPECTED
    assert refused(idle("b", "a"), messages.Audited(bytes(16))) is Reason.UNEXPECTED


def test_a_node_that_speaks_version_1_is_never_sent_a_walk() -> None:
    made = Session("a", "a", MESH, "b", 1, disk(), 7, 0.0)
    made.open()
    made.receive(Open(1, 1, MESH[:16], "b", ("*",), ()), 0.0)
    made.receive(Carries((), ()), 0.0)
    made._agenda.suspect(["_mesh"])
    assert made._what_next() == Ready()


def test_the_ops_of_a_walk_are_committed_as_such() -> None:
    pair, ops = met()
    pair.disks["b"].lose_row(ops[7])
    later(pair)
    (commit,) = [commit for name, commit in pair.commits if name == "b" and commit.by_walk]
    assert commit.ops == (ops[7],)


def test_a_walk_keeps_to_the_window() -> None:
    pair, ops = met(60)
    for op in ops[5:50]:
        pair.disks["b"].lose_row(op)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "MAX_BATCH_OPS", 3)
        later(pair)
    assert agree(pair)
    batches = [message.number for _, message, _ in pair.log if isinstance(message, Batch)]
    assert max(batches) == 15
    assert WINDOW < 15
