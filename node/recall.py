"""Search over memory: from a request to ranked facts.

The ranking is node/search; here the request is checked, the answer shaped, and each hit of an `as_of` search shown as
it was known then: its ops up to that time, folded. Reads run on a reader's thread, in one snapshot, so an answer never
mixes two states. Tests: tests/node/test_recall.py.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from crdt.fact import fold
from crdt.hlc import MAX_COUNTER, MAX_TIMESTAMP, timestamp
from node import requests, shown
from node.clock import rfc3339
from node.requests import Limits, SearchRequest
from node.search import Hit, Meaning, Query
from node.search import search as rank
from node.store import Store


class Recall:
    """Search on one node.

    `freshness` tells how far this replica may be behind its peers, `meaning` gives the vector of a query, where there
    are vectors to compare it with.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        now_ms: Callable[[], int],
        freshness: Callable[[], dict[str, Any]],
        meaning: Callable[[str], Meaning | None] = lambda query: None,
    ) -> None:
        self.store = store
        self.limits = limits
        self.now_ms = now_ms
        self.freshness = freshness
        self.meaning = meaning

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """The best `top_k` facts for a query, with what each leg gave them."""
        as_of = requests.check_search(request, self.limits)
        query = Query(
            text=request.query,
            project=request.project,
            fact_type=request.fact_type,
            tags=tuple(request.tags),
            top_k=request.top_k,
            as_of=None if as_of is None else min(timestamp(as_of, MAX_COUNTER), MAX_TIMESTAMP),
            now_ms=self.now_ms() if as_of is None else as_of,
        )

        def job(connection: sqlite3.Connection) -> tuple[str, list[dict[str, Any]]]:
            meaning = self.meaning(query.text)
            hits = rank(connection, query, meaning)
            return "hybrid" if meaning else "bm25", [self._result(connection, hit, query.as_of) for hit in hits]

        mode, results = await self.store.database.read(job)
        return {
            "results": results,
            "mode": mode,
            "as_of": None if as_of is None else rfc3339(as_of),
            "freshness": self.freshness(),
        }

    def _result(self, connection: sqlite3.Connection, hit: Hit, as_of: int | None) -> dict[str, Any]:
        name, project, row = connection.execute(
            "SELECT name, project, shown FROM facts WHERE id = ?", (hit.fact,)
        ).fetchone()
        shape = msgspec.json.decode(row)
        if as_of is not None:
            ops = [op for op in self.store.effective_ops(connection, name, project) if op.timestamp <= as_of]
            then = fold(ops)
            shape = shown.as_json(then) if then else shape
        shape["body"] = None
        return {
            "fact": shape,
            "match": round(hit.match, 4),
            "legs": {"text": _rounded(hit.text), "vector": _rounded(hit.vector)},
        }


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
