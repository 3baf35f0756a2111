"""What do the ledger's operations cost, beside a bare SQLite insert in the same run?

    python bench/ledger_costs.py [--entries 10000] [--proofs-at 1000000]

How long a durable commit takes is the disk's affair, so what has one in it is told in times of the bare insert, too.

Appends go through `ledger.log.append` into the tables of a node, `synchronous=FULL`: the commit, what is read back and
checked before it is signed, and the checkpoint, which is a second commit. One core, one thread.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ledger import log, receipt, score, statement, tlog, verify, vote
from ledger.ed25519 import public_key, secret_key
from ledger.entry import Kind, decode, project_tag
from ledger.log import Batch, Draft
from ledger.statement import Constants, Enrolment, Genesis, Grant
from ledger.tlog import Frontier
from ledger.vote import Vote
from node.database import connect
from node.migrations import migrate
from node.voting.table import Table

AUTHORITY, HUB, AGENT = (secret_key(sha256(name).digest()) for name in (b"authority", b"hub", b"agent"))
MESH, NOW_MS = sha256(b"mesh").digest(), 1_760_000_000_000
TAG = project_tag(bytes(32), "bench")


class Durable(Table):
    """The node's own tables of the ledger, each write in a transaction of its own, as jobs are."""

    def commit(self, batch: Batch) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        super().commit(batch)
        self.connection.execute("COMMIT")

    def add_checkpoint(self, size: int, note: bytes, at_ms: int = 0) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        super().add_checkpoint(size, note, at_ms)
        self.connection.execute("COMMIT")


def found(table: Table) -> None:
    authority, agent, hub = (public_key(secret) for secret in (AUTHORITY, AGENT, HUB))
    genesis = statement.seal(Genesis(MESH, authority, Constants(), NOW_MS), authority, [AUTHORITY])
    owner = Enrolment(MESH, agent, "agent", hub, True, b"", NOW_MS)

    def grant(ledger: bytes, size: int, root: bytes) -> bytes:
        return statement.seal(Grant(ledger, 1, "solo", (hub,), size, root), authority, [AUTHORITY])

    enrolled = statement.seal(owner, authority, [AUTHORITY, AGENT, HUB])
    log.found(table, genesis, [enrolled], grant, HUB, NOW_MS)


def draft(number: int) -> Draft:
    version = sha256(number.to_bytes(8, "big")).digest()
    said = Vote(
        MESH, "bench", f"k7q2m4zx5tvb3nya-{number}", version, public_key(AGENT), 1, 1, sha256().digest(), NOW_MS
    )
    return Draft(Kind.VOTE, vote.sign(said, AGENT), TAG)


def timed(work: Callable[[int], object], count: int) -> list[float]:
    took = []
    for number in range(count):
        start = time.perf_counter()
        work(number)
        took.append((time.perf_counter() - start) * 1e3)
    return sorted(took)


def row(name: str, took: list[float], target: str = "", insert_ms: float | None = None) -> float:
    """Prints a line of the table; the median. `insert_ms`: of the bare insert, where the two can be compared."""
    median = statistics.median(took)
    times = f"{median / insert_ms:.1f}" if insert_ms else ""
    print(f"| {name} | {median:.3f} | {took[int(len(took) * 0.99)]:.3f} | {times} | {target} |", flush=True)
    return median


def proofs(table: Table, size: int) -> None:
    """A tree of its own: entries of a log this long would take minutes to sign, and cost proofs nothing."""
    frontier = Frontier()
    table.connection.execute("DELETE FROM ledger_hashes")
    table.connection.execute("BEGIN")
    while frontier.size < size:
        leaves = [sha256(number.to_bytes(8, "big")).digest() for number in range(frontier.size, frontier.size + 10_000)]
        frontier, stored = tlog.extend(frontier, leaves[: size - frontier.size])
        rows = [(*node, value) for node, value in stored]
        table.connection.executemany("INSERT INTO ledger_hashes VALUES (?, ?, ?)", rows)
    table.connection.execute("COMMIT")
    chance, root = random.Random(1), tlog.frontier_root(frontier)
    row(
        f"inclusion proof at {size:,} entries",
        timed(lambda _: tlog.prove_inclusion(chance.randrange(size), size, table), 500),
        "1 ms",
    )
    row(
        f"consistency proof at {size:,} entries",
        timed(lambda _: tlog.prove_consistency(chance.randrange(1, size), size, table), 500),
        "1 ms",
    )
    proof = tlog.prove_inclusion(7, size, table)
    leaf = sha256((7).to_bytes(8, "big")).digest()
    row("check an inclusion proof", timed(lambda _: tlog.check_inclusion(proof, 7, size, leaf, root), 500))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--proofs-at", type=int, default=1_000_000)
    options = parser.parse_args()
    count = options.entries
    with tempfile.TemporaryDirectory() as folder:
        table = Durable(connect(Path(folder) / "ledger.db"))
        migrate(table.connection, NOW_MS)
        table.connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, raw BLOB)")
        found(table)
        drafts = [draft(number) for number in range(count)]
        singles = min(200, count // 2)
        print("| operation | p50 ms | p99 ms | inserts | target |\n| --- | ---: | ---: | ---: | --- |")
        insert = "INSERT INTO bare VALUES (?, ?)"
        bare = timed(lambda at: table.connection.execute(insert, (at, drafts[at].text)), 200)
        insert_ms = row("bare SQLite: one INSERT, durable", bare)
        took = timed(lambda at: log.append(table, [drafts[at]], HUB, NOW_MS), singles)
        row("append one vote", took, "5 ms over REST", insert_ms)
        rest = [drafts[at : at + 100] for at in range(singles, count, 100)]
        took = timed(lambda at: log.append(table, rest[at], HUB, NOW_MS), len(rest))
        row("append 100 votes", took, "100 ms", insert_ms)
        size = table.head().size
        row("receipt of a vote", timed(lambda at: receipt.parse_receipt(log.receipt(table, at)), 200))
        quick = timed(lambda _: verify.verify(table, texts=False), 5)
        row(f"verify {size:,} entries: chain, tree, kept checkpoints", quick, "100 ms")
        row("the same with every signature", timed(lambda _: verify.verify(table), 3), "1 s")
        lines = [
            (decode(raw), text)
            for raw, text in zip(table.read_entries(0, size), table.read_texts(0, size), strict=True)
        ]
        fold = timed(lambda _: score.fold(lambda: lines, public_key(AUTHORITY), checked=True), 3)
        row("scores from nothing", fold)
        report = verify.verify(table)
        assert report.ok and report.checked == size, report.findings
        proofs(table, options.proofs_at)
        table.connection.close()
    print(f"\n`python bench/ledger_costs.py --entries {count} --proofs-at {options.proofs_at}`")


if __name__ == "__main__":
    main()
