"""From scores to a ranking: what a fact says itself, what was said around it, who says it, and who believes it.

The legs are fused linearly: text, the share of the query's words that a fact has, and vector, its cosine as a share of
the best one. Text weighs six times as much, and still gives way when the words are hardly there. Ranks are not fused
(RRF): they forget that one hit was sure and another a guess.

In a conversation the answer often stands beside the words of the question: "Did you get the job?" - "I start on
Monday". So a fact's match is not its own score s alone but

    sqrt(s^2 + sum over neighbours: weight * their own score^2)

Squares, because one strong neighbour tells more than three weak ones; the root brings the result back to the scale of
the scores. A neighbour that matches nothing itself enters the ranking this way.

Neighbours lend to whoever stands there. A fact that opens with a name and a colon says whose words it holds ("Ada: I
start on Monday"), or what it is about ("Decision: ..."). When the question names it, the fact is favoured.

Votes come last, and gently: what agents agree is true moves ahead of its like, what they agree is false sinks, and is
still found where nothing else is. Nothing changes for a fact on which nothing is decided.

Pure functions of scores in 0..1. Measured on dialogue with bench/locomo.py, see bench/README.md.
Tests: tests/node/search/test_rank.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from math import sqrt
from typing import Final

from ledger.score import Trust

NEIGHBOUR_WEIGHTS: Final = (0.5, 0.3)
"""By distance in the order of storing: the one next to a fact, and the one after that."""
VECTOR_WEIGHT: Final = 0.15
"""Of the vector leg; the text's is the rest. From .1 to .25 recall on dialogue is the same."""
NAMED: Final = 1.5
"""What a fact's match is multiplied by when the question names who speaks in it. From 1.3 to 2.2 it is the same."""
TRUSTED: Final = {Trust.VERIFIED: 1.15, Trust.DISPUTED: 0.5, Trust.CONTESTED: 0.9}
"""What a fact's match is multiplied by for the trust in it. A seventh more is about what a second word in common gives
to a hit on seven words: verified does not beat to the point. Half sends what is disputed behind whatever fits as well.
"""
GIVERS: Final = 20
"""How many of the best facts lend to their neighbours. With 100 recall on dialogue is no better."""


def relative(scores: Mapping[int, float]) -> dict[int, float]:
    """The scores as shares of the best, 0..1."""
    top = max(scores.values(), default=0.0)
    return {fact: score / top for fact, score in scores.items()} if top > 0 else {}


def best(scores: Mapping[int, float], count: int) -> list[int]:
    """The `count` facts with the highest scores, best first; of equals the one stored last."""
    return nsmallest(count, scores, key=lambda fact: (-scores[fact], -fact))


def fused(text: Mapping[int, float], vector: Mapping[int, float]) -> dict[int, float]:
    """The scores of both legs in one, 0..1."""
    shares = relative(vector)
    return {
        fact: (1 - VECTOR_WEIGHT) * text.get(fact, 0.0) + VECTOR_WEIGHT * shares.get(fact, 0.0)
        for fact in {**text, **shares}
    }


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


def speaker(opening: str) -> str:
    """What stands before the first colon and space of a text's beginning; empty when there is no such thing."""
    name, colon, _ = opening.partition(": ")
    return name if colon else ""


def named(
    matches: Mapping[int, float], speakers: Mapping[int, Iterable[str]], terms: Iterable[str]
) -> dict[int, float]:
    """The matches, 0..1, with those favoured whose speaker's name (its words, by fact) shares a word with `terms`."""
    asked = {term.lower() for term in terms}
    return relative(
        {
            fact: match * NAMED if any(word.lower() in asked for word in speakers.get(fact, ())) else match
            for fact, match in matches.items()
        }
    )


def trusted(matches: dict[int, float], trust: Mapping[int, Trust]) -> dict[int, float]:
    """The matches, 0..1, with what is verified raised and what is disputed lowered; as they are where nothing is."""
    weights = {fact: TRUSTED[said] for fact, said in trust.items() if said in TRUSTED and fact in matches}
    return relative({fact: match * weights.get(fact, 1.0) for fact, match in matches.items()}) if weights else matches
