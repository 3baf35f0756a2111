"""The arguments of tools: their JSON Schema, and how what a model or an older client really sends is read.

The schema is strict, so that models write what is meant; reading is lenient where the meaning is plain: a list of tags
may come as JSON text or separated by commas, a number as text, an object as JSON text, and null is as good as nothing.
Anything else is refused by name, with what would be right: the answer goes to a model, which will try again.

Tests: tests/mcp_edge/test_arguments.py.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mcp_edge.memory import MemoryProblem


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: the words for its type in JSON Schema, and its reader, which raises ValueError."""

    schema: dict[str, Any]
    read: Callable[[Any], Any]
    wanted: str
    required: bool = False


def text(about: str = "", *, required: bool = False) -> Argument:
    """A text."""
    return Argument(_schema("string", about), _text, "a text", required)


def texts(about: str = "") -> Argument:
    """A list of texts."""
    return Argument(_schema("array", about) | {"items": {"type": "string"}}, _texts, "a list of texts")


def number(about: str = "") -> Argument:
    """A whole number."""
    return Argument(_schema("integer", about), _number, "a whole number")


def chosen(words: Mapping[str, int], about: str = "", *, required: bool = False) -> Argument:
    """One of a few numbers, each of which has a word, too."""
    numbers = ", ".join(map(str, words.values()))

    def read(value: Any) -> int:
        found = words.get(value.lower()) if isinstance(value, str) else None
        found = _number(value) if found is None else found
        if found not in words.values():
            raise ValueError(value)
        return found

    return Argument(_schema("integer", about) | {"enum": list(words.values())}, read, f"one of {numbers}", required)


def switch(about: str = "") -> Argument:
    """True or false."""
    return Argument(_schema("boolean", about), _switch, "true or false")


def thing(about: str = "") -> Argument:
    """A JSON object."""
    return Argument(_schema("object", about), _thing, "a JSON object")


def schema(arguments: Mapping[str, Argument]) -> dict[str, Any]:
    """The input schema of a tool."""
    required = [name for name, argument in arguments.items() if argument.required]
    shape: dict[str, Any] = {"type": "object", "properties": {n: argument.schema for n, argument in arguments.items()}}
    return shape | ({"required": required} if required else {})


def read(arguments: Mapping[str, Argument], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call; what is null is left out. Raises MemoryProblem."""
    found = {}
    for name, value in given.items():
        if name not in arguments:
            near = get_close_matches(name, arguments, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise MemoryProblem(
                "unknown_argument", f"there is no argument {name!r}", f"{hint}known are: {', '.join(arguments)}", name
            )
        if value is None:
            continue
        try:
            found[name] = arguments[name].read(value)
        except ValueError:
            shown = json.dumps(value, ensure_ascii=False)[:80]
            raise MemoryProblem(
                "invalid_argument", f"{name} is {shown}", f"give {arguments[name].wanted}", name
            ) from None
    for name, argument in arguments.items():
        if argument.required and name not in found:
            raise MemoryProblem("missing_argument", f"{name} is missing", f"give {argument.wanted}", name)
    return found


def _schema(kind: str, about: str) -> dict[str, Any]:
    return {"type": kind, "description": about} if about else {"type": kind}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        value = _json(value, list) if value.lstrip().startswith("[") else value.split(",")
        value = [part.strip() if isinstance(part, str) else part for part in value if part != ""]
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ValueError(value)
    return value


def _number(value: Any) -> int:
    if isinstance(value, str) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(value)
    return value


def _switch(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _thing(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = _json(value, dict)
    if not isinstance(value, dict):
        raise ValueError(value)
    return value


def _json(value: str, kind: type) -> Any:
    try:
        found = json.loads(value)
    except RecursionError:
        raise ValueError(value) from None
    if not isinstance(found, kind):
        raise ValueError(value)
    return found
