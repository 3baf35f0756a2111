"""What keeps this node quick while little is asked, and alive while too much is: caches, turns, what to give up when.

The parts know nothing of each other: answers that are kept (node/cache.py, node/redis_tier.py), who is served when
(node/admission.py), how near the end of its memory the node is (node/pressure.py). Here they are made from the
settings, and each step that is taken becomes an act: caches shrink to SHRUNK of their size and free memory goes back to
the kernel; audits and vectors ask `background_waits`; bulk work asks `pressure`. Tests: tests/node/test_load.py.
"""

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable
from typing import Any, Final

from node import clock
from node.admission import Admission
from node.breaker import Breaker
from node.cache import Cache, Lru
from node.config import Config
from node.database import CACHE_KIB
from node.metrics import Metrics
from node.pressure import Pressure, Step, Watch
from node.redis_tier import RedisTier
from node.store import Store

SHRUNK: Final = 1 / 8


class Load:
    """Of one node."""

    def __init__(self, settings: Config, store: Store, metrics: Metrics, now_ms: Callable[[], int]) -> None:
        self._database = store.database
        self._metrics = metrics
        self._bounds = settings.cache_entries, settings.cache_max_mb << 20
        self._redis = RedisTier(settings.cache_redis, store.mesh) if settings.cache_redis else None
        self._shrinking: asyncio.Task[None] | None = None
        self.cache = Cache(
            store.generations, now_ms, Lru(*self._bounds), metrics.cache_hits, metrics.cache_misses, self._redis
        )
        self.admission = Admission(
            settings.rate_per_second, settings.concurrent_calls, settings.request_timeout_s, clock.monotonic
        )
        self.pressure = Pressure(settings.memory_max_mb << 20)
        self.on_step: Callable[[Step, bool], None] = lambda step, begins: None
        self.breakers: list[Breaker] = [self._redis.breaker] if self._redis else []
        self._watch = Watch(self.pressure, self.act)
        self._database.on_group = metrics.commits.observe

    def start(self) -> None:
        self._watch.start()

    async def stop(self) -> None:
        """Idempotent."""
        await self._watch.stop()
        if self._shrinking is not None:
            await asyncio.gather(self._shrinking, return_exceptions=True)
        if self._redis is not None:
            await self._redis.close()

    def background_waits(self) -> bool:
        """Whether work that nobody waits for shall pause."""
        return Step.BACKGROUND in self.pressure.degraded

    def act(self, step: Step, begins: bool) -> None:
        """Do what a step asks for, or take it back."""
        self.on_step(step, begins)
        if step is not Step.CACHES:
            return  # who it concerns asks
        share = SHRUNK if begins else 1.0
        entries, size = self._bounds
        self.cache.lru.bound(round(entries * share), round(size * share))
        self._shrinking = asyncio.create_task(self._give_back(round(CACHE_KIB * share)))

    def describe(self) -> dict[str, Any]:
        """For `resources` in the status."""
        return {"rss_max_bytes": self.pressure.memory_max_bytes, "degraded": [str(s) for s in self.pressure.degraded]}

    def refresh_metrics(self) -> None:
        """Bring the gauges up to date."""
        for step in Step:
            self._metrics.degraded.set(step in self.pressure.degraded, step)
        for breaker in self.breakers:
            self._metrics.breakers.set(breaker.state, breaker.target)

    async def _give_back(self, page_cache_kib: int) -> None:
        await self._database.bound_cache(page_cache_kib)
        gc.collect()
        with contextlib.suppress(AttributeError):  # only glibc has it, and only glibc needs it
            ctypes.CDLL(None).malloc_trim(0)
