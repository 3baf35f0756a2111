"""Runs the benchmarks, one after the other: `make bench`, or `make bench ARGS="store"` for those whose name says so.

Each is a small script that asks one question and prints one Markdown table with its command. Nothing fails on a time.
"""

import subprocess
import sys
from pathlib import Path

BENCHES = (
    ("store", ["store.py"]),
    ("rest", ["rest.py"]),
    ("sync", ["sync_costs.py"]),
    ("search quality", ["search_quality.py"]),
    ("search speed", ["search_speed.py"]),
    ("vectors", ["vectors.py"]),
    ("ledger", ["ledger_costs.py"]),
    ("ledger votes", ["ledger_votes.py"]),
    ("ledger reputation", ["reputation.py"]),
)


def main() -> int:
    wanted = sys.argv[1:]
    folder = Path(__file__).parent
    failed = 0
    for name, command in BENCHES:
        if wanted and not any(word in name for word in wanted):
            continue
        print(f"\n## {name}\n", flush=True)
        failed += subprocess.run([sys.executable, str(folder / command[0]), *command[1:]], check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
