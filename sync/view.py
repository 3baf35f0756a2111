"""Whom to be connected to: of a thousand known addresses a few, chosen so that the mesh stays in one piece.

Addresses to *keep* (configured, added by hand) are dialled always. Of those *heard of* (discovery, peers) DIALLED are
dialled at chance, less what is connected of the kept ones; so it is we who choose them, and nobody can surround us. A
node takes KEPT connections in all, more only from who has no other, and tells the rest that it is full: they go
elsewhere. A graph in which each node chooses three others at chance is connected unless somebody tries hard.

One chosen connection is exchanged for another now and then: soon while a project of ours finds nobody who shares it,
else every few hours, so that no clique lasts.

Like HyParView's active view (Leitão, Pereira and Rodrigues, DSN 2007), with the addresses heard of as its passive one.
Tests: tests/sync/test_view.py; a thousand nodes: tests/sim/test_crowd.py.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Final

from sync.dialling import Targets, jittered
from sync.replica import Chance

DIALLED: Final = 3
KEPT: Final = 8
"""Three that we chose and, in the mean, three that chose us; the rest is room for newcomers."""
MAX_SESSIONS: Final = 64
"""Of a hub, and of a node that others have nobody but: 64 windows of 256 KiB are 16 MiB, the most that a node of 128 MB
should hold."""
MAX_HEARD: Final = 256
"""Addresses heard of that are remembered: a sample of a larger mesh, at chance."""
SEARCH_S: Final = 30.0
SHUFFLE_S: Final = 7_200.0
"""A handshake is 3 KB: 36 KB a day."""


class View:
    """The addresses of one node, and which of them to dial when."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._kept = Targets(chance)
        self._heard = Targets(chance)
        self._next_search = inf
        self._next_shuffle = inf

    @property
    def deadline(self) -> float:
        """When to call `take_due` and `exchange`."""
        heard = self._heard.deadline if self._free() else inf
        return min(self._kept.deadline, heard, self._next_search)

    # Addresses

    def keep(self, address: str, now: float) -> None:
        """Dial this one always, now if it isn't connected."""
        self._heard.drop(address)
        self._kept.want(address, now)

    def hear(self, address: str, now: float) -> None:
        """Somebody may be found there; one that is known already is tried soon again."""
        if address in self._kept:
            self._kept.want(address, now)
            return
        if address not in self._heard and len(self._heard) >= MAX_HEARD:
            waiting = self._heard.waiting()
            if not waiting or self._chance.uniform(0, 1) < 0.5:
                return
            self._heard.drop(self._chance.sample(waiting, 1)[0])
        self._heard.want(address, now)
        if self._next_search == inf:
            self._next_search = now + jittered(SEARCH_S, self._chance)
            self._next_shuffle = now + jittered(SHUFFLE_S, self._chance)

    def drop(self, address: str) -> None:
        """Dial this one no longer."""
        self._kept.drop(address)
        self._heard.drop(address)

    # What came of it

    def reached(self, address: str, peer: str) -> None:
        """`peer` answered at `address`."""
        for targets in (self._kept, self._heard):
            targets.reached(address, peer)

    def failed(self, address: str, now: float) -> None:
        """Nobody answered there, or somebody whom we don't want."""
        for targets in (self._kept, self._heard):
            targets.failed(address, now)

    def agreed(self, peer: str) -> None:
        """The session with `peer` works."""
        for targets in (self._kept, self._heard):
            targets.agreed(peer)

    def lost(self, peer: str, now: float) -> None:
        """The session with `peer` has ended."""
        for targets in (self._kept, self._heard):
            targets.lost(peer, now)

    # Choosing

    def take_due(self, now: float) -> Iterator[str]:
        """The addresses to dial now."""
        yield from self._kept.take_due(now)
        ready = self._heard.waiting(now) if self._free() else []
        for address in self._chance.sample(ready, min(self._free(), len(ready))):
            self._heard.dial(address)
            yield address

    def exchange(self, now: float, useless: Callable[[str], bool]) -> str | None:
        """A peer to part with, so that another takes its place; `useless`: it shares no project of ours.

        Only when there is somebody else to try.
        """
        if now < self._next_search:
            return None
        self._next_search = now + jittered(SEARCH_S, self._chance)
        chosen, others = self._heard.peers, len(self._heard.waiting())
        if not chosen or not others or self._free():
            return None
        candidates = [peer for peer in chosen if useless(peer)]
        if not candidates and now >= self._next_shuffle:
            self._next_shuffle = now + jittered(SHUFFLE_S, self._chance)
            candidates = chosen
        return self._chance.sample(candidates, 1)[0] if candidates else None

    def _free(self) -> int:
        return max(0, DIALLED - self._kept.active - self._heard.active)


def welcome(connected: int, me_hub: bool, their_hub: bool, their_peers: int) -> bool:
    """Whether to take one who dialled us, though `connected` others are here already."""
    limit = MAX_SESSIONS if me_hub or their_hub or not their_peers else KEPT
    return connected < limit
