"""The kinds of values that a setting can have: text, number, switch, address, one of a few words, or a list of these.

A kind checks a value from TOML (`fit`), reads one from the text of a flag or a variable (`read`), and says in words
what it accepts (`expected`). Both raise ValueError; who calls knows which key and which file it was.

Tests: tests/node/test_kinds.py.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Protocol

from node.arguments import split_address


class Kind(Protocol):
    """What a setting accepts."""

    @property
    def expected(self) -> str:
        """What fits, to complete the sentence `expected ...`."""

    @property
    def unit(self) -> str:
        """The unit of the value, or nothing."""

    def fit(self, value: Any) -> Any:
        """`value` as the program takes it. Raises ValueError."""

    def read(self, text: str) -> Any:
        """The value that `text` writes. Raises ValueError."""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text without control characters."""

    most: int
    least: int = 0
    unit: str = ""

    @property
    def expected(self) -> str:
        return f"text of {self.least} to {self.most} characters on one line"

    def fit(self, value: Any) -> str:
        if not isinstance(value, str) or not self.least <= len(value) <= self.most or not value.isprintable():
            raise ValueError(value)
        return value

    def read(self, text: str) -> str:
        return self.fit(text)


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    unit: str = ""
    whole: bool = True

    @property
    def expected(self) -> str:
        number = "a whole number" if self.whole else "a number"
        return f"{number} from {self.low:g} to {self.high:.10g}{self.unit and f' ({self.unit})'}"

    def fit(self, value: Any) -> float:
        # In Python True is an int; in TOML a boolean is no number.
        right = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not right or not self.low <= value <= self.high:
            raise ValueError(value)
        return value  # type: ignore[no-any-return]

    def read(self, text: str) -> float:
        number = int(text) if self.whole else float(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return self.fit(number)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    unit: str = ""

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(toml(word) for word in self.words)

    def fit(self, value: Any) -> str:
        if value not in self.words:
            raise ValueError(value)
        return str(value)

    def read(self, text: str) -> str:
        return self.fit(text)


@dataclass(frozen=True, slots=True)
class Switch:
    """On or off."""

    unit: str = ""

    @property
    def expected(self) -> str:
        return "true or false"

    def fit(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)
        return value

    def read(self, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT. Port 0 stands for any that is free."""

    unit: str = ""

    @property
    def expected(self) -> str:
        return 'HOST:PORT, such as "192.168.1.20:7400" or "[fd00::5]:7400"'

    def fit(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(value)
        split_address(value)
        return value

    def read(self, text: str) -> str:
        return self.fit(text)

    @staticmethod
    def split(value: str) -> tuple[str, int]:
        """(host, port) of a value that fits."""
        return split_address(value)


@dataclass(frozen=True, slots=True)
class OrNothing:
    """A value of another kind, or the empty text."""

    item: Kind

    @property
    def unit(self) -> str:
        return self.item.unit

    @property
    def expected(self) -> str:
        return f"{self.item.expected}; or nothing"

    def fit(self, value: Any) -> Any:
        return value if value == "" else self.item.fit(value)

    def read(self, text: str) -> Any:
        return self.item.read(text) if text else ""


@dataclass(frozen=True, slots=True)
class ListOf:
    """`least` to `most` values of one kind, separated by commas where they are text."""

    item: Kind
    least: int
    most: int

    @property
    def unit(self) -> str:
        return self.item.unit

    @property
    def expected(self) -> str:
        return f"a list of {self.least} to {self.most}, each {self.item.expected}"

    def fit(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not self.least <= len(value) <= self.most:
            raise ValueError(value)
        return tuple(self.item.fit(part) for part in value)

    def read(self, text: str) -> tuple[Any, ...]:
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        return self.fit([self.item.read(part) for part in parts])


def toml(value: Any) -> str:
    """`value` as node.toml writes it."""
    match value:
        case list() | tuple():
            return f"[{', '.join(toml(part) for part in value)}]"
        case str():
            # A basic string of TOML escapes like one of JSON, apart from DEL, which TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool() | None | dict():
            return json.dumps(value, default=str)
        case _:
            return str(value)
