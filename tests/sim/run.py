"""Run worlds by seed, and say how to repeat the one that broke a promise.

tests/sim/run.py --seed 7             one world, every event printed
tests/sim/run.py --seed 1 --seeds 500 that many worlds, from seed 1 on
tests/sim/run.py --crowd 10000        that many nodes without faults: when a write is everywhere, and what it costs
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.sim.crowd import Crowd
from tests.sim.oracle import Violation
from tests.sim.world import World

CROWD_WRITES = 8
LATE_S = (1.0, 5.0)
"""Until 99 of 100 nodes have a write: of up to a hundred, of more."""
MESSAGES = 12
"""A node, for each write."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--crowd", type=int, metavar="NODES")
    arguments = parser.parse_args()
    if arguments.crowd:
        return crowd(arguments.crowd, arguments.seed)
    began = time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        try:
            World(seed, trace=print if arguments.seeds == 1 else None).run()
        except Violation as violation:
            print(f"seed {seed}: {violation}\nrepeat it: make sim SEED={seed}")
            return 1
    print(f"{arguments.seeds} seeds, every promise kept, {time.monotonic() - began:.1f} s")
    return 0


def crowd(nodes: int, seed: int) -> int:
    """A table of what some writes took. Fails when one took too long, or too many messages."""
    began = time.monotonic()
    made = Crowd(nodes, seed).meet()
    print(f"{nodes} nodes met in {time.monotonic() - began:.1f} s of this machine's time")
    print("| write | median | p99 | last | messages a node | bytes a node |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number in range(1, CROWD_WRITES + 1):
        arrived = made.spread()
        made.run(1.0)
        messages, weight = sum(made.said.values()) / nodes, sum(made.weight.values()) / nodes
        times = (arrived[len(arrived) // 2], arrived[len(arrived) * 99 // 100], arrived[-1])
        print("|", number, "|", " | ".join(f"{at:.3f} s" for at in times), f"| {messages:.2f} | {weight:.0f} |")
        for oracle, holds in (("late", times[1] <= LATE_S[nodes > 100]), ("cost", messages <= MESSAGES)):
            if not holds:
                print(f"crowd of {nodes}: {oracle}: write {number}")
                return 1
        made.run(60.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
