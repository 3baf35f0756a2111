"""Does a search find the fact that answers? The corpus of this repository: 320 facts, 120 questions of three kinds.

    python bench/search_quality.py [corpus.jsonl queries.jsonl] [--legs text|vector|hybrid|all]

`lexical` questions use words of the answer, `paraphrase` questions other words, `context` questions are answered by a
fact beside the one they name. Searched in the question's project; the times of validity are left out, since the
questions do not say when they are asked. `relevant` counts lines of the corpus from 0. MRR: the mean of 1 / rank of
the first relevant fact among ten.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rankings import LEGS, remember
from search_rows import NOW_MS, Row

from node.search import Query

HERE = Path(__file__).parent
TOP = 10


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judge(found: list[int], relevant: set[int]) -> tuple[float, float, float]:
    """Recall at 1 and 5, reciprocal rank."""
    first = next((rank for rank, fact in enumerate(found, 1) if fact in relevant), None)
    shares = [len(relevant & set(found[:cut])) / min(len(relevant), cut) for cut in (1, 5)]
    return shares[0], shares[1], 1 / first if first else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality of a search on a small corpus.")
    parser.add_argument("corpus", type=Path, nargs="?", default=HERE / "corpus.jsonl")
    parser.add_argument("queries", type=Path, nargs="?", default=HERE / "corpus-queries.jsonl")
    parser.add_argument("--legs", choices=LEGS, default="all", help="which rankings to judge")
    given = parser.parse_args()
    facts, asked = lines(given.corpus), lines(given.queries)
    memory = remember(
        [Row(fact["content"], fact["project"], fact.get("source"), fact["fact_type"], fact["tags"]) for fact in facts]
    )
    kinds = sorted({question["kind"] for question in asked})
    print(f"`python bench/search_quality.py`: {len(facts)} facts, {len(asked)} questions; recall @1, @5, MRR @10.\n")
    print(f"| ranking | {' | '.join(f'{kind} @1 | @5 | MRR' for kind in kinds)} |")
    print("| --- |" + " ---: |" * 3 * len(kinds))
    for name, ranking in LEGS[given.legs]:
        cells = []
        for kind in kinds:
            judged = [
                judge(
                    list(ranking(memory, Query(q["query"], q["project"], top_k=TOP, now_ms=NOW_MS))),
                    {line + 1 for line in q["relevant"]},
                )
                for q in asked
                if q["kind"] == kind
            ]
            cells += [f"{sum(column) / len(judged):.3f}" for column in zip(*judged, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
