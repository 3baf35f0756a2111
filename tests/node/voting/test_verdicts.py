"""What facts show is what the fold says of them; and what was promised, on nodes that sync and a hub that commits."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.op import Op
from crdt.version import node_id
from ledger.entry import Kind, text_hash
from ledger.score import Key, Pending, Trust
from ledger.statement import Constants
from ledger.vote import MAX_TIME_MS, Vote
from node import shapes
from node.requests import FactChanges, SearchRequest
from node.voting import records, verdicts
from node.voting.ballots import Ballots
from node.voting.records import VoteRecord
from node.voting.scores import Scores
from tests.node.voting.ledgers import (
    AUTHORITY,
    OWNER,
    YARD,
    Ledger,
    a_database,
    a_vote,
    enrolment,
    key,
    signed,
    tag_of,
    version_of,
)
from tests.node.voting.world import Voter, a_mesh, pull, settle
from tests.node.world import MESH, PROJECT, Forger

AGENTS = ("a", "b", "c", "d")
FACTS = ("f", "g")
TABLES = "ledger_entries tallies reputations agents voided scores_stopped scores_folded ballots old_votes".split()


@pytest.fixture(scope="module")
def shared() -> Iterator[sqlite3.Connection]:
    database = a_database()
    database.execute("INSERT INTO projects (name, bits) VALUES (?, 0)", (PROJECT,))
    yield database
    database.close()


@pytest.fixture
def connection(shared: sqlite3.Connection) -> sqlite3.Connection:
    for table in (*TABLES, "statements"):
        shared.execute(f"DELETE FROM {table}")
    return shared


def a_fact(name: str = "f", edit: int = 0) -> dict[str, Any]:
    version = version_of(name, edit).hex()
    return {"id": name, "project": PROJECT, "version": version, "author": node_id(key("machine of nobody"))}


def shown(connection: sqlite3.Connection, *facts: dict[str, Any]) -> list[dict[str, Any]]:
    Scores(key(AUTHORITY)).decorate(connection, facts)
    return list(facts)


def listed(connection: sqlite3.Connection, name: str = "f", edit: int = 0) -> list[dict[str, Any]]:
    return Scores(key(AUTHORITY)).votes(connection, name, version_of(name, edit).hex(), PROJECT)


def gossip(connection: sqlite3.Connection, *votes: tuple[str, Vote], reason: str = "") -> None:
    """Votes as their ops bring them: all of one agent on one fact in one call."""
    ops: dict[str, list[Op]] = {}
    for seq, (agent, vote) in enumerate(votes, 1):
        draft = records.vote_draft(vote, VoteRecord(signed(vote, agent), reason), ())
        assert isinstance(draft.body, bytes)
        op = Forger(1).op(
            seq, project=PROJECT, op_class=draft.op_class, subject=draft.subject, field=draft.field, kind=draft.kind,
            body=draft.body,
        )  # fmt: skip
        ops.setdefault(draft.subject, []).append(op)
    for subject, there in ops.items():
        Ballots(MESH).show(connection, 1, subject, there)


def commit(connection: sqlite3.Connection, ledger: Ledger) -> None:
    ledger.put(connection)
    Scores(key(AUTHORITY)).catch_up(connection)
    connection.execute("UPDATE ballots SET entry = (SELECT id FROM ledger_entries WHERE name = ballots.id)")


# --- against the fold ---


@st.composite
def situations(draw: st.DrawFn) -> tuple[Ledger, list[tuple[str, Vote]]]:
    """A ledger, and votes that are on their way; one agent is not enrolled, and one may be revoked."""
    ledger = Ledger().enrol("a@1", "b@2", "c@2")
    for _ in range(draw(st.integers(0, 12))):
        value, counter = draw(st.sampled_from([1, 1, -1, 0])), draw(st.integers(0, 2))
        agent = draw(st.sampled_from([OWNER, *AGENTS]))
        ledger.vote(agent, draw(st.sampled_from(FACTS)), value, counter, own=draw(st.booleans()))
    if draw(st.booleans()):
        ledger.revoke("c", draw(st.none() | st.integers(0, len(ledger.lines))))
    pending = []
    for number in range(draw(st.integers(0, 6))):
        agent, value = draw(st.sampled_from(AGENTS)), draw(st.sampled_from([1, -1, 0]))
        fact, counter = draw(st.sampled_from(FACTS)), draw(st.integers(1, 4))
        pending.append((agent, a_vote(agent, fact, value, counter, time_ms=number)))
    return ledger, pending


@settings(max_examples=100)
@given(situations())
def test_a_fact_shows_what_the_fold_says(
    shared: sqlite3.Connection, situation: tuple[Ledger, list[tuple[str, Vote]]]
) -> None:
    for table in TABLES:
        shared.execute(f"DELETE FROM {table}")
    ledger, pending = situation
    gossip(shared, *pending)
    commit(shared, ledger)
    fold = ledger.fold()
    on_the_way = []
    for _, vote in pending:
        agent = fold.agents.known.get(vote.agent)
        on_the_way.append(Pending(vote, False, agent if agent and agent.until is None else None))
    for fact in shown(shared, *map(a_fact, FACTS)):
        place = Key(PROJECT, fact["id"], version_of(fact["id"]))
        committed, provisional = fold.verdict(place), fold.provisional(place, on_the_way)
        assert (fact["score"], fact["trust"]) == (committed.score, committed.trust.value)
        assert fact["score_provisional"] == provisional.score
        told = listed(shared, fact["id"])
        counted = [vote["value"] for vote in told if vote["counts"] and vote["state"] == "committed"]
        assert (fact["votes"]["up"], fact["votes"]["down"]) == (counted.count(1), counted.count(-1))
        assert fact["score_linear"] == max(0, 1_000 + 100 * sum(counted))
        waiting = {vote["agent_key"] for vote in told if vote["state"] == "pending" and vote["counts"]}
        strangers = {vote["agent_key"] for vote in told if vote["agent"] is None and vote["state"] == "pending"}
        clashes = fact["votes"]["pending"] - len(waiting) - len(strangers)  # two values that cancel each other
        assert 0 <= clashes <= len(AGENTS)
        assert not (strangers & waiting)
        for vote in told:
            agent = fold.agents.known.get(bytes.fromhex(vote["agent_key"]))
            assert (vote["weight"] > 0) <= vote["counts"] and (agent is not None) >= vote["counts"]


# --- one by one ---


def test_a_fact_without_votes_is_neutral(connection: sqlite3.Connection) -> None:
    neutral = {
        "score": 1_000, "score_provisional": 1_000, "score_linear": 1_000, "trust": "unsettled",
        "votes": {"up": 0, "down": 0, "pending": 0}, "last_vote_at": None,
    }  # fmt: skip
    assert shown(connection, a_fact()) == [a_fact() | neutral]
    gossip(connection, ("a", a_vote("a", "g", 1)))
    assert shown(connection, a_fact()) == [a_fact() | neutral]


def test_a_strangers_vote_is_told_and_weighs_nothing(connection: sqlite3.Connection) -> None:
    gossip(connection, ("eve", a_vote("eve", "f", 1)), reason="")
    (fact,) = shown(connection, a_fact())
    assert (fact["score_provisional"], fact["votes"]["pending"]) == (1_000, 1)
    (vote,) = listed(connection)
    assert (vote["agent"], vote["voice"], vote["counts"], vote["weight"]) == (None, None, False, 0)


def test_an_agent_counts_provisionally_before_any_ledger_is_here(connection: sqlite3.Connection) -> None:
    for text in (enrolment("a", "1"), enrolment("b", "2")):
        row = (text_hash(text), Kind.ENROLMENT, text)
        connection.execute("INSERT INTO statements (hash, kind, text) VALUES (?,?,?)", row)
    gossip(connection, *((agent, a_vote(agent, "f", 1)) for agent in "ab"))
    (fact,) = shown(connection, a_fact())
    assert (fact["score"], fact["score_provisional"], fact["trust"]) == (1_000, 1_500, "unsettled")
    told = {(vote["agent"], vote["weight"], vote["counts"]) for vote in listed(connection)}
    assert told == {("a", 400, True), ("b", 400, True)}


def test_old_votes_count_in_the_linear_score_only(connection: sqlite3.Connection) -> None:
    rows = [(f"s{at}", PROJECT, "f", f"old {at}", value, 5 - at) for at, value in enumerate([1, 1, -1, 1])]
    connection.executemany("INSERT INTO old_votes VALUES (?,?,?,?,?,?)", rows)
    for edit in (0, 1):  # nobody knows which version they were on
        fact, namesake = shown(connection, a_fact(edit=edit), a_fact(edit=edit) | {"project": YARD})
        assert (fact["score"], fact["score_provisional"], fact["score_linear"]) == (1_000, 1_000, 1_200)
        assert namesake["score_linear"] == 1_000
        assert fact["votes"] == {"up": 0, "down": 0, "pending": 0}
    told = listed(connection)
    assert [vote["agent"] for vote in told] == ["old 3", "old 2", "old 1", "old 0"]
    assert {(vote["state"], vote["weight"], vote["counts"]) for vote in told} == {("imported", 0, False)}


def test_a_time_beyond_all_calendars_is_shown_as_their_end(connection: sqlite3.Connection) -> None:
    gossip(connection, ("a", a_vote("a", "f", 1, time_ms=MAX_TIME_MS)))
    assert shown(connection, a_fact())[0]["last_vote_at"] == "9999-12-31T23:59:59.999Z"
    assert listed(connection)[0]["at"] == "9999-12-31T23:59:59.999Z"


def test_each_vote_says_what_became_of_it(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1", "b@2", "c@3", "gone@4")
    ledger.vote("a", "f", 1)
    second = ledger.vote("a", "f", -1)
    for value in (1, 0):  # which cancel each other
        ledger.vote("b", "f", value, counter=3)
    ledger.vote("gone", "f", 1, version=version_of("f", 1))
    cut = ledger.vote("gone", "f", 1)
    ledger.vote("eve", "f", 1)
    ledger.revoke("gone", void_from=cut)
    ledger.revoke("a")
    too_late = signed(a_vote("a", "f", -1, 2, time_ms=1), "a")
    ledger.add(Kind.VOTE, too_late, tag_of(PROJECT))
    gossip(
        connection, ("c", a_vote("c", "f", 1, reason="I saw it")), ("gone", a_vote("gone", "f", 1, 2)),
        ("a", a_vote("a", "f", 1, 1, time_ms=5)), reason="I saw it",
    )  # fmt: skip
    commit(connection, ledger)
    told = listed(connection)
    assert [(v["agent"], v["value"], v["counter"], v["state"]) for v in told if v["counts"]] == [
        ("c", 1, 1, "pending"), ("a", -1, 2, "committed"),
    ]  # fmt: skip
    assert len(told) == 10 and [v["index"] for v in told if v["agent"] == "a" and v["counts"]] == [second]
    assert {v["reason"] for v in told if v["agent"] == "c"} == {"I saw it"}
    (fact,) = shown(connection, a_fact())
    assert fact["votes"] == {"up": 0, "down": 1, "pending": 1}


def test_of_votes_that_say_the_same_the_one_that_may_counts(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("void@1", "late@2")
    good = [ledger.vote(agent, "f", 1) for agent in ("void", "late")]
    cut = ledger.add(Kind.VOTE, signed(a_vote("void", "f", 1, 1, time_ms=1), "void"), tag_of(PROJECT))
    ledger.revoke("void", void_from=cut)
    ledger.revoke("late")
    ledger.add(Kind.VOTE, signed(a_vote("late", "f", 1, 1, time_ms=2), "late"), tag_of(PROJECT))
    commit(connection, ledger)
    assert [vote["index"] for vote in listed(connection) if vote["counts"]] == good


def test_weights_are_those_of_the_genesis_and_of_today(connection: sqlite3.Connection) -> None:
    ledger = Ledger(Constants(prior=100)).enrol("a@1", "b@2")
    for agent in ("a", OWNER):
        ledger.vote(agent, "g", 1)  # is settled: a has earned
    ledger.vote("b", "f", 1)
    commit(connection, ledger)
    gossip(connection, ("a", a_vote("a", "f", 1)))
    (fact,) = shown(connection, a_fact())
    assert (fact["score"], fact["score_provisional"]) == (1_000 * 900 // 500, 1_000 * 1_774 // 937)
    assert [vote["weight"] for vote in listed(connection)] == [437, 400]


def test_a_pending_vote_of_the_machine_that_wrote_the_version_weighs_nothing(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(verdicts, "wrote", lambda _, vote, voice, name: asked.append(name) or True)
    commit(connection, Ledger().enrol("a@1", "b@2"))
    gossip(connection, *((agent, a_vote(agent, "f", 1)) for agent in "ab"))
    (fact,) = shown(connection, a_fact() | {"author": node_id(key("1"))})
    assert (fact["score_provisional"], fact["votes"]["pending"]) == (1_333, 2)
    assert asked == ["a"]  # of another machine's agent nobody asks


def test_a_page_costs_as_many_queries_as_one_fact(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol(*(f"a{at}@m{at}" for at in range(4)))
    for number in range(60):
        ledger.vote(f"a{number % 4}", f"f{number % 30}", 1)
    gossip(connection, *(("a1", a_vote("a1", f"f{at}", -1, 5)) for at in range(30)))
    commit(connection, ledger)
    counts = []
    for facts in ([a_fact("f1")], [a_fact(f"f{at}") for at in range(30)], [a_fact("nothing")]):
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        shown(connection, *facts)
        connection.set_trace_callback(None)
        counts.append(len(asked))
    assert counts[0] == counts[1] <= 7 and counts[2] <= 5
    for table in ("tallies", "ballots"):
        connection.execute(f"DELETE FROM {table}")
    connection.set_trace_callback(asked.append)
    shown(connection, *(a_fact(f"f{at}") for at in range(30)))
    connection.set_trace_callback(None)
    assert len(asked) == counts[2] + 1


# --- on nodes ---


@pytest.fixture
async def mesh(tmp_path: Path) -> list[Voter]:
    """A hub and two machines, each with an agent named after it."""
    nodes = await a_mesh(tmp_path / "hub", 3)
    for node in nodes:
        node.replica.decorate = node.recall.decorate = node.scores.decorate
        node.recall.trust = node.scores.trust
        node.store.clears += [node.ballots.clear]
        node.store.rebuilds += [node.scores.refold]
        await node.enrol(f"agent {node.number}")
    await settle(*nodes)
    return nodes


async def everywhere(nodes: list[Voter], fact: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The fact, as every node shows it."""
    await settle(*nodes)
    one, *others = [await node.replica.get(fact["id"], **more) for node in nodes]
    assert all(other == one for other in others)
    msgspec.convert(one, shapes.Fact)
    return one


async def test_votes_from_two_machines_verify_a_fact_on_every_node(mesh: list[Voter]) -> None:
    hub, one, two = mesh
    fact = await one.create("the valve leaks")
    assert fact["trust"] == "unsettled"
    for node in (hub, two):  # which have not seen it yet
        await node.vote(f"agent {node.number}", fact, 1)
    seen = await everywhere(mesh, fact)
    assert (seen["trust"], seen["score"], seen["votes"]) == ("verified", 1_500, {"up": 2, "down": 0, "pending": 0})
    assert seen["last_vote_at"] is not None


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_gossip_gives_the_same_numbers_on_full_and_partial_nodes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    nodes = await a_mesh(tmp_path / "hub", 5, carries=[None, None, [PROJECT], [YARD]])
    for node in nodes:
        await node.enrol(f"agent {node.number}")
    facts = [
        await nodes[number % 3].create(f"fact {number}", project=(PROJECT, YARD)[number % 2]) for number in range(4)
    ]
    counters = dict.fromkeys(range(5), 0)
    for _ in range(60):
        voter, fact = chance.randrange(5), chance.choice(facts)
        if chance.random() < 0.4 and nodes[voter].carries_(fact["project"]):
            counters[voter] += 1
            value = chance.choice([1, 1, 1, -1, 0])
            await nodes[voter].vote(f"agent {nodes[voter].number}", fact, value, counters[voter])
        elif chance.random() < 0.8:
            await pull(*chance.sample(nodes, 2), batch=chance.choice([1, 3, 100]))
        else:
            await chance.choice(nodes).work()
    await settle(*nodes)
    for project in (PROJECT, YARD):
        seen = []
        for node in (node for node in nodes if node.carries_(project)):
            here = [fact | {"author": node.name} for fact in facts if fact["project"] == project]
            node.scores.decorate(node.database.direct, here)
            numbers = node.rows("SELECT agent, reputation FROM reputations WHERE project = ? ORDER BY agent", project)
            seen.append(([{name: fact[name] for name in verdicts.unvoted()} for fact in here], numbers))
        assert len(seen) == 4 and all(other == seen[0] for other in seen)
        assert any(fact["votes"]["up"] for fact in seen[0][0]) and not any(f["votes"]["pending"] for f in seen[0][0])


async def test_pending_and_committed_are_shown_side_by_side(mesh: list[Voter]) -> None:
    _, one, two = mesh
    fact = await everywhere(mesh, await one.create("the valve leaks"))
    await two.vote("agent 3", fact, -1)
    seen = await two.replica.get(fact["id"])
    assert (seen["score"], seen["score_provisional"], seen["votes"]["pending"]) == (1_000, 666, 1)
    own = await one.vote("agent 2", fact, 1)  # on what its machine wrote
    seen = await one.replica.get(fact["id"])
    assert (seen["score_provisional"], seen["votes"]["pending"]) == (1_000, 1)
    seen = await everywhere(mesh, fact)
    assert (seen["score"], seen["votes"]) == (666, {"up": 1, "down": 1, "pending": 0})
    assert own in mesh[0].committed


async def test_withdrawing_editing_and_retracting(mesh: list[Voter]) -> None:
    hub, one, two = mesh
    fact = await everywhere(mesh, await one.create("the valve leaks"))
    for node in (hub, two):
        await node.vote(f"agent {node.number}", fact, 1)
    assert (await everywhere(mesh, fact))["trust"] == "verified"
    await two.vote("agent 3", fact, 0, counter=2)
    seen = await everywhere(mesh, fact)
    assert (seen["trust"], seen["score"], seen["votes"]["up"]) == ("unsettled", 1_333, 1)
    await two.vote("agent 3", fact, 1, counter=3)
    await everywhere(mesh, fact)
    await one.replica.retract(fact["id"])
    seen = await everywhere(mesh, fact, retracted=True)
    assert (seen["trust"], seen["retracted"]) == ("verified", True)
    await one.replica.update(fact["id"], FactChanges(restore=True))
    assert (await everywhere(mesh, fact))["trust"] == "verified"
    await one.replica.update(fact["id"], FactChanges(content="the valve is fine"))
    seen = await everywhere(mesh, fact)
    assert (seen["trust"], seen["score"], seen["votes"]["up"]) == ("unsettled", 1_000, 0)


async def test_what_was_earned_by_void_votes_is_taken_back_and_a_rebuild_changes_nothing(mesh: list[Voter]) -> None:
    hub, one, two = mesh
    fact = await everywhere(mesh, await one.create("the valve leaks"))
    for node in (hub, two):
        await node.vote(f"agent {node.number}", fact, 1)
    await everywhere(mesh, fact)
    first = min(index for (index,) in hub.rows("SELECT id FROM ledger_entries WHERE agent IS NOT NULL"))
    await two.revoke("agent 3", void_from=first)
    seen = await everywhere(mesh, fact)
    assert (seen["trust"], seen["score"], seen["votes"]["up"]) == ("unsettled", 1_333, 1)
    for node in mesh:
        await node.database.write(lambda connection, node=node: node.store.rebuild(connection, node.now_ms))
    assert await everywhere(mesh, fact) == seen


async def test_search_shows_trust_and_a_commit_reaches_past_the_cache(mesh: list[Voter]) -> None:
    hub, one, two = mesh
    weak = await everywhere(mesh, await one.create("the valve leaks"))
    newer = await everywhere(mesh, await one.create("the valve leaks"))

    async def found(node: Voter) -> list[tuple[str, str]]:
        answer = await node.recall.search(SearchRequest(query="valve leaks", project=PROJECT))
        msgspec.convert(answer, shapes.SearchAnswer)
        return [(hit["fact"]["id"], hit["fact"]["trust"]) for hit in answer["results"]]

    for node in mesh:
        assert await found(node) == [(newer["id"], "unsettled"), (weak["id"], "unsettled")]
    for node in (hub, two):
        await node.vote(f"agent {node.number}", weak, 1)
    await settle(*mesh)
    for node in mesh:
        assert await found(node) == [(weak["id"], "verified"), (newer["id"], "unsettled")]
    for node in (hub, two):
        await node.vote(f"agent {node.number}", weak, -1, counter=2)
    await settle(*mesh)
    for node in mesh:
        assert await found(node) == [(newer["id"], "unsettled"), (weak["id"], "disputed")]
    assert one.scores.trust(one.database.direct, [1, 2]) == {1: Trust.DISPUTED}
    await one.replica.update(weak["id"], FactChanges(content="the valve leaks again"))
    assert one.scores.trust(one.database.direct, [1, 2]) == {}
