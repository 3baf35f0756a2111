"""Where each node says that it can be reached: a signed register of its own in the reserved project.

So a node that knows one peer learns the addresses of all, from whichever peer, and finds them again when that one is
gone. Only the node itself may say it: an op of another author about it counts for nothing here, whatever its clock. An
address is a hint; who answers there is what its certificate says.

A node writes when its addresses have changed, and not more often than every MIN_WRITE_MS: each write is kept for good.
Tests: tests/node/test_addresses.py.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from crdt.op import Op, OpClass
from crdt.register import resolve
from crdt.survive import clock_over, in_register
from crdt.version import node_id
from node.errors import Problem
from node.invitation import parse_address
from node.store import Draft
from sync.overlap import RESERVED

ADDRESSES: Final = "addresses"
"""Both the field and the kind of its ops."""
MAX_ADDRESSES: Final = 8
MIN_WRITE_MS: Final = 60_000


def draft(node: str, addresses: Sequence[str], earlier: Iterable[Op]) -> Draft:
    """The op that tells where this node is. `earlier`: the ops about it that are here."""
    body = msgspec.msgpack.encode(list(addresses[:MAX_ADDRESSES]))
    clock = clock_over(in_register(_own(node, earlier), ADDRESSES))
    return Draft(RESERVED, OpClass.WRITE, node, ADDRESSES, ADDRESSES, body, clock)


def told(node: str, ops: Iterable[Op]) -> tuple[str, ...]:
    """Where `node` says that it is, the likeliest first. `ops`: those about it; what it has not written is ignored."""
    writes = [op for op in in_register(_own(node, ops), ADDRESSES) if op.header.kind == ADDRESSES]
    winner = resolve(writes).winner
    if winner is None:
        return ()
    try:
        addresses = msgspec.msgpack.decode(winner.header.body, type=list[str])
    except msgspec.MsgspecError:
        return ()
    return tuple(address for address in addresses[:MAX_ADDRESSES] if _fits(address))


def _own(node: str, ops: Iterable[Op]) -> list[Op]:
    return [op for op in ops if op.header.subject == node == node_id(op.header.node_key)]


def _fits(address: str) -> bool:
    try:
        parse_address(address)
    except Problem:
        return False
    return True
