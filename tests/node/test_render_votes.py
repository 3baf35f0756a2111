"""What people see of votes and agents."""

import io
from typing import Any

from node import render_votes as render
from node.page import Page, write

VOTED = {
    "vote_id": "aa", "fact_id": "x-1", "version": "v1", "state": "pending", "duplicate": False, "own": False,
    "reason": "no hub has committed it yet", "entry": None, "checkpoint": None, "proof": [],
    "score": 1000, "score_provisional": 1555, "trust": "unsettled",
}  # fmt: skip
AGENT = {
    "name": "bo", "key": "ab" * 32, "principal": "ab" * 32, "owner": False, "voice": "k7q2m4zx5tvb3nya",
    "voice_name": "cellar", "project": "default", "reputation": 712_345, "weight": 424, "state": "enrolled",
    "in_ledger": True, "since": 7, "void_from": None, "about": "reads the gauges",
}  # fmt: skip


def seen(show: Any, document: Any) -> str:
    page, stream = Page(), io.StringIO()
    show(page, document)
    write(page, stream, {})
    return stream.getvalue()


def test_a_vote_is_pending_or_committed_with_its_place() -> None:
    pending = seen(render.voted, VOTED)
    assert pending.splitlines() == [
        "pending: no hub has committed it yet",
        "x-1 is unsettled, score 1.000, with what is pending 1.555",
    ]
    entry = {"index": 12, "hash": "3f2a", "prev_hash": "00"}
    committed = VOTED | {"state": "committed", "entry": entry, "score": 1555, "trust": "verified", "duplicate": True}
    assert seen(render.voted, committed).splitlines() == [
        "committed #12 3f2a (this vote was there already)",
        "x-1 is verified, score 1.555",
    ]
    assert seen(render.voted, VOTED | {"own": True}).splitlines()[2:] == [
        "this vote weighs 0: its agent wrote the fact, or its machine did, in nobody's name"
    ]


def test_votes_say_which_of_them_count() -> None:
    vote = {
        "agent": "bo", "agent_key": "ab" * 32, "voice": "k7", "value": 1, "weight": 400, "state": "pending",
        "counts": True, "index": None, "reason": "tried it", "counter": 1, "at": "2026-05-11T08:30:00.123Z",
    }  # fmt: skip
    stranger = vote | {"agent": None, "value": -1, "counts": False, "weight": 0, "index": 9, "state": "committed"}
    old = vote | {"agent": "7", "agent_key": None, "voice": None, "counts": False, "state": "imported"}
    text = seen(render.votes, VOTED | {"votes": [vote, stranger, old]})
    rows = [line.split() for line in text.splitlines()[3:]]
    assert rows[0][:5] == ["bo", "k7", "up", "400", "pending"]
    assert "abababababababab" in rows[1] and "#9" in rows[1] and rows[1][3:6] == ["does", "not", "count"]
    assert "imported" in rows[2]
    assert "nobody has voted" in seen(render.votes, VOTED | {"votes": []})


def test_an_agent_is_shown_with_what_its_votes_weigh() -> None:
    text = seen(render.agent, AGENT)
    for words in (
        "bo  enrolled",
        "reads the gauges",
        "cellar (k7q2m4zx5tvb3nya)",
        "#7",
        "424 of 1000 in default",
        "0.712",
    ):
        assert words in text
    assert "None" not in text and "first key" not in text
    judged = [{"project": "home", "reputation": 1_000_000, "weight": 1000}]
    rotated = AGENT | {"reputations": judged, "principal": "cd" * 32, "in_ledger": False}
    text = seen(render.agent, rotated)
    assert "1000 of 1000 in home" in text and "first key" in text and "enrolled, a change is pending" in text
    text = seen(render.agent, AGENT | {"state": "revoked", "void_from": 31})
    assert "its votes till then weigh 424" in text and "its votes from entry #31 on" in text


def test_agents_are_one_a_line() -> None:
    text = seen(render.agents, {"agents": [AGENT | {"owner": True}, AGENT | {"state": "pending", "in_ledger": False}]})
    assert [line.split()[:4] for line in text.splitlines()[1:]] == [
        ["bo", "owner", "0.712", "424"],
        ["bo", "pending", "0.712", "424"],
    ]
    assert "agent add" in seen(render.agents, {"agents": []})


def test_a_name_cannot_move_the_cursor() -> None:
    assert "\x1b" not in seen(render.agent, AGENT | {"name": "\x1b[2J"})
    assert len(seen(render.agent, AGENT | {"name": "bo\n  key  of another"}).splitlines()) == len(
        seen(render.agent, AGENT).splitlines()
    )
