"""The only reader of time. Everything else is told what time it is.

Wall time is milliseconds since 1970 UTC everywhere inside; people and JSON see RFC 3339. Tests: tests/node/test_clock.py.
"""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Milliseconds since 1970 UTC, by this machine's wall clock."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that never run backwards, for intervals and deadlines."""
    return time.monotonic()


def rfc3339(ms: int) -> str:
    """`2026-05-11T08:30:00.123Z`."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> int:
    """Milliseconds since 1970 UTC. A time without a zone is UTC, a date alone its midnight. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
