"""MCP clients for tests: the SDK's over every transport, and `cortex-node mcp` as a process that can be killed."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from bench.local_nodes import LocalNode

ERAS = ("legacy", "2026-07-28")
TRANSPORTS = ("stdio", "http", "sse", "websocket")
HELLO = {
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}


def pipe_command(node: LocalNode) -> list[str]:
    return [*node.program, "--home", str(node.home.path), "mcp"]


def authorization(node: LocalNode) -> dict[str, str]:
    return {"Authorization": f"Bearer {node.home.token.read_text().strip()}"}


@asynccontextmanager
async def client(node: LocalNode, transport: str, era: str, name: str = "tester") -> AsyncIterator[Client]:
    """The SDK's client, attached to `node`."""
    info = types.Implementation(name=name, version="1")
    base = f"http://127.0.0.1:{node.api_port}"
    async with httpx2.AsyncClient(headers=authorization(node), timeout=60) as http:
        made: Any
        match transport:
            case "stdio":
                command, *arguments = pipe_command(node)
                made = stdio_client(StdioServerParameters(command=command, args=arguments, env=node.environment))
            case "http":
                made = streamable_http_client(base + "/mcp", http_client=http)
            case "sse":
                made = sse_client(base + "/sse", headers=authorization(node))
            case _:
                made = websocket_client(base + "/ws", authorization(node))
        async with Client(made, mode=era, client_info=info) as attached:
            yield attached


@asynccontextmanager
async def websocket_client(url: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    """A transport of the SDK's client over WebSocket, which the SDK itself has no more."""
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(url, protocols=("mcp",)) as socket,
        anyio.create_task_group() as tasks,
    ):
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)

        async def inward() -> None:
            async with incoming:
                async for frame in socket:
                    await incoming.send(
                        SessionMessage(types.jsonrpc_message_adapter.validate_json(frame.data, by_name=False))
                    )

        async def outward() -> None:
            async with outgoing:
                async for item in outgoing:
                    await socket.send_str(item.message.model_dump_json(by_alias=True, exclude_unset=True))

        tasks.start_soon(inward)
        tasks.start_soon(outward)
        yield read, write
        tasks.cancel_scope.cancel()


class PipeProcess:
    """A `cortex-node mcp`, spoken to line by line."""

    def __init__(self, node: LocalNode) -> None:
        self.process = subprocess.Popen(
            pipe_command(node), env=node.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._number = 0

    def ask(self, method: str, **params: Any) -> Any:
        """The result of one request. Raises EOFError when the pipe ends instead."""
        self._number += 1
        self.say({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        answer = self.hear()
        assert answer["id"] == self._number, answer
        return answer["result"]

    def greet(self) -> None:
        self.ask(HELLO["method"], **HELLO["params"])  # type: ignore[arg-type]
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.ask("tools/call", name=tool, arguments=arguments)

    def store(self, content: str) -> str:
        result = self.call("cortex_store", content=content)
        assert not result["isError"], result
        return str(result["structuredContent"]["id"])

    def say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise EOFError("the pipe has ended")
        return json.loads(line)

    def end(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        code = self.process.wait(20)
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what it had not read yet
                if stream:
                    stream.close()


async def in_threads(*calls: Any) -> list[Any]:
    """All at once."""
    return await asyncio.gather(*(asyncio.to_thread(call) for call in calls))
