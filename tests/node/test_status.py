"""What `status` says of a node."""

import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node import app, clock, config, identity
from node import status as reporting
from node.app import Node
from node.paths import Home
from node.requests import FactDraft
from tests.node.world import Forger


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    app.found(tmp_path / "home", "founder")
    me = identity.load(Home(tmp_path / "home"))
    running = Node(
        me, config.load(me.home, {}, {"listen": "127.0.0.1:0", "api": "127.0.0.1:0", "memory_max_mb": 4_096})
    )
    await running.start()
    yield running
    await running.stop()


async def test_it_names_the_node_its_projects_and_roots(node: Node) -> None:
    await node.replica.store_facts([FactDraft(content="one", project="p"), FactDraft(content="two", project="p")])
    status = await node.status()
    assert status["node"]["id"] == node.me.node_id
    project = next(project for project in status["projects"] if project["name"] == "p")
    assert project["facts"] == 2
    assert project["root"] == node.store.root("p").hex()
    assert status["resources"]["rss_bytes"] > 1 << 20
    assert status["warnings"] == []


async def test_a_store_that_is_nearly_full_is_a_warning(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "STORE_WARN_SHARE", 0.0)
    assert [warning["code"] for warning in (await node.status())["warnings"]] == ["store_nearly_full"]


async def test_metrics_follow_the_store(node: Node) -> None:
    def ops() -> int:
        found = re.search(r'cortex_ops_total{kind="local"} (\d+)', node.metrics.text())
        return int(found[1]) if found else 0

    before = ops()
    await node.replica.store_facts([FactDraft(content=f"counted {number}") for number in range(100)])
    await node.refresh_metrics()
    assert "cortex_facts 100\n" in node.metrics.text()
    assert 100 <= ops() - before < 120, "and what the ledger has told meanwhile"


def test_own_addresses_prefer_what_others_can_reach() -> None:
    addresses = reporting.own_addresses()
    assert addresses
    assert addresses == ["127.0.0.1"] or not any(address.startswith(("127.", "::1", "fe80")) for address in addresses)


async def test_a_project_that_is_not_carried_is_kept_and_named(tmp_path: Path) -> None:
    app.found(tmp_path / "home", "founder")
    me = identity.load(Home(tmp_path / "home"))
    flags = {"listen": "127.0.0.1:0", "api": "127.0.0.1:0", "memory_max_mb": 4_096}
    for projects in (("*",), ("team/*",)):
        running = Node(me, config.load(me.home, {}, flags | {"projects": projects}))
        await running.start()
        await running.replica.store_facts([FactDraft(content="kept", project=name) for name in ("diary", "team/a")])
        status = await running.status()
        await running.stop()
    carried = {project["name"]: project["carried"] for project in status["projects"]}
    assert carried == {"_mesh": True, "diary": False, "team/a": True}
    assert [warning["code"] for warning in status["warnings"]] == ["not_carried"]
    assert next(project for project in status["projects"] if project["name"] == "diary")["facts"] == 2


async def test_ops_from_a_clock_far_ahead_are_counted_and_their_author_is_named(node: Node) -> None:
    stranger = Forger(2)
    mesh = node.me.mesh_id
    late = stranger.op(1, timestamp=(clock.now_ms() + 3_600_000) << 16, mesh=mesh)

    def job(connection: sqlite3.Connection) -> None:
        node.store._members.add(stranger.key)
        node.store.merge(connection, [late], clock.now_ms())

    await node.database.write(job)
    status = await node.status()
    assert status["clock"]["held_ops"] == 1
    [culprit] = status["clock"]["culprits"]
    assert (culprit["node"], culprit["ops"]) == (stranger.node_id, 1)
    await node.refresh_metrics()
    assert "cortex_clock_held_ops 1\n" in node.metrics.text()
