"""A memory in a dictionary, for tests of what stands on one. It counts its calls and can be told to fail."""

from collections.abc import Mapping
from typing import Any

from mcp_edge.memory import Fact, MemoryProblem


class SmallMemory:
    """Facts in the order in which they were stored."""

    def __init__(self) -> None:
        self.facts: dict[str, Fact] = {}
        self.keys: dict[str, str] = {}
        self.votes: list[tuple[str, str, int]] = []
        self.damaged: list[int | None] = []
        self.calls: list[tuple[str, Any]] = []
        self.failure: Exception | None = None

    async def store(self, draft: Mapping[str, Any], key: str | None = None) -> Fact:
        self._called("store", dict(draft))
        if key in self.keys:
            return self.facts[self.keys[key]]
        name = f"a-{len(self.facts) + 1}"
        at = f"2026-05-11T08:30:{len(self.facts):02}.000Z"
        self.facts[name] = {
            "id": name, "project": "default", "fact_type": "knowledge", "tags": [], "confidence": "stated",
            "source": None, "agent": None, "meta": {}, "valid_from": None, "valid_until": None, "created_at": at,
            "updated_at": at, "author": "node-a", "version": "v1", "conflict": False, "conflicts": [],
            "retracted": False, "retracted_reason": None, "links": [], "has_body": "body" in draft, "body": None,
            "body_token": "t1", **draft,
        }  # fmt: skip
        if key:
            self.keys[key] = name
        return self.facts[name]

    async def search(self, query: Mapping[str, Any]) -> dict[str, Any]:
        self._called("search", dict(query))
        words = query["query"].lower().split()
        found = [f for f in self.facts.values() if any(w in f["content"].lower() for w in words) and not f["retracted"]]
        results = [{"fact": fact, "match": 1.0} for fact in found[: query.get("top_k", 10)]]
        return {"results": results, "mode": "bm25", "as_of": None, "freshness": {"synced_at": None, "behind_ops": 0}}

    async def get(self, fact_id: str) -> Fact:
        self._called("get", fact_id)
        if fact_id not in self.facts:
            raise MemoryProblem("unknown_fact", f"there is no fact {fact_id!r} here", "run: cortex-node search")
        return self.facts[fact_id]

    async def history(self, fact_id: str) -> dict[str, Any]:
        return {"id": fact_id, "versions": []}

    async def links_to(self, fact_id: str) -> list[dict[str, str]]:
        return []

    async def update(self, fact_id: str, changes: Mapping[str, Any]) -> Fact:
        self._called("update", (fact_id, dict(changes)))
        fact = await self.get(fact_id)
        fact |= {name: value for name, value in changes.items() if name != "body_base"}
        return fact

    async def retract(self, fact_id: str, reason: str | None = None) -> Fact:
        fact = await self.get(fact_id)
        fact |= {"retracted": True, "retracted_reason": reason}
        return fact

    async def link(self, fact_id: str, relation: str, to: str, *, remove: bool = False) -> Fact:
        self._called("link", (fact_id, relation, to, remove))
        return await self.get(fact_id)

    async def vote(self, fact_id: str, value: int, agent: str, reason: str | None = None) -> dict[str, Any]:
        self._called("vote", (fact_id, value, agent, reason))
        fact = await self.get(fact_id)
        duplicate = (fact_id, agent, value) in self.votes
        self.votes.append((fact_id, agent, value))
        return {
            "vote_id": "f0", "fact_id": fact_id, "version": fact["version"], "state": "pending",
            "duplicate": duplicate, "own": False, "reason": "no hub has committed it yet", "entry": None,
            "checkpoint": None,
            "proof": [], "score": 1000, "score_provisional": 1333, "trust": "unsettled",
        }  # fmt: skip

    async def verify_ledger(self) -> dict[str, Any]:
        self._called("verify_ledger", None)
        findings = [{"index": at, "code": "leaf", "detail": "not the hash\nof the entry"} for at in self.damaged]
        return {
            "ok": not findings, "checked": 7, "votes": 4, "signatures": 7, "size": 9, "root": "ab", "whole": False,
            "findings": findings,
        }  # fmt: skip

    async def list_facts(self, project: str, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        listed = [f for f in reversed(self.facts.values()) if f["project"] == project and not f["retracted"]]
        start = int(cursor or 0)
        more = str(start + limit) if len(listed) > start + limit else None
        return {"facts": [fact | {"body": None} for fact in listed[start : start + limit]], "next_cursor": more}

    async def status(self) -> dict[str, Any]:
        self._called("status", None)
        return {
            "node": {"id": "node-a", "name": "kitchen", "uptime_s": 7},
            "projects": [{"name": "_mesh", "facts": 0}, {"name": "default", "facts": len(self.facts)}],
            "peers": [
                {
                    "id": "b",
                    "name": "cellar",
                    "state": "offline",
                    "behind": {"ops": 3, "seconds": 9},
                    "reason": "offline",
                }
            ],
            "votes_pending": 2,
            "ledger": {"size": 40},
            "warnings": [{"code": "w", "text": "the store is full", "action": "raise store_max_mb"}],
        }

    def _called(self, name: str, given: Any) -> None:
        self.calls.append((name, given))
        if self.failure:
            raise self.failure
