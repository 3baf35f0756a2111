"""A client of the SDK and a `Face`, joined in memory: what a transport does, without one."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp import Client
from mcp.shared.message import SessionMessage

from mcp_edge.lines import TooLong
from mcp_edge.memory import Memory
from mcp_edge.server import Face

ERAS = ("legacy", "2026-07-28")


async def unmeasured(tool: str, call: Awaitable[Any]) -> Any:
    return await call


def a_face(memory: Memory) -> Face:
    return Face(memory, "1.2.3", unmeasured)


class QueueChannel:
    """Messages in and out of queues."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[bytes | TooLong | None] = asyncio.Queue()
        self.to_client: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(self) -> bytes | TooLong | None:
        return await self.to_server.get()

    async def send(self, message: bytes) -> None:
        await self.to_client.put(message)

    def say(self, **message: Any) -> None:
        self.to_server.put_nowait(json.dumps({"jsonrpc": "2.0", **message}).encode())

    async def hear(self) -> Any:
        async with asyncio.timeout(10):
            return json.loads(await self.to_client.get())


@asynccontextmanager
async def served(face: Face) -> AsyncIterator[QueueChannel]:
    """A conversation that lasts as long as the block."""
    channel = QueueChannel()
    task = asyncio.create_task(face.converse(channel))
    try:
        yield channel
    finally:
        channel.to_server.put_nowait(None)
        async with asyncio.timeout(10):
            await task


@asynccontextmanager
async def transport(face: Face) -> AsyncIterator[Any]:
    """A transport of the SDK's client to `face`."""
    async with served(face) as channel:
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)

        async def inward() -> None:
            async with incoming:
                while True:
                    raw = await channel.to_client.get()
                    await incoming.send(SessionMessage(types.jsonrpc_message_adapter.validate_json(raw, by_name=False)))

        async def outward() -> None:
            async with outgoing:
                async for item in outgoing:
                    encoded = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    channel.to_server.put_nowait(encoded.encode())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inward)
            tasks.start_soon(outward)
            yield read, write
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def client(face: Face, era: str, name: str = "tester") -> AsyncIterator[Client]:
    """The SDK's own client, in one protocol era."""
    info = types.Implementation(name=name, version="1")
    async with Client(transport(face), mode=era, client_info=info) as made:
        yield made
