"""Hundreds of worlds, each with its own faults: every promise is kept in all of them. See tests/sim/README.md."""

from pathlib import Path

import pytest

from tests.sim.faults import Faults
from tests.sim.oracle import Violation
from tests.sim.planted import FAULTS, Fault, plant
from tests.sim.world import FAULTS_S, World

CHUNK = 10
WORST = {
    "cut_s": 5.0,
    "partition_s": 20.0,
    "one_way_s": 20.0,
    "clog_s": 10.0,
    "slow": 1.0,
    "crash_s": 15.0,
    "full_s": 20.0,
    "clock_s": 15.0,
    "restore_s": 20.0,
    "leave_s": 60.0,
    "lies": 1.0,
}


def run(seeds: range, faults: Faults | None = None) -> None:
    for seed in seeds:
        try:
            World(seed, faults).run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}\nrepeat it: make sim SEED={seed}", pytrace=False)


@pytest.mark.parametrize("first", range(1, 201, CHUNK))
def test_two_hundred_worlds(first: int) -> None:
    run(range(first, first + CHUNK))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(201, 1001, 5 * CHUNK))
def test_a_thousand_worlds(first: int) -> None:
    run(range(first, first + 5 * CHUNK))


@pytest.mark.parametrize("kind", list(Faults.__slots__))
def test_each_kind_of_fault_alone_and_at_its_worst(kind: str) -> None:
    run(range(1, 4), Faults(**{kind: WORST.get(kind, 0.15)}))


def test_without_faults_a_write_is_everywhere_within_seconds() -> None:
    for seed in range(1, 11):
        world = World(seed, Faults())
        world.run()
        assert world.agreed_at <= FAULTS_S + 5, f"seed {seed}"


def test_a_seed_decides_everything() -> None:
    def trace(seed: int) -> list[str]:
        lines: list[str] = []
        World(seed, trace=lines.append).run()
        return lines

    assert trace(7) == trace(7)
    assert trace(7) != trace(8)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    oracle, said = plant(fault, tmp_path)
    assert oracle in fault.oracles, said


def test_the_list_of_planted_faults_is_complete() -> None:
    readme = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    assert [fault.name for fault in FAULTS if f"| {fault.name} |" not in readme] == []
