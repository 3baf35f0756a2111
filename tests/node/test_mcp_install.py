"""A client's settings: the entry comes and goes, and everything else stays as it is."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from node import mcp_install
from node.errors import Problem
from node.mcp_install import BACKUP, CLIENTS, adding, entry, forget, keep, make, removing
from node.paths import Home

SERVER = {"command": "/opt/bin/cortex-node", "args": ["mcp"]}
CLAUDE = CLIENTS["claude"]


def install(path: Path, server: dict[str, Any] = SERVER) -> None:
    change = adding(CLAUDE, path, server)
    keep(change)
    make(change)


def undo(path: Path) -> None:
    change = removing(CLAUDE, path)
    make(change)
    forget(change)


@pytest.mark.parametrize("name", CLIENTS)
def test_each_client_gets_what_it_reads(tmp_path: Path, name: str) -> None:
    client = CLIENTS[name]
    path = client.path(tmp_path, "linux")
    make(adding(client, path, SERVER))
    server = json.loads(path.read_text())["servers" if name == "vscode" else "mcpServers"]["cortex"]
    assert {key: server[key] for key in SERVER} == SERVER
    assert ("type" in server) == (name == "vscode")
    assert client.path(tmp_path, "darwin").is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "before", ["{}", '{"a":  1}\n', '{"mcpServers": {"other": {"command": "x"}}, "theme": "dark"}', ""]
)
def test_what_was_there_stays_and_undo_gives_back_the_very_bytes(tmp_path: Path, before: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(before)
    path.chmod(0o600)
    install(path)
    after = json.loads(path.read_text())
    assert after["mcpServers"].pop("cortex") == SERVER
    assert {k: v for k, v in after.items() if v} == {k: v for k, v in json.loads(before or "{}").items() if v}
    assert path.stat().st_mode & 0o777 == 0o600
    undo(path)
    assert path.exists() is bool(before) and (not before or path.read_text() == before)
    assert not path.with_name(path.name + BACKUP).exists()


def test_undo_of_a_file_that_was_not_there_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.json"
    install(path)
    undo(path)
    assert not path.exists()


def test_undo_after_other_changes_takes_only_the_entry_out(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    install(path)
    changed = json.loads(path.read_text()) | {"theme": "dark"}
    path.write_text(json.dumps(changed))
    undo(path)
    assert json.loads(path.read_text()) == {"theme": "dark", "mcpServers": {}}


def test_installing_twice_keeps_the_first_backup(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    install(path)
    install(path, SERVER | {"args": ["--home", "/x", "mcp"]})
    undo(path)
    assert path.read_text() == '{"a": 1}'


@pytest.mark.parametrize("text", ["// a comment\n{}", "[]", '{"mcpServers": []}', "\xff"])
def test_a_file_that_is_no_plain_json_object_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Problem) as refused:
        adding(CLAUDE, path, SERVER)
    assert refused.value.action
    assert path.read_bytes() == text.encode("latin-1")


def test_nothing_to_undo_is_told(tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        removing(CLAUDE, tmp_path / "none.json")
    assert refused.value.code == "not_installed"


def test_the_difference_is_one_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{\n  "a": 1\n}\n')
    diff = adding(CLAUDE, path, SERVER).diff
    assert any(line.startswith('+    "cortex"') for line in diff)
    assert not [line for line in diff if line.startswith("-") and '"a": 1' in line and "," in line]


def test_the_entry_names_a_home_that_is_not_the_usual_one(tmp_path: Path) -> None:
    usual = mcp_install.default_home({}, Path("~").expanduser()).absolute()
    assert entry(Home(usual), {})["args"] == ["mcp"]
    assert entry(Home(tmp_path), {})["args"] == ["--home", str(tmp_path), "mcp"]
    assert entry(Home(tmp_path), {"CORTEX_HOME": str(tmp_path)})["args"] == ["--home", str(tmp_path), "mcp"]
    assert os.path.basename(entry(Home(tmp_path), {})["command"]) == "cortex-node"  # noqa: PTH119
