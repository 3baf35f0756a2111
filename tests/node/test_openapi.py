"""The description says what is served: every route, every parameter, every shape, and nothing that leads nowhere."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from node import __version__, requests, shapes
from node.http import Api, Route
from node.openapi import describe

ROUTES = Api(None, None, None, None, "token", None).routes()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(msgspec.json.encode(describe(ROUTES)))  # type: ignore[no-any-return]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_route_is_described_once(document: dict[str, Any]) -> None:
    described = {(path, method.upper()) for path, method, _ in operations(document)}
    assert described == {(route.path, route.method) for route in ROUTES}
    assert len({operation["operationId"] for *_, operation in operations(document)}) == len(ROUTES)
    assert all(operation["summary"] for *_, operation in operations(document))


def test_the_head_is_that_of_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "cortex-node"
    assert document["info"]["version"] == __version__
    assert document["security"] == [{name: []} for name in document["components"]["securitySchemes"]]


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    named = {f"#/components/schemas/{name}" for name in schemas}
    assert set(references(document)) == named
    assert all(re.fullmatch(r"[\w.-]+", name) for name in schemas)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_parameters_bodies_and_answers(document: dict[str, Any], route: Route) -> None:
    operation = document["paths"][route.path][route.method.lower()]
    placed = [(parameter["name"], parameter["in"]) for parameter in operation["parameters"]]
    assert len(placed) == len(set(placed))
    assert [name for name, where in placed if where == "path"] == re.findall(r"\{(\w+)\}", route.path)
    assert {name for name, where in placed if where == "query"} == set(route.query)
    assert all(parameter["schema"] for parameter in operation["parameters"])
    assert all(parameter["required"] for parameter in operation["parameters"] if parameter["in"] == "path")
    assert ("requestBody" in operation) == bool(route.body)
    answers = operation["responses"]
    assert set(answers) == {"2XX", "default"}
    assert all(answer["description"] for answer in answers.values())
    assert "application/problem+json" in answers["default"]["content"]
    if route.answers:
        assert "schema" in answers["2XX"]["content"]["application/json"]


def test_the_fields_are_those_that_are_read_and_written(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for kind in (requests.FactDraft, requests.FactChanges, shapes.Fact, shapes.Error):
        fields = {field.encode_name for field in msgspec.structs.fields(kind)}
        assert set(schemas[kind.__name__]["properties"]) == fields
    assert schemas["FactDraft"]["required"] == ["content"]
    assert schemas["FactDraft"]["additionalProperties"] is False
    assert set(schemas["Edge"]["properties"]) == {"from", "relation", "to"}


def test_a_batch_is_described_beside_the_single_fact(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/facts"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert [found.rpartition("/")[2] for found in references(body)] == ["FactDraft", "NewFacts"]
