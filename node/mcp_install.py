"""Puts this node into the settings of an MCP client, and takes it out again. What else is there stays as it is.

The file is read, one entry is set, and the whole is written beside it and moved over it. What was there before is kept
as FILE.before-cortex-node, so that `undo` gives back the very bytes; when the file has changed since, only the entry is
taken out. A file that is not plain JSON (comments, as VS Code allows them) is not touched: the entry is shown instead.

Tests: tests/node/test_mcp_install.py.
"""

import difflib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.errors import Problem
from node.paths import Home, default_home

NAME: Final = "cortex"
BACKUP: Final = ".before-cortex-node"


@dataclass(frozen=True, slots=True)
class Client:
    """Where a client keeps its servers: `places` from the user's home by platform, in the object `key`."""

    name: str
    key: str
    places: Mapping[str, str]
    typed: bool = False

    def path(self, user_home: Path, platform: str) -> Path:
        return user_home / self.places.get(platform, self.places["linux"])


CLIENTS: Final = {
    "claude": Client(
        "Claude Desktop",
        "mcpServers",
        {
            "linux": ".config/Claude/claude_desktop_config.json",
            "darwin": "Library/Application Support/Claude/claude_desktop_config.json",
        },
    ),
    "vscode": Client(
        "VS Code",
        "servers",
        {"linux": ".config/Code/User/mcp.json", "darwin": "Library/Application Support/Code/User/mcp.json"},
        typed=True,
    ),
    "cursor": Client("Cursor", "mcpServers", {"linux": ".cursor/mcp.json"}),
}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a file. `after` is None when it is removed."""

    path: Path
    before: str | None
    after: str | None

    @property
    def diff(self) -> list[str]:
        """The difference, as `diff -u` has it."""
        old, new = (self.before or "").splitlines(), (self.after or "").splitlines()
        return list(difflib.unified_diff(old, new, f"{self.path} (before)", str(self.path), lineterm=""))


def entry(home: Home, environ: Mapping[str, str]) -> dict[str, Any]:
    """What a client must know to start the pipe. Clients that a desktop starts have a short PATH: the program's own."""
    program = Path(sys.executable).with_name("cortex-node")
    usual = home.path == default_home(environ, Path("~").expanduser()).absolute()
    home_words = [] if usual and "CORTEX_HOME" not in environ else ["--home", str(home.path)]
    return {"command": str(program) if program.exists() else "cortex-node", "args": [*home_words, "mcp"]}


def adding(client: Client, path: Path, server: Mapping[str, Any]) -> Change:
    """The change that adds the entry. Raises Problem when the file is nothing that can be added to."""
    before = _read(path)
    document = _document(before, client, path, server)
    known = document.setdefault(client.key, {})
    if not isinstance(known, dict):
        raise _unfit(path, f"{client.key} is no object", client, server)
    known[NAME] = ({"type": "stdio"} if client.typed else {}) | dict(server)
    return Change(path, before, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def removing(client: Client, path: Path) -> Change:
    """The change that undoes `adding`. Raises Problem when there is nothing to undo."""
    before = _read(path)
    backup = _read(_backup(path))
    document = _document(before, client, path, {})
    known = document.get(client.key)
    if before is None or not isinstance(known, dict) or NAME not in known:
        raise Problem(404, "not_installed", f"{path} has no server {NAME}", "nothing needs to be undone")
    mine = known.pop(NAME)
    if backup is not None and _as_added(backup, client, mine) == before:
        return Change(path, before, backup or None)
    return Change(path, before, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def make(change: Change) -> None:
    """Write the change, and keep what was there. Raises Problem."""
    try:
        change.path.parent.mkdir(parents=True, exist_ok=True)
        if change.after is None:
            change.path.unlink()
        else:
            beside = change.path.with_name(f"{change.path.name}.{os.getpid()}")
            beside.write_text(change.after, encoding="utf-8")
            if change.before is not None:
                beside.chmod(change.path.stat().st_mode)
            beside.replace(change.path)
    except OSError as error:
        raise Problem(507, "client_unwritable", f"{change.path}: {error.strerror}", "make it writable") from error


def keep(change: Change) -> None:
    """Keep what is there before a first install; a backup of before an earlier one stays."""
    backup = _backup(change.path)
    if change.before != change.after and not (backup.exists() and NAME in (change.before or "")):
        backup.parent.mkdir(parents=True, exist_ok=True)
        backup.write_text(change.before or "", encoding="utf-8")


def forget(change: Change) -> None:
    """Remove what was kept."""
    _backup(change.path).unlink(missing_ok=True)


def _backup(path: Path) -> Path:
    return path.with_name(path.name + BACKUP)


def _as_added(backup: str, client: Client, server: Any) -> str | None:
    """What `adding` would have made of a backup."""
    document = json.loads(backup) if backup.strip() else {}
    document.setdefault(client.key, {})[NAME] = server
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(400, "client_unreadable", f"{path} can't be read: {error}", "check it, or name --file") from error


def _document(text: str | None, client: Client, path: Path, server: Mapping[str, Any]) -> dict[str, Any]:
    try:
        document = json.loads(text) if text and text.strip() else {}
    except ValueError as error:
        raise _unfit(path, f"it is not plain JSON ({error})", client, server) from None
    if not isinstance(document, dict):
        raise _unfit(path, "it holds no object", client, server)
    return document


def _unfit(path: Path, why: str, client: Client, server: Mapping[str, Any]) -> Problem:
    by_hand = json.dumps({client.key: {NAME: server}})
    return Problem(409, "client_file", f"{path} was left alone: {why}", f"change it by hand: {by_hand}")
