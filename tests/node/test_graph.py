"""The facts around one: as far as asked, in both directions, with every link between them, and told when it is cut."""

from itertools import pairwise

import pytest

from node import graph
from node.requests import LinkChange
from tests.node.world import PROJECT, Node, a_mesh, refused


async def a_path(node: Node, *contents: str) -> list[str]:
    """Facts, each linked to the next."""
    names = [(await node.create(content))["id"] for content in contents]
    for one, other in pairwise(names):
        await node.replica.link(one, LinkChange(relation="next", to=other))
    return names


async def test_a_graph_reaches_as_far_as_asked_in_both_directions() -> None:
    (node,) = await a_mesh(1)
    names = await a_path(node, "a", "b", "c", "d", "e")
    for depth, reached in ((0, "c"), (1, "cbd"), (2, "cbdae"), (3, "cbdae")):
        seen = await node.replica.graph(names[2], depth)
        assert {n["content"] for n in seen["nodes"]} == set(reached)
        assert seen["nodes"][0]["content"] == "c", "nearest first"
        assert len(seen["edges"]) == len(reached) - 1
        assert not seen["truncated"]
    edge = (await node.replica.graph(names[0], 1))["edges"]
    assert edge == [{"from": names[0], "relation": "next", "to": names[1]}]


async def test_a_graph_shows_every_link_between_what_it_shows() -> None:
    (node,) = await a_mesh(1)
    a, b, c = await a_path(node, "a", "b", "c")
    await node.replica.link(c, LinkChange(relation="closes", to=a))
    await node.replica.link(b, LinkChange(relation="is", to=b))
    seen = await node.replica.graph(a, 1)
    assert {(e["from"], e["relation"], e["to"]) for e in seen["edges"]} == {
        (a, "next", b), (b, "next", c), (c, "closes", a), (b, "is", b),
    }  # fmt: skip


@pytest.mark.parametrize(("limit", "most"), [("MAX_GRAPH_NODES", 3), ("MAX_GRAPH_EDGES", 2)])
async def test_a_graph_that_is_cut_says_so(limit: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, limit, most)
    (node,) = await a_mesh(1)
    hub, *others = [(await node.create(str(n)))["id"] for n in range(5)]
    for other in others:
        await node.replica.link(other, LinkChange(relation="to", to=hub))
    seen = await node.replica.graph(hub, 2)
    assert len(seen["nodes"]) <= 3
    assert len(seen["edges"]) <= 2
    assert seen["truncated"]
    assert not (await node.replica.graph(hub, 0))["truncated"]


async def test_a_graph_shows_what_is_retracted_and_what_is_not_here() -> None:
    one, other = await a_mesh(2)
    a, b = await a_path(one, "a", "b")
    await one.replica.retract(b)
    assert [n["retracted"] for n in (await one.replica.graph(a))["nodes"]] == [False, True]
    far = (await one.create("far", project="elsewhere"))["id"]
    await one.replica.link(a, LinkChange(relation="see", to=far))
    await other.merge([op for op in one.ops() if op.project == PROJECT])
    nodes = {n["id"]: n for n in (await other.replica.graph(a))["nodes"]}
    assert nodes[far] == {"id": far, "content": None, "project": None, "retracted": False}


@pytest.mark.parametrize("depth", [-1, 9])
async def test_a_graph_has_a_depth(depth: int) -> None:
    (node,) = await a_mesh(1)
    name = (await node.create())["id"]
    await refused(node.replica.graph(name, depth), 422, "invalid_depth", "depth")
