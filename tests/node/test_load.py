"""The parts that keep a node quick and alive, put together: what each step does, over REST, and what status tells."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node import app, config, identity
from node.app import Node
from node.client import Client
from node.database import CACHE_KIB
from node.errors import Problem
from node.http import TURNS
from node.load import SHRUNK, Load
from node.paths import Home
from node.pressure import BULK_FACTS, HOLD_S, Step
from node.requests import FactDraft, SearchRequest
from node.usage import Usage

LOCAL = {"listen": "127.0.0.1:0", "api": "127.0.0.1:0", "memory_max_mb": 4_096, "mdns": False}


async def started(home: Home, **settings: Any) -> Node:
    app.found(home.path, "founder")
    node = Node(identity.load(home), config.load(home, {}, LOCAL | settings))
    await node.start()
    return node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    running = await started(Home(tmp_path / "home"))
    await running.load._watch.stop()  # here the tests say how much memory is used
    yield running
    await running.stop()


def press(load: Load, share: float, now: float) -> None:
    """Let the node see that this share of its memory is used."""
    seen = Usage(round(share * load.pressure.memory_max_bytes), 0.0, 1.0)
    for step, begins in load.pressure.judge(seen, now).items():
        load.act(step, begins)


async def call(node: Node, method: str, path: str, body: object = None) -> Any:
    return await asyncio.to_thread(Client(node.me.home.socket).call, method, path, body)


async def test_under_pressure_caches_shrink_and_grow_again(node: Node) -> None:
    lru, size = node.load.cache.lru, node.settings.cache_max_mb << 20
    steps: list[tuple[Step, bool]] = []
    node.load.on_step = lambda step, begins: steps.append((step, begins))
    press(node.load, 0.75, 0.0)
    assert node.load._shrinking
    await node.load._shrinking
    assert lru.max_bytes == size * SHRUNK
    assert await node.database.read(lambda c: c.execute("PRAGMA cache_size").fetchone()) == (-CACHE_KIB * SHRUNK,)
    press(node.load, 0.1, 2 * HOLD_S)
    await node.load._shrinking
    assert lru.max_bytes == size
    assert steps == [(Step.CACHES, True), (Step.CACHES, False)]
    for _ in range(5):
        assert await node.database.read(lambda c: c.execute("PRAGMA cache_size").fetchone()) == (-CACHE_KIB,)


async def test_under_pressure_bulk_waits_and_single_calls_go_on(node: Node) -> None:
    batch = {"facts": [{"content": f"fact {number}"} for number in range(BULK_FACTS + 1)]}
    press(node.load, 0.95, 0.0)
    for method, path, body in (("POST", "/v1/facts", batch), ("GET", "/v1/export", None)):
        with pytest.raises(Problem) as refused:
            await call(node, method, path, body)
        assert (refused.value.status, refused.value.code) == (503, "busy")
    stored = await call(node, "POST", "/v1/facts", {"content": "a single one"})
    assert (await call(node, "GET", f"/v1/facts/{stored['id']}"))["content"] == "a single one"
    assert (await call(node, "POST", "/v1/search", {"query": "single"}))["results"]
    assert node.load.background_waits()
    assert node.vectors.paused()
    assert node.network.auditor.paused()
    press(node.load, 0.1, 2 * HOLD_S)
    assert len((await call(node, "POST", "/v1/facts", batch))["facts"]) == BULK_FACTS + 1


async def test_steps_breakers_and_batches_are_told(node: Node) -> None:
    press(node.load, 0.85, 0.0)
    resources = (await node.status())["resources"]
    assert resources["rss_max_bytes"] == 4_096 << 20
    assert resources["degraded"] == ["caches", "background"]
    await node.refresh_metrics()
    text = node.metrics.text()
    for sample in (
        'cortex_degraded{step="background"} 1',
        'cortex_degraded{step="bulk"} 0',
        'cortex_commit_jobs_bucket{le="100"} ',
    ):
        assert sample in text


async def test_a_redis_that_is_set_is_used_and_its_breaker_told(tmp_path: Path) -> None:
    node = await started(Home(tmp_path / "home"), **{"cache.redis": f"unix://{tmp_path}/nobody.sock"})
    try:
        for number in range(10):
            await node.recall.search(SearchRequest(query=f"valve {number}"))
        await node.refresh_metrics()
        assert 'cortex_breaker_state{target="redis"} 2' in node.metrics.text()
        assert 'cortex_cache_misses_total{tier="l2"} 10' in node.metrics.text()
    finally:
        await node.stop()


async def test_a_vector_that_comes_later_changes_a_kept_answer(node: Node) -> None:
    await node.vectors.settled()
    stored, _ = await node.replica.store_facts([FactDraft(content="The physician examined her patient")])
    question = SearchRequest(query="doctor")
    await node.recall.search(question)
    async with asyncio.timeout(30):
        await node.vectors.settled()
    (hit,) = (await node.recall.search(question))["results"]
    assert hit["fact"]["id"] == stored[0]["id"]


# --- REST ---


class Hanging:
    """A read that hangs in SQLite until it is interrupted."""

    def __init__(self, node: Node) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self._database = node.database

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        return await self._database.read(self._job)

    def _job(self, connection: Any) -> Any:
        self.begun.set()
        try:
            return connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
            ).fetchone()
        finally:
            self.ended.set()


async def test_a_client_that_hangs_up_ends_the_search_that_it_asked_for(node: Node) -> None:
    hanging = Hanging(node)
    node.api.recall = hanging  # type: ignore[assignment]
    connector = aiohttp.UnixConnector(str(node.me.home.socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        asking = asyncio.ensure_future(session.post("http://node/v1/search", json={"query": "x"}))
        assert await asyncio.to_thread(hanging.begun.wait, 10)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert await asyncio.to_thread(hanging.ended.wait, 10)
    assert node.load.admission.turns.running == 0


async def test_a_call_beyond_its_deadline_is_answered_and_its_search_ends(node: Node) -> None:
    hanging = Hanging(node)
    node.api.recall = hanging  # type: ignore[assignment]
    node.load.admission.timeout_s = 0.05
    with pytest.raises(Problem) as late:
        await call(node, "POST", "/v1/search", {"query": "x"})
    assert (late.value.status, late.value.code) == (503, "deadline")
    assert await asyncio.to_thread(hanging.ended.wait, 10)


async def test_beyond_its_rate_a_client_is_told_to_come_again_and_health_is_not_counted(tmp_path: Path) -> None:
    node = await started(Home(tmp_path / "home"), rate_per_second=1)
    try:
        connector = aiohttp.UnixConnector(str(node.me.home.socket))
        async with aiohttp.ClientSession(connector=connector) as session:
            answers = [await session.get("http://node/v1/projects") for _ in range(4)]
            assert answers[0].status == 200
            assert answers[-1].status == 429
            assert answers[-1].headers["Retry-After"] == "1"
            assert (await answers[-1].json())["code"] == "rate_limited"
            assert (await session.get("http://node/healthz")).status == 200
    finally:
        await node.stop()


async def test_a_sender_that_dawdles_holds_no_turn(node: Node) -> None:
    reader, writer = await asyncio.open_unix_connection(str(node.me.home.socket))
    writer.write(b"POST /v1/facts HTTP/1.1\r\nHost: node\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await call(node, "GET", "/v1/projects")  # by now the other request has been seen
    assert node.load.admission.turns.running == 0
    writer.write(b" " * 99)
    assert b" 400 " in await reader.readline()
    writer.close()


async def test_every_call_that_takes_a_turn_is_a_route(node: Node) -> None:
    assert {route.name for route in node.api.served()} >= TURNS
