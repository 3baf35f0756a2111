"""One JSON-RPC message a line, as MCP has it over a pipe or a socket; a line that is too long costs no memory.

`Lines` cuts a stream of bytes into lines. Of a line beyond its limit only the first and the last bytes are kept: enough
to find the id of the request that it was, so that its sender gets an error instead of waiting for ever.

Used by the pipe and by the node, hence of the standard library alone. MCP 2025-11-25, "Transports": a message holds no
line end. Tests: tests/mcp_edge/test_lines.py.
"""

import json
import re
from collections.abc import Iterator

MAX_MESSAGE_BYTES = 4 << 20
"""A fact with the largest body there may be (1 MiB), escaped, and room; the SDK bounds HTTP at the same."""
EDGE_BYTES = 512
"""Kept of either end of a line that is too long. An id that a client made up is shorter."""
INVALID_REQUEST, INTERNAL_ERROR = -32600, -32603
"""Codes of JSON-RPC 2.0, section 5.1."""

_ID = rb'"id"\s*:\s*(-?\d+|"(?:[^"\\]|\\.)*")'
# Python clients write the id second, after `jsonrpc`; TypeScript ones last. Anywhere else it may be somebody's data.
_EARLY_ID = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID)
_LATE_ID = re.compile(_ID + rb"\s*\}\s*$")


class TooLong:
    """A line beyond the limit. `id` is the JSON of the request's id; `null` where it could not be told."""

    __slots__ = ("id",)

    def __init__(self, head: bytes, tail: bytes) -> None:
        found = _EARLY_ID.match(head) or _LATE_ID.search(tail)
        self.id = found[1].decode() if found else "null"


class Lines:
    """Cuts a stream into lines without their line ends; empty ones are left out."""

    def __init__(self, most: int = MAX_MESSAGE_BYTES) -> None:
        self._most = most
        self._begun = bytearray()
        self._head: bytes | None = None  # of a line that is being dropped

    def feed(self, data: bytes) -> Iterator[bytes | TooLong]:
        """The lines that are complete with `data`. Iterate to the end before feeding more."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._take(data[start:end])
            start = end + 1
            line: bytes | TooLong
            if self._head is not None:
                line = TooLong(self._head, bytes(self._begun))
            else:
                line = bytes(self._begun).strip()
            self._begun.clear()
            self._head = None
            if line:
                yield line
        self._take(data[start:])

    def _take(self, part: bytes) -> None:
        self._begun += part
        if self._head is None and len(self._begun) > self._most:
            self._head = bytes(self._begun[:EDGE_BYTES])
        if self._head is not None and len(self._begun) > EDGE_BYTES:
            del self._begun[:-EDGE_BYTES]


def error(request_id: str, code: int, message: str) -> bytes:
    """A JSON-RPC error; `request_id` is JSON."""
    return f'{{"jsonrpc":"2.0","id":{request_id},"error":{{"code":{code},"message":{json.dumps(message)}}}}}'.encode()


def too_long(line: TooLong, most: int = MAX_MESSAGE_BYTES) -> bytes:
    """The answer to a line that was too long."""
    return error(line.id, INVALID_REQUEST, f"the message is longer than {most:,} bytes: send less at once")
