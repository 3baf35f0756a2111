"""Only a node itself says where it is."""

import msgspec
import pytest

from node import addresses
from node.addresses import ADDRESSES, MAX_ADDRESSES
from node.store import Draft
from tests.node.world import Node

HERE, THERE = "10.0.0.5:7400", "[2001:db8::7]:7400"


async def write(node: Node, *places: str, about: str = "") -> None:
    await node.append(addresses.draft(about or node.store.node_id, places, node.ops()))


async def test_the_latest_word_of_the_node_itself_counts() -> None:
    one = Node(1)
    await write(one, HERE)
    await write(one, THERE, HERE)
    assert addresses.told(one.store.node_id, one.ops()) == (THERE, HERE)


async def test_what_others_say_about_a_node_is_ignored() -> None:
    one, liar = Node(1), Node(2)
    await write(one, HERE)
    await write(liar, "6.6.6.6:1", about=one.store.node_id)
    assert addresses.told(one.store.node_id, [*one.ops(), *liar.ops()]) == (HERE,)
    assert addresses.told(liar.store.node_id, [*one.ops(), *liar.ops()]) == ()


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"a": 1}), msgspec.msgpack.encode([1])])
async def test_a_body_that_is_no_list_of_addresses_is_nothing(body: bytes) -> None:
    one = Node(1)
    whole = addresses.draft(one.store.node_id, [HERE], [])
    await one.append(Draft(whole.project, whole.op_class, whole.subject, ADDRESSES, ADDRESSES, body))
    assert addresses.told(one.store.node_id, one.ops()) == ()


async def test_what_is_no_address_is_left_out_and_there_are_not_many() -> None:
    one = Node(1)
    await write(one, "nonsense", "host:0", *(f"10.0.0.{number}:1" for number in range(20)))
    told = addresses.told(one.store.node_id, one.ops())
    assert told == tuple(f"10.0.0.{number}:1" for number in range(MAX_ADDRESSES - 2))
