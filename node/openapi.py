"""The description of the REST API (OpenAPI 3.1), made from the table of routes and the types of what they carry.

Nothing is written twice: a route that is served is described, and the other way round.
Tests: tests/node/test_openapi.py.
"""

import re
from collections.abc import Sequence
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from node import __version__
from node.shapes import Error

if TYPE_CHECKING:
    from node.http import Route

_REF = "#/components/schemas/{name}"


def describe(routes: "Sequence[Route]") -> dict[str, Any]:
    """The whole document."""
    kinds = [kind for route in routes for union in (route.body, route.answers) for kind in _members(union)] + [Error]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)  # aiohttp's pattern of a parameter
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "cortex-node", "version": __version__, "description": "A shared memory for AI agents."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: "Route") -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)[:}]", route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in route.query.items()
    ]
    success: dict[str, Any] = {"description": "done"}
    if route.answers:
        success["content"] = {"application/json": {"schema": _schema(route.answers)}}
    operation: dict[str, Any] = {
        "operationId": f"{route.name}_{route.method.lower()}",
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "2XX": success,
            "default": {
                "description": "a problem document",
                "content": {"application/problem+json": {"schema": _schema(Error)}},
            },
        },
    }
    if route.body:
        operation["requestBody"] = {"content": {"application/json": {"schema": _schema(route.body)}}}
    return operation


def _members(union: Any) -> list[Any]:
    if union is None:
        return []
    return list(get_args(union)) if isinstance(union, UnionType) else [union]


def _schema(union: Any) -> dict[str, Any]:
    references = [{"$ref": _REF.format(name=kind.__name__)} for kind in _members(union)]
    return references[0] if len(references) == 1 else {"oneOf": references}
