"""Lags are counted from vectors while nodes talk, and from rows across a restart."""

from crdt.hlc import DEFAULT_AHEAD_MS
from crdt.version import node_id
from node import lags
from node.lags import LEVEL, Lag, Standing
from tests.node.world import NOW_MS, PROJECT, Forger, Node, a_record, pull

ALL = Standing(patterns=("*",))


async def wrote(node: Node, count: int, project: str = PROJECT) -> None:
    await node.append(*(a_record(f"fact {number}", project) for number in range(count)))


async def test_what_a_vector_does_not_claim_is_lacking() -> None:
    here, there = Node(1), Node(2)
    await here.introduce()
    await there.introduce()
    await wrote(here, 3)
    await pull(there, here)
    here.now_ms += 60_000
    await wrote(here, 2)
    theirs = there.store.vector(PROJECT)
    direct = here.database.direct
    assert lags.lacking(direct, PROJECT, here.store.vector(PROJECT), theirs) == (2, here.now_ms)
    assert lags.lacking(direct, PROJECT, here.store.vector(PROJECT), {}) == (5, NOW_MS)
    assert lags.lacking(direct, PROJECT, here.store.vector(PROJECT), here.store.vector(PROJECT)) == (0, 0)
    assert lags.lacking(direct, "elsewhere", {}, theirs) == (0, 0)


async def test_news_count_where_the_peer_carries_the_project() -> None:
    node = Node(1)
    await wrote(node, 2, "team/red")
    await wrote(node, 3, "diary")
    ops = node.ops()
    assert ALL.with_news(ops).ahead == Lag(5, NOW_MS)
    assert Standing(patterns=("team/*",)).with_news(ops).ahead == Lag(2, NOW_MS)
    assert Standing().with_news(ops).ahead == LEVEL


async def test_a_standing_outlives_a_restart_and_later_ops_count() -> None:
    node = Node(1)
    await wrote(node, 4)
    direct = node.database.direct
    saved = Standing(Lag(2, NOW_MS - 5_000), Lag(7, NOW_MS - 9_000), (PROJECT,))
    lags.save(direct, {"b": saved, "c": Standing(patterns=("diary",))})
    assert lags.load(direct) == {"b": saved, "c": Standing(patterns=("diary",))}
    await wrote(node, 3)
    await wrote(node, 1, "diary")
    after = lags.load(direct)
    assert after["b"].ahead == Lag(5, NOW_MS - 5_000)
    assert after["b"].behind == saved.behind
    assert after["c"].ahead == Lag(1, NOW_MS)


def test_seconds_are_the_age_of_the_oldest() -> None:
    assert Lag(3, NOW_MS - 90_000).shown(NOW_MS) == {"ops": 3, "seconds": 90}
    assert Lag(0, NOW_MS - 90_000).shown(NOW_MS) == {"ops": 0, "seconds": 0}
    assert Lag(1, NOW_MS + 5_000).shown(NOW_MS) == {"ops": 1, "seconds": 0}, "their clock is ahead"


async def test_what_is_held_or_waits_or_lies_aside_names_its_author() -> None:
    node, other = Node(1), Forger(2)
    missing = (Forger(3).author, 9)
    first = other.op(2, timestamp=(NOW_MS + 3_600_000) << 16)
    second = other.op(3, first, clock=(missing,))
    lost = other.op(4, second)
    await node.merge([other.introduction(), first, second, other.op(5, lost)])
    found = lags.backlog(node.database.direct, DEFAULT_AHEAD_MS)
    assert found.held[node_id(other.key)] == lags.Held(1, NOW_MS + 3_600_000 - DEFAULT_AHEAD_MS)
    assert found.waiting == {node_id(other.key): 1}
    assert found.aside == 1
