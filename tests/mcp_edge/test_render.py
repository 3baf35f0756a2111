"""What is shown of the memory: data stays data, long texts are cut, and freshness is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_edge import render
from mcp_edge.memory import MemoryProblem
from tests.mcp_edge.small_memory import SmallMemory


async def a_fact(**fields: Any) -> dict[str, Any]:
    return await SmallMemory().store({"content": "x", **fields})


def a_search(*facts: dict[str, Any], **freshness: Any) -> dict[str, Any]:
    results = [{"fact": fact, "match": 0.5} for fact in facts]
    fresh = {"synced_at": "2026-05-11T08:00:00Z", "behind_ops": 0} | freshness
    return {"results": results, "mode": "bm25", "as_of": None, "freshness": fresh}


@given(st.text(), st.text(max_size=20), st.lists(st.text(max_size=10), max_size=3))
async def test_no_text_of_a_fact_can_end_its_line_or_its_quotes(content: str, source: str, tags: list[str]) -> None:
    answer = render.found(a_search(await a_fact(content=content, source=source, tags=tags)))
    lines = answer.text.splitlines()
    assert len(lines) == 3
    shown, _ = json.JSONDecoder().raw_decode(lines[2].partition("] ")[2])
    assert shown == (content if len(content) <= render.MAX_HIT_CHARS else content[: render.MAX_HIT_CHARS] + "...")


async def test_hits_are_marked_as_data_and_say_where_they_come_from() -> None:
    answer = render.found(a_search(await a_fact(source="mail", agent="claude", tags=["a"])))
    assert render.DATA in answer.text
    for said in ('source "mail"', 'agent "claude"', 'tags ["a"]', "node node-a", "match 0.5"):
        assert said in answer.text
    assert answer.data["kind"] == "data"
    assert answer.data["results"][0]["author"] == "node-a"


async def test_score_and_trust_are_shown_where_there_are_any() -> None:
    hit = render.found(a_search(await a_fact(trust="verified", score=1800)))
    assert "trust verified, score 1.80 of 2" in hit.text and hit.data["results"][0]["score"] == 1800
    assert "trust" not in render.found(a_search(await a_fact())).text
    unvoted = render.found(a_search(await a_fact(trust="unsettled", score=1000)))
    assert "trust" not in unvoted.text and unvoted.data["results"][0]["trust"] == "unsettled"
    one_vote = await a_fact(trust="unsettled", score=1333)
    for answer in (render.found(a_search(one_vote)), render.fact(one_vote, {"versions": []}, [])):
        assert "trust unsettled, score 1.33 of 2" in answer.text


@pytest.mark.parametrize(
    ("freshness", "said"),
    [
        ({"synced_at": None}, "not synced with another node yet"),
        ({}, "last synced at 2026-05-11T08:00:00Z."),
        ({"behind_ops": 7}, "7 ops behind"),
    ],
)
def test_an_answer_says_how_fresh_it_is(freshness: dict[str, Any], said: str) -> None:
    answer = render.found(a_search(**freshness))
    assert said in answer.text
    assert "0 facts match" in answer.text


async def test_a_long_hit_is_cut_and_says_so() -> None:
    answer = render.found(a_search(await a_fact(content="x" * 5_000)))
    [hit] = answer.data["results"]
    assert hit["cut"] and len(hit["content"]) == render.MAX_HIT_CHARS
    assert "cortex_get has it whole" in answer.text
    assert len(answer.text) < 2_000


async def test_a_fact_is_shown_with_links_history_and_body() -> None:
    fact = await a_fact(
        body="b" * 60_000, links=[{"relation": "caused-by", "to": "a-2"}], conflict=True, conflicts=["content"]
    )
    version = {"value": "old", "field": "content", "at": "t", "state": "superseded", "author": "n", "agent": "bo"}
    answer = render.fact(fact, {"versions": [version]}, [{"from": "a-3", "relation": "part-of"}])
    for said in ('"caused-by" -> "a-2"', 'linked from: a-3, "part-of"', '"content" = "old" (superseded', "In conflict"):
        assert said in answer.text
    assert len(answer.data["fact"]["body"]) == render.MAX_BODY_CHARS and answer.data["fact"]["body_cut"]
    assert "cortex://fact/a-1" in answer.text


async def test_the_status_leaves_out_what_belongs_to_the_mesh() -> None:
    answer = render.status(await SmallMemory().status())
    assert "_mesh" not in answer.text and [one["name"] for one in answer.data["projects"]] == ["default"]
    assert '"cellar": offline, 3 ops behind, offline' in answer.text
    assert "What to do: raise store_max_mb" in answer.text
    assert "ledger: 40 entries, 2 votes pending\n" in answer.text


def test_advice_that_names_a_command_becomes_one_that_names_a_tool() -> None:
    answer = render.problem(MemoryProblem("retracted", "it was retracted", "see: cortex-node history"))
    assert "cortex_update" in answer.text and "cortex-node" not in answer.text
    assert answer.failed


@pytest.mark.parametrize(
    ("vote", "said"),
    [
        ({}, "You vote +1: pending until a hub commits it. a-1 is unsettled, score 1000 of 2000, 1000 is neutral;"),
        ({"duplicate": True}, "You vote +1, as before: pending"),
        (
            {"state": "committed", "entry": {"index": 7}, "trust": "verified", "score": 1555},
            "You vote +1: committed as entry 7. a-1 is verified, score 1555",
        ),
    ],
)
async def test_a_vote_says_what_became_of_it(vote: dict[str, Any], said: str) -> None:
    memory = SmallMemory()
    await memory.store({"content": "x"})
    answer = render.voted(await memory.vote("a-1", 1, "claude") | vote, 1)
    assert answer.text.startswith(said) and not answer.failed
    assert {"checkpoint", "proof"}.isdisjoint(answer.data)
    assert "your vote weighs 0" not in answer.text
    assert "your vote weighs 0" in render.voted(await memory.vote("a-1", 1, "claude") | vote | {"own": True}, 1).text
    assert render.voted(await memory.vote("a-1", 0, "claude"), 0).text.startswith("Your vote is withdrawn")
