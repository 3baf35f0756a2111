"""Answers kept in memory (L1) and, on hubs, in Redis (L2), each as good as one computed now.

An answer is kept as its JSON under what was asked, with the scope that it depends on, that scope's generation from
*before* it was computed, and the time during which it holds. It is given again only while the generation is the same
and the time has not run out or been set back. Nothing is ever invalidated and no age is trusted: a write, local or
synced, moves the generation with its commit (node/generations.py), and what is out of date is simply not found.

A read that overlaps a commit may see either side of it; then its scope has moved since, and what it saw is not kept.
Callers get their own copy of an answer, so none can spoil another's. Problems are never kept.

L2 is asked only for what is dear (`deep`): a fact by its id costs less than asking. Its names carry the generation and
a secret of this process, so nothing stale or foreign can be read from it; see node/redis_tier.py.

All of it runs on the event loop's thread. Tests: tests/node/test_cache.py.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from node.generations import Generations
from node.metrics import Metric

ENTRY_BYTES: Final = 500
"""What an entry takes beside its key and its answer: a place in the table and five objects (400 measured), malloc."""
LARGEST_SHARE: Final = 8
"""An answer larger than this part of the whole is not kept: it would drive out everything else."""


class Computed(NamedTuple):
    """An answer, the scope that it turned out to depend on, and the times (ms, from and before) between which it holds.

    No times: it does not depend on the time. No scope: it is not to be kept.
    """

    answer: Any
    scope: str | None
    since_ms: int | None = None
    until_ms: int | None = None


class Entry(NamedTuple):
    """A kept answer."""

    scope: str
    generation: int
    since_ms: int | None
    until_ms: int | None
    answer: bytes

    def holds(self, now_ms: int) -> bool:
        """Whether it may be given at this time. A clock that was set back has left the time for which it was made."""
        return (self.since_ms is None or self.since_ms <= now_ms) and (self.until_ms is None or now_ms < self.until_ms)


class Lru:
    """Entries by key, the least recently used leaving first; bounded in number and in bytes."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        self.drop(key)
        if _size(key, entry) * LARGEST_SHARE > self.max_bytes:
            return
        self._entries[key] = entry
        self.bytes += _size(key, entry)
        self._shrink(self.max_entries, self.max_bytes)

    def drop(self, key: bytes) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.bytes -= _size(key, entry)

    def bound(self, max_entries: int, max_bytes: int) -> None:
        """Other bounds from now on."""
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._shrink(max_entries, max_bytes)

    def _shrink(self, max_entries: int, max_bytes: int) -> None:
        while len(self._entries) > max_entries or self.bytes > max_bytes:
            key, entry = self._entries.popitem(last=False)
            self.bytes -= _size(key, entry)


class Depth(Protocol):
    """The second tier. Neither call raises, and neither takes long."""

    async def get(self, key: bytes, scope: str, generation: int) -> Entry | None:
        """What is kept for a key at this very generation."""

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an entry, some time soon, if possible."""


class Cache:
    """Answers of one node. `hits` and `misses` count by tier, `l1` and `l2`."""

    def __init__(
        self,
        generations: Generations,
        now_ms: Callable[[], int],
        lru: Lru,
        hits: Metric,
        misses: Metric,
        depth: Depth | None = None,
    ) -> None:
        self.lru = lru
        self.depth = depth
        self._generations = generations
        self._now_ms = now_ms
        self._hits = hits
        self._misses = misses

    async def answer(
        self, key: bytes, scope: str, compute: Callable[[], Awaitable[Computed]], *, deep: bool = False
    ) -> Any:
        """What `compute` would answer now. `key` says what is asked, `scope` what the answer depends on."""
        generation = self._generations.of(scope)
        if generation is None:
            return (await compute()).answer
        entry = self.lru.get(key)
        if entry is not None and self._good(entry, scope, generation):
            self._hits.add(1, "l1")
            return msgspec.json.decode(entry.answer)
        self._misses.add(1, "l1")
        if deep and self.depth is not None:
            entry = await self.depth.get(key, scope, generation)
            if entry is not None and self._good(entry, scope, generation):
                self._hits.add(1, "l2")
                self._keep(key, entry)
                return msgspec.json.decode(entry.answer)
            self._misses.add(1, "l2")
        computed = await compute()
        if computed.scope == scope:
            entry = Entry(scope, generation, computed.since_ms, computed.until_ms, msgspec.json.encode(computed.answer))
            if self._keep(key, entry) and deep and self.depth is not None:
                self.depth.put(key, entry)
        return computed.answer

    def _good(self, entry: Entry, scope: str, generation: int) -> bool:
        return (entry.scope, entry.generation) == (scope, generation) and entry.holds(self._now_ms())

    def _keep(self, key: bytes, entry: Entry) -> bool:
        if self._generations.of(entry.scope) != entry.generation:  # it has moved on meanwhile
            return False
        self.lru.put(key, entry)
        return True


def _size(key: bytes, entry: Entry) -> int:
    return len(key) + len(entry.answer) + ENTRY_BYTES
