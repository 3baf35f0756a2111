"""The vectors near a question: one bit per dimension in memory finds candidates, int8 on disk judge them.

`Signs` holds (text, project, bits) of every text that has a vector of one model: 44 bytes a text at 256 dimensions. The
Hamming distance of 50,000 of them takes a millisecond. It is a value: `put` makes another, so a search reads one
without a lock while the next is made. It may lag behind the database: texts that are gone are in it, and new ones are
not. Nothing wrong can come of that, because every candidate is judged by its vector in the search's own snapshot.

`Question` is a query with its vector, a `node.search.vector.Meaning`. Judging is sqlite-vec's where it is loaded and
numpy's where it isn't: the same texts with the same cosines, at the same cost. A bit index in a vec0 table was measured
and left: for 100 candidates among 50,000 it takes 8 times as long as numpy (bench/vectors.py prints both).

numpy is imported here; only who has an encoder imports this. Tests: tests/node/search/test_nearest.py.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from node import extension

CANDIDATES: Final = 100
"""Texts judged by int8, the nearest by bits. In a hybrid search even 64 do what judging all does, on dialogue."""
MORE: Final = 10
"""Each further chunk, when filters left too few, is this many times the first."""
DIGITS: Final = 6
"""To which cosines are rounded: beyond it sqlite-vec's float32 and numpy's differ."""


@dataclass(frozen=True, slots=True, eq=False)
class Signs:
    """The bits of all vectors of one model, in the order of their texts' rowids."""

    texts: npt.NDArray[np.int64]
    projects: npt.NDArray[np.int32]
    bits: npt.NDArray[np.uint64]
    """[dims / 64, texts]: a column of 64 dimensions lies in one piece"""

    @classmethod
    def none(cls, dims: int) -> "Signs":
        """Of no text. `dims` is a multiple of 64."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros((dims // 64, 0), np.uint64))

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, bytes]], dims: int) -> "Signs":
        """Of rows of (text, project, vector), vectors of `dims` int8 or empty: those are left out."""
        kept = sorted((text, project, vector) for text, project, vector in rows if vector)
        if not kept:
            return cls.none(dims)
        texts, projects, vectors = zip(*kept, strict=True)
        return cls(np.array(texts, np.int64), np.array(projects, np.int32), _packed(b"".join(vectors), dims).T.copy())

    def __len__(self) -> int:
        return len(self.texts)

    def put(self, new: "Signs") -> "Signs":
        """These with `new` ones, which replace those of the same texts."""
        at = np.searchsorted(self.texts, new.texts)
        known = at < len(self)
        known[known] = self.texts[at[known]] == new.texts[known]
        rest = np.delete(self.texts, at[known])
        places = np.searchsorted(rest, new.texts)
        return Signs(
            np.insert(rest, places, new.texts),
            np.insert(np.delete(self.projects, at[known]), places, new.projects),
            np.insert(np.delete(self.bits, at[known], axis=1), places, new.bits, axis=1),
        )

    def nearest(self, bits: npt.NDArray[np.uint64], project: int | None, first: int) -> Iterator[list[int]]:
        """The texts of a project, or of all, nearest first; of equals the newest. `first` of them, then larger chunks.

        The order is total, so it does not depend on how the chunks fall.
        """
        distances = np.zeros(len(self), np.uint16)
        for column, wanted in zip(self.bits, bits, strict=True):
            distances += np.bitwise_count(column ^ wanted)
        texts = self.texts
        if project is not None:
            inside = self.projects == project
            texts, distances = texts[inside], distances[inside]
        yield texts[_first(distances, first)].tolist()
        if len(texts) > first:
            rest = texts[np.lexsort((-texts, distances))][first:]
            for start in range(0, len(rest), MORE * first):
                yield rest[start : start + MORE * first].tolist()


@dataclass(frozen=True, slots=True)
class Question:
    """A query's vector, the number of its model in the database, and the bits to look among."""

    vector: bytes
    model: int
    signs: Signs
    by_sqlite: bool = True
    """Whether sqlite-vec may judge; tests compare both."""

    def nearest(self, project: int | None) -> Iterator[list[int]]:
        """Texts by the distance of their bits."""
        (bits,) = _packed(self.vector, len(self.vector))
        return self.signs.nearest(bits, project, CANDIDATES)

    def cosines(self, connection: sqlite3.Connection, texts: Sequence[int]) -> dict[int, float]:
        """The cosine of each text that has a vector of this model, -1.0 to 1.0."""
        wanted = json.dumps(list(texts))
        if self.by_sqlite and extension.load(connection):
            rows = connection.execute(
                "SELECT text, round(1 - vec_distance_cosine(vec_int8(vector), vec_int8(?)), ?)"
                " FROM json_each(?) AS wanted CROSS JOIN vectors ON text = wanted.value"
                " WHERE model = ? AND length(vector) = ?",
                (self.vector, DIGITS, wanted, self.model, len(self.vector)),
            )
            return dict(rows.fetchall())
        found = connection.execute(
            "SELECT text, vector FROM json_each(?) AS wanted CROSS JOIN vectors ON text = wanted.value"
            " WHERE model = ? AND length(vector) = ?",
            (wanted, self.model, len(self.vector)),
        ).fetchall()
        if not found:
            return {}
        vectors = _whole(b"".join(vector for _, vector in found)).reshape(len(found), -1)
        mine = _whole(self.vector)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors) * (mine @ mine))
        cosines = np.round(vectors @ mine / lengths, DIGITS)
        return dict(zip((text for text, _ in found), cosines.tolist(), strict=True))


def _packed(vectors: bytes, dims: int) -> npt.NDArray[np.uint64]:
    """Vectors of `dims` int8 to a bit for each component, set where it is above 0."""
    signs = np.frombuffer(vectors, np.int8).reshape(-1, dims) > 0
    return np.packbits(signs, axis=1, bitorder="little").view(np.uint64)


def _whole(vectors: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(vectors, np.int8).astype(np.float32)


def _first(distances: npt.NDArray[np.uint16], count: int) -> npt.NDArray[np.intp]:
    """The positions of the `count` least, in order; of equals the last, as positions go."""
    chosen = np.arange(len(distances))
    if len(distances) > count:
        edge = np.partition(distances, count - 1)[count - 1]
        below = np.flatnonzero(distances < edge)
        ties = np.flatnonzero(distances == edge)[::-1]
        chosen = np.concatenate((below, ties[: count - len(below)]))
    return chosen[np.lexsort((-chosen, distances[chosen]))]
