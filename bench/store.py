"""What does it cost to store and to recall a fact, in the node and over REST, beside a bare SQLite commit?

    python bench/store.py [--facts 2000]

Every store is durable (`synchronous=FULL`) before it is answered. The first row is the floor: one durable INSERT.
The second shows what an asyncio wrapper with one hop per statement costs for the seven statements of a store.
"""

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from node import app, config, identity
from node.app import Node
from node.paths import Home
from node.requests import FactDraft

Row = tuple[str, float, float]


def percentiles(name: str, seconds: list[float]) -> Row:
    ordered = sorted(seconds)
    return name, statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3


async def timed(name: str, count: int, work: Callable[[int], Awaitable[object]]) -> Row:
    took = []
    for number in range(count):
        start = time.perf_counter()
        await work(number)
        took.append(time.perf_counter() - start)
    return percentiles(name, took)


def bare(folder: Path, count: int) -> Row:
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)")
    took = []
    for number in range(count):
        start = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?, ?)", (number, b"x" * 400))
        took.append(time.perf_counter() - start)
    connection.close()
    return percentiles("bare SQLite: one INSERT, durable", took)


async def hops(folder: Path, count: int) -> Row:
    """Seven statements and a commit, each a hop to another thread and back, as aiosqlite does it."""
    connection = sqlite3.connect(folder / "hops.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)")

    async def store(number: int) -> None:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        for step in range(7):
            await asyncio.to_thread(connection.execute, "INSERT INTO t VALUES (?, ?)", (number * 7 + step, b"x" * 60))
        await asyncio.to_thread(connection.execute, "COMMIT")

    row = await timed("seven INSERTs, one thread hop each", count, store)
    connection.close()
    return row


async def measure(folder: Path, count: int) -> list[Row]:
    rows = [bare(folder, count), await hops(folder, min(count, 500))]
    home = Home(folder / "home")
    app.found(home.path, "bench")
    settings = config.load(home, {}, {"listen": "127.0.0.1:0", "api": "127.0.0.1:0", "memory_max_mb": 1_024})
    node = Node(identity.load(home), settings)
    await node.start()
    try:
        ids: list[str] = []

        async def store(number: int) -> None:
            stored, _ = await node.replica.store_facts([draft(number)])
            ids.append(stored[0]["id"])

        rows.append(await timed("store one fact, in the node", count, store))
        rows.append(await timed("store a batch of 100, in the node", 20, lambda n: batch(node, n)))
        rows.append(await timed("recall one fact, in the node", count, lambda n: node.replica.get(ids[n % len(ids)])))
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(home.socket))) as session:

            async def post(number: int) -> None:
                fact = {"content": f"The valve {number} of hall {number % 9} opens at 4 bar", "source": "bench"}
                async with session.post("http://node/v1/facts", json=fact) as response:
                    assert response.status == 201, await response.text()

            async def get(number: int) -> None:
                async with session.get(f"http://node/v1/facts/{ids[number % len(ids)]}") as response:
                    assert response.status == 200, await response.text()
                    await response.read()

            rows.append(await timed("store one fact, REST on the socket", count, post))
            rows.append(await timed("recall one fact, REST on the socket", count, get))
    finally:
        await node.stop()
    return rows


def draft(number: int) -> FactDraft:
    return FactDraft(content=f"The pump {number} of hall {number % 7} was oiled by Ada", source="bench", tags=["pump"])


async def batch(node: Node, number: int) -> None:
    await node.replica.store_facts([draft(number * 100 + step) for step in range(100)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=2000)
    count = parser.parse_args().facts
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder), count))
    floor = rows[0][1]
    print("| operation | p50 ms | p99 ms | p50 / bare |\n| --- | ---: | ---: | ---: |")
    for name, middle, high in rows:
        print(f"| {name} | {middle:.3f} | {high:.3f} | {middle / floor:.2f} |")
    print(f"\n`python bench/store.py --facts {count}`")


if __name__ == "__main__":
    main()
