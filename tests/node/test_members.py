"""A node introduces itself with its first op; nobody else can do it for it, and nothing else does."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.op import FORMAT, Header, Op, OpClass, seal
from crdt.version import node_id
from node import identity, members, mesh
from node.identity import Identity
from node.paths import Home
from node.store import Draft
from sync.overlap import RESERVED

NOW_MS = 1_800_000_000_000


@dataclass(frozen=True)
class Party:
    authority: mesh.Authority
    me: Identity


def a_member(authority: mesh.Authority, path: str, name: str = "anna") -> Identity:
    seed = identity.new_seed()
    key, secret = identity.key_pair(seed)
    certificate = mesh.issue(authority, key, name, mesh.Role.MEMBER, ("*",), NOW_MS)
    return Identity(Home(path), key, secret, certificate, authority.ca, False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def party() -> Party:
    authority = mesh.found_authority(NOW_MS)
    return Party(authority, a_member(authority, "/nowhere"))


def sign(me: Identity, draft: Draft) -> Op:
    assert isinstance(draft.body, bytes)
    header = Header(
        FORMAT, draft.project, int(draft.op_class), draft.subject, draft.field, me.node_key, 7, 1, 0, b"", 0,
        draft.clock, draft.kind, draft.body,
    )  # fmt: skip
    return seal(me.mesh_id, header, me.secret_key)


def a_record(me: Identity, certificate: bytes | None = None, **more: Any) -> Op:
    draft = members.draft(me, [])
    body = draft.body if certificate is None else msgspec.msgpack.encode(certificate)
    fields = {
        name: more.get(name, getattr(draft, name)) for name in ("project", "op_class", "subject", "field", "kind")
    }
    return sign(me, Draft(**fields, body=more.get("body", body), clock=()))  # type: ignore[arg-type]


def test_a_record_introduces_its_author(party: Party) -> None:
    op = a_record(party.me)
    assert op.project == RESERVED
    introduced = members.introduction(party.me.ca, op)
    assert introduced == (party.me.node_id, "anna", party.me.certificate)
    assert introduced is not None
    assert introduced.node == node_id(op.header.node_key)


def test_a_later_record_has_seen_the_earlier_ones(party: Party) -> None:
    earlier = a_record(party.me)
    assert members.draft(party.me, [earlier]).clock == ((earlier.author, earlier.seq),)


def test_a_certificate_of_somebody_else_introduces_nobody(party: Party) -> None:
    other = a_member(party.authority, "/elsewhere", "bob")
    assert members.introduction(party.me.ca, a_record(party.me, other.certificate)) is None
    assert members.introduction(party.me.ca, a_record(party.me, subject=other.node_id)) is None
    lie = a_record(party.me, other.certificate, subject=other.node_id)
    assert members.introduction(party.me.ca, lie) is None


def test_a_certificate_of_another_mesh_introduces_nobody(party: Party) -> None:
    stranger = a_member(mesh.found_authority(NOW_MS), "/elsewhere")
    assert members.introduction(party.me.ca, a_record(stranger)) is None


@pytest.mark.parametrize("more", [{"kind": "value"}, {"subject": "somebody"}])
def test_what_is_no_member_record(party: Party, more: dict[str, Any]) -> None:
    assert members.introduction(party.me.ca, a_record(party.me, **more)) is None


@given(body=st.binary(max_size=60))
def test_no_body_breaks_it(party: Party, body: bytes) -> None:
    assert members.introduction(party.me.ca, a_record(party.me, body=body)) is None
    assert members.introduction(party.me.ca, a_record(party.me, certificate=body)) is None


def test_a_damaged_certificate_introduces_nobody(party: Party) -> None:
    good = party.me.certificate
    for at in range(0, len(good), 7):
        damaged = good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :]
        assert members.introduction(party.me.ca, a_record(party.me, damaged)) is None


def test_every_class_and_field_of_a_record_is_judged_alike(party: Party) -> None:
    """What is not read here must not decide who is a member: only key, subject, kind and certificate do."""
    for op_class in OpClass:
        assert members.introduction(party.me.ca, a_record(party.me, op_class=op_class, field="other")) is not None
