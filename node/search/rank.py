"""From scores to a ranking: what a fact says itself, and what was said around it.

In a conversation the answer often stands beside the words of the question: "Did you get the job?" - "I start on
Monday". So a fact's match is not its own score s alone but

    sqrt(s^2 + sum over neighbours: weight * their own score^2)

Squares, because one strong neighbour tells more than three weak ones; the root brings the result back to the scale of
the scores. A neighbour that matches nothing itself enters the ranking this way. Pure functions of scores in 0..1.

Measured on dialogue with bench/locomo.py; see bench/README.md. Tests: tests/node/search/test_rank.py.
"""

from collections.abc import Mapping, Sequence
from heapq import nsmallest
from math import sqrt
from typing import Final

NEIGHBOUR_WEIGHTS: Final = (0.5, 0.3)
"""By distance in the order of storing: the one next to a fact, and the one after that."""
GIVERS: Final = 20
"""How many of the best facts lend to their neighbours. With 100 recall on dialogue is no better."""


def relative(scores: Mapping[int, float]) -> dict[int, float]:
    """The scores as shares of the best, 0..1."""
    top = max(scores.values(), default=0.0)
    return {fact: score / top for fact, score in scores.items()} if top > 0 else {}


def best(scores: Mapping[int, float], count: int) -> list[int]:
    """The `count` facts with the highest scores, best first; of equals the one stored last."""
    return nsmallest(count, scores, key=lambda fact: (-scores[fact], -fact))


def with_neighbours(scores: Mapping[int, float], around: Mapping[int, Sequence[tuple[int, int]]]) -> dict[int, float]:
    """The match of each fact, 0..1, the best 1.

    `around` gives for a fact that lends to others (neighbour, distance) of each, distances from 1 to
    len(NEIGHBOUR_WEIGHTS).
    """
    squares = {fact: score * score for fact, score in scores.items()}
    for fact, pairs in around.items():
        for neighbour, distance in pairs:
            lent = NEIGHBOUR_WEIGHTS[distance - 1] * scores[fact] ** 2
            squares[neighbour] = squares.get(neighbour, 0.0) + lent
    return relative({fact: sqrt(square) for fact, square in squares.items()})
