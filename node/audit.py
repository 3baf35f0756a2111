"""The rolling audit: every row is re-hashed once in 64 hours, and what time brings is done: held ops, old gaps.

A tree of sums can only compare what the books say. Whether the rows are still what was hashed once nobody knows who
doesn't read them: so each quarter of an hour one slice of the store is read again, one node of 256 of each project's
tree. When the node starts the books alone are checked, which needs an index and no rows. What doesn't agree is mended
(node/store.py), and then a round with every peer follows: roots differ now, a walk brings back what is missing.

`Rounds` decides and does nothing; `Auditor` reads on a reader's thread and writes jobs of a few milliseconds. It can be
paused, and it remembers how far it came. Tests: tests/node/test_audit.py.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from node import leaves, repairs
from node.errors import Problem
from node.repairs import Cause
from node.store import Store
from sync import merkle
from sync.merkle import LEVELS

SLICE_LEVEL: Final = 2
SLICES: Final = 1 << SLICE_LEVEL * merkle.FAN_OUT_BITS
SLICE_MS: Final = 900_000
"""Four slices of 256 an hour: 1/64 of the store. Of 100,000 ops that is 400 rows, 1 ms, every quarter of an hour."""
TICK_S: Final = 30.0
MAX_ROWS: Final = 1 << 20
MENDED_AT_ONCE: Final = 64
"""Nodes, in one transaction."""
CLOCK_STEP_MS: Final = 60_000
"""What peers say of our clock is followed in steps of a minute."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Rounds:
    """Which slice is next, and when. `place`: of the next one; `due_ms`: when it is read."""

    place: int
    due_ms: int

    def take(self, now_ms: int, paused: bool) -> int | None:
        """The slice to read now. After a long sleep it is one, not all that were missed."""
        if paused or now_ms < self.due_ms:
            return None
        place, self.place = self.place, (self.place + 1) % SLICES
        self.due_ms = now_ms + SLICE_MS
        return place


def our_clock_ahead_ms(offsets_ms: Iterable[int], most_ms: int) -> int:
    """How far our clock is ahead, if most clocks, ours among them, say that it is more than `most_ms`; else 0.

    `offsets_ms`: how far each peer's clock is ahead of ours. One peer alone convinces nobody: it may be the wrong one.
    """
    said = sorted([0, *(-offset for offset in offsets_ms)])
    ahead = said[(len(said) - 1) // 2]
    return ahead - ahead % CLOCK_STEP_MS if ahead > most_ms else 0


class Auditor:
    """Looks after one store. `offsets_ms` as above; `look_again` begins a round with every peer; `paused`: not now.

    `repaired` hears of each repair's cause and number of ops, for the metric.
    """

    def __init__(
        self,
        store: Store,
        now_ms: Callable[[], int],
        look_again: Callable[[], None] = lambda: None,
        offsets_ms: Callable[[], Sequence[int]] = lambda: (),
        repaired: Callable[[Cause, int], None] = lambda cause, ops: None,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._look_again = look_again
        self._offsets_ms = offsets_ms
        self._repaired = repaired
        self.paused = paused
        self._rounds = Rounds(0, 0)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Check the books, then go on for ever."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        self._store.on_suspect = wake
        self._task = loop.create_task(self._run())

    async def stop(self) -> None:
        """In the middle of whatever it does: nothing is half done."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await self._guarded(self.begin)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            await self._guarded(self.tick)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Problem as problem:  # a full disk, a damaged file: it is told where somebody reads or writes
            log.warning("the audit could not go on: %s", problem.detail)

    # What there is to do

    async def begin(self) -> None:
        """After a start: where was I, and do the sums stand for the hashes that are stored?"""
        place, projects = await self._store.database.read(_place_and_projects)
        self._rounds = Rounds(place, self._now_ms() + SLICE_MS)
        for project in projects:
            wrong: list[tuple[int, int]] = []
            for node in range(merkle.FAN_OUT):
                wrong += await self._store.database.read(partial(_wrong_nodes, project=project, place=node))
            await self._mend(project, wrong)
        await self.tick()

    async def tick(self) -> None:
        """Whatever is due."""
        while self._store.suspects:
            project, digest = self._store.suspects.pop()
            await self.mend(project, LEVELS, merkle.node_of(digest, LEVELS))
        now_ms = self._now_ms()
        ahead_ms = our_clock_ahead_ms(self._offsets_ms(), self._store.clock.ahead_ms)
        if abs(ahead_ms - self._store.ahead_ms) >= CLOCK_STEP_MS:
            log.warning("most peers say that our clock is %d s ahead", ahead_ms // 1000)
            await self._store.database.write(lambda c: self._store.set_ahead(c, ahead_ms, now_ms))
        held, gaps = await self._store.database.read(_due)
        if held is not None and held <= self._store.held_after(now_ms):
            await self._store.database.write(lambda c: self._store.release(c, now_ms))
        if gaps is not None and gaps <= now_ms - repairs.GAP_PATIENCE_MS:
            await self._store.database.write(lambda c: self._store.give_up_gaps(c, now_ms))
        place = self._rounds.take(now_ms, self.paused())
        if place is not None:
            await self._read_slice(place)

    async def mend(self, project: str, level: int, place: int, peer: str | None = None) -> None:
        """Make the books of a node true. `peer`: with whom a walk came across it."""
        await self._mend(project, [(level, place)], peer)

    async def _mend(self, project: str, nodes: Sequence[tuple[int, int]], peer: str | None = None) -> None:
        """All of them before anybody looks again: what lies behind a hole that nobody sees yet would not join."""
        now_ms = self._now_ms()
        mended: list[leaves.Mended] = []
        for start in range(0, len(nodes), MENDED_AT_ONCE):
            some = nodes[start : start + MENDED_AT_ONCE]
            mended += await self._store.database.write(
                partial(self._mend_some, project=project, nodes=some, now_ms=now_ms, peer=peer)
            )
        rotten = sum(len(one.rotten) for one in mended)
        missing = sum(one.missing for one in mended)
        drifted = sum(one.drifted for one in mended)
        if not (rotten or missing or drifted):
            return
        log.warning("damage in project %s: %d rows rotten, %d lost, %d sums wrong", project, rotten, missing, drifted)
        if drifted:
            self._repaired(Cause.DRIFTED_SUM, drifted)
        if missing:
            gaps = await self._store.database.read(lambda c: self._gaps(c, project))
            await self._store.database.write(lambda c: repairs.note_gaps(c, gaps, now_ms))
        self._look_again()

    def _mend_some(
        self,
        connection: sqlite3.Connection,
        project: str,
        nodes: Sequence[tuple[int, int]],
        now_ms: int,
        peer: str | None,
    ) -> list[leaves.Mended]:
        return [self._store.mend(connection, project, level, place, now_ms, peer) for level, place in nodes]

    def heard(self, repaired: Counter[tuple[str, Cause, str | None]], peer: str) -> None:
        """Ops came back from a peer."""
        for (project, cause, node), ops in repaired.items():
            log.warning("%d ops of %s in project %s came back from %s: %s", ops, node, project, peer, cause)
            self._repaired(cause, ops)

    async def _read_slice(self, place: int) -> None:
        for project in self._store.projects():
            read = partial(
                leaves.rows, mesh=self._store.mesh, project=project, level=SLICE_LEVEL, place=place, most=MAX_ROWS
            )
            rows = await self._store.database.read(read)
            if rows.damaged:
                await self.mend(project, SLICE_LEVEL, place)
        await self._store.database.write(lambda c: _save_place(c, self._rounds.place))

    def _gaps(self, connection: sqlite3.Connection, project: str) -> list[repairs.Gap]:
        (number,) = connection.execute("SELECT id FROM projects WHERE name = ?", (project,)).fetchone()
        return list(repairs.find_gaps(connection, self._store.mesh, number))


def _place_and_projects(connection: sqlite3.Connection) -> tuple[int, list[str]]:
    row = connection.execute("SELECT value FROM meta WHERE key = 'audited'").fetchone()
    names = connection.execute("SELECT name FROM projects WHERE ops > 0 OR sum <> 0").fetchall()
    return int(row[0]) % SLICES if row else 0, [name for (name,) in names]


def _save_place(connection: sqlite3.Connection, place: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('audited', ?)", (place,))


def _due(connection: sqlite3.Connection) -> tuple[int | None, int | None]:
    """The timestamp of the first op that is held, and when the first gap was found that is still claimed."""
    (held,) = connection.execute("SELECT min(timestamp) FROM held").fetchone()
    (found,) = connection.execute("SELECT min(found) FROM gaps WHERE told = 0").fetchone()
    return held, found


def _wrong_nodes(connection: sqlite3.Connection, project: str, place: int) -> list[tuple[int, int]]:
    """Nodes of SLICE_LEVEL, below one of level 1, whose sums are not those of the hashes that are stored."""
    number, bits, *totals = connection.execute(
        "SELECT id, bits, sum, ops FROM projects WHERE name = ?", (project,)
    ).fetchone()
    first, end = merkle.span(1, place)
    hashes = connection.execute(
        "SELECT hash FROM ops WHERE project = ? AND hash >= ? AND hash < ?", (number, first, end or leaves.AFTER_ALL)
    )
    there = merkle.leaves((digest for (digest,) in hashes), SLICE_LEVEL * merkle.FAN_OUT_BITS)
    books = leaves.sums(connection, project, 1, place)
    wrong = [(SLICE_LEVEL, node) for node in sorted(there.keys() | books.keys()) if there.get(node) != books.get(node)]
    if place == 0 and not wrong:
        whole = leaves.whole(connection, number, bits)
        wrong += [(0, 0)] if whole != (merkle.from_signed(totals[0]), totals[1]) else []
    return wrong
