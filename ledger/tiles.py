"""Tiles: the stored hashes and the entries of a log as files that never change (C2SP tlog-tiles).

A full tile is 256 hashes of one level, 8 levels above the tile below it; the tile at the right edge may be partial.
A bundle is 256 entries, each behind its length in two bytes. Paths are those of the specification, without the prefix:
`tile/0/x001/x234/067`, `tile/0/000.p/17`, `tile/entries/000`.

`TileReader` turns tiles back into the hashes that `ledger.tlog` asks for, and trusts none of them: what it returns is
worth as much as the root that a proof made of it leads to. Tests: tests/ledger/test_tiles.py.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.tlog import HASH_BYTES, HashReader, Node, node_hash

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
MAX_ENTRY_BYTES: Final = (1 << 16) - 1
"""What a bundle's two bytes can say; the ledger's own entries have ledger.entry.ENTRY_BYTES."""
MAX_CACHED_TILES: Final = 32
"""256 KiB: the tiles of one proof, and of the proofs of its neighbours."""


class BadTile(Exception):
    """A tile or a bundle that is not there, is cut off, or has too much."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`width` hashes (1..256) of tree level 8 * `level`, from hash `index` * 256 on."""

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        return f"tile/{self.level}/{_numbered(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """`width` entries (1..256), from entry `index` * 256 on."""

    index: int
    width: int

    @property
    def path(self) -> str:
        return f"tile/entries/{_numbered(self.index, self.width)}"


def tiles_of(size: int, since: int = 0) -> Iterator[Tile]:
    """Every tile of a tree of `size` entries that a tree of `since` entries had not, or had narrower."""
    level, hashes, before = 0, size, since
    while hashes:
        yield from (Tile(level, index, width) for index, width in _rows(hashes, before))
        level, hashes, before = level + 1, hashes >> HEIGHT, before >> HEIGHT


def bundles_of(size: int, since: int = 0) -> Iterator[Bundle]:
    """Every bundle of a log of `size` entries that one of `since` entries had not, or had narrower."""
    yield from (Bundle(index, width) for index, width in _rows(size, since))


_PATH = re.compile(r"tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/){0,6})([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def parse_path(path: str) -> Tile | Bundle:
    """What a path asks for. Raises BadTile unless it is exactly how the tile or bundle would be named."""
    if not (found := _PATH.fullmatch(path)):
        raise BadTile(f"{path!r} is not the path of a tile")
    kind, upper, lowest, partial = found.groups()
    index, width = int(upper.replace("x", "").replace("/", "") + lowest), int(partial or WIDTH)
    asked = Bundle(index, width) if kind == "entries" else Tile(int(kind), index, width)
    if asked.path != path or width > WIDTH:
        raise BadTile(f"{path!r} is not the path of a tile")
    return asked


def read_tile(tile: Tile, reader: HashReader) -> bytes:
    """The bytes of a tile, from stored hashes. One read."""
    start, level = tile.index * WIDTH, tile.level * HEIGHT
    return b"".join(reader.read_hashes([Node(level, start + offset) for offset in range(tile.width)]))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise ValueError(f"an entry of a bundle has at most {MAX_ENTRY_BYTES} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle. Raises BadTile when it is cut off."""
    entries: list[bytes] = []
    place = 0
    while place < len(data):
        end = place + 2 + int.from_bytes(data[place : place + 2], "big")
        if place + 2 > len(data) or end > len(data):
            raise BadTile(f"a bundle is cut off after {len(entries)} entries")
        entries.append(data[place + 2 : end])
        place = end
    return entries


class TileReader:
    """A HashReader over the tiles of a tree of `size` entries. `read` returns a file by its path, None without it."""

    def __init__(self, size: int, read: Callable[[str], bytes | None]) -> None:
        self._size = size
        self._read = read
        self._cached: dict[tuple[int, int], bytes] = {}

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """At most 255 hashes are computed for each node: a tile stores every eighth level. Raises BadTile."""
        return [self._hash(node) for node in nodes]

    def _hash(self, node: Node) -> bytes:
        level, above = divmod(node.level, HEIGHT)
        index, offset = divmod(node.number << above, WIDTH)
        data = self._tile(level, index)
        if len(data) < (offset + (1 << above)) * HASH_BYTES:
            raise BadTile(f"the tree of {self._size} entries has no subtree {node.number} at level {node.level}")
        row = [data[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(offset, offset + (1 << above))]
        while len(row) > 1:
            row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
        return row[0]

    def _tile(self, level: int, index: int) -> bytes:
        if (level, index) in self._cached:
            return self._cached[level, index]
        width = min((self._size >> (level * HEIGHT)) - index * WIDTH, WIDTH)
        if width <= 0:
            raise BadTile(f"a tree of {self._size} entries has no tile {index} at level {level}")
        tile = Tile(level, index, width)
        data = self._read(tile.path)
        if data is None and width < WIDTH:  # the specification lets a full tile replace its partial ones
            data = (self._read(Tile(level, index, WIDTH).path) or b"")[: width * HASH_BYTES] or None
        if data is None or len(data) != width * HASH_BYTES:
            raise BadTile(f"{tile.path} is {'missing' if data is None else f'{len(data)} bytes long'}")
        if len(self._cached) >= MAX_CACHED_TILES:
            del self._cached[next(iter(self._cached))]
        self._cached[level, index] = data
        return data


def _rows(count: int, since: int) -> Iterator[tuple[int, int]]:
    """(index, width) of the tiles over `count` hashes that are new or wider than those over `since`."""
    for index in range(since // WIDTH, -(-count // WIDTH)):
        width = min(count - index * WIDTH, WIDTH)
        if index * WIDTH + width > since:
            yield index, width


def _numbered(index: int, width: int) -> str:
    """Three digits an element, all but the last behind an x, so that no file has the name of a folder."""
    path = f"{index % 1000:03}"
    while index >= 1000:
        index //= 1000
        path = f"x{index % 1000:03}/{path}"
    return path if width == WIDTH else f"{path}.p/{width}"
