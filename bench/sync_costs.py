"""What does it cost two nodes to agree: bytes on the wire, time, memory?

    python bench/sync_costs.py [--facts 10000] [--peers]

Two nodes, each a process with its database on disk, over TLS with both certificates, through a relay that counts every
byte in both directions: handshakes, framing and acknowledgements included, TCP and IP not. Every op is signed by its
author and verified by the receiver. A fact has 200 random hexadecimal digits and two tags, about 300 bytes in all.
`--facts 100000` takes some minutes. `--peers` runs the same work with others' software (bench/peers/), where npm can
install it; what none of them does is said in the table.
"""

import argparse
import json
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_nodes import Line, LocalNode, agree, enrol, found, wait_until
from node import leaves
from node.migrations import migrate

BATCH = 500
DIFFER = 100
QUIET_ROUNDS = 5
PATIENCE_S = 900.0
HERE = Path(__file__).parent
PEERS: Mapping[str, tuple[str, ...]] = {
    "hypercore": ("hypercore@11.37.1", "hypercore-storage@3.3.1"),
    "pouchdb": ("pouchdb@9.0.0", "express-pouchdb@4.2.0", "express@4"),
    "automerge": ("@automerge/automerge@3.5.0",),
}
REMARKS = {
    "hypercore": "a log per author, signed as a whole; Noise instead of TLS; no membership",
    "pouchdb": "HTTP without TLS; nothing is signed",
    "automerge": "in memory, one document, one change per record; TCP without TLS; nothing is signed",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """`seconds` and `wire_bytes` of one sync."""

    seconds: float
    wire_bytes: int


def draft() -> dict[str, Any]:
    return {"content": secrets.token_hex(100), "tags": ["bench", "sync"], "project": "bench"}


def store(node: LocalNode, count: int) -> None:
    for start in range(0, count, BATCH):
        node.store(*(draft() for _ in range(min(BATCH, count - start))))


def until_equal(line: Line, *nodes: LocalNode) -> Cost:
    """From the first byte on the line until both hold the same; the line may carry a little more after that."""
    before = line.bytes
    wait_until("the peer dials", lambda: line.bytes > before, PATIENCE_S)
    began = time.perf_counter()
    wait_until("both agree", lambda: agree(*nodes), PATIENCE_S)
    return Cost(time.perf_counter() - began, line.bytes - before)


def peak_mb(node: LocalNode) -> float:
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextmanager
def pair() -> Iterator[tuple[LocalNode, LocalNode, Line]]:
    """A node, and another of its mesh that reaches it through a line, and is not running."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        line = stack.enter_context(Line())
        settings = {"mdns": "false", "store_max_mb": 4096}
        one = stack.enter_context(found(Path(folder) / "one", "one", advertise=line.address, **settings))
        line.target = one.port
        one.start()
        two = stack.enter_context(enrol(Path(folder) / "two", "two", one, peers=line.address, **settings))
        yield one, two, line


def cortex(facts: int) -> tuple[Cost, Cost, int, tuple[float, float]]:
    """First sync, DIFFER of `facts` differ, bytes of a quiet round, and the peak memory of both."""
    with pair() as (one, two, line):
        store(one, facts)
        two.start()
        first = until_equal(line, one, two)
        two.client.call("POST", "/v1/sync", {})
        quiet = []
        for _ in range(QUIET_ROUNDS):
            before = line.bytes
            two.client.call("POST", "/v1/sync", {})
            quiet.append(line.bytes - before)
        line.cut()
        wait_until("both notice", lambda: not one.connected() and not two.connected(), 30)
        store(one, DIFFER // 2)
        store(two, DIFFER // 2)
        line.mend()
        return first, until_equal(line, one, two), max(quiet), (peak_mb(one), peak_mb(two))


def upkeep(writes: int) -> tuple[float, float]:
    """Median microseconds that one write spends on the Merkle leaves, and the bytes of disk that they take."""
    took = []
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "upkeep.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, 0)
        connection.execute("INSERT INTO projects (id, name, bits, sum, ops) VALUES (1, 'bench', 8, 0, 0)")
        for _ in range(writes):
            connection.execute("BEGIN IMMEDIATE")
            began = time.perf_counter()
            leaves.add(connection, 1, [secrets.token_bytes(32)])
            took.append(time.perf_counter() - began)
            connection.execute("COMMIT")
        (pages,) = connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%leaves%'").fetchone()
        connection.close()
    return statistics.median(took) * 1e6, pages / writes


def peer(name: str, facts: int) -> dict[str, Any] | str:
    """What bench/peers/NAME.js printed, or why it could not."""
    if shutil.which("node") is None:
        return "node is not installed"
    place = subprocess.run([HERE.parent / ".ci/npm", *PEERS[name]], capture_output=True, text=True, check=False)
    if not place.stdout.strip():
        return place.stderr.strip() or "npm could not install it"
    with tempfile.TemporaryDirectory() as folder:
        modules = f"{place.stdout.strip()}/node_modules"
        script = shutil.copy(HERE / "peers" / f"{name}.mjs", folder)
        (Path(folder) / "node_modules").symlink_to(modules)
        shutil.copy(HERE / "peers" / "line.mjs", folder)
        command = ["node", script, str(facts), str(DIFFER), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    if done.returncode:
        return (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def row(name: str, first: Cost, differ: Cost, quiet: float, memory: str, remark: str) -> str:
    return (
        f"| {name} | {first.seconds:.2f} s, {first.wire_bytes / 1e6:.2f} MB | "
        f"{differ.seconds:.2f} s, {differ.wire_bytes / 1e3:.1f} KB | {quiet:.0f} | {memory} | {remark} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=10_000)
    parser.add_argument("--peers", action="store_true")
    arguments = parser.parse_args()
    facts = arguments.facts
    print(f"`python bench/sync_costs.py --facts {facts}{' --peers' if arguments.peers else ''}`\n")
    print(f"| | first sync of {facts:,} | {DIFFER} of {facts:,} differ | bytes of a quiet round | RSS, MB | |")
    print("| --- | --- | --- | --- | --- | --- |")
    first, differ, quiet, (one, two) = cortex(facts)
    remark = "every op signed and verified; TLS 1.3, its handshake included"
    print(row("cortex-node", first, differ, quiet, f"{one:.0f} and {two:.0f}", remark), flush=True)
    for name in PEERS if arguments.peers else ():
        told = peer(name, facts)
        if isinstance(told, str):
            print(f"| {name} | not run: {told} | | | | |", flush=True)
        else:
            costs = [Cost(**told[what]) for what in ("first", "differ")]
            print(row(name, *costs, told["quiet"], f"{told['rss_mb']}", REMARKS[name]), flush=True)

    micros, size = upkeep(min(facts, 20_000))
    print(f"\nThe Merkle leaves cost each single write {micros:.0f} us and {size:.0f} bytes.")


if __name__ == "__main__":
    main()
