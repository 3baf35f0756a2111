"""One session, played by a test or joined to another: each state's answers, each breach, and what a round costs."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.op import Op
from sync import codec, transfer
from sync.digest import of_all
from sync.errors import Mismatch, ProtocolError, Reason, Stalled, SyncError
from sync.messages import (
    HELLO_PROJECTS,
    PROTO_MAX,
    PROTO_MIN,
    Ack,
    Audited,
    Batch,
    Carries,
    Digests,
    Done,
    Hello,
    Known,
    Message,
    Open,
    Received,
    Same,
    Step,
    Vectors,
    Verified,
    Walk,
)
from sync.ready import Lagging, Outcome, PeerOpened, RootsDiffer, RoundEnded
from sync.session import OPEN_S, STALL_S, Session, State
from tests.sim.disk import Disk
from tests.sync.frames import anything
from tests.sync.wire import MESH, Pair, agree, copied, disk, read, writer, written

OPEN = Open(PROTO_MIN, PROTO_MAX, MESH[:16], "z", ("*",), ())
OTHER = bytes(16)


def session(store: Disk, me: str = "m", peer: str = "z") -> Session:
    return Session(me, me, MESH, peer, 1, store, 7, 0.0)


def idle(store: Disk, me: str = "m", peer: str = "z") -> Session:
    """A session that has agreed with a peer that carries everything."""
    made = session(store, me, peer)
    made.open()
    made.receive(OPEN, 0.0)
    made.receive(Carries((), tuple(made._overlap.offer()[1])), 0.0)
    assert made.state is State.IDLE
    return made


def said(session: Session, message: Received) -> list[Message]:
    return [send.message for send in session.receive(message, 0.0).send]


def refused(session: Session, message: Received) -> Reason:
    with pytest.raises(SyncError) as caught:
        session.receive(message, 0.0)
    return caught.value.reason


# Opening


def test_both_say_who_they_are_and_what_they_carry() -> None:
    made = session(disk("plant", "team/*"))
    (send,) = made.open().send
    assert isinstance(send.message, Open)
    assert (send.message.prefixes, len(send.message.points), send.message.mesh) == (("team/*",), 1, MESH[:16])
    ready = made.receive(OPEN, 0.0)
    assert [send.message for send in ready.send] == [Carries(("plant",), ())]
    assert ready.notify == (PeerOpened("z", "z"),)


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (Open(1, 1, OTHER, "z", (), ()), Reason.MESH),
        (Open(PROTO_MAX + 1, PROTO_MAX + 3, MESH[:16], "z", (), ()), Reason.VERSION),
    ],
)
def test_nodes_that_cannot_talk_say_why(theirs: Open, reason: Reason) -> None:
    made = session(disk())
    with pytest.raises(Mismatch) as caught:
        made.receive(theirs, 0.0)
    assert caught.value.reason is reason


def test_a_later_version_that_still_speaks_ours_is_welcome() -> None:
    assert session(disk()).receive(Open(1, 99, MESH[:16], "z", (), ()), 0.0).send


# Which message in which state


def in_state(state: State, store: Disk) -> Session:
    made = idle(store) if state not in (State.OPENING, State.AGREEING) else session(store)
    match state:
        case State.AGREEING:
            made.receive(OPEN, 0.0)
        case State.ASKED:
            made.begin(0.0)
        case State.OFFERED:
            made.receive(Hello(OTHER, 0, None), 0.0)
        case State.TOLD:
            made.receive(Hello(OTHER, 0, ()), 0.0)
        case State.STREAMING:
            made.begin(0.0)
            made.receive(Vectors(4, {"p": Known(OTHER, {})}, ()), 0.0)
        case State.SET_OUT:
            made._set_out("p")
        case State.WALKING:
            made.receive(Walk("_mesh", OTHER, 0, {0: bytes(64)}, {}), 0.0)
    assert made.state is state
    return made


MESSAGES: list[Received] = [
    OPEN,
    Carries((), ()),
    Hello(OTHER, 0, ()),
    Same(),
    Digests({}),
    Vectors(4, {}, ()),
    Verified(1, "p", ()),
    Ack(1, 0),
    Done(),
    Walk("_mesh", OTHER, 0, {0: bytes(64)}, {}),
    Step({}, {}, b""),
    Audited(OTHER),
]
EXPECTED = {
    State.OPENING: {Open},
    State.AGREEING: {Carries},
    State.IDLE: {Hello, Walk},
    State.ASKED: {Hello, Same, Digests, Vectors, Walk},
    State.OFFERED: {Vectors},
    State.TOLD: {Vectors},
    State.STREAMING: {Verified, Ack, Done},
    State.SET_OUT: {Hello, Walk, Step},
    State.WALKING: {Step},
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_that_no_honest_peer_sends_now_ends_the_session(state: State, message: Received) -> None:
    store = disk()
    written(store, writer("a"), "p", 1)
    made = in_state(state, store)
    if type(message) in EXPECTED[state]:
        made.receive(message, 0.0)
    else:
        assert refused(made, message) is Reason.UNEXPECTED


@pytest.mark.parametrize("state", State)
def test_silence_ends_the_session_and_idleness_does_not(state: State) -> None:
    made = in_state(state, disk())
    limit = {State.OPENING: OPEN_S, State.AGREEING: OPEN_S, State.IDLE: inf}.get(state, STALL_S)
    assert made.deadline == limit
    assert made.tick(min(limit, 1e6) - 0.001).send == ()
    if state is not State.IDLE:
        with pytest.raises(Stalled):
            made.tick(limit)


def test_a_peer_is_not_blamed_for_our_own_slow_disk() -> None:
    store, theirs = disk(), disk()
    ops = written(theirs, writer("b"), "p", 1)
    made = idle(store)
    made.begin(0.0)
    made.receive(Vectors(4, {}, ()), 0.0)
    made.receive(Verified(1, "_mesh", (ops[0],)), 0.0)
    assert made.deadline == inf
    made.persisted(1, 50.0)
    assert made.deadline == 50 + STALL_S


# Rounds


def test_equal_sides_are_done_after_two_messages() -> None:
    a, b = disk(), disk()
    copied(written(a, writer("a"), "p", 3), b)
    pair = Pair(a, b).connect().settle()
    assert pair.kinds(Open, Carries) == ["a Hello", "b Same"]
    assert [n.outcome for _, n in pair.notices if isinstance(n, RoundEnded)] == [Outcome.SAME] * 2


def test_both_directions_go_at_once_and_the_round_ends_equal() -> None:
    a, b = disk(), disk()
    copied(written(a, writer("a"), "p", 3), b)
    written(a, writer("a"), "p", 2)
    written(b, writer("b"), "q", 2)
    pair = Pair(a, b).connect().settle()
    assert agree(pair)
    assert pair.kinds(Open, Carries) == [
        "a Hello", "b Vectors", "a Vectors", "a Batch", "a Done", "b Batch", "b Batch", "b Done",
        "b Ack", "a Ack", "a Ack", "a Hello", "b Same",
    ]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["p", "q", "_mesh"]), st.integers(1, 4)), max_size=8))
@settings(max_examples=40)
def test_any_two_sides_agree_in_one_round(history: list[tuple[str, str, int]]) -> None:
    a, b = disk(), disk()
    for name, project, count in history:
        written({"a": a, "b": b}[name], writer(name), project, count)
    pair = Pair(a, b).connect().settle()
    assert agree(pair) and not pair.closes
    assert sum(isinstance(message, Hello) for _, message, _ in pair.log) <= 2


def test_more_projects_than_a_hello_lists_take_one_step_more() -> None:
    a, b = disk(), disk()
    for place in range(HELLO_PROJECTS + 2):
        copied(written(a, writer("a"), f"p{place}", 1), b)
    written(a, writer("a"), "p3", 1)
    written(b, writer("b"), "new", 1)
    pair = Pair(a, b).connect().settle()
    assert agree(pair)
    assert pair.kinds(Open, Carries)[:4] == ["a Hello", "b Digests", "a Vectors", "b Vectors"]
    vectors = next(message for _, message, _ in pair.log if isinstance(message, Vectors))
    assert vectors.projects.keys() == {"_mesh", "new", "p3"}, "only those that differ, and the reserved one"


@pytest.mark.parametrize("lister", ["a", "b"])
def test_a_project_that_only_one_side_has_is_found(lister: str) -> None:
    a, b = disk(), disk()
    written({"a": a, "b": b}[lister], writer("w"), "only-here", 2)
    pair = Pair(a, b).connect().settle()
    assert agree(pair) and len(a.known["only-here"]) == len(b.known["only-here"]) == 2


def test_when_hellos_cross_that_of_the_smaller_id_counts() -> None:
    small, large = idle(disk(), "a", "b"), idle(disk(), "b", "a")
    hellos = {}
    for made in (small, large):
        (send,) = made.begin(0.0).send
        assert isinstance(send.message, Hello)
        hellos[made.peer] = send.message
    assert said(small, hellos["a"]) == [] and small.state is State.ASKED
    assert said(large, hellos["b"]) == [Same()] and large.state is State.IDLE
    assert said(small, Same()) == [] and small.state is State.IDLE


def test_an_ack_exists_only_after_the_commit() -> None:
    ops = written(disk(), writer("b"), "p", 1)
    made = idle(disk())
    made.begin(0.0)
    made.receive(Vectors(4, {}, ()), 0.0)
    ready = made.receive(Verified(1, "_mesh", (ops[0],)), 0.0)
    assert ready.send == () and [commit.ops for commit in ready.persist] == [(ops[0],)]
    assert [send.message for send in made.persisted(1, 0.0).send] == [Ack(1, 1)]


def test_both_know_how_far_apart_they_are_while_they_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = disk(), disk()
    count = 120
    ops = written(left, writer("a"), "plant", count)
    monkeypatch.setattr(transfer, "MAX_BATCH_OPS", 10)
    pair = Pair(left, right).connect().settle()
    lags = {name: [n for who, n in pair.notices if who == name and isinstance(n, Lagging)] for name in "ab"}
    assert (lags["a"][0].ahead_ops, lags["a"][0].ahead_ms) == (len(ops), ops[0].timestamp >> 16)
    ahead = [lag.ahead_ops for lag in lags["a"]]
    assert ahead == sorted(ahead, reverse=True), "it only shrinks"
    behind = [lag.behind_ops for lag in lags["b"]]
    assert max(behind) >= count - 20
    assert {lag.behind_ms for lag in lags["b"] if lag.behind_ops} == {ops[0].timestamp >> 16}
    for last in (lags["a"][-1], lags["b"][-1]):
        assert (last.ahead_ops, last.behind_ops) == (0, 0)


def test_a_round_ends_only_when_both_disks_have_everything() -> None:
    ops = written(disk(), writer("b"), "p", 1)
    made = idle(disk())
    made.begin(0.0)
    made.receive(Vectors(4, {}, ()), 0.0)
    made.receive(Verified(1, "_mesh", (ops[0],)), 0.0)
    assert said(made, Done()) == [] and made.state is State.STREAMING
    assert [type(send.message) for send in made.persisted(1, 0.0).send] == [Ack, Hello], "it moved: compare again"


def test_an_author_is_introduced_before_its_first_op_even_if_it_came_during_the_round() -> None:
    """The reserved project was equal when the round began; then somebody new arrived from elsewhere, and a first op."""
    a, b = disk(), disk()
    copied(written(a, writer("a"), "p", 1), b)
    written(b, writer("b"), "p", 1)
    copied(list(b.known["_mesh"].values()), a)
    pair = Pair(a, b).connect()
    while not any(isinstance(message, Vectors) for _, message, _ in pair.log):
        pair.step()
    written(b, writer("newcomer"), "p", 1)
    pair.settle()
    assert agree(pair) and not pair.closes


def test_equal_vectors_with_different_roots_are_reported_by_both_and_walked() -> None:
    a, b = disk(), disk()
    ops = written(a, writer("a"), "p", 3)
    copied(ops, b)
    a.lose_row(ops[2])
    pair = Pair(a, b).connect().settle()
    assert [(name, n) for name, n in pair.notices if isinstance(n, RootsDiffer)] == [
        ("a", RootsDiffer("b", "p")),
        ("b", RootsDiffer("a", "p")),
    ]
    outcomes = [n.outcome for _, n in pair.notices if isinstance(n, RoundEnded)]
    assert outcomes == [Outcome.STUCK] * 2 + [Outcome.SAME] * 2
    assert len([message for _, message, _ in pair.log if isinstance(message, Batch)]) == 1
    assert agree(pair)


def test_a_vector_that_claims_what_nobody_has_moves_nothing() -> None:
    store = disk()
    ops = written(store, writer("a"), "p", 3)
    made = idle(store)
    made.begin(0.0)
    claim = dict.fromkeys((ops[0].author, bytes(16)), 2**61)
    sent = said(made, Vectors(4, {"p": Known(OTHER, claim), "_mesh": Known(OTHER, claim)}, ()))
    assert [type(message) for message in sent] == [Vectors, Done]
    made.receive(Done(), 0.0)
    assert store.vector("p") == {ops[0].author: ops[-1].seq}


# Projects


def test_only_what_both_carry_is_compared_and_no_other_name_is_said() -> None:
    a, b = disk("plant", "secret"), disk("plant", "diary")
    for store, name, projects in ((a, "a", ("plant", "secret")), (b, "b", ("plant", "diary"))):
        for project in projects:
            written(store, writer(name), project, 2)
    pair = Pair(a, b).connect().settle()
    assert agree(pair)
    assert "secret" not in b.known and "diary" not in a.known
    for _, message, _ in pair.log:
        assert b"secret" not in codec._encode(message) and b"diary" not in codec._encode(message)


@pytest.mark.parametrize("message", [Vectors(4, {"diary": Known(OTHER, {})}, ()), Digests({"diary": bytes(8)})])
def test_a_peer_that_names_what_we_do_not_carry_is_refused(message: Message) -> None:
    made = idle(disk("plant", "team/*"))
    made.begin(0.0)
    assert refused(made, message) is Reason.NOT_ASKED  # type: ignore[arg-type]


# Costs


def hundred_differ(total: int) -> Pair:
    a, b = disk(), disk()
    authors = [writer(name) for name in "abcde"]
    for author in authors:
        author.sentence = lambda author=author: author._rng.randbytes(100).hex()  # type: ignore[misc]
        copied(written(a, author, "p", total // len(authors)), b)
    written(a, authors[0], "p", 50)
    written(b, authors[1], "p", 50)
    return Pair(a, b).connect()


def test_a_hundred_of_many_cost_thirty_kilobytes_and_one_round_trip() -> None:
    """Pinned: a change of these numbers is a change of the protocol's cost."""
    pair = hundred_differ(1_000).settle()
    assert agree(pair)
    kinds = pair.kinds(Open, Carries)
    assert kinds[:3] == ["a Hello", "b Vectors", "a Vectors"], "batches leave one round trip after the hello"
    assert 22_000 < pair.bytes <= 24_500
    without_ops = sum(size for _, message, size in pair.log if not isinstance(message, Batch))
    assert without_ops <= 1_100


@pytest.mark.parametrize("projects", [1, HELLO_PROJECTS - 1, 40])
def test_a_quiet_round_costs_at_most_150_bytes(projects: int) -> None:
    a, b = disk(), disk()
    for place in range(projects):
        copied(written(a, writer("a"), f"p{place}", 1), b)
    pair = Pair(a, b).connect().settle().forget()
    pair.tick(40.0, "a")
    websocket = 2 * len(pair.log) + 4 * sum(sender == "a" for sender, _, _ in pair.log)
    assert 0 < pair.bytes + websocket <= 150


# Hostile peers

verified = st.builds(
    Verified, st.integers(1, 3), st.sampled_from(["p", "_mesh"]), st.just(tuple(written(disk(), writer("x"), "p", 2)))
)


@given(st.lists(anything | verified, max_size=12), st.booleans())
def test_whatever_a_peer_says_the_session_answers_or_ends(messages: list[Received], begin: bool) -> None:
    store = disk()
    written(store, writer("a"), "p", 2)
    made = idle(store)
    before = (store.vector("p"), store.root("p"))
    if begin:
        made.begin(0.0)
    for message in messages:
        try:
            ready = made.receive(message, 0.0)
        except SyncError:
            break
        assert len(ready.persist) <= 1 and len(ready.send) <= transfer.WINDOW + 3
    assert (store.vector("p"), store.root("p")) == before


@given(st.data())
@settings(max_examples=60)
def test_a_mutated_conversation_stores_nothing_false(data: st.DataObject) -> None:
    """Frames between two honest nodes, some of them damaged: sessions end, and what is stored was signed."""
    a, b = disk(), disk()
    mine, theirs = written(a, writer("a"), "p", 4), written(b, writer("b"), "p", 4)
    pair = Pair(a, b)

    def damage(frame: bytes) -> bytes:
        if not data.draw(st.booleans()):
            return frame
        changed = bytearray(frame)
        changed[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(changed)

    pair.damage = damage
    pair.connect().settle()
    genuine = {op.hash for op in (*mine, *theirs)}
    for store in (a, b):
        held: list[Op] = [op for ops in store.known.values() for op in ops.values()]
        assert {op.hash for op in held} <= genuine
    assert all(isinstance(close.error, SyncError) for _, close in pair.closes)


def test_a_batch_that_was_not_verified_is_not_accepted() -> None:
    """The type says so; at run time it is one more unexpected message."""
    frame = codec.encode(Batch(1, "p", tuple(op.raw for op in written(disk(), writer("a"), "p", 1)[1:])))
    assert isinstance(read(frame), Verified)
    made = in_state(State.STREAMING, disk())
    with pytest.raises(ProtocolError):
        made.receive(codec.decode(frame), 0.0)  # type: ignore[arg-type]


def test_the_digest_of_nothing_is_the_same_everywhere() -> None:
    (send,) = idle(disk()).begin(0.0).send
    assert isinstance(send.message, Hello) and send.message.digest == of_all([]) and send.message.projects == ()
