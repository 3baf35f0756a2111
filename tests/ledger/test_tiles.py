"""Tiles: paths as the specification writes them, and proofs from tiles as from stored hashes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import tiles, tlog
from ledger.tiles import BadTile, Bundle, Tile, TileReader
from ledger.tlog import Frontier, Node

SIZE = 1_700
FRONTIER, STORED = tlog.extend(Frontier(), [tlog.leaf_hash(bytes([at % 251])) for at in range(SIZE)])


class Table(dict[Node, bytes]):
    def read_hashes(self, nodes: list[Node]) -> list[bytes]:
        return [self[node] for node in nodes]


TABLE = Table(STORED)


def files(size: int) -> dict[str, bytes]:
    return {tile.path: tiles.read_tile(tile, TABLE) for tile in tiles.tiles_of(size)}


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (Tile(0, 1_234_067, 256), "tile/0/x001/x234/067"),  # the specification's example
        (Tile(0, 0, 1), "tile/0/000.p/1"),
        (Tile(2, 255, 255), "tile/2/255.p/255"),
        (Bundle(1_000, 256), "tile/entries/x001/000"),
        (Bundle(273, 112), "tile/entries/273.p/112"),
    ],
)
def test_paths(asked: Tile | Bundle, path: str) -> None:
    assert asked.path == path
    assert tiles.parse_path(path) == asked


@pytest.mark.parametrize(
    "path",
    """tile tile/0 tile/0/0 tile/0/0000 tile/00/000 tile/64/000 tile/0/x000/000 tile/0/001.p/0 tile/0/001.p/256
    tile/0/001.p/01 tile/0/001.p/ tile/0/001/002 tile/-1/000 tile/0/../000 /tile/0/000 tile/0/000/ tile/entry/000
    tile/0/x001/x002 tile/0/٠٠٠""".split(),
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(BadTile):
        tiles.parse_path(path)


def test_the_tiles_of_a_tree_of_70000() -> None:
    """The specification's example."""
    found = list(tiles.tiles_of(70_000))
    assert sum(tile.level == 0 and tile.width == 256 for tile in found) == 273
    assert [tile for tile in found if tile.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles.tiles_of(256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_what_is_new_and_what_was_there_make_the_whole(one: int, other: int) -> None:
    since, size = sorted((one, other))
    new, old, whole = (set(tiles.tiles_of(*sizes)) for sizes in ((size, since), (since,), (size,)))
    assert new == whole - old
    assert set(tiles.bundles_of(size, since)) == set(tiles.bundles_of(size)) - set(tiles.bundles_of(since))


@given(st.integers(1, SIZE), st.data())
def test_proofs_from_tiles_are_those_from_stored_hashes(size: int, data: st.DataObject) -> None:
    reader = TileReader(size, files(size).get)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    assert tlog.root(size, reader) == tlog.root(size, TABLE)
    assert tlog.prove_inclusion(index, size, reader) == tlog.prove_inclusion(index, size, TABLE)
    assert tlog.prove_consistency(old, size, reader) == tlog.prove_consistency(old, size, TABLE)


def test_a_full_tile_may_stand_for_its_partial_ones() -> None:
    there = {Tile(0, 0, 256).path: tiles.read_tile(Tile(0, 0, 256), TABLE)}
    assert tlog.root(200, TileReader(200, there.get)) == tlog.root(200, TABLE)


def test_a_missing_short_or_long_tile_is_named() -> None:
    for damaged in ({}, {"tile/0/000.p/3": bytes(95)}, {"tile/0/000.p/3": bytes(97)}):
        with pytest.raises(BadTile, match="tile/0/000"):
            tlog.root(3, TileReader(3, damaged.get))
    with pytest.raises(BadTile, match="no"):
        TileReader(3, files(3).get).read_hashes([Node(1, 1)])
    with pytest.raises(BadTile, match="no tile"):
        TileReader(3, files(3).get).read_hashes([Node(8, 0)])


def test_the_cache_is_bounded() -> None:
    reader = TileReader(SIZE, files(SIZE).get)
    for index in range(0, SIZE, 256):
        tlog.prove_inclusion(index, SIZE, reader)
    wide = TileReader(256 * 100, lambda path: bytes(8192))
    wide.read_hashes([Node(0, 256 * at) for at in range(100)])
    assert len(wide._cached) == tiles.MAX_CACHED_TILES


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundles_come_back(entries: list[bytes]) -> None:
    assert tiles.decode_bundle(tiles.encode_bundle(entries)) == entries


def test_a_bundle_that_is_cut_off_is_refused() -> None:
    whole = tiles.encode_bundle([b"one", b"two"])
    for end in range(1, len(whole)):
        if end != 5:
            with pytest.raises(BadTile):
                tiles.decode_bundle(whole[:end])
    with pytest.raises(ValueError, match="65535"):
        tiles.encode_bundle([bytes(65_536)])
