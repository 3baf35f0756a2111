"""How often what is known of a project or a fact has changed: what a cached answer is checked against.

A *scope* is what an answer depends on: a fact's id, a project (`shown.scope`), or EVERYTHING. Each has a *generation*,
which moves twice with a commit that touches it: before SQLite's COMMIT, and after it, before any caller hears of it. In
between there is none. So an answer that was computed at a generation is the present one while the generation is the
same; there is no moment at which a committed write can be read past a cache that still has the older answer.

Generations live in a fixed table, where a scope's place is its hash: nothing grows with the number of facts, and two
scopes that share a place only cost each other a miss. They begin anew with the process.

`begin` and `end` are called by the writer's thread, `of` by the event loop's, `move` by any.
Tests: tests/node/test_generations.py; tests/node/test_cache.py for the law.
"""

import threading
from collections.abc import Iterable
from typing import Final

EVERYTHING: Final = "*"
"""The scope of answers about all projects. Moves with every commit that moves any."""
PLACES: Final = 4_096
"""With 500 answers kept, a write elsewhere costs one of them one time in eight; the table has 33 KiB."""


class Generations:
    """The generations of one store."""

    def __init__(self) -> None:
        self._counts = [0] * PLACES  # odd: a commit that touches it is under way
        self._begun: set[int] = set()
        self._lock = threading.Lock()

    def of(self, scope: str) -> int | None:
        """The generation of a scope; None while it is moving, when nothing about it can be told from memory."""
        count = self._counts[hash(scope) % PLACES]
        return None if count % 2 else count

    def begin(self, scopes: Iterable[str]) -> None:
        """A commit that touches `scopes` is about to happen, or just did. Each that has begun already stays so."""
        with self._lock:
            for place in _places(scopes) - self._begun:
                self._counts[place] += 1
                self._begun.add(place)

    def end(self) -> None:
        """What has begun is committed, or undone."""
        with self._lock:
            for place in self._begun:
                self._counts[place] += 1
            self._begun.clear()

    def move(self, scopes: Iterable[str] | None = None) -> None:
        """What is told of `scopes`, or of all, changed in memory, without a commit."""
        with self._lock:
            for place in range(PLACES) if scopes is None else _places(scopes):
                self._counts[place] += 2


def _places(scopes: Iterable[str]) -> set[int]:
    places = {hash(scope) % PLACES for scope in scopes}
    return places | {hash(EVERYTHING) % PLACES} if places else places
