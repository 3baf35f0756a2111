"""The only reader of time. Everything else is told what time it is.

Wall time is milliseconds since 1970 UTC everywhere inside; people and JSON see RFC 3339.
Tests: tests/node/test_clock.py.
"""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive, as everything here is UTC


def now_ms() -> int:
    """Milliseconds since 1970 UTC, by this machine's wall clock."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that never run backwards, for intervals and deadlines."""
    return time.monotonic()


def both_ms() -> tuple[int, int]:
    """Wall and monotonic time in milliseconds: the second stands still while the machine sleeps."""
    return now_ms(), time.monotonic_ns() // 1_000_000


def rfc3339(ms: int) -> str:
    """`2026-05-11T08:30:00.123Z`."""
    moment = _EPOCH + timedelta(milliseconds=ms)  # never through a float of seconds, which loses a millisecond
    return moment.isoformat(timespec="milliseconds") + "Z"


def parse_rfc3339(text: str) -> int:
    """Milliseconds since 1970 UTC. A time without a zone is UTC, a date alone its midnight. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip().upper())
    if moment.tzinfo:
        try:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:
            raise ValueError(f"outside of the years 1 to 9999: {text!r}") from None
    return round((moment - _EPOCH) / timedelta(milliseconds=1))
