"""The peer port is not held by those who ask for nothing, and tells whom it turned away."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from node import identity, mesh, port, tls
from node.identity import Identity
from node.mesh import Role
from node.paths import Home
from node.port import CROWDED, EXPIRED, FOREIGN, PLAIN, SLOW, Door, TurnedAway

NOW_MS = 1_800_000_000_000
DEADLINE_S = 20.0


class Hello(asyncio.Protocol):
    """A server that greets, and notes its connections."""

    def __init__(self, met: list[asyncio.BaseTransport]) -> None:
        self._met = met

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._met.append(transport)
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")


class House:
    """A door with what is behind it."""

    def __init__(self, me: Identity, stranger_s: float) -> None:
        self.met: list[asyncio.BaseTransport] = []
        self.changed = asyncio.Event()
        self.turned_away = TurnedAway(lambda why: self.changed.set(), lambda: NOW_MS)
        self.door = Door(lambda: Hello(self.met), tls.server_context(me), self.turned_away, stranger_s)
        self.port = 0

    async def knock(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        assert await reader.readexactly(5) == b"hello"
        return reader, writer

    async def until(self, why: str, times: int = 1) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.turned_away.times.get(why, 0) < times:
                self.changed.clear()
                await self.changed.wait()


Open = Callable[..., Awaitable[House]]


@pytest.fixture
def members(tmp_path: Path) -> Callable[..., Identity]:
    """Members of one mesh, or of another; certified when they like."""
    ours = mesh.found_authority(NOW_MS)

    def make(name: str, authority: mesh.Authority = ours, at_ms: int = NOW_MS) -> Identity:
        seed = identity.new_seed()
        certificate = mesh.issue(authority, identity.key_pair(seed)[0], name, Role.MEMBER, ("*",), at_ms)
        return identity.create(Home(tmp_path / name), seed, certificate, authority.ca)

    return make


@pytest.fixture
async def house(members: Callable[..., Identity]) -> AsyncIterator[Open]:
    opened: list[House] = []

    async def begin(stranger_s: float = DEADLINE_S) -> House:
        made = House(members("host"), stranger_s)
        made.port = await made.door.listen("127.0.0.1", 0)
        opened.append(made)
        return made

    yield begin
    for made in opened:
        await made.door.close()
        for transport in made.met:
            assert isinstance(transport, asyncio.Transport)
            if not transport.is_closing():
                transport.abort()


async def test_who_asks_for_nothing_is_cut(house: Open, members: Callable[..., Identity]) -> None:
    place = await house(stranger_s=0.2)
    reader, writer = await place.knock(tls.client_context(members("guest")))
    await place.until(SLOW)
    with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.transport.abort()


async def test_who_has_a_session_stays(house: Open, members: Callable[..., Identity]) -> None:
    place = await house(stranger_s=0.3)
    client = tls.client_context(members("guest"))
    _, member = await place.knock(client)
    place.door.proven(place.met[0])
    _, stranger = await place.knock(client)
    await place.until(SLOW)
    assert not place.met[0].is_closing() and place.met[1].is_closing()
    for writer in (member, stranger):
        writer.transport.abort()


async def test_of_too_many_the_oldest_makes_way(
    house: Open, members: Callable[..., Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "MAX_STRANGERS", 3)
    place = await house()
    client = tls.client_context(members("guest"))
    knocked = [await place.knock(client) for _ in range(5)]
    await place.until(CROWDED, 2)
    assert [transport.is_closing() for transport in place.met] == [True, True, False, False, False]
    for _, writer in knocked:
        writer.transport.abort()


async def test_a_client_without_tls_is_named(house: Open) -> None:
    place = await house()
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await place.until(PLAIN)
    await reader.read()
    writer.close()
    [warning] = place.turned_away.warnings(since_ms=NOW_MS)
    assert "spoke no TLS" in warning["text"] and "127.0.0.1" in warning["text"]
    assert place.turned_away.warnings(since_ms=NOW_MS + 1) == []


async def test_a_certificate_of_another_mesh_is_named(house: Open, members: Callable[..., Identity]) -> None:
    place = await house()
    stranger = tls.client_context(members("stranger", mesh.found_authority(NOW_MS)))
    stranger.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=stranger)
    await place.until(FOREIGN)
    writer.transport.abort()


async def test_an_expired_certificate_is_named(
    house: Open, members: Callable[..., Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await house()
    monkeypatch.setattr(mesh, "NODE_LIFETIME", timedelta(days=1))
    old = tls.client_context(members("old", at_ms=mesh.EARLIEST_MS))
    _, writer = await asyncio.open_connection("127.0.0.1", place.port, ssl=old)
    await place.until(EXPIRED)
    writer.transport.abort()


async def test_a_handshake_that_never_ends_is_cut(house: Open) -> None:
    place = await house(stranger_s=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    async with asyncio.timeout(DEADLINE_S):
        await place.until(port.HANDSHAKE)
    writer.close()
    assert reader is not None
