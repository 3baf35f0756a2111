"""Anthropic's memory tool: the six commands give the texts of the contract, and nothing leads out of /memories."""

from typing import Any

import pytest

from mcp_edge.files import ROOT, MemoryFiles
from mcp_edge.memory import MemoryProblem
from tests.mcp_edge.small_memory import SmallMemory


class Tool:
    def __init__(self) -> None:
        self.memory = SmallMemory()
        self.files = MemoryFiles(self.memory)

    async def __call__(self, command: str, **given: Any) -> str:
        text, failed = await self.files.act({"command": command, **given})
        assert not failed, text
        return text

    async def refused(self, command: str, **given: Any) -> str:
        text, failed = await self.files.act({"command": command, **given})
        assert failed, text
        return text


@pytest.fixture
def tool() -> Tool:
    return Tool()


async def test_a_file_is_created_viewed_edited_and_deleted(tool: Tool) -> None:
    path = "/memories/notes/plan.md"
    assert await tool("create", path=path, file_text="one\ntwo\nthree") == f"File created successfully at: {path}"
    assert await tool("view", path=path) == (
        f"Here's the content of {path} with line numbers:\n     1\tone\n     2\ttwo\n     3\tthree"
    )
    assert (await tool("view", path=path, view_range=[2, -1])).endswith("numbers:\n     2\ttwo\n     3\tthree")
    edited = await tool("str_replace", path=path, old_str="two", new_str="2a\n2b")
    assert edited == "The memory file has been edited.\n     1\tone\n     2\t2a\n     3\t2b\n     4\tthree"
    assert await tool("insert", path=path, insert_line=0, insert_text="# Plan\n") == f"The file {path} has been edited."
    assert tool.memory.facts["a-1"]["body"] == "# Plan\none\n2a\n2b\nthree"
    assert await tool("delete", path=path) == f"Successfully deleted {path}"
    assert await tool.refused("view", path=path) == f"The path {path} does not exist. Please provide a valid path."


async def test_an_edit_builds_on_what_was_read_so_that_others_edits_are_kept(tool: Tool) -> None:
    await tool("create", path="/memories/a", file_text="x")
    await tool("str_replace", path="/memories/a", old_str="x", new_str="y")
    assert ("update", ("a-1", {"body": "y", "body_base": "t1"})) in tool.memory.calls


async def test_a_directory_is_listed_two_levels_deep_without_hidden_items(tool: Tool) -> None:
    for path in ("a.md", "b/c.md", "b/d/e.md", ".hidden", "node_modules/x"):
        await tool("create", path=f"{ROOT}/{path}", file_text="12345")
    listed = (await tool("view", path="/memories/")).splitlines()
    assert listed[0] == (
        "Here're the files and directories up to 2 levels deep in /memories, excluding hidden items and node_modules:"
    )
    assert listed[1:] == [
        "15B\t/memories", "5B\t/memories/a.md", "10B\t/memories/b", "5B\t/memories/b/c.md", "5B\t/memories/b/d",
    ]  # fmt: skip


async def test_the_empty_memory_can_be_viewed(tool: Tool) -> None:
    assert (await tool("view", path=ROOT)).endswith("\n0B\t/memories")


async def test_renaming_a_directory_takes_its_files_along(tool: Tool) -> None:
    await tool("create", path="/memories/old/a", file_text="x")
    assert await tool("rename", old_path="/memories/old", new_path="/memories/new") == (
        "Successfully renamed /memories/old to /memories/new"
    )
    assert (await tool("view", path="/memories/new/a")).endswith("     1\tx")


async def test_what_cannot_be_done_is_told_in_the_words_of_the_contract(tool: Tool) -> None:
    await tool("create", path="/memories/a", file_text="same\nsame")
    await tool("create", path="/memories/b", file_text="")
    assert await tool.refused("create", path="/memories/a", file_text="") == "Error: File /memories/a already exists"
    assert await tool.refused("str_replace", path="/memories/a", old_str="no", new_str="") == (
        "No replacement was performed, old_str `no` did not appear verbatim in /memories/a."
    )
    assert await tool.refused("str_replace", path="/memories/a", old_str="same", new_str="") == (
        "No replacement was performed. Multiple occurrences of old_str `same` in lines: 1, 2. Please"
        " ensure it is unique"
    )
    assert "[0, 2]" in await tool.refused("insert", path="/memories/a", insert_line=9, insert_text="x")
    assert await tool.refused("delete", path="/memories/x") == "Error: The path /memories/x does not exist"
    assert await tool.refused("rename", old_path="/memories/a", new_path="/memories/b") == (
        "Error: The destination /memories/b already exists"
    )
    assert "view_range" in await tool.refused("view", path="/memories/a", view_range=[3, 1])
    assert "commands are" in await tool.refused("format", path="/memories/a")
    assert "`file_text` is missing" in await tool.refused("create", path="/memories/c")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/memories/../etc", "/memories/./a", "/memoriesx", "memories/a", "/memories//a", "/memories/\n"],
)
async def test_nothing_leads_out_of_the_directory(tool: Tool, path: str) -> None:
    for command in ("view", "create", "delete"):
        assert "Invalid path" in await tool.refused(command, path=path, file_text="x")
    assert not tool.memory.facts


@pytest.mark.parametrize("command", ["delete", "create"])
async def test_the_directory_itself_stays(tool: Tool, command: str) -> None:
    await tool("create", path="/memories/a", file_text="x")
    await tool.refused(command, path=ROOT, file_text="x")
    assert not tool.memory.facts["a-1"]["retracted"]


async def test_two_files_that_were_created_apart_under_one_path_are_both_kept(tool: Tool) -> None:
    await tool("create", path="/memories/a", file_text="older")
    fact = await tool.memory.store(
        {"content": "/memories/a", "body": "younger", "project": "memories", "fact_type": "file"}
    )
    assert "older" in await tool("view", path="/memories/a")
    assert "younger" in await tool("view", path=f"/memories/a~{fact['id']}")


async def test_a_problem_of_the_memory_is_told(tool: Tool) -> None:
    tool.memory.failure = MemoryProblem("busy", "the node is busy", "Try again.")
    assert await tool.refused("create", path="/memories/a", file_text="x") == "Error: the node is busy. Try again."
