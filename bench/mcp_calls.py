"""How fast are tool calls, and what do node and pipe need? Per transport, beside other memory servers.

    python bench/mcp_calls.py [--calls 300] [--facts 1000] [--peers]

One client (the SDK's, protocol 2025-11-25) in one process, one call after the other; a node of its own, on loopback.
`--peers` also drives @modelcontextprotocol/server-memory (npm) and mcp-memory-service (PyPI), with the same client and
texts: each is installed into a cache, and left out with a word when it can't be.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx2
import psutil
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.local_nodes import LocalNode, clean_environment, found

ROOT = Path(__file__).parents[1]
HEAD = ("server", "call", "n", "p50 ms", "p99 ms", "calls/s", "server CPU ms/call", "server MB", "pipe MB")


def texts(many: int) -> list[str]:
    lines = [json.loads(line) for line in (ROOT / "bench" / "corpus.jsonl").read_text().splitlines()]
    said = [line["content"] for line in lines]
    return [f"{said[number % len(said)]} ({number})" for number in range(many)]


def words_of(text: str) -> str:
    """Something to search for."""
    return " ".join(text.split()[:4])


def cpu_s(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def megabytes(pids: list[int]) -> str:
    return f"{sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6:.0f}" if pids else ""


async def measure(
    name: str, call: str, once: Callable[[int], Awaitable[Any]], many: int, server: list[int], pipe: list[int]
) -> tuple[str, ...]:
    """One row: `many` calls, one after the other."""
    took = []
    cpu, begun = cpu_s(server), time.perf_counter()
    for number in range(many):
        start = time.perf_counter()
        await once(number)
        took.append((time.perf_counter() - start) * 1000)
    whole, used = time.perf_counter() - begun, cpu_s(server) - cpu
    return (
        name, call, str(many), f"{statistics.median(took):.2f}", f"{sorted(took)[int(many * 0.99) - 1]:.2f}",
        f"{many / whole:.0f}", f"{used * 1000 / many:.2f}", megabytes(server), megabytes(pipe),
    )  # fmt: skip


@asynccontextmanager
async def attached(node: LocalNode, transport: str) -> Any:
    """A client of the node."""
    base = f"http://127.0.0.1:{node.api_port}"
    headers = {"Authorization": f"Bearer {node.home.token.read_text().strip()}"}
    async with AsyncExitStack() as ends:
        made: Any
        if transport == "stdio":
            command, *words = [*node.program, "--home", str(node.home.path), "mcp"]
            made = stdio_client(StdioServerParameters(command=command, args=words, env=node.environment))
        elif transport == "Streamable HTTP":
            http = await ends.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
            made = streamable_http_client(base + "/mcp", http_client=http)
        else:
            made = sse_client(base + "/sse", headers=headers)
        yield await ends.enter_async_context(Client(made, mode="legacy"))


async def our_rows(calls: int, facts: int) -> list[tuple[str, ...]]:
    rows = []
    with tempfile.TemporaryDirectory() as place, found(Path(place) / "n", "bench") as node:
        node.start()
        said = texts(facts)
        for start in range(0, facts, 500):
            node.store(*said[start : start + 500])
        print(f"RSS of the node before the first MCP client: {megabytes([node.pid])} MB")
        for transport in ("stdio", "Streamable HTTP", "SSE"):
            async with attached(node, transport) as client:
                listed = await client.list_tools()
                if transport == "stdio":
                    size = len(listed.model_dump_json(by_alias=True, exclude_none=True))
                    print(f"tools/list: {len(listed.tools)} tools, {size:,} bytes\n")
                children = [p.pid for p in psutil.Process().children() if p.pid != node.pid]
                name = f"cortex-node, {transport}"

                async def store(number: int) -> None:
                    await client.call_tool("cortex_store", {"content": f"{said[number % facts]} again {number}"})

                async def search(number: int) -> None:
                    await client.call_tool("cortex_search", {"query": words_of(said[number % facts])})

                rows.append(await measure(name, "store", store, calls, [node.pid], children))
                rows.append(await measure(name, "search", search, calls, [node.pid], children))
        rows += await rest_rows(node, calls, said)
    return rows


async def rest_rows(node: LocalNode, calls: int, said: list[str]) -> list[tuple[str, ...]]:
    """The same over REST, for what MCP itself costs."""
    headers = {"Authorization": f"Bearer {node.home.token.read_text().strip()}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.api_port}", headers=headers) as http:

        async def store(number: int) -> None:
            (
                await http.post("/v1/facts", json={"content": f"{said[number % len(said)]} rest {number}"})
            ).raise_for_status()

        async def search(number: int) -> None:
            query = words_of(said[number % len(said)])
            (await http.post("/v1/search", json={"query": query})).raise_for_status()

        return [
            await measure("cortex-node, REST", "store", store, calls, [node.pid], []),
            await measure("cortex-node, REST", "search", search, calls, [node.pid], []),
        ]


@dataclass(frozen=True)
class Peer:
    """Another server, a process for each client. `store` takes a text and a name for it, `search` a query."""

    name: str
    command: list[str]
    environment: dict[str, str]
    store: Callable[[str, str], tuple[str, dict[str, Any]]]
    search: Callable[[str], tuple[str, dict[str, Any]]]


def peers(place: Path) -> Iterator[Peer]:
    """Those that can be had, with their data in `place`."""
    package = "@modelcontextprotocol/server-memory"
    done = subprocess.run([ROOT / ".ci" / "npm", package], capture_output=True, text=True, check=False)
    if done.stdout:
        yield Peer(
            "server-memory, stdio",
            ["node", f"{done.stdout.strip()}/node_modules/{package}/dist/index.js"],
            clean_environment(MEMORY_FILE_PATH=str(place / "memory.jsonl")),
            lambda text, name: (
                "create_entities",
                {"entities": [{"name": name, "entityType": "memory", "observations": [text]}]},
            ),
            lambda query: ("search_nodes", {"query": query}),
        )
    else:
        print(f"left out: server-memory ({done.stderr.strip()})")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "cortex-node-tests"
    program = cache / "memory-service" / "bin" / "memory"
    if not program.exists():
        base = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable  # one that loads extensions
        subprocess.run([base, "-m", "venv", program.parents[1]], check=False)
        install = [program.with_name("pip"), "install", "-q", "mcp-memory-service"]
        subprocess.run(install, stderr=subprocess.DEVNULL, check=False)
    if program.exists():
        yield Peer(
            "mcp-memory-service, stdio",
            [str(program), "server"],
            clean_environment(
                HOME=str(place),
                MCP_MEMORY_STORAGE_BACKEND="sqlite_vec",
                MCP_MEMORY_SQLITE_PATH=str(place / "memory.db"),
            ),
            lambda text, name: ("memory_store", {"content": text, "conversation_id": name}),
            lambda query: ("memory_search", {"query": query, "limit": 10}),
        )
    else:
        print("left out: mcp-memory-service (it could not be installed)")


async def peer_rows(peer: Peer, calls: int, facts: int, log: TextIO) -> list[tuple[str, ...]]:
    said = texts(facts)
    program, *words = peer.command
    made = stdio_client(StdioServerParameters(command=program, args=words, env=peer.environment), errlog=log)
    async with Client(made, mode="legacy", read_timeout_seconds=120) as client:
        await client.list_tools()
        pids = [process.pid for process in psutil.Process().children(recursive=True)]
        for number in range(facts):
            answer = await client.call_tool(*peer.store(said[number], f"f{number}"))
            if answer.is_error:
                raise RuntimeError(f"{peer.name}: {answer.content}")

        async def store(number: int) -> None:
            await client.call_tool(*peer.store(f"{said[number % facts]} again", f"g{number}"))

        async def search(number: int) -> None:
            await client.call_tool(*peer.search(words_of(said[number % facts])))

        return [
            await measure(peer.name, "store", store, calls, pids, []),
            await measure(peer.name, "search", search, calls, pids, []),
        ]


def main(calls: int, facts: int, beside: bool) -> None:
    rows = asyncio.run(our_rows(calls, facts))
    if beside:
        with tempfile.TemporaryDirectory() as place:
            for peer in peers(Path(place)):
                try:
                    with (Path(place) / "log").open("w") as log:
                        rows += asyncio.run(peer_rows(peer, calls, facts, log))
                except Exception as failure:  # somebody else's server: the table goes on without it
                    print(f"left out: {peer.name} ({failure!r})")
    print(f"| {' | '.join(HEAD)} |")
    print("| --- | --- |" + " ---: |" * (len(HEAD) - 2))
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(
        f"\n{facts:,} facts to begin with. CPU is the server's alone; our stores are on disk (fsync) when they return."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--facts", type=int, default=1000)
    parser.add_argument("--peers", action="store_true")
    given = parser.parse_args()
    main(given.calls, given.facts, given.peers)
