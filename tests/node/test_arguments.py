"""Times, spans, JSON and addresses as people write them."""

from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import arguments, clock

NOW = clock.parse_rfc3339("2026-05-11T08:30:00Z")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2026-05-11T08:30:00.000Z"),
        ("-3d", "2026-05-08T08:30:00.000Z"),
        ("2h", "2026-05-11T10:30:00.000Z"),
        ("+90s", "2026-05-11T08:31:30.000Z"),
        ("-1w", "2026-05-04T08:30:00.000Z"),
        ("15m", "2026-05-11T08:45:00.000Z"),
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T10:00:00+02:00", "2026-01-31T08:00:00.000Z"),
        ("2026-01-31T10:00:00.5Z", "2026-01-31T10:00:00.500Z"),
    ],
)
def test_a_time(text: str, expected: str) -> None:
    assert arguments.at(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "3", "3y", "-d", "2026-13-01", "2026-02-30", "10:00", "99999999w", "--3d", "3d ", "٣d"]
)
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        arguments.at(text, NOW)
    assert repr(text) in str(caught.value)


def test_a_time_is_counted_from_now() -> None:
    before = clock.now_ms()
    assert before <= clock.parse_rfc3339(arguments.time("now")) <= clock.now_ms()
    assert arguments.time_or_none("none") is None
    assert arguments.time_or_none("2026-01-31") == "2026-01-31T00:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800), ("1w", 604_800)]
)
def test_a_span(text: str, expected: int) -> None:
    assert arguments.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "0m", "-10m", "+10m", "1.5h", "m", "10 m", "999999999d", "ten"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        arguments.seconds(text)


@pytest.mark.parametrize(
    ("text", "relative"), [("-3d", True), ("2h", True), ("-k", False), ("-10", False), ("now", False)]
)
def test_what_looks_like_an_option_but_is_a_time(text: str, relative: bool) -> None:
    assert arguments.is_relative(text) is relative


def test_a_json_object() -> None:
    assert arguments.json_object('{"room": "b12"}') == {"room": "b12"}


@pytest.mark.parametrize("text", ["", "room", "[1]", "null", '{"a":', "[" * 100_000])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        arguments.json_object(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.168.1.20:7400", ("192.168.1.20", 7400)),
        ("hub.local:1", ("hub.local", 1)),
        ("[fd00::5]:65535", ("fd00::5", 65535)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_an_address(text: str, expected: tuple[str, int]) -> None:
    assert arguments.split_address(text) == expected
    if expected[1]:
        assert arguments.address(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "hub", "hub:", ":7400", "hub:70000", "hub:-1", "hub:x", "fd00::5:7400", "http://hub:80", "a b:1", "[]:1"],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"192\.168\.1\.20:7400"):
        arguments.address(text)


def test_a_peer_does_not_listen_on_port_0() -> None:
    with pytest.raises(ArgumentTypeError, match="port 0"):
        arguments.address("hub:0")


@given(st.integers(-10, 600))
def test_a_count_has_bounds(number: int) -> None:
    read = arguments.count(1, 500)
    if 1 <= number <= 500:
        assert read(str(number)) == number
    else:
        with pytest.raises(ArgumentTypeError, match="1 to 500"):
            read(str(number))
