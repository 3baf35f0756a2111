"""The tools: their schemas are kept, their list is small, and what each does reaches the memory as it was meant.

After a change that is meant: `python tests/mcp_edge/test_tools.py` writes the snapshots anew.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_edge import server, tools
from mcp_edge.memory import MemoryProblem
from mcp_edge.tools import BY_NAME, MAX_LIST_BYTES, TOOLS, Caller, Tool
from tests.mcp_edge.small_memory import SmallMemory

SNAPSHOTS = Path(__file__).parent / "snapshots"


def on_the_wire(tool: Tool) -> dict[str, Any]:
    return server.described(tool).model_dump(by_alias=True, mode="json", exclude_none=True)


def snapshot(tool: Tool) -> str:
    return json.dumps(on_the_wire(tool), indent=2) + "\n"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_the_schema_is_the_one_that_is_kept(tool: Tool) -> None:
    assert (SNAPSHOTS / f"{tool.name}.json").read_text() == snapshot(tool)


def test_no_snapshot_is_left_over() -> None:
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} == BY_NAME.keys()


def test_the_whole_list_is_small() -> None:
    listed = json.dumps({"tools": [on_the_wire(tool) for tool in TOOLS]}, separators=(",", ":"))
    assert len(listed.encode()) <= MAX_LIST_BYTES


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_hints_agree_with_what_a_tool_does(tool: Tool) -> None:
    assert not (tool.reads and (tool.destroys or tool.repeatable))
    assert tool.reads == (tool.name in ("cortex_search", "cortex_get", "cortex_status", "cortex_ledger_verify"))


async def call(memory: SmallMemory, name: str, **given: Any) -> tools.Answer:
    return await BY_NAME[name].call(memory, Caller("claude", "key-1"), given)


@pytest.fixture
async def memory() -> SmallMemory:
    made = SmallMemory()
    await made.store({"content": "the spare key is with Ada"})
    made.calls.clear()
    return made


async def test_a_store_names_the_client_and_carries_the_key(memory: SmallMemory) -> None:
    first = await call(memory, "cortex_store", content="x", tags='["a"]', project="home")
    again = await call(memory, "cortex_store", content="x", tags='["a"]', project="home")
    assert first == again and len(memory.facts) == 2
    assert memory.calls[0] == ("store", {"content": "x", "tags": ["a"], "project": "home", "agent": "claude"})


async def test_what_clients_of_the_earlier_system_send_is_understood(memory: SmallMemory) -> None:
    arguments = {"project": "p", "content": "c", "fact_type": "decision", "tags": '["a", "b"]', "source": "s"}
    assert not (await call(memory, "cortex_store", **arguments)).failed
    assert not (await call(memory, "cortex_search", query="c", project="p", top_k="5")).failed


async def test_a_search_finds_and_asks_for_no_more_than_a_model_can_read(memory: SmallMemory) -> None:
    answer = await call(memory, "cortex_search", query="key")
    assert [hit["id"] for hit in answer.data["results"]] == ["a-1"]
    for top_k in (0, tools.MAX_TOP_K + 1):
        refused = await call(memory, "cortex_search", query="key", top_k=top_k)
        assert refused.failed and refused.data["field"] == "top_k"


async def test_a_changed_content_is_of_who_changed_it_and_other_changes_are_not(memory: SmallMemory) -> None:
    await call(memory, "cortex_update", id="a-1", content="with Bo")
    await call(memory, "cortex_update", id="a-1", tags=["keys"])
    updates = [given for name, given in memory.calls if name == "update"]
    assert updates == [("a-1", {"content": "with Bo", "agent": "claude"}), ("a-1", {"tags": ["keys"]})]


async def test_a_fact_is_retracted_or_changed_but_not_both(memory: SmallMemory) -> None:
    assert (await call(memory, "cortex_update", id="a-1", retract=True, content="x")).failed
    assert (await call(memory, "cortex_update", id="a-1")).data["code"] == "nothing_to_change"
    assert "is retracted" in (await call(memory, "cortex_update", id="a-1", retract="true", reason="old")).text
    assert memory.facts["a-1"]["retracted_reason"] == "old"


async def test_a_link_is_made_and_taken_away(memory: SmallMemory) -> None:
    await call(memory, "cortex_link", id="a-1", relation="caused-by", to="a-2", remove=True)
    assert memory.calls[0] == ("link", ("a-1", "caused-by", "a-2", True))


@pytest.mark.parametrize(("given", "value"), [(1, 1), ("-1", -1), ("up", 1), ("Down", -1), ("withdraw", 0), (0, 0)])
async def test_a_vote_is_the_clients_own_in_numbers_or_words(memory: SmallMemory, given: Any, value: int) -> None:
    answer = await call(memory, "cortex_vote", fact_id="a-1", value=given, reason="tried it")
    assert memory.calls[0] == ("vote", ("a-1", value, "claude", "tried it"))
    assert answer.data["state"] == "pending" and "proof" not in answer.data


@pytest.mark.parametrize("value", [2, "yes", True, 0.5, ""])
async def test_a_vote_of_another_value_is_refused(memory: SmallMemory, value: Any) -> None:
    refused = await call(memory, "cortex_vote", fact_id="a-1", value=value)
    assert refused.failed and refused.data["field"] == "value" and "1, 0, -1" in refused.text


async def test_a_verification_says_what_was_found_and_where(memory: SmallMemory) -> None:
    good = await call(memory, "cortex_ledger_verify")
    assert good.text == "The ledger is good: 7 of 9 entries, 4 of them votes." and good.data["ok"]
    memory.damaged = [3, None, *range(40)]
    bad = await call(memory, "cortex_ledger_verify")
    assert not bad.failed and not bad.data["ok"] and len(bad.data["findings"]) == 20
    assert bad.text.startswith("The ledger is NOT good: 42 findings") and len(bad.text.splitlines()) == 21
    assert 'entry 3: leaf: "not the hash\\nof the entry"' in bad.text and "the ledger: leaf" in bad.text


async def test_what_the_caller_did_wrong_is_an_answer(memory: SmallMemory) -> None:
    unknown = await call(memory, "cortex_get", id="nope")
    assert unknown.failed
    assert unknown.text == "there is no fact 'nope' here. What to do: find the id with cortex_search."
    assert (await call(memory, "cortex_search", querry="x")).data["code"] == "unknown_argument"


async def test_what_the_node_did_wrong_is_not(memory: SmallMemory) -> None:
    memory.failure = MemoryProblem("busy", "too busy", "try again in a second")
    assert (await call(memory, "cortex_status")).failed
    memory.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await call(memory, "cortex_status")


if __name__ == "__main__":
    for one in TOOLS:
        (SNAPSHOTS / f"{one.name}.json").write_text(snapshot(one))
