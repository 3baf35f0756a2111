"""Hybrid logical clocks: timestamps that order writes without agreeing on the time.

A timestamp is one integer, `wall_ms << 16 | counter`, so that comparing timestamps is comparing integers and SQLite can
hold one in a column. It never runs behind a timestamp that this node has issued or received, and it follows the wall
clock when the wall clock moves. Two nodes may issue equal timestamps; whoever orders writes breaks the tie by author.

Nothing here reads a clock: the caller passes `now_ms`, milliseconds since 1970 UTC. A remote timestamp more than
`ahead_ms` ahead of `now_ms` is reported as held and moves nothing, so one node with a broken clock cannot drag the
others forward. The bound is future-only: a write from the past is as welcome as any.

Kulkarni et al., "Logical Physical Clocks", OPODIS 2014. Laws: tests/crdt/test_hlc.py.
"""

COUNTER_BITS = 16
MAX_COUNTER = (1 << COUNTER_BITS) - 1
MAX_TIMESTAMP = (1 << 63) - 1
"""A timestamp fits a signed 64-bit integer: wall clocks up to the year 6429."""

DEFAULT_AHEAD_MS = 300_000
"""How far ahead of our clock another clock may be: five minutes, well above what NTP leaves and a user notices."""


def timestamp(wall_ms: int, counter: int = 0) -> int:
    """Pack `wall_ms` (milliseconds since 1970 UTC) and `counter` (0..65535) into one timestamp."""
    return wall_ms << COUNTER_BITS | counter


def wall_ms(stamp: int) -> int:
    """The wall-clock part of a timestamp, in milliseconds since 1970 UTC."""
    return stamp >> COUNTER_BITS


def horizon(now_ms: int, ahead_ms: int = DEFAULT_AHEAD_MS) -> int:
    """The highest timestamp that is not held at `now_ms`."""
    return timestamp(now_ms + ahead_ms, MAX_COUNTER)


class Clock:
    """The clock of one node: the last timestamp that it issued or accepted.

    The owner persists `last` with the ops it stamps and passes it back after a restart, so time never runs backwards,
    whatever the wall clock says meanwhile.
    """

    __slots__ = ("ahead_ms", "last")

    def __init__(self, last: int = 0, ahead_ms: int = DEFAULT_AHEAD_MS) -> None:
        self.last = last
        self.ahead_ms = ahead_ms

    def issue(self, now_ms: int) -> int:
        """A timestamp above every one issued or accepted before.

        When the counter is full the wall part moves a millisecond ahead; 65,536 writes in one millisecond are not seen.
        """
        self.last = max(self.last + 1, timestamp(max(now_ms, 0)))
        return self.last

    def observe(self, stamp: int, now_ms: int) -> bool:
        """Take note of a received timestamp; False, and nothing moves, when it is held."""
        if stamp > horizon(now_ms, self.ahead_ms):
            return False
        self.last = max(self.last, stamp)
        return True
