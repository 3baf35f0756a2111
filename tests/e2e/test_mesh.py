"""Three nodes on a network of their own: found by mDNS alone, parted, moved, shaken, killed, and the same at the end.

Each machine is a network namespace with real multicast (tests/e2e/lan.py). Nobody is told an address: the
list of peers that `join` writes is overruled by an empty one.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bench.local_nodes import LocalNode, agree, enrol, found, wait_until
from tests.e2e.lan import Cable, Lan, Machine, usable
from tests.e2e.pairs import ops_on_disk

pytestmark = pytest.mark.skipif(bool(usable()), reason=usable() or "namespaces can be used")

FOUND_S = 15.0
"""From a change of the network until all are connected: 2 polls, mDNS, a handshake; the rest is a busy machine."""
AGREE_S = 60.0
BACKLOG = 2_000
SLOW_BYTES_PER_S = 60_000
"""The backlog takes ten seconds of it."""
FRESH_S = 5.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Machine, LocalNode]]]:
    """Three running nodes by name, each with its machine."""
    place = tmp_path_factory.mktemp("mesh")
    settings = {"listen": "0.0.0.0:7400", "peers": ""}
    with ExitStack() as ends:
        lan = ends.enter_context(Lan())
        machines = {name: lan.machine(name) for name in ("alpha", "beta", "gamma")}
        first = found(place / "alpha", "alpha", machines["alpha"].program, **settings)
        nodes = {"alpha": ends.enter_context(first).start()}
        for name in ("beta", "gamma"):
            node = enrol(place / name, name, first, (), machines[name].program, **settings)
            nodes[name] = ends.enter_context(node).start()
        yield {name: (machines[name], nodes[name]) for name in nodes}


Mesh = dict[str, tuple[Machine, LocalNode]]


def nodes(mesh: Mesh) -> list[LocalNode]:
    return [node for _, node in mesh.values()]


def peers(node: LocalNode) -> set[str]:
    """The names of those with whom a connection stands."""
    return {peer["name"] for peer in node.status()["peers"] if peer["state"] == "connected"}


def all_connected(mesh: Mesh, timeout_s: float = FOUND_S) -> None:
    for name, (_, node) in mesh.items():
        others = set(mesh) - {name}
        wait_until(f"{name} is connected with all", lambda n=node, o=others: peers(n) == o, timeout_s)


def all_agree(mesh: Mesh) -> None:
    wait_until("all have the same ops", lambda: agree(*nodes(mesh)), AGREE_S)
    facts = nodes(mesh)[0].facts()
    assert all(node.facts() == facts for node in nodes(mesh))


@contextmanager
def cabled(mesh: Mesh, cable: Cable, *names: str) -> Iterator[None]:
    """With bad cables at these machines."""
    for name in names:
        mesh[name][0].cable = cable
    try:
        yield
    finally:
        for name in names:
            mesh[name][0].cable = Cable()


def test_three_nodes_find_each_other_by_mdns_alone(mesh: Mesh) -> None:
    all_connected(mesh)
    for _, node in mesh.values():
        [fact] = node.store(f"{node.name} is here")
        for other in nodes(mesh):
            wait_until(f"{other.name} has it", lambda o=other, f=fact: f["id"] in o.facts(), 5)
    all_agree(mesh)
    for node in nodes(mesh):
        wait_until("nobody lags", lambda n=node: not any(lags(n)), 40)


def lags(node: LocalNode) -> list[int]:
    """Every lag that a node tells of, in ops. Each that is not zero has a reason."""
    told = node.status()["peers"]
    assert all(peer["reason"] for peer in told if peer["ahead"]["ops"] or peer["behind"]["ops"])
    return [peer[way]["ops"] for peer in told for way in ("ahead", "behind")]


def test_each_node_signs_its_addresses(mesh: Mesh) -> None:
    all_connected(mesh)
    all_agree(mesh)
    told = {node.name: node.knowledge()["_mesh"] for node in nodes(mesh)}
    assert len(set(told.values())) == 1
    status = nodes(mesh)[0].status()
    assert not [one for one in status["warnings"] if one["code"] == "mdns"]


def test_a_partition_with_writes_on_both_sides_heals(mesh: Mesh) -> None:
    all_connected(mesh)
    machine, gamma = mesh["gamma"]
    machine.unplug()
    wait_until("gamma is alone", lambda: not peers(gamma), FOUND_S)
    [peer] = [one for one in gamma.status()["peers"] if one["name"] == "alpha"]
    assert (peer["state"], peer["reason"]) == ("offline", "offline")
    for node in nodes(mesh):
        node.store(*(f"{node.name} notes {number} in the dark" for number in range(50)))
    wait_until("the other two agree", lambda: agree(mesh["alpha"][1], mesh["beta"][1]))
    [peer] = [one for one in gamma.status()["peers"] if one["name"] == "beta"]
    assert peer["ahead"]["ops"] >= 50, "what was on its way when the cable was pulled counts too"
    machine.plug()
    all_connected(mesh)
    all_agree(mesh)


def test_a_node_with_a_new_address_is_found_again(mesh: Mesh) -> None:
    all_connected(mesh)
    machine, beta = mesh["beta"]
    machine.move("10.77.0.99")
    alpha = mesh["alpha"][1]
    wait_until("beta is there at its new address", lambda: "10.77.0.99" in addresses(alpha, "beta"), FOUND_S)
    all_connected(mesh)
    beta.store("written at the new address")
    all_agree(mesh)


def addresses(node: LocalNode, name: str) -> str:
    """Where its peer `name` is connected from, or was reached."""
    return " ".join(
        str(peer["address"]) for peer in node.status()["peers"] if peer["name"] == name and peer["state"] == "connected"
    )


def test_loss_delay_and_reordering_only_delay(mesh: Mesh) -> None:
    all_connected(mesh)
    with cabled(mesh, Cable(loss=0.02, delay_s=0.02, jitter_s=0.02), *mesh):
        for node in nodes(mesh):
            node.store(*(f"{node.name} writes {number} over a bad line" for number in range(100)))
        all_agree(mesh)


def test_a_backlog_on_a_slow_line_does_not_delay_a_fresh_write(mesh: Mesh) -> None:
    all_connected(mesh)
    all_agree(mesh)
    alpha, gamma = mesh["alpha"][1], mesh["gamma"][1]
    chance = random.Random(4)
    with cabled(mesh, Cable(bytes_per_s=SLOW_BYTES_PER_S), "gamma"):
        for _ in range(BACKLOG // 500):
            alpha.store(*({"content": chance.randbytes(150).hex(), "project": "bulk"} for _ in range(500)))
        [fresh] = alpha.store("the pump has stopped")
        wait_until("the fresh write is on gamma", lambda: fresh["id"] in gamma.facts(), FRESH_S)
        assert len(gamma.facts()) < len(alpha.facts()), "it was to overtake the backlog"
    all_agree(mesh)


def test_a_kill_in_the_middle_of_a_sync_loses_nothing(mesh: Mesh) -> None:
    all_connected(mesh)
    _, gamma = mesh["gamma"]
    _, alpha = mesh["alpha"]
    gamma.stop()
    chance = random.Random(3)
    for _ in range(BACKLOG // 500):
        alpha.store(*({"content": chance.randbytes(150).hex(), "project": "bulk"} for _ in range(500)))
    before = len(ops_on_disk(gamma.home.database))
    for _ in range(3):
        gamma.launch()
        wait_until("some of it has come", lambda b=before: len(ops_on_disk(gamma.home.database)) > b, AGREE_S)
        gamma.kill()
        before = len(ops_on_disk(gamma.home.database))
    assert before < len(ops_on_disk(alpha.home.database)), "it was to be killed in the middle"
    gamma.start()
    all_connected(mesh)
    all_agree(mesh)
    ops = ops_on_disk(gamma.home.database)
    assert len({(author, seq) for author, seq, _ in ops}) == len(ops)
