"""What people write after an option, read exactly: times, spans of time, JSON, addresses.

Every reader raises argparse.ArgumentTypeError with what was expected and an example, so the command line can say which
option is wrong. Times become RFC 3339 in UTC, which is what REST takes.

Tests: tests/node/test_arguments.py.
"""

import json
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from node import clock

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_SPAN_S = 100 * 365 * 86_400  # a century: beyond it somebody has mistyped

_RELATIVE = re.compile(r"([+-]?)([0-9]{1,12})([smhdw])")
_WRONG_TIME = (
    "{!r} is not a time; give 2026-05-11T08:30:00Z, 2026-05-11, now, -3d (three days ago) or 2h (in two hours)"
)

CLEARED = "none"


def is_relative(text: str) -> bool:
    """Whether `text` is like `-3d`, which a parser of options takes for an option."""
    return _RELATIVE.fullmatch(text) is not None


def seconds(text: str) -> int:
    """A span of time such as `90s`, `10m`, `2h`, `7d`, in seconds."""
    found = _RELATIVE.fullmatch(text)
    if not found or found[1]:
        raise ArgumentTypeError(f"{text!r} is not a span of time; give a number and a unit: 90s, 10m, 2h, 7d")
    span = int(found[2]) * SECONDS[found[3]]
    if not 0 < span <= MAX_SPAN_S:
        raise ArgumentTypeError(f"{text!r} is outside 1s to {MAX_SPAN_S // SECONDS['d']}d")
    return span


def at(text: str, now_ms: int) -> str:
    """A moment as RFC 3339: what `text` says, relative times counted from `now_ms`."""
    if text == "now":
        return clock.rfc3339(now_ms)
    if found := _RELATIVE.fullmatch(text):
        span = int(found[2]) * SECONDS[found[3]]
        if span > MAX_SPAN_S:
            raise ArgumentTypeError(f"{text!r} is further away than {MAX_SPAN_S // SECONDS['d']}d")
        return clock.rfc3339(now_ms + (-1 if found[1] == "-" else 1) * span * 1000)
    try:
        return clock.rfc3339(clock.parse_rfc3339(text))
    except (ValueError, OverflowError) as error:
        raise ArgumentTypeError(_WRONG_TIME.format(text)) from error


def time(text: str) -> str:
    """`at`, counted from now: for options."""
    return at(text, clock.now_ms())


def time_or_none(text: str) -> str | None:
    """`time`, or None for the word `none`: for options that can take a time back."""
    return None if text == CLEARED else time(text)


def json_object(text: str) -> dict[str, Any]:
    """A JSON object such as `{"room": "b12"}`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f'not JSON ({error}); give an object such as \'{{"room": "b12"}}\'') from error
    if not isinstance(value, dict):
        raise ArgumentTypeError('not a JSON object; give one such as \'{"room": "b12"}\'')
    return value


def address(text: str) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    try:
        host, port = split_address(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    if port == 0:
        raise ArgumentTypeError(
            f"{text!r} has port 0; give the port that the peer listens on, such as 192.168.1.20:7400"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError saying what was expected."""
    host, colon, digits = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    plain = host and not re.search(r"[\s/\[\]@]", host) and (bracketed or ":" not in host)
    if not colon or not plain or not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > 65535:
        raise ValueError(f"{text!r} is not an address; give HOST:PORT, such as 192.168.1.20:7400 or [fd00::5]:7400")
    return host, int(digits)


def count(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read
