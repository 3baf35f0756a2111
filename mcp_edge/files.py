"""Anthropic's memory tool over the facts of a node: files below /memories that every machine of the mesh shares.

A file is a fact of type `file` whose `content` is its path and whose `body` is its text; so files are searched, synced
and kept in history like everything else, and two machines that edit one file offline end with both edits in it (the
body is a text that merges). Two files that were created apart under one path are both kept: the older has the name,
the younger is shown beside it with its id, as NAME~ID. Directories are what the paths say; an empty one does not exist.

What comes back is the text that the contract of `memory_20250818` gives for each case, errors included:

    from anthropic import AsyncAnthropic
    from mcp_edge.files import MemoryFiles

    files = MemoryFiles(memory)                       # any mcp_edge.memory.Memory, such as node.mcp_memory.NodeMemory
    answer = await AsyncAnthropic().beta.messages.create(
        model="...", max_tokens=1024, messages=messages, betas=["context-management-2025-06-27"],
        tools=[{"type": "memory_20250818", "name": "memory"}],
    )
    for block in answer.content:
        if block.type == "tool_use" and block.name == "memory":
            text, failed = await files.act(block.input)   # goes back as the tool_result

Tests: tests/mcp_edge/test_files.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_edge.memory import Memory, MemoryProblem

ROOT: Final = "/memories"
FILE_TYPE: Final = "file"
PROJECT: Final = "memories"
PAGE: Final = 500
MAX_FILES: Final = 10_000
"""Looked through for a path. A model that keeps more files than that should store facts."""
MAX_LINES: Final = 999_999
MAX_PATH_CHARS: Final = 512
SHOWN_DEPTH: Final = 2
AROUND: Final = 4
"""Lines shown before and after an edit."""


class _Refused(Exception):
    """An answer that says what went wrong."""


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    fact_id: str


class MemoryFiles:
    """The six commands, over one project of one memory. `agent` is named as who wrote."""

    def __init__(self, memory: Memory, project: str = PROJECT, agent: str = "memory-tool") -> None:
        self._memory = memory
        self._project = project
        self._agent = agent

    async def act(self, given: Mapping[str, Any]) -> tuple[str, bool]:
        """Do one command, as the model gave it. The text of the tool result, and whether it is an error."""
        commands = {
            "view": self._view, "create": self._create, "str_replace": self._replace,
            "insert": self._insert, "delete": self._delete, "rename": self._rename,
        }  # fmt: skip
        arguments = dict(given)
        command = commands.get(str(arguments.pop("command", None)))
        try:
            if command is None:
                raise _Refused(f"Error: Unknown command. The commands are {', '.join(commands)}.")
            return await command(arguments), False
        except _Refused as refused:
            return str(refused), True
        except MemoryProblem as problem:
            return f"Error: {problem.detail}. {problem.action}".strip(), True

    # The commands

    async def _view(self, given: dict[str, Any]) -> str:
        path = _path(given)
        files = await self._files()
        if file := _named(files, path):
            lines = (await self._text(file)).split("\n")
            if len(lines) > MAX_LINES:
                raise _Refused(f"File {path} exceeds maximum line limit of {MAX_LINES:,} lines.")
            first, last = _range(given.get("view_range"), len(lines))
            return f"Here's the content of {path} with line numbers:\n{_numbered(lines, first, last)}"
        if path != ROOT and not _below(files, path):
            raise _Refused(f"The path {path} does not exist. Please provide a valid path.")
        return await self._listing(path, _below(files, path))

    async def _create(self, given: dict[str, Any]) -> str:
        path, text = _path(given), _given(given, "file_text")
        files = await self._files()
        if path == ROOT or _named(files, path) or _below(files, path):
            raise _Refused(f"Error: File {path} already exists")
        draft = {"content": path, "body": text, "project": self._project, "fact_type": FILE_TYPE, "agent": self._agent}
        await self._memory.store(draft)
        return f"File created successfully at: {path}"

    async def _replace(self, given: dict[str, Any]) -> str:
        path, old, new = _path(given), _given(given, "old_str"), str(given.get("new_str", ""))
        fact_id, text, token = await self._opened(path, "The path {} does not exist. Please provide a valid path.")
        found = text.count(old) if old else 0
        if found == 0:
            raise _Refused(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
        if found > 1:
            lines = ", ".join(str(number) for number in _occurrences(text, old))
            raise _Refused(
                f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: {lines}. Please"
                " ensure it is unique"
            )
        after = text.replace(old, new)
        await self._memory.update(fact_id, {"body": after, "body_base": token})
        return "The memory file has been edited.\n" + _excerpt(after, text.index(old), new)

    async def _insert(self, given: dict[str, Any]) -> str:
        path, added = _path(given), _given(given, "insert_text")
        fact_id, text, token = await self._opened(path, "The path {} does not exist")
        lines = text.split("\n")
        at = given.get("insert_line")
        if not isinstance(at, int) or not 0 <= at <= len(lines):
            raise _Refused(
                f"Error: Invalid `insert_line` parameter: {at}. It should be within the range of lines of the file:"
                f" [0, {len(lines)}]"
            )
        lines[at:at] = added.removesuffix("\n").split("\n")
        await self._memory.update(fact_id, {"body": "\n".join(lines), "body_base": token})
        return f"The file {path} has been edited."

    async def _delete(self, given: dict[str, Any]) -> str:
        path = _path(given)
        for file in await self._affected(path):
            await self._memory.retract(file.fact_id, "deleted")
        return f"Successfully deleted {path}"

    async def _rename(self, given: dict[str, Any]) -> str:
        old, new = _path(given, "old_path"), _path(given, "new_path")
        affected = await self._affected(old)
        files = await self._files()
        if new == ROOT or _named(files, new) or _below(files, new) or new.startswith(old + "/"):
            raise _Refused(f"Error: The destination {new} already exists")
        for file in affected:
            await self._memory.update(file.fact_id, {"content": new + file.path.removeprefix(old)})
        return f"Successfully renamed {old} to {new}"

    # Facts as files

    async def _files(self) -> list[_File]:
        """Every file, by path. Of several with one path the oldest has the name."""
        found: list[dict[str, Any]] = []
        cursor = None
        while len(found) < MAX_FILES:
            page = await self._memory.list_facts(self._project, PAGE, cursor)
            found += [fact for fact in page["facts"] if fact["fact_type"] == FILE_TYPE]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        files: dict[str, _File] = {}
        for fact in sorted(found, key=lambda fact: (fact["created_at"], fact["id"])):
            path = fact["content"] if fact["content"] not in files else f"{fact['content']}~{fact['id']}"
            files[path] = _File(path, fact["id"])
        return [files[path] for path in sorted(files)]

    async def _text(self, file: _File) -> str:
        return (await self._memory.get(file.fact_id))["body"] or ""

    async def _opened(self, path: str, absent: str) -> tuple[str, str, str | None]:
        """Id, text and what an edit of it builds on."""
        file = _named(await self._files(), path)
        if file is None:
            raise _Refused("Error: " + absent.format(path))
        fact = await self._memory.get(file.fact_id)
        return file.fact_id, fact["body"] or "", fact["body_token"]

    async def _affected(self, path: str) -> list[_File]:
        """The file of that path, or all below it."""
        files = await self._files()
        file = _named(files, path)
        affected = [file] if file else _below(files, path)
        if path == ROOT or not affected:
            raise _Refused(f"Error: The path {path} does not exist")
        return affected

    async def _listing(self, path: str, files: list[_File]) -> str:
        sizes: dict[str, int] = {path: 0}
        for file in files:
            size = len((await self._text(file)).encode())
            parts = file.path.removeprefix(path + "/").split("/")
            if any(part.startswith(".") or part == "node_modules" for part in parts):
                continue
            sizes[path] += size
            for depth in range(1, min(len(parts), SHOWN_DEPTH) + 1):
                place = "/".join([path, *parts[:depth]])
                sizes[place] = sizes.get(place, 0) + size
        lines = [f"{_size(sizes[place])}\t{place}" for place in sizes]
        head = f"Here're the files and directories up to {SHOWN_DEPTH} levels deep in {path}, excluding hidden items"
        return "\n".join([head + " and node_modules:", *lines])


def _path(given: Mapping[str, Any], name: str = "path") -> str:
    """A path below ROOT, without a slash at its end. Nothing leads out of it: a path is only a name here."""
    path = given.get(name)
    if not isinstance(path, str):
        raise _Refused(f"Error: `{name}` is missing")
    path = path.rstrip("/") or "/"
    parts = path.split("/")[1:]
    inside = path == ROOT or path.startswith(ROOT + "/")
    if not inside or {"", ".", ".."} & set(parts) or not path.isprintable() or len(path) > MAX_PATH_CHARS:
        raise _Refused(f"Error: Invalid path {path[:MAX_PATH_CHARS]!r}. Paths begin with {ROOT}.")
    return path


def _given(given: Mapping[str, Any], name: str) -> str:
    if not isinstance(given.get(name), str):
        raise _Refused(f"Error: `{name}` is missing")
    return str(given[name])


def _named(files: list[_File], path: str) -> _File | None:
    return next((file for file in files if file.path == path), None)


def _below(files: list[_File], path: str) -> list[_File]:
    return [file for file in files if file.path.startswith(path + "/")]


def _range(wanted: Any, lines: int) -> tuple[int, int]:
    """First and last line, from 1; -1 stands for the end."""
    if wanted is None:
        return 1, lines
    if isinstance(wanted, list) and len(wanted) == 2 and all(isinstance(end, int) for end in wanted):
        first, last = wanted[0], lines if wanted[1] == -1 else min(wanted[1], lines)
        if 1 <= first <= last:
            return first, last
    raise _Refused(f"Error: Invalid `view_range` parameter: {wanted}. It should be within the lines [1, {lines}].")


def _numbered(lines: list[str], first: int, last: int) -> str:
    return "\n".join(f"{number:6}\t{lines[number - 1]}" for number in range(first, last + 1))


def _occurrences(text: str, part: str) -> list[int]:
    """The line of each occurrence."""
    found, at = [], text.find(part)
    while at >= 0:
        found.append(text.count("\n", 0, at) + 1)
        at = text.find(part, at + len(part))
    return found


def _excerpt(text: str, at: int, new: str) -> str:
    lines = text.split("\n")
    first = text.count("\n", 0, at) + 1
    last = first + new.count("\n")
    return _numbered(lines, max(1, first - AROUND), min(len(lines), last + AROUND))


def _size(size: int) -> str:
    return f"{size}B" if size < 1024 else f"{size / 1024:.1f}K" if size < 1 << 20 else f"{size / (1 << 20):.1f}M"
