"""More is offered than a node can do: it stays up, tells the surplus to come again, loses nothing it acknowledged."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.local_nodes import LocalNode, found, wait_until
from bench.offered import Offered, offer, request

PER_SECOND = 10_000
SECONDS = 2.0
CONNECTIONS = 500
MEMORY_MAX_BYTES = 256 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LocalNode]:
    with found(tmp_path / "node", "node", mdns="false") as node:
        yield node.start()


def mixed(number: int) -> bytes:
    """Half of the requests store a fact, one of ten searches, the others read."""
    if number % 2:
        return request("POST", "/v1/facts", json.dumps({"content": f"offered {number}", "project": "load"}).encode())
    if number % 10 == 0:
        return request("POST", "/v1/search", json.dumps({"query": f"{number % 50}", "project": "load"}).encode())
    return request("GET", "/v1/projects/nowhere/facts")


async def under_load(node: LocalNode) -> tuple[Offered, list[float]]:
    """What became of the load, and how long health, status and single calls took meanwhile."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    load = asyncio.create_task(offer(node.home.socket, mixed, PER_SECOND, SECONDS, CONNECTIONS))
    while not load.done():
        began = loop.time()
        health = asyncio.to_thread(node.text, "/healthz")
        await asyncio.wait({load, asyncio.ensure_future(health)}, return_when=asyncio.FIRST_COMPLETED)
        took.append(loop.time() - began)
        await asyncio.sleep(0.1)
    return await load, took


def test_ten_thousand_requests_a_second_lose_nothing_that_was_acknowledged(node: LocalNode) -> None:
    offered, took = asyncio.run(under_load(node))
    assert offered.sent + offered.unsent >= 0.9 * PER_SECOND * SECONDS, "it was not offered"
    assert offered.broken == 0, offered.statuses
    assert set(offered.statuses) <= {200, 201, 429, 503}, offered.statuses
    assert offered.statuses.total() == offered.sent, "some were never answered"
    assert offered.statuses[429] + offered.statuses[503] > 0, "there was no surplus"
    assert offered.without_retry_after == 0
    assert max(took) < 10, "health had to wait"

    stored = {fact["content"] for fact in node.facts().values()}
    assert {f"offered {number}" for number in offered.answered[201]} == stored
    assert node.status()["resources"]["rss_bytes"] < MEMORY_MAX_BYTES
    node.kill()
    node.start()
    assert {fact["content"] for fact in node.facts().values()} == stored


def test_a_modest_client_is_served_while_another_floods(node: LocalNode) -> None:
    """Over TCP, where clients are told apart: the flood comes over the socket."""

    async def run() -> tuple[Offered, list[int]]:
        flood = asyncio.create_task(offer(node.home.socket, mixed, PER_SECOND, SECONDS, CONNECTIONS))
        statuses: list[int] = []
        token = node.home.token.read_text().strip()
        ask = request("GET", "/v1/projects", headers=f"Authorization: Bearer {token}\r\n").replace(
            b"Host: node", b"Host: 127.0.0.1"
        )
        while not flood.done():
            reader, writer = await asyncio.open_connection("127.0.0.1", node.api_port)
            writer.write(ask)
            statuses.append(int((await reader.readline()).split()[1]))
            writer.close()
        return await flood, statuses

    flood, statuses = asyncio.run(run())
    assert flood.statuses[429] > 0
    assert len(statuses) > 5
    assert set(statuses) == {200}


def test_connections_that_say_nothing_cost_little_and_keep_nobody_out(node: LocalNode) -> None:
    before = node.status()["resources"]["rss_bytes"]
    silent = [socket.create_connection(("127.0.0.1", node.api_port)) for _ in range(1_000)]
    try:
        wait_until("the node answers", lambda: node.text("/healthz") == "ok\n")
        node.store("while a thousand say nothing")
        assert node.status()["resources"]["rss_bytes"] - before < 40 << 20
    finally:
        for one in silent:
            one.close()
