"""The pains of replicated stores, each as a story with an end. What happens by chance is in test_sim.py.

Three or four nodes that carry everything, the production core, and no fault but the one that the story is about.
"""

from dataclasses import replace
from math import inf

import pytest

from crdt.fact import Fact
from crdt.hlc import timestamp
from crdt.op import MAX_SEQ, Op
from sync.overlap import RESERVED
from tests.sim.cast import Node, acquainted
from tests.sim.disk import Disk
from tests.sim.faults import START_MS, YEAR_MS, Faults
from tests.sim.workload import Writer
from tests.sim.world import MESH, World, small_batches

PROJECT = "plant-7c1e"
HOUR_OF_1970_MS = 3_600_000


class Story:
    """A world in which nothing happens by itself. Every step lets the nodes talk until all is quiet."""

    def __init__(self, nodes: int = 3, seed: int = 1) -> None:
        self.world = World(seed, Faults(), nodes={})
        rng = self.world.rng
        names = [f"n{place}" for place in range(nodes)]
        made = {name: Node(name, Disk(("*",)), Writer(name, MESH, rng), [], 0) for name in names}
        for a, b in acquainted(made) | {(names[0], name) for name in names[1:]}:
            made[a].knows.append(b)
        self.world = World(seed, Faults(), nodes=made)
        self.world.faults_end = inf
        self.nodes = list(made.values())
        for node in self.nodes:
            self.world.introduce(node)
        self.wait()

    def wait(self, seconds: float = 200.0) -> "Story":
        with small_batches():
            self.world.run_until(self.world.now + seconds)
        return self

    def create(self, node: Node) -> Op:
        return self.world.write(node, node.writer.create(self.world.on_time(node), PROJECT))

    def update(self, node: Node, subject: str) -> Op:
        return self.world.write(node, node.writer.update(self.world.on_time(node), PROJECT, subject))

    def shown(self, node: Node, op: Op) -> Fact:
        fact = self.world.on_time(node).shown(PROJECT)[op.subject]
        assert fact
        return fact

    def end(self, seconds: float = 900.0) -> None:
        """Whatever has happened: in the end all agree, and nothing that was acknowledged is lost."""
        self.wait(seconds)
        assert not self.world.oracle.difference()
        self.world.oracle.check_end(START_MS + round(self.world.now * 1000))


def test_a_poisoned_clock_waits_and_later_writes_live() -> None:
    """An op that claims to have seen all that anybody will ever write: it has no effect, and kills nothing."""
    story = Story()
    honest, other, insider = story.nodes
    fact = story.create(honest)
    story.wait()
    everybody = {node.writer.author for node in story.nodes} - {insider.writer.author}
    poison = story.world.write(insider, insider.writer.poison(insider.disk, PROJECT, everybody))
    assert poison.subject == fact.subject and {seq for _, seq in poison.header.clock} == {MAX_SEQ}
    story.wait()
    for node in (honest, other):
        assert node.disk.has(poison) and poison not in node.disk.in_effect(PROJECT)
        assert story.shown(node, fact).version == fact.hash.hex()
    later = story.update(other, fact.subject)
    story.end()
    assert {story.shown(node, fact).version for node in story.nodes} == {later.hash.hex()}


def test_a_clock_a_year_ahead_wins_nothing() -> None:
    """Its writes are everywhere and held: a concurrent write stands, and so does one that has seen it."""
    story = Story()
    honest, other, ahead = story.nodes
    fact = story.create(honest)
    story.wait()
    ahead.clock_offset_ms = YEAR_MS
    held, stands = story.update(ahead, fact.subject), story.update(honest, fact.subject)
    assert held.timestamp > timestamp(START_MS + YEAR_MS)
    story.wait()
    assert other.disk.has(held) and story.shown(other, fact).version == stands.hash.hex()
    later = story.update(other, fact.subject)
    assert later.timestamp < held.timestamp, "a clock that is ahead drags no other along"
    story.wait()
    assert {story.shown(node, fact).version for node in story.nodes} == {later.hash.hex()}
    ahead.clock_offset_ms = 0
    assert story.create(ahead).timestamp < held.timestamp, "set right, it writes in the present"
    story.end()


def test_a_clock_of_1970_overwrites_nothing_that_it_has_not_seen() -> None:
    """Its writes lose concurrent comparisons and nothing else: what it has seen it may replace."""
    story = Story()
    honest, _, behind = story.nodes
    newcomer = Writer("1970", MESH, story.world.rng)
    behind.writer, behind.disk.last_seq = newcomer, 0
    behind.clock_offset_ms = -START_MS
    behind.disk.clock.last = 0
    story.world.write(behind, newcomer.introduce(story.world.on_time(behind)))
    early = story.create(behind)
    assert early.timestamp < timestamp(HOUR_OF_1970_MS)
    story.wait()
    assert story.shown(honest, early).version == early.hash.hex()
    stands, loses = story.update(honest, early.subject), story.update(behind, early.subject)
    behind_has_seen = story.wait().update(behind, early.subject)
    assert {stands.hash, loses.hash}.isdisjoint({behind_has_seen.hash})
    story.end()
    assert {story.shown(node, early).version for node in story.nodes} == {behind_has_seen.hash.hex()}


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_vector_that_claims_everything_moves_nobodys(seed: int) -> None:
    """Who believed it would never ask again for what the liar doesn't have."""
    story = Story(4, seed)
    liar = story.nodes[-1]
    liar.lies = ("claims everything",)
    story.world.faults = replace(story.world.faults, lies=1.0)
    ops = [story.create(node) for node in story.nodes[:3] for _ in range(8)]
    story.wait(400)
    for node in story.nodes[:3]:
        assert all(node.disk.has(op) for op in ops)
        assert all(seq < MAX_SEQ for seq in node.disk.vector(PROJECT).values())
        assert node.disk.vector(PROJECT) == story.nodes[0].disk.vector(PROJECT)
    story.world.trouble.dismiss(liar)
    story.end()


@pytest.mark.parametrize("seed", range(1, 6))
def test_an_op_that_a_peer_withholds_comes_from_another(seed: int) -> None:
    """The lag that never ends: one op is missing, all later ones lie ahead of the gap."""
    story = Story(4, seed)
    honest, second, third, liar = story.nodes
    liar.lies = ("withholds",)
    story.world.faults = replace(story.world.faults, lies=1.0)
    story.world.blocked |= {(a.name, b.name) for a in (honest, second) for b in (honest, second) if a is not b}
    ops = [story.create(honest) for _ in range(12)]
    story.wait(400)
    assert all(third.disk.has(op) and op in third.disk.chains[PROJECT, op.author] for op in ops)
    story.world.blocked.clear()
    story.wait(400)
    assert all(node.disk.vector(PROJECT) == honest.disk.vector(PROJECT) for node in (second, third))
    story.world.trouble.dismiss(liar)
    story.end()


@pytest.mark.parametrize("noticed", [True, False], ids=["the node knows", "its peers tell it"])
def test_a_restored_backup_goes_on_as_another_author(noticed: bool) -> None:
    """It learns from peers what it has forgotten, and what it wrote before it knew is kept beside that."""
    story = Story()
    victim = story.nodes[1]
    kept = story.create(victim)
    story.wait()
    backup, old_author = (victim.disk.snapshot(), victim.writer.epoch), victim.writer.author
    forgotten = [story.create(victim) for _ in range(5)]
    story.wait()
    story.world.trouble.restore(victim, *backup, noticed)
    assert victim.disk.has(kept) and not any(victim.disk.has(op) for op in forgotten)
    wrote_in_ignorance = story.create(victim)
    story.end()
    assert victim.writer.author != old_author
    assert (wrote_in_ignorance.author == old_author) == (not noticed)
    for node in story.nodes:
        assert all(node.disk.has(op) for op in (kept, *forgotten, wrote_in_ignorance))
    assert story.create(victim).author == victim.writer.author
    story.end()


def test_one_identity_that_runs_twice_forks_shows_and_converges() -> None:
    """A disk was copied, key and all. Both go on; what both wrote stays; each finds out, and takes a new epoch."""
    story = Story(4)
    first, _, _, copy = story.nodes
    story.create(first)
    story.wait()
    copy.disk.restore(first.disk.snapshot())
    copy.writer.node_key, copy.writer._secret_key = first.writer.node_key, first.writer._secret_key
    copy.writer.epoch = first.writer.epoch
    shared = first.writer.author
    both = [story.create(first), story.create(copy)]
    assert {op.author for op in both} == {shared} and len({op.header.prev_hash for op in both}) == 1
    story.wait(400)
    both += [story.create(first), story.create(copy)]
    story.end()
    for node in story.nodes:
        assert all(op in node.disk.known[PROJECT].values() for op in both), "a fork is kept, both sides of it"
        epochs = {author for project, author in node.disk.chains if project == PROJECT}
        assert {op.author for op in both} <= epochs, "one key, several epochs in use: status names it"
    assert len({shared, first.writer.author, copy.writer.author}) == 3
    assert first.disk.root(RESERVED) == copy.disk.root(RESERVED)
