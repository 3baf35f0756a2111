"""What every node does with what a hub tells: check it, persist it, then cosign it, and tell the rest of the node.

The `Follower` takes rows out of the inbox (node/voting/inbox.py) in jobs of a few milliseconds: checkpoints by size,
then entries by place, then forks. What can't be decided yet stays with what it waits for, and is looked at again when
that was accepted: one pass without progress ends the work until somebody wakes it. It runs on hubs, too, where
most of what comes is known already; a hub that was restored from a backup comes back by it, and so does one that was
away while another took over.

When other grants are known than the last time, what they left behind is given up (accepted.rebase) and everything that
had no effect is looked at anew, in the job that remembers these grants: a crash leaves either both or none.

A job reads and writes nothing but the database; what it found is told after it is durable: `on_entries` the text hashes
and indices of new entries, `on_alert` what is wrong. Every `SELF_CHECK_S` the ledger that is stored is verified again;
what is found freezes a hub. Tests: tests/node/voting/test_follow.py; many nodes, crashes and takeovers:
tests/node/voting/test_history.py.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from crdt.op import Op
from ledger.verify import Finding
from node.errors import Problem
from node.store import Store
from node.voting import inbox, records
from node.voting.accepted import DAMAGED, Gathered, accepted_size, read_forks, rebase
from node.voting.ballots import Ballots
from node.voting.inbox import Inbox
from node.voting.intake import Intake, Waits
from node.voting.scores import Scores
from node.voting.selection import taken_in
from node.voting.signers import Signers, read_signers
from node.voting.table import ANNOUNCED, Table
from node.voting.witness import cosign, due_ms

MAX_WORK: Final = 100
"""Checkpoints and entries that one job takes in: 20 to 30 ms, in which nothing else is written."""
ROWS: Final = 50
"""Of the inbox, read at a time."""
SELF_CHECK_S: Final = 6 * 3_600.0
"""A verification costs 0.1 ms an entry, so a ledger of 100,000 half a promille of one core."""
RETRY_S: Final = 30.0
"""After a job that could not be done: a full disk, most likely."""
_JUDGED: Final = "judged"
"""The grants under which the inbox was judged: `Signers.digest`."""
_START: Final = ("", -1, b"")
_GONE: Final = "DELETE FROM ledger_inbox WHERE kind = ? AND at = ? AND hash = ?"
_LATER: Final = "UPDATE ledger_inbox SET size = ?, since = ? WHERE kind = ? AND at = ? AND hash = ?"
_AT_ITS_PLACE: Final = ("entry", "leaf", "row", "text")
"""Findings that name the very entry that was changed."""

log = logging.getLogger(__name__)
Cursor = tuple[str, int, bytes]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of what is durable: new entries by text hash and index; alerts by code and text; ops of ours."""

    on_entries: Callable[[Sequence[tuple[bytes, int]]], None] = lambda places: None
    on_alert: Callable[[str, str], None] = lambda code, text: None
    wrote: Callable[[Sequence[Op]], None] = lambda ops: None


@dataclass(slots=True)
class _Taken:
    """What a job has done. `cursor`: the last row that it looked at; None when that was the last there is."""

    cursor: Cursor | None = None
    gathered: Gathered = field(default_factory=Gathered)
    ops: list[Op] = field(default_factory=list)


class Follower:
    """Follows the ledger of one mesh. `secret`: the node's own 64 bytes, with which it cosigns.

    `verify`: a verification of what is stored, as node/voting/verification.py answers; `paused`: not now.
    """

    def __init__(
        self,
        store: Store,
        box: Inbox,
        scores: Scores,
        ballots: Ballots,
        secret: bytes,
        now_ms: Callable[[], int],
        listeners: Listeners | None = None,
        verify: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._box = box
        self._scores = scores
        self._ballots = ballots
        self._secret = secret
        self._now_ms = now_ms
        self._listeners = listeners or Listeners()
        self._verify = verify
        self._paused = paused
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._checked_ms = now_ms()

    # The task

    def start(self) -> None:
        """Take in what is there, then whatever comes."""
        loop = asyncio.get_running_loop()

        def filled() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        self._box.on_filled = filled
        self._task = loop.create_task(self._run())

    async def stop(self) -> None:
        """In the middle of whatever it does: a job that began is done, and nothing is half done."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """Look again. The inbox does so itself."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            wait_s = await self._guarded(self._turn)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _turn(self) -> float:
        await self.catch_up()
        wait_ms = await self.cosign()
        since_s = (self._now_ms() - self._checked_ms) / 1_000
        if not 0 <= since_s < SELF_CHECK_S and not self._paused():
            self._checked_ms, since_s = self._now_ms(), 0.0  # also when there is no ledger yet, or another reads it
            await self.self_check()
        return min(wait_ms / 1_000, max(RETRY_S, SELF_CHECK_S - since_s))

    async def _guarded(self, turn: Callable[[], Awaitable[float]]) -> float:
        """How long to wait; whatever goes wrong in one turn, there is another."""
        try:
            return await turn()
        except Problem as problem:  # a full disk, a damaged file: it is told where somebody reads or writes
            log.warning("the ledger could not be followed: %s", problem.detail)
        except Exception:
            log.exception("the ledger could not be followed")
            self._listeners.on_alert(DAMAGED, "the ledger can't be followed; the log says why")
        return RETRY_S

    # What there is to do

    async def catch_up(self) -> None:
        """Takes in all that can be taken in now."""
        cursor: Cursor | None
        moved = True
        while moved:
            moved, cursor = False, _START
            while cursor is not None:
                taken = await self._store.database.write(partial(self._take, after=cursor), after=self._tell)
                cursor, moved = taken.cursor, moved or taken.gathered.moved

    async def cosign(self) -> float:
        """Signs as a witness, if that is due; in how many milliseconds to ask again."""
        await self._store.database.write(self._cosign, after=self._listeners.wrote)
        due = await self._store.database.read(due_ms)
        return max(1_000.0, due - self._now_ms()) if due > self._now_ms() else SELF_CHECK_S * 1_000

    async def self_check(self) -> Sequence[Finding]:
        """Verifies what is stored; what is wrong is told, and a hub appends no more."""
        if self._verify is None:
            return []
        said = await self._verify()
        findings = [Finding(one["index"], one["code"], one["detail"]) for one in said.get("findings", ())]
        wrong = [one for one in findings if one.code not in ("unsigned", "left_out", "fork", "frozen")]
        wrong.sort(key=lambda one: one.code not in _AT_ITS_PLACE)  # what follows it, and what lies above, differs too
        if wrong:
            await self._store.database.write(partial(self._freeze, finding=wrong[0]))
            where = "the ledger" if wrong[0].index is None else f"entry {wrong[0].index}"
            self._listeners.on_alert(DAMAGED, f"{where}: {wrong[0].code}: {wrong[0].detail}")
        return wrong

    @staticmethod
    def state(connection: sqlite3.Connection) -> dict[str, Any]:
        """For `status`: sizes in entries, what is not here, what waits to be decided, forks. A read: it counts rows."""
        accepted, whole = accepted_size(connection), Table(connection).head().size
        (missing,) = connection.execute(
            "SELECT ? - count(*) FROM ledger_entries WHERE id >= ? AND id < ?", (accepted - whole, whole, accepted)
        ).fetchone()
        waiting = dict(connection.execute("SELECT kind, count(*) FROM ledger_inbox GROUP BY kind").fetchall())
        return {
            "accepted": accepted,
            "whole": whole,
            "missing": max(0, missing),
            "unproven": waiting.get(records.CHECKPOINT, 0),
            "inbox": sum(waiting.values()),
            "forks": len(read_forks(connection)),
        }

    # Jobs: on the writer's thread

    def _take(self, connection: sqlite3.Connection, after: Cursor) -> _Taken:
        taken = _Taken()
        if (signers := read_signers(connection)) is None:
            return taken  # who may sign is not known yet
        if Table(connection).state(_JUDGED) != signers.digest:
            taken.gathered = self._judge_anew(connection, signers)
        now_ms = self._now_ms()
        intake = Intake(connection, self._box.mesh, self._store.node_key, signers, taken.gathered, now_ms)
        taken.cursor = self._work_off(connection, intake, after)
        self._settle(connection, taken.gathered)
        if taken.gathered.drafts:
            taken.ops = self._store.append(connection, taken.gathered.drafts, now_ms)
        return taken

    def _work_off(self, connection: sqlite3.Connection, intake: Intake, after: Cursor) -> Cursor | None:
        """Rows of the inbox beyond `after`, as many as a job may take; of those that wait for a root only where one is
        known now. Three thousand that wait for ever cost a pass a millisecond.
        """
        rows = connection.execute(
            "SELECT i.kind, i.at, i.hash, i.project, i.size, i.since, o.raw, o.subject FROM ledger_inbox i"
            " LEFT JOIN ops o ON o.project = i.project AND o.hash = i.hash"
            " WHERE (i.kind, i.at, i.hash) > (?1, ?2, ?3) AND (i.size IS NULL OR i.size <= ?4 OR i.since <= ?4"
            " OR EXISTS (SELECT 1 FROM ledger_checkpoints c WHERE c.size IN (i.size, i.since)))"
            " ORDER BY i.kind, i.at, i.hash LIMIT ?5",
            (*after, Table(connection).head().size, ROWS),
        ).fetchall()
        work = 0
        for kind, at, op_hash, project, size, since, raw, subject in rows:
            waits: Waits | None
            op = records.stored(self._box.mesh, raw)
            if op is None or op.hash != op_hash:  # gone, or rotten: it comes again with its op
                waits = None
            elif kind in (records.STATEMENT, records.COSIGNATURE):
                self._show_again(connection, project, subject, (kind, at, op_hash))
                continue
            else:
                entries = len(intake.gathered.entries)
                waits = self._judge(intake, kind, op)
                work += 1 + len(intake.gathered.entries) - entries
            if waits is None:
                connection.execute(_GONE, (kind, at, op_hash))
            elif waits != (size, since):
                connection.execute(_LATER, (*waits, kind, at, op_hash))
            if work >= MAX_WORK:
                return kind, at, op_hash
        return (rows[-1][0], rows[-1][1], rows[-1][2]) if len(rows) == ROWS else None

    def _judge(self, intake: Intake, kind: str, op: Op) -> Waits | None:
        match kind:
            case records.CHECKPOINT:
                return intake.take_checkpoint(op)
            case records.ENTRIES:
                return intake.take_entries(op)
            case records.FORK:
                return intake.take_fork(op)
            case _:
                return None

    def _show_again(self, connection: sqlite3.Connection, project: int, subject: str, row: Cursor) -> None:
        """What there was no room for, or nobody to judge it by: the inbox notes it again where that is so still."""
        connection.execute(_GONE, row)
        self._box.show(connection, project, subject, self._store.effective_ops(connection, subject, project))

    def _judge_anew(self, connection: sqlite3.Connection, signers: Signers) -> Gathered:
        """Other grants hold than the last time."""
        gathered, table = rebase(connection, signers), Table(connection)
        inbox.put_back(connection)
        if not signers.is_hub(self._store.node_key):
            table.set_state(ANNOUNCED, None)  # what another hub commits is for that one to tell
        table.set_state(_JUDGED, signers.digest)
        gathered.moved = True
        return gathered

    def _settle(self, connection: sqlite3.Connection, gathered: Gathered) -> None:
        """Everything that follows from entries that came or went."""
        names = [*gathered.dropped, *(name for name, _ in gathered.entries)]
        if not names:
            return
        taken_in(connection, self._ballots, names)
        self._scores.changed(connection, self._store, self._scores.catch_up(connection))

    def _cosign(self, connection: sqlite3.Connection) -> list[Op]:
        signers = read_signers(connection)
        if signers is None or Table(connection).state(_JUDGED) != signers.digest:
            return []
        forked = signers.epoch in map(signers.epoch_of, read_forks(connection))
        return cosign(connection, self._store, self._secret, signers, self._now_ms(), forked)

    def _freeze(self, connection: sqlite3.Connection, finding: Finding) -> None:
        signers, table = read_signers(connection), Table(connection)
        if signers and signers.is_hub(self._store.node_key) and table.frozen() is None:
            table.freeze(finding)

    def _tell(self, taken: _Taken) -> None:
        """Durable now."""
        if taken.gathered.entries:
            self._listeners.on_entries(taken.gathered.entries)
        for code, text in dict.fromkeys(taken.gathered.alerts):
            log.error("%s: %s", code, text)
            self._listeners.on_alert(code, text)
        if taken.ops:
            self._listeners.wrote(taken.ops)
