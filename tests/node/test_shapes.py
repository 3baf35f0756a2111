"""The shapes are strict, and hold the names that users hold on to."""

from typing import Any

import msgspec
import pytest

from node import shapes
from node.errors import Problem
from tests.node.world import a_mesh

PROMISED = {
    "Fact": "id project content body fact_type tags confidence source meta valid_from valid_until created_at updated_at"
    " author agent version conflict retracted links score score_provisional score_linear trust votes last_vote_at",
    "Votes": "up down pending",
    "History": "id versions",
    "FactVersion": "version field value author agent at state",
    "FactPage": "facts next_cursor",
    "SearchAnswer": "results mode as_of freshness",
    "SearchHit": "fact match legs",
    "Freshness": "synced_at behind_ops",
    "Graph": "nodes edges truncated",
    "Edge": "from relation to",
    "Error": "type title status code detail action field",
}


@pytest.mark.parametrize(("name", "fields"), PROMISED.items())
def test_promised_names_are_there(name: str, fields: str) -> None:
    held = {field.encode_name for field in msgspec.structs.fields(getattr(shapes, name))}
    assert set(fields.split()) <= held


async def a_fact() -> dict[str, Any]:
    (node,) = await a_mesh(1)
    return await node.create("a fact", tags=["a"], body="text")


async def test_a_fact_converts_and_comes_back_the_same() -> None:
    fact = await a_fact()
    assert msgspec.to_builtins(msgspec.convert(fact, shapes.Fact)) == fact


@pytest.mark.parametrize(
    "change", [{"colour": "red"}, {"tags": [1]}, {"conflict": 0}, {"links": [{"relation": "r"}]}, {"created_at": 5}]
)
async def test_what_is_not_in_the_shape_is_noticed(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(await a_fact() | change, shapes.Fact)


async def test_what_is_missing_is_noticed() -> None:
    fact = await a_fact()
    for field in set(fact) - {"body_token"}:
        with pytest.raises(msgspec.ValidationError, match=field):
            msgspec.convert({name: value for name, value in fact.items() if name != field}, shapes.Fact)


def test_a_problem_has_the_shape_of_an_error() -> None:
    for problem in (Problem(404, "code", "detail"), Problem(422, "code", "detail", "action", "field")):
        assert msgspec.convert(problem.document(), shapes.Error).code == "code"
