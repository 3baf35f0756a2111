"""How often does reputation decide, and how often wrongly, when agents lie, guess, turn, collude or multiply?

    python bench/reputation.py [--facts 1000] [--seed 1]

Twenty agents on ten machines vote on facts of which half are true; eight of them, drawn anew, vote on each fact, in any
order. Who is honest is right 80 to 90 % of the time. Four scores judge the same votes at the end:

* reputation: ledger.score, the fold that every node computes; decided is `verified` or `disputed`;
* linear: 1 + 0.1 a vote, the first score of the earlier system, decided as there: from 1.5 up and from 0.5 down;
* mean: 1 + the mean of the votes, its second one, where all weigh the same for ever; decided at the same marks;
* majority: the sign of both, decided unless it is 0.

`wrong` is the share of the facts that are decided against the truth. Where only some are attacked, it counts those.
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from ledger import score, vote
from ledger.agents import Agent
from ledger.entry import NO_HASH, Entry, Kind, text_hash
from ledger.score import Fold, Key, Trust
from ledger.vote import Vote

AGENTS, MACHINES, VOTERS = 20, 10, 8
MESH, TAG, REASON = bytes(32), b"t" * 32, sha256().digest()


def key_of(name: object) -> bytes:
    return sha256(str(name).encode()).digest()


@dataclass
class World:
    """One run: a fold, and who votes how. `attacked`: the facts that count; all, if it stays empty."""

    chance: random.Random
    facts: int
    fold: Fold = field(default_factory=lambda: Fold(bytes(32), mesh=MESH))
    votes: dict[int, list[int]] = field(default_factory=dict)
    truth: dict[int, int] = field(default_factory=dict)
    attacked: set[int] = field(default_factory=set)
    index: int = 1

    def enrol(self, name: object, machine: object) -> None:
        known = key_of(name)
        self.fold.agents.known[known] = Agent(known, known, str(name), key_of(f"machine {machine}"), False, 0)

    def cast(self, name: object, fact: int, value: int) -> None:
        said = Vote(MESH, "p", str(fact), key_of(fact), key_of(name), 1, value, REASON, 0)
        text = vote.attach(said, bytes(64))  # signatures are not what this is about
        line = Entry(Kind.VOTE, False, self.index, 1, 0, NO_HASH, 0, TAG, text_hash(text))
        self.fold.apply(line, text, checked=True)
        self.votes.setdefault(fact, []).append(value)
        self.index += 1

    def accuracy(self, name: int) -> float:
        return 0.8 + 0.1 * (name % 11) / 10


Behaviour = Callable[[World, int, int], float]
"""How likely the agent (second) is to be right about the fact (third)."""


def honest(world: World, agent: int, fact: int) -> float:
    return world.accuracy(agent)


def liars(world: World, agent: int, fact: int) -> float:
    return 0.1 if agent < 6 else honest(world, agent, fact)


def coins(world: World, agent: int, fact: int) -> float:
    return 0.5 if agent < 6 else honest(world, agent, fact)


def turning(world: World, agent: int, fact: int) -> float:
    """A third is honest for the first half, and then lies."""
    return 0.1 if agent < 6 and fact > world.facts // 2 else honest(world, agent, fact)


def colluders(world: World, agent: int, fact: int) -> float:
    """Five agents on three machines are honest, except about every tenth fact."""
    if fact % 10 == 0 and fact > world.facts // 4:
        world.attacked.add(fact)
        return 0.0 if agent in (0, 1, 2, 10, 11) else honest(world, agent, fact)
    return honest(world, agent, fact)


def late(world: World, agent: int, fact: int) -> float:
    """Half of the agents are liars who come after a quarter of the facts."""
    if agent >= 10:
        if fact <= world.facts // 4:
            return -1.0  # not here yet
        return 0.1 if agent < 16 else honest(world, agent, fact)
    return honest(world, agent, fact)


SYBILS = 300


def run(behave: Behaviour, facts: int, seed: int, sybils: bool = False) -> World:
    world = World(random.Random(seed), facts)
    for agent in range(AGENTS):
        world.enrol(agent, agent % MACHINES)
    if sybils:
        for number in range(SYBILS):
            world.enrol(f"sybil {number}", "of sybils")
    for fact in range(1, facts + 1):
        truth = world.truth[fact] = world.chance.choice((1, -1))
        if sybils and fact % 10 == 0:
            world.attacked.add(fact)
            for number in range(SYBILS):
                world.cast(f"sybil {number}", fact, -truth)
        for agent in world.chance.sample(range(AGENTS), VOTERS):
            likely = behave(world, agent, fact)
            if likely >= 0:
                world.cast(agent, fact, truth if world.chance.random() < likely else -truth)
    return world


def by_reputation(world: World, fact: int) -> int:
    trust = world.fold.verdict(Key("p", str(fact), key_of(fact))).trust
    return {Trust.VERIFIED: 1, Trust.DISPUTED: -1}.get(trust, 0)


def by_linear(world: World, fact: int) -> int:
    said = score.linear_score(world.votes[fact])
    return (said >= 1_500) - (said <= 500)


def by_mean(world: World, fact: int) -> int:
    mean = sum(world.votes[fact]) / len(world.votes[fact])
    return (mean >= 0.5) - (mean <= -0.5)


def by_majority(world: World, fact: int) -> int:
    said = sum(world.votes[fact])
    return (said > 0) - (said < 0)


def judged(world: World, decide: Callable[[World, int], int]) -> str:
    counted = sorted(world.attacked or world.truth)
    decisions = [(decide(world, fact), world.truth[fact]) for fact in counted]
    decided = sum(said != 0 for said, _ in decisions) / len(counted)
    wrong = sum(said == -truth for said, truth in decisions) / len(counted)
    return f"{decided:.1%} | {wrong:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    scenarios: list[tuple[str, Behaviour, bool]] = [
        ("honest", honest, False),
        ("30 % liars", liars, False),
        ("30 % toss a coin", coins, False),
        ("30 % turn to lying half-way", turning, False),
        ("5 agents of 3 machines collude (attacked facts)", colluders, False),
        (f"{SYBILS} fresh agents on one machine (attacked facts)", honest, True),
        ("half join late, most of them liars", late, False),
    ]
    judges = {"reputation": by_reputation, "linear": by_linear, "mean": by_mean, "majority": by_majority}
    print("| | " + " | ".join(f"{name}: decided | wrong" for name in judges) + " |")
    print("| --- |" + " ---: |" * 2 * len(judges))
    for name, behave, sybils in scenarios:
        world = run(behave, options.facts, options.seed, sybils)
        print(
            f"| {name} | " + " | ".join(judged(world, how) for how in judges.values()) + " |",
            flush=True,
        )
    print(f"\n`python bench/reputation.py --facts {options.facts} --seed {options.seed}`")


if __name__ == "__main__":
    main()
