"""A search answers in the API's shape, with what was known and valid at the time that it asks about."""

from typing import Any

import msgspec
import pytest

from node import shapes
from node.errors import Problem
from node.requests import FactChanges, LinkChange, SearchRequest, TagChange
from tests.node.world import NOW_MS, Node, a_mesh, sync


async def found(node: Node, query: str, **more: Any) -> list[dict[str, Any]]:
    answer = await node.recall.search(SearchRequest(query=query, **more))
    msgspec.convert(answer, shapes.SearchAnswer)
    return [hit["fact"] for hit in answer["results"]]


async def contents(node: Node, query: str, **more: Any) -> list[str]:
    return [fact["content"] for fact in await found(node, query, **more)]


async def test_a_fact_is_found_the_moment_it_is_stored_edited_tagged_and_retracted() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("the valve leaks"))["id"]
    assert await contents(node, "valve") == ["the valve leaks"]
    await node.replica.update(name, FactChanges(content="the pump leaks"))
    assert await contents(node, "valve") == []
    assert await contents(node, "pump") == ["the pump leaks"]
    await node.replica.tag(name, TagChange(add=["urgent"]))
    assert await contents(node, "pump", tags=["urgent"]) == ["the pump leaks"]
    await node.replica.retract(name)
    assert await contents(node, "pump") == []
    await node.replica.update(name, FactChanges(restore=True))
    assert await contents(node, "pump") == ["the pump leaks"]


async def test_what_a_peer_wrote_is_found_once_it_is_here() -> None:
    one, other = await a_mesh(2)
    await one.create("the valve leaks", body="since the flood")
    assert await contents(other, "valve") == []
    await sync(one, other)
    assert await contents(other, "valve") == await contents(other, "flood") == ["the valve leaks"]


async def test_filters() -> None:
    (node,) = await a_mesh(1)
    await node.create("a valve", tags=["x", "y"], fact_type="rule")
    await node.create("another valve", project="yard")
    assert len(await found(node, "valve")) == 2
    assert await contents(node, "valve", project="yard") == ["another valve"]
    assert await contents(node, "valve", project="nowhere") == []
    assert await contents(node, "valve", fact_type="rule") == ["a valve"]
    assert await contents(node, "valve", tags=["x", "y"]) == ["a valve"]
    assert await contents(node, "valve", tags=["x", "z"]) == []
    assert len(await found(node, "valve", top_k=1)) == 1


async def test_as_of_shows_what_was_known_then_as_it_was_known() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("the valve is red", source="ann"))["id"]
    node.now_ms = NOW_MS + 60_000
    other = (await node.create("elsewhere"))["id"]
    await node.replica.update(name, FactChanges(content="the valve is blue", source="bob"))
    await node.replica.link(name, LinkChange(relation="see", to=other))
    node.now_ms = NOW_MS + 120_000
    await node.replica.retract(name)
    (then,) = await found(node, "valve", as_of="2027-01-15T08:00:30Z")
    assert (then["content"], then["source"], then["links"]) == ("the valve is red", "ann", [])
    (later,) = await found(node, "valve", as_of="2027-01-15T08:01:30Z")
    assert (later["content"], later["source"], later["retracted"]) == ("the valve is blue", "bob", False)
    assert later["links"] == [{"relation": "see", "to": other}]
    assert await found(node, "valve", as_of="2027-01-15T08:03:00Z") == []
    assert await found(node, "valve", as_of="2027-01-15T07:59:59Z") == []
    assert await contents(node, "red", as_of="2027-01-15T08:01:30Z") == []


async def test_validity_is_of_the_time_asked_about() -> None:
    (node,) = await a_mesh(1)
    await node.create("valve, next year", valid_from="2028-01-01")
    await node.create("valve, until last year", valid_until="2027-01-01")
    assert await contents(node, "valve") == []
    assert await contents(node, "valve", as_of="2028-06-01") == ["valve, next year"]


async def test_the_answer_says_how_it_was_found_and_how_fresh_it_is() -> None:
    (node,) = await a_mesh(1)
    await node.create("the valve leaks")
    answer = await node.recall.search(SearchRequest(query="valve"))
    assert (answer["mode"], answer["as_of"]) == ("bm25", None)
    assert answer["freshness"] == {"synced_at": None, "behind_ops": 0}
    assert answer["results"][0]["match"] == 1.0
    legs = answer["results"][0]["legs"]
    assert legs["vector"] is None and 0.9 < legs["text"] <= 1, "it has the one word that was asked for"
    answer = await node.recall.search(SearchRequest(query="valve", as_of="2027-02-01"))
    assert answer["as_of"] == "2027-02-01T00:00:00.000Z"


@pytest.mark.parametrize("as_of", ["1970-01-01", "6500-01-01", "9999-12-31"])
async def test_the_ends_of_time(as_of: str) -> None:
    (node,) = await a_mesh(1)
    await node.create("the valve leaks")
    assert await contents(node, "valve", as_of=as_of) == (["the valve leaks"] if as_of > "2027" else [])


@pytest.mark.parametrize("query", ['"', "NEAR(", "valve OR", "* - :", "'; DROP TABLE facts; --", "", "\0", "a" * 2_000])
async def test_no_query_is_syntax(query: str) -> None:
    (node,) = await a_mesh(1)
    await node.create("the valve leaks")
    await found(node, query)


async def test_a_bad_request_is_refused() -> None:
    (node,) = await a_mesh(1)
    with pytest.raises(Problem, match="top_k"):
        await node.recall.search(SearchRequest(query="x", top_k=0))
