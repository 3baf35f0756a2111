"""Batches put to the quorum, one at a time, until it is known what became of each.

An error of the quorum is no answer: what timed out may be committed later. So the batch is kept, and before any other
is sent the head is read and says (ledger.quorum.outcome) whether it is there, may be sent again, or can never be. A
crash forgets the batch and needs to remember nothing: its texts are looked for in the ledger before they are planned.

The quorum stands behind a breaker, since it may hang. `OneDisk` is the quorum of one: this node's own database.
Tests: tests/node/voting/test_commits.py.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from ledger import quorum
from ledger.log import Batch, Head
from ledger.quorum import Moved, Outcome, Quorum, Solo
from node.breaker import SLOW_S, Breaker, guarded
from node.database import Database
from node.voting.table import Table

TIMEOUT_S: Final = SLOW_S


class OneDisk:
    """ledger.quorum.Solo as jobs of the database: a `Quorum` of one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self) -> Head:
        return await self._database.write(lambda connection: Solo(Table(connection)).head())

    async def commit(self, batch: Batch) -> None:
        await self._database.write(lambda connection: Solo(Table(connection)).commit(batch))


class Commits:
    """What one hub has put to its quorum. `now`: seconds that never run backwards."""

    def __init__(self, quorum: Quorum, now: Callable[[], float]) -> None:
        self.breaker = Breaker("quorum")
        self._quorum = quorum
        self._now = now
        self._uncertain: Batch | None = None

    async def commit(self, batch: Batch) -> bool:
        """Whether it is durable; False: the head has moved, and it never will be. `settle` comes before the next.

        Raises NoQuorum, Refused, TimeoutError or what the database raises; then nothing is known yet.
        """
        assert self._uncertain is None, "settle the one before"
        self._uncertain = batch
        return await self._send(batch)

    async def settle(self) -> bool:
        """Find out what became of an uncertain batch, if there is one; whether there was. Raises as `commit` does."""
        batch = self._uncertain
        if batch is None:
            return False
        head = await guarded(self.breaker, self._quorum.head, TIMEOUT_S, self._now)
        if quorum.outcome(batch, head) is Outcome.NOT_YET:
            await self._send(batch)
        self._uncertain = None
        return True

    def forget(self) -> None:
        """A takeover has begun an epoch: nothing of the one before can arrive any longer."""
        self._uncertain = None

    async def _send(self, batch: Batch) -> bool:
        sent = True
        try:
            await guarded(self.breaker, partial(self._quorum.commit, batch), TIMEOUT_S, self._now)
        except Moved:
            sent = False
        self._uncertain = None
        return sent
