"""Addresses that were heard of are tried a few times, and never stand in the way of those that somebody gave."""

from node.hints import MAX_HINTS, TRIES, Hints


class Dialled:
    def __init__(self) -> None:
        self.dialled: list[str] = []
        self.dropped: list[str] = []
        self.hints = Hints(self.dialled.append, self.dropped.append)

    def hear(self, *addresses: str, node: str = "n") -> None:
        self.hints.heard(node, addresses, connected={"there"}, known={"given:1"})


def test_a_hint_is_dropped_after_some_tries_and_comes_back_when_it_is_heard_again() -> None:
    world = Dialled()
    world.hear("a:1", "b:1")
    assert world.dialled == ["a:1", "b:1"]
    assert [world.hints.failed("a:1") for _ in range(TRIES)] == [False] * (TRIES - 1) + [True]
    assert world.dropped == ["a:1"]
    assert "a:1" not in world.hints and "b:1" in world.hints
    world.hear("a:1")
    assert world.dialled[-1] == "a:1" and not world.hints.failed("a:1")


def test_a_node_that_is_connected_is_not_looked_for() -> None:
    world = Dialled()
    world.hear("a:1", node="there")
    assert not world.dialled


def test_an_address_that_somebody_gave_is_tried_now_and_never_dropped() -> None:
    world = Dialled()
    world.hear("given:1")
    assert world.dialled == ["given:1"]
    assert not any(world.hints.failed("given:1") for _ in range(TRIES + 1))


def test_an_address_that_led_to_a_peer_is_a_hint_no_more() -> None:
    world = Dialled()
    world.hear("a:1")
    world.hints.reached("a:1")
    assert not any(world.hints.failed("a:1") for _ in range(TRIES + 1))


def test_there_are_so_many_and_no_more() -> None:
    world = Dialled()
    world.hear(*(f"{number}:1" for number in range(MAX_HINTS + 5)))
    assert len(world.dialled) == MAX_HINTS
