"""Kept addresses always, of the others a few at chance, and a node that is full says so to who can go elsewhere."""

from math import inf
from random import Random

from sync.view import DIALLED, KEPT, MAX_HEARD, MAX_SESSIONS, SEARCH_S, SHUFFLE_S, View, welcome


def heard(count: int, seed: int = 1) -> View:
    view = View(Random(seed))
    for place in range(count):
        view.hear(f"h{place}", 0.0)
    return view


def nobody(peer: str) -> bool:
    return False


def test_kept_addresses_are_all_dialled_and_of_the_others_a_few() -> None:
    view = heard(50)
    for place in range(5):
        view.keep(f"k{place}", 0.0)
    assert sorted(view.take_due(0.0)) == [f"k{place}" for place in range(5)], "five that are kept are enough"
    assert len(list(heard(50).take_due(0.0))) == DIALLED
    assert len({tuple(sorted(heard(50, seed).take_due(0.0))) for seed in range(20)}) > 10, "at chance"


def test_while_enough_are_connected_nothing_is_due() -> None:
    view = heard(50)
    dialled = list(view.take_due(0.0))
    assert list(view.take_due(1.0)) == [] and view.deadline >= SEARCH_S * 0.8
    view.reached(dialled[0], "a")
    view.agreed("a")
    view.failed(dialled[1], 2.0)
    (another,) = view.take_due(2.0)
    assert another not in dialled
    view.lost("a", 3.0)
    assert len(list(view.take_due(3.0))) == 1


def test_no_more_addresses_are_remembered_than_fit() -> None:
    view = heard(MAX_HEARD * 3)
    seen = set()
    for _ in range(MAX_HEARD * 3):
        for address in view.take_due(0.0):
            seen.add(address)
            view.drop(address)
    assert len(seen) == MAX_HEARD
    assert any(int(address[1:]) >= MAX_HEARD for address in seen), "later ones take the place of earlier ones"


def test_an_address_that_is_kept_is_not_heard_of_besides() -> None:
    view = heard(1)
    view.keep("h0", 0.0)
    view.hear("h0", 0.0)
    assert list(view.take_due(0.0)) == ["h0"]
    view.drop("h0")
    assert list(view.take_due(inf)) == []


def connected(count: int) -> View:
    view = heard(count)
    for address in view.take_due(0.0):
        view.reached(address, f"peer at {address}")
    return view


def test_a_chosen_peer_gives_way_to_another_once_in_a_while() -> None:
    view, now, parted = connected(20), 0.0, []
    while now < 4 * SHUFFLE_S:
        now = view.deadline
        if peer := view.exchange(now, nobody):
            parted.append(now)
            view.lost(peer, now)
            for address in view.take_due(now):
                view.reached(address, f"peer at {address}")
    assert 2 <= len(parted) <= 5


def test_a_peer_that_shares_nothing_gives_way_soon() -> None:
    view = connected(20)
    useless = view.exchange(SEARCH_S * 1.2, lambda peer: True)
    assert useless
    assert connected(3).exchange(SEARCH_S * 1.2, lambda peer: True) is None, "there is nobody else to try"


def test_who_is_welcome() -> None:
    assert welcome(KEPT - 1, False, False, 5)
    assert not welcome(KEPT, False, False, 5)
    assert welcome(KEPT, False, False, 0), "it has nobody else"
    assert welcome(KEPT, False, True, 5) and welcome(KEPT, True, False, 5), "a hub"
    assert not welcome(MAX_SESSIONS, True, True, 0)
