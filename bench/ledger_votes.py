"""What does a vote cost a user, through a running hub, beside a bare SQLite insert and a stored fact in the same run?

    python bench/ledger_votes.py [--votes 400] [--callers 8]

A solo hub in a process of its own, asked over its unix socket. Each vote is on disk as an op, in the ledger, read back,
signed for, and proved before it is answered. "callers": that many at once, each waiting for its own answer.
"pending": votes that were cast while nobody committed, from the hub's start until the last has its place.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_nodes import LocalNode, found, wait_until
from bench.offered import Offered, ask_in_turn, request

VOTE = json.dumps({"value": 1}).encode()


def facts(node: LocalNode, count: int) -> list[str]:
    made: list[str] = []
    while len(made) < count:
        batch = [f"claim {len(made) + number} of {count}" for number in range(min(500, count - len(made)))]
        made += [fact["id"] for fact in node.store(*batch)]
    return made


def bare(folder: Path, count: int) -> list[float]:
    """One durable INSERT after the other."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (v BLOB)")
    took = []
    for _ in range(count):
        start = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?)", (os.urandom(300),))
        took.append(time.perf_counter() - start)
    connection.close()
    return took


def row(name: str, took: list[float], a_second: float, insert_s: float, target: str = "") -> None:
    middle, far = statistics.median(took), sorted(took)[int(len(took) * 0.99)]
    print(
        f"| {name} | {middle * 1e3:.2f} | {far * 1e3:.2f} | {a_second:,.0f} | {middle / insert_s:.1f} | {target} |",
        flush=True,
    )


def asked(name: str, book: Offered, calls: int, insert_s: float, target: str = "") -> None:
    assert set(book.statuses) <= {200, 201}, f"{name}: {book.statuses}"  # 202 would be a vote that stayed pending
    row(name, list(book.seconds), calls / book.elapsed_s, insert_s, target)


def measure(place: Path, votes: int, callers: int) -> None:
    with found(place / "hub", "hub", mdns="false") as node:
        node.start()
        inserts = bare(place, votes)
        insert_s = statistics.median(inserts)
        print(
            "| operation | p50 ms | p99 ms | a second | inserts | target |\n| --- | ---: | ---: | ---: | ---: | --- |"
        )
        row("bare SQLite: one INSERT, durable", inserts, len(inserts) / sum(inserts), insert_s)

        def store(number: int) -> bytes:
            return request("POST", "/v1/facts", json.dumps({"content": f"stored {number}"}).encode())

        asked("store a fact", asyncio.run(ask_in_turn(node.home.socket, store, votes, 1)), votes, insert_s)
        ids = facts(node, votes * 3)

        def vote(first: int) -> "list[bytes]":
            return [request("POST", f"/v1/facts/{fact}/vote", VOTE) for fact in ids[first : first + votes]]

        one, many = vote(0), vote(votes)
        book = asyncio.run(ask_in_turn(node.home.socket, one.__getitem__, votes, 1))
        asked("vote, one after the other", book, votes, insert_s, "5 ms")
        book = asyncio.run(ask_in_turn(node.home.socket, many.__getitem__, votes, callers))
        asked(f"vote, {callers} callers", book, votes, insert_s, "200 a second")
        node.stop()

        node.environment["CORTEX_QUORUM_ENGINE"] = "none"
        node.start()
        for ask in vote(2 * votes):
            asyncio.run(ask_in_turn(node.home.socket, lambda number, ask=ask: ask, 1, 1))  # type: ignore[misc]
        node.stop()
        node.environment["CORTEX_QUORUM_ENGINE"] = "solo"
        start = time.perf_counter()
        node.start()
        wait_until("nothing is pending", lambda: node.status()["votes_pending"] == 0, 120)
        took = time.perf_counter() - start
        print(f"| {votes} pending votes, with the start of the node | {took * 1e3:,.0f} | | {votes / took:,.0f} | | |")
        report = node.tell("ledger", "verify")
        assert report["ok"] and report["votes"] == 3 * votes, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=400)
    parser.add_argument("--callers", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cortex-bench-") as place:
        measure(Path(place), options.votes, options.callers)
    print(f"\n`python bench/ledger_votes.py --votes {options.votes} --callers {options.callers}`")


if __name__ == "__main__":
    main()
