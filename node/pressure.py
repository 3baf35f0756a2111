"""What this node gives up, step by step, before the kernel kills it: first what can be made again, last what users ask.

    CACHES       70 % of the memory    answers and pages that are kept only for speed
    BACKGROUND   80 %, or no processor time to spare for a while: audits and vectors wait
    BULK         90 %                  batches, imports and exports are told to come again

Single writes and reads go on in every step. A step is left when there is clearly room again (LEAVE) and it has lasted
HOLD_S, so that nothing flutters.

The measure is memory that the kernel cannot take back, of this process against `memory_max_mb`, or of its cgroup
against that one's limit, whichever is nearer to its end (node/usage.py).

`Pressure` decides; it reads no clock and no file. `Watch` feeds it once a second and tells those who must act.
Tests: tests/node/test_pressure.py.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from node import clock
from node.errors import Problem
from node.usage import Meter, Usage

WATCH_S: Final = 1.0
LEAVE: Final = 0.08
"""A step is left this far below the share at which it is entered."""
HOLD_S: Final = 10.0
BUSY: Final = 0.9
IDLE: Final = 0.7
"""Shares of the processor time that is allowed. Above BUSY, for as long as HOLD_S, nothing is left over for audits."""
BULK_FACTS: Final = 10
"""More facts than this in one request are a batch, not an agent that has learned something."""

log = logging.getLogger(__name__)


class Step(StrEnum):
    """What is given up, in order."""

    CACHES = "caches"
    BACKGROUND = "background"
    BULK = "bulk"


ENTER: Final = {Step.CACHES: 0.7, Step.BACKGROUND: 0.8, Step.BULK: 0.9}
"""The share of the memory at which each step begins."""


class Pressure:
    """The steps that are taken now. `memory_max_bytes`: what this process may use."""

    def __init__(self, memory_max_bytes: int) -> None:
        self.memory_max_bytes = memory_max_bytes
        self.share = 0.0
        self._since: dict[Step, float] = {}
        self._last: tuple[float, float] | None = None
        self._busy_since: float | None = None
        self._idle_since: float | None = None

    @property
    def degraded(self) -> list[Step]:
        """The steps that are taken, in order."""
        return [step for step in Step if step in self._since]

    def judge(self, seen: Usage, now: float) -> dict[Step, bool]:
        """What changes by what was seen: True for a step that begins, False for one that ends."""
        self.share = seen.memory_bytes / self.memory_max_bytes
        if seen.group_bytes is not None and seen.group_max_bytes:
            self.share = max(self.share, seen.group_bytes / seen.group_max_bytes)
        self._watch_processor(seen, now)
        changes: dict[Step, bool] = {}
        for step in Step:
            taken = step in self._since
            if not taken and self._must(step, now):
                self._since[step] = now
                changes[step] = True
            elif taken and self._may_end(step, now):
                del self._since[step]
                changes[step] = False
        return changes

    def refuse_bulk(self) -> None:
        """Raises Problem 503 while bulk work has to wait."""
        if Step.BULK in self._since:
            raise Problem(
                503, "busy", f"this node has used {self.share:.0%} of its memory, and serves single calls only",
                "come again in a minute, store facts one by one, or raise memory_max_mb",
            )  # fmt: skip

    def _must(self, step: Step, now: float) -> bool:
        busy = self._busy_since is not None and now - self._busy_since >= HOLD_S
        return self.share >= ENTER[step] or (step is Step.BACKGROUND and busy)

    def _may_end(self, step: Step, now: float) -> bool:
        room = self.share < ENTER[step] - LEAVE and now - self._since[step] >= HOLD_S
        if step is not Step.BACKGROUND:
            return room
        return room and self._idle_since is not None and now - self._idle_since >= HOLD_S

    def _watch_processor(self, seen: Usage, now: float) -> None:
        last, self._last = self._last, (seen.cpu_s, now)
        if last is None or now <= last[1]:
            return
        share = (seen.cpu_s - last[0]) / (now - last[1]) / seen.cpus
        self._busy_since = _began(self._busy_since, last[1], share >= BUSY)
        self._idle_since = _began(self._idle_since, last[1], share < IDLE)


def _began(since: float | None, now: float, still: bool) -> float | None:
    return None if not still else now if since is None else since


class Watch:
    """Looks once a second. `act` hears of each step that begins (True) or ends."""

    def __init__(
        self, pressure: Pressure, act: Callable[[Step, bool], None], look: Callable[[], Usage] | None = None
    ) -> None:
        self.pressure = pressure
        self._act = act
        self._look = look or Meter().read
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="watch")

    async def stop(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def look(self, now: float) -> None:
        """One look, and what follows from it."""
        for step, begins in self.pressure.judge(self._look(), now).items():
            log.warning(
                "%s %s (memory %.0f %%)", "giving up" if begins else "going on with", step, self.pressure.share * 100
            )
            self._act(step, begins)

    def describe(self) -> dict[str, Any]:
        """For `resources` in the status."""
        return {"rss_max_bytes": self.pressure.memory_max_bytes, "degraded": list(self.pressure.degraded)}

    async def _run(self) -> None:
        while True:
            self.look(clock.monotonic())
            await asyncio.sleep(WATCH_S)
