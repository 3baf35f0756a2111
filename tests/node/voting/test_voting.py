"""The parts put together: a vote goes all the way in one running node, and everybody hears of it who should."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from node import app, config, identity
from node.app import Node
from node.errors import EXIT_FAILED, Problem
from node.paths import Home
from node.requests import FactDraft, SearchRequest
from node.voting import voting
from node.voting.permission import Mode
from node.voting.requests import NewVote
from node.voting.table import Table

LOCAL = {"listen": "127.0.0.1:0", "api": "127.0.0.1:0", "memory_max_mb": 4_096, "mdns": False}


async def started(home: Path, **settings: Any) -> Node:
    me = identity.load(Home(home))
    node = Node(me, config.load(me.home, {}, LOCAL | settings))
    await node.start()
    return node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    app.found(tmp_path / "home", "founder")
    running = await started(tmp_path / "home")
    yield running
    await running.stop()


async def stored(node: Node, content: str = "the pump runs") -> str:
    [fact], _ = await node.replica.store_facts([FactDraft(content=content)])
    return str(fact["id"])


async def test_a_vote_goes_all_the_way(node: Node) -> None:
    fact = await stored(node)
    listener = node.events.listen()
    answer = await node.voting.votes.vote(fact, NewVote(value=1))
    assert answer["state"] == "committed"
    assert answer["proof"]
    shown = await node.replica.get(fact)
    assert (shown["trust"], shown["votes"]) == ("verified", {"up": 1, "down": 0, "pending": 0})
    [hit] = (await node.recall.search(SearchRequest(query="pump")))["results"]
    assert hit["fact"]["trust"] == "verified"
    told = await listener.take(1.0)
    assert told is not None
    assert b"event: commit" in told
    assert fact.encode() in told
    status = await node.status()
    assert (status["votes_pending"], status["ledger"]["votes"], status["ledger"]["forks"]) == (0, 1, 0)
    assert status["warnings"] == []
    await node.refresh_metrics()
    assert f"cortex_ledger_size {status['ledger']['size']}\n" in node.metrics.text()
    assert "cortex_votes_pending 0\n" in node.metrics.text()


async def test_a_node_without_an_engine_commits_nothing_and_says_pending_at_once(tmp_path: Path) -> None:
    app.found(tmp_path / "home", "founder", hub=False)
    node = await started(tmp_path / "home")
    try:
        assert not node.voting.hub_near()
        answer = await node.voting.votes.vote(await stored(node), NewVote(value=1))
        assert answer["state"] == "pending"
        status = await node.status()
        assert status["votes_pending"] == 1
        assert status["warnings"] == [], "it was founded so, and nothing is wrong"
        await node.refresh_metrics()
        assert "cortex_votes_pending 1\n" in node.metrics.text()
    finally:
        await node.stop()


async def test_what_is_pending_when_a_node_stops_is_committed_when_it_runs_again(tmp_path: Path) -> None:
    app.found(tmp_path / "home", "founder")
    node = await started(tmp_path / "home", **{"quorum.engine": "none"})
    fact = await stored(node)
    answer = await node.voting.votes.vote(fact, NewVote(value=1))
    await node.stop()
    assert answer["state"] == "pending"
    node = await started(tmp_path / "home")
    try:
        again = await node.voting.votes.vote(fact, NewVote(value=1))
        assert (again["vote_id"], again["duplicate"], again["state"]) == (answer["vote_id"], True, "committed")
    finally:
        await node.stop()


async def test_a_hub_that_found_damage_says_so_in_status_metrics_and_events(node: Node) -> None:
    fact = await stored(node)
    await node.voting.votes.vote(fact, NewVote(value=1))
    listener = node.events.listen()

    def damage(connection: Any) -> None:
        raw = Table(connection).read_entries(2, 1)[0]
        changed = raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]
        connection.execute("UPDATE ledger_entries SET raw = ? WHERE id = 2", (changed,))

    await node.database.write(damage)
    await node.voting.follower.self_check()
    assert b"event: alert" in (await listener.take(1.0) or b"")
    answer = await node.voting.votes.vote(await stored(node, "another"), NewVote(value=1))
    assert answer["state"] == "pending", "nothing is signed over damage"
    status = await node.status()
    assert status["ledger"]["frozen"]["index"] == 2
    codes = {warning["code"] for warning in status["warnings"]}
    assert "ledger_damaged" in codes
    assert f"ledger_{Mode.FROZEN}" in codes
    assert all(warning["action"] for warning in status["warnings"])
    assert 'cortex_alerts_total{code="ledger_damaged"}' in node.metrics.text()


async def test_who_commits_needs_no_takeover(node: Node) -> None:
    before = (await node.status())["ledger"]["epoch"]
    with pytest.raises(Problem) as caught:
        await node.voting.takeover(None, abandon=False)
    assert caught.value.code == "hub_already"
    assert (await node.status())["ledger"]["epoch"] == before


async def test_alerts_are_bounded_and_told_once_each(node: Node) -> None:
    for number in range(2 * voting.MAX_ALERTS):
        node.voting._alert(f"code {number}", "text")
        node.voting._alert(f"code {number}", "text")
    described = await node.voting.describe()
    assert len(described["warnings"]) == voting.MAX_ALERTS


async def test_a_takeover_without_the_key_says_where_it_is(tmp_path: Path) -> None:
    app.found(tmp_path / "home", "founder")
    (tmp_path / "home" / "ca.key").rename(tmp_path / "kept")
    node = await started(tmp_path / "home")
    with pytest.raises(Problem, match="not in this home") as caught:
        await node.voting.takeover(None, abandon=False)
    await node.stop()
    assert (caught.value.code, caught.value.exit_code) == ("no_ca_key", EXIT_FAILED)
    assert "--ca-key FILE" in caught.value.action


async def test_rebuilding_changes_nothing_of_what_votes_show(node: Node) -> None:
    fact = await stored(node)
    await node.voting.votes.vote(fact, NewVote(value=1, reason="seen"))
    before = await node.replica.get(fact), await node.voting.votes.votes(fact), await node.voting.agents.everybody()
    await node.database.write(lambda connection: node.store.rebuild(connection, 1_760_000_000_000))
    await asyncio.wait_for(node.voting.follower.catch_up(), 10)
    assert before == (
        await node.replica.get(fact), await node.voting.votes.votes(fact), await node.voting.agents.everybody()
    )  # fmt: skip
