"""What this package needs of a node, in its own words. `node` supplies it (node/mcp_memory.py); tests use a small one.

Facts, searches and status are dictionaries in the shapes of the REST API. A write is on disk when its call returns.
Whatever a caller can do something about is a `MemoryProblem`; anything else that is raised is a fault of the node.
Tests: tests/mcp_edge/test_memory.py.
"""

from collections.abc import Mapping
from typing import Any, Protocol

Fact = dict[str, Any]
"""A fact as it is shown: `id`, `content`, `project`, `fact_type`, `tags`, `source`, `agent`, `author`, `links`, ..."""


class MemoryProblem(Exception):
    """A call that failed: what happened (`detail`), what to do (`action`), and the argument at fault (`field`)."""

    def __init__(self, code: str, detail: str, action: str = "", field: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.action = action
        self.field = field


class Memory(Protocol):
    """The facts of one node."""

    async def store(self, draft: Mapping[str, Any], key: str | None = None) -> Fact:
        """Store a fact. With the `key` of an earlier call, that call's fact is returned and nothing is stored."""

    async def search(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """`{"results": [{"fact", "match"}], "freshness": {"synced_at", "behind_ops"}, ...}`, the best first."""

    async def get(self, fact_id: str) -> Fact:
        """One fact with its body, also when it is retracted."""

    async def history(self, fact_id: str) -> dict[str, Any]:
        """`{"versions": [{"field", "value", "at", "state", ...}]}`, the oldest first."""

    async def links_to(self, fact_id: str) -> list[dict[str, str]]:
        """The links from other facts to this one, `{"from", "relation"}` each."""

    async def update(self, fact_id: str, changes: Mapping[str, Any]) -> Fact:
        """Change fields, tags and body."""

    async def retract(self, fact_id: str, reason: str | None = None) -> Fact:
        """Withdraw a fact; it stays in its history."""

    async def link(self, fact_id: str, relation: str, to: str, *, remove: bool = False) -> Fact:
        """Make or remove a link."""

    async def vote(self, fact_id: str, value: int, agent: str, reason: str | None = None) -> dict[str, Any]:
        """Vote as `agent`: `{"state": "pending" | "committed", "duplicate", "entry", "score", "trust", ...}`."""

    async def verify_ledger(self) -> dict[str, Any]:
        """`{"ok", "checked", "votes", "signatures", "size", "root", "findings": [{"index", "code", "detail"}]}`."""

    async def list_facts(self, project: str, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        """`{"facts": [...], "next_cursor"}`: the facts of a project, the newest first, without their bodies."""

    async def status(self) -> dict[str, Any]:
        """How the node and its peers are."""
