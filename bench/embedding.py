"""The embedding table: what does a query cost, in time and memory, and how much does it find alone?

    python bench/embedding.py [LOCOMO.json]

The file, if given, has LoCoMo's shape (a list of dialogues with `conversation` and `qa`): one project per dialogue,
one fact per turn, `Speaker: text`; questions of categories 1-4; recall is the mean share of the evidence turns found.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from node.embedding.table import COVERAGE_MIN, QUANTUM, Table, bits

SHORT = "where did she buy the bicycle"
TURN = "Oskar: I started rowing at the harbour in April, the coach is patient and I have not fallen in once so far!"
FRESH_WORDS = 2000  # words that no cache has seen
ROUNDS = 2000
CANDIDATES = 128  # by bits, before int8 decides
TOP_K = (5, 10, 20)


def private_mb() -> float:
    """Memory that only this process has, MB (Linux: smaps_rollup, Private_Dirty)."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"Private_Dirty:\s+(\d+) kB", rollup)
    return int(found.group(1)) / 1024 if found else float("nan")


def microseconds(call: Callable[[], object]) -> float:
    """Median of ROUNDS calls."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return median(times) / 1000


def turns(conversation: dict[str, object]) -> dict[str, str]:
    """Turn id to `Speaker: text`, in order."""
    sessions = sorted((key for key in conversation if re.fullmatch(r"session_\d+", key)), key=lambda key: int(key[8:]))
    return {
        turn["dia_id"]: f"{turn['speaker']}: {turn['text']}"
        for key in sessions
        for turn in conversation[key]  # type: ignore[attr-defined]
    }


def recalls(table: Table, path: Path) -> dict[str, list[float]]:
    """For int8 alone, and bits then int8: recall at each of TOP_K."""
    shares: dict[str, list[list[float]]] = {"int8": [], f"{CANDIDATES} by bits, then int8": []}
    for dialogue in json.loads(path.read_text(encoding="utf-8")):
        facts = turns(dialogue["conversation"])
        number = {name: position for position, name in enumerate(facts)}
        vectors = [table.embed(text) for text in facts.values()]
        whole = np.array([np.frombuffer(vector, np.int8) for vector in vectors], np.float32) / np.float32(QUANTUM)
        signs = np.array([np.frombuffer(bits(vector), np.uint8) for vector in vectors])
        for asked in dialogue["qa"]:
            named = {part for entry in asked["evidence"] for part in re.split(r"[;, ]+", entry)}
            evidence = {number[name] for name in named if name in number}
            if asked["category"] not in (1, 2, 3, 4) or not evidence:
                continue
            query = table.embed(asked["question"])
            scores = whole @ np.frombuffer(query, np.int8).astype(np.float32)
            differing = np.bitwise_count(signs ^ np.frombuffer(bits(query), np.uint8)).sum(axis=1)
            near = np.argsort(differing, kind="stable")[:CANDIDATES]
            ranked = np.argsort(-scores, kind="stable"), near[np.argsort(-scores[near], kind="stable")]
            for found, order in zip(shares.values(), ranked, strict=True):
                found.append([len(evidence & set(order[:k].tolist())) / len(evidence) for k in TOP_K])
    return {name: np.mean(found, axis=0).tolist() for name, found in shares.items()}


def main() -> None:
    """Print the table."""
    before, start = private_mb(), time.perf_counter()
    table = Table()
    opened_ms = (time.perf_counter() - start) * 1000
    fresh = [f"{a}{b}{c}" for a in "mnrst" for b in "aeiou" for c in (f"w{number}x" for number in range(80))]
    rows = [("open the table", f"{opened_ms:.2f} ms")]
    rows.append(("short query, words seen before", f"{microseconds(lambda: table.embed(SHORT)):.0f} us"))
    rows.append(("turn of 21 words, seen before", f"{microseconds(lambda: table.embed(TURN)):.0f} us"))
    start = time.perf_counter()
    for word in fresh[:FRESH_WORDS]:
        table.embed(word)
    rows.append(("one word never seen before", f"{(time.perf_counter() - start) / FRESH_WORDS * 1e6:.0f} us"))
    rows.append(("coverage of a short query", f"{microseconds(lambda: table.coverage(SHORT)):.0f} us"))
    rows.append(("private memory after these, over Python and numpy", f"{private_mb() - before:.1f} MB"))
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        found = recalls(table, path)
        served = [
            table.coverage(text) >= COVERAGE_MIN
            for dialogue in json.loads(path.read_text(encoding="utf-8"))
            for text in turns(dialogue["conversation"]).values()
        ]
        rows.append((f"turns with coverage >= {COVERAGE_MIN}", f"{np.mean(served):.1%} of {len(served)}"))
        for name, values in found.items():
            ats = ", ".join(f"@{k} {value:.3f}" for k, value in zip(TOP_K, values, strict=True))
            rows.append((f"recall, {name}", ats))
    print(f"`python bench/embedding.py{' LOCOMO.json' if len(sys.argv) > 1 else ''}`, model {table.model}; medians\n")
    print("| what | value |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
