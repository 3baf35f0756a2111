"""Two enrolled nodes and the lines between them, for tests that want them running.

Each tells that it is to be found at its end of a line, and mDNS is off: while the lines are cut they are apart.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.local_nodes import Line, LocalNode, agree, enrol, found, wait_until

HISTORIES = 100
"""Compared one by one, 8 ms each; equal roots say that the ops behind the others are the same too."""


@dataclass(frozen=True)
class Pair:
    """Two nodes of one mesh."""

    alpha: LocalNode
    beta: LocalNode
    line: Line
    """From beta to alpha."""
    way_back: Line

    @property
    def both(self) -> tuple[LocalNode, LocalNode]:
        return self.alpha, self.beta

    def part(self) -> None:
        """Cut the lines, and wait until both have noticed."""
        self.line.cut()
        self.way_back.cut()
        wait_until("both are alone", lambda: not self.alpha.connected() and not self.beta.connected())

    def meet(self, timeout_s: float = 30.0) -> None:
        """Mend the lines, have beta dial at once, and wait until both are connected and have the same ops."""
        self.line.mend()
        self.way_back.mend()
        self.beta.client.call("POST", "/v1/peers", {"address": self.line.address})
        wait_until("both are connected", lambda: self.alpha.connected() and self.beta.connected())
        wait_until("both have the same ops", lambda: agree(self.alpha, self.beta), timeout_s)


@contextmanager
def running_pair(place: Path) -> Iterator[Pair]:
    """Both running and in agreement; gone afterwards, however they are by then."""
    with ExitStack() as ends:
        line, way_back = ends.enter_context(Line()), ends.enter_context(Line())
        alpha = ends.enter_context(found(place / "alpha", "alpha", advertise=line.address, mdns="false"))
        line.target = alpha.start().port
        beta = ends.enter_context(enrol(place / "beta", "beta", alpha, advertise=way_back.address, mdns="false"))
        way_back.target = beta.start().port
        pair = Pair(alpha, beta, line, way_back)
        pair.meet()
        yield pair


def assert_same(pair: Pair) -> None:
    """The same facts on both, field by field, the same ops behind them, and the same histories where there are any."""
    facts = pair.alpha.facts()
    assert facts == pair.beta.facts()
    changed = [fact_id for fact_id, fact in facts.items() if fact["updated_at"] != fact["created_at"]]
    for fact_id in changed[:HISTORIES]:
        assert pair.alpha.history(fact_id) == pair.beta.history(fact_id)
    assert agree(pair.alpha, pair.beta)


def ops_on_disk(database: Path) -> set[tuple[bytes, int, bytes]]:
    """(author, seq, hash) of every op in a database, which may be in use."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return set(connection.execute("SELECT a.name, o.seq, o.hash FROM ops o JOIN authors a ON a.id = o.author"))
