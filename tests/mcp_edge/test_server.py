"""MCP as the SDK's client meets it, in both eras, and as a hostile one does: malformed, too long, too many at once."""

import asyncio
import json
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from mcp_edge.conversation import KEY
from mcp_edge.lines import TooLong
from mcp_edge.memory import MemoryProblem
from mcp_edge.server import MAX_UNANSWERED, Face
from mcp_edge.tools import BY_NAME
from tests.mcp_edge.pipes import ERAS, a_face, client, served
from tests.mcp_edge.small_memory import SmallMemory

HELLO: dict[str, Any] = {
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}


@pytest.fixture
def memory() -> SmallMemory:
    return SmallMemory()


@pytest.fixture
def face(memory: SmallMemory) -> Face:
    return a_face(memory)


@pytest.mark.parametrize("era", ERAS)
class TestBothEras:
    async def test_tools_are_listed_and_called_and_answers_fit_their_schemas(self, face: Face, era: str) -> None:
        async with client(face, era) as c:
            assert {tool.name for tool in (await c.list_tools()).tools} == BY_NAME.keys()  # now it checks answers
            stored = await c.call_tool("cortex_store", {"content": "the spare key is with Ada"})
            assert not stored.is_error and stored.structured_content["id"] == "a-1"
            found = await c.call_tool("cortex_search", {"query": "key"})
            assert [hit["id"] for hit in found.structured_content["results"]] == ["a-1"]
            for name, given in (
                ("cortex_get", {"id": "a-1"}),
                ("cortex_update", {"id": "a-1", "content": "with Bo"}),
                ("cortex_link", {"id": "a-1", "relation": "r", "to": "a-1"}),
                ("cortex_status", {}),
            ):
                assert not (await c.call_tool(name, given)).is_error

    async def test_a_mistake_of_the_caller_is_a_result(self, face: Face, era: str) -> None:
        async with client(face, era) as c:
            for name, given in (
                ("cortex_get", {"id": "no"}),
                ("cortex_store", {}),
                ("cortex_store", {"contents": "x"}),
            ):
                result = await c.call_tool(name, given)
                assert result.is_error
                assert "What to do" in result.content[0].text
                assert result.structured_content["action"]

    async def test_an_unknown_tool_is_an_error_that_names_those_there_are(self, face: Face, era: str) -> None:
        async with client(face, era) as c:
            with pytest.raises(MCPError, match=r"Unknown tool: cortex_forget.*cortex_store"):
                await c.call_tool("cortex_forget", {})

    async def test_a_fault_of_the_node_does_not_end_the_connection(
        self, face: Face, memory: SmallMemory, era: str
    ) -> None:
        async with client(face, era) as c:
            memory.failure = ZeroDivisionError("oops")
            with pytest.raises(MCPError):
                await c.call_tool("cortex_status", {})
            memory.failure = None
            assert not (await c.call_tool("cortex_status", {})).is_error

    async def test_facts_and_status_are_resources(self, face: Face, memory: SmallMemory, era: str) -> None:
        await memory.store({"content": "x", "body": "long"})
        async with client(face, era) as c:
            assert [str(r.uri) for r in (await c.list_resources()).resources] == ["cortex://status"]
            templates = (await c.list_resource_templates()).resource_templates
            assert [t.uri_template for t in templates] == ["cortex://fact/{id}"]
            [contents] = (await c.read_resource("cortex://fact/a-1")).contents
            assert json.loads(contents.text)["body"] == "long"  # type: ignore[union-attr]
            [contents] = (await c.read_resource("cortex://status")).contents
            assert json.loads(contents.text)["node"]["name"] == "kitchen"  # type: ignore[union-attr]
            for uri in ("cortex://fact/none", "cortex://x", "file:///etc/passwd"):
                with pytest.raises(MCPError):
                    await c.read_resource(uri)

    async def test_prompts_are_listed_and_written(self, face: Face, era: str) -> None:
        async with client(face, era) as c:
            assert {p.name for p in (await c.list_prompts()).prompts} == {"recall", "handoff"}
            written = await c.get_prompt("recall", {"topic": "keys"})
            assert "keys" in written.messages[0].content.text  # type: ignore[union-attr]
            for name, given in (("recall", {}), ("none", {})):
                with pytest.raises(MCPError):
                    await c.get_prompt(name, given)

    @pytest.mark.parametrize(
        ("name", "agent"),
        [("claude-desktop", "claude-desktop"), ("a\nb\x1b[1m", "ab1m"), ("\n", "mcp"), ("x" * 999, "x" * 64)],
    )
    async def test_facts_are_of_the_client_by_its_name(
        self, face: Face, memory: SmallMemory, era: str, name: str, agent: str
    ) -> None:
        async with client(face, era, name) as c:
            await c.call_tool("cortex_store", {"content": "x"})
        assert memory.facts["a-1"]["agent"] == agent


async def test_a_store_that_is_repeated_with_its_key_is_stored_once(face: Face, memory: SmallMemory) -> None:
    params = {"name": "cortex_store", "arguments": {"content": "x"}, "_meta": {KEY: "k1"}}
    async with served(face) as raw:
        raw.say(**HELLO)
        await raw.hear()
        for number in (1, 2):
            raw.say(id=number, method="tools/call", params=params)
            assert (await raw.hear())["result"]["structuredContent"]["id"] == "a-1"
    assert len(memory.facts) == 1


@pytest.mark.parametrize(
    ("message", "code", "name"),
    [
        (b"not json", -32700, None),
        (b"[" * 200_000, -32700, None),
        (b'{"jsonrpc":"2.0","id":5}', -32600, 5),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', -32600, "a"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
        (b'"\xff\xfe"', -32700, None),
        (TooLong(b'{"jsonrpc":"2.0","id":9,', b""), -32600, 9),
    ],
)
async def test_what_is_no_message_is_an_error_and_the_next_one_is_answered(
    face: Face, message: Any, code: int, name: Any
) -> None:
    async with served(face) as raw:
        raw.say(**HELLO)
        await raw.hear()
        raw.to_server.put_nowait(message)
        told = await raw.hear()
        assert (told["error"]["code"], told["id"]) == (code, name)
        raw.say(id=1, method="ping")
        assert (await raw.hear())["id"] == 1


async def test_arguments_that_are_no_object_are_an_error(face: Face) -> None:
    async with served(face) as raw:
        raw.say(**HELLO)
        await raw.hear()
        raw.say(id=1, method="tools/call", params={"name": "cortex_get", "arguments": [1]})
        assert (await raw.hear())["error"]["code"] == -32602


class SlowMemory(SmallMemory):
    """Every status waits for `go`. `entered` and `cancelled` hear of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.entered: asyncio.Queue[None] = asyncio.Queue()
        self.cancelled: asyncio.Queue[None] = asyncio.Queue()
        self.waiting = self.most = 0

    async def status(self) -> dict[str, Any]:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        self.entered.put_nowait(None)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(None)
            raise
        finally:
            self.waiting -= 1
        return await super().status()

    async def enter(self, many: int) -> None:
        """Until so many calls are under way."""
        async with asyncio.timeout(10):
            for _ in range(many):
                await self.entered.get()


def ask(raw: Any, *numbers: int) -> None:
    for number in numbers:
        raw.say(id=number, method="tools/call", params={"name": "cortex_status"})


async def test_requests_under_way_at_once_are_bounded() -> None:
    memory = SlowMemory()
    async with served(a_face(memory)) as raw:
        raw.say(**HELLO)
        await raw.hear()
        ask(raw, *range(1, 101))
        await memory.enter(MAX_UNANSWERED)
        memory.go.set()
        assert {(await raw.hear())["id"] for _ in range(100)} == set(range(1, 101))
    assert memory.most == MAX_UNANSWERED


async def test_a_cancelled_call_stops_its_work_and_makes_room() -> None:
    memory = SlowMemory()
    async with served(a_face(memory)) as raw:
        raw.say(**HELLO)
        await raw.hear()
        ask(raw, *range(1, MAX_UNANSWERED))
        await memory.enter(MAX_UNANSWERED - 1)
        raw.say(method="notifications/cancelled", params={"requestId": 1})
        async with asyncio.timeout(10):
            await memory.cancelled.get()
        ask(raw, 101, 102)
        await memory.enter(2)
        memory.go.set()
        answered = [(await raw.hear())["id"] for _ in range(MAX_UNANSWERED)]
        assert 1 not in answered and {101, 102} <= set(answered)


async def test_what_was_taken_before_the_end_is_answered() -> None:
    memory = SlowMemory()
    async with served(a_face(memory)) as raw:
        raw.say(**HELLO)
        ask(raw, 1)
        await memory.enter(1)
        raw.to_server.put_nowait(None)
        memory.go.set()
        assert {(await raw.hear())["id"] for _ in range(2)} == {0, 1}


async def test_a_problem_names_the_argument_at_fault(face: Face, memory: SmallMemory) -> None:
    memory.failure = MemoryProblem("invalid_as_of", "as_of is no time", "write it like 2026-05-11", "as_of")
    async with client(face, "legacy") as c:
        result = await c.call_tool("cortex_search", {"query": "x", "as_of": "soon"})
    assert result.structured_content["field"] == "as_of"
