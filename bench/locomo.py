"""How much of the evidence does a search find? LoCoMo dialogues: one project each, one fact per turn.

    python bench/locomo.py locomo10.json [--only 0,1,2] [--legs text|vector|hybrid|all] [--encoder table|minilm]

LoCoMo (Maharana et al., ACL 2024) is CC BY-NC 4.0: it is not part of this repository and nothing of it may be
committed. Content is `Speaker: text` without the captions of images, source is the session, facts are stored in the
order of the dialogue. Questions of categories 1 to 4 with evidence that exists; recall@k is the mean share of a
question's evidence turns among the first k facts. At session level the sessions are ranked by their best fact.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankings import LEGS, Memory, Ranking, remember
from search_rows import NOW_MS, Row

from node.search import Query

CUTS = (5, 10, 20)
DEEP = 200
"""Facts ranked to find the sessions: enough to meet 20 of them."""


@dataclass(frozen=True, slots=True)
class Question:
    """`evidence` holds rowids of facts, counted over all dialogues from 1."""

    text: str
    project: str
    evidence: frozenset[int]


def read(dialogues: Sequence[dict[str, Any]]) -> tuple[list[Row], list[Question]]:
    """The facts of all dialogues in the order of storing, and the questions that can be judged."""
    rows: list[Row] = []
    questions: list[Question] = []
    for number, dialogue in enumerate(dialogues):
        project = f"dialogue-{number}"
        turns: dict[str, int] = {}
        sessions = dialogue["conversation"]
        for key in sorted((key for key in sessions if re.fullmatch(r"session_\d+", key)), key=lambda key: int(key[8:])):
            for turn in sessions[key]:
                rows.append(Row(f"{turn['speaker']}: {turn['text']}", project, key))
                turns[turn["dia_id"]] = len(rows)
        for asked in dialogue["qa"]:
            names = [name for entry in asked.get("evidence", []) for name in re.split(r"[;,\s]+", entry)]
            evidence = frozenset(turns[name] for name in names if name in turns)
            if asked["category"] in (1, 2, 3, 4) and evidence:
                questions.append(Question(asked["question"], project, evidence))
    return rows, questions


def recall(memory: Memory, rows: Sequence[Row], asked: Sequence[Question], ranking: Ranking) -> str:
    """Six cells: recall at CUTS of turns, then of sessions."""
    turns = dict.fromkeys(CUTS, 0.0)
    sessions = dict.fromkeys(CUTS, 0.0)
    for question in asked:
        found = ranking(memory, Query(question.text, question.project, top_k=DEEP, now_ms=NOW_MS))
        order = list(dict.fromkeys(rows[fact - 1].source for fact in found))
        wanted = {rows[fact - 1].source for fact in question.evidence}
        for cut in CUTS:
            turns[cut] += len(question.evidence & set(found[:cut])) / len(question.evidence)
            sessions[cut] += len(wanted & set(order[:cut])) / len(wanted)
    return " | ".join(f"{level[cut] / len(asked):.3f}" for level in (turns, sessions) for cut in CUTS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall of a search on LoCoMo dialogues.")
    parser.add_argument("path", type=Path, help="a file like locomo10.json")
    parser.add_argument("--legs", choices=LEGS, default="all", help="which rankings to judge")
    parser.add_argument("--encoder", choices=("table", "minilm"), default="table")
    parser.add_argument("--only", help="judge only these dialogues, such as 0,1,2; all are stored all the same")
    given = parser.parse_args()
    data = given.path.read_bytes()
    rows, questions = read(json.loads(data))
    if given.only:
        kept = {f"dialogue-{number}" for number in given.only.split(",")}
        questions = [question for question in questions if question.project in kept]
    memory = remember(rows, given.encoder)
    only = f" --only {given.only}" if given.only else ""
    only += f" --encoder {given.encoder}" if given.encoder != "table" else ""
    print(f"`python bench/locomo.py {given.path.name}{only}`, data sha256 {hashlib.sha256(data).hexdigest()[:16]}:")
    print(f"{len(rows)} facts, {len(questions)} questions; recall of turns, then of sessions.\n")
    print(
        f"| ranking | {' | '.join(f'turn @{cut}' for cut in CUTS)} | {' | '.join(f'session @{cut}' for cut in CUTS)} |"
    )
    print("| --- |" + " ---: |" * 6)
    for name, ranking in LEGS[given.legs]:
        print(f"| {name} | {recall(memory, rows, questions, ranking)} |")


if __name__ == "__main__":
    main()
