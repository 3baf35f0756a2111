"""Vectors near a question: bits in memory against brute force, sqlite-vec against numpy."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import extension
from node.embedding.table import Table, bits, cosine
from node.migrations import migrate
from node.search.nearest import CANDIDATES, Question, Signs

DIMS = 64
MODEL = 7

Row = tuple[int, int, bytes]

vectors = st.binary(min_size=DIMS, max_size=DIMS).filter(any)
rows = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3), vectors), max_size=20, unique_by=lambda row: row[0])


def content(signs: Signs) -> dict[int, tuple[int, bytes]]:
    columns = zip(signs.texts.tolist(), signs.projects.tolist(), signs.bits.T, strict=True)
    return {text: (project, bits.tobytes()) for text, project, bits in columns}


def question(vector: bytes, signs: Signs | None = None, *, by_sqlite: bool = True) -> Question:
    return Question(vector, MODEL, Signs.none(DIMS) if signs is None else signs, by_sqlite)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    extension.register()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        migrate(opened, 0)
        yield opened


@given(rows)
def test_bits_are_packed_as_the_embedding_says(some: list[Row]) -> None:
    signs = Signs.of(some, DIMS)
    assert content(signs) == {text: (project, bits(vector)) for text, project, vector in some}
    assert signs.texts.tolist() == sorted(signs.texts.tolist())


@given(rows, rows)
def test_putting_is_as_if_all_had_been_there(some: list[Row], more: list[Row]) -> None:
    replaced = {row[0] for row in more}
    both = [row for row in some if row[0] not in replaced] + more
    assert content(Signs.of(some, DIMS).put(Signs.of(more, DIMS))) == content(Signs.of(both, DIMS))


def test_a_text_that_the_model_could_not_read_has_no_bits() -> None:
    assert len(Signs.of([(1, 1, b""), (2, 1, b"\1" * DIMS)], DIMS)) == 1


@given(rows, vectors, st.none() | st.integers(1, 3), st.integers(1, 25))
def test_nearest_first_of_equals_the_newest_however_the_chunks_fall(
    some: list[Row], wanted: bytes, project: int | None, first: int
) -> None:
    def distance(vector: bytes) -> int:
        return (int.from_bytes(bits(vector)) ^ int.from_bytes(bits(wanted))).bit_count()

    (packed,) = Signs.of([(1, 1, wanted)], DIMS).bits.T
    chunks = list(Signs.of(some, DIMS).nearest(packed, project, first))
    inside = [row for row in some if project in (None, row[1])]
    expected = sorted(inside, key=lambda row: (distance(row[2]), -row[0]))
    assert [text for chunk in chunks for text in chunk] == [text for text, _, _ in expected]
    assert len(chunks[0]) == min(first, len(inside))


def keep(connection: sqlite3.Connection, some: list[Row], model: int = MODEL) -> None:
    connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", [(t, p, model, v) for t, p, v in some])


@given(rows, vectors)
def test_sqlite_vec_and_numpy_find_the_same_texts_with_the_same_cosines(some: list[Row], wanted: bytes) -> None:
    extension.register()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        if not extension.load(connection):
            pytest.skip("sqlite-vec can't be loaded by this Python")
        migrate(connection, 0)
        keep(connection, some)
        texts = [text for text, _, _ in some]
        by_sqlite = question(wanted).cosines(connection, texts)
        by_numpy = question(wanted, by_sqlite=False).cosines(connection, texts)
        assert by_sqlite.keys() == by_numpy.keys() == set(texts)
        assert by_sqlite == pytest.approx(by_numpy, abs=2e-6)
        assert by_numpy == pytest.approx({text: cosine(vector, wanted) for text, _, vector in some}, abs=2e-6)


SENTENCES = [
    f"the {subject} {verb} {when}"
    for subject in ("pump", "valve", "gateway", "sensor in the barn", "old router", "heating", "north gate")
    for verb in ("leaks", "was replaced", "runs hot", "needs new firmware", "stands still")
    for when in ("on Mondays", "since the flood", "at night", "every spring", "after each update", "as usual")
]


@pytest.mark.parametrize("query", ["what broke when the water came", "software for the box", "gate", "it is too warm"])
def test_the_same_texts_in_the_same_order_with_the_table(connection: sqlite3.Connection, query: str) -> None:
    if not extension.load(connection):
        pytest.skip("sqlite-vec can't be loaded by this Python")
    table = Table()
    keep(connection, [(text, 1, table.embed(said)) for text, said in enumerate(SENTENCES, 1)])
    orders = []
    for by_sqlite in (True, False):
        asked = question(table.embed(query), by_sqlite=by_sqlite)
        cosines = asked.cosines(connection, range(1, len(SENTENCES) + 1))
        orders.append(sorted(cosines, key=lambda text: (-cosines[text], text)))
    assert len(orders[0]) == len(SENTENCES) and orders[0] == orders[1]


@pytest.mark.parametrize("by_sqlite", [True, False])
def test_vectors_of_another_model_are_never_compared(connection: sqlite3.Connection, by_sqlite: bool) -> None:
    vector = b"\1" * DIMS
    keep(connection, [(1, 1, vector)], model=MODEL + 1)
    keep(connection, [(2, 1, vector), (3, 1, b"\1" * 2 * DIMS), (4, 1, b"")])
    assert question(vector, by_sqlite=by_sqlite).cosines(connection, [1, 2, 3, 4, 5]) == {2: 1.0}
    assert question(vector, by_sqlite=by_sqlite).cosines(connection, []) == {}


def test_a_question_looks_at_candidates_first() -> None:
    signs = Signs.of([(text, 1, b"\1" * DIMS) for text in range(1, CANDIDATES + 3)], DIMS)
    chunks = list(question(b"\1" * DIMS, signs).nearest(None))
    assert [len(chunk) for chunk in chunks] == [CANDIDATES, 2]
    assert chunks[0][0] == CANDIDATES + 2, "the newest"
    assert list(question(b"\1" * DIMS, signs).nearest(9)) == [[]]
