"""The vector leg: which facts it gives, whatever the filters leave and whatever the index has missed."""

import sqlite3
from collections.abc import Iterator, Sequence

import pytest

from node.search import Query, eligible, vector
from node.search.vector import leg

NOW_MS = 1_800_000_000_000


class Scripted:
    """A meaning whose cosines are given, in chunks of two."""

    def __init__(self, cosines: dict[int, float]) -> None:
        self.given = cosines
        self.judged: list[int] = []

    def nearest(self, project: int | None) -> Iterator[list[int]]:
        order = sorted(self.given, key=lambda text: -self.given[text])
        yield from (order[start : start + 2] for start in range(0, len(order), 2))

    def cosines(self, connection: sqlite3.Connection, texts: Sequence[int]) -> dict[int, float]:
        self.judged += texts
        return {text: self.given[text] for text in texts if text in self.given}


def found(memory, meaning: Scripted, least: int, also: Sequence[int] = (), **asked) -> dict[int, float]:
    conditions = eligible.conditions(memory.connection, Query("", **{"now_ms": NOW_MS} | asked))
    assert conditions is not None
    others = eligible.texts(memory.connection, conditions, also)
    found = leg(memory.connection, meaning, conditions, others, least)
    return {text.fact: cosine for text, cosine in found.items()}


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every memory in this test were too large to compare all."""
    monkeypatch.setattr(vector, "FEW", -1)


def test_a_small_memory_is_compared_as_a_whole(memory) -> None:
    facts = [memory.store("x") for _ in range(5)]
    meaning = Scripted({1: 0.1, 2: 0.5, 3: -0.2, 4: 0.0, 5: 0.3})
    assert found(memory, meaning, 1) == {facts[0]: 0.1, facts[1]: 0.5, facts[4]: 0.3}


@pytest.mark.usefixtures("many")
def test_candidates_come_in_chunks_until_there_are_enough(memory) -> None:
    for number in range(6):
        memory.store("x", tags=["t"] if number in (1, 4) else [])
    meaning = Scripted({text: 0.9 - text / 10 for text in range(1, 7)})
    assert found(memory, meaning, 2).keys() == {1, 2}
    assert meaning.judged == [1, 2]
    assert found(memory, meaning, 2, tags=("t",)).keys() == {2, 5}, "the filters made the first chunks sparse"
    assert found(memory, meaning, 9, tags=("t",)).keys() == {2, 5}


@pytest.mark.usefixtures("many")
def test_what_points_away_is_not_searched_further(memory) -> None:
    for _ in range(6):
        memory.store("x")
    meaning = Scripted({1: 0.5, 2: 0.4, 3: -0.1, 4: -0.2, 5: -0.3, 6: -0.4})
    assert found(memory, meaning, 5).keys() == {1, 2}
    assert meaning.judged == [1, 2, 3, 4]


@pytest.mark.usefixtures("many")
def test_what_the_other_leg_found_is_judged_as_well(memory) -> None:
    for _ in range(4):
        memory.store("x")
    memory.store("x", "elsewhere")
    meaning = Scripted({1: 0.9, 2: 0.8, 3: 0.7, 4: -0.5})
    assert found(memory, meaning, 1, also=[2, 3, 4, 5], project="p") == {1: 0.9, 2: 0.8, 3: 0.7}


@pytest.mark.usefixtures("many")
def test_texts_that_are_gone_are_passed_over(memory) -> None:
    fact = memory.store("x")
    gone = memory.store("y")
    memory.connection.execute("DELETE FROM texts WHERE fact = ?", (gone,))
    assert found(memory, Scripted({2: 0.9, 77: 0.8, 1: 0.7}), 1) == {fact: 0.7}
