"""Run worlds by seed, and say how to repeat the one that broke a promise.

tests/sim/run.py --seed 7             one world, every event printed
tests/sim/run.py --seed 1 --seeds 500 that many worlds, from seed 1 on
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.sim.oracle import Violation
from tests.sim.world import World


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        try:
            World(seed, trace=print if arguments.seeds == 1 else None).run()
        except Violation as violation:
            print(f"seed {seed}: {violation}\nrepeat it: make sim SEED={seed}")
            return 1
    print(f"{arguments.seeds} seeds, every promise kept, {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
