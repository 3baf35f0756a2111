"""No lag without a reason, and the reason is the one that explains it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.lags import Backlog, Held, Lag, Standing
from node.peers import Line, Peer, clock_offset_s, describe, warnings, why
from sync.errors import Reason

NOW_MS = 1_800_000_000_000
NOTHING = Backlog({}, {}, 0)
LINE = Line("10.0.0.2:7400", 100, 200)
REASONS = {"offline", "held_clock", "waiting_for_op", "busy", "version", "repairing", "quota", "refused"}
lag = st.builds(Lag, st.integers(0, 5), st.just(NOW_MS - 1_000))


@given(
    lag, lag, st.booleans(), st.booleans(), st.sampled_from([None, *Reason]),
    st.sampled_from([NOTHING, Backlog({"p": Held(2, NOW_MS)}, {}, 0), Backlog({}, {"p": 1}, 0)]),
)  # fmt: skip
def test_no_lag_without_a_reason(
    ahead: Lag, behind: Lag, connected: bool, stuck: bool, ended: Reason | None, backlog: Backlog
) -> None:
    peer = Peer("p", standing=Standing(ahead, behind), stuck=stuck)
    if ended:
        peer.ended(ended, "it went wrong")
    told = describe(peer, LINE if connected else None, backlog, None, NOW_MS)
    assert told["reason"] in REASONS | {None}
    if ahead.ops or behind.ops or not connected:
        assert told["reason"] and told["detail"]
    assert (told["state"] == "connected") == connected


@pytest.mark.parametrize(
    ("peer", "connected", "backlog", "reason"),
    [
        (Peer("p"), True, NOTHING, None),
        (Peer("p"), False, NOTHING, "offline"),
        (Peer("p", standing=Standing(behind=Lag(3, NOW_MS))), True, NOTHING, "busy"),
        (Peer("p", stuck=True), True, NOTHING, "repairing"),
        (Peer("p"), True, Backlog({"p": Held(1, NOW_MS + 9_000)}, {}, 0), "held_clock"),
        (Peer("p"), True, Backlog({"q": Held(1, NOW_MS)}, {"q": 4}, 9), None),
        (Peer("p"), True, Backlog({}, {"p": 4}, 0), "waiting_for_op"),
        (Peer("p", trouble="version", detail="too old"), False, NOTHING, "version"),
    ],
)
def test_each_reason(peer: Peer, connected: bool, backlog: Backlog, reason: str | None) -> None:
    assert why(peer, connected, backlog, None, NOW_MS)[0] == reason


@pytest.mark.parametrize(
    ("told", "reason", "detail"),
    [
        ("quota: the store is full", "quota", "it says: the store is full"),
        ("version: it speaks 3", "version", "it says: it speaks 3"),
        ("bad_op: seq 7", "refused", "it says: seq 7"),
        ("\x1b[2Jgo away", "offline", "it says: [2Jgo away"),
    ],
)
def test_what_a_peer_says_when_it_leaves_is_told_without_its_control_characters(
    told: str, reason: str, detail: str
) -> None:
    peer = Peer("p")
    peer.ended_by_peer(told)
    assert (peer.trouble, peer.detail) == (reason, detail)
    peer.agreed()
    assert why(peer, True, NOTHING, None, NOW_MS) == (None, None)


def test_one_round_that_brings_nothing_is_no_trouble_and_two_are() -> None:
    peer = Peer("p", standing=Standing(behind=Lag(3, NOW_MS)))
    for fruitless, reason in ((True, "busy"), (False, "busy"), (True, "busy"), (True, "repairing"), (False, "busy")):
        peer.round_ended(fruitless)
        assert why(peer, True, NOTHING, None, NOW_MS)[0] == reason
        assert [one["code"] for one in warnings([peer], {})] == (["stuck"] if reason == "repairing" else [])


def test_an_address_where_nobody_answers_is_the_detail() -> None:
    assert why(Peer("p"), False, NOTHING, "no answer", NOW_MS) == ("offline", "no answer")


def test_our_clock_is_measured_against_the_median() -> None:
    assert (
        clock_offset_s([Peer("a", clock_ms=-2_000), Peer("b", clock_ms=-1_500), Peer("c", clock_ms=9 * 10**9)]) == 1.5
    )
    assert clock_offset_s([Peer("a")]) is None


def test_warnings_say_what_to_do() -> None:
    wrong = Peer("a", "anna", clock_ms=-3_600_000)
    old = Peer("b", trouble="version", detail="it speaks 9 to 9")
    found = warnings([wrong, old, Peer("c")], {})
    assert [one["code"] for one in found] == ["clock", "version"]
    assert "anna is 3600 s behind" in found[0]["text"]
    assert all(one["action"] for one in found)
    assert [one["code"] for one in warnings([old], {"b": LINE})] == [], "it is connected again"
