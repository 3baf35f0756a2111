"""`cortex-node mcp install`: shows what it does, does it, and undoes it."""

import json
from pathlib import Path

import pytest

from node import commands_mcp, entry
from node.page import Page
from tests.node.command_line import call_for, perform


def shown(answer: object) -> list[str]:
    page = Page()
    assert answer.show is not None  # type: ignore[attr-defined]
    answer.show(page, answer.document)  # type: ignore[attr-defined]
    return [line.text for line in page.parts if hasattr(line, "text")]


def test_it_writes_shows_the_difference_and_undoes_it(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    words = ["mcp", "install", "claude", "--file", str(file)]
    dry = perform(call_for(tmp_path, *words, "--dry-run"))
    assert not file.exists() and dry.document["diff"] and shown(dry)[-1] == "nothing was written"
    done = perform(call_for(tmp_path, *words))
    assert done.document["changed"]
    assert json.loads(file.read_text())["mcpServers"]["cortex"]["args"] == ["--home", str(tmp_path), "mcp"]
    assert any(line.startswith("+") for line in shown(done))
    again = perform(call_for(tmp_path, *words))
    assert not again.document["changed"] and shown(again)[-1] == f"{file} is as it should be"
    assert perform(call_for(tmp_path, *words, "--undo")).document["changed"]
    assert not file.exists()


def test_mcp_by_way_of_the_command_line_is_the_same_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes: list[str] = []
    monkeypatch.setattr(entry, "pipe", lambda home: homes.append(home) or 4)
    assert commands_mcp.serve(call_for(tmp_path, "mcp")).code == 4
    assert homes == [str(tmp_path)]
