"""How long does a search take? Cold (no answer is cached), on one connection, by how frequent its words are.

    python bench/search_speed.py [--facts 50000]

The corpus is made up: 22 words a fact drawn by Zipf's law from 30,000, 30 facts a source, one project. `rank` is a
word's place in the order of frequency; the words of real questions, without stop words, lie mostly beyond 100. Beside
it the same words ORed and ranked by SQLite's own bm25(), without filters or neighbours. The encoder is asked for a
vector although it can't read made-up words, after it has seen each once: cutting one up costs as much as a short query.

p50 and p95 are what a caller waits; CPU is the median of the thread's processor time. Where the two differ much, other
programs were running, and both are worse than on an idle machine.
"""

import argparse
import random
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from time import perf_counter, thread_time

from search_rows import NOW_MS, Row, database

from node import extension
from node.embedding.table import Table
from node.search import Query, search
from node.search.nearest import Question, Signs
from node.vectors import LOAD, adopt

VOCABULARY = 30_000
WORDS_PER_FACT = 22
FACTS_PER_SOURCE = 30
QUESTIONS = 200
BANDS = {
    "5 rare words (rank 1,000 to 20,000)": ((1_000, 20_000),) * 5,
    "5 mid words (100 to 1,000)": ((100, 1_000),) * 5,
    "5 mixed (one of 10 to 50, two of 50 to 300, two rarer)": ((10, 50), *((50, 300),) * 2, *((300, 5_000),) * 2),
    "5 frequent words (5 to 50)": ((5, 50),) * 5,
    "15 mixed": ((10, 50), *((50, 300),) * 4, *((300, 5_000),) * 10),
}


def vocabulary(chance: random.Random) -> list[str]:
    """Made-up words, the most frequent first."""
    found: dict[str, None] = {}
    while len(found) < VOCABULARY:
        syllables = (chance.choice("bcdfghklmnprstvw") + chance.choice("aeiou") for _ in range(chance.randint(2, 4)))
        found["".join(syllables)] = None
    return list(found)


def measure(run: Callable[[str], object], questions: list[str]) -> str:
    """Three cells, in milliseconds, of `run` over the questions: p50, p95, median CPU time."""
    waited: list[float] = []
    worked: list[float] = []
    for question in questions:
        start, busy = perf_counter(), thread_time()
        run(question)
        waited.append((perf_counter() - start) * 1000)
        worked.append((thread_time() - busy) * 1000)
    p95 = statistics.quantiles(waited, n=20)[18]
    return f"{statistics.median(waited):.2f} | {p95:.2f} | {statistics.median(worked):.2f}"


def build(facts: int, known: list[str], chance: random.Random, path: str) -> tuple[sqlite3.Connection, int, Signs]:
    """The memory in `path`: its connection, the number of its model, and the bits of its vectors."""
    weights = list(accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))
    rows = (
        Row(
            " ".join(chance.choices(known, cum_weights=weights, k=WORDS_PER_FACT)),
            "default",
            f"source-{number // FACTS_PER_SOURCE}",
        )
        for number in range(facts)
    )
    connection, table = database(rows, path), Table()
    model, signs = adopt(connection, table.model), Signs.none(table.dims)
    for start in range(0, facts, LOAD):
        texts = connection.execute("SELECT id, 1, content FROM texts WHERE id > ? ORDER BY id LIMIT ?", (start, LOAD))
        new = [(text, project, table.embed(content)) for text, project, content in texts]
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO vectors VALUES (?, ?, 1, ?)", new)
        connection.execute("COMMIT")
        signs = signs.put(Signs.of(new, table.dims))
    return connection, model, signs


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of a search.")
    parser.add_argument("--facts", type=int, default=50_000)
    given = parser.parse_args()
    chance = random.Random(1)
    known = vocabulary(chance)
    with tempfile.TemporaryDirectory() as folder:
        extension.register()
        path = str(Path(folder) / "cortex.db")
        connection, model, signs = build(given.facts, known, chance, path)
        table = Table()

        def by_text(question: str) -> object:
            return search(connection, Query(question, "default", now_ms=NOW_MS))

        def hybrid(question: str) -> object:
            meaning = Question(table.embed(question), model, signs)
            return search(connection, Query(question, "default", now_ms=NOW_MS), meaning)

        def sqlite(question: str) -> object:
            match = " OR ".join(f'"{word}"' for word in question.split())
            return connection.execute(
                "SELECT rowid FROM texts_fts WHERE texts_fts MATCH ? ORDER BY rank LIMIT 10", (match,)
            ).fetchall()

        print(f"`python bench/search_speed.py --facts {given.facts}`: milliseconds, {QUESTIONS} questions each.\n")
        print("| question | hybrid p50 | p95 | CPU | mode bm25 p50 | p95 | CPU | SQLite's bm25() p50 | p95 | CPU |")
        print("| --- |" + " ---: |" * 9)
        for name, bands in BANDS.items():
            asked = [" ".join(known[chance.randint(*band)] for band in bands) for _ in range(QUESTIONS)]
            for question in asked:
                table.embed(question)
            print(f"| {name} | {' | '.join(measure(way, asked) for way in (hybrid, by_text, sqlite))} |")
        held = signs.texts.nbytes + signs.projects.nbytes + signs.bits.nbytes
        print(f"\nThe bits of {len(signs)} vectors take {held / 1e6:.1f} MB of memory.")
        connection.close()


if __name__ == "__main__":
    main()
