"""Where shall candidates be found and judged? Bits in memory beside sqlite-vec's vec0; numpy beside sqlite-vec.

    python bench/vectors.py [--texts 50000]

Random vectors of 256 int8, one project, asked for the vectors of texts that are there. Medians of the thread's
processor time; memory and disk are what each index adds.
"""

import argparse
import os
import random
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import thread_time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from search_rows import Row, database

from node import extension
from node.search.nearest import Question, Signs

DIMS = 256
CANDIDATES = (100, 200, 400)
ROUNDS = 30


def milliseconds(call: Callable[[int], object]) -> str:
    """The median of ROUNDS calls, each with its number."""
    times = []
    for number in range(ROUNDS):
        start = thread_time()
        call(number)
        times.append((thread_time() - start) * 1000)
    return f"{statistics.median(times):.2f}"


def filled(path: Path, vectors: list[bytes]) -> sqlite3.Connection:
    connection = database([Row(f"text {number}", "default") for number in range(len(vectors))], str(path))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO vectors VALUES (?, 1, 1, ?)", enumerate(vectors, 1))
    connection.execute("COMMIT")
    return connection


def with_vec0(connection: sqlite3.Connection, vectors: list[bytes]) -> None:
    connection.execute(
        f"CREATE VIRTUAL TABLE signs USING vec0 (text INTEGER PRIMARY KEY, project INTEGER PARTITION KEY,"
        f" bits BIT[{DIMS}])"
    )
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO signs VALUES (?, 1, vec_bit(?))",
        ((text, packed(vector)) for text, vector in enumerate(vectors, 1)),
    )
    connection.execute("COMMIT")


def packed(vector: bytes) -> bytes:
    return np.packbits(np.frombuffer(vector, np.int8) > 0, bitorder="little").tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="Candidates by bits, and judging them, in two ways each.")
    parser.add_argument("--texts", type=int, default=50_000)
    count = parser.parse_args().texts
    chance = random.Random(1)
    vectors = [bytes(int(chance.gauss(0, 22)) & 0xFF for _ in range(DIMS)) for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder, closing(filled(Path(folder) / "cortex.db", vectors)) as connection:
        if not extension.load(connection):
            raise SystemExit("sqlite-vec can't be loaded here; cortex-node doctor says more")
        before = connection.execute("PRAGMA page_count").fetchone()[0]
        with_vec0(connection, vectors)
        pages = connection.execute("PRAGMA page_count").fetchone()[0] - before
        signs = Signs.of([(text, 1, vector) for text, vector in enumerate(vectors, 1)], DIMS)
        held = signs.texts.nbytes + signs.projects.nbytes + signs.bits.nbytes
        asked = [chance.choice(vectors) for _ in range(ROUNDS)]

        def by_vec0(number: int, wanted: int) -> list[int]:
            rows = connection.execute(
                "SELECT text FROM signs WHERE bits MATCH vec_bit(?) AND k = ? AND project = 1",
                (packed(asked[number]), wanted),
            )
            return [row[0] for row in rows]

        def by_numpy(number: int, wanted: int) -> list[int]:
            bits = np.frombuffer(packed(asked[number]), np.uint64)
            return next(signs.nearest(bits, 1, wanted))

        print(f"`python bench/vectors.py --texts {count}`: milliseconds of processor time.\n")
        print("| what | memory, numpy | SQLite, sqlite-vec |\n| --- | ---: | ---: |")
        for wanted in CANDIDATES:
            cells = [milliseconds(lambda n, way=way, k=wanted: way(n, k)) for way in (by_numpy, by_vec0)]
            print(f"| {wanted} candidates by bits | {' | '.join(cells)} |")
        for wanted in CANDIDATES:
            texts = [by_numpy(number, wanted) for number in range(ROUNDS)]
            questions = [[Question(vector, 1, signs, by_sqlite) for vector in asked] for by_sqlite in (False, True)]
            judged = [milliseconds(lambda n, q=q, t=texts: q[n].cosines(connection, t[n])) for q in questions]
            print(f"| {wanted} judged by int8 | {' | '.join(judged)} |")
        print(f"| MB of the bits' index | {held / 1e6:.1f} in memory | {pages * 4096 / 1e6:.1f} on disk |")


if __name__ == "__main__":
    main()
