"""Search over memory: from a request to ranked facts.

The ranking is node/search; here the request is checked, the answer shaped, and each hit of an `as_of` search shown as
it was known then: its ops up to that time, folded. Reads run on a reader's thread, in one snapshot, so an answer never
mixes two states. Answers are kept (node/cache.py) together with how long they hold: until a write or a committed vote
changes the project, or a fact begins or ceases to be valid. What the votes on the hits amount to is put in behind the
cache, as it is today. Tests: tests/node/test_recall.py; tests/node/test_cache.py.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from crdt.fact import fold
from crdt.hlc import MAX_COUNTER, MAX_TIMESTAMP, timestamp
from node import requests, shown
from node.cache import Cache, Computed
from node.clock import rfc3339
from node.generations import EVERYTHING
from node.requests import Limits, SearchRequest
from node.search import Hit, Meaning, Query, Trusting, no_trust, text
from node.search import search as rank
from node.store import Store
from node.voting import verdicts

SEARCHES = 1
"""At a time. More only contend for the interpreter: of 16 clients 300 searches a second are served one by one, 126 with
five at once (bench/rest.py, two processors). Other reads have the other readers.
"""


MAX_AT_ONCE = 20
"""Hits whose votes are read on the event loop's thread, in half a millisecond; those of more, on a reader's."""


class Recall:
    """Search on one node.

    `freshness` tells how far this replica may be behind its peers, `meaning` gives the vector of a query, where there
    are vectors to compare it with. `trust` tells how far to trust facts, `decorate` puts into them what their votes
    amount to; by themselves, that nobody has voted.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        now_ms: Callable[[], int],
        freshness: Callable[[], dict[str, Any]],
        meaning: Callable[[str], Meaning | None] = lambda query: None,
        cache: Cache | None = None,
    ) -> None:
        self.store = store
        self.cache = cache
        self.limits = limits
        self.now_ms = now_ms
        self.freshness = freshness
        self.meaning = meaning
        self.trust: Trusting = no_trust
        self.decorate: verdicts.Decorate = verdicts.leave_unvoted
        self._turn = asyncio.Semaphore(SEARCHES)

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """The best `top_k` facts for a query, with what each leg gave them."""
        as_of = requests.check_search(request, self.limits)

        async def compute() -> Computed:
            return await self._search(request, as_of)

        answer: dict[str, Any]
        if self.cache is None:
            answer = (await compute()).answer
        else:
            scope = _scope(self.store.database.direct, request.project)
            key = b"search " + msgspec.json.encode(request)
            answer = await self.cache.answer(key, scope, compute, deep=True)
        found = [hit["fact"] for hit in answer["results"]]
        if len(found) <= MAX_AT_ONCE:
            self.decorate(self.store.database.direct, found)
        else:
            await self.store.database.read(lambda connection: self.decorate(connection, found))
        return answer | {"freshness": self.freshness()}

    async def _search(self, request: SearchRequest, as_of: int | None) -> Computed:
        query = Query(
            text=request.query,
            project=request.project,
            fact_type=request.fact_type,
            tags=tuple(request.tags),
            top_k=request.top_k,
            as_of=None if as_of is None else min(timestamp(as_of, MAX_COUNTER), MAX_TIMESTAMP),
            now_ms=self.now_ms() if as_of is None else as_of,
        )

        def job(connection: sqlite3.Connection) -> Computed:
            meaning = self.meaning(query.text)
            hits = rank(connection, query, meaning, self.trust)
            answer = {
                "results": [self._result(connection, hit, query.as_of) for hit in hits],
                "mode": "hybrid" if meaning else "bm25",
                "as_of": None if as_of is None else rfc3339(as_of),
            }
            scope = _scope(connection, request.project)
            if as_of is not None:  # what was valid then stays so
                return Computed(answer, scope)
            return Computed(answer, scope, query.now_ms, shown.validity_changes_after(connection, query.now_ms))

        async with self._turn:
            return await self.store.database.read(job)

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


def _scope(connection: sqlite3.Connection, project: str | None) -> str:
    """What the answer of a search depends on: its project, or all of them (`text.reads_all`)."""
    row = connection.execute("SELECT id FROM projects WHERE name = ?", (project,)).fetchone()
    return EVERYTHING if row is None or text.reads_all(connection, row[0]) else shown.scope(row[0])


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
