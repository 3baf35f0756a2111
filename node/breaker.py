"""A circuit breaker: what hangs or fails again and again is left alone for a while, so that nobody waits for it.

    CLOSED --- FAILURES in a row ---> OPEN --- after REST_S ---> HALF_OPEN (one probe) --- it went well ---> CLOSED
                                        ^-------------------------------- it failed ----------------------------|

A call that takes SLOW_S counts as failed, also one that never ends: a probe that is still out after SLOW_S makes way
for another. Calls that began before the breaker opened change nothing any more when they end; only the probe decides.

`Breaker` reads no clock and waits for nothing: `now` is an argument, in seconds that never run backwards. `guarded` is
the one way to call through it. M. Nygard, "Release It!", 2007. Tests: tests/node/test_breaker.py.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

from node import clock

FAILURES: Final = 5
SLOW_S: Final = 30.0
REST_S: Final = 5.0

T = TypeVar("T")


class State(IntEnum):
    """As the metric shows it: the higher, the worse."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Call(NamedTuple):
    """A call on its way: when it began, and in which term of the breaker (a term ends with each change of state)."""

    began: float
    term: int


class Refused(Exception):
    """The breaker is open: the call was not made."""


class Breaker:
    """Stands before one `target`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.state = State.CLOSED
        self._since = 0.0
        self._failures = 0
        self._term = 0

    def begin(self, now: float) -> Call | None:
        """Permission to call, to be given back to `end`; None: leave it alone."""
        match self.state:
            case State.CLOSED:
                pass
            case State.OPEN:
                if now - self._since < REST_S:
                    return None
                self._become(State.HALF_OPEN, now)
            case State.HALF_OPEN:
                if now - self._since < SLOW_S:
                    return None
                self._become(State.HALF_OPEN, now)
        return Call(now, self._term)

    def end(self, call: Call, now: float, *, ok: bool | None) -> None:
        """How a call went; None: nobody knows, since its caller left."""
        if call.term != self._term:
            return
        if ok is None:
            if self.state is State.HALF_OPEN:
                self._become(State.OPEN, now - REST_S)  # the next call is the probe
            return
        if ok and now - call.began < SLOW_S:
            self._failures = 0
            if self.state is State.HALF_OPEN:
                self._become(State.CLOSED, now)
            return
        self._failures += 1
        if self.state is State.HALF_OPEN or self._failures >= FAILURES:
            self._become(State.OPEN, now)

    def _become(self, state: State, now: float) -> None:
        self.state, self._since, self._failures = state, now, 0
        self._term += 1


async def guarded(
    breaker: Breaker,
    call: Callable[[], Awaitable[T]],
    timeout_s: float = SLOW_S,
    now: Callable[[], float] = clock.monotonic,
) -> T:
    """The result of `call`, if the breaker lets it through. Raises Refused, TimeoutError, or what the call raises."""
    permitted = breaker.begin(now())
    if permitted is None:
        raise Refused(breaker.target)
    ok: bool | None = False
    try:
        async with asyncio.timeout(timeout_s):
            result = await call()
        ok = True
        return result
    except asyncio.CancelledError:
        ok = None
        raise
    finally:
        breaker.end(permitted, now(), ok=ok)
