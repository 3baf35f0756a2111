"""The second tier of the cache: a Redis beside a hub, which can be wrong or dead and then only costs a little speed.

A name is a MAC, under a secret of this process, of the scope, its generation and the question: so nothing of an earlier
generation, of another process, of a restored backup or of another mesh can be read, and Redis learns no question. A
value carries a MAC of its own over name and bytes; what is damaged, swapped or made by somebody else is a miss. Answers
do stand there as they are: use a Redis of your own, and `rediss://` beyond this machine.

A read may take READ_S, less than computing most answers; writes happen in the background. A breaker (node/breaker.py)
leaves a Redis alone that fails. EXPIRE_S only clears away what nobody can ask for any more.

The client library is imported when `cache.redis` is set (extra `redis`). Tests: tests/node/test_redis_tier.py, against
a real server that is killed and comes back.
"""

import asyncio
import logging
import secrets
from hashlib import blake2b
from typing import Any, Final

import msgspec

from node.breaker import Breaker, Refused, guarded
from node.cache import Entry
from node.errors import Problem

READ_S: Final = 0.05
WRITE_S: Final = 0.5
WRITES_MAX: Final = 64
"""Writes under way; beyond it answers are not handed on."""
CONNECTIONS_MAX: Final = 128
EXPIRE_S: Final = 3_600
LARGEST_BYTES: Final = 1 << 20
MAC_BYTES: Final = 16

log = logging.getLogger(__name__)


class _Value(msgspec.Struct, array_like=True, frozen=True):
    since_ms: int | None
    until_ms: int | None
    answer: bytes


class RedisTier:
    """Entries in the Redis at `url`. Making it connects to nothing. Raises Problem when it can't be used at all."""

    def __init__(self, url: str, mesh: bytes) -> None:
        try:
            from redis import asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError:
            raise Problem(
                400, "redis_missing", "cache.redis is set, but the Redis client is not installed",
                "pip install 'cortex-node[redis]', or leave cache.redis empty", "cache.redis",
            ) from None  # fmt: skip
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=WRITE_S,
                socket_connect_timeout=WRITE_S,
                max_connections=CONNECTIONS_MAX,
                retry=Retry(NoBackoff(), 0),  # the breaker decides when to try again
            )
        except ValueError as error:
            action = "write it like redis://127.0.0.1:6379/0 or unix:///run/redis/redis.sock"
            raise Problem(400, "config_value", f"cache.redis: {error}", action, "cache.redis") from None
        self.breaker = Breaker("redis")
        self._failures = (RedisError, OSError, ValueError, TimeoutError, Refused)
        self._prefix = b"cortex:" + mesh.hex()[:16].encode() + b":"
        self._secret = secrets.token_bytes(32)
        self._writes: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes, scope: str, generation: int) -> Entry | None:
        """What is kept for a key at this very generation."""
        name = self._name(key, scope, generation)
        try:
            raw = await guarded(self.breaker, lambda: self._redis.get(name), READ_S)
            value = self._opened(name, raw)
        except self._failures as failure:
            log.debug("Redis gave no answer: %s", failure)
            return None
        return None if value is None else Entry(scope, generation, value.since_ms, value.until_ms, value.answer)

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an entry, some time soon, if possible."""
        if len(self._writes) >= WRITES_MAX or len(entry.answer) > LARGEST_BYTES:
            return
        name = self._name(key, entry.scope, entry.generation)
        value = msgspec.msgpack.encode(_Value(entry.since_ms, entry.until_ms, entry.answer))
        write = asyncio.create_task(self._write(name, self._mac(name, value) + value))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def settled(self) -> None:
        """Return when every write has ended."""
        while self._writes:
            await asyncio.wait(self._writes)

    async def close(self) -> None:
        """Hang up."""
        for write in self._writes:
            write.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self._redis.aclose()

    async def _write(self, name: bytes, value: bytes) -> None:
        try:
            await guarded(self.breaker, lambda: self._redis.set(name, value, ex=EXPIRE_S), WRITE_S)
        except self._failures as failure:
            log.debug("Redis took nothing: %s", failure)

    def _name(self, key: bytes, scope: str, generation: int) -> bytes:
        asked = msgspec.msgpack.encode((scope, generation, key))
        return self._prefix + self._mac(b"name", asked).hex().encode()

    def _mac(self, name: bytes, value: bytes) -> bytes:
        return blake2b(msgspec.msgpack.encode((name, value)), key=self._secret, digest_size=MAC_BYTES).digest()

    def _opened(self, name: bytes, raw: Any) -> _Value | None:
        """The value of a name; None when there is none, or not one of ours."""
        if not isinstance(raw, bytes):
            return None
        mac, value = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not secrets.compare_digest(mac, self._mac(name, value)):
            return None
        return msgspec.msgpack.decode(value, type=_Value)
