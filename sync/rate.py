"""How fast a node may send: a token bucket that fresh writes may overdraw and bulk may not.

The bucket fills at `bytes_per_second` up to one second's worth. Bulk (batches of a round) waits until the bucket is no
longer in debt; what is small and fresh is sent at once and paid for by the bulk after it. So the average keeps to the
rate, and a write that somebody waits for never stands behind a backlog. Tests: tests/sync/test_rate.py.
"""


class Bucket:
    """`bytes_per_second`: 0 for as fast as the network is. `now`: seconds on a clock that never runs back."""

    def __init__(self, bytes_per_second: int, now: float) -> None:
        self._rate = bytes_per_second
        self._tokens = float(bytes_per_second)
        self._at = now

    def wait_s(self, now: float) -> float:
        """How long bulk has to wait from now."""
        self._fill(now)
        return -self._tokens / self._rate if self._rate and self._tokens < 0 else 0.0

    def spend(self, size: int, now: float) -> None:
        """`size` bytes were sent."""
        self._fill(now)
        self._tokens -= size

    def _fill(self, now: float) -> None:
        self._tokens = min(self._tokens + (now - self._at) * self._rate, float(self._rate))
        self._at = now
