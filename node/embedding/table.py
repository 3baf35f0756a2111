"""The embedding table: meaning without a download, in a file that is mapped, not loaded.

`Table.embed(text)` is the weighted mean of its word pieces' rows, L2-normalised and quantised to 256 int8. The rows
were learnt so that this mean points where the sentence encoder all-MiniLM-L6-v2 points (node.embedding.distill made the
file; PROVENANCE.md beside it says from what). A mean can't see order or negation: "dog bites man" is "man bites dog".

The file, little-endian, every section at a multiple of SECTION_ALIGN_BYTES:

    header       magic, dims, rows, slots, blob bytes, model name, SHA-256 of all that follows; CRC-32 of the header
    rows         int8 [rows, dims]     one row per word piece
    scales       float32 [rows]        what a row is multiplied by; this is where rare and frequent pieces differ
    slots        uint16 [slots]        open-addressing hash of the vocabulary: piece id, or EMPTY_SLOT
    offsets      uint32 [rows + 1]     where each piece begins in the blob
    blob         the pieces, UTF-8, in the order of their ids

Only the pages that are touched occupy memory, and the kernel can drop and share them; even the vocabulary has no Python
object. Opening checks magic, header and size (microseconds); `verify()` hashes the whole file (about 10 ms) and is for
`doctor` and tests.

A table knows English. `coverage(text)` says how much of a text it can serve; below COVERAGE_MIN search should use text
alone and say so.

numpy is imported here and nowhere else in the package's run time. Tests: tests/node/embedding/test_table.py;
cost: bench/embedding.py.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
import zlib
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from node.embedding.wordpiece import WordPiece

MAGIC: Final = b"CXEMBED1"
DIMS: Final = 256
MODEL_BYTES: Final = 32
SECTION_ALIGN_BYTES: Final = 64
EMPTY_SLOT: Final = 0xFFFF
ROWS_MAX: Final = EMPTY_SLOT  # ids are uint16 in the slots
QUANTUM: Final = 360.0  # int8 units of a length of 1.0: +-127 is 0.35, 5.6 sigma of a component at 256 dims
COVERAGE_MIN: Final = 0.5  # English turns lie above (99.9 %), 96 % of German, Italian, Czech... below: PROVENANCE.md
TABLE_PATH: Final = Path(__file__).with_name("table.bin")

_HEADER = struct.Struct(f"<8sIIII{MODEL_BYTES}s32s")
_CRC = struct.Struct("<I")


class TableError(Exception):
    """The table file is missing, damaged or not a table; the text says what to do."""


class Encoder(Protocol):
    """What makes vectors: this table, or MiniLM on a hub. Vectors of two models are never compared."""

    @property
    def model(self) -> str:
        """Names the maker of a vector, at most 32 bytes."""

    @property
    def dims(self) -> int:
        """Components of a vector, each one int8."""

    def embed(self, text: str) -> bytes:
        """`dims` int8, L2-normalised times QUANTUM; all zero for a text without words."""

    def coverage(self, text: str) -> float:
        """How much of the text the model can read, 0.0 to 1.0; below COVERAGE_MIN its vector means little."""


def align(size: int) -> int:
    """The next multiple of SECTION_ALIGN_BYTES."""
    return -(-size // SECTION_ALIGN_BYTES) * SECTION_ALIGN_BYTES


def quantise(vector: npt.NDArray[np.float32]) -> bytes:
    """float32 [dims] of any length to int8 [dims]: direction times QUANTUM, clipped to +-127."""
    length = math.sqrt(float(vector @ vector))
    if length == 0.0:
        return bytes(len(vector))
    scaled = vector * np.float32(QUANTUM / length)
    quantised: npt.NDArray[np.int8] = np.rint(scaled).clip(-127, 127).astype(np.int8)
    return quantised.tobytes()


def bits(vector: bytes) -> bytes:
    """One bit per dimension, set where it is above 0; dimension 0 is the lowest bit of byte 0, as sqlite-vec packs."""
    packed: npt.NDArray[np.uint8] = np.packbits(np.frombuffer(vector, np.int8) > 0, bitorder="little")
    return packed.tobytes()


def cosine(a: bytes, b: bytes) -> float:
    """Cosine of two int8 vectors of one model, -1.0 to 1.0; 0.0 where either is all zero. ValueError: unequal dims."""
    if len(a) != len(b):
        raise ValueError(f"vectors of {len(a)} and {len(b)} dimensions: of two models")
    left, right = np.frombuffer(a, np.int8).astype(np.float32), np.frombuffer(b, np.int8).astype(np.float32)
    lengths = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / lengths if lengths else 0.0


def slot_of(piece: bytes, slots: int) -> int:
    """Where the search for a piece begins; `slots` is a power of two."""
    return zlib.crc32(piece) & (slots - 1)


class MappedVocabulary:
    """The vocabulary in the mapped file: a `wordpiece.Lookup` without a Python object per piece."""

    __slots__ = ("_blob", "_mask", "_offsets", "_slots")

    def __init__(self, slots: memoryview, offsets: memoryview, blob: memoryview) -> None:
        self._slots = slots
        self._offsets = offsets
        self._blob = blob
        self._mask = len(slots) - 1

    def get(self, piece: str, /) -> int | None:
        """The id of a piece, None where it has none. Cost: about one comparison (half of the slots are empty)."""
        wanted = piece.encode("utf-8", errors="replace")
        slot = zlib.crc32(wanted) & self._mask
        offsets, blob = self._offsets, self._blob
        while (found := self._slots[slot]) != EMPTY_SLOT:
            if blob[offsets[found] : offsets[found + 1]] == wanted:
                return int(found)
            slot = (slot + 1) & self._mask
        return None


class Table:
    """The opened table. Reads are safe from several threads; nothing is ever written."""

    __slots__ = ("_digest", "_map", "_rows", "_scales", "model", "wordpiece")

    def __init__(self, path: Path = TABLE_PATH) -> None:
        """Map the file; TableError when it is missing or damaged."""
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise TableError(f"{path}: cannot be mapped ({error}); reinstall cortex-node") from error
        head_bytes = _HEADER.size + _CRC.size
        head = self._map[: _HEADER.size]
        if len(self._map) < head_bytes or not head.startswith(MAGIC):
            raise TableError(f"{path}: not an embedding table; reinstall cortex-node")
        if _CRC.unpack(self._map[_HEADER.size : head_bytes])[0] != zlib.crc32(head):
            raise TableError(f"{path}: the header is damaged; reinstall cortex-node")
        _, dims, rows, slots, blob_bytes, name, self._digest = _HEADER.unpack(head)
        sizes = (rows * dims, rows * 4, slots * 2, (rows + 1) * 4, blob_bytes)
        starts = [align(head_bytes)]
        for size in sizes:
            starts.append(starts[-1] + align(size))
        if dims != DIMS or len(self._map) != starts[-1]:
            raise TableError(f"{path}: {len(self._map)} bytes, {starts[-1]} expected: cut short; reinstall cortex-node")
        self.model: Final = name.rstrip(b"\0").decode("ascii")
        view = memoryview(self._map)
        self._rows = np.frombuffer(view, np.int8, rows * dims, starts[0]).reshape(rows, dims)
        self._scales = np.frombuffer(view, np.float32, rows, starts[1])
        slot, offset, blob = (view[start : start + size] for start, size in zip(starts[2:5], sizes[2:], strict=True))
        self.wordpiece: Final = WordPiece(MappedVocabulary(slot.cast("H"), offset.cast("I"), blob))

    @property
    def dims(self) -> int:
        """Components of a vector."""
        return DIMS

    def embed(self, text: str) -> bytes:
        """256 int8: see `Encoder`. About 20 us for a query of ten words."""
        ids = self.wordpiece.ids(text)
        if not ids:
            return bytes(DIMS)
        return quantise(self._scales[ids] @ self._rows[ids].astype(np.float32))

    def coverage(self, text: str) -> float:
        """How much of the text is English to this table, 0.0 to 1.0; see `WordPiece.coverage` and COVERAGE_MIN."""
        return self.wordpiece.coverage(text)

    def verify(self) -> None:
        """Hash the whole file: TableError where it isn't what the header says."""
        body = align(_HEADER.size + _CRC.size)
        if hashlib.sha256(memoryview(self._map)[body:]).digest() != self._digest:
            raise TableError("the embedding table's content is damaged (SHA-256 differs); reinstall cortex-node")


def pack(pieces: list[str], rows: npt.NDArray[np.float32], model: str) -> bytes:
    """The bytes of a table file: `pieces[i]` has the weighted row `rows[i]`, float32 [len(pieces), DIMS].

    Each row is quantised to +-127 of its own largest component, which its scale remembers.
    """
    count = len(pieces)
    if rows.shape != (count, DIMS) or count > ROWS_MAX or len(model.encode("ascii")) > MODEL_BYTES:
        raise ValueError(f"{rows.shape} rows for {count} pieces, or a model name over {MODEL_BYTES} bytes")
    scales = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-12)) / np.float32(127)
    quantised = np.rint(rows / scales[:, None]).astype(np.int8)
    slots = np.full(1 << (2 * count - 1).bit_length(), EMPTY_SLOT, np.dtype("<u2"))
    encoded = [piece.encode() for piece in pieces]
    for number, piece in enumerate(encoded):
        slot = slot_of(piece, len(slots))
        while slots[slot] != EMPTY_SLOT:
            slot = (slot + 1) % len(slots)
        slots[slot] = number
    offsets = np.cumsum([0, *map(len, encoded)]).astype("<u4")
    blob = b"".join(encoded)
    parts = (quantised.tobytes(), scales.astype("<f4").tobytes(), slots.tobytes(), offsets.tobytes(), blob)
    body = b"".join(part.ljust(align(len(part)), b"\0") for part in parts)
    digest = hashlib.sha256(body).digest()
    head = _HEADER.pack(MAGIC, DIMS, count, len(slots), len(blob), model.encode("ascii"), digest)
    head += _CRC.pack(zlib.crc32(head))
    return head.ljust(align(len(head)), b"\0") + body
