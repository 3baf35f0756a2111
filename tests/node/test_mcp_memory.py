"""The node's facts through the port of mcp_edge: the shapes it expects, and every Problem as a MemoryProblem."""

import asyncio
from pathlib import Path

import pytest

from mcp_edge import render
from mcp_edge.files import MemoryFiles
from mcp_edge.memory import Memory, MemoryProblem
from mcp_edge.tools import BY_NAME, Caller
from node import mcp_memory
from node.mcp_memory import NodeMemory
from tests.node.voting.polls import polls
from tests.node.world import Node, a_mesh


@pytest.fixture
async def node() -> Node:
    (made,) = await a_mesh(1)
    return made


async def status() -> dict[str, object]:
    return {"node": {"id": "a", "name": "n", "uptime_s": 1}, "projects": [], "peers": [], "warnings": []}


@pytest.fixture
def memory(node: Node) -> NodeMemory:
    return NodeMemory(node.replica, node.recall, status)


async def test_it_is_the_port(memory: NodeMemory) -> None:
    port: Memory = memory
    stored = await port.store({"content": "the key", "tags": ["a"], "agent": "claude"})
    assert stored["agent"] == "claude"
    other = await port.store({"content": "the lock"})
    await port.link(other["id"], "opened-by", stored["id"])
    assert await port.links_to(stored["id"]) == [{"from": other["id"], "relation": "opened-by"}]
    assert await port.links_to(other["id"]) == []
    changed = await port.update(stored["id"], {"content": "the spare key"})
    assert changed["content"] == "the spare key"
    versions = (await port.history(stored["id"]))["versions"]
    assert {v["value"] for v in versions if v["field"] == "content"} == {"the key", "the spare key"}
    assert [r["fact"]["id"] for r in (await port.search({"query": "spare"}))["results"]] == [stored["id"]]
    assert (await port.retract(stored["id"], "lost"))["retracted"]
    assert (await port.get(stored["id"]))["retracted_reason"] == "lost"
    assert [fact["id"] for fact in (await port.list_facts("default"))["facts"]] == [other["id"]]


async def test_a_store_with_a_key_that_was_used_stores_nothing(memory: NodeMemory) -> None:
    first = await memory.store({"content": "x"}, "k1")
    assert (await memory.store({"content": "x"}, "k1"))["id"] == first["id"]
    with pytest.raises(MemoryProblem) as reused:
        await memory.store({"content": "y"}, "k1")
    assert reused.value.code == "key_reused"


async def test_every_tool_works_on_it(memory: NodeMemory) -> None:
    who = Caller("claude")
    stored = await BY_NAME["cortex_store"].call(memory, who, {"content": "long", "body": "line\n" * 20})
    given = {"id": stored.data["id"]}
    for name, more in (
        ("cortex_get", {}),
        ("cortex_update", {"append": "end", "tags": "a,b"}),
        ("cortex_update", {"retract": True}),
        ("cortex_update", {"restore": True}),
        ("cortex_link", {"relation": "see", "to": stored.data["id"]}),
    ):
        answer = await BY_NAME[name].call(memory, who, given | more)
        assert not answer.failed, answer.text
    shown = await BY_NAME["cortex_get"].call(memory, who, given)
    assert shown.data["fact"]["body"].endswith("end") and "history" in shown.text


@pytest.mark.parametrize(
    ("tool", "given", "field"),
    [
        ("cortex_store", {"content": " "}, "content"),
        ("cortex_store", {"content": "x" * 70_000}, "content"),
        ("cortex_store", {"content": "x", "valid_from": "soon"}, "valid_from"),
        ("cortex_store", {"content": "x", "tags": ["t" * 200]}, "tags"),
        ("cortex_store", {"content": "x", "project": "_mesh"}, "project"),
        ("cortex_search", {"query": "x" * 3_000}, "query"),
        ("cortex_search", {"query": "x", "as_of": "soon"}, "as_of"),
        ("cortex_link", {"id": "a", "relation": "r", "to": "b"}, "to"),
    ],
)
async def test_what_the_node_refuses_names_the_argument(memory: NodeMemory, tool: str, given: dict, field: str) -> None:  # type: ignore[type-arg]
    answer = await BY_NAME[tool].call(memory, Caller("claude"), given)
    assert answer.failed and answer.data["field"] == field
    assert "What to do" in answer.text and len(answer.text) < 500


async def test_files_of_the_memory_tool_live_here_too(memory: NodeMemory) -> None:
    files = MemoryFiles(memory)
    for given in (
        {"command": "create", "path": "/memories/a/plan.md", "file_text": "one\ntwo"},
        {"command": "str_replace", "path": "/memories/a/plan.md", "old_str": "two", "new_str": "2"},
        {"command": "insert", "path": "/memories/a/plan.md", "insert_line": 2, "insert_text": "three"},
        {"command": "rename", "old_path": "/memories/a", "new_path": "/memories/b"},
    ):
        text, failed = await files.act(given)
        assert not failed, text
    text, _ = await files.act({"command": "view", "path": "/memories/b/plan.md"})
    assert text.endswith("     1\tone\n     2\t2\n     3\tthree")
    found = render.found(await memory.search({"query": "three", "project": "memories"}))
    assert '"/memories/b/plan.md"' in found.text


async def test_a_client_votes_as_itself_and_is_told_what_is_wrong(tmp_path: Path) -> None:
    (node,) = await polls(tmp_path)
    memory = NodeMemory(node.replica, node.recall, status, votes=node.votes)
    fact = await memory.store({"content": "the key"})
    who = Caller("claude")
    answer = await BY_NAME["cortex_vote"].call(memory, who, {"fact_id": fact["id"], "value": 1, "reason": "tried it"})
    assert not answer.failed and answer.data["state"] == "pending"
    (vote,) = (await node.votes.votes(fact["id"]))["votes"]
    assert (vote["agent"], vote["reason"]) == ("claude", "tried it")
    unknown = await BY_NAME["cortex_vote"].call(memory, who, {"fact_id": "a-1", "value": 1})
    assert unknown.data["code"] == "unknown_fact" and "cortex_search" in unknown.text
    await node.agents.revoke("claude")
    ended = await BY_NAME["cortex_vote"].call(memory, who, {"fact_id": fact["id"], "value": -1})
    assert ended.data["code"] == "agent_revoked" and "cortex-node" not in ended.text


async def test_the_ledger_is_verified_in_time_or_not_at_all(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def status() -> dict[str, object]:
        return {}

    async def verify() -> dict[str, object]:
        return {"ok": True, "checked": 3, "votes": 0, "signatures": 3, "size": 3, "root": "ab", "findings": []}

    async def never() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    memory = NodeMemory(node.replica, node.recall, status, verify=verify)
    answer = await BY_NAME["cortex_ledger_verify"].call(memory, Caller("claude"), {})
    assert answer.data["ok"] and "3 of 3 entries" in answer.text
    monkeypatch.setattr(mcp_memory, "VERIFY_S", 0.01)
    for slow, code in ((never, "ledger_long"), (None, "no_ledger")):
        memory = NodeMemory(node.replica, node.recall, status, verify=slow)
        refused = await BY_NAME["cortex_ledger_verify"].call(memory, Caller("claude"), {})
        assert refused.failed and refused.data["code"] == code and refused.data["action"]
