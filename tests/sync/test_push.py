"""Fresh ops go whole to a few and by their dots to the rest, come back to nobody, and are answered from the disk."""

from collections.abc import Sequence
from random import Random

import pytest

from crdt.op import Op
from sync.dialling import JITTER
from sync.errors import ProtocolError, Reason
from sync.messages import MAX_BATCH_BYTES, MAX_DOTS, MAX_PUSH_OPS, Fate, Have, Push, Pushed, Took, Want
from sync.push import (
    ASK_NEXT_S,
    EAGER,
    HAVE_S,
    MAX_QUEUED_OPS,
    MAX_SEEN,
    MAX_WANTED,
    PUSH_WINDOW,
    UNANSWERED_S,
    WANT_S,
    Pushes,
)
from sync.ready import Ready
from tests.sim.disk import Disk
from tests.sync.wire import MESH, disk, writer, written

LATER = 1 + JITTER


def pushes(store: Disk | None = None, peers: str = "abcde") -> Pushes:
    made = Pushes(MESH, store or disk(), Random(1))
    for peer in peers:
        made.joined(peer, 1, lambda project: True)
    return made


def said(ready: Ready) -> list[tuple[str, type]]:
    return [(send.peer, type(send.message)) for send in ready.send]


def pushed(ops: Sequence[Op], number: int = 1) -> Pushed:
    return Pushed(number, ops[0].project, tuple(ops))


def dots(ops: Sequence[Op]) -> tuple[tuple[bytes, int], ...]:
    return tuple((op.author, op.seq) for op in ops)


def store(made: Pushes, disk: Disk, ready: Ready, now: float = 0.0) -> Ready:
    """What a driver does with a push that came."""
    (commit,) = ready.persist
    return made.persisted(commit, disk.commit(commit.ops), now)


def fates(ready: Ready) -> list[tuple[str, Fate]]:
    return [(send.peer, send.message.fate) for send in ready.send if isinstance(send.message, Took)]


# Our own writes


def test_a_write_goes_whole_to_two_and_by_its_dot_to_the_rest() -> None:
    here = disk()
    made = pushes(here)
    (_, op) = written(here, writer("m"), "p", 1)
    first = made.spread([op], "", 0.0)
    assert [kind for _, kind in said(first)] == [Push] * EAGER
    later = made.tick(made.deadline + 1)
    assert sorted([peer for peer, _ in (*said(first), *said(later))]) == list("abcde")
    assert {send.message for send in later.send} == {Have("p", dots([op]))}
    assert said(made.tick(99.0)) == []


def test_only_who_carries_the_project_hears_of_it() -> None:
    here = disk()
    made = pushes(here, peers="")
    made.joined("a", 1, lambda project: project == "q")
    made.joined("b", 1, lambda project: project == "p")
    ops = written(here, writer("m"), "p", 1)[1:]
    assert said(made.spread(ops, "", 0.0)) == [("b", Push)]


def test_what_is_written_while_pushes_are_under_way_gathers_for_the_next_one() -> None:
    here = disk()
    made = pushes(here, "a")
    ops = written(here, writer("m"), "p", 12)[1:]
    sent = [send.message for op in ops for send in made.spread([op], "", 0.0).send]
    assert [len(push.ops) for push in sent if isinstance(push, Push)] == [1] * PUSH_WINDOW
    (send,) = made.receive("a", Took(1, Fate.STORED), 0.1).send
    assert isinstance(send.message, Push) and send.message.ops == tuple(op.raw for op in ops[PUSH_WINDOW:])
    assert send.message.number == PUSH_WINDOW + 1


def test_a_push_is_bounded_and_a_backlog_is_left_to_a_round() -> None:
    here = disk()
    made = pushes(here, "a")
    ops = written(here, writer("m"), "p", MAX_QUEUED_OPS + 1)[1:]
    first = made.spread(ops[:MAX_QUEUED_OPS], "", 0.0)
    for send in first.send:
        assert isinstance(send.message, Push)
        assert len(send.message.ops) <= MAX_PUSH_OPS and sum(map(len, send.message.ops)) <= MAX_BATCH_BYTES
    assert made.rounds == set()
    assert said(pushes(here, "a").spread(ops, "", 0.0)) == []
    again = pushes(here, "a")
    again.spread(ops, "", 0.0)
    assert again.rounds == {"a"}


# What comes


def test_a_push_is_stored_then_answered_and_passed_on_to_all_but_its_source() -> None:
    here = disk()
    made = pushes(here)
    intro, op = written(disk(), writer("x"), "p", 1)
    here.commit([intro])
    ready = made.receive("e", pushed([op]), 0.0)
    assert ready.send == () and ready.persist[0].pushed
    after = store(made, here, ready)
    assert fates(after) == [("e", Fate.STORED)]
    others = [peer for peer, kind in (*said(after), *said(made.tick(1.0))) if kind in (Push, Have)]
    assert sorted(others) == list("abcd")


def test_it_is_passed_on_to_nobody_who_has_said_that_he_has_it() -> None:
    here = disk()
    made = pushes(here)
    intro, op = written(disk(), writer("x"), "p", 1)
    here.commit([intro])
    for peer in "acd":
        made.receive(peer, Have("p", dots([op])), 0.0)
    after = store(made, here, made.receive("e", pushed([op]), 0.0))
    assert [peer for peer, kind in (*said(after), *said(made.tick(9.0))) if kind in (Push, Have, Want)] == ["b"]


def test_what_is_known_is_answered_at_once_and_makes_both_lazy() -> None:
    here = disk()
    made = pushes(here, "ab")
    intro, op = written(disk(), writer("x"), "p", 1)
    here.commit([intro, op])
    assert made.eager == {"a", "b"}
    assert fates(made.receive("a", pushed([op]), 0.0)) == [("a", Fate.KNOWN)]
    assert made.eager == {"b"}
    made.spread([op], "", 0.0)
    made.receive("b", Took(1, Fate.KNOWN), 0.0)
    assert "b" not in made.eager


def test_an_op_of_an_author_whom_nobody_introduced_is_dropped_and_asks_for_a_round() -> None:
    made = pushes()
    _, op = written(disk(), writer("x"), "p", 1)
    ready = made.receive("a", pushed([op]), 0.0)
    assert ready.persist == () and fates(ready) == [("a", Fate.DROPPED)]
    assert made.rounds == {"a"}


def test_an_introduction_may_be_pushed() -> None:
    here = disk()
    made = pushes(here)
    intro, op = written(disk(), writer("x"), "p", 1)
    assert fates(store(made, here, made.receive("a", pushed([intro]), 0.0))) == [("a", Fate.STORED)]
    assert fates(store(made, here, made.receive("a", pushed([op], 2), 0.0))) == [("a", Fate.STORED)]


def test_an_op_beyond_a_gap_is_dropped_and_asks_for_a_round() -> None:
    here = disk()
    made = pushes(here)
    intro, first, second, third = written(disk(), writer("x"), "p", 3)
    here.commit([intro])
    ready = made.receive("a", pushed([first, third]), 0.0)
    assert ready.persist[0].ops == (first,)
    assert fates(store(made, here, ready)) == [("a", Fate.DROPPED)] and made.rounds == {"a"}
    assert made.receive("b", pushed([third]), 0.0).persist == ()
    assert not here.has(second)


def test_an_op_may_follow_one_that_is_at_the_disk() -> None:
    here = disk()
    made = pushes(here)
    intro, first, second = written(disk(), writer("x"), "p", 2)
    here.commit([intro])
    one, two = made.receive("a", pushed([first]), 0.0), made.receive("b", pushed([second]), 0.0)
    assert fates(store(made, here, one)) == [("a", Fate.STORED)]
    assert fates(store(made, here, two)) == [("b", Fate.STORED)]


def test_the_same_op_from_two_at_once_is_new_from_one() -> None:
    here = disk()
    made = pushes(here)
    intro, op = written(disk(), writer("x"), "p", 1)
    here.commit([intro])
    one, two = made.receive("a", pushed([op]), 0.0), made.receive("b", pushed([op]), 0.0)
    assert fates(store(made, here, one)) == [("a", Fate.STORED)]
    after = store(made, here, two)
    assert fates(after) == [("b", Fate.KNOWN)] and len(after.send) == 1


def test_a_push_of_a_session_that_is_gone_is_passed_on_and_answered_to_nobody() -> None:
    here = disk()
    made = pushes(here, "ab")
    intro, op = written(disk(), writer("x"), "p", 1)
    here.commit([intro])
    ready = made.receive("a", pushed([op]), 0.0)
    made.left("a")
    made.joined("a", 2, lambda project: True)
    after = store(made, here, ready)
    assert fates(after) == [] and ("b", Push) in said(after)


# Dots


def test_a_dot_whose_op_does_not_come_is_asked_for_once() -> None:
    made = pushes()
    _, op = written(disk(), writer("x"), "p", 1)
    made.receive("c", Have("p", dots([op])), 0.0)
    assert made.tick(WANT_S * 0.5).send == ()
    assert [(send.peer, send.message) for send in made.tick(WANT_S * LATER).send] == [("c", Want("p", dots([op])))]
    assert "c" in made.eager
    assert made.tick(WANT_S * LATER + ASK_NEXT_S * 0.5).send == ()


def test_a_dot_whose_op_comes_is_not_asked_for() -> None:
    here = disk()
    made = pushes(here)
    intro, op = written(disk(), writer("x"), "p", 1)
    here.commit([intro])
    made.receive("c", Have("p", dots([op])), 0.0)
    store(made, here, made.receive("a", pushed([op]), 0.1), 0.1)
    assert [kind for _, kind in said(made.tick(5.0)) if kind is Want] == []
    assert said(made.receive("d", Have("p", dots([op])), 6.0)) == [] and made.deadline > 99


def test_who_does_not_answer_is_followed_by_the_next_and_then_by_a_round() -> None:
    made, now, asked = pushes(), 0.0, []
    _, op = written(disk(), writer("x"), "p", 1)
    for peer in "cdc":
        made.receive(peer, Have("p", dots([op])), 0.0)
    made.left("d")
    made.receive("e", Have("p", dots([op])), 0.0)
    while not made.rounds:
        now = made.deadline
        asked += [peer for peer, kind in said(made.tick(now)) if kind is Want]
    assert asked == ["c", "e"] and made.rounds == {"e"}
    assert now <= (WANT_S + 2 * ASK_NEXT_S) * LATER


def test_who_asks_gets_the_op_and_all_later_ones_whole() -> None:
    here = disk()
    made = pushes(here)
    lazy = sorted(set("abcde") - made.eager)[0]
    ops = written(here, writer("m"), "p", 3)[1:]
    made.spread(ops[:2], "", 0.0)
    (send,) = made.receive(lazy, Want("p", dots(ops[:1])), 0.0).send
    assert send.message == Push(1, "p", (ops[0].raw, ops[1].raw)), "and what its dot was about to tell"
    assert (lazy, Push) in said(made.spread(ops[2:], "", 0.0))


def test_asking_for_what_is_not_here_gives_nothing() -> None:
    here = disk()
    made = pushes(here)
    ops = written(here, writer("m"), "p", 1)
    assert made.receive("a", Want("p", ((ops[0].author, 99), (bytes(16), 1))), 0.0).send == ()


def test_what_is_remembered_of_dots_is_bounded() -> None:
    made = pushes()
    for start in range(1, MAX_WANTED + MAX_SEEN, MAX_DOTS):
        made.receive("a", Have("p", tuple((bytes(16), start + more) for more in range(MAX_DOTS))), 0.0)
    assert made.rounds == {"a"}
    asked = [send.message for send in made.tick(9.0).send]
    assert sum(len(want.dots) for want in asked if isinstance(want, Want)) == MAX_WANTED


# Breaches and silence


@pytest.mark.parametrize("message", [Took(1, Fate.STORED), Pushed(2, "p", ())], ids=["an answer", "a number"])
def test_out_of_order(message: Took | Pushed) -> None:
    with pytest.raises(ProtocolError):
        pushes().receive("a", message, 0.0)


def test_more_than_the_window_ends_the_session() -> None:
    here = disk()
    made = pushes(here)
    intro, *ops = written(disk(), writer("x"), "p", PUSH_WINDOW + 1)
    here.commit([intro])
    for number, op in enumerate(ops[:PUSH_WINDOW], 1):
        made.receive("a", pushed([op], number), 0.0)
    with pytest.raises(ProtocolError) as caught:
        made.receive("a", pushed(ops[PUSH_WINDOW:], PUSH_WINDOW + 1), 0.0)
    assert caught.value.reason is Reason.WINDOW


def test_what_is_not_shared_ends_the_session() -> None:
    made = pushes(peers="")
    made.joined("a", 1, lambda project: project == "p")
    _, op = written(disk(), writer("x"), "q", 1)
    for message in (pushed([op]), Have("q", dots([op])), Want("q", dots([op])), Pushed(1, "p", (op,))):
        with pytest.raises(ProtocolError) as caught:
            made.receive("a", message, 0.0)
        assert caught.value.reason is Reason.NOT_ASKED
    with pytest.raises(ProtocolError):
        made.receive("b", Took(1, Fate.KNOWN), 0.0)


def test_a_peer_that_never_answers_is_given_up() -> None:
    here = disk()
    made = pushes(here, "a")
    made.spread(written(here, writer("m"), "p", 1)[1:], "", 5.0)
    assert made.stalled(5.0 + UNANSWERED_S - 0.1) is None
    assert made.stalled(5.0 + UNANSWERED_S) == "a"


def test_dots_wait_no_longer_than_they_must() -> None:
    here = disk()
    made = pushes(here)
    made.spread(written(here, writer("m"), "p", 1)[1:], "", 0.0)
    assert HAVE_S * (1 - JITTER) <= made.deadline <= HAVE_S * LATER


def test_what_was_told_together_is_asked_for_together() -> None:
    made = pushes()
    ops = written(disk(), writer("x"), "p", 30)[1:]
    made.receive("c", Have("p", dots(ops)), 0.0)
    (send,) = made.tick(WANT_S * LATER).send
    assert send.message == Want("p", dots(ops))
