"""What each kind of setting takes and refuses, from TOML and from text."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.kinds import Address, Choice, Kind, ListOf, Number, OrNothing, Switch, Text, toml

TAKES: list[tuple[Kind, Any, Any]] = [
    (Text(5), "", ""),
    (Text(5), "Grüße"[:5], "Grüße"),
    (Number(1, 10), 10, 10),
    (Number(0.1, 10, whole=False), 1, 1),
    (Number(0.1, 10, whole=False), 0.5, 0.5),
    (Choice(("a", "b")), "b", "b"),
    (Address(), "[::1]:0", "[::1]:0"),
    (Switch(), True, True),
    (OrNothing(Address()), "", ""),
    (OrNothing(Address()), "h:1", "h:1"),
    (ListOf(Number(0, 9), 1, 2), [1, 2], (1, 2)),
    (ListOf(Text(3), 0, 2), [], ()),
]
REFUSES: list[tuple[Kind, Any]] = [
    (Text(5), "sixsix"),
    (Text(5, least=1), ""),
    (Text(5), "a\nb"),
    (Text(5), 5),
    (Number(1, 10), 0),
    (Number(1, 10), 11),
    (Number(1, 10), 1.0),
    (Number(0, 10), True),
    (Number(1, 10), "5"),
    (Number(0.1, 10, whole=False), float("nan")),
    (Choice(("a", "b")), "c"),
    (Choice(("a", "b")), ["a"]),
    (Address(), "here"),
    (Address(), 7400),
    (Switch(), 1),
    (Switch(), "true"),
    (OrNothing(Address()), "here"),
    (ListOf(Number(0, 9), 1, 2), []),
    (ListOf(Number(0, 9), 1, 2), [1, 2, 3]),
    (ListOf(Number(0, 9), 1, 2), [10]),
    (ListOf(Text(3), 0, 2), "abc"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), TAKES)
def test_a_value_that_fits(kind: Kind, value: Any, expected: Any) -> None:
    assert kind.fit(value) == expected


@pytest.mark.parametrize(("kind", "value"), REFUSES)
def test_a_value_that_does_not(kind: Kind, value: Any) -> None:
    with pytest.raises(ValueError):
        kind.fit(value)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Number(1, 10), "7", 7),
        (Number(0.1, 10, whole=False), "0.5", 0.5),
        (ListOf(Text(9), 0, 3), "a, team/*,b", ("a", "team/*", "b")),
        (ListOf(Text(9), 0, 3), " ", ()),
        (ListOf(Address(), 0, 2), "[::1]:1,h:2", ("[::1]:1", "h:2")),
    ],
)
def test_a_value_read_from_text(kind: Kind, text: str, expected: Any) -> None:
    assert kind.read(text) == expected


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Number(1, 10), "seven"),
        (Number(1, 10), "7.5"),
        (Number(1, 10), ""),
        (Number(0.1, 10, whole=False), "inf"),
        (Number(0.1, 10, whole=False), "nan"),
        (ListOf(Text(9, least=1), 0, 3), "a,,b"),
        (ListOf(Number(0, 9), 1, 2), ""),
    ],
)
def test_text_that_says_no_such_value(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError):
        kind.read(text)


@given(st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.lists(st.text()))
def test_toml_reads_back_what_was_written(value: Any) -> None:
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Text(5), "0 to 5"),
        (Number(1, 10, "s"), "1 to 10 (s)"),
        (Number(16, 1_048_576), "1048576"),
        (Choice(("a", "b")), '"a", "b"'),
        (ListOf(Number(0, 9), 1, 2), "1 to 2"),
    ],
)
def test_each_says_what_it_expects(kind: Kind, words: str) -> None:
    assert words in kind.expected
