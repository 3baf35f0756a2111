"""What a hub takes in: statements before the votes that need them, everything else later or never, and why."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ledger import statement
from ledger.entry import Kind, decode, project_tag, text_hash
from ledger.log import MAX_BATCH
from ledger.statement import Enrolment, Revocation
from node.voting import selection
from node.voting.agents import MAX_AGENTS
from node.voting.roster import MAX_KEYS_OF_VOICE
from node.voting.selection import FIRST, Chosen, Cursor
from tests.ledger.world import key, secret
from tests.node.voting.hubs import PROJECT, Site, authority_secret, founder


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Site]:
    site = await founder(tmp_path / "hub")
    yield site
    site.crash()


async def chosen(hub: Site, cursor: Cursor = FIRST) -> Chosen:
    return await hub.database.write(lambda c: hub.hub._selection.choose(c, cursor, hub.now_ms))


async def test_an_enrolment_and_its_votes_go_into_one_batch(hub: Site) -> None:
    fact = await hub.fact()
    signed = await hub.vote("anna", fact)
    enrolled = await hub.enrol("anna")
    rotated = await hub.enrol("anna 2", replaces="anna")
    ended = await hub.revoke("anna 2")
    look = await chosen(hub)
    assert [draft.text for draft in look.drafts[:1]] == [enrolled]
    assert {draft.text for draft in look.drafts[1:]} == {rotated, ended}, "whatever their hashes are"
    assert look.refused == {text_hash(signed): "the agent was revoked, or has another key since"}
    assert look.end and look.waiting == 0
    await hub.settle()
    assert hub.check().ok and hub.size == 6


async def test_a_batch_is_bounded_and_the_rest_comes_next(hub: Site) -> None:
    names = [f"agent {number}" for number in range(MAX_BATCH + 7)]
    texts = [await hub.enrol(name) for name in names[:3]]
    said = [Enrolment(hub.me.mesh_id, key(name), name, hub.me.node_key, False, b"", hub.now_ms) for name in names[3:]]
    for one in said:
        texts.append(statement.seal(one, hub.authority, [secret(one.name), hub.me.secret_key]))
    rows = [(text_hash(text), Kind.ENROLMENT, text) for text in texts]
    insert = "INSERT OR IGNORE INTO statements (hash, kind, text) VALUES (?,?,?)"
    await hub.database.write(lambda connection: connection.executemany(insert, rows) and None)
    look = await chosen(hub)
    assert len(look.drafts) == MAX_BATCH and not look.end
    await hub.settle()
    assert hub.size == 3 + len(names) and sorted(hub.texts()[3:]) == sorted(texts)


async def test_what_waits_holds_nobody_up_and_comes_when_it_can(hub: Site) -> None:
    await hub.enrol("anna")
    fact = await hub.fact()
    stranger = await hub.vote("ben", fact)
    unseen = await hub.vote("anna", fact)
    await hub.settle()
    assert hub.size == 5 and hub.hub.state()["waiting"] == 1 and hub.texts()[4] == unseen
    assert await hub.hub.turn() is None, "nothing is looked at again until something comes"
    await hub.enrol("ben")
    await hub.settle()
    assert hub.texts()[6] == stranger and hub.pending() == 0 and not hub.refused()


async def test_a_vote_waits_for_the_version(hub: Site) -> None:
    await hub.enrol("anna")
    fact = await hub.fact()
    await hub.database.write(
        lambda c: c.execute("UPDATE ops SET hash = zeroblob(32) WHERE hash = ?", (fact.hash,)) and None
    )
    await hub.vote("anna", fact)
    await hub.settle()
    assert hub.size == 4 and hub.hub.state()["waiting"] == 1
    await hub.database.write(
        lambda c: c.execute("UPDATE ops SET hash = ? WHERE hash = zeroblob(32)", (fact.hash,)) and None
    )
    await hub.settle()
    assert hub.size == 5


async def test_a_project_that_is_not_carried_waits(hub: Site) -> None:
    await hub.enrol("anna")
    await hub.vote("anna", await hub.fact())
    hub.crash()
    await hub.open(carries=("team/*",))
    await hub.settle()
    assert hub.size == 4 and hub.hub.state()["waiting"] == 1


async def test_an_enrolment_by_a_node_that_is_no_member_waits(hub: Site) -> None:
    said = Enrolment(hub.me.mesh_id, key("eve"), "eve", key("stranger"), False, b"", hub.now_ms)
    text = statement.seal(said, hub.authority, [secret("eve"), secret("stranger")])
    row, insert = (text_hash(text), Kind.ENROLMENT, text), "INSERT INTO statements (hash, kind, text) VALUES (?, ?, ?)"
    await hub.database.write(lambda c: c.execute(insert, row) and None)
    await hub.settle()
    assert hub.size == 3 and hub.hub.state()["waiting"] == 1 and not hub.refused()


async def test_a_node_enrols_so_many_keys_and_no_more(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the ledger and of this look; not those of other nodes, and not an owner's. The fold knows no bound."""
    monkeypatch.setattr(selection, "MAX_KEYS_OF_VOICE", 3)
    await hub.enrol("anna")
    await hub.settle()
    assert hub.rows("SELECT count(*) FROM agents WHERE voice = ?", hub.me.node_key) == [(2,)], "and the owner"
    texts = {await hub.enrol("ben"), await hub.enrol("anna 2", replaces="anna")}
    look = await chosen(hub)
    assert len(look.drafts) == len(look.refused) == 1
    await hub.settle()
    assert hub.size == 5 and len(texts & set(hub.texts())) == 1 and hub.pending() == 0
    assert hub.refused() == ["its node has enrolled 3 keys, and a hub takes in no more"]
    owner = Enrolment(hub.me.mesh_id, key("eve"), "eve", hub.me.node_key, True, b"", hub.now_ms)
    sealed = statement.seal(owner, hub.authority, [secret("eve"), hub.me.secret_key, authority_secret(hub)])
    await hub.say(2, sealed)
    await hub.settle()
    assert hub.texts()[5:] == [sealed] and len(hub.refused()) == 1
    monkeypatch.setattr(selection, "MAX_KEYS_OF_VOICE", 5)
    ended = await hub.revoke("anna")
    late = await hub.enrol("cleo")
    await hub.settle()
    assert set(hub.texts()[6:]) == {ended, late} and hub.check().ok


def test_a_hub_takes_in_all_agents_that_a_node_may_have() -> None:
    assert MAX_KEYS_OF_VOICE >= 2 * MAX_AGENTS


async def test_votes_are_made_void_once_by_an_agents_node_and_again_by_the_authority(hub: Site) -> None:
    await hub.enrol("anna")
    await hub.settle()
    ends = [hub.me.node_key, hub.me.node_key, hub.me.node_key, hub.me.node_key, hub.authority]
    secrets = {hub.me.node_key: hub.me.secret_key, hub.authority: authority_secret(hub)}
    for by, void_from in zip(ends, (None, 1 << 60, 3, 2, 1), strict=True):
        hub.now_ms += 1
        said = Revocation(hub.me.mesh_id, key("anna"), void_from, by, hub.now_ms)
        await hub.say(3, statement.seal(said, hub.authority, [secrets[by]]))
        await hub.settle()
    ended = [statement.decode(3, text) for text in hub.texts() if b"/revocation/" in text]
    assert [said.void_from for said in ended if isinstance(said, Revocation)] == [None, 3, 1]
    assert len(hub.refused()) == 2 and hub.check().ok


async def test_an_end_that_names_a_former_key_ends_the_agent(hub: Site) -> None:
    await hub.enrol("anna")
    await hub.settle()
    await hub.enrol("anna 2", replaces="anna")
    await hub.settle()
    await hub.revoke("anna")  # by who has not heard of the new key
    await hub.settle()
    assert hub.size == 6 and not hub.refused() and hub.check().ok
    assert not hub.rows("SELECT 1 FROM agents WHERE until IS NULL AND NOT owner")


async def test_what_can_never_count_is_refused_once(hub: Site) -> None:
    await hub.enrol("anna")
    await hub.enrol("ben")
    fact = await hub.fact()
    await hub.vote("anna", fact, 1, counter=3)
    await hub.settle()
    await hub.database.write(lambda c: c.execute("DELETE FROM ballots") and None)
    await hub.vote("anna", fact, -1, counter=3)
    await hub.settle()
    assert hub.size == 7, "a clash: both values stand under one counter"
    await hub.database.write(lambda c: c.execute("DELETE FROM ballots") and None)
    for counter, value in ((2, 1), (3, 0)):
        signed, draft = hub.vote_on("anna", fact, value, counter, 7)
        await hub.write(draft)
        await hub.database.write(
            lambda c, signed=signed: c.execute("UPDATE ballots SET entry = NULL WHERE signed = ?", (signed,)) and None  # type: ignore[misc]
        )
    await hub.settle()
    assert hub.size == 7 and all("this version counts" in reason for reason in hub.refused())
    await hub.revoke("ben")
    await hub.settle()
    await hub.vote("ben", fact)
    await hub.enrol("anna", replaces="ben")
    await hub.settle()
    assert hub.refused()[-2:] == ["the agent was revoked, or has another key since", "this key is enrolled already"]
    look = await chosen(hub)
    assert not look.drafts and not look.refused and look.waiting == 0


async def test_of_three_values_under_one_counter_two_are_enough(hub: Site) -> None:
    await hub.enrol("anna")
    await hub.settle()
    fact = await hub.fact()
    await hub.write(*(hub.vote_on("anna", fact, value, 1, 10 + value)[1] for value in (-1, 0, 1)))
    assert hub.pending() == 3
    look = await chosen(hub)
    assert len(look.drafts) == 2 and len(look.refused) == 1


async def test_the_voter_who_wrote_the_version_is_marked(hub: Site) -> None:
    await hub.enrol("anna")
    await hub.vote("anna", await hub.fact())
    await hub.settle()
    assert decode(hub.table.read_entries(4, 1)[0]).own


async def test_a_project_has_one_key(hub: Site) -> None:
    await hub.enrol("anna")
    for number in range(3):
        await hub.vote("anna", await hub.fact(f"{number}"))
        await hub.settle()
    await hub.vote("anna", await hub.fact("x", "other"))
    await hub.settle()
    keys = dict(hub.rows("SELECT project, key FROM project_keys"))
    tags = [decode(raw).project_tag for raw in hub.table.read_entries(4, 9)]
    assert tags == [project_tag(keys[name], name) for name in (PROJECT, PROJECT, PROJECT, "other")]
    assert [op.project for op in hub.sent if op.header.kind == "project-key"] == [PROJECT, "other"]


async def test_a_look_is_bounded(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_SCAN", 2)
    await hub.enrol("anna")
    fact = await hub.fact()
    for number in range(5):
        await hub.vote(f"stranger {number}", fact)
    last = await hub.vote("anna", fact)
    cursor, looks = FIRST, 0
    while not (look := await chosen(hub, cursor)).end:
        cursor, looks = look.cursor, looks + 1
    assert looks >= 3
    await hub.settle()
    assert hub.texts()[4:] == [last] and hub.hub.state()["waiting"] == 5
