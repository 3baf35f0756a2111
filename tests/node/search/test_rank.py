"""node.search.rank: laws of the ranking."""

from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.score import Trust
from node.search.rank import (
    NAMED,
    NEIGHBOUR_WEIGHTS,
    TRUSTED,
    VECTOR_WEIGHT,
    best,
    fused,
    named,
    relative,
    speaker,
    trusted,
    with_neighbours,
)

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


shares = st.dictionaries(st.integers(1, 50), st.floats(0.001, 1), max_size=20)


@given(shares, shares)
def test_fusing_is_linear_and_stays_between_0_and_1(text: dict[int, float], vector: dict[int, float]) -> None:
    both = fused(text, vector)
    assert both.keys() == text.keys() | vector.keys()
    assert all(0 <= score <= 1 for score in both.values())
    top = max(vector.values(), default=1.0)
    for fact, score in both.items():
        expected = (1 - VECTOR_WEIGHT) * text.get(fact, 0) + VECTOR_WEIGHT * vector.get(fact, 0) / top
        assert isclose(score, expected)


@given(shares)
def test_one_leg_alone_keeps_its_order(given_shares: dict[int, float]) -> None:
    assert best(fused(given_shares, {}), 20) == best(given_shares, 20) == best(fused({}, given_shares), 20)


def test_words_that_are_hardly_there_give_way_to_meaning() -> None:
    """The share of the words is absolute, that of the cosines relative: a poor text score does not become good."""
    assert best(fused({1: 0.1}, {1: 0.05, 2: 0.6}), 2) == [2, 1]
    assert best(fused({1: 0.9}, {1: 0.05, 2: 0.6}), 2) == [1, 2]


@pytest.mark.parametrize(
    ("opening", "name"),
    [
        ("Ada: I start on Monday", "Ada"),
        ("Decision about the pump: wait", "Decision about the pump"),
        ("at 12:30 the pump stopped", ""),
        ("see http://example.org", ""),
        ("no colon", ""),
        ("", ""),
        (": nothing before it", ""),
    ],
)
def test_who_speaks_stands_before_the_first_colon(opening: str, name: str) -> None:
    assert speaker(opening) == name


def test_who_is_named_is_favoured() -> None:
    speakers = {1: ("Ada",), 2: ("Bob", "Stone"), 3: ()}
    matches = {1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4}
    assert named(matches, speakers, ["nobody"]) == matches
    favoured = named(matches, speakers, ["when", "bob"])
    assert best(favoured, 4) == [2, 1, 3, 4]
    assert favoured[2] == 1 and isclose(favoured[1], 1 / (0.8 * NAMED))
    assert named({}, {}, ["bob"]) == {}


trust = st.dictionaries(st.integers(1, 50), st.sampled_from(Trust), max_size=20)


@given(scores)
def test_where_nobody_has_voted_the_ranking_is_as_it_was(given_scores: dict[int, float]) -> None:
    matches = relative(given_scores)
    assert trusted(matches, {}) is matches
    assert trusted(matches, dict.fromkeys(matches, Trust.UNSETTLED)) is matches
    assert trusted(matches, {51: Trust.VERIFIED}) is matches


@given(scores, trust)
def test_trust_moves_a_fact_and_takes_none_away(given_scores: dict[int, float], said: dict[int, Trust]) -> None:
    matches = relative(given_scores)
    after = trusted(matches, said)
    assert after.keys() == matches.keys() and all(0 <= match <= 1 for match in after.values())
    for one in matches:
        for other in matches:
            if matches[one] >= matches[other] and said.get(one) == said.get(other):
                assert after[one] >= after[other]


def test_what_is_verified_rises_among_its_like_and_what_is_disputed_sinks() -> None:
    matches = {1: 0.6, 2: 0.6, 3: 0.6, 4: 0.6, 5: 1.0, 6: 0.2}
    said = {1: Trust.VERIFIED, 2: Trust.DISPUTED, 3: Trust.CONTESTED, 5: Trust.UNSETTLED}
    assert best(trusted(matches, said), 6) == [5, 1, 4, 3, 2, 6]  # nothing is verified past what fits far better
    assert TRUSTED[Trust.DISPUTED] < TRUSTED[Trust.CONTESTED] < 1 < TRUSTED[Trust.VERIFIED] < 1.25
