"""node.search.rank: laws of the ranking."""

from math import isclose, sqrt

from hypothesis import given
from hypothesis import strategies as st

from node.search.rank import NEIGHBOUR_WEIGHTS, best, relative, with_neighbours

scores = st.dictionaries(st.integers(1, 50), st.floats(0.001, 100), max_size=20)


@given(scores)
def test_relative_keeps_the_order_and_gives_the_best_one(given_scores: dict[int, float]) -> None:
    shares = relative(given_scores)
    assert shares.keys() == given_scores.keys()
    assert best(shares, 1) == [] or max(shares.values()) == 1
    assert all(0 <= share <= 1 for share in shares.values())


def test_relative_of_nothing_is_nothing() -> None:
    assert relative({}) == {}


def test_of_equals_the_one_stored_last_is_first() -> None:
    assert best({1: 0.5, 3: 0.5, 2: 0.9, 4: 0.1}, 3) == [2, 3, 1]


@given(scores)
def test_without_neighbours_the_scores_decide(given_scores: dict[int, float]) -> None:
    shares = relative(given_scores)
    assert with_neighbours(shares, {}) == relative(shares)


def test_a_neighbour_that_matches_nothing_enters() -> None:
    matches = with_neighbours({1: 1.0}, {1: [(2, 1), (3, 2)]})
    assert matches[1] == 1
    assert isclose(matches[2], sqrt(NEIGHBOUR_WEIGHTS[0]))
    assert isclose(matches[3], sqrt(NEIGHBOUR_WEIGHTS[1]))
    assert best(matches, 3) == [1, 2, 3]


def test_neighbours_that_match_lift_each_other_above_one_that_stands_alone() -> None:
    matches = with_neighbours({1: 1.0, 10: 0.9, 11: 0.9}, {1: [], 10: [(11, 1)], 11: [(10, 1)]})
    assert best(matches, 3) == [11, 10, 1]


@given(scores, st.data())
def test_a_neighbour_never_puts_its_fact_behind_others(given_scores: dict[int, float], data: st.DataObject) -> None:
    shares = relative(given_scores)
    if not shares:
        return
    giver = data.draw(st.sampled_from(sorted(shares)))
    taker = data.draw(st.integers(1, 60).filter(lambda fact: fact != giver))
    distance = data.draw(st.integers(1, len(NEIGHBOUR_WEIGHTS)))
    plain = with_neighbours(shares, {})
    lent = with_neighbours(shares, {giver: [(taker, distance)]})

    def better(matches: dict[int, float]) -> set[int]:
        return {fact for fact, match in matches.items() if match > matches.get(taker, 0.0)}

    assert all(0 <= match <= 1 for match in lent.values())
    assert better(lent) <= better(plain)


def test_one_strong_neighbour_lends_more_than_two_weak_ones() -> None:
    matches = with_neighbours({1: 1.0, 5: 0.5, 7: 0.5}, {1: [(2, 1)], 5: [(6, 1)], 7: [(6, 1)]})
    assert isclose(matches[6] / matches[1], sqrt(2 * NEIGHBOUR_WEIGHTS[0] * 0.5**2))
    assert matches[6] < matches[2]
