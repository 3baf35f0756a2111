"""A vote needs nobody, is refused with what is wrong before anything is written, and is committed once."""

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger import entry as entries
from ledger import tlog
from ledger import vote as votes
from ledger.checkpoint import parse_text
from ledger.ed25519 import is_signed
from ledger.note import parse
from node.requests import FactChanges, TagChange
from node.voting.records import VoteRecord, vote_draft
from node.voting.requests import NewAgent, NewVote
from node.voting.shapes import FactVotes, VoteAnswer
from tests.node.voting.polls import OWNER, Outsider, Poll, polls
from tests.node.world import refused, sync

Answer = dict[str, Any]


@pytest.fixture
async def node(tmp_path: Path) -> Poll:
    (made,) = await polls(tmp_path)
    return made


@pytest.fixture
async def fact(node: Poll) -> Answer:
    return await node.create("the pump runs at 3 bar")


async def vote(node: Poll, fact: Answer, value: Any = 1, **more: Any) -> Answer:
    client = more.pop("client", None)
    answer = await node.votes.vote(fact["id"], msgspec.convert({"value": value} | more, NewVote), client)
    msgspec.convert(answer, VoteAnswer)
    return answer


async def told(node: Poll, fact: Answer, **more: Any) -> Answer:
    answer = await node.votes.votes(fact["id"], **more)
    msgspec.convert(answer, FactVotes)
    return answer


async def enrolled(node: Poll, outsider: Outsider, name: str = "eve") -> Outsider:
    asked, _ = await node.agents.add(NewAgent(name=name, key=outsider.key.hex()))
    signature = outsider.sign(asked["to_sign"])
    await node.agents.add(NewAgent(name=name, key=outsider.key.hex(), time=asked["time"], signature=signature))
    return outsider


async def test_with_nobody_in_reach_a_vote_is_pending_and_counts_provisionally(node: Poll, fact: Answer) -> None:
    answer = await vote(node, fact)
    assert (answer["state"], answer["duplicate"], answer["entry"], answer["proof"]) == ("pending", False, None, [])
    assert (answer["fact_id"], answer["version"]) == (fact["id"], fact["version"])
    assert (answer["score"], answer["trust"]) == (1000, "unsettled")
    assert answer["score_provisional"] > 1000
    assert [op.header.kind for op in node.heard] == ["vote"]
    shown = await told(node, fact, agent=OWNER)
    assert [(one["agent"], one["value"], one["state"], one["counts"]) for one in shown["votes"]] == [
        (OWNER, 1, "pending", True)
    ]
    assert shown["next_counter"] == 2
    assert (await told(node, fact))["next_counter"] == 1


async def test_a_vote_that_is_committed_in_time_is_answered_with_its_proof(node: Poll, fact: Answer) -> None:
    node.near = True
    cast = await node.votes.cast(fact["id"], NewVote(value=1))
    assert not cast.committed
    waiting = asyncio.create_task(node.votes.settled(cast))
    await node.commit()
    answer = await waiting
    assert (answer["state"], answer["reason"], answer["trust"]) == ("committed", None, "verified")
    raw, prev = (node.rows("SELECT raw FROM ledger_entries ORDER BY id DESC LIMIT 2")[at][0] for at in (0, 1))
    index = node.entries() - 1
    assert answer["entry"] == {
        "index": index, "hash": entries.entry_hash(raw).hex(), "prev_hash": entries.entry_hash(prev).hex()
    }  # fmt: skip
    checkpoint = parse_text(parse(answer["checkpoint"].encode()).text)
    proof = [bytes.fromhex(one) for one in answer["proof"]]
    tlog.check_inclusion(proof, index, checkpoint.size, tlog.leaf_hash(raw), checkpoint.root)


async def test_a_vote_that_takes_too_long_is_pending_and_nothing_waits_on(
    node: Poll, fact: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.near = True
    monkeypatch.setattr(node.votes, "_wait_s", 0)
    assert (await vote(node, fact))["state"] == "pending"
    assert node.votes._waiting == {}
    await node.commit()
    again = await vote(node, fact)
    assert (again["state"], again["duplicate"]) == ("committed", True)


async def test_the_same_again_is_the_vote_that_exists(node: Poll, fact: Answer) -> None:
    first = await vote(node, fact)
    written = len(node.heard)
    again = await vote(node, fact, reason="another reason")
    assert again == first | {"duplicate": True}
    await node.commit()
    committed = await vote(node, fact)
    assert (committed["vote_id"], committed["state"], committed["duplicate"]) == (first["vote_id"], "committed", True)
    assert len(node.heard) == written
    assert len(await node.commit()) == 0


async def test_another_value_replaces_the_one_before(node: Poll, fact: Answer) -> None:
    for counter, value in enumerate((1, -1, 0, 1), 1):
        await vote(node, fact, value)
        if counter % 2:
            await node.commit()
        (counts,) = [one for one in (await told(node, fact))["votes"] if one["counts"] and one["counter"] == counter]
        assert counts["value"] == value
    subject = {op.subject for op in node.heard if op.header.kind == "vote"}
    assert len(subject) == 1
    assert len(node.heard[-1].header.clock) == 1  # it takes the one before away


async def test_an_edit_begins_anew_and_an_earlier_version_can_be_named(node: Poll, fact: Answer) -> None:
    await vote(node, fact)
    await node.commit()
    edited = await node.replica.update(fact["id"], FactChanges(content="the pump runs at 4 bar"))
    assert (await told(node, fact))["trust"] == "unsettled"
    assert (await told(node, fact, version=fact["version"]))["trust"] == "verified"
    assert (await vote(node, edited, -1))["version"] == edited["version"]
    old = await vote(node, fact, -1, version=fact["version"])
    assert (old["version"], old["duplicate"]) == (fact["version"], False)


async def test_a_version_of_another_fact_is_none_of_this_one(node: Poll, fact: Answer) -> None:
    other = await node.create("another")
    await refused(vote(node, fact, version=other["version"]), 404, "unknown_version", "version")
    tagged = await node.replica.tag(fact["id"], TagChange(add=["a"]))
    assert tagged["version"] == fact["version"]
    (raw,) = node.rows("SELECT hash FROM ops ORDER BY id DESC LIMIT 1")[0]
    await refused(vote(node, fact, version=raw.hex()), 404, "unknown_version", "version")


async def test_an_agent_with_a_new_key_counts_on_where_it_was(node: Poll, fact: Answer) -> None:
    await node.agents.add(NewAgent(name="bo"))
    first = await vote(node, fact, agent="bo")
    await node.commit()
    node.now_ms += 1
    await node.agents.rotate("bo")
    assert (await told(node, fact, agent="bo"))["next_counter"] == 2
    again = await vote(node, fact, agent="bo")
    assert (again["vote_id"], again["duplicate"]) == (first["vote_id"], True)
    await vote(node, fact, -1, agent="bo")
    assert (await told(node, fact, agent="bo"))["next_counter"] == 3


async def test_a_clash_of_ones_own_is_settled_by_voting_again(node: Poll, fact: Answer) -> None:
    await node.agents.add(NewAgent(name="bo"))
    await vote(node, fact, 1, agent="bo")
    (row,) = node.rows("SELECT signed FROM ballots")
    down = votes.decode(row[0])._replace(value=-1)
    secret = node.agents.keys.secret(down.agent)
    assert secret is not None
    await node.append(vote_draft(down, VoteRecord(votes.sign(down, secret)), ()))
    for value in (1, -1):
        answer = await vote(node, fact, value, agent="bo")
        assert not answer["duplicate"]
    assert [one["value"] for one in (await told(node, fact))["votes"] if one["counts"]] == [-1]


async def test_who_has_not_voted_may_withdraw(node: Poll, fact: Answer) -> None:
    assert (await vote(node, fact, 0))["duplicate"] is False
    assert (await vote(node, fact, 0))["duplicate"] is True


async def test_a_client_votes_as_itself(node: Poll, fact: Answer) -> None:
    await vote(node, fact, client="claude")
    await vote(node, fact, client=OWNER)
    await node.commit()
    shown = await told(node, fact)
    assert {(one["agent"], one["weight"]) for one in shown["votes"]} == {("claude", 400), (OWNER + " (mcp)", 400)}


async def test_who_votes_on_what_it_wrote_is_told_that_this_weighs_nothing(node: Poll) -> None:
    fact = await node.create("the valve opens at 3 bar", agent="claude")
    answers = {client: await vote(node, fact, client=client) for client in ("claude", "vscode", None)}
    assert [client for client, answer in answers.items() if answer["own"]] == ["claude"]
    assert (await vote(node, fact, client="claude"))["own"], "also when it says so again"
    assert not (await vote(node, fact, 0, client="claude"))["own"], "to take it back weighs something"
    await vote(node, fact, client="claude")
    weights = {one["agent"]: one["weight"] for one in (await told(node, fact))["votes"] if one["counts"]}
    assert weights == {"claude": 0, "vscode": 400, OWNER: 1000}, "as it was told"


async def test_what_clients_of_the_earlier_system_send_is_understood(node: Poll, fact: Answer) -> None:
    for who, value in (("agent-7", 1), (42, -1)):
        answer = await node.votes.vote(fact["id"], NewVote(vote=value, agent_id=who))
        assert answer["state"] == "pending"
    again = await node.votes.vote(fact["id"], NewVote(vote=1, agent_id="agent-7"))
    assert again["duplicate"]
    assert {one["name"] for one in (await node.agents.everybody())["agents"]} == {OWNER, "agent-7", "42"}


async def test_a_vote_tells_the_newest_checkpoint(node: Poll, fact: Answer) -> None:
    await vote(node, fact)
    ((size, root, signature),) = node.rows("SELECT seen_size, seen_root, seen_signature FROM ballots")
    ((newest, note),) = node.rows("SELECT size, note FROM ledger_checkpoints ORDER BY size DESC LIMIT 1")
    text = parse(note).text
    assert (size, root) == (newest, parse_text(text).root) and is_signed(node.key, text.encode(), signature)


async def test_an_agent_outside_signs_its_vote(node: Poll, fact: Answer) -> None:
    eve = await enrolled(node, Outsider())
    signed = eve.vote(fact, -1, reason="it is 4 bar")
    first = await vote(node, fact, **signed)
    assert (first["state"], first["duplicate"]) == ("pending", False)
    assert (await vote(node, fact, **signed)) == first | {"duplicate": True}
    await node.commit()
    assert (await vote(node, fact, **signed))["state"] == "committed"
    shown = await told(node, fact, agent_key=eve.key.hex())
    assert shown["next_counter"] == 2
    (one,) = shown["votes"]
    assert (one["agent_key"], one["reason"], one["value"]) == (eve.key.hex(), "it is 4 bar", -1)
    assert (await vote(node, fact, **eve.vote(fact, 1, counter=5)))["duplicate"] is False


async def test_a_used_counter_is_refused_with_the_next_one(node: Poll, fact: Answer) -> None:
    eve = await enrolled(node, Outsider())
    await vote(node, fact, **eve.vote(fact, 1, counter=3))
    for counter in (1, 3):
        problem = await refused(vote(node, fact, **eve.vote(fact, -1, counter=counter)), 409, "counter_used", "counter")
        assert "counter 4" in problem.action
    await node.commit()
    await node.database.write(lambda connection: connection.execute("DELETE FROM ballots"))
    await refused(vote(node, fact, **eve.vote(fact, -1, counter=3)), 409, "counter_used", "counter")


@pytest.mark.parametrize(
    "signed_instead",
    [
        {"mesh": bytes(32)}, {"project": "elsewhere"}, {"fact": "k7q2m4zx5tvb3nya-17"}, {"version": bytes(32)},
        {"counter": 2}, {"value": -1}, {"reason_hash": bytes(32)}, {"time_ms": 5},
    ],
    ids=lambda signed: next(iter(signed)),
)  # fmt: skip
async def test_a_signature_over_anything_else_is_refused(
    node: Poll, fact: Answer, signed_instead: dict[str, Any]
) -> None:
    eve = await enrolled(node, Outsider())
    written = len(node.heard)
    request = eve.vote(fact, 1, signed=signed_instead)
    problem = await refused(vote(node, fact, **request), 422, "invalid_signature", "signature")
    assert fact["version"] in problem.action
    assert len(node.heard) == written


async def test_a_signature_by_another_key_is_refused(node: Poll, fact: Answer) -> None:
    eve = await enrolled(node, Outsider())
    mallory = Outsider(2)
    forged = mallory.vote(fact, 1) | {"agent_key": eve.key.hex()}
    await refused(vote(node, fact, **forged), 422, "invalid_signature", "signature")
    await refused(vote(node, fact, **mallory.vote(fact, 1)), 404, "unknown_agent", "agent_key")


BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({"value": 2}, 422, "invalid_value", "value"),
    ({"value": None}, 422, "invalid_value", "value"),
    ({"value": True}, 422, "invalid_value", "value"),
    ({"value": "up"}, 422, "invalid_value", "value"),
    ({"value": 0.5}, 422, "invalid_value", "value"),
    ({"agent": "nobody"}, 404, "unknown_agent", "agent"),
    ({"agent": "ann"}, 403, "not_your_agent", "agent"),
    ({"agent": "rex"}, 403, "agent_revoked", "agent"),
    ({"agent": ""}, 422, "invalid_agent", "agent"),
    ({"reason": "x" * 2_001}, 422, "invalid_reason", "reason"),
    ({"reason": "\ud800"}, 422, "invalid_reason", "reason"),
    ({"version": "00"}, 422, "invalid_version", "version"),
    ({"version": "00" * 32}, 404, "unknown_version", "version"),
    ({"counter": 4}, 422, "invalid_counter", "counter"),
    ({"agent_key": "00" * 32}, 422, "invalid_version", "version"),
    ({"vote": 1}, 422, "invalid_vote", "vote"),
    ({"vote": 1, "value": None}, 422, "invalid_agent_id", "agent_id"),
    ({"vote": 7, "value": None, "agent_id": "a"}, 422, "invalid_vote", "vote"),
    ({"vote": 1, "value": None, "agent_id": "rex"}, 403, "agent_revoked", "agent"),
]


@pytest.mark.parametrize(("given", "status", "code", "field"), BAD, ids=lambda value: str(value)[:40])
async def test_a_bad_vote_is_refused_before_anything_is_written(
    tmp_path: Path, given: dict[str, Any], status: int, code: str, field: str
) -> None:
    node, other = await polls(tmp_path, 2)
    await other.agents.add(NewAgent(name="ann"))
    await node.agents.add(NewAgent(name="rex"))
    await node.agents.revoke("rex")
    await sync(node, other)
    fact = await node.create()
    before = node.rows("SELECT count(*) FROM ops"), node.agents.keys.keys()
    request = NewVote(**({"value": 1} | given))
    await refused(node.votes.vote(fact["id"], request), status, code, field)
    assert (node.rows("SELECT count(*) FROM ops"), node.agents.keys.keys()) == before


async def test_a_signed_vote_lacks_nothing(node: Poll, fact: Answer) -> None:
    eve = await enrolled(node, Outsider())
    whole = eve.vote(fact, 1)
    for name in ("version", "counter", "time", "signature", "agent_key"):
        given = {key: value for key, value in whole.items() if key != name}
        await refused(vote(node, fact, **given), 422, f"invalid_{name}", name)
    for name, value in (("signature", "00"), ("agent_key", "xy" * 32), ("counter", 0), ("time", -1)):
        await refused(vote(node, fact, **(whole | {name: value})), 422, f"invalid_{name}", name)
    await refused(vote(node, fact, **(whole | {"agent": "eve"})), 422, "invalid_agent", "agent")


async def test_a_fact_that_is_not_there_or_retracted_makes_no_agent(node: Poll, fact: Answer) -> None:
    await refused(node.votes.vote("nope-1", NewVote(value=1), "claude"), 404, "unknown_fact")
    await node.replica.retract(fact["id"])
    await refused(vote(node, fact, client="claude"), 410, "retracted")
    assert (await told(node, fact))["votes"] == []
    await refused(node.votes.votes("nope-1"), 404, "unknown_fact")
    assert len(node.agents.keys.keys()) == 1


async def test_a_revoked_agent_outside_votes_no_more_nor_one_with_its_old_key(node: Poll, fact: Answer) -> None:
    eve = await enrolled(node, Outsider())
    await node.agents.revoke("eve")
    await refused(vote(node, fact, **eve.vote(fact, 1)), 403, "agent_revoked", "agent")
    before, _ = await node.agents.add(NewAgent(name="bo"))
    secret = node.agents.keys.secret(bytes.fromhex(before["key"]))
    assert secret is not None
    bo = Outsider()
    bo.secret, bo.key = secret, bytes.fromhex(before["key"])
    await node.agents.rotate("bo")
    await refused(vote(node, fact, **bo.vote(fact, 1)), 403, "key_replaced", "agent_key")


async def test_any_order_of_votes_and_syncs_counts_alike_everywhere(tmp_path: Path) -> None:
    """Whoever votes where, and whatever is replayed: one vote counts for each agent, the newest, on every node."""
    chance = random.Random(6)
    nodes = await polls(tmp_path, 3)
    fact = await nodes[0].create()
    await sync(*nodes)
    wanted: dict[str, int] = {}
    for _ in range(25):
        node = chance.choice(nodes)
        name, value = f"agent-{chance.randrange(3)} of {node.name}", chance.choice((1, -1, 0))
        await node.votes.vote(fact["id"], NewVote(vote=value, agent_id=name))
        wanted[name] = value
        if chance.random() < 0.3:
            await sync(*nodes)
        if chance.random() < 0.2:
            await nodes[0].commit()
    await sync(*nodes)
    committed = {one.principal: one.value for one in await _casts(nodes[0])}
    seen = [
        {one["agent"]: one["value"] for one in (await told(node, fact))["votes"] if one["counts"]} for node in nodes
    ]
    assert seen[1:] == [wanted, wanted]
    await nodes[0].commit()
    final = {one["agent"]: one["value"] for one in (await told(nodes[0], fact))["votes"] if one["counts"]}
    assert final == wanted and len(committed) <= len(wanted)
    assert len({name for (name,) in nodes[0].rows("SELECT name FROM ledger_entries")}) == nodes[0].entries()


async def _casts(node: Poll) -> list[Any]:
    from ledger.score import Tally

    rows = node.rows("SELECT tally FROM tallies")
    return [one for (raw,) in rows for one in msgspec.msgpack.decode(raw, type=Tally).casts]


async def test_waiting_is_bounded(node: Poll, fact: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    node.near = True
    monkeypatch.setattr("node.voting.verbs.MAX_WAITING", 0)
    assert (await vote(node, fact))["state"] == "pending"
