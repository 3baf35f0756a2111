"""The core: who is due when, what a write sets off, and that nothing that happens to one session harms another."""

from itertools import pairwise
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.dialling import JITTER
from sync.errors import ProtocolError, Reason, Refused
from sync.gossip import CROSSING_S, RELAY_S, SLOW_COMMIT_S, Core
from sync.messages import (
    PROTO_MAX,
    PROTO_MIN,
    Ack,
    Carries,
    Have,
    Hello,
    Known,
    Open,
    Push,
    Pushed,
    Received,
    Same,
    Took,
    Vectors,
    Verified,
)
from sync.push import MAX_QUEUED_OPS
from sync.ready import NOTHING, Ready
from sync.session import OPEN_S, State
from sync.transfer import WINDOW
from sync.trickle import LONGEST_S, SHORTEST_S
from sync.view import DIALLED, KEPT, MAX_SESSIONS
from tests.sim.disk import Disk
from tests.sync.frames import anything
from tests.sync.wire import MESH, Pair, agree, copied, disk, writer, written

SAME = Same()
EVERYTHING = Vectors(4, {"_mesh": Known(bytes(16), {bytes(16): 1})}, ())
OPEN = Open(PROTO_MIN, PROTO_MAX, MESH[:16], "z", ("*",), ())


def core(store: Disk | None = None, me: str = "m") -> Core:
    return Core(me, me, MESH, store or disk(), Random(1))


def meet(core: Core, peer: str, now: float = 0.0, prefixes: tuple[str, ...] = ("*",), hub: bool = False) -> Ready:
    """A session with `peer` up to the point where both have agreed."""
    core.connected(peer, now)
    core.receive(peer, Open(PROTO_MIN, PROTO_MAX, MESH[:16], peer, prefixes, (), hub), now)
    return core.receive(peer, Carries((), ()), now)


def kinds(ready: Ready) -> list[tuple[str, type]]:
    return [(send.peer, type(send.message)) for send in ready.send]


# When


def test_the_smaller_id_begins_at_once_and_the_other_waits() -> None:
    assert kinds(meet(core(), "z")) == [("z", Hello)]
    later = core()
    assert kinds(meet(later, "a")) == []
    assert later.deadline <= SHORTEST_S * (1 + JITTER)


def hellos(made: Core, until: float, outcome: Received = SAME) -> list[tuple[float, str]]:
    """When it begins a round with whom, when each ends at once with `outcome`."""
    begun = []
    while made.deadline <= until:
        now = made.deadline
        for peer, kind in kinds(made.tick(now)):
            if kind is Hello:
                begun.append((now, peer))
                made.receive(peer, outcome, now)
    return begun


def test_rounds_come_ever_later_up_to_the_interval_with_jitter() -> None:
    made = core()
    meet(made, "a")
    times = [now for now, _ in hellos(made, 1000.0)]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[0] < 3 and all(LONGEST_S * (1 - JITTER) <= wait <= LONGEST_S * (1 + JITTER) for wait in waits[6:])
    assert len({round(wait, 3) for wait in waits[6:]}) > 20


def test_a_tick_asks_two_and_the_hub_and_everyone_gets_a_turn() -> None:
    made = core()
    for peer in "abcdefg":
        meet(made, peer)
    meet(made, "hub", hub=True)
    begun = hellos(made, 1000.0)
    ticks = {now: [peer for at, peer in begun if at == now] for now, _ in begun}
    assert all("hub" in asked and len(asked) == 3 for asked in ticks.values())
    for peer in "abcdefg":
        turns = [place for place, asked in enumerate(ticks.values()) if peer in asked]
        assert max(later - earlier for earlier, later in pairwise(turns)) <= 4


def test_a_round_that_the_peer_began_counts() -> None:
    """Whoever comes first: otherwise two peers would say everything twice."""
    pair = Pair(disk(), disk()).connect().settle().forget()
    for _ in range(600):
        pair.tick(1.0)
    hellos = pair.kinds().count("a Hello") + pair.kinds().count("b Hello")
    assert 600 / LONGEST_S / (1 + JITTER) - 1 <= hellos <= 600 / LONGEST_S / (1 - JITTER) + 6


def test_after_something_differed_rounds_come_sooner() -> None:
    pair = Pair(disk(), disk()).connect().settle()
    for _ in range(300):
        pair.tick(1.0)
    written(pair.disks["a"], writer("a"), "p", 1)  # nobody says so: the next round finds it
    while not agree(pair):
        pair.tick(1.0)
    found = pair.now
    pair.forget()
    while not pair.log:
        pair.tick(0.1)
    assert pair.now <= found + SHORTEST_S * (1 + JITTER) + 0.2


def test_before_the_deadline_nothing_happens() -> None:
    made = core()
    meet(made, "a")
    assert made.tick(made.deadline - 0.001) == NOTHING
    assert core().deadline == inf


# Writes


def test_a_local_write_goes_to_everyone_who_carries_the_project_at_once() -> None:
    store = disk("plant*", "team/*")
    made = core(store)
    for peer, prefixes in (("a", ("team/*",)), ("b", ("diary*",)), ("c", ("*",))):
        meet(made, peer, prefixes=prefixes)
    ops = written(store, writer("m"), "team/red", 1)[1:]
    assert kinds(made.wrote(ops, 0.1)) == [("a", Push), ("c", Push)]


def test_a_backlog_is_left_to_rounds_which_come_soon() -> None:
    store = disk()
    made = core(store)
    meet(made, "a")
    ops = written(store, writer("m"), "p", MAX_QUEUED_OPS + 1)[1:]
    assert made.wrote(ops, 0.1) == NOTHING
    assert made.deadline <= 0.1 + RELAY_S * (1 + JITTER)
    assert kinds(made.tick(made.deadline)) == [("a", Hello)]


def test_a_write_during_a_round_does_not_wait_for_it() -> None:
    a, b = disk(), disk()
    written(a, writer("a"), "p", 3)
    introduced = written(b, writer("b"), "q", 1)
    copied(introduced, a)
    pair = Pair(a, b).connect()
    while not any(isinstance(message, Vectors) for _, message, _ in pair.log):
        pair.step()
    ops = written(b, writer("b"), "q", 2)
    pair.do("b", pair.cores["b"].wrote(ops, pair.now))
    assert pair.kinds()[-1] == "b Push"
    pair.settle()
    assert agree(pair) and not pair.closes


def test_a_write_by_somebody_who_is_not_introduced_yet_arrives_too() -> None:
    a, b = disk(), disk()
    pair = Pair(a, b).connect().settle()
    ops = written(a, writer("stranger"), "p", 1)
    pair.do("a", pair.cores["a"].wrote(ops[1:], pair.now))
    pair.settle()
    assert not agree(pair)
    pair.tick(RELAY_S * (1 + JITTER))
    assert agree(pair) and not pair.closes, "by a round, which begins with the reserved project"


def test_a_write_reaches_the_end_of_a_line_of_nodes() -> None:
    ends = {name: core(disk(), name) for name in "abc"}
    store = disk()
    made = core(store, "m")
    for peer in ends:
        meet(made, peer)
    ops = written(disk(), writer("x"), "p", 1)
    store.commit(ops[:1])
    (commit,) = made.receive("a", Pushed(1, "p", (ops[1],)), 0.1).persist
    said = kinds(made.persisted(commit, store.commit(commit.ops), 0.2))
    said += kinds(made.tick(0.5))
    assert sorted(said, key=str) == sorted([("a", Took), ("b", Push), ("c", Have)], key=str)


def test_what_a_round_brought_is_passed_on_to_the_others_and_not_back() -> None:
    store = disk()
    made = core(store)
    for peer in ("a", "b"):
        meet(made, peer)
    ops = written(disk(), writer("x"), "p", 1)
    made.receive("a", Hello(bytes(16), 0, ()), 0.1)
    made.receive("a", EVERYTHING, 0.1)
    (commit,) = made.receive("a", Verified(1, "_mesh", (ops[0],)), 0.1).persist
    assert kinds(made.persisted(commit, store.commit(commit.ops), 0.2)) == [("b", Push), ("a", Ack)]


def test_what_lies_ahead_of_a_gap_is_not_passed_on() -> None:
    """A peer that withheld an op between others: who told of the later ones would claim what it can't give."""
    store = disk()
    made = core(store)
    for peer in ("a", "b"):
        meet(made, peer)
    introduction, first, _, third = written(disk(), writer("x"), "p", 3)
    store.commit([introduction])
    made.receive("a", Hello(bytes(16), 0, ()), 0.1)
    theirs = Known(bytes(16), {bytes(16): 1})
    made.receive("a", Vectors(4, {"_mesh": theirs, "p": theirs}, ()), 0.1)
    (commit,) = made.receive("a", Verified(1, "p", (first, third)), 0.1).persist
    ready = made.persisted(commit, store.commit(commit.ops), 0.2)
    assert [send.message.ops for send in ready.send if isinstance(send.message, Push)] == [(first.raw,)]


def test_ops_that_were_known_are_not_offered_on() -> None:
    made = core()
    for peer in ("a", "b"):
        meet(made, peer)
    ops = written(disk(), writer("x"), "p", 1)
    made.receive("a", Hello(bytes(16), 0, ()), 0.1)
    made.receive("a", EVERYTHING, 0.1)
    (commit,) = made.receive("a", Verified(1, "_mesh", (ops[0],)), 0.1).persist
    assert kinds(made.persisted(commit, 0, 0.2)) == [("a", Ack)]


def test_a_busy_disk_is_granted_one_batch_at_a_time() -> None:
    made = core()
    for peer in ("a", "b"):
        meet(made, peer)
    ops = written(disk(), writer("x"), "p", 1)

    def granted(peer: str, now: float) -> int:
        (told,) = (send.message for send in made.receive(peer, Hello(bytes(16), 0, ()), now).send)
        assert isinstance(told, Vectors)
        return told.window

    assert granted("a", 0.1) == WINDOW
    made.receive("a", EVERYTHING, 0.1)
    (commit,) = made.receive("a", Verified(1, "_mesh", (ops[0],)), 0.1).persist
    made.persisted(commit, 1, 0.2 + SLOW_COMMIT_S)
    assert granted("b", 0.3 + SLOW_COMMIT_S) == 1


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


def test_of_the_addresses_heard_of_only_a_few_are_dialled() -> None:
    made = core()
    assert sum(len(made.heard_of(f"host:{place}", 0.0).dial) for place in range(50)) == DIALLED
    assert made.want("kept:1", 0.0).dial == ("kept:1",)


def test_who_is_full_says_so_to_whom_it_does_not_need() -> None:
    made = core()
    for number in range(KEPT):
        meet(made, f"p{number}")

    def opens(peer: str, address: str | None = None, **says: int) -> list[Reason]:
        made.connected(peer, 0.0, address)
        opening = Open(PROTO_MIN, PROTO_MAX, MESH[:16], peer, ("*",), (), **says)
        closes = made.receive(peer, opening, 0.0).close
        made.disconnected(peer, 0.0)
        return [close.error.reason for close in closes]

    assert opens("has others", peers=3) == [Reason.FULL]
    assert opens("has nobody", peers=0) == opens("a hub", peers=3, hub=True) == opens("dialled", "x", peers=3) == []


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


def test_a_peer_that_speaks_version_1_is_told_by_rounds() -> None:
    store = disk()
    made = core(store)
    for peer, newest in (("a", 1), ("b", 2)):
        made.connected(peer, 0.0)
        made.receive(peer, Open(1, newest, MESH[:16], peer, ("*",), ()), 0.0)
        made.receive(peer, Carries((), ()), 0.0)
    ops = written(store, writer("m"), "p", 1)[1:]
    assert kinds(made.wrote(ops, 0.1)) == [("b", Push)]
    assert kinds(made.tick(0.1 + RELAY_S * (1 + JITTER))) == [("a", Hello)]
