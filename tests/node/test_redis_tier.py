"""The second tier against a real Redis: it helps; it may lie, hang or die, and no answer is wrong or late for it."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node import redis_tier
from node.breaker import FAILURES, State
from node.cache import Cache, Computed, Entry, Lru
from node.errors import Problem
from node.generations import Generations
from node.metrics import Metrics
from node.redis_tier import RedisTier

MESH = bytes(32)
PROGRAM = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(PROGRAM is None, reason="NOT TESTED: redis-server is not installed (make servers)")


class Server:
    """A Redis of this test's own, on a socket in `folder`, that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert PROGRAM
        self._process = subprocess.Popen(
            [PROGRAM, "--port", "0", "--unixsocket", str(self.path), "--save", "", "--daemonize", "no"],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        for line in self._process.stdout:
            if b"ready to accept connections" in line.lower() or b"is now ready" in line.lower():
                return
        raise RuntimeError("redis-server did not start")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()

    def say(self, *words: str) -> bytes:
        """One command, over a connection of its own."""
        command = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.path))
            link.sendall(command.encode())
            return link.recv(1 << 20)

    def names(self) -> list[str]:
        return [line for line in self.say("KEYS", "*").decode().split("\r\n") if line.startswith("cortex:")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


class World:
    """A cache that keeps nothing in memory, so that its second tier is asked each time."""

    def __init__(self, url: str) -> None:
        self.generations = Generations()
        self.tier = RedisTier(url, MESH)
        self.metrics = Metrics()
        self.truth = 1
        self.cache = Cache(
            self.generations, lambda: 0, Lru(0, 1 << 20), self.metrics.cache_hits, self.metrics.cache_misses, self.tier
        )

    async def ask(self, key: bytes = b"k") -> Any:
        async def compute() -> Computed:
            return Computed({"truth": self.truth}, "garden")

        answer = await self.cache.answer(key, "garden", compute, deep=True)
        await self.tier.settled()
        return answer["truth"]

    @property
    def hits(self) -> float:
        return self.metrics.cache_hits.values.get(("l2",), 0)


@pytest.fixture
async def world(server: Server) -> AsyncIterator[World]:
    world = World(server.url)
    yield world
    await world.tier.close()


@needs_redis
async def test_an_answer_is_found_there_until_its_scope_moves(world: World) -> None:
    assert [await world.ask() for _ in range(3)] == [1, 1, 1]
    assert world.hits == 2
    world.truth = 2
    assert await world.ask() == 1, "nobody said that it changed"
    world.generations.move(["garden"])
    assert await world.ask() == 2
    assert await world.ask() == 2
    assert world.hits == 4


@needs_redis
async def test_another_process_finds_nothing_of_this_one(world: World, server: Server) -> None:
    await world.ask()
    other = World(server.url)
    other.truth = 5
    assert await other.ask() == 5
    await other.tier.close()


@needs_redis
async def test_names_tell_no_question_and_everything_goes_away(world: World, server: Server) -> None:
    await world.ask(b"who leaks?")
    (name,) = server.names()
    assert name.startswith("cortex:" + MESH.hex()[:16])
    assert "leaks" not in name
    assert int(server.say("TTL", name)[1:]) <= redis_tier.EXPIRE_S


LIES: list[Callable[[Server, str, str], object]] = [
    lambda server, name, other: server.say("SET", name, "garbage"),
    lambda server, name, other: server.say("SET", name, ""),
    lambda server, name, other: server.say("APPEND", name, "x"),
    lambda server, name, other: server.say("COPY", other, name, "REPLACE"),
    lambda server, name, other: (server.say("DEL", name), server.say("LPUSH", name, "a list")),
    lambda server, name, other: server.say("FLUSHALL"),
]


@needs_redis
@pytest.mark.parametrize("lie", LIES)
async def test_what_somebody_else_has_put_there_is_a_miss(
    world: World, server: Server, lie: Callable[[Server, str, str], object]
) -> None:
    await world.ask(b"mine")
    (name,) = server.names()
    world.truth = 7
    await world.ask(b"another")
    (other,) = set(server.names()) - {name}
    world.truth = 2
    lie(server, name, other)
    assert await world.ask(b"mine") == 2


@needs_redis
async def test_it_may_die_and_come_back(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.breaker.REST_S", 0.0)
    assert [await world.ask() for _ in range(2)] == [1, 1]
    server.kill()
    world.truth = 2
    world.generations.move(["garden"])
    assert [await world.ask() for _ in range(2 * FAILURES)] == [2] * 2 * FAILURES
    assert world.tier.breaker.state is not State.CLOSED
    server.start()
    hits = world.hits
    assert [await world.ask() for _ in range(6)] == [2] * 6
    assert world.tier.breaker.state is State.CLOSED
    assert world.hits > hits


async def test_one_that_never_answers_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_tier, "READ_S", 0.01)
    monkeypatch.setattr(redis_tier, "WRITE_S", 0.01)
    asked = 0

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    deaf = await asyncio.start_unix_server(listen, tmp_path / "deaf.sock")
    world = World(f"unix://{tmp_path / 'deaf.sock'}")
    assert [await world.ask() for _ in range(20)] == [1] * 20
    assert world.tier.breaker.state is State.OPEN
    assert asked <= FAILURES
    await world.tier.close()
    deaf.close()


async def test_one_that_talks_nonsense_is_left_alone(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        writer.close()

    nonsense = await asyncio.start_unix_server(babble, tmp_path / "nonsense.sock")
    world = World(f"unix://{tmp_path / 'nonsense.sock'}")
    assert [await world.ask() for _ in range(20)] == [1] * 20
    assert world.tier.breaker.state is State.OPEN
    await world.tier.close()
    nonsense.close()


async def test_nobody_there_is_no_matter(tmp_path: Path) -> None:
    world = World(f"unix://{tmp_path / 'nobody.sock'}")
    assert [await world.ask() for _ in range(20)] == [1] * 20
    assert world.tier.breaker.state is State.OPEN
    await world.tier.close()


async def test_writes_that_pile_up_are_bounded(tmp_path: Path) -> None:
    world = World(f"unix://{tmp_path / 'nobody.sock'}")
    for number in range(10 * redis_tier.WRITES_MAX):
        world.tier.put(b"%d" % number, Entry("garden", 0, None, None, b"1"))
    assert len(world.tier._writes) == redis_tier.WRITES_MAX
    await world.tier.close()


def test_an_address_that_is_none_is_told_at_the_start() -> None:
    with pytest.raises(Problem, match=r"cache\.redis") as refused:
        RedisTier("redos://x", MESH)
    assert refused.value.field == "cache.redis"
