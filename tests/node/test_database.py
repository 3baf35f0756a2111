"""One writer with group commit: what is acknowledged is on disk, and a job that fails takes nothing else with it."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.database import MAX_GROUP, READERS, Database, Job, connect
from node.errors import EXIT_INTEGRITY, Problem


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "cortex.db")
    opened.start(lambda connection: connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield opened
    opened.close()


def put(number: int) -> Job[int | None]:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", (number,)).lastrowid


async def a_turn_of_the_loop() -> None:
    """Let other tasks run once."""
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


def rows(path: Path) -> list[int]:
    """What another process would see."""
    other = connect(path, read_only=True)
    try:
        return [number for (number,) in other.execute("SELECT n FROM t ORDER BY n")]
    finally:
        other.close()


async def a_turn() -> None:
    """Let every task that is ready run once."""
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await turned


async def test_an_acknowledged_write_is_seen_by_another_process(database: Database) -> None:
    assert await database.write(put(7)) == 7
    assert rows(database.path) == [7]
    assert await database.read(lambda connection: connection.execute("SELECT n FROM t").fetchone()) == (7,)


def test_commits_wait_for_the_disk(database: Database) -> None:
    assert database._writer.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
    assert database._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_jobs_that_arrive_during_a_commit_share_the_next_one(database: Database) -> None:
    busy, go = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        busy.set()
        assert go.wait(10)

    first = asyncio.ensure_future(database.write(hold))
    await asyncio.to_thread(busy.wait, 10)
    waiting = [asyncio.ensure_future(database.write(put(number))) for number in range(2 * MAX_GROUP + 1)]
    while database._requests.qsize() < len(waiting):
        await a_turn_of_the_loop()
    groups: list[int] = []
    database.on_group = groups.append
    go.set()
    await asyncio.gather(first, *waiting)
    assert groups == [1, MAX_GROUP, MAX_GROUP, 1]


async def test_a_failing_job_takes_nothing_with_it(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (50)")
        raise KeyError("mine")

    undone: list[bool] = []
    database.on_rollback = lambda: undone.append(True)
    results = await asyncio.gather(
        database.write(put(1)), database.write(fail), database.write(put(2)), return_exceptions=True
    )
    assert results[0] == 1
    assert isinstance(results[1], KeyError)
    assert results[2] == 2
    assert rows(database.path) == [1, 2]
    assert undone == [True]


async def test_a_constraint_that_fails_is_told_to_its_caller_alone(database: Database) -> None:
    await database.write(put(1))
    results = await asyncio.gather(database.write(put(1)), database.write(put(2)), return_exceptions=True)
    assert isinstance(results[0], Problem)
    assert rows(database.path) == [1, 2]


async def test_a_full_store_refuses_the_write_and_lives_on(tmp_path: Path) -> None:
    database = Database(tmp_path / "small.db", max_bytes=64 * 4096)
    database.start(lambda connection: connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)"))
    stored = 0
    with pytest.raises(Problem) as refused:
        for number in range(1000):
            await database.write(lambda c, n=number: c.execute("INSERT INTO t VALUES (?, zeroblob(8000))", (n,)))
            stored += 1
    assert refused.value.status == 507
    assert stored > 10
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (stored,)
    await database.write(lambda c: c.execute("DELETE FROM t WHERE n < 5"))
    await database.write(lambda c: c.execute("INSERT INTO t VALUES (5000, zeroblob(100))"))
    database.close()


async def test_the_commit_is_announced_before_its_caller_hears(database: Database) -> None:
    heard: list[str] = []
    database.on_commit = lambda: lambda: heard.append("announced")
    await database.write(put(1))
    heard.append("answered")
    assert heard == ["announced", "answered"]


class Held:
    """A job of `database` that has begun and goes on when it is told to."""

    def __init__(self, job: Job[int | None]) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self._job = job

    def __call__(self, connection: sqlite3.Connection) -> int | None:
        self.begun.set()
        assert self.go.wait(10)
        return self._job(connection)


async def test_a_write_whose_caller_is_cancelled_stands_once_it_has_begun(database: Database) -> None:
    told: list[int | None] = []
    held = Held(put(3))
    task = asyncio.ensure_future(database.write(held, after=told.append))
    await asyncio.to_thread(held.begun.wait, 10)
    task.cancel()
    held.go.set()
    await database.write(put(4))
    assert task.cancelled()
    assert rows(database.path) == [3, 4]
    assert told == [3]


async def test_a_write_whose_caller_is_cancelled_is_dropped_before_it_begins(database: Database) -> None:
    held = Held(put(1))
    first = asyncio.ensure_future(database.write(held))
    await asyncio.to_thread(held.begun.wait, 10)
    second = asyncio.ensure_future(database.write(put(2)))
    await a_turn_of_the_loop()
    second.cancel()
    await a_turn_of_the_loop()
    held.go.set()
    await first
    await database.write(put(3))
    assert rows(database.path) == [1, 3]


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"


async def test_a_read_whose_caller_is_cancelled_is_interrupted(database: Database) -> None:
    begun, ended = threading.Event(), threading.Event()

    def forever(connection: sqlite3.Connection) -> None:
        begun.set()
        try:
            connection.execute(ENDLESS).fetchone()
        finally:
            ended.set()

    reads = [asyncio.ensure_future(database.read(forever)) for _ in range(3 * READERS)]
    await asyncio.to_thread(begun.wait, 10)
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    assert await asyncio.to_thread(ended.wait, 10)
    await database.write(put(1))
    many = await asyncio.gather(*(database.read(lambda c: c.execute("SELECT n FROM t").fetchone()) for _ in range(20)))
    assert many == [(1,)] * 20, "every reader is free and whole again"


async def test_every_connection_keeps_what_it_may_also_one_that_was_busy(database: Database) -> None:
    busy, go = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        busy.set()
        assert go.wait(10)

    def kept(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA cache_size").fetchone()[0])

    reading = asyncio.ensure_future(database.read(hold))
    await asyncio.to_thread(busy.wait, 10)
    await database.bound_cache(512)
    go.set()
    await reading
    assert {await database.read(kept) for _ in range(2 * READERS)} == {-512}
    assert await database.write(kept) == kept(database.direct) == -512


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read(lambda connection: connection.execute("INSERT INTO t VALUES (9)"))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.direct.execute("INSERT INTO t VALUES (9)")


async def test_a_read_is_one_snapshot(database: Database) -> None:
    await database.write(put(1))
    between, go_on = threading.Event(), threading.Event()

    def look_twice(connection: sqlite3.Connection) -> tuple[int, int]:
        (before,) = connection.execute("SELECT count(*) FROM t").fetchone()
        between.set()
        assert go_on.wait(10)
        (after,) = connection.execute("SELECT count(*) FROM t").fetchone()
        return before, after

    looking = asyncio.ensure_future(database.read(look_twice))
    await asyncio.to_thread(between.wait, 10)
    await database.write(put(2))
    go_on.set()
    assert await looking == (1, 1)


async def test_closing_finishes_what_was_accepted(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.db")
    database.start(lambda connection: connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    writes = [asyncio.ensure_future(database.write(put(number))) for number in range(20)]
    await a_turn_of_the_loop()
    database.close()
    await asyncio.gather(*writes)
    assert rows(database.path) == list(range(20))
    with pytest.raises(Problem, match="stopping"):
        await database.write(put(99))


def test_a_damaged_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "cortex.db"
    path.write_bytes(b"\xa5" * 8192)
    with pytest.raises(Problem) as refused:
        Database(path)
    assert (refused.value.code, refused.value.exit_code) == ("database_damaged", EXIT_INTEGRITY)


def test_trouble_while_opening_is_a_problem(tmp_path: Path) -> None:
    opened = Database(tmp_path / "cortex.db", 64 * 1024)
    with pytest.raises(Problem, match="is full"):
        opened.start(lambda connection: connection.execute("CREATE TABLE t AS SELECT zeroblob(1000000)"))
    opened.close()
