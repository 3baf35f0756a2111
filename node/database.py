"""One SQLite file, one writer with group commit, a pool of readers.

`write(job)` runs `job(connection)` on the writer's thread and returns its result when the result is on disk. The writer
starts at once when it is idle; jobs that arrive while a commit is under way gather (up to MAX_GROUP) and share the next
one. Each job has a savepoint of its own: one that raises takes nothing of the others with it. A timer that waits for
company would cost every lone write its delay (measured: 11.5 ms against 0.4 ms).

`read(job)` runs on one of READERS threads with a read-only connection. `direct` is a read-only connection for the
event loop's own thread: a point read costs 8 microseconds there and 120 to 440 through another thread. Use it for
nothing that scans.

Plain `sqlite3` rather than aiosqlite: a transaction of seven statements is one hop between threads here, not seven
(bench/store.py prints both).

A job must be a function of the database alone, plus state that `on_rollback` puts right. `before_commit`, `on_commit`,
`on_group` (how many jobs a commit had) and, after anything was undone, `on_rollback` run on the writer's thread. What
`on_commit` returns runs on the event loop before any caller hears of the commit.

A caller that is cancelled stops its work: a write that has not begun is dropped, a read is interrupted. A write that
has begun stands, and its `after` is told. Tests: tests/node/test_database.py.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from node.errors import Problem

MAX_GROUP = 100
"""Jobs in one commit: enough to make fsync cheap per job, few enough to keep the last one waiting briefly."""
READERS = 5
STOP_STEPS = 10_000
"""Steps of SQLite's machine between two looks whether a read is still wanted: a fraction of a millisecond."""
BUSY_TIMEOUT_MS = 5_000
CACHE_KIB = 4_096
WAL_LIMIT_BYTES = 16 << 20
PAGE_BYTES = 4096

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


class _Request(NamedTuple):
    job: Job[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    after: Callable[[Any], None]


class _Outcome(NamedTuple):
    request: _Request
    result: Any
    error: BaseException | None


class _Reading:
    """A read on its way. SQLite asks `stopped` as it works: `interrupt()` would miss a read between two statements."""

    def __init__(self) -> None:
        self._stop = False

    def stop(self) -> None:
        self._stop = True

    def stopped(self) -> bool:
        return self._stop


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, one at a time. Raises Problem."""
    try:
        return _connect(path, "ro" if read_only else "rwc")
    except sqlite3.Error as error:
        raise _as_problem(error) from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if mode != "ro":
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    return connection


class Database:
    """The file at `path`, open for one process."""

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        self.path = path
        self.before_commit: Callable[[], None] = _nothing
        self.on_commit: Callable[[], Callable[[], None]] = lambda: _nothing
        self.on_rollback: Callable[[], None] = _nothing
        self.on_group: Callable[[int], None] = lambda jobs: None
        self._writer = connect(path)
        if max_bytes:
            self._writer.execute(f"PRAGMA max_page_count = {max_bytes // PAGE_BYTES}")
        self.direct = connect(path, read_only=True)
        self._unbounded: dict[int, int] = {}
        self._idle_readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._readers = [connect(path, read_only=True) for _ in range(READERS)]
        for reader in self._readers:
            self._idle_readers.put(reader)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._closed = False

    def start(self, prepare: Job[T]) -> T:
        """Run `prepare` on the writer's connection (migrations, loading state), then accept jobs. Raises Problem."""
        try:
            result = prepare(self._writer)
        except sqlite3.Error as error:
            raise _as_problem(error) from error
        self._thread.start()
        return result

    @property
    def started(self) -> bool:
        """Whether jobs are accepted."""
        return self._thread.is_alive() and not self._closed

    async def write(self, job: Job[T], after: Callable[[T], None] = lambda result: None) -> T:
        """Run `job` in a transaction; return when it is on disk. Raises what the job raises, or Problem 507 or 500.

        `after` is told the result on the event loop, also when the caller was cancelled while the job ran.
        """
        if self._closed:
            raise Problem(503, "closing", "the node is stopping", "try again when it runs")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._requests.put(_Request(job, loop, future, after))
        return await future

    async def read(self, job: Job[T]) -> T:
        """Run `job` on a reader's thread, in one snapshot of the database."""
        reading = _Reading()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, job, reading)
        except asyncio.CancelledError:
            reading.stop()
            raise

    async def bound_cache(self, kib: int) -> None:
        """Let every connection keep this much of the file in memory, and give back what it has beyond."""
        self._unbounded = {id(reader): kib for reader in self._readers}
        _bound(self.direct, kib)
        await asyncio.gather(*(self.read(_look) for _ in self._readers))  # who is busy follows at its next read
        await self.write(lambda connection: _bound(connection, kib))

    def close(self) -> None:
        """Finish the jobs that were accepted, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            self._requests.put(None)
            self._thread.join()
        self._pool.shutdown()
        for connection in (self.direct, *self._readers):
            connection.close()
        with suppress(sqlite3.Error):  # on a full disk the log stays, and the next start reads it
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writer.close()

    def _read(self, job: Job[T], reading: _Reading) -> T:
        connection = self._idle_readers.get()
        try:
            if (kib := self._unbounded.pop(id(connection), None)) is not None:
                _bound(connection, kib)
            connection.execute("BEGIN")
            connection.set_progress_handler(reading.stopped, STOP_STEPS)
            return job(connection)
        finally:
            connection.set_progress_handler(None, 0)
            connection.execute("ROLLBACK")
            self._idle_readers.put(connection)

    def _work(self) -> None:
        open_for_jobs = True
        while open_for_jobs:
            group = [self._requests.get()]
            while len(group) < MAX_GROUP:
                try:
                    group.append(self._requests.get_nowait())
                except Empty:
                    break
            open_for_jobs = None not in group
            requests = [request for request in group if request is not None and not request.future.cancelled()]
            if requests:
                self._commit(requests)

    def _commit(self, requests: list[_Request]) -> None:
        """Run one group of jobs and commit it: the only commit point of the database."""
        outcomes: list[_Outcome] = []
        announce = _nothing
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for request in requests:
                outcomes.append(self._run(request))
            self.before_commit()
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self.on_rollback()
            problem = _as_problem(error)
            outcomes = [_Outcome(request, None, problem) for request in requests]
        else:
            self.on_group(len(requests))
            announce = self.on_commit()
        _resolve(requests[0].loop, announce, outcomes)

    def _run(self, request: _Request) -> _Outcome:
        self._writer.execute("SAVEPOINT job")
        try:
            result = request.job(self._writer)
        except BaseException as error:  # whatever it is, it belongs to the caller that waits for this job
            if not self._writer.in_transaction:  # a full disk has undone the whole group
                raise sqlite3.OperationalError(str(error)) from error
            self._writer.execute("ROLLBACK TO job")
            self._writer.execute("RELEASE job")
            self.on_rollback()
            return _Outcome(request, None, _as_problem(error) if isinstance(error, sqlite3.Error) else error)
        self._writer.execute("RELEASE job")
        return _Outcome(request, result, None)


def _as_problem(error: sqlite3.Error) -> Problem:
    if "full" in str(error):
        return Problem(
            507,
            "store_full",
            "the disk, or this node's share of it (store_max_mb), is full; nothing was written",
            "free some space or raise store_max_mb; what was stored before is safe",
        )
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Problem(
            500,
            "database_damaged",
            f"the database is damaged: {error}",
            "restore a backup; or move cortex.db* elsewhere and start again: peers fill a new one with all they have",
        )
    return Problem(500, "store_failed", f"SQLite: {error}; nothing was written", "run: cortex-node doctor")


def _resolve(loop: asyncio.AbstractEventLoop, announce: Callable[[], None], outcomes: list[_Outcome]) -> None:
    def tell() -> None:
        announce()
        for request, result, error in outcomes:
            if error is None:
                request.after(result)
            if request.future.done():  # the caller was cancelled meanwhile; its job stands as committed
                continue
            if error is None:
                request.future.set_result(result)
            else:
                request.future.set_exception(error)

    if not loop.is_closed():
        loop.call_soon_threadsafe(tell)


def _bound(connection: sqlite3.Connection, kib: int) -> None:
    connection.execute(f"PRAGMA cache_size = -{kib}")
    connection.execute("PRAGMA shrink_memory")


def _look(connection: sqlite3.Connection) -> None:
    """A read of nothing."""


def _nothing() -> None:
    """No listener."""
