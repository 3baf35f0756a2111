"""The table file: what it promises of vectors, and that damage is noticed and named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from node.embedding import table
from node.embedding.table import DIMS, QUANTUM, Table, TableError, bits, cosine, pack

PIECES = ["[UNK]", "cat", "dog", "##s", "caf", "\u65e5"]


@pytest.fixture(scope="module")
def shipped() -> Table:
    return Table()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    rows = np.random.default_rng(3).standard_normal((len(PIECES), DIMS)).astype(np.float32)
    path = tmp_path / "small.bin"
    path.write_bytes(pack(PIECES, rows, "test-1"))
    return path


def test_a_vector_is_256_int8_of_length_quantum(shipped: Table) -> None:
    vector = shipped.embed("We moved the backup job to 03:00 because of the upload window")
    assert len(vector) == shipped.dims == DIMS
    length = math.sqrt(sum(int(x) ** 2 for x in np.frombuffer(vector, np.int8)))
    assert abs(length - QUANTUM) < 0.02 * QUANTUM


def test_the_shipped_file_is_whole(shipped: Table) -> None:
    shipped.verify()
    assert shipped.model == "cortex-minilm-256-1"
    assert table.TABLE_PATH.stat().st_size < 9_000_000


def test_related_texts_are_nearer(shipped: Table) -> None:
    def near(a: str, b: str) -> float:
        return cosine(shipped.embed(a), shipped.embed(b))

    assert near("The car would not start this morning", "My vehicle's engine is broken") > 0.3
    assert near("The car would not start this morning", "She bakes chocolate cake on Sundays") < 0.2
    assert near("What pets does she have?", "Ana: we adopted a kitten") > near(
        "What pets does she have?", "Ana: I got a job"
    )
    assert near("disk is full", "no space left on device") > near("disk is full", "user logged in")


def test_texts_without_words_have_no_direction(shipped: Table) -> None:
    for text in ("", "   ", "\u200b", "\x00"):
        assert shipped.embed(text) == bytes(DIMS)
    assert cosine(bytes(DIMS), shipped.embed("a cat")) == 0.0


def test_any_text_is_just_text(shipped: Table) -> None:
    for text in ("\U0001f600\U0001f389", '"NEAR(a b)" -x *', "a" * 100_000, "the of and", "\ud800 lone surrogate"):
        assert len(shipped.embed(text)) == DIMS


def test_known_languages(shipped: Table) -> None:
    assert shipped.coverage("Where did she buy the bicycle?") > table.COVERAGE_MIN
    assert shipped.coverage("Wo hat sie ihr Fahrrad gekauft?") < table.COVERAGE_MIN


def test_bits_are_signs() -> None:
    vector = np.zeros(DIMS, np.int8)
    vector[[0, 9, 255]] = 5
    vector[1] = -5
    packed = bits(vector.tobytes())
    assert len(packed) == DIMS // 8
    assert (packed[0], packed[1], packed[31]) == (1, 2, 128)


def test_cosine() -> None:
    a, b = np.zeros(DIMS, np.int8), np.zeros(DIMS, np.int8)
    a[0], b[0], b[1] = 100, 50, 50
    assert cosine(a.tobytes(), a.tobytes()) == pytest.approx(1.0)
    assert cosine(a.tobytes(), b.tobytes()) == pytest.approx(math.sqrt(0.5))
    assert cosine(a.tobytes(), (-a).tobytes()) == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="two models"):
        cosine(bytes(256), bytes(384))


def test_pack_and_open(small: Path) -> None:
    opened = Table(small)
    opened.verify()
    assert opened.model == "test-1"
    lookup = opened.wordpiece._lookup
    assert [lookup.get(piece) for piece in PIECES] == list(range(len(PIECES)))
    assert lookup.get("absent") is None
    assert opened.wordpiece.ids("Cats dog caf\u00e9 \u65e5") == [1, 3, 2, 0, 5]


def test_embedding_is_the_mean_of_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).standard_normal((len(PIECES), DIMS)).astype(np.float32)
    path = tmp_path / "t.bin"
    path.write_bytes(pack(PIECES, rows, "test-1"))
    got = np.frombuffer(Table(path).embed("cats cats dog"), np.int8).astype(np.float32)
    wanted = 2 * rows[1] + 2 * rows[3] + rows[2]
    assert got @ wanted / np.linalg.norm(got) / np.linalg.norm(wanted) > 0.9995


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="reinstall"):
        Table(tmp_path / "absent.bin")


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.bin").write_bytes(b"")
    with pytest.raises(TableError, match="cannot be mapped"):
        Table(tmp_path / "empty.bin")


@pytest.mark.parametrize("size", [1, 8, 60, 100, 1000])
def test_a_short_file_says_so(small: Path, size: int) -> None:
    small.write_bytes(small.read_bytes()[:size])
    with pytest.raises(TableError, match="reinstall"):
        Table(small)


def test_another_file_says_so(small: Path) -> None:
    small.write_bytes(b"SQLite format 3\0" + small.read_bytes()[16:])
    with pytest.raises(TableError, match="not an embedding table"):
        Table(small)


def test_a_damaged_header_says_so(small: Path) -> None:
    data = bytearray(small.read_bytes())
    data[30] ^= 1
    small.write_bytes(data)
    with pytest.raises(TableError, match="header is damaged"):
        Table(small)


def test_verify_finds_one_flipped_bit(small: Path) -> None:
    data = bytearray(small.read_bytes())
    data[-500] ^= 1
    small.write_bytes(data)
    with pytest.raises(TableError, match="SHA-256"):
        Table(small).verify()


def test_pack_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="rows"):
        pack(PIECES, np.zeros((2, DIMS), np.float32), "test-1")
    with pytest.raises(ValueError, match="name"):
        pack(PIECES, np.zeros((len(PIECES), DIMS), np.float32), "m" * 33)
