"""The facts around one: breadth first over their links, in either direction, within bounds.

Every link between two facts that are shown is shown. A fact that is linked to and not here, since its project isn't
carried or it has not arrived yet, is a node without content. Tests: tests/node/test_graph.py.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

MAX_GRAPH_NODES = 1_000
MAX_GRAPH_EDGES = 5_000
"""More than anybody looks at, and some megabytes of contents at most."""

Edge = tuple[str, str, str]
"""(origin, relation, target)."""


def around(connection: sqlite3.Connection, fact_id: str, depth: int) -> dict[str, Any]:
    """The API's Graph of what lies within `depth` links of a fact; nearest first, `truncated` when it was cut."""
    found: dict[str, None] = {fact_id: None}
    edges: dict[Edge, None] = {}
    border, truncated = [fact_id], False
    # One step more than asked for: it finds the links between the facts that the last step has found.
    for distance in range(depth + 1):
        following = []
        for edge, other in ((edge, other) for name in border for edge, other in _links(connection, name)):
            room = len(edges) < MAX_GRAPH_EDGES
            if other not in found and distance < depth and room and len(found) < MAX_GRAPH_NODES:
                found[other] = None
                following.append(other)
            if other in found and room:
                edges[edge] = None
            elif edge not in edges and (other in found or distance < depth):
                truncated = True
        border = following
    return {
        "nodes": [_node(connection, name) for name in found],
        "edges": [{"from": origin, "relation": relation, "to": target} for origin, relation, target in edges],
        "truncated": truncated,
    }


def _links(connection: sqlite3.Connection, name: str) -> Iterator[tuple[Edge, str]]:
    """The links of a fact in both directions, each with the fact at its other end."""
    rows = connection.execute(
        "SELECT DISTINCT origin, relation, target FROM links WHERE origin = :id OR target = :id"
        " ORDER BY origin, relation, target LIMIT :most",
        {"id": name, "most": MAX_GRAPH_EDGES + 1},
    )
    for edge in rows:
        yield edge, edge[2] if edge[0] == name else edge[0]


def _node(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    row = connection.execute("SELECT shown FROM facts WHERE name = ?", (name,)).fetchone()
    fact = msgspec.json.decode(row[0]) if row else {"content": None, "project": None, "retracted": False}
    return {"id": name, "content": fact["content"], "project": fact["project"], "retracted": fact["retracted"]}
