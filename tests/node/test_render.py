"""What people see of each answer."""

import io
from typing import Any

import pytest

from node import render
from node.page import Page, write
from tests.node.scripted_node import fact


def seen(show: Any, document: Any) -> str:
    page, stream = Page(), io.StringIO()
    show(page, document)
    write(page, stream, {})
    return stream.getvalue()


def test_store_prints_the_id_and_nothing_else() -> None:
    assert seen(render.stored, fact()) == "k7q2m4zx5tvb3nya-17\n"


def test_a_fact() -> None:
    text = seen(
        render.fact,
        fact(
            tags=["keys", "b"],
            source="Ada",
            valid_from="2026-05-01T00:00:00.000Z",
            meta={"room": "b12"},
            links=[{"relation": "depends-on", "to": "x-4"}],
            body="Long\ntext",
            updated_at="2026-06-01T00:00:00.000Z",
        ),
    )
    assert text.startswith("k7q2m4zx5tvb3nya-17  #keys  #b\nThe spare key is with Ada\n")
    for words in ("Ada", "from 2026-05-01 00:00:00Z", "2026-05-11 08:30:00Z", "meta room   b12", "depends-on  x-4"):
        assert words in text
    assert text.endswith("\nLong\ntext\n")
    assert "None" not in text
    assert "score" not in text


def test_votes_are_told_once_there_are_any() -> None:
    voted = {
        "trust": "verified", "score": 1500, "score_provisional": 1333, "votes": {"up": 3, "down": 1, "pending": 0},
    }  # fmt: skip
    assert "votes       verified, score 1.500: 3 up, 1 down\n" in seen(render.fact, fact(**voted))
    waiting = voted | {"trust": "unsettled", "votes": {"up": 0, "down": 0, "pending": 2}}
    text = seen(render.fact, fact(**waiting))
    assert "unsettled, score 1.500: 0 up, 0 down; 2 pending would make it 1.333\n" in text
    for trust in ("verified", "disputed", "contested"):
        for show in (render.fact, render.changed):
            assert seen(show, fact(trust=trust)).splitlines()[0] == f"k7q2m4zx5tvb3nya-17  {trust}"
        listed = seen(render.facts, {"facts": [fact(trust=trust)], "next_cursor": None})
        assert listed.startswith(f"k7q2m4zx5tvb3nya-17  {trust}\n")
    nobody = {"trust": "unsettled", "score": 1000, "votes": {"up": 0, "down": 0, "pending": 0}}
    assert seen(render.fact, fact(**nobody)) == seen(render.fact, fact())


def test_what_is_the_same_is_not_said_twice() -> None:
    assert "changed" not in seen(render.fact, fact())


@pytest.mark.parametrize("show", [render.fact, render.changed])
def test_retraction_and_conflict_stand_beside_the_id(show: Any) -> None:
    head = seen(show, fact(retracted=True, retracted_reason="lock was changed")).splitlines()[0]
    assert head.endswith("retracted: lock was changed")
    head = seen(show, fact(conflict=True, conflicts=["content", "source"])).splitlines()[0]
    assert "conflict in content, source" in head


def test_a_list_ends_with_how_to_go_on() -> None:
    text = seen(render.facts, {"facts": [fact(), fact(id="x-2", retracted=True)], "next_cursor": "abc"})
    assert "x-2  retracted" in text
    assert text.endswith("--cursor abc\n")
    assert seen(render.facts, {"facts": [], "next_cursor": None}) == "no facts\n"


def test_a_hit_shows_match_and_source() -> None:
    text = seen(render.results, {"results": [{"fact": fact(source="chat 7"), "match": 0.8712, "legs": {}}]})
    assert text.splitlines()[0] == "k7q2m4zx5tvb3nya-17  match 0.87"
    assert "home | knowledge | chat 7 | 2026-05-11 08:30:00Z" in text
    assert seen(render.results, {"results": []}) == "nothing found\n"


def test_a_history() -> None:
    version = {"version": "8c1f" * 16, "field": "", "author": "bo", "agent": None, "at": "2026-05-11T08:30:00.123Z"}
    versions = [version | {"value": {"content": "x"}, "state": "superseded"}]
    versions += [version | {"field": "content", "value": "two\nlines", "state": "current"}]
    lines = seen(render.history, {"id": "x", "versions": versions}).splitlines()
    assert lines[1].split()[:6] == ["2026-05-11", "08:30:00Z", "superseded", "fact", "bo", "8c1f8c1f8c1f"]
    assert lines[2].endswith("two lines")


def test_a_graph() -> None:
    nodes = [{"id": "a", "content": "A", "retracted": True}, {"id": "b", "content": None}]
    text = seen(
        render.graph, {"nodes": nodes, "edges": [{"from": "a", "relation": "needs", "to": "b"}], "truncated": True}
    )
    assert text == "a  retracted\nA\n  needs -> b\nb\nnot on this node\nthere is more: ask for a smaller --depth\n"


PEER = {
    "id": "bo4x",
    "name": "bo",
    "address": "10.0.0.2:7400",
    "state": "offline",
    "behind": {"ops": 12, "seconds": 3700},
    "ahead": {"ops": 0, "seconds": 0},
    "reason": "offline",
    "detail": "connection refused",
    "last_contact": None,
}


def test_status() -> None:
    text = seen(
        render.status,
        {
            "node": {"id": "k7", "name": "pi", "version": "0.1", "profile": "node", "pid": 7, "uptime_s": 93_784},
            "resources": {"rss_bytes": 61 << 20, "rss_max_bytes": 128 << 20, "store_bytes": 900},
            "projects": [{"name": "home", "facts": 3, "root": "ab12"}],
            "peers": [PEER],
            "warnings": [{"code": "x", "text": "the clock is 9 s off", "action": "set it"}],
        },
    )
    for words in ("pi (k7)", "pid 7, up 1 d 2 h", "61.0 MB of 128.0 MB", "900 B", "home     3      yes     ab12",
                  "12 ops, 1 h 1 min", "offline: connection refused", "the clock is 9 s off\n  set it"):  # fmt: skip
        assert words in text


def test_status_says_how_the_clock_stands_and_what_is_not_synced() -> None:
    document = {
        "at": "2026-05-11T08:30:00.000Z",
        "node": {"id": "k7", "name": "pi", "version": "0.1", "profile": "node", "pid": 7, "uptime_s": 9},
        "resources": {"rss_bytes": 1, "store_bytes": 900},
        "clock": {
            "offset_s": -90.5,
            "held_ops": 3,
            "culprits": [{"node": "x", "name": "attic", "ops": 3, "until": "2026-05-12T08:30:00.000Z"}],
        },
        "projects": [{"name": "diary", "facts": 3, "root": "ab12", "carried": False}],
        "peers": [PEER | {"last_contact": "2026-05-11T08:29:18.000Z"}],
        "warnings": [],
    }
    text = seen(render.status, document)
    for words in ("clock 1 min 30 s behind the peers', 3 ops of attic held until", "diary    3      no", "42 s ago"):
        assert words in text
    text = seen(render.status, document | {"clock": {"offset_s": 0.2, "culprits": []}})
    assert "clock agrees with the peers'" in text


LEDGER = {
    "size": 3013,
    "checkpoint_at": "2026-05-11T08:29:18.000Z",
    "hubs": ["bo4x"],
    "forks": 0,
    "frozen": None,
    "hub": {"mode": "off"},
    "following": {"missing": 0},
}


def status_with(pending: int = 0, **ledger: Any) -> str:
    document = {
        "at": "2026-05-11T08:30:00.000Z",
        "node": {"id": "k7", "name": "pi", "version": "0.1", "profile": "node", "pid": 7, "uptime_s": 9},
        "resources": {"rss_bytes": 1, "store_bytes": 900},
        "projects": [],
        "peers": [PEER],
        "warnings": [],
    }
    return seen(render.status, document | {"votes_pending": pending, "ledger": LEDGER | ledger})


def test_status_says_what_is_pending_and_who_commits() -> None:
    assert "  votes 1,200 pending\n  ledger 3,013 entries; signed 42 s ago; hub: bo (offline)\n" in status_with(1200)
    settled = status_with(following={"missing": 12})
    assert "votes" not in settled
    assert "3,013 entries, 12 of them not on this node; signed" in settled
    assert "; this node is its hub\n" in status_with(hubs=["k7"], hub={"mode": "working"})
    assert "; this node is its hub, and commits nothing: not granted\n" in status_with(
        hubs=["k7"], hub={"mode": "not_granted"}
    )
    dormant = status_with(hubs=["k7"], hub={"mode": "dormant"})
    assert "; nobody commits votes yet; `cortex-node ledger takeover` lets this node\n" in dormant
    assert "hub: bo (offline), x9 (no peer of this node)\n" in status_with(hubs=["bo4x", "x9"])
    assert "; it has no hub\n" in status_with(hubs=[])
    assert "  ledger none yet: it comes with the first sync\n" in status_with(size=0)


def test_status_says_that_a_ledger_is_not_sound() -> None:
    assert "fork" not in status_with()
    assert "frozen" not in status_with()
    assert "  ledger 1 fork: see `cortex-node ledger verify`\n" in status_with(forks=1)
    frozen = {"index": 4, "code": "leaf", "detail": "entry 4 was changed"}
    assert "  ledger frozen: leaf: entry 4 was changed\n" in status_with(frozen=frozen)


def test_without_peers_it_says_how_to_get_some() -> None:
    assert "cortex-node invite" in seen(render.peers, {"peers": []})


def test_rounds() -> None:
    round_ = {"peer": "bo", "result": "ok", "sent_ops": 5, "received_ops": 7, "bytes": 1234, "reason": None}
    assert seen(render.rounds, {"rounds": [round_]}).splitlines()[1].split() == ["bo", "ok", "5", "7", "1.2", "kB"]
    assert "no peer" in seen(render.rounds, {"rounds": []})


def test_an_invitation_says_what_to_type_where_and_until_when() -> None:
    text = seen(
        render.invitation,
        {
            "code": "CORTEX1-ABC",
            "addresses": ["10.0.0.1:7400"],
            "role": "member",
            "projects": ["*"],
            "expires_at": "2026-05-11T08:40:00Z",
        },
    )
    assert "cortex-node join CORTEX1-ABC\n" in text
    assert "Good once, until 2026-05-11 08:40:00Z, for a member of every project." in text
    assert "10.0.0.1:7400" in text


def test_init_and_join_say_what_comes_next() -> None:
    home = {"node": "k7", "name": "pi", "mesh": "ff00", "home": "/data"}
    new = home | {"ledger": "ab" * 32, "owner": "cd" * 32, "engine": "solo", "config_written": True}
    assert seen(render.founded, new).endswith("start it with: cortex-node run\n")
    assert "takeover" in seen(render.founded, new | {"engine": "none"})
    assert 'engine = "solo"' in seen(render.founded, new | {"config_written": False})
    joined = home | {"role": "member", "peers": ["10.0.0.1:7400"]}
    assert "10.0.0.1" not in seen(render.joined, joined | {"peers_written": True})
    assert "10.0.0.1" in seen(render.joined, joined | {"peers_written": False})


def test_checks_end_with_how_to_mend() -> None:
    checks = [
        {"name": "python", "state": "ok", "detail": "3.11", "action": ""},
        {"name": "disk", "state": "failed", "detail": "0.1 GB free", "action": "free some space"},
    ]
    lines = seen(render.checks, {"ok": False, "checks": checks}).splitlines()
    assert lines[2].split() == ["failed", "disk", "0.1", "GB", "free"]
    assert lines[-1] == "disk: free some space"


def test_settings_show_value_unit_and_origin() -> None:
    setting = {"key": "peers", "value": ["a:1", "b:2"], "unit": None, "source": "/data/node.toml", "doc": "Peers."}
    line = seen(render.settings, {"file": "/data/node.toml", "settings": [setting]}).splitlines()[1]
    assert line == "peers  a:1, b:2  node.toml  Peers."


def test_an_import_tells_what_it_did() -> None:
    report = {"stored": 2, "already_stored": 1, "links": 0, "bad_links": 0, "bad_lines": 3}
    report["bad"] = [{"line": 7, "error": "not an object"}]
    text = seen(render.imported, report)
    assert text.splitlines() == [
        "2 facts stored",
        "1 fact stored before, by an earlier run of this import",
        "3 lines left out:",
        "  line 7: not an object",
        "  and 2 more",
    ]
    assert "--skip-bad" in seen(render.import_refused, report)


def test_an_import_of_an_earlier_database_says_what_its_votes_are_worth() -> None:
    report = {"stored": 2, "already_stored": 0, "votes": 1, "already_voted": 0, "bad_votes": 1, "lone_votes": 0}
    report |= {"agents": 1, "missing": ["consensus_votes_v2"], "bad_facts": 2, "bad": [{"id": "7", "error": "empty"}]}
    text = seen(render.cortex_imported, report)
    assert text.splitlines() == [
        "2 facts and 1 old vote stored",
        "1 old vote left out: neither up nor down, or by nobody with a name",
        "2 facts left out:",
        "  7: empty",
        "  and 1 more",
        "not in that database: consensus_votes_v2",
        "Old votes are not signed: they weigh 0 here, and count in score_linear only.",
        "Of 1 agent only the names on their votes were taken over; who is to vote here needs a key:"
        " cortex-node agent add NAME",
    ]
    assert "--skip-bad" in seen(render.cortex_refused, report)


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (5 << 30, "5.0 GB"), (10 << 40, "10.0 TB")]
)
def test_amounts(size: int, words: str) -> None:
    assert render.amount(size) == words
