"""When to compare with peers though nothing is known to differ: often after something did, seldom when all is quiet.

One timer for all peers of a node. Its interval is SHORTEST_S after something differed and doubles, tick by tick, up to
the longest. A round that a peer began, and that found nothing, counts for ours: a tick begins ROUNDS of them less those
that were heard since the last one, but always one, so that no connection is left out for ever.

Trickle, RFC 6206, for peers that are connected: Imin, Imax and k are SHORTEST_S, `longest_s` and ROUNDS. Its rule to
listen in the first half of an interval is for radios that share the air; here jitter keeps nodes apart.
Tests: tests/sync/test_trickle.py.
"""

from math import inf
from typing import Final

from sync.dialling import jittered
from sync.replica import Chance

SHORTEST_S: Final = 1.0
LONGEST_S: Final = 30.0
"""A quiet round is about 90 bytes, so two peers cost 0.5 MB a day, three times that with TLS and TCP."""
METERED_S: Final = 300.0
"""Where each byte is paid for."""
ROUNDS: Final = 2
"""A tick; with hubs in addition. Two random partners spread news to n nodes in about log2(n) ticks."""


class Trickle:
    """The timer of one node. It stands still until `start`. `longest_s`: between ticks when all is quiet."""

    def __init__(self, chance: Chance, longest_s: float) -> None:
        self._chance = chance
        self._longest_s = longest_s
        self._interval_s = min(SHORTEST_S, longest_s)
        self._heard = 0
        self.due = inf
        """When the next tick is."""

    def start(self, now: float) -> None:
        """There is somebody to compare with."""
        if self.due == inf:
            self.reset(now)

    def stop(self) -> None:
        """There is nobody any more."""
        self.due = inf

    def same(self) -> None:
        """A round that a peer began has found nothing."""
        self._heard += 1

    def reset(self, now: float) -> None:
        """Something differed: look again soon."""
        self._interval_s = min(SHORTEST_S, self._longest_s)
        self.due = min(self.due, now + jittered(self._interval_s, self._chance))

    def tick(self, now: float) -> int:
        """The interval is over: how many rounds to begin. The next interval is twice as long."""
        rounds = max(1, ROUNDS - self._heard)
        self._heard = 0
        self._interval_s = min(2 * self._interval_s, self._longest_s)
        self.due = now + jittered(self._interval_s, self._chance)
        return rounds
