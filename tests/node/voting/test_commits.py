"""One batch at a time, and an error is no answer: nothing is committed twice, nothing is given up that may be there."""

import asyncio
from pathlib import Path

import pytest

from ledger import log
from ledger.log import Batch, Head
from ledger.quorum import Moved, NoQuorum, Solo
from node.breaker import FAILURES, REST_S, Refused, State
from node.database import Database
from node.migrations import migrate
from node.voting import commits
from node.voting.commits import Commits, OneDisk
from node.voting.table import Table
from tests.ledger.world import NOW_MS, Mesh, drafts


class Far:
    """A quorum that does with each call what it is told, and well when it is told nothing."""

    def __init__(self) -> None:
        self.mesh = Mesh().found()
        self.solo = Solo(self.mesh.storage)
        self.faults: list[str] = []
        self.sent: list[Batch] = []

    def batch(self, start: int = 0) -> Batch:
        return log.plan(self.mesh.storage, drafts(2, start=start), NOW_MS)[0]

    async def head(self) -> Head:
        await self._fault()
        return self.solo.head()

    async def commit(self, batch: Batch) -> None:
        self.sent.append(batch)
        if self.faults[:1] == ["stored"]:
            self.solo.commit(batch)
        await self._fault()
        self.solo.commit(batch)

    async def _fault(self) -> None:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "hangs":
            await asyncio.get_running_loop().create_future()
        elif fault:
            raise NoQuorum(fault)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def far() -> Far:
    return Far()


async def test_a_batch_that_is_stored_is_stored(far: Far) -> None:
    queue = Commits(far, Clock())
    assert not await queue.settle(), "there is nothing to find out"
    assert await queue.commit(far.batch()) and await queue.commit(far.batch(2))
    assert far.solo.head().size == 7


async def test_a_head_that_has_moved_is_an_answer(far: Far) -> None:
    queue = Commits(far, Clock())
    late = far.batch()
    far.solo.commit(far.batch(5))
    assert not await queue.commit(late)
    assert not await queue.settle() and await queue.commit(far.batch())


@pytest.mark.parametrize("fault", ["stored", "not stored"])
async def test_after_an_error_the_head_says_what_became_of_it(far: Far, fault: str) -> None:
    queue = Commits(far, Clock())
    far.faults = [fault, "no head", "no head"]
    batch = far.batch()
    with pytest.raises(NoQuorum):
        await queue.commit(batch)
    for _ in range(2):
        with pytest.raises(NoQuorum, match="no head"):
            await queue.settle()
    with pytest.raises(AssertionError):
        await queue.commit(far.batch(7))
    assert await queue.settle() and not await queue.settle()
    assert far.solo.head() == batch.after and far.sent == ([batch] if fault == "stored" else [batch, batch])


async def test_what_others_overtook_is_given_up(far: Far) -> None:
    queue = Commits(far, Clock())
    far.faults = ["not stored"]
    with pytest.raises(NoQuorum):
        await queue.commit(far.batch())
    far.solo.commit(far.batch(5))
    assert await queue.settle() and len(far.sent) == 1


async def test_what_a_takeover_made_impossible_is_forgotten(far: Far) -> None:
    queue = Commits(far, Clock())
    far.faults = ["not stored"]
    with pytest.raises(NoQuorum):
        await queue.commit(far.batch())
    queue.forget()
    assert not await queue.settle()


async def test_a_quorum_that_hangs_is_left_alone_for_a_while(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "TIMEOUT_S", 0.001)
    clock = Clock()
    queue = Commits(far, clock)
    far.faults = ["hangs"] * FAILURES
    batch = far.batch()
    with pytest.raises(TimeoutError):
        await queue.commit(batch)
    for _ in range(FAILURES - 1):
        with pytest.raises(TimeoutError):
            await queue.settle()
    assert queue.breaker.state is State.OPEN
    with pytest.raises(Refused):
        await queue.settle()
    clock.now += REST_S
    monkeypatch.undo()
    assert await queue.settle() and far.solo.head() == batch.after


async def test_one_disk_compares_and_appends(tmp_path: Path, far: Far) -> None:
    database = Database(tmp_path / "cortex.db")
    database.start(lambda connection: migrate(connection, NOW_MS))
    try:
        disk = OneDisk(database)
        assert await disk.head() == log.EMPTY
        with pytest.raises(Moved):
            await disk.commit(far.batch())
        mesh = Mesh()
        first, _ = log.plan(mesh.storage, [log.Draft(log.Kind.GENESIS, b"genesis")], NOW_MS)
        await disk.commit(first)
        assert await disk.head() == first.after
        assert await database.read(lambda connection: Table(connection).read_texts(0, 9)) == [b"genesis"]
    finally:
        database.close()
