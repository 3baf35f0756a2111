"""What the core of sync may read of this node: sync.replica.Replica over the store. Tests: tests/node/test_carrier.py.

All of it runs on the event loop's thread and reads committed state.
"""

from collections.abc import Callable, Mapping, Sequence

from node import lags
from node.store import Store
from sync.merkle import Leaf
from sync.replica import Rows


class Carrier:
    """The store as sync sees it. `patterns`: the projects that this node carries and may read."""

    def __init__(self, store: Store, patterns: Sequence[str], now_ms: Callable[[], int]) -> None:
        self._store = store
        self._patterns = tuple(patterns)
        self._now_ms = now_ms

    def carries(self) -> Sequence[str]:
        return self._patterns

    def projects(self) -> Sequence[str]:
        return self._store.projects()

    def vector(self, project: str) -> Mapping[bytes, int]:
        return self._store.vector(project)

    def root(self, project: str) -> bytes:
        return self._store.root(project)

    def ops_after(self, project: str, author: bytes, seq: int, max_ops: int, max_bytes: int) -> Sequence[bytes]:
        return self._store.ops_after(project, author, seq, max_ops, max_bytes)

    def lacking(self, project: str, vector: Mapping[bytes, int]) -> tuple[int, int]:
        return lags.lacking(self._store.database.direct, project, self._store.vector(project), vector)

    def sums(self, project: str, level: int, place: int) -> Mapping[int, Leaf]:
        return self._store.sums(project, level, place)

    def rows(self, project: str, level: int, place: int, most: int) -> Rows:
        return self._store.rows(project, level, place, most)

    def op(self, project: str, digest: bytes) -> bytes | None:
        return self._store.op(project, digest)

    def content(self, project: str, level: int, place: int, salt: bytes) -> bytes:
        return self._store.content(project, level, place, salt)

    def wall_ms(self) -> int:
        return self._now_ms()
