"""The stream of events, as a client on TCP meets it."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from node.events import MAX_LISTENERS, MAX_WAITING, Event, Events
from node.http_events import KEEP_ALIVE, RESUME_MS, EventsApi
from tests.node.served_routes import TOKEN, served_routes

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def events() -> Events:
    return Events("run")


@pytest.fixture
async def client(events: Events) -> AsyncIterator[aiohttp.ClientSession]:
    async with served_routes(EventsApi(events).routes()) as client:
        yield client
        events.close()


async def block(answer: aiohttp.ClientResponse) -> str:
    """The next block of the stream."""
    return (await answer.content.readuntil(b"\n\n")).decode().removesuffix("\n\n")


async def a_turn() -> None:
    """Let everybody else go on."""
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


async def test_events_come_as_they_happen(client: aiohttp.ClientSession, events: Events) -> None:
    async with client.get("/v1/events", headers=AUTHORIZED) as answer:
        assert answer.content_type == "text/event-stream"
        assert await block(answer) == f"retry: {RESUME_MS}"
        assert await block(answer) == "id: run-0\n: listening"
        events.tell(Event.ROUND, {"peer": "p"})
        assert await block(answer) == 'id: run-1\nevent: round\ndata: {"peer":"p"}'
        events.close()
        assert await answer.content.read() == b""


async def test_a_client_resumes(client: aiohttp.ClientSession, events: Events) -> None:
    for number in range(3):
        events.alert("c", str(number))
    async with client.get("/v1/events", headers=AUTHORIZED | {"Last-Event-ID": "run-2"}) as answer:
        await block(answer)
        assert '"text":"2"' in await block(answer)
    async with client.get("/v1/events", headers=AUTHORIZED | {"Last-Event-ID": "before-7"}) as answer:
        await block(answer)
        assert await block(answer) == 'event: gap\ndata: {"after":"before-7","oldest":"run-1"}'


async def test_silence_is_broken(events: Events) -> None:
    async with (
        served_routes(EventsApi(events, keep_alive_s=0.0).routes()) as client,
        client.get("/v1/events", headers=AUTHORIZED) as answer,
    ):
        await block(answer)
        await block(answer)
        assert await block(answer) + "\n\n" == KEEP_ALIVE.decode()


async def test_it_asks_for_the_token_and_has_room_for_so_many(client: aiohttp.ClientSession, events: Events) -> None:
    async with client.get("/v1/events") as answer:
        assert answer.status == 401
    for _ in range(MAX_LISTENERS):
        events.listen()
    async with client.get("/v1/events", headers=AUTHORIZED) as answer:
        assert (answer.status, (await answer.json())["code"]) == (503, "too_many_listeners")


async def test_a_client_that_does_not_read_is_cut_off(client: aiohttp.ClientSession, events: Events) -> None:
    """More than the buffers of both kernels hold, so the handler hangs in a write."""
    async with client.get("/v1/events", headers=AUTHORIZED) as answer:
        await block(answer)
        answer.connection.transport.pause_reading()  # type: ignore[union-attr]
        large = "x" * 32_768
        for _ in range(4 * MAX_WAITING):
            events.tell(Event.ALERT, large)
            await a_turn()
        answer.connection.transport.resume_reading()  # type: ignore[union-attr]
        with pytest.raises(aiohttp.ClientError):
            while await answer.content.readany():
                pass
    assert len([events.listen() for _ in range(MAX_LISTENERS)]) == MAX_LISTENERS, "its place is free again"
