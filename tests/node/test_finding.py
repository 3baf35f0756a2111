"""A node signs where it is when that has changed, and tries members where they said they are."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node import addresses, app, clock, config, identity, interfaces
from node.app import Node
from node.paths import Home

LAN = {"eth0": ("10.0.0.5", "fe80::1")}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    app.found(tmp_path / "home", "founder")
    me = identity.load(Home(tmp_path / "home"))
    settings = config.load(me.home, {}, {"listen": "127.0.0.1:0", "api": "127.0.0.1:0", "mdns": False})
    running = Node(me, settings)
    await running.start()
    yield running
    await running.stop()


def told(node: Node) -> tuple[str, ...]:
    return addresses.told(node.me.node_id, node.finding._about(node.database.direct, node.me.node_id))


async def test_a_node_on_loopback_signs_nothing(node: Node) -> None:
    await node.finding._publish()
    assert told(node) == ()


async def test_addresses_are_signed_once_and_again_when_they_change(node: Node) -> None:
    finding = node.finding
    finding._seen, finding._port = LAN, 7400
    await finding._publish()
    assert told(node) == ("10.0.0.5:7400",)
    ops = node.database.direct.execute("SELECT count(*) FROM ops").fetchone()
    finding._written_ms = 0
    await finding._publish()
    assert node.database.direct.execute("SELECT count(*) FROM ops").fetchone() == ops, "nothing has changed"
    finding._seen = {"eth0": ("10.0.0.6",)}
    finding._written_ms = clock.now_ms()
    await finding._publish()
    assert told(node) == ("10.0.0.5:7400",), "not so soon"
    finding._written_ms = 0
    await finding._publish()
    assert told(node) == ("10.0.0.6:7400",)
    finding._seen, finding._written_ms = {}, 0
    await finding._publish()
    assert told(node) == ("10.0.0.6:7400",), "a machine without a network says nothing"


async def test_members_are_tried_where_they_say_that_they_are(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = node.finding
    heard: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(node.network, "heard", lambda node, places: heard.append((node, tuple(places))))
    finding._seen, finding._port = LAN, 7400
    await finding._publish()
    await finding._seek()
    assert heard == [], "not ourselves"
    await node.database.write(
        lambda c: c.execute("UPDATE members SET node = 'other' WHERE node = ?", (node.me.node_id,))
    )
    await finding._seek()
    assert [name for name, _ in heard] == ["other"]


async def test_a_change_of_addresses_ends_dead_connections_and_looks_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[frozenset[str]] = []
    monkeypatch.setattr(node.network, "moved", moved.append)
    monkeypatch.setattr(interfaces, "local", lambda: frozenset({"10.0.0.6"}))
    node.finding._changed({"eth0": ("10.0.0.6",)})
    assert moved == [frozenset({"10.0.0.6"})]
    assert node.finding._again.is_set()
