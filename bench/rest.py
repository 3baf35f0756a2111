"""How fast does a node answer over REST, and how much of the processor does a call take?

    python bench/rest.py [--facts 2000] [--calls 4000]

A node in a process of its own, asked over its unix socket by a client that costs almost nothing (bench/offered.py).
"warm": the answer is kept, as when an agent asks again before anything was written. "cold": each search is another.
CPU per call is that of the node, user and system.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_nodes import LocalNode, found
from bench.offered import Offered, ask_in_turn, request

TICKS = os.sysconf("SC_CLK_TCK")
THINGS = ("valve", "pump", "gate", "hose", "boiler", "sensor", "motor", "belt")
STATES = ("leaks", "is new", "was oiled", "runs hot", "is loud", "stopped")


def text(number: int) -> str:
    return f"The {THINGS[number % 8]} {number % 97} of hall {number % 13} {STATES[number % 6]}"


def cpu_s(node: LocalNode) -> float:
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def row(name: str, node: LocalNode, make: Callable[[int], bytes], calls: int, connections: int) -> str:
    before = cpu_s(node)
    book: Offered = asyncio.run(ask_in_turn(node.home.socket, make, calls, connections))
    cpu = cpu_s(node) - before
    assert set(book.statuses) <= {200, 201}, book.statuses
    took = sorted(book.seconds)
    return (
        f"| {name} | {connections} | {calls / book.elapsed_s:,.0f} | {statistics.median(took) * 1e3:.2f} |"
        f" {took[int(len(took) * 0.99)] * 1e3:.2f} | {cpu / calls * 1e3:.2f} |"
    )


def measure(node: LocalNode, facts: int, calls: int) -> None:
    for start in range(0, facts, 500):
        node.store(*({"content": text(number), "source": "bench"} for number in range(start, min(start + 500, facts))))
    fact_id = next(iter(node.facts()))
    long = node.store({"content": "A long one", "body": "All about valves. " * 500})[0]["id"]

    def search(query: str) -> bytes:
        return request("POST", "/v1/search", json.dumps({"query": query}).encode())

    def post(number: int) -> bytes:
        return request("POST", "/v1/facts", json.dumps({"content": text(number), "source": "bench"}).encode())

    asked = iter(range(calls))
    kinds: list[tuple[str, Callable[[int], bytes], int]] = [
        ("healthz", lambda n: request("GET", "/healthz"), calls),
        ("get a fact, warm", lambda n: request("GET", f"/v1/facts/{fact_id}"), calls),
        ("get a fact of 9 kB, warm", lambda n: request("GET", f"/v1/facts/{long}"), calls),
        ("search, warm", lambda n: search("which valve leaks?"), calls),
        ("search, cold", lambda n: search(f"{text(n)} {next(asked)}"), calls // 4),
        ("store a fact", post, calls // 2),
    ]
    print(
        "| call | connections | calls/s | p50 ms | p99 ms | CPU ms/call |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for name, make, count in kinds:
        for connections in (1, 16):
            print(row(name, node, make, count, connections), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=4000)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        found(Path(folder) / "node", "bench", mdns="false", rate_per_second=0) as node,
    ):
        measure(node.start(), given.facts, given.calls)
    print(f"\n`python bench/rest.py --facts {given.facts} --calls {given.calls}`")


if __name__ == "__main__":
    main()
