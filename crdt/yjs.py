"""Yjs updates, as far as they are let in: text of one client put into one root, and deletions.

A Yjs update may say far more than an edit of ours does: other clients' text, nested maps, formatting, text that hangs
from what is no parent. Of that some hides other people's words, and some makes the library panic in whoever reads it.
So `is_text_edit` lets through exactly what crdt/text.py writes, whatever else Yjs might make of the bytes, and asks for
every number in its shortest form and within MAX_UNITS, so that nobody reads the same bytes as something else.

Bytes of an update, encoding version 1 (https://github.com/yjs/yjs, `UpdateEncoderV1`; every number a LEB128 integer):

    clients, then per client: runs, client id, clock, then per run of text:
        info (0x04 = text, + 0x80 has a left neighbour, + 0x40 has a right neighbour)
        the neighbours' (client id, clock), or when there are none: 1, length, name of the root
        length, text in UTF-8
    clients, then per client: client id, ranges, then per range of deleted units: clock, length

Laws: tests/crdt/test_yjs.py.
"""

from typing import Final

CLIENT_BITS: Final = 53
"""Yjs keeps client ids in a double."""
MAX_UNITS: Final = 1 << 30
"""Bounds every length and position: far above any text's, and the sum of two fits what Yjs counts with (32 bits)."""

NO_CHANGE: Final = b"\0\0"
"""The update that says nothing: no client's text, no client's deletions."""

_TEXT = 0x04
_LEFT = 0x80
_RIGHT = 0x40
_IN_ROOT = 1


def is_text_edit(update: bytes, client: int, root: str) -> bool:
    """Whether `update` is whole and only adds text of `client`, from its clock 0 on, to `root`, or deletes."""
    reader = _Reader(update)
    try:
        clients = reader.number()
        if clients > 1:
            return False
        if clients:
            runs = reader.number()
            if not runs or reader.client() != client or reader.number():
                return False
            for _ in range(runs):
                _read_run(reader, root)
        for _ in range(reader.number()):
            reader.client()
            for _ in range(reader.number()):
                reader.number()
                reader.number()
    except (_Foreign, IndexError, UnicodeDecodeError):
        return False
    return reader.at == len(update)


def _read_run(reader: "_Reader", root: str) -> None:
    info = reader.byte()
    if info & ~(_LEFT | _RIGHT) != _TEXT:
        raise _Foreign
    for flag in (_LEFT, _RIGHT):
        if info & flag:
            reader.client()
            reader.number()
    if info == _TEXT and (reader.number() != _IN_ROOT or reader.string() != root):
        raise _Foreign
    if not reader.string():
        raise _Foreign


class _Foreign(Exception):
    """Something that no edit of ours contains."""


class _Reader:
    """Steps through the bytes of an update. Raises _Foreign, or IndexError where they end too early."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        return byte

    def number(self, limit: int = MAX_UNITS) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if value >= limit or shift > CLIENT_BITS + 7 or (shift > 7 and not byte):
                raise _Foreign
            if byte < 0x80:
                return value

    def client(self) -> int:
        return self.number(1 << CLIENT_BITS)

    def string(self) -> str:
        length = self.number()
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise _Foreign
        return self.data[start : self.at].decode()
