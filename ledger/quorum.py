"""The quorum: whoever makes a batch durable and gives it its place. And the right to ask it: grants.

One interface, two implementations: `Solo`, one hub's own storage, and etcd on three hubs or more (in `node`, since it
does I/O). The rules that both keep are here and are pure:

* An append compares the whole head, not its size, so a hub that is behind or on another history changes nothing.
* An error is not an answer. After one the head is read again, linearizably, and `outcome` tells what became of the
  batch: a time-out was seen to commit later (in two of three trials with etcd).
* Nobody appends without the grant of the current epoch that names its key; two grants for one epoch stop both.

A quorum of one means: committed is one disk. Tests: tests/ledger/test_quorum.py.
"""

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Final, Protocol

from ledger import entry as entries
from ledger import statement
from ledger.entry import Kind
from ledger.log import Batch, Head, Storage
from ledger.statement import BadStatement, Grant


class NoQuorum(Exception):
    """No majority within reach: votes stay pending, nothing is lost. What became of the batch is unknown: `outcome`."""


class Moved(Exception):
    """The head is not the one that the batch was planned on: read again, plan again."""


class NotGranted(Exception):
    """This node may not act as a hub, whatever its configuration says."""


class Outcome(Enum):
    """What became of a batch after an error, by the head that is there now."""

    COMMITTED = "committed"
    NOT_YET = "not_yet"
    """The head has not moved: the same batch may be sent again, and no other, as the first may still arrive."""
    MOVED = "moved"
    """Others went on: find each text (Storage.find) and plan anew what is not there."""


class Quorum(Protocol):
    """Compare and append, linearizable. Both may take seconds, and raise NoQuorum."""

    async def head(self) -> Head:
        """The head that a majority has. Never a new ledger: a head that is missing is an error."""
        ...

    async def commit(self, batch: Batch) -> None:
        """Makes the batch durable on a majority if the head is `batch.before`. Raises Moved, NoQuorum."""
        ...


class Solo:
    """A quorum of one: the hub's own storage. Its calls do not wait; the node makes them where its database lives."""

    engine: Final = "solo"

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def head(self) -> Head:
        return self._storage.head()

    def commit(self, batch: Batch) -> None:
        if self._storage.head() != batch.before:
            raise Moved(f"the head is at {self._storage.head().size} entries, not {batch.before.size}")
        self._storage.commit(batch)


def outcome(batch: Batch, head: Head) -> Outcome:
    """What became of `batch`, by a head that was read linearizably after the error."""
    if head == batch.after:
        return Outcome.COMMITTED
    return Outcome.NOT_YET if head == batch.before else Outcome.MOVED


def current_grant(texts: Iterable[bytes], ledger: bytes, authority: bytes) -> Grant:
    """The grant of the highest epoch among those seen, in the ledger or out of it.

    Raises NotGranted when there is none, when two name that epoch, or when one is not built on the one before it.
    """
    by_epoch: dict[int, dict[bytes, Grant]] = {}
    for text in texts:
        try:
            grant = _verified(Kind.GRANT, text, authority)
        except BadStatement:
            continue  # anybody can make one up: it grants nothing, and stops nobody
        if isinstance(grant, Grant) and grant.ledger == ledger:
            by_epoch.setdefault(grant.epoch, {})[entries.text_hash(text)] = grant
    if not by_epoch:
        raise NotGranted("no grant for this ledger")
    newest = max(by_epoch)
    if len(by_epoch[newest]) > 1:
        raise NotGranted(f"two grants for epoch {newest}: nobody appends until a later one replaces both")
    (grant,) = by_epoch[newest].values()
    if (before := by_epoch.get(newest - 1)) and grant.previous not in before:
        raise NotGranted(f"the grant of epoch {newest} does not name that of epoch {newest - 1}")
    return grant


_verified = lru_cache(maxsize=64)(statement.verify)
"""Asked for with every batch, about the same few texts."""


def check_may_append(grant: Grant, hub_key: bytes, head: Head) -> None:
    """Raises NotGranted unless this hub may append here and now."""
    if hub_key not in grant.hubs:
        raise NotGranted(f"the grant of epoch {grant.epoch} does not name this hub")
    if head.epoch != grant.epoch:
        raise NotGranted(f"this ledger is in epoch {head.epoch}, the newest grant is for {grant.epoch}")
