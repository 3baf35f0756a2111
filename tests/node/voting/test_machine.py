"""A node signs for its own agents, and for the mesh only where the mesh's key is."""

from dataclasses import replace

import pytest

from ledger import statement
from ledger.agents import Agent
from ledger.ed25519 import public_key, sign
from ledger.entry import Kind
from ledger.statement import Enrolment, Revocation
from node.errors import Problem
from node.voting.machine import Machine
from node.voting.roster import ENROLLED, Known
from tests.node.voting.polls import AUTHORITY, AUTHORITY_SECRET
from tests.node.world import MESH, NOW_MS, keys

NODE, NODE_SECRET = keys(1)
BO, BO_SECRET = keys(2)
NEW, NEW_SECRET = keys(3)
ORDINARY = Machine(MESH, "cellar", NODE_SECRET, AUTHORITY)
FOUNDER = replace(ORDINARY, authority_secret=lambda: AUTHORITY_SECRET)


def known(voice: bytes = NODE, owner: bool = False) -> Known:
    return Known(Agent(BO, BO, "bo", voice, owner, 3), "bo", "", ENROLLED, 3, True)


def test_an_enrolment_is_signed_by_all_who_must() -> None:
    text = ORDINARY.seal(ORDINARY.enrolment("bo", BO, NOW_MS), [BO_SECRET])
    said = statement.verify(Kind.ENROLMENT, text, AUTHORITY)
    assert said == Enrolment(MESH, BO, "bo", NODE, False, b"", NOW_MS)
    text = ORDINARY.seal(ORDINARY.enrolment("bo", NEW, NOW_MS, known()), [NEW_SECRET, BO_SECRET])
    assert statement.verify(Kind.ENROLMENT, text, AUTHORITY) == Enrolment(MESH, NEW, "bo", NODE, False, BO, NOW_MS)


def test_an_owner_has_a_new_key_where_the_authority_is() -> None:
    said = FOUNDER.enrolment("ada", NEW, NOW_MS, known(owner=True))
    assert said.owner
    assert statement.verify(Kind.ENROLMENT, FOUNDER.seal(said, [NEW_SECRET, BO_SECRET]), AUTHORITY) == said
    with pytest.raises(Problem) as refused:
        ORDINARY.seal(said, [NEW_SECRET, BO_SECRET])
    assert refused.value.code == "not_the_founder"


def test_a_signature_from_elsewhere_makes_the_same_text() -> None:
    said = ORDINARY.enrolment("bo", BO, NOW_MS)
    signature = sign(BO_SECRET, statement.payload(said))
    assert ORDINARY.attach(said, {BO: signature}) == ORDINARY.seal(said, [BO_SECRET])
    with pytest.raises(Problem) as refused:
        ORDINARY.attach(said, {BO: sign(NEW_SECRET, statement.payload(said))})
    assert (refused.value.status, refused.value.field) == (422, "signature")


def test_an_agent_is_ended_by_its_node_or_by_the_authority() -> None:
    def by(machine: Machine, voice: bytes, again: bool = False) -> bytes:
        said = statement.verify(Kind.REVOCATION, machine.end(known(voice), 9, NOW_MS, again=again), AUTHORITY)
        assert isinstance(said, Revocation) and (said.agent, said.void_from) == (BO, 9)
        return said.by

    assert by(ORDINARY, NODE) == by(FOUNDER, NODE) == NODE
    assert by(FOUNDER, public_key(NEW_SECRET)) == by(FOUNDER, NODE, again=True) == AUTHORITY
    with pytest.raises(Problem) as refused:
        by(ORDINARY, NEW)
    assert refused.value.code == "not_your_agent" and "founded" in refused.value.action
    with pytest.raises(Problem) as refused:
        by(ORDINARY, NODE, again=True)
    assert refused.value.code == "void_already" and "founded" in refused.value.action


def test_a_secret_is_not_shown() -> None:
    assert NODE_SECRET.hex() not in repr(FOUNDER) and repr(NODE_SECRET) not in repr(FOUNDER)
