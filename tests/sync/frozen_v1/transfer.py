"""Moving ops: the two directions of a round, each a row of numbered batches with a window.

`Outgoing` cuts what the peer lacks into batches: projects in order (the reserved one first), author by author, each
chain upwards from what the peer's vector says it has. At most `window` batches, granted by the receiver, are under
way.

`Incoming` takes batches in, and only such as were asked for: of a project of this round, above the vector that we told
the peer, each author's ops upwards. A batch is acknowledged once it is committed, so the window is also what a slow
disk lets through, and what a peer can make us hold is bounded by window x MAX_BATCH_BYTES.

Neither remembers anything beyond its round: a connection that breaks resumes because the vector moves with the commit.
Tests: tests/sync/test_transfer.py.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crdt.op import decode
from tests.sync.frozen_v1.errors import ProtocolError, Reason
from tests.sync.frozen_v1.messages import MAX_BATCH_BYTES, MAX_BATCH_OPS, Ack, Batch, Done, Verified
from tests.sync.frozen_v1.replica import Replica

WINDOW = 4
"""Batches that we let a peer have under way: enough that signatures, disk and link work at once; 256 KiB of ops."""


@dataclass(slots=True)
class Chain:
    """One author's ops in one project, from above seq `after`."""

    project: str
    author: bytes
    after: int


class Outgoing:
    """What the peer lacks. `chains` come in the order in which they are sent; `mesh` is 32 bytes.

    `lacking`: how many ops that is, and when the oldest was written. More may come to be here while they are sent.
    """

    def __init__(
        self, replica: Replica, mesh: bytes, chains: Iterable[Chain], window: int, lacking: tuple[int, int] = (0, 0)
    ) -> None:
        self._replica = replica
        self._mesh = mesh
        self._chains = deque(chains)
        self._window = window
        self._sent = 0
        self._acked = 0
        self._said_done = False
        self._lacking, self._oldest_ms = lacking
        self._sizes: list[int] = []
        self.ops = 0
        self.fresh = 0

    @property
    def lag(self) -> tuple[int, int]:
        """How many ops are not on the peer's disk yet, and when the oldest of all was written; 0 when there is none."""
        left = max(0, self._lacking - self.ops) + sum(self._sizes[self._acked :])
        return left, self._oldest_ms if left else 0

    @property
    def finished(self) -> bool:
        """Everything is sent, and on the peer's disk."""
        return self._said_done and self._acked == self._sent

    def fill(self) -> list[Batch | Done]:
        """The batches that the window lets through now; after the last one, `Done`."""
        messages: list[Batch | Done] = []
        while not self._said_done and self._sent - self._acked < self._window:
            batch = self._next()
            messages.append(batch or Done())
            self._said_done = batch is None
        return messages

    def acknowledge(self, ack: Ack) -> None:
        """The peer has committed the oldest batch under way."""
        if ack.number != self._acked + 1 or ack.number > self._sent:
            raise ProtocolError(
                Reason.UNEXPECTED, f"batch {ack.number} acknowledged, {self._acked} of {self._sent} were"
            )
        self._acked += 1
        self.fresh += ack.fresh

    def _next(self) -> Batch | None:
        ops: list[bytes] = []
        size = 0
        project = ""
        while self._chains and len(ops) < MAX_BATCH_OPS and size < MAX_BATCH_BYTES:
            chain = self._chains[0]
            if ops and chain.project != project:
                break
            room = MAX_BATCH_BYTES - size
            found = self._replica.ops_after(chain.project, chain.author, chain.after, MAX_BATCH_OPS - len(ops), room)
            if not found:
                self._chains.popleft()
                continue
            if ops and len(found[0]) > room:
                break
            project = chain.project
            chain.after = decode(self._mesh, found[-1]).seq
            ops += found
            size += sum(map(len, found))
        if not ops:
            return None
        self._sent += 1
        self.ops += len(ops)
        self._sizes.append(len(ops))
        return Batch(self._sent, project, tuple(ops), max(0, self._lacking - self.ops), self._oldest_ms)


class Incoming:
    """What we lack. `told`: project to the vector that we told the peer in this round."""

    def __init__(self, told: Mapping[str, Mapping[bytes, int]], window: int = WINDOW) -> None:
        self._told = told
        self._window = window
        self._newest: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self._received = 0
        self._committed = 0
        self._heard_done = False
        self._sizes: list[int] = []
        self._left_ops = 0
        self._oldest_ms = 0
        self.ops = 0
        self.fresh = 0

    @property
    def lag(self) -> tuple[int, int]:
        """How many of the peer's ops are not on our disk yet, as it says, and when the oldest of all was written."""
        left = self._left_ops + sum(self._sizes[self._committed :])
        return left, self._oldest_ms if left else 0

    @property
    def finished(self) -> bool:
        """The peer has said that it has nothing more, and all of it is on our disk."""
        return self._heard_done and not self.waits_for_disk

    @property
    def waits_for_disk(self) -> bool:
        """Whether a batch is being committed: then it is our turn, not the peer's."""
        return self._committed < self._received

    def take(self, batch: Verified) -> None:
        """Check a batch that arrived. Raises ProtocolError, and then nothing of it may be kept."""
        if self._heard_done or batch.number != self._received + 1:
            raise ProtocolError(Reason.UNEXPECTED, f"batch {batch.number} after batch {self._received}")
        if self._received - self._committed >= self._window:
            raise ProtocolError(Reason.WINDOW, f"more than {self._window} batches under way")
        if batch.project not in self._told:
            raise ProtocolError(Reason.NOT_ASKED, "ops of a project that is not part of this round")
        vector = self._told[batch.project]
        for op in batch.ops:
            if op.project != batch.project:
                raise ProtocolError(Reason.NOT_ASKED, "an op of another project than its batch")
            newest = self._newest.get((batch.project, op.author))
            # Two ops with one dot follow each other by hash: a fork is kept, both sides of it.
            if op.seq <= vector.get(op.author, 0) or (newest and (op.seq, op.hash) <= newest):
                raise ProtocolError(Reason.NOT_ASKED, f"an op that we said we have, or out of order (seq {op.seq})")
            self._newest[batch.project, op.author] = (op.seq, op.hash)
        self._received += 1
        self._sizes.append(len(batch.ops))
        self._left_ops, self._oldest_ms = batch.left_ops, batch.oldest_ms
        self.ops += len(batch.ops)

    def committed(self, fresh: int) -> Ack:
        """The oldest batch not yet on disk now is; `fresh` of its ops were new."""
        self._committed += 1
        self.fresh += fresh
        return Ack(self._committed, fresh)

    def done(self) -> None:
        """The peer has nothing more."""
        if self._heard_done:
            raise ProtocolError(Reason.UNEXPECTED, "done twice")
        self._heard_done = True
