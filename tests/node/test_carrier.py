"""What the core of sync may ask of a node is what its store says, and the protocol of sync is all there is to ask."""

import inspect

from crdt.hlc import wall_ms
from node.carrier import Carrier
from sync import merkle
from sync.overlap import RESERVED
from sync.replica import Replica
from tests.node.world import NOW_MS, PROJECT, a_mesh


async def test_it_is_what_sync_asks_for() -> None:
    (node,) = await a_mesh(1)
    carrier: Replica = Carrier(node.store, ["*"], lambda: NOW_MS)  # mypy holds it against the protocol
    asked = {name for name in vars(Replica) if not name.startswith("_")}
    assert asked <= set(dir(carrier))
    for name in asked:
        assert inspect.signature(getattr(Replica, name)).parameters.keys() - {"self"} == (
            inspect.signature(getattr(carrier, name)).parameters.keys()
        )


async def test_it_tells_what_the_store_holds() -> None:
    (node,) = await a_mesh(1)
    carrier = Carrier(node.store, ["team/*", PROJECT], lambda: NOW_MS)
    assert list(carrier.carries()) == ["team/*", PROJECT]
    assert carrier.root(PROJECT) == merkle.EMPTY_ROOT
    await node.create("one")
    await node.create("two")
    assert list(carrier.projects()) == [RESERVED, PROJECT]
    assert carrier.vector(PROJECT) == {node.store.author: 3}
    assert carrier.root(PROJECT) == node.store.root(PROJECT) != merkle.EMPTY_ROOT
    raws = [op.raw for op in node.ops() if op.project == PROJECT]
    assert carrier.ops_after(PROJECT, node.store.author, 0, 10, 1 << 20) == raws
    assert carrier.ops_after(PROJECT, node.store.author, 2, 10, 1 << 20) == raws[1:]
    assert carrier.ops_after(PROJECT, node.store.author, 0, 1, 1 << 20) == raws[:1]
    assert carrier.wall_ms() == NOW_MS
    assert wall_ms(node.ops()[-1].timestamp) == NOW_MS
