"""What a node knows of its peers, and says about them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from crdt.fact import given
from crdt.op import Op
from node import app, config, enrol, identity
from node.app import Node
from node.clock import now_ms
from node.errors import Problem
from node.identity import Identity
from node.paths import Home
from node.requests import FactDraft
from sync.ready import ClockSeen, Notice, RoundEnded

LOCAL = {"listen": "127.0.0.1:0", "api": "127.0.0.1:0"}
Until = Callable[[Node, Callable[[], bool]], Awaitable[None]]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes of one mesh that have not met."""
    app.found(tmp_path / "one", "one")
    one = await running(identity.load(Home(tmp_path / "one")))
    code = (await one.invite("member", ["*"], 600))["code"]
    await enrol.join(Home(tmp_path / "two"), code, "two", now_ms())
    two = await running(identity.load(Home(tmp_path / "two")))
    yield one, two
    await two.stop()
    await one.stop()


async def running(me: Identity) -> Node:
    node = Node(me, config.load(me.home, {}, LOCAL))
    await node.start()
    return node


async def met(node: Node, address: str) -> None:
    """Add a peer and wait for the first round."""
    ended = asyncio.Event()
    tell = node.network._driver._around.notify

    def hear(notice: Notice) -> None:
        tell(notice)
        if isinstance(notice, RoundEnded):
            ended.set()

    object.__setattr__(node.network._driver._around, "notify", hear)
    await node.add_peer(address)
    async with asyncio.timeout(20):
        await ended.wait()


async def test_a_peer_that_was_met_is_connected_and_remembered(pair: tuple[Node, Node]) -> None:
    one, two = pair
    await met(two, one.bound["listen"])
    [peer] = await two.network.status()
    assert (peer["id"], peer["name"], peer["state"], peer["reason"]) == (one.me.node_id, "one", "connected", None)
    assert peer["synced_at"] is not None
    assert peer["bytes_in"] > 0
    assert two.network.freshness()["synced_at"] is not None
    await two.network.stop()
    assert (await two.network.status())[0]["state"] == "offline"
    assert (await two.network.status())[0]["reason"] == "offline"
    assert [known.node for known in two.book.addresses()] == [one.me.node_id]


async def test_sync_now_says_what_moved(pair: tuple[Node, Node]) -> None:
    one, two = pair
    await met(two, one.bound["listen"])
    [round_] = (await two.sync_now(None))["rounds"]
    assert round_["peer"] == one.me.node_id
    assert round_["result"] in ("same", "moved")
    assert (await two.sync_now("one"))["rounds"]
    await one.replica.store_facts([FactDraft(content="new")])
    assert (await two.sync_now(one.me.node_id))["rounds"]
    assert two.store.root("default") == one.store.root("default")


async def test_who_asks_to_hears_of_ops_and_rounds(pair: tuple[Node, Node]) -> None:
    one, two = pair
    ops: dict[str | None, list[Op]] = {}
    rounds: list[str] = []
    two.network.on_ops = lambda fresh, peer: ops.setdefault(peer, []).extend(fresh)
    two.network.on_round = lambda peer, ended: rounds.append(peer.node)
    await one.replica.store_facts([FactDraft(content="theirs")])
    await met(two, one.bound["listen"])
    await two.replica.store_facts([FactDraft(content="ours")])
    assert rounds[0] == one.me.node_id
    assert [given(op)["content"] for op in ops[None] if op.project == "default"] == ["ours"], "beside what it cosigns"
    assert "theirs" in [given(op).get("content") for op in ops[one.me.node_id]]


async def test_sync_with_somebody_who_is_not_connected_is_refused(pair: tuple[Node, Node]) -> None:
    one, _ = pair
    with pytest.raises(Problem) as refused:
        await one.sync_now("nobody")
    assert refused.value.status == 503
    assert await one.sync_now(None) == {"rounds": []}


async def test_an_address_where_nobody_answers_is_a_warning(pair: tuple[Node, Node]) -> None:
    one, _ = pair
    tried = asyncio.Event()
    tell = one.network._driver._around.unreachable

    def hear(address: str, why: str) -> None:
        tell(address, why)
        tried.set()

    object.__setattr__(one.network._driver._around, "unreachable", hear)
    await one.add_peer("127.0.0.1:1")
    async with asyncio.timeout(20):
        await tried.wait()
    [warning] = one.network.warnings()
    assert warning["code"] == "unreachable"
    assert "127.0.0.1:1" in warning["text"]
    assert "object at" not in warning["text"]
    await one.remove_peer("127.0.0.1:1")
    assert one.network.warnings() == []


async def test_a_clock_that_is_wrong_is_a_warning(pair: tuple[Node, Node]) -> None:
    one, two = pair
    await met(two, one.bound["listen"])
    two.network._notify(ClockSeen(one.me.node_id, ahead_ms=3_600_000))
    [warning] = two.network.warnings()
    assert warning["code"] == "clock"
    assert "3600 s ahead" in warning["text"]


@pytest.mark.parametrize("address", ["", "nonsense", "host:0", "host:99999", "a b:1"])
async def test_an_address_that_is_none_is_refused(pair: tuple[Node, Node], address: str) -> None:
    with pytest.raises(Problem) as refused:
        await pair[0].add_peer(address)
    assert refused.value.status == 422


async def test_forgetting_an_unknown_address_is_an_error(pair: tuple[Node, Node]) -> None:
    with pytest.raises(Problem) as refused:
        await pair[0].remove_peer("10.9.9.9:1")
    assert refused.value.status == 404
