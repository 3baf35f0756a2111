"""Who the agents are: as the ledger will say when it has everything, whichever part of it it has now."""

import itertools
import random
import sqlite3
from pathlib import Path

import pytest

from ledger.ed25519 import public_key
from ledger.statement import Enrolment, Revocation, kind_of
from node.voting import roster as rosters
from node.voting.records import statement_draft
from node.voting.requests import NewAgent
from node.voting.roster import ENROLLED, PENDING, REVOKED, UNPLACED, Roster
from tests.node.voting.polls import AUTHORITY, OWNER, Poll, polls
from tests.node.world import MESH, keys, refused, sync


@pytest.fixture
async def node(tmp_path: Path) -> Poll:
    (made,) = await polls(tmp_path)
    return made


def read(node: Poll) -> Roster:
    return Roster(node.database.direct, AUTHORITY)


async def say(node: Poll, said: Enrolment | Revocation, *signers: int) -> None:
    text = node.machine.seal(said, [keys(number)[1] for number in signers])

    def job(connection: sqlite3.Connection) -> None:
        node.store.append(connection, [statement_draft(kind_of(said), text)], node.now_ms)

    await node.database.write(job)


def enrolment(node: Poll, number: int, at: int, replaces: int = 0, name: str = "bo") -> Enrolment:
    return Enrolment(MESH, keys(number)[0], name, node.key, False, keys(replaces)[0] if replaces else b"", at)


async def test_a_chain_of_pending_statements_is_followed_whatever_the_clocks_said(node: Poll) -> None:
    for order in itertools.permutations(range(3)):
        base = 10 + 10 * order[0] + 3 * order[1]
        first, second, third = base, base + 1, base + 2
        await say(node, enrolment(node, first, 100 + order[0], name=f"a{order}"), first)
        await say(node, enrolment(node, second, 100 + order[1], first, f"a{order}"), first, second)
        await say(node, enrolment(node, third, 100 + order[2], second, f"a{order}"), second, third)
        (known,) = read(node).named(f"a{order}")
        assert (known.agent.key, known.principal) == (keys(third)[0], keys(first)[0])
        assert (known.state, known.since, known.in_ledger) == (PENDING, None, False)
        assert set(read(node).keys_of(known.principal)) == {keys(number)[0] for number in (first, second, third)}


async def test_what_is_pending_has_the_effect_that_the_ledger_will_give_it(node: Poll) -> None:
    """Random histories: the roster over a part of the ledger and the rest pending is the one over the whole ledger."""
    chance = random.Random(5)
    names = [f"agent {number}" for number in range(4)]
    for _ in range(30):
        node.now_ms += 1
        name = chance.choice(names)
        ours = [known for known in read(node).named(name) if not known.revoked]
        match chance.choice(("add", "rotate", "revoke", "commit")):
            case "add":
                await node.agents.add(NewAgent(name=name))
            case "rotate" if ours:
                await node.agents.rotate(name)
            case "revoke" if ours and chance.random() < 0.5:
                await node.agents.revoke(name)
            case "commit" if chance.random() < 0.5:
                before = outline(node)
                await node.commit()
                assert outline(node) == before
    assert len(outline(node)) > 3


def outline(node: Poll) -> list[tuple[str, bytes, bytes, bool]]:
    return [(known.name, known.principal, known.agent.key, known.revoked) for known in read(node).everybody()]


async def test_states_follow_the_ledger(node: Poll) -> None:
    await node.agents.add(NewAgent(name="bo"))
    (known,) = read(node).named("bo")
    assert (known.state, known.agent.since, known.in_ledger) == (PENDING, UNPLACED, False)
    await node.commit()
    (known,) = read(node).named("bo")
    assert (known.state, known.since, known.in_ledger) == (ENROLLED, node.entries() - 1, True)
    await node.agents.revoke("bo")
    (known,) = read(node).named("bo")
    assert (known.state, known.since, known.in_ledger) == (REVOKED, node.entries() - 1, False)


async def test_a_statement_without_effect_changes_nothing(node: Poll) -> None:
    await node.agents.add(NewAgent(name="bo"))
    await node.commit()
    (before,) = read(node).named("bo")
    await say(node, enrolment(node, 7, 5, replaces=8, name="x"), 7, 8)  # a key that nobody has
    await say(node, Revocation(MESH, keys(9)[0], None, node.key, 5))
    await say(node, Revocation(MESH, before.agent.key, None, keys(7)[0], 5), 7)  # by a stranger
    assert read(node).named("bo") == [before]
    assert read(node).named("x") == [] and read(node).by_key(keys(7)[0]) is None


async def test_an_agent_is_found_by_name_or_by_the_first_digits_of_its_key(node: Poll) -> None:
    made, _ = await node.agents.add(NewAgent(name="bo"))
    for committed in (False, True):
        if committed:
            await node.commit()
        for word in ("bo", made["key"], made["key"][:8], made["key"][:9]):
            assert read(node).find(word, node.key).agent.key.hex() == made["key"]
        for word in ("b", made["key"][:7], made["key"][:8] + "zz", "f" * 64):
            with pytest.raises(Exception, match="no agent"):
                read(node).find(word, node.key)


async def test_a_name_that_looks_like_a_key_is_a_name(node: Poll) -> None:
    bo, _ = await node.agents.add(NewAgent(name="bo"))
    await node.agents.add(NewAgent(name=bo["key"][:8]))
    assert read(node).find(bo["key"][:8], node.key).name == bo["key"][:8]


async def test_everybody_and_those_of_one_node(tmp_path: Path) -> None:
    founder, other = await polls(tmp_path, 2)
    await founder.agents.add(NewAgent(name="bo"))
    await other.agents.add(NewAgent(name="cy"))
    await sync(founder, other)
    assert [known.name for known in read(founder).everybody()] == [OWNER, "bo", "cy"]
    assert [known.name for known in read(founder).of_voice(other.key)] == ["cy"]
    assert {known.name for known in read(founder).of_voice(founder.key)} == {OWNER, "bo"}
    assert public_key(founder.secret) == founder.key


async def test_a_profile_of_nobody_yet_waits_for_its_enrolment(tmp_path: Path) -> None:
    founder, other = await polls(tmp_path, 2)
    made, _ = await founder.agents.add(NewAgent(name="bo", about="text"))
    profile = next(op for op in founder.heard if op.header.kind == "profile")
    statement = next(op for op in founder.heard if op.header.kind == "statement")

    def show(op: object) -> None:
        other.store.shows["agent" if op is profile else "ledger"](
            other.database.direct,
            reserved,
            op.subject,
            [op],  # type: ignore[attr-defined]
        )

    await sync(founder, other)
    (reserved,) = other.rows("SELECT id FROM projects WHERE name = ?", profile.project)[0]
    await other.database.write(lambda connection: connection.execute("DELETE FROM profiles"))
    await other.database.write(lambda connection: connection.execute("DELETE FROM statements"))
    show(profile)
    await refused(other.agents.show("bo"), 404, "unknown_agent", "agent")
    show(statement)
    assert (await other.agents.show("bo"))["about"] == "text"
    rosters.clear_profiles(other.database.direct)
    assert (await other.agents.show(made["key"]))["about"] == ""
