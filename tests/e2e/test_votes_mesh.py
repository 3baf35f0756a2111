"""Votes in a mesh whose nodes don't all carry the same: who shows what, and who learns of what.

    full --- hub --- part --- leaf         hub and full carry everything. part's certificate grants one project;
              |                            half's configuration names it. leaf carries all that it can get, and
             half                          reaches nobody but part.

Who reaches whom is fixed: the addresses that nodes tell each other are those of lines that are cut.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.local_nodes import LOOPBACK, Line, LocalNode, enrol, found, free_port, wait_until
from node.errors import EXIT_BUSY, EXIT_FAILED

SHARED, SECRET = "factory-7", "secret-laboratory"
NOTES = 4
SETTLE_S = 30.0


@dataclass(frozen=True)
class Mesh:
    """The nodes, and the ids of the facts in the project that all carry and in the one that only two do."""

    hub: LocalNode
    full: LocalNode
    part: LocalNode
    half: LocalNode
    leaf: LocalNode
    shared: list[str]
    secret: list[str]

    @property
    def nodes(self) -> tuple[LocalNode, ...]:
        return self.hub, self.full, self.part, self.half, self.leaf

    @property
    def partial(self) -> tuple[LocalNode, ...]:
        return self.part, self.half, self.leaf


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """All running, and every vote that can be is committed."""
    place = tmp_path_factory.mktemp("mesh")
    with ExitStack() as ends:
        line = ends.enter_context(Line())
        hub = ends.enter_context(found(place / "hub", "hub", advertise=line.address, mdns="false"))
        line.target = hub.start().port

        def joined(name: str, peer: LocalNode, invite: tuple[str, ...] = (), **settings: str) -> LocalNode:
            nowhere = f"{LOOPBACK}:{free_port()}"
            settings |= {"mdns": "false", "peers": peer.address, "advertise": nowhere}
            return ends.enter_context(enrol(place / name, name, hub, invite, **settings)).start()

        full = joined("full", hub)
        part = joined("part", hub, ("--project", SHARED))
        half = joined("half", hub, projects=SHARED)
        leaf = joined("leaf", part)
        line.cut()
        shared, secret = (
            [fact["id"] for fact in hub.store(*({"content": f"{name}: {n}", "project": name} for n in range(NOTES)))]
            for name in (SHARED, SECRET)
        )
        whole = Mesh(hub, full, part, half, leaf, shared, secret)
        for node in whole.nodes:
            wait_until(f"{node.name} has the facts", lambda n=node: n.client.call("GET", f"/v1/facts/{shared[-1]}"))  # type: ignore[misc]
            for number, fact in enumerate(shared[1:]):
                vote(node, fact, -1 if number == 0 and node in whole.partial else 1)
        wait_until("full has the others", lambda: full.client.call("GET", f"/v1/facts/{secret[-1]}"))
        for node, fact in ((hub, secret[0]), (full, secret[0]), (full, secret[1])):
            vote(node, fact)
        wait_until("nothing is pending", lambda: not any(node.status()["votes_pending"] for node in whole.nodes))
        size = ledger(hub)["size"]
        wait_until("all know", lambda: all(ledger(n)["size"] == size for n in whole.nodes), SETTLE_S)
        wait_until("all have theirs", lambda: all(entries(n) == entries(n) | mine(hub) for n in whole.nodes), SETTLE_S)
        yield whole


def vote(node: LocalNode, fact_id: str, value: int = 1) -> Any:
    return node.client.call("POST", f"/v1/facts/{fact_id}/vote", {"value": value})


def ledger(node: LocalNode) -> Any:
    return node.client.call("GET", "/v1/ledger/status", query={"read": "local"})


def entries(node: LocalNode) -> dict[int, bytes]:
    """Index and bytes of each entry that a node has."""
    with closing(sqlite3.connect(f"{node.home.database.as_uri()}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT id, raw FROM ledger_entries"))


def mine(hub: LocalNode, secret: bool = False) -> dict[int, bytes]:
    """The entries that whoever carries SHARED must have, or else the votes on the rest."""
    query = f"SELECT id, raw FROM ledger_entries WHERE (instr(text, '{SECRET}') > 0) = ?"
    with closing(sqlite3.connect(f"{hub.home.database.as_uri()}?mode=ro", uri=True)) as connection:
        return dict(connection.execute(query, (secret,)))


def judged(node: LocalNode, fact_id: str) -> Any:
    fact = node.client.call("GET", f"/v1/facts/{fact_id}")
    votes = node.client.call("GET", f"/v1/facts/{fact_id}/votes")["votes"]
    return [fact[key] for key in ("trust", "score", "score_provisional", "votes", "last_vote_at")], votes


def test_all_show_the_same_for_what_they_carry(mesh: Mesh) -> None:
    for fact in mesh.shared:
        wait_until("all judge alike", lambda f=fact: all(judged(n, f) == judged(mesh.hub, f) for n in mesh.nodes))  # type: ignore[misc]
    expected = ["unsettled", "contested", "verified", "verified"]
    assert [judged(mesh.leaf, fact)[0][0] for fact in mesh.shared] == expected
    assert judged(mesh.full, mesh.secret[0]) == judged(mesh.hub, mesh.secret[0])
    assert judged(mesh.full, mesh.secret[0])[0][0] == "verified"


def test_a_node_has_the_entries_of_what_it_carries_and_no_others(mesh: Mesh) -> None:
    assert entries(mesh.full) == entries(mesh.hub)
    assert ledger(mesh.full)["whole"]
    assert len(mine(mesh.hub, secret=True)) == 3
    for node in mesh.partial:
        assert entries(node) == mine(mesh.hub)
        assert not ledger(node)["whole"]
        assert ledger(node)["root"] == ledger(mesh.hub)["root"]
        assert "3 of them not on this node" in node.run("status").stdout


@pytest.mark.parametrize("name", ["part", "half", "leaf"])
def test_what_it_has_it_can_prove(mesh: Mesh, tmp_path: Path, name: str) -> None:
    node: LocalNode = getattr(mesh, name)
    report = node.tell("ledger", "verify")
    assert report["ok"] and not report["whole"] and report["checked"] == len(mine(mesh.hub)), report
    receipt, (first, *_) = tmp_path / "receipt", sorted(mine(mesh.hub, secret=True))
    node.tell("ledger", "proof", str(first - 1), "--local", "--out", str(receipt))
    for judge in (node, mesh.hub):
        assert judge.tell("ledger", "verify", str(receipt))["ok"]
    missing = node.run("ledger", "proof", str(first), "--local")
    assert missing.returncode == EXIT_FAILED
    assert "carry their project" in missing.stderr
    refused = node.run("ledger", "export", str(tmp_path / "export"))
    assert refused.returncode == EXIT_FAILED
    assert "export on a hub" in refused.stderr
    assert not (tmp_path / "export").exists()


def test_who_has_everything_exports_it(mesh: Mesh, tmp_path: Path) -> None:
    assert mesh.full.run("ledger", "export", str(tmp_path / "export")).returncode == 0
    assert mesh.part.tell("ledger", "verify", str(tmp_path / "export"))["size"] == ledger(mesh.hub)["size"]


def test_a_hub_is_asked_where_one_is_reached(mesh: Mesh) -> None:
    for node in (mesh.full, mesh.part, mesh.half):
        assert node.tell("ledger", "status")["hub"] == ledger(mesh.hub)["leader"]
        listed = node.tell("ledger", "entries")["entries"]
        assert [one["index"] for one in listed] == sorted(entries(mesh.hub))
    away = mesh.leaf.run("ledger", "status")
    assert away.returncode == EXIT_BUSY, away.stdout + away.stderr
    assert "--local" in away.stderr
    assert mesh.leaf.tell("ledger", "status", "--local")["size"] == ledger(mesh.hub)["size"]


def test_nobody_learns_of_a_project_that_it_may_not_have(mesh: Mesh) -> None:
    secrets = [SECRET, *mesh.secret]
    told = mesh.part.tell("ledger", "entries")
    assert not [word for word in secrets if word in json.dumps(told)]
    for node in (mesh.part, mesh.leaf):
        held = b"".join(path.read_bytes() for path in node.home.path.glob("*.db*")) + node.read_log().encode()
        assert SHARED.encode() in held
        assert not [word for word in secrets if word.encode() in held], node.name


def test_a_vote_that_no_one_on_the_way_carries_waits_for_a_way(mesh: Mesh) -> None:
    fact = mesh.leaf.store({"content": "only here", "project": "attic"})[0]["id"]
    assert vote(mesh.leaf, fact)["state"] == "pending"
    wait_until("the other went through", lambda: vote(mesh.leaf, mesh.shared[0])["state"] == "committed")
    assert mesh.leaf.status()["votes_pending"] == 1
    assert "votes 1 pending" in mesh.leaf.run("status").stdout
    mesh.leaf.client.call("POST", "/v1/peers", {"address": mesh.hub.address})
    wait_until("it is committed", lambda: vote(mesh.leaf, fact)["state"] == "committed", SETTLE_S)
    wait_until("leaf has everything now", lambda: entries(mesh.leaf) == entries(mesh.hub), SETTLE_S)
    assert mesh.leaf.tell("ledger", "verify")["whole"]
