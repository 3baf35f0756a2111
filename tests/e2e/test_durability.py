"""`kill -9` in the middle of writing, again and again: what was acknowledged is there, and nothing is muddled.

Two promises are watched from outside. Acknowledged = on disk: whoever was told 201 finds the fact after the next start.
Persist, then send: no op that a peer holds is missing where it was written, so no seq is ever used for another op.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copy2

from bench.local_nodes import LocalNode, agree, wait_until
from node.errors import Problem
from tests.e2e.pairs import Pair, assert_same, ops_on_disk

WRITERS = 6
KILLS = 4
ACKS_BEFORE_A_KILL = 80


@dataclass
class Burst:
    """Many writers at once, until the node is gone: what they were told, and what was left without an answer."""

    node: LocalNode
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Idempotency-Key to the id that the node answered."""
    unanswered: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write_until_it_is_gone(self, writer: str) -> None:
        number = 0
        while True:
            key = f"{writer}-{number}"
            try:
                fact_id = self.store(key)
            except Problem:
                with self._lock:
                    self.unanswered.append(key)
                return
            with self._lock:
                self.acknowledged[key] = fact_id
            number += 1

    def is_under_way(self) -> bool:
        return len(self.acknowledged) >= ACKS_BEFORE_A_KILL

    def store(self, key: str) -> str:
        """Store the fact of this key, once however often it is asked for."""
        fact = self.node.client.call(
            "POST", "/v1/facts", {"content": f"burst {key}", "project": "burst"}, headers={"Idempotency-Key": key}
        )
        return str(fact["id"])


@contextmanager
def burst(node: LocalNode, name: str) -> Iterator[Burst]:
    """Writers at work inside; they end when the node does."""
    work = Burst(node)
    with ThreadPoolExecutor(WRITERS) as pool:
        ended = [pool.submit(work.write_until_it_is_gone, f"{name}-{writer}") for writer in range(WRITERS)]
        try:
            yield work
        finally:
            node.kill()  # else they would never end
        for one in ended:
            one.result()


def integrity(database: Path, beside: Path) -> str:
    """What SQLite finds in a copy of the database with its log, so that the node itself has to recover the original."""
    copies = [Path(copy2(file, beside / file.name)) for file in database.parent.glob(database.name + "*")]
    with closing(sqlite3.connect(beside / database.name)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
    for file in copies:
        file.unlink(missing_ok=True)
    return str(found)


def test_kill_9_in_a_burst_of_writes_loses_nothing_that_was_acknowledged(pair: Pair, tmp_path: Path) -> None:
    alpha, beta = pair.both
    acknowledged: dict[str, str] = {}
    for kill in range(KILLS):
        with burst(alpha, str(kill)) as work:
            wait_until("enough is acknowledged", work.is_under_way)
        acknowledged |= work.acknowledged
        assert integrity(alpha.home.database, tmp_path) == "ok"
        elsewhere = ops_on_disk(beta.home.database)
        alpha.start()
        assert elsewhere <= ops_on_disk(alpha.home.database), "beta has heard of an op that alpha had not on disk"
        facts = alpha.facts()
        for key, fact_id in acknowledged.items():
            assert facts[fact_id]["content"] == f"burst {key}"
        for key in work.unanswered:
            acknowledged[key] = work.store(key)

    contents = sorted(fact["content"] for fact in alpha.facts().values() if fact["project"] == "burst")
    assert contents == sorted(f"burst {key}" for key in acknowledged), "a retry stored a fact twice"
    assert len(set(acknowledged.values())) == len(acknowledged), "two facts have one id"
    pair.meet()
    assert_same(pair)
    ops = ops_on_disk(alpha.home.database)
    assert len({(author, seq) for author, seq, _ in ops}) == len(ops), "a seq was used twice"


def test_kill_9_of_the_one_who_receives(pair: Pair, tmp_path: Path) -> None:
    alpha, beta = pair.both
    pair.part()
    for _ in range(6):
        alpha.store(*({"content": f"bulk {number} " + "x" * 300, "project": "bulk"} for number in range(500)))
    before = len(ops_on_disk(beta.home.database))
    pair.line.mend()
    pair.way_back.mend()
    for step in (1, 2):
        wait_until("some more has arrived", arrived(beta, before + step * 500), 30)
        beta.kill()
        assert integrity(beta.home.database, tmp_path) == "ok"
        assert len(ops_on_disk(beta.home.database)) < len(ops_on_disk(alpha.home.database)), "it came too late"
        beta.start()
    wait_until("beta has everything", lambda: agree(*pair.both), 60)
    assert_same(pair)


def arrived(node: LocalNode, ops: int) -> Callable[[], bool]:
    return lambda: len(ops_on_disk(node.home.database)) >= ops
