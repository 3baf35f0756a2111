"""Who is served when more is asked than can be done: a rate per client, turns in a fair queue, a deadline per call.

* Each client has a bucket of tokens: `rate_per_second` on average, a second's worth at once. Beyond it: 429.
* At most `concurrent_calls` work at a time. Others wait, each client in a queue of its own, and the queues take turns:
  a client with a thousand calls delays another by one. A queue that is full refuses (429); when all queues together
  are full, the newest call of the longest one gives way (503), so a modest client is always let in.
* A call that is not done after `request_timeout_s`, waiting included, is cancelled, and its work stops where work can
  be stopped (node/database.py). 503.

REST and MCP call through the same `Admission`. Refusing costs less than serving, so what is accepted keeps its pace.
Tests: tests/node/test_admission.py, tests/e2e/test_overload.py.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from node.errors import Problem

CLIENTS_MAX: Final = 1_000
"""Clients whose rate is remembered; one that was forgotten begins with a full bucket."""
WAITING_MAX: Final = 1_024
WAITING_PER_CLIENT: Final = 256
"""A tenth of a second's work at the pace of a laptop."""


class Rates:
    """A token bucket for each client. `now` is in seconds."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> bool:
        """Whether the client may call once more; 0 per second is no limit."""
        if not self.per_second:
            return True
        most = max(self.per_second, 1.0)
        tokens, since = self._buckets.pop(client, (most, now))
        tokens = min(most, tokens + (now - since) * self.per_second)
        granted = tokens >= 1
        self._buckets[client] = (tokens - granted, now)
        if len(self._buckets) > CLIENTS_MAX:
            self._buckets.popitem(last=False)
        return granted


class Turns:
    """At most `most` at a time; who waits is served client by client, in the order of their calls."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.waiting = 0
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, client: str) -> None:
        """Return when it is this call's turn; `give` it back. Raises Problem 429 or 503 when too many wait."""
        if self.running < self.most:
            self.running += 1
            return
        turn = self._enter(client)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # it came just now: pass it on
                self.give()
            else:
                self._leave(client, turn)
            raise

    def give(self) -> None:
        """Pass a turn on."""
        while self._queues:
            client, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            self.waiting -= 1
            if queue:
                self._queues[client] = queue
            if not turn.done():  # else its caller was cancelled a moment ago
                turn.set_result(None)
                return
        self.running -= 1

    def _enter(self, client: str) -> asyncio.Future[None]:
        queue = self._queues.get(client, deque())
        if len(queue) >= WAITING_PER_CLIENT:
            raise Problem(
                429, "too_many_calls", f"{len(queue)} calls of this client are waiting", "make fewer calls at a time"
            )
        if self.waiting >= WAITING_MAX:
            longest = max(self._queues, key=lambda other: len(self._queues[other]))
            if len(self._queues[longest]) <= len(queue):
                raise _busy()
            last = self._queues[longest][-1]
            self._leave(longest, last)
            if not last.done():
                last.set_exception(_busy())
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._queues[client] = queue
        self.waiting += 1
        return turn

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(client, deque())
        if turn in queue:
            queue.remove(turn)
            self.waiting -= 1
            if not queue:
                del self._queues[client]


class Admission:
    """What every call of a client goes through. `now` tells seconds that never run backwards."""

    def __init__(
        self, rate_per_second: float, concurrent_calls: int, request_timeout_s: float, now: Callable[[], float]
    ) -> None:
        self.rates = Rates(rate_per_second)
        self.turns = Turns(concurrent_calls)
        self.timeout_s = request_timeout_s
        self._now = now

    def count(self, client: str) -> None:
        """Count a call against the client's rate. Raises Problem 429."""
        if not self.rates.take(client, self._now()):
            raise Problem(
                429, "rate_limited", f"more than {self.rates.per_second:g} calls a second", "slow down, then try again"
            )

    @asynccontextmanager
    async def turn(self, client: str, before: Callable[[], Awaitable[object]] | None = None) -> AsyncIterator[None]:
        """A turn for the work inside. `before` belongs to the call, and to its deadline, but needs no turn yet."""
        deadline = asyncio.timeout(self.timeout_s)
        try:
            async with deadline:
                if before is not None:
                    await before()
                await self.turns.take(client)
                try:
                    yield
                finally:
                    self.turns.give()
        except TimeoutError:
            if not deadline.expired():
                raise
            raise Problem(
                503, "deadline", f"not done after {self.timeout_s:g} s",
                "try again; a write may have been done, unless an Idempotency-Key makes the repeat safe: look first",
            ) from None  # fmt: skip


def _busy() -> Problem:
    return Problem(503, "busy", "more calls are waiting than this node can serve soon", "try again in a second")
