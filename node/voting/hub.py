"""The hub's queue: what is pending gets its place in the ledger, is signed for, and told to the others.

    choose    a job: permission, then what may be appended (node/voting/selection.py), and the batch of it
    commit    the quorum makes the batch durable (node/voting/commits.py)
    publish   a job: what was stored is read back and signed (ledger.log), scores move, pending rows learn their entry
    mark      HOME/ledger.mark, before anybody is told (node/voting/mark.py); fsynced before other nodes are
    announce  a job: ops for everybody (node/voting/announce.py); at once, under load once in ANNOUNCE_S

A crash between any two of them is taken up by the same code: `publish` looks for what is stored and unsigned, `choose`
finds texts that have an entry, `announce` keeps its place in the ledger's state.

Nothing is appended or signed without permission (node/voting/permission.py), which is asked for in each job.

`turn` does one step and says when to call again; the task does nothing else. It reads no clock but `now`, seconds that
never run backwards. Tests: tests/node/voting/test_hub.py.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from crdt.op import Op
from ledger import log as ledger_log
from ledger import tlog
from ledger.checkpoint import parse_text
from ledger.ed25519 import public_key
from ledger.entry import Kind
from ledger.log import Batch, Frozen, Head
from ledger.note import parse
from ledger.quorum import NoQuorum, Quorum
from ledger.verify import Finding
from node.breaker import Breaker, Refused
from node.errors import Problem
from node.identity import Identity
from node.store import Store
from node.voting import announce, grants
from node.voting.ballots import Ballots
from node.voting.commits import Commits, OneDisk
from node.voting.mark import Signed
from node.voting.permission import CONTRADICTS, Mode, Permission, describe
from node.voting.scores import Scores
from node.voting.selection import FIRST, Chosen, Cursor, Selection, taken_in
from node.voting.table import Table

ANNOUNCE_S: Final = 1.0
"""Under load: each announcement costs a proof of consistency and an op in every project that it is about."""
ANNOUNCE_BURST: Final = 10
"""After a rest as many go at once: at another node somebody waits for each."""
RETRY_S: Final = 1.0
RETRY_MOST_S: Final = 60.0
RECHECK_S: Final = 30.0
"""While it may not append. What would change that wakes it as well; this is for what nobody tells."""
WAITING_PER_S: Final = 2_000
"""Pending texts that can't be taken in yet, looked at again per second at most: a tenth of one core's time."""

_NEVER: Final = float("-inf")
_log = logging.getLogger("cortex-node")


class _Step(NamedTuple):
    chosen: Chosen
    batch: Batch | None


class _Published(NamedTuple):
    signed: Signed
    entries: list[tuple[bytes, int]]


@dataclass(slots=True)
class _Walk:
    """From the first to the last of what is pending, a batch at a time. `waiting`: how many had to be left."""

    cursor: Cursor = FIRST
    waiting: int = 0


class Hub:
    """The hub of one node. `engine`: what its settings say; `carries`: patterns of the projects that it carries."""

    def __init__(
        self,
        me: Identity,
        store: Store,
        ballots: Ballots,
        scores: Scores,
        *,
        authority: bytes,
        engine: str,
        carries: Sequence[str],
        now_ms: Callable[[], int],
        now: Callable[[], float],
        quorum_of_others: Quorum | None = None,
    ) -> None:
        self.on_entries: Callable[[list[tuple[bytes, int]]], None] = lambda entries: None
        """Hears which texts have which entry, when they are committed and signed for."""
        self.on_alert: Callable[[str, str], None] = lambda code, text: None
        self.wrote: Callable[[list[Op]], None] = lambda ops: None
        """Hears of ops that were written, to send them."""
        self.mode = Mode.OFF
        self._me = me
        self._store = store
        self._database = store.database
        self._ballots = ballots
        self._scores = scores
        self._authority = authority
        self._engine = engine
        self._now_ms = now_ms
        self._now = now
        self._commits = Commits(quorum_of_others or OneDisk(store.database), now)
        self._selection = Selection(store, authority, ballots, scores, carries)
        self._permission = Permission(me, authority, engine)
        self._reason = ""
        self._again = True
        self._walk: _Walk | None = None
        self._waiting = 0
        self._unpublished = True
        self._untold: list[tuple[bytes, int]] = []
        self._unannounced = True
        self._paid_until = _NEVER
        """Until then ANNOUNCE_S a piece is spent on announcements that were made."""
        self._walk_at = _NEVER
        self._not_before = _NEVER
        self._failures = 0
        self._allowed = False
        self._woken = asyncio.Event()
        self._turning = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def breaker(self) -> Breaker:
        """Before the quorum."""
        return self._commits.breaker

    # The task

    def start(self) -> None:
        """Begin to work off what is pending. The database must run."""
        self._task = asyncio.create_task(self._run(), name="hub")

    async def stop(self) -> None:
        """Leave the rest for the next start. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def wake(self) -> None:
        """Something came that may be appended, or may let something be appended."""
        self._again = True
        self._woken.set()

    @property
    def waiting(self) -> int:
        """Pending texts that it met and can't take in yet."""
        return self._waiting

    def state(self) -> dict[str, Any]:
        """What the hub does and why."""
        return {
            "mode": str(self.mode),
            "reason": self._reason or None,
            "engine": self._engine,
            "waiting": self._waiting,
            "failures": self._failures,
            "signed": self._permission.size,
        }

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                delay = await self.turn()
            except Exception as error:  # a fault of ours: `status` shows it, the log has the place
                _log.exception("the hub failed, and tries again")
                delay = self._failed(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._woken.wait()

    # One step

    async def turn(self) -> float | None:
        """Do what is next. In how many seconds to call again, 0.0 for at once; None: when woken."""
        async with self._turning:
            if (rest := self._not_before - self._now()) > 0:
                return rest
            try:
                delay = await self._turn()
            except (Problem, sqlite3.Error, NoQuorum, Refused, TimeoutError) as error:
                return self._failed(error)
            self._failures = 0
            return delay

    async def takeover(self, authority_secret: bytes, now_ms: int, *, abandon: bool = False) -> dict[str, Any]:
        """Begin an epoch of this node's (node/voting/grants.py). `abandon`: leave behind what nobody has any longer.

        Raises Problem: no_engine, not_the_authority, no_ledger, ledger_incomplete, ledger_damaged, ledger_frozen,
        ledger_moved.
        """
        if self._engine == "none":
            raise Problem(
                409, "no_engine", "this node's settings give it no quorum, so it would not append",
                f'put engine = "solo" under [quorum] in {self._me.home.config} and start it again', "quorum.engine",
            )  # fmt: skip
        if public_key(authority_secret) != self._authority:
            raise Problem(
                403, "not_the_authority", "this is not the key of this mesh's certificate authority",
                "use ca.key from the home of the machine that founded this mesh",
            )  # fmt: skip
        async with self._turning:
            found = await self._database.write(grants.extent)
            grants.require(found, abandon)
            size = found.head.size
            if wrong := await self._database.read(partial(grants.check, size=size, authority=self._authority)):
                raise _wrong("ledger_damaged", wrong)
            finding = await self._database.read(lambda connection: Table(connection).frozen())
            if finding and finding.code == CONTRADICTS and not abandon:
                raise _wrong("ledger_frozen", [finding])
            job = partial(self._begin_epoch, authority_secret=authority_secret, head=found.head, now_ms=now_ms)
            gone = await self._database.write(job)
            self._commits.forget()
            self._not_before, self._failures = _NEVER, 0
            await self._publish(granted=True)
            await self._announce()
            epoch = await self._database.read(lambda connection: Table(connection).head().epoch)
        self.wake()
        return {"epoch": epoch, "start": size, "abandoned": len(gone)}

    def _begin_epoch(
        self, connection: sqlite3.Connection, authority_secret: bytes, head: Head, now_ms: int
    ) -> list[bytes]:
        gone = grants.take_over(connection, self._me, authority_secret, self._engine, head, now_ms)
        taken_in(connection, self._ballots, gone)
        self._scores.changed(connection, self._store, self._scores.catch_up(connection))
        return gone

    # What a turn consists of

    async def _turn(self) -> float | None:
        await self._permission.load()
        if not (self._allowed and (self._walk or self._again)):  # else `_choose` asks, in the job that needs it
            if stopped := await self._database.write(self._permission.stopped):
                if stopped.mode is Mode.DORMANT:  # it was founded here, and nobody else can tell of it
                    await self._announce()
                self._allowed = False
                self._become(*stopped)
                return None if stopped.mode is Mode.OFF else RECHECK_S
            self._allowed = True
        if await self._commits.settle() or self._unpublished:
            await self._publish()
        busy = await self._append()
        self._become(Mode.WORKING if busy else Mode.IDLE, "")
        if self._announce_in() <= 0:
            await self._announce()
        return 0.0 if busy else self._next()

    def _next(self) -> float | None:
        """When there is something to do though nobody wakes us."""
        times = [self._announce_in()] if self._unannounced else []
        if self._again:
            times.append(self._walk_at - self._now())
        return max(0.0, min(times)) if times else None

    def _announce_in(self) -> float:
        return self._paid_until - (ANNOUNCE_BURST - 1) * ANNOUNCE_S - self._now()

    async def _append(self) -> bool:
        """One batch of the walk over what is pending; whether there may be more."""
        if self._walk is None:
            if not self._again or self._walk_at > self._now():
                return False
            self._again, self._walk = False, _Walk()
        walk = self._walk
        step = await self._database.write(partial(self._choose, cursor=walk.cursor), self._tell_keys)
        if step is None:
            self._again, self._walk, self._allowed = True, None, False
            return True
        if step.batch is not None:
            if not await self._commits.commit(step.batch):  # something came in meanwhile: the walk begins anew
                self._again, self._walk = True, None
                return True
            await self._publish()
        walk.cursor = step.chosen.cursor
        walk.waiting += step.chosen.waiting
        if any(draft.kind != Kind.VOTE for draft in step.chosen.drafts):
            self._again = True  # somebody may have waited for it
        if step.chosen.end:
            self._walk, self._waiting = None, walk.waiting
            self._walk_at = self._now() + walk.waiting / WAITING_PER_S
        return self._walk is not None or (self._again and self._walk_at <= self._now())

    def _choose(self, connection: sqlite3.Connection, cursor: Cursor) -> _Step | None:
        """A job. None when nothing may be appended any longer."""
        if self._permission.stopped(connection):
            return None
        now_ms = self._now_ms()
        chosen = self._selection.choose(connection, cursor, now_ms)
        batch, _ = ledger_log.plan(Table(connection), chosen.drafts, now_ms)
        return _Step(chosen, batch if batch.entries else None)

    def _tell_keys(self, step: _Step | None) -> None:
        if step and step.chosen.ops:
            self.wrote(step.chosen.ops)

    async def _publish(self, *, granted: bool = False) -> None:
        """Sign for what is committed, then write the mark, then tell who waits here. Once more after any failure."""
        self._unpublished = True
        published = await self._database.write(partial(self._sign, granted=granted))
        if published is None:
            self._allowed = False  # the next turn finds out why
            return
        self._untold += published.entries
        self._unannounced = True
        self._permission.note(published.signed)
        self._unpublished = False
        told, self._untold = self._untold, []
        if told:
            self.on_entries(told)

    def _sign(self, connection: sqlite3.Connection, granted: bool) -> _Published | None:
        """A job. None when it may not sign, or the log has frozen, which is remembered: so it must not raise."""
        if not granted and self._permission.stopped(connection):
            return None
        table, newest = Table(connection), Table(connection).newest_checkpoint()
        before = parse_text(parse(newest).text).size if newest else 0
        try:
            note = ledger_log.publish(table, self._me.secret_key)
        except Frozen:
            return None
        head = table.head()
        if note is not None and head.size > before:
            table.add_checkpoint(head.size, note, self._now_ms())
        query = "SELECT name, id FROM ledger_entries WHERE id >= ? AND id < ? ORDER BY id"
        rows = connection.execute(query, (before, head.size)).fetchall()
        taken_in(connection, self._ballots, [name for name, _ in rows])
        self._scores.changed(connection, self._store, self._scores.catch_up(connection))
        return _Published(Signed(head.epoch, head.size, tlog.frontier_root(head.frontier)), rows)

    async def _announce(self) -> None:
        await self._permission.settle()
        while self._unannounced:
            job = partial(announce.announce, store=self._store, now_ms=self._now_ms())
            ops = await self._database.write(job, self.wrote)
            self._unannounced = bool(ops)
            if ops:
                self._paid_until = max(self._paid_until, self._now()) + ANNOUNCE_S

    def _become(self, mode: Mode, reason: str) -> None:
        if (mode, reason) != (self.mode, self._reason) and mode in (Mode.BEHIND, Mode.FROZEN, Mode.NOT_GRANTED):
            self.on_alert(f"ledger_{mode}", reason)
        self.mode, self._reason = mode, reason

    def _failed(self, error: Exception) -> float:
        delay = min(RETRY_MOST_S, RETRY_S * float(2 ** min(self._failures, 10)))
        self._failures += 1
        self._not_before = self._now() + delay
        self._become(Mode.RETRYING, str(error) or type(error).__name__)
        _log.warning("the ledger waits for %g s: %s", delay, self._reason)
        return delay


def _wrong(code: str, findings: Sequence[Finding]) -> Problem:
    return Problem(
        409, code, f"{len(findings)} things are wrong with the ledger here, first: {describe(findings[0])}",
        "take over on another machine, or put a backup back; cortex-node ledger verify tells all",
    )  # fmt: skip
