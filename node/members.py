"""Member records: how each node introduces itself to nodes that it never meets.

A record is an op in the reserved project, by the node about itself, that carries the certificate which the mesh's CA
gave it. It is the first op that a node writes, and the reserved project is sent first, so whoever receives a node's ops
has its certificate before them. Tests: tests/node/test_members.py.
"""

import msgspec

from crdt.op import Op, OpClass
from crdt.survive import clock_over
from crdt.version import node_id
from node.identity import Identity
from node.mesh import BadCertificate, check_member
from node.store import Draft, Introduction
from sync.overlap import RESERVED

MEMBER = "member"


def draft(me: Identity, earlier: list[Op]) -> Draft:
    """The op that introduces this node. `earlier`: its records that are here already."""
    body = msgspec.msgpack.encode(me.certificate)
    return Draft(RESERVED, OpClass.WRITE, me.node_id, MEMBER, MEMBER, body, clock_over(earlier))


def introduction(ca: bytes, op: Op) -> Introduction | None:
    """Who the op introduces; None when it is no member record, or not a true one about its own author."""
    if op.header.kind != MEMBER or op.header.subject != node_id(op.header.node_key):
        return None
    try:
        certificate = msgspec.msgpack.decode(op.header.body, type=bytes)
        member = check_member(ca, certificate)
    except (msgspec.MsgspecError, BadCertificate):
        return None
    if member.node_key != op.header.node_key:
        return None
    return Introduction(member.node_id, member.name, certificate)
