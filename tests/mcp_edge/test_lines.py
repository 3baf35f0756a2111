"""Lines out of a stream, however it is cut, and what remains of one that is too long."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_edge.lines import EDGE_BYTES, Lines, TooLong, too_long

TEXT = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").strip()).filter(bool)


@given(st.lists(TEXT, max_size=8), st.integers(1, 30))
def test_a_stream_is_cut_at_its_line_ends_however_it_arrives(lines: list[bytes], chunk: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cutter = Lines(most=100)
    found = [line for at in range(0, len(stream), chunk) for line in cutter.feed(stream[at : at + chunk])]
    assert found == lines


@given(st.integers(1, 5000))
def test_a_line_beyond_the_limit_is_not_kept(chunk: int) -> None:
    line = b'{"jsonrpc":"2.0","id":7,"params":"' + b"x" * 20_000 + b'"}\n'
    cutter = Lines(most=1000)
    found = []
    for at in range(0, len(line), chunk):
        found += cutter.feed(line[at : at + chunk])
        assert len(cutter._begun) <= 1000 + chunk
    [dropped] = found
    assert isinstance(dropped, TooLong) and dropped.id == "7"
    assert list(cutter.feed(b"next\n")) == [b"next"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"jsonrpc":"2.0","id":7,"method":"x","params":"%s"}', "7"),
        ('{"id": "a\\"b", "method":"x","params":"%s"}', '"a\\"b"'),
        ('{"method":"x","params":{"a":"%s"},"jsonrpc":"2.0","id":12}', "12"),
        ('{"method":"x","params":{"a":"%s","id":12}}', "null"),
        ('{"method":"x","params":"%s \\"id\\":12}"}', "null"),
        ("%s", "null"),
    ],
)
def test_the_id_is_told_only_where_it_is_certain(line: str, expected: str) -> None:
    [dropped] = Lines(most=100).feed((line % ("x" * 4 * EDGE_BYTES)).encode() + b"\n")
    assert isinstance(dropped, TooLong)
    assert dropped.id == expected
    answer = json.loads(too_long(dropped, 100))
    assert answer["id"] == json.loads(expected)
    assert "100 bytes" in answer["error"]["message"]
