"""Who may vote: enrolments, keys that are replaced, revocations, and what has no effect."""

from collections.abc import Iterator

import pytest

from ledger.agents import Agent, Agents
from ledger.statement import Enrolment, Revocation
from tests.ledger.world import MESH, key


def enrolment(agent: str, machine: str = "hub", replaces: str = "", owner: bool = False) -> Enrolment:
    return Enrolment(MESH, key(agent), agent, key(machine), owner, key(replaces) if replaces else b"", 1)


def revocation(agent: str, by: str, void_from: int | None = None) -> Revocation:
    return Revocation(MESH, key(agent), void_from, key(by), 1)


@pytest.fixture
def agents() -> Agents:
    agents = Agents(key("authority"))
    agents.apply(5, enrolment("ada"))
    return agents


def votes_at(agents: Agents, agent: str, *indices: int) -> list[bool]:
    return [agents.voter(key(agent), index) is not None for index in indices]


def test_an_agent_votes_after_its_enrolment(agents: Agents) -> None:
    assert votes_at(agents, "ada", 4, 5, 6) == [False, False, True]
    assert votes_at(agents, "eve", 6) == [False]


def test_a_key_is_enrolled_once(agents: Agents) -> None:
    again = enrolment("ada", "elsewhere", owner=True)
    assert agents.objection(again)
    agents.apply(6, again)
    assert agents.known[key("ada")].voice == key("hub") and not agents.known[key("ada")].owner


def test_a_new_key_is_the_same_agent(agents: Agents) -> None:
    agents.apply(10, enrolment("ada 2", replaces="ada"))
    agents.apply(20, enrolment("ada 3", "elsewhere", replaces="ada 2"))
    assert votes_at(agents, "ada", 9, 10, 11) == [True, False, False]
    assert votes_at(agents, "ada 2", 10, 11, 20) == [False, True, False]
    newest = agents.voter(key("ada 3"), 21)
    assert newest and newest.principal == key("ada") and newest.voice == key("elsewhere")


def test_only_a_key_in_use_is_replaced(agents: Agents) -> None:
    agents.apply(10, enrolment("ada 2", replaces="ada"))
    for replaced in ("ada", "nobody"):
        assert agents.objection(enrolment("eve", replaces=replaced))
        agents.apply(11, enrolment("eve", replaces=replaced))
    assert votes_at(agents, "eve", 12) == [False]


@pytest.mark.parametrize("by", ["ada", "hub", "authority"])
def test_the_agent_its_node_and_the_authority_revoke(agents: Agents, by: str) -> None:
    assert agents.objection(revocation("ada", by)) is None
    agents.apply(10, revocation("ada", by))
    assert votes_at(agents, "ada", 9, 10, 11) == [True, False, False]


@pytest.mark.parametrize(("agent", "by"), [("ada", "eve"), ("ada", "another hub"), ("nobody", "authority")])
def test_a_strangers_revocation_has_no_effect(agents: Agents, agent: str, by: str) -> None:
    assert agents.objection(revocation(agent, by, 0))
    assert not agents.apply(10, revocation(agent, by, 0))
    assert votes_at(agents, "ada", 11) == [True]


def test_a_revocation_ends_every_key_of_the_agent(agents: Agents) -> None:
    agents.apply(10, enrolment("ada 2", replaces="ada"))
    assert agents.apply(20, revocation("ada", "hub", 12))
    assert votes_at(agents, "ada 2", 11, 12, 21) == [True, False, False]
    assert votes_at(agents, "ada", 9) == [True]
    assert agents.objection(enrolment("ada 3", replaces="ada 2"))


def test_the_lowest_cut_wins(agents: Agents) -> None:
    assert agents.apply(20, revocation("ada", "hub", 12))
    assert not agents.apply(21, revocation("ada", "hub", 15))
    assert not agents.apply(22, revocation("ada", "hub"))
    assert agents.apply(23, revocation("ada", "hub", 8))
    assert agents.void_from[key("ada")] == 8


def test_a_cut_after_the_revocation_voids_nothing(agents: Agents) -> None:
    assert not agents.apply(20, revocation("ada", "hub", 20))
    assert votes_at(agents, "ada", 19) == [True]


def test_an_end_costs_no_look_at_other_agents() -> None:
    """A member may enrol any number of agents and end them all: every node pays for each."""

    class Unread(dict[bytes, Agent]):
        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("all agents are looked at")

        values = items = keys = __iter__  # type: ignore[assignment]

    agents = Agents(key("authority"), Unread(), keys_of=lambda principal: [key("ada"), key("eve"), key("ada 2")])
    agents.apply(5, enrolment("ada"))
    agents.apply(6, enrolment("eve"))
    agents.apply(7, enrolment("ada 2", replaces="ada"))
    agents.apply(8, revocation("ada", "hub"))
    assert votes_at(agents, "ada 2", 9) == [False] and votes_at(agents, "eve", 9) == [True]
    assert agents.in_use(key("ada")) is None and agents.in_use(key("eve")) == agents.known[key("eve")]
