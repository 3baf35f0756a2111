"""The core: who is due when, what a write sets off, and that nothing that happens to one session harms another."""

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.dialling import JITTER
from sync.errors import ProtocolError, Reason, Refused
from sync.gossip import CROSSING_S, INTERVAL_S, MAX_SESSIONS, RELAY_S, Core
from sync.messages import PROTO_MAX, PROTO_MIN, Carries, Hello, Known, Open, Received, Same, Vectors, Verified
from sync.ready import NOTHING, Ready
from sync.session import OPEN_S, State
from tests.sim.disk import Disk
from tests.sync.frames import anything
from tests.sync.wire import MESH, Pair, agree, disk, writer, written

EVERYTHING = Vectors(4, {"_mesh": Known(bytes(16), {bytes(16): 1})}, ())
OPEN = Open(PROTO_MIN, PROTO_MAX, MESH[:16], "z", ("*",), ())


def core(store: Disk | None = None, me: str = "m") -> Core:
    return Core(me, me, MESH, store or disk(), Random(1))


def meet(core: Core, peer: str, now: float = 0.0, prefixes: tuple[str, ...] = ("*",)) -> Ready:
    """A session with `peer` up to the point where both have agreed."""
    core.connected(peer, now)
    core.receive(peer, Open(PROTO_MIN, PROTO_MAX, MESH[:16], peer, prefixes, ()), now)
    return core.receive(peer, Carries((), ()), now)


def kinds(ready: Ready) -> list[tuple[str, type]]:
    return [(send.peer, type(send.message)) for send in ready.send]


# When


def test_the_smaller_id_begins_at_once_and_the_other_waits() -> None:
    assert kinds(meet(core(), "z")) == [("z", Hello)]
    later = core()
    assert kinds(meet(later, "a")) == []
    assert INTERVAL_S * (1 - JITTER) <= later.deadline <= INTERVAL_S * (1 + JITTER)


def test_rounds_come_at_the_interval_with_jitter() -> None:
    made, now, waits = core(), 0.0, []
    meet(made, "z")
    for _ in range(30):
        made.receive("z", Same(), now)
        waits.append(made.deadline - now)
        now = made.deadline
        assert kinds(made.tick(now)) == [("z", Hello)]
    assert all(INTERVAL_S * (1 - JITTER) <= wait <= INTERVAL_S * (1 + JITTER) for wait in waits)
    assert len({round(wait, 3) for wait in waits}) > 20


def test_a_round_that_the_peer_began_counts() -> None:
    """Whoever comes first: otherwise two peers would say everything twice."""
    pair = Pair(disk(), disk()).connect().settle().forget()
    for _ in range(600):
        pair.tick(1.0)
    hellos = pair.kinds().count("a Hello") + pair.kinds().count("b Hello")
    assert 600 / INTERVAL_S / (1 + JITTER) - 1 <= hellos <= 600 / INTERVAL_S / (1 - JITTER) + 1


def test_before_the_deadline_nothing_happens() -> None:
    made = core()
    meet(made, "a")
    assert made.tick(made.deadline - 0.001) == NOTHING
    assert core().deadline == inf


# Writes


def test_a_local_write_begins_a_round_with_everyone_who_carries_the_project() -> None:
    store = disk("plant*", "team/*")
    made = core(store)
    for peer, prefixes in (("a", ("team/*",)), ("b", ("diary*",)), ("c", ("*",))):
        meet(made, peer, prefixes=prefixes)
    ops = written(store, writer("m"), "team/red", 1)[1:]
    assert kinds(made.wrote(ops, 5.0)) == [("a", Hello), ("c", Hello)]


def test_a_write_during_a_round_gets_the_next_one() -> None:
    a, b = disk(), disk()
    written(a, writer("a"), "p", 3)
    pair = Pair(a, b).connect()
    while not any(isinstance(message, Vectors) for _, message, _ in pair.log):
        pair.step()
    ops = written(b, writer("b"), "q", 2)
    pair.do("b", pair.cores["b"].wrote(ops, pair.now))
    assert pair.kinds().count("b Hello") == 0
    pair.settle()
    assert agree(pair)


def test_what_came_from_one_peer_is_offered_to_the_others_soon_and_not_back() -> None:
    made = core()
    for peer in ("a", "b"):
        meet(made, peer)
    ops = written(disk(), writer("x"), "p", 1)
    made.receive("a", Hello(bytes(16), 0, ()), 1.0)
    made.receive("a", EVERYTHING, 1.0)
    (commit,) = made.receive("a", Verified(1, "_mesh", (ops[0],)), 1.0).persist
    made.persisted(commit, 1, 2.0)
    assert made.deadline <= 2.0 + RELAY_S * (1 + JITTER)
    assert kinds(made.tick(made.deadline)) == [("b", Hello)]


def test_ops_that_were_known_are_not_offered_on() -> None:
    made = core()
    for peer in ("a", "b"):
        meet(made, peer)
    ops = written(disk(), writer("x"), "p", 1)
    made.receive("a", Hello(bytes(16), 0, ()), 1.0)
    made.receive("a", EVERYTHING, 1.0)
    (commit,) = made.receive("a", Verified(1, "_mesh", (ops[0],)), 1.0).persist
    made.persisted(commit, 0, 2.0)
    assert made.deadline > 2.0 + RELAY_S * (1 + JITTER)


def test_a_round_can_be_asked_for() -> None:
    made = core()
    meet(made, "a")
    assert kinds(made.sync("a", 1.0)) == [("a", Hello)]
    assert made.sync("nobody", 1.0) == NOTHING


# Ends


def test_a_breach_ends_this_session_and_no_other() -> None:
    made = core()
    for peer in ("a", "b"):
        meet(made, peer)
    (close,) = made.receive("a", Same(), 1.0).close
    assert (close.peer, close.error.reason) == ("a", Reason.UNEXPECTED)
    assert made.states() == {"b": State.IDLE}
    assert made.receive("a", Same(), 1.0) == NOTHING, "what was on its way through the closed connection is ignored"


def test_a_bad_frame_or_a_failed_commit_ends_the_session() -> None:
    made = core()
    meet(made, "a")
    error = Refused(Reason.STORE, "no space left")
    assert [(close.peer, close.error) for close in made.failed("a", error, 1.0).close] == [("a", error)]
    assert made.states() == {}


def test_a_peer_that_connects_and_says_nothing_is_dropped() -> None:
    made = core()
    made.connected("a", 0.0)
    assert made.deadline == OPEN_S
    assert [close.error.reason for close in made.tick(OPEN_S).close] == [Reason.STALLED]


def test_a_commit_of_a_session_that_is_gone_is_acknowledged_to_nobody() -> None:
    made = core()
    meet(made, "a")
    ops = written(disk(), writer("x"), "p", 1)
    made.receive("a", Hello(bytes(16), 0, ()), 1.0)
    made.receive("a", EVERYTHING, 1.0)
    (commit,) = made.receive("a", Verified(1, "_mesh", (ops[0],)), 1.0).persist
    made.disconnected("a", 1.0)
    assert made.persisted(commit, 1, 2.0).send == ()
    meet(made, "a", 3.0)
    assert made.persisted(commit, 1, 4.0).send == (), "nor to the next session with the same peer"


@pytest.mark.parametrize("stop", range(1, 14))
def test_a_connection_that_breaks_anywhere_is_resumed(stop: int) -> None:
    a, b = disk(), disk()
    written(a, writer("a"), "p", 30)
    written(b, writer("b"), "q", 30)
    pair = Pair(a, b).connect()
    for _ in range(stop):
        pair.step()
    pair.lose()
    before = sum(len(commit.ops) for _, commit in pair.commits)
    pair.connect().settle()
    assert agree(pair) and not pair.closes
    assert sum(len(commit.ops) for _, commit in pair.commits) <= 62, "what was committed is not sent again"
    assert before <= 62


# Connections


def test_dialling_goes_on_until_somebody_answers_and_again_when_he_is_lost() -> None:
    made = core()
    assert made.want("host:1", 0.0).dial == ("host:1",)
    assert made.unreachable("host:1", 1.0) == NOTHING
    assert made.tick(made.deadline).dial == ("host:1",)
    made.connected("a", 5.0, "host:1")
    assert made.deadline == 5.0 + OPEN_S
    made.disconnected("a", 6.0)
    assert made.tick(made.deadline).dial == ("host:1",)
    made.unwant("host:1")
    made.unreachable("host:1", 9.0)
    assert made.deadline == inf


def test_of_two_connections_dialled_at_once_both_sides_keep_the_same() -> None:
    for first, second in ((None, "addr"), ("addr", None)):
        small, large = core(me="a"), core(me="b")
        small.connected("b", 0.0, first)
        large.connected("a", 0.0, "addr" if first is None else None)
        keeps_second = small.accepts("b", 0.1, second), large.accepts("a", 0.1, "addr" if second is None else None)
        assert keeps_second == ((second == "addr"),) * 2, "the one that `a` dialled"


def test_later_the_newer_connection_is_better() -> None:
    made = core(me="a")
    made.connected("b", 0.0, "addr")
    assert not made.accepts("b", 1.0)
    assert made.accepts("b", CROSSING_S)
    assert made.accepts("b", 1.0, "addr"), "dialled again by the same side: the older one is dead"


def test_nobody_talks_to_himself_and_sessions_are_bounded() -> None:
    made = core(me="a")
    assert not made.accepts("a", 0.0)
    for number in range(MAX_SESSIONS):
        assert made.accepts(f"p{number}", 0.0)
        made.connected(f"p{number}", 0.0)
    assert not made.accepts("one-too-many", 0.0)
    assert made.accepts("p3", 99.0)


# Anything


events = st.one_of(
    st.tuples(st.just("connected"), st.sampled_from("az")),
    st.tuples(st.just("disconnected"), st.sampled_from("az")),
    st.tuples(st.just("receive"), st.sampled_from("az"), anything | st.just(OPEN) | st.just(Carries((), ()))),
    st.tuples(st.just("tick")),
    st.tuples(st.just("sync"), st.sampled_from("az")),
)


@given(st.lists(events, max_size=25))
@settings(max_examples=150)
def test_no_order_of_events_breaks_the_core(history: list[tuple[str, str, Received]]) -> None:
    made, now = core(), 0.0
    for event, *details in history:
        now += 1.0
        if event == "tick":
            now = max(now, min(made.deadline, now + 100))
        ready = getattr(made, event)(*details, now)
        assert isinstance(ready, Ready)
        assert made.states().keys() <= {"a", "z"}
        assert not {close.peer for close in ready.close} & made.states().keys()


def test_an_error_of_a_peer_is_a_protocol_error() -> None:
    made = core()
    made.connected("a", 0.0)
    (close,) = made.receive("a", Same(), 0.0).close
    assert isinstance(close.error, ProtocolError)
