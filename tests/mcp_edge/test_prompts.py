"""The prompts carry what memory holds, as data."""

import pytest

from mcp_edge.memory import MemoryProblem
from mcp_edge.prompts import BY_NAME, PROMPTS, Prompt
from mcp_edge.render import DATA
from tests.mcp_edge.small_memory import SmallMemory


@pytest.fixture
async def memory() -> SmallMemory:
    made = SmallMemory()
    await made.store({"content": "the spare key is with Ada", "project": "home"})
    return made


async def test_recall_carries_what_is_known(memory: SmallMemory) -> None:
    text = await BY_NAME["recall"].text(memory, {"topic": "key", "project": "home"})
    assert '[a-1] "the spare key is with Ada"' in text and DATA in text
    assert memory.calls[-1] == ("search", {"query": "key", "top_k": 20, "project": "home"})


async def test_handoff_carries_what_happened_lately(memory: SmallMemory) -> None:
    text = await BY_NAME["handoff"].text(memory, {"project": "home"})
    assert "a-1" in text and DATA in text and "tag handoff" in text
    assert "a-1" not in await BY_NAME["handoff"].text(memory, {})


async def test_what_is_required_is_asked_for(memory: SmallMemory) -> None:
    with pytest.raises(MemoryProblem, match="topic is missing"):
        await BY_NAME["recall"].text(memory, {})


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_required_arguments_are_described(prompt: Prompt) -> None:
    assert prompt.required <= prompt.arguments.keys()
