"""The shapes of the API's answers, as `/openapi.json` describes them. The tests hold every answer against them.

Answers are built as dictionaries where their content is known (node/shown.py, node/replica.py, node/status.py); these
classes document and check them. Fields may be added from one version to the next, never renamed.
Tests: tests/node/test_shapes.py.
"""

from typing import Any, Literal

import msgspec


class Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One JSON object."""


class Link(Shape):
    """A typed link to another fact."""

    relation: str
    to: str


class Votes(Shape):
    """How many agents have a committed vote for and against the version shown, and how many have one on its way."""

    up: int
    down: int
    pending: int


class Fact(Shape, kw_only=True):
    """A fact as it is shown. `author` is the node that signed the content, `agent` who is named as its source.

    The scores are in thousandths, 0..2000; 1000 is neutral. `trust` follows from committed votes alone.
    """

    id: str
    project: str
    content: str
    body: str | None
    body_token: str | None = None
    has_body: bool
    fact_type: str
    tags: list[str]
    confidence: str
    source: str | None
    agent: str | None
    meta: dict[str, Any]
    valid_from: str | None
    valid_until: str | None
    created_at: str
    updated_at: str
    author: str
    version: str
    conflict: bool
    conflicts: list[str]
    retracted: bool
    retracted_reason: str | None
    links: list[Link]
    legacy_id: str | None
    score: int
    score_provisional: int
    score_linear: int
    trust: Literal["unsettled", "verified", "disputed", "contested"]
    votes: Votes
    last_vote_at: str | None


class Facts(Shape):
    """Facts in the order in which they were sent."""

    facts: list[Fact]


class FactPage(Shape):
    """One page of facts; pass `next_cursor` on for the next."""

    facts: list[Fact]
    next_cursor: str | None


class FactVersion(Shape):
    """One write of a fact's history."""

    version: str
    field: str
    value: Any
    author: str
    agent: str | None
    at: str
    state: Literal["current", "superseded", "conflicting", "retracted", "no_effect"]


class History(Shape):
    """Every write of a fact, oldest first."""

    id: str
    versions: list[FactVersion]


class Project(Shape):
    """A project and how many facts stand in it."""

    name: str
    facts: int


class Projects(Shape):
    """The projects of this node."""

    projects: list[Project]


class Legs(Shape):
    """What each way of searching gave a hit, 0..1; null where it found nothing or isn't there."""

    text: float | None
    vector: float | None


class SearchHit(Shape):
    """One fact found."""

    fact: Fact
    match: float
    legs: Legs


class Freshness(Shape):
    """How far this replica may be behind: the last complete round with a peer, and ops known to be missing."""

    synced_at: str | None
    behind_ops: int


class SearchAnswer(Shape):
    """Hits, the best first."""

    results: list[SearchHit]
    mode: Literal["hybrid", "bm25"]
    as_of: str | None
    freshness: Freshness


class Node(Shape):
    """A node of a graph."""

    id: str
    content: str | None
    project: str | None
    retracted: bool


class Edge(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename={"origin": "from"}):
    """A link of a graph."""

    origin: str
    relation: str
    to: str


class Graph(Shape):
    """The facts around one, and the links between them."""

    nodes: list[Node]
    edges: list[Edge]
    truncated: bool


class Error(Shape, kw_only=True):
    """A problem document (RFC 9457). `code` is for programs, `action` says what to do."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    action: str
    field: str | None = None
