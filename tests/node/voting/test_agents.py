"""Agents are enrolled, change keys and end: each change is a signed statement, here at once, in the ledger later."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import statement
from ledger.entry import Kind
from ledger.statement import Enrolment, Revocation
from node.voting import agents as limits
from node.voting.requests import AgentEnd, NewAgent, NewKey, NewVote
from tests.node.voting.polls import AUTHORITY, OWNER, Outsider, Poll, polls
from tests.node.world import refused, sync


@pytest.fixture
async def node(tmp_path: Path) -> Poll:
    (made,) = await polls(tmp_path)
    return made


def statements(node: Poll) -> list[Enrolment | Revocation]:
    """Those that are pending."""
    rows = node.rows("SELECT kind, text FROM statements WHERE entry IS NULL")
    found = [statement.verify(kind, text, AUTHORITY) for kind, text in rows]
    return sorted((one for one in found if isinstance(one, Enrolment | Revocation)), key=lambda one: one.time_ms)


async def test_an_agent_is_enrolled_by_itself_and_its_node(node: Poll) -> None:
    answer, made = await node.agents.add(NewAgent(name="bo", about="looks after the pumps"))
    assert made
    assert (answer["name"], answer["about"], answer["state"]) == ("bo", "looks after the pumps", "pending")
    assert (answer["reputation"], answer["weight"], answer["owner"]) == (700_000, 400, False)
    assert (answer["voice"], answer["voice_name"]) == (node.store.node_id, node.name)
    (said,) = statements(node)
    assert isinstance(said, Enrolment)
    assert (said.agent.hex(), said.voice, said.name) == (answer["key"], node.key, "bo")
    assert {op.header.kind for op in node.heard} == {"statement", "profile"}
    await node.commit()
    shown = await node.agents.show("bo")
    assert (shown["state"], shown["in_ledger"], shown["since"]) == ("enrolled", True, node.entries() - 1)


async def test_adding_again_finds_the_same_agent_and_updates_what_it_says(node: Poll) -> None:
    first, _ = await node.agents.add(NewAgent(name="bo", about="one"))
    written = len(node.heard)
    again, made = await node.agents.add(NewAgent(name="bo"))
    assert (again["key"], again["about"], made) == (first["key"], "one", False)
    assert len(node.heard) == written
    for about in ("two", ""):
        changed, made = await node.agents.add(NewAgent(name="bo", about=about))
        assert (changed["key"], changed["about"], made) == (first["key"], about, False)
    assert len(node.agents.keys.keys()) == 2  # and the owner's


async def test_two_who_add_one_name_at_a_time_make_one_agent(node: Poll) -> None:
    answers = await asyncio.gather(*(node.agents.add(NewAgent(name="bo")) for _ in range(5)))
    assert len({answer["key"] for answer, _ in answers}) == 1
    assert [made for _, made in answers].count(True) == 1
    assert len(node.agents.keys.keys()) == 2


async def test_two_nodes_may_have_agents_of_one_name(tmp_path: Path) -> None:
    nodes = await polls(tmp_path, 2)
    first, _ = await nodes[0].agents.add(NewAgent(name="bo"))
    await sync(*nodes)
    second, made = await nodes[1].agents.add(NewAgent(name="bo"))
    assert made and second["key"] != first["key"]
    assert second["voice"] == nodes[1].store.node_id


@pytest.mark.parametrize("name", ["", " ", "x" * 129, "a\nb", "\ud800"])
async def test_a_bad_name_is_refused_before_anything_is_written(node: Poll, name: str) -> None:
    await refused(node.agents.add(NewAgent(name=name)), 422, "invalid_name", "name")
    assert not node.heard and len(node.agents.keys.keys()) == 1


async def test_a_node_has_so_many_agents_and_no_more(node: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_AGENTS", 3)
    await node.agents.add(NewAgent(name="a"))
    await node.agents.add(NewAgent(name="b"))
    await refused(node.agents.add(NewAgent(name="c")), 409, "too_many_agents")
    assert len(node.agents.keys.keys()) == 3
    await node.agents.revoke("a")
    assert (await node.agents.add(NewAgent(name="c")))[1]


async def test_a_node_enrols_so_many_keys_ever_and_a_hub_would_take_in_no_more(
    node: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_KEYS_OF_VOICE", 4)
    await node.agents.add(NewAgent(name="a"))
    await node.agents.rotate("a")
    await node.agents.revoke("a")
    b, _ = await node.agents.add(NewAgent(name="b"))
    held, heard = node.agents.keys.keys(), len(node.heard)
    key = Outsider().key.hex()
    for more in (
        node.agents.add(NewAgent(name="c")), node.agents.add(NewAgent(name="c", key=key)),
        node.agents.rotate("b"), node.agents.rotate("b", NewKey(key=key)),
    ):  # fmt: skip
        await refused(more, 409, "too_many_keys")
    assert (node.agents.keys.keys(), len(node.heard)) == (held, heard)
    assert await node.agents.add(NewAgent(name="b")) == (b, False)
    assert (await node.agents.rotate(OWNER))["owner"], "an owner whose key is in danger has a new one"


async def test_the_default_is_the_owner_on_the_founders_machine_and_its_own_agent_elsewhere(tmp_path: Path) -> None:
    founder, other = await polls(tmp_path, 2)
    owner = await founder.agents.show(OWNER)
    assert (owner["owner"], owner["weight"], owner["state"]) == (True, 1000, "enrolled")
    assert (await founder.agents.default()).hex() == owner["key"]
    own = await other.agents.default()
    assert own == await other.agents.default()
    shown = await other.agents.show(other.name)
    assert (shown["key"], shown["owner"]) == (own.hex(), False)


async def test_a_client_is_its_own_agent_and_never_the_owner_nor_the_node(node: Poll) -> None:
    key = await node.agents.of_client("claude")
    assert key == await node.agents.of_client("claude")
    await node.agents.ensure_own()
    for name in (OWNER, node.name):
        taken = await node.agents.show(name)
        key = await node.agents.of_client(name)
        assert key.hex() != taken["key"]
        assert (await node.agents.show(key.hex()))["name"] == name + limits.CLIENT_SUFFIX


async def test_a_client_of_the_name_of_an_agent_that_holds_its_key_is_another(node: Poll) -> None:
    eve = Outsider()
    asked, _ = await node.agents.add(NewAgent(name="eve", key=eve.key.hex()))
    signature = eve.sign(asked["to_sign"])
    await node.agents.add(NewAgent(name="eve", key=eve.key.hex(), time=asked["time"], signature=signature))
    assert await node.agents.of_client("eve") != eve.key


async def test_a_client_may_have_a_long_name(node: Poll) -> None:
    key = await node.agents.of_client("\U0001f99c" * 64)
    assert key == await node.agents.of_client("\U0001f99c" * 64)
    assert len((await node.agents.show(key.hex()))["name"].encode()) <= 128


async def test_more_changes_than_a_hub_is_let_wait_for_change_nothing(
    node: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.voting.inbox.MAX_PENDING", 1)
    await node.agents.add(NewAgent(name="bo"))
    before = node.rows("SELECT count(*) FROM ops"), node.agents.keys.keys()
    for change in (node.agents.add(NewAgent(name="cy")), node.agents.rotate("bo"), node.agents.revoke("bo")):
        await refused(change, 503, "too_many_statements")
    assert (node.rows("SELECT count(*) FROM ops"), node.agents.keys.keys()) == before
    assert (await node.agents.show("bo"))["state"] == "pending"


async def test_a_new_key_is_signed_by_both_and_the_agent_goes_on(node: Poll) -> None:
    before, _ = await node.agents.add(NewAgent(name="bo"))
    await node.commit()
    node.now_ms += 1
    after = await node.agents.rotate("bo")
    assert (after["principal"], after["state"], after["in_ledger"]) == (before["key"], "enrolled", False)
    assert after["key"] != before["key"]
    (said,) = statements(node)
    assert isinstance(said, Enrolment) and said.replaces.hex() == before["key"]
    assert node.agents.keys.secret(bytes.fromhex(before["key"])) is None
    await node.commit()
    assert (await node.agents.show("bo")) | {"reputations": []} == after | {"in_ledger": True, "reputations": []}
    assert (await node.agents.show(before["key"]))["key"] == after["key"]


async def test_the_owner_has_a_new_key_with_the_authority_only(node: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    node.now_ms += 1
    after = await node.agents.rotate(OWNER)
    assert after["owner"]
    await node.commit()
    assert (await node.agents.show(OWNER))["owner"]
    assert (await node.agents.default()).hex() == after["key"]
    before = node.agents.keys.keys()
    monkeypatch.setattr(node.agents, "machine", replace(node.machine, authority_secret=None))
    await refused(node.agents.rotate(OWNER), 409, "not_the_founder")
    assert node.agents.keys.keys() == before


async def test_votes_that_wait_follow_the_agent_to_its_new_key(node: Poll) -> None:
    fact = await node.create()
    await node.agents.add(NewAgent(name="bo"))
    await node.votes.vote(fact["id"], NewVote(value=1, agent="bo", reason="seen"))
    node.now_ms += 1
    await node.agents.rotate("bo")
    ((size, signature, count),) = node.rows("SELECT seen_size, seen_signature, count(*) FROM ballots GROUP BY 1, 2")
    assert (size, len(signature), count) == (3, 64, 2), "with what they tell of the ledger"
    await node.commit()
    shown = await node.votes.votes(fact["id"], agent="bo")
    counted = [one for one in shown["votes"] if one["counts"]]
    assert [(one["value"], one["reason"], one["counter"]) for one in counted] == [(1, "seen", 1)]
    assert shown["next_counter"] == 2


async def test_an_agent_is_revoked_by_its_node_at_once_and_once(node: Poll) -> None:
    await node.agents.add(NewAgent(name="bo"))
    await node.commit()
    node.now_ms += 1
    ended = await node.agents.revoke("bo", AgentEnd(void_from=3))
    assert (ended["state"], ended["in_ledger"]) == ("revoked", False)
    (said,) = statements(node)
    assert isinstance(said, Revocation) and (said.by, said.void_from) == (node.key, 3)
    written = len(node.heard)
    assert (await node.agents.revoke("bo", AgentEnd(void_from=3)))["state"] == "revoked"
    assert (await node.agents.revoke("bo"))["state"] == "revoked"
    assert len(node.heard) == written
    await node.agents.revoke("bo", AgentEnd(void_from=1))
    assert len(node.heard) == written + 1
    await node.commit()
    shown = await node.agents.show("bo")
    assert shown["in_ledger"] and shown["void_from"] == 1
    await refused(node.agents.rotate("bo"), 403, "agent_revoked", "agent")


async def test_votes_can_be_void_from_an_entry_that_there_is(node: Poll) -> None:
    await node.agents.add(NewAgent(name="bo"))
    await node.commit()
    written = len(node.heard)
    problem = await refused(node.agents.revoke("bo", AgentEnd(void_from=4_000)), 422, "invalid_void_from", "void_from")
    assert "no entry 4000" in problem.detail
    assert len(node.heard) == written and (await node.agents.show("bo"))["state"] == "enrolled"


async def test_a_revoked_name_is_given_again_only_when_somebody_says_so(node: Poll) -> None:
    own = await node.agents.ensure_own()
    await node.agents.revoke(node.name)
    assert (await node.agents.ensure_own())["state"] == "revoked"
    again, made = await node.agents.add(NewAgent(name=node.name))
    assert made and again["key"] != own["key"]
    assert (await node.agents.show(node.name))["key"] == again["key"]


async def test_another_nodes_agent_is_ended_by_the_founder_only(tmp_path: Path) -> None:
    founder, second, third = await polls(tmp_path, 3)
    await second.agents.add(NewAgent(name="bo"))
    await sync(founder, second, third)
    await refused(third.agents.revoke("bo"), 403, "not_your_agent", "agent")
    for request in (None, NewKey(key=Outsider().key.hex())):
        await refused(third.agents.rotate("bo", request), 403, "not_your_agent", "agent")
    ended = await founder.agents.revoke("bo")
    assert ended["state"] == "revoked"
    await sync(founder, second, third)
    for node in (second, third):
        assert (await node.agents.show("bo"))["state"] == "revoked"


async def test_the_owner_is_not_revoked(node: Poll) -> None:
    problem = await refused(node.agents.revoke(OWNER), 409, "owner_agent", "agent")
    assert "rotate" in problem.action


async def test_unknown_and_ambiguous_names_say_what_to_do(tmp_path: Path) -> None:
    nodes = await polls(tmp_path, 3)
    await refused(nodes[0].agents.show("nobody"), 404, "unknown_agent", "agent")
    for node in nodes[1:]:
        await node.agents.add(NewAgent(name="bo"))
    await sync(*nodes)
    problem = await refused(nodes[0].agents.show("bo"), 409, "ambiguous_agent", "agent")
    assert (await nodes[1].agents.show("bo"))["voice"] == nodes[1].store.node_id
    for key in problem.detail.rpartition("begin with ")[2].split(", "):
        assert (await nodes[0].agents.show(key))["name"] == "bo"


async def test_a_profile_counts_when_the_agents_own_node_writes_it(tmp_path: Path) -> None:
    founder, other = await polls(tmp_path, 2)
    bo, _ = await founder.agents.add(NewAgent(name="bo", about="true"))
    await sync(founder, other)

    def claim(connection: object) -> object:
        drafts = other.agents._profile(connection, bytes.fromhex(bo["key"]), "boss", "a lie")  # type: ignore[arg-type]
        return other.store.append(connection, drafts, other.now_ms + 1)  # type: ignore[arg-type]

    await other.database.write(claim)
    await sync(founder, other)
    for node in (founder, other):
        shown = await node.agents.show("bo")
        assert shown["about"] == "true"
        await refused(node.agents.show("boss"), 404, "unknown_agent", "agent")
        await node.database.write(lambda connection, node=node: node.store.rebuild(connection, node.now_ms))
        assert (await node.agents.show("bo")) == shown


async def test_an_agent_that_holds_its_key_signs_its_enrolment(node: Poll) -> None:
    bo = Outsider()
    asked, made = await node.agents.add(NewAgent(name="bo", key=bo.key.hex()))
    assert not made and not node.heard
    request = NewAgent(name="bo", key=bo.key.hex(), time=asked["time"], signature=bo.sign(asked["to_sign"]))
    answer, made = await node.agents.add(request)
    assert made and answer["key"] == bo.key.hex() and answer["voice"] == node.store.node_id
    assert (await node.agents.add(request))[1] is False
    assert node.agents.keys.secret(bo.key) is None
    other = NewAgent(name="other", key=bo.key.hex())
    await refused(node.agents.add(other), 409, "key_in_use", "key")


async def test_a_wrong_signature_enrols_nobody(node: Poll) -> None:
    bo = Outsider()
    asked, _ = await node.agents.add(NewAgent(name="bo", key=bo.key.hex()))
    for time, by in ((asked["time"] + 1, bo), (asked["time"], Outsider(2))):
        request = NewAgent(name="bo", key=bo.key.hex(), time=time, signature=by.sign(asked["to_sign"]))
        await refused(node.agents.add(request), 422, "invalid_signature", "signature")
    assert not node.heard


async def test_an_agent_that_holds_its_key_gets_a_new_one_with_two_signatures(node: Poll) -> None:
    bo, new = Outsider(), Outsider(2)
    asked, _ = await node.agents.add(NewAgent(name="bo", key=bo.key.hex()))
    signature = bo.sign(asked["to_sign"])
    await node.agents.add(NewAgent(name="bo", key=bo.key.hex(), time=asked["time"], signature=signature))
    await node.commit()
    await refused(node.agents.rotate("bo"), 403, "not_your_agent", "agent")
    asked = await node.agents.rotate("bo", NewKey(key=new.key.hex()))
    text, time = asked["to_sign"], asked["time"]
    wrong = NewKey(key=new.key.hex(), time=time, signature=new.sign(text), former_signature=new.sign(text))
    await refused(node.agents.rotate("bo", wrong), 422, "invalid_signature", "signature")
    right = NewKey(key=new.key.hex(), time=time, signature=new.sign(text), former_signature=bo.sign(text))
    assert (await node.agents.rotate("bo", right))["key"] == new.key.hex()
    await node.commit()
    assert (await node.agents.show("bo"))["principal"] == bo.key.hex()


async def test_reputation_is_that_of_the_project_asked_for(node: Poll) -> None:
    bo, _ = await node.agents.add(NewAgent(name="bo"))
    await node.commit()
    row = ("garden", bytes.fromhex(bo["key"]), 900_000)
    await node.database.write(lambda connection: connection.execute("INSERT INTO reputations VALUES (?,?,?)", row))
    shown = await node.agents.show("bo", "garden")
    assert (shown["project"], shown["reputation"], shown["weight"]) == ("garden", 900_000, 800)
    assert shown["reputations"] == [{"project": "garden", "reputation": 900_000, "weight": 800}]
    assert (await node.agents.show("bo"))["weight"] == 400
    listed = (await node.agents.everybody("garden"))["agents"]
    assert [(one["name"], one["weight"]) for one in listed] == [(OWNER, 1000), ("bo", 800)]


async def test_a_key_stays_when_it_is_not_known_whether_its_enrolment_was_written(
    node: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = node.database.write, 0

    async def broken(job: object, after: object = lambda result: None) -> object:
        nonlocal calls
        calls += 1
        result = await write(job, after)
        if calls == 2:
            raise asyncio.CancelledError
        return result

    monkeypatch.setattr(node.database, "write", broken)
    with pytest.raises(asyncio.CancelledError):
        await node.agents.add(NewAgent(name="bo"))
    shown = await node.agents.show("bo")
    assert node.agents.keys.secret(bytes.fromhex(shown["key"])) is not None
    assert Kind.ENROLMENT in {kind for (kind,) in node.rows("SELECT kind FROM statements")}
