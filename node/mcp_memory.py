"""The node's facts as mcp_edge asks for them: its `Memory`, over the same verbs that REST and the command line use.

Arguments are checked where all of them are (node/requests.py), and a `Problem` becomes a `MemoryProblem` of the same
words. Tests: tests/node/test_mcp_memory.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import msgspec

from mcp_edge.memory import Fact, MemoryProblem
from node import requests
from node.admission import Admission
from node.errors import Problem
from node.recall import Recall
from node.replica import Replica
from node.voting.requests import NewVote
from node.voting.verbs import Votes

CLIENT: Final = "mcp"
VERIFY_S: Final = 45.0
"""Clients give a call a minute."""


class NodeMemory:
    """The facts of this node."""

    def __init__(
        self,
        replica: Replica,
        recall: Recall,
        status: Callable[[], Awaitable[dict[str, Any]]],
        admission: Admission | None = None,
        votes: Votes | None = None,
        verify: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        self._replica = replica
        self._recall = recall
        self._status = status
        self._admission = admission
        self._votes = votes
        self._verify = verify

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """All MCP clients together are one in the queue."""
        with _translated():
            if self._admission is None:
                yield
            else:
                self._admission.count(CLIENT)
                async with self._admission.turn(CLIENT):
                    yield

    async def store(self, draft: Mapping[str, Any], key: str | None = None) -> Fact:
        async with self._call():
            facts, _ = await self._replica.store_facts([_convert(draft, requests.FactDraft)], key)
            return facts[0]

    async def search(self, query: Mapping[str, Any]) -> dict[str, Any]:
        async with self._call():
            return await self._recall.search(_convert(query, requests.SearchRequest))

    async def get(self, fact_id: str) -> Fact:
        async with self._call():
            return await self._replica.get(fact_id, retracted=True)

    async def history(self, fact_id: str) -> dict[str, Any]:
        async with self._call():
            return await self._replica.history(fact_id)

    async def links_to(self, fact_id: str) -> list[dict[str, str]]:
        async with self._call():
            around = await self._replica.graph(fact_id, depth=1)
        edges = (edge for edge in around["edges"] if edge["to"] == fact_id)
        return [{"from": edge["from"], "relation": edge["relation"]} for edge in edges]

    async def update(self, fact_id: str, changes: Mapping[str, Any]) -> Fact:
        async with self._call():
            return await self._replica.update(fact_id, _convert(changes, requests.FactChanges))

    async def retract(self, fact_id: str, reason: str | None = None) -> Fact:
        async with self._call():
            return await self._replica.retract(fact_id, reason)

    async def link(self, fact_id: str, relation: str, to: str, *, remove: bool = False) -> Fact:
        async with self._call():
            change = requests.LinkChange(relation=relation, to=to, remove=remove)
            return await self._replica.link(fact_id, change)

    async def vote(self, fact_id: str, value: int, agent: str, reason: str | None = None) -> dict[str, Any]:
        """The wait for a hub takes no turn."""
        with _translated():
            if self._votes is None:
                raise Problem(503, "no_votes", "this node takes no votes", "vote on another node")
            async with self._call():
                cast = await self._votes.cast(fact_id, NewVote(value=value, reason=reason), agent)
            return await self._votes.settled(cast)

    async def verify_ledger(self) -> dict[str, Any]:
        with _translated():
            if self._verify is None:
                raise Problem(503, "no_ledger", "this node has no ledger", "ask another node")
            try:
                async with asyncio.timeout(VERIFY_S):
                    return await self._verify()
            except TimeoutError:
                detail = f"the ledger here is too long to be checked within {VERIFY_S:g} s"
                raise Problem(503, "ledger_long", detail, "your user can run: cortex-node ledger verify") from None

    async def list_facts(self, project: str, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        async with self._call():
            return await self._replica.list_facts(project, limit, cursor)

    async def status(self) -> dict[str, Any]:
        with _translated():
            return await self._status()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        raise MemoryProblem(problem.code, problem.detail, problem.action, problem.field) from problem


def _convert(given: Mapping[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid_request", str(error), "look at the tool's schema") from None
