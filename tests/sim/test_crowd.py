"""A hundred and a thousand nodes: news is everywhere soon, costs few messages, and nobody holds many connections."""

import pytest

from sync.trickle import METERED_S
from sync.view import KEPT
from tests.sim.crowd import Crowd

STRAGGLERS = 4
"""Connections above KEPT that a node may hold: of such as had nobody else when they came."""


@pytest.fixture(scope="module")
def hundred() -> Crowd:
    return Crowd(100).meet()


def test_a_hundred_hear_of_a_write_within_a_second(hundred: Crowd) -> None:
    for _ in range(10):
        arrived = hundred.spread()
        assert len(arrived) == 99
        assert arrived[-1] <= 1.0
        hundred.run(1.0)
        assert sum(hundred.said.values()) <= 12 * 100


def test_the_eager_connections_thin_out_to_a_tree(hundred: Crowd) -> None:
    """So each node gets an op about once, and its dot from some."""
    for _ in range(5):
        hundred.spread()
        hundred.run(60.0)
    hundred.spread()
    hundred.run(1.0)
    assert hundred.said["Push"] <= 1.05 * 99
    assert hundred.said["Want"] <= 1
    assert hundred.said["Took"] == hundred.said["Push"]
    assert hundred.said["Have"] <= 3 * 100
    assert sum(hundred.weight.values()) <= 450 * 100, "bytes a node, for an op of 250 to 400"


def test_a_thousand_are_in_one_piece_and_nobody_is_connected_to_many() -> None:
    crowd = Crowd(1_000).meet(60.0)
    degrees = sorted(len(member.links) for member in crowd.members.values())
    assert crowd.in_one_piece()
    assert degrees[0] >= 2
    assert degrees[950] <= KEPT and degrees[-1] <= KEPT + STRAGGLERS
    arrived = crowd.spread()
    assert arrived[989] <= 1.0 and arrived[-1] <= 2.0
    crowd.run(1.0)
    assert sum(crowd.said.values()) <= 12 * 1_000


def test_a_burst_costs_little_more_than_a_single_write(hundred: Crowd) -> None:
    """What is written together travels together."""
    hundred.spread(ops=20)
    hundred.run(1.0)
    assert sum(hundred.said.values()) <= 12 * 100


@pytest.mark.slow
def test_ten_thousand() -> None:
    crowd = Crowd(10_000).meet()
    assert crowd.in_one_piece()
    assert crowd.spread()[-1] <= 5.0
    crowd.run(1.0)
    assert sum(crowd.said.values()) <= 12 * 10_000


FRAME_BYTES = 6 + 22 + 52 + 52
"""Around each message: WebSocket and its mask, TLS 1.3, TCP and IP, and the acknowledgement of TCP."""
DAY_S = 86_400.0


@pytest.mark.parametrize(("interval_s", "most"), [(30.0, 2_000_000), (METERED_S, 250_000)])
def test_a_quiet_day_with_two_peers(interval_s: float, most: int) -> None:
    crowd = Crowd(3, interval_s=interval_s).meet()
    crowd.spread()
    crowd.run(300.0)
    crowd.said.clear()
    crowd.weight.clear()
    crowd.run(DAY_S)
    everybody = sum(crowd.weight.values()) + FRAME_BYTES * sum(crowd.said.values())
    assert everybody * 2 / 3 <= most, "what one node sends and receives"
