"""What do the ledger's operations cost, beside a bare SQLite insert in the same run?

    python bench/ledger_costs.py [--entries 10000] [--proofs-at 1000000]

How long a durable commit takes is the disk's affair, so what has one in it is told in times of the bare insert, too.

Appends go through `ledger.log.append` into SQLite with `synchronous=FULL`: the commit, what is read back and checked
before it is signed, and the checkpoint, which is a second commit. One core, one thread.
"""

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from ledger import log, receipt, score, statement, tlog, verify, vote
from ledger.checkpoint import superfluous
from ledger.ed25519 import public_key, secret_key
from ledger.entry import Kind, decode, project_tag
from ledger.log import EMPTY, Batch, Draft, Head
from ledger.statement import Constants, Enrolment, Genesis, Grant
from ledger.tlog import Frontier, Node, Stored
from ledger.verify import Finding
from ledger.vote import Vote

AUTHORITY, HUB, AGENT = (secret_key(sha256(name).digest()) for name in (b"authority", b"hub", b"agent"))
MESH, NOW_MS = sha256(b"mesh").digest(), 1_760_000_000_000
TAG = project_tag(bytes(32), "bench")

SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE entry (id INTEGER PRIMARY KEY, raw BLOB, name BLOB UNIQUE, tag BLOB, text BLOB);
CREATE INDEX entry_tag ON entry (tag, id);
CREATE TABLE hash (level INTEGER, number INTEGER, value BLOB, PRIMARY KEY (level, number)) WITHOUT ROWID;
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB);
CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 0), value BLOB);
CREATE TABLE bare (id INTEGER PRIMARY KEY, raw BLOB);
"""


class Table:
    """A ledger.log.Storage in SQLite."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(SCHEMA)

    def head(self) -> Head:
        row = self.db.execute("SELECT value FROM head").fetchone()
        return log.decode_head(row[0]) if row else EMPTY

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One query for each run of neighbours: a verification asks for hundreds, a proof for single ones."""
        query = "SELECT value FROM hash WHERE level = ? AND number BETWEEN ? AND ? ORDER BY number"
        found: list[bytes] = []
        while len(found) < len(nodes):
            first = last = nodes[len(found)]
            for node in nodes[len(found) + 1 :]:
                if node != (last.level, last.number + 1):
                    break
                last = node
            rows = self.db.execute(query, (first.level, first.number, last.number)).fetchall()
            if len(rows) != last.number - first.number + 1:
                raise LookupError(f"a hash between {first} and {last} is missing")
            found += [value for (value,) in rows]
        return found

    def read_entries(self, start: int, count: int) -> list[bytes]:
        query = "SELECT raw FROM entry WHERE id >= ? AND id < ? ORDER BY id"
        return [raw for (raw,) in self.db.execute(query, (start, start + count))]

    def read_texts(self, start: int, count: int) -> list[bytes | None]:
        query = "SELECT text FROM entry WHERE id >= ? AND id < ? ORDER BY id"
        return [text for (text,) in self.db.execute(query, (start, start + count))]

    def checkpoints(self) -> list[bytes]:
        return [raw for (raw,) in self.db.execute("SELECT note FROM checkpoint ORDER BY size")]

    def find(self, name: bytes) -> int | None:
        row = self.db.execute("SELECT id FROM entry WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def last_of(self, tag: bytes) -> int:
        return self.db.execute("SELECT max(id) FROM entry WHERE tag = ?", (tag,)).fetchone()[0] or 0

    def commit(self, batch: Batch) -> None:
        rows = []
        for raw, text in zip(batch.entries, batch.texts, strict=True):
            entry = decode(raw)
            rows.append((entry.index, raw, entry.text_hash, entry.project_tag, text))
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", rows)
        self.put(batch.stored)
        self.db.execute("INSERT OR REPLACE INTO head VALUES (0, ?)", (log.encode_head(batch.after),))
        self.db.execute("COMMIT")

    def put(self, stored: Sequence[Stored]) -> None:
        self.db.executemany("INSERT INTO hash VALUES (?, ?, ?)", [(*node, value) for node, value in stored])

    def newest_checkpoint(self) -> bytes | None:
        row = self.db.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def add_checkpoint(self, size: int, note: bytes) -> None:
        self.db.execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", (size, note))

    def frozen(self) -> Finding | None:
        return None

    def freeze(self, finding: Finding | None) -> None:
        raise SystemExit(f"the benchmark's ledger is damaged: {finding}")

    def replace_entry(self, index: int, raw: bytes) -> None:
        self.db.execute("UPDATE entry SET raw = ? WHERE id = ?", (raw, index))


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
    table.db.execute("DELETE FROM hash")
    table.db.execute("BEGIN")
    while frontier.size < size:
        leaves = [sha256(number.to_bytes(8, "big")).digest() for number in range(frontier.size, frontier.size + 10_000)]
        frontier, stored = tlog.extend(frontier, leaves[: size - frontier.size])
        table.put(stored)
    table.db.execute("COMMIT")
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
        table = Table(Path(folder) / "ledger.db")
        found(table)
        drafts = [draft(number) for number in range(count)]
        singles = min(200, count // 2)
        print("| operation | p50 ms | p99 ms | inserts | target |\n| --- | ---: | ---: | ---: | --- |")
        insert = "INSERT INTO bare VALUES (?, ?)"
        bare = timed(lambda at: table.db.execute(insert, (at, drafts[at].text)), 200)
        insert_ms = row("bare SQLite: one INSERT, durable", bare)
        took = timed(lambda at: log.append(table, [drafts[at]], HUB, NOW_MS), singles)
        row("append one vote", took, "5 ms over REST", insert_ms)
        rest = [drafts[at : at + 100] for at in range(singles, count, 100)]
        took = timed(lambda at: log.append(table, rest[at], HUB, NOW_MS), len(rest))
        row("append 100 votes", took, "100 ms", insert_ms)
        size = table.head().size
        sizes = [at for (at,) in table.db.execute("SELECT size FROM checkpoint ORDER BY size")]
        table.db.executemany("DELETE FROM checkpoint WHERE size = ?", [(at,) for at in superfluous(sizes)])
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
        table.db.close()
    print(f"\n`python bench/ledger_costs.py --entries {count} --proofs-at {options.proofs_at}`")


if __name__ == "__main__":
    main()
