"""node.search.eligible: which facts may answer, and which stand beside a fact."""

import pytest

from crdt.hlc import timestamp
from node.search import Query
from node.search.eligible import (
    OPENING_CHARS,
    STORED_AROUND_MS,
    Conditions,
    admit,
    conditions,
    few,
    neighbours,
    openings,
    texts,
)

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000


def admitted(memory, **asked) -> set[int]:
    query = Query("", **{"now_ms": NOW_MS} | asked)
    wanted = conditions(memory.connection, query)
    assert wanted is not None
    texts = [row[0] for row in memory.connection.execute("SELECT id FROM texts")]
    return {text.fact for text in admit(memory.connection, wanted, texts)}


def beside(memory, fact: int, reach: int = 2, **asked) -> list[tuple[int, int]]:
    wanted = conditions(memory.connection, Query("", **{"now_ms": NOW_MS} | asked))
    assert wanted is not None
    return sorted(neighbours(memory.connection, wanted, [fact], reach)[fact])


def test_project_type_and_tags_are_the_querys(memory) -> None:
    both = memory.store("x", tags=["red", "blue"])
    red = memory.store("x", tags=["red"], fact_type="error")
    elsewhere = memory.store("x", "q", tags=["red", "blue"])
    assert admitted(memory) == {both, red, elsewhere}
    assert admitted(memory, project="p") == {both, red}
    assert admitted(memory, fact_type="error") == {red}
    assert admitted(memory, tags=("red",)) == {both, red, elsewhere}
    assert admitted(memory, tags=("red", "blue")) == {both, elsewhere}
    assert admitted(memory, tags=("red", "blue"), project="p") == {both}
    assert admitted(memory, tags=("green",)) == set()


def test_an_unknown_project_has_no_conditions(memory) -> None:
    memory.store("x")
    assert conditions(memory.connection, Query("x", project="nowhere")) is None


@pytest.mark.parametrize(
    ("valid_from", "valid_until", "valid"),
    [
        (None, None, True),
        (NOW_MS, None, True),
        (NOW_MS + 1, None, False),
        (None, NOW_MS, False),
        (None, NOW_MS + 1, True),
        (NOW_MS - 5, NOW_MS + 5, True),
        (NOW_MS - 5, NOW_MS - 4, False),
    ],
)
def test_validity_is_half_open(memory, valid_from: int | None, valid_until: int | None, valid: bool) -> None:
    fact = memory.store("x", valid_from=valid_from, valid_until=valid_until, at_ms=NOW_MS - 10)
    assert admitted(memory) == ({fact} if valid else set())
    assert admitted(memory, as_of=timestamp(NOW_MS), now_ms=0) == ({fact} if valid else set())


def test_as_of_sees_what_was_known_then(memory) -> None:
    fact = memory.store("old", at_ms=1_000)
    memory.rewrite(fact, "new", at_ms=2_000)
    memory.retract(fact, at_ms=3_000)

    def known(at_ms: int) -> list[str]:
        wanted = conditions(memory.connection, Query("", as_of=timestamp(at_ms)))
        assert wanted is not None
        texts = [text.id for text in admit(memory.connection, wanted, [1, 2])]
        return [
            memory.connection.execute("SELECT content FROM texts WHERE id = ?", (id,)).fetchone()[0] for id in texts
        ]

    assert known(999) == []
    assert known(1_000) == known(1_999) == ["old"]
    assert known(2_000) == known(2_999) == ["new"]
    assert known(3_000) == []
    assert admitted(memory) == set()


def test_neighbours_are_those_stored_just_before_and_after_by_the_same_source(memory) -> None:
    facts = [memory.store(f"turn {n}", source="session") for n in range(5)]
    memory.store("another source", source="other")
    memory.store("another project", "q", source="session")
    late = memory.store("the next one of this source", source="session")
    assert beside(memory, facts[2]) == [(facts[0], 2), (facts[1], 1), (facts[3], 1), (facts[4], 2)]
    assert beside(memory, facts[2], reach=1) == [(facts[1], 1), (facts[3], 1)]
    assert beside(memory, facts[4]) == [(facts[2], 2), (facts[3], 1), (late, 1)]


def test_facts_of_one_moment_are_neighbours_in_the_order_of_their_rowids(memory) -> None:
    facts = [memory.store("x", source="batch", at_ms=5_000_000) for _ in range(3)]
    assert beside(memory, facts[1]) == [(facts[0], 1), (facts[2], 1)]


def test_a_fact_without_a_source_has_no_neighbours(memory) -> None:
    facts = [memory.store("x") for _ in range(3)]
    assert beside(memory, facts[1]) == []


def test_neighbours_were_stored_within_the_hour(memory) -> None:
    first = memory.store("x", source="s", at_ms=10_000_000)
    second = memory.store("x", source="s", at_ms=10_000_000 + STORED_AROUND_MS)
    third = memory.store("x", source="s", at_ms=10_000_001 + 2 * STORED_AROUND_MS)
    assert beside(memory, second) == [(first, 1)]
    assert beside(memory, third) == []


def test_neighbours_keep_the_filters(memory) -> None:
    before = memory.store("x", source="s", fact_type="error")
    fact = memory.store("x", source="s", tags=["t"])
    after = memory.store("x", source="s", tags=["t"])
    gone = memory.store("x", source="s")
    memory.retract(gone, NOW_MS - 1)
    assert beside(memory, fact) == [(before, 1), (after, 1)]
    assert beside(memory, fact, tags=("t",)) == [(after, 1)]
    assert beside(memory, fact, fact_type="error") == [(before, 1)]
    assert (gone, 2) in beside(memory, fact, as_of=timestamp(NOW_MS - 2))


def asked(memory, **filters) -> Conditions:
    wanted = conditions(memory.connection, Query("", **{"now_ms": NOW_MS} | filters))
    assert wanted is not None
    return wanted


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"project": "p"},
        {"fact_type": "error"},
        {"fact_type": "error", "project": "p"},
        {"tags": ("red",)},
        {"tags": ("red", "blue")},
        {"tags": ("blue",), "fact_type": "error"},
        {"tags": ("green",)},
    ],
)
def test_few_are_all_that_can_be_admitted_or_none(memory, filters: dict[str, object]) -> None:
    for number in range(12):
        tags = ["red"] * (number % 3 == 0) + ["blue"] * (number % 4 == 0)
        memory.store("x", "p" if number % 2 else "q", tags=tags, fact_type="error" if number % 5 == 0 else "rule")
    wanted = asked(memory, **filters)
    everything = [row[0] for row in memory.connection.execute("SELECT id FROM texts")]
    expected = set(admit(memory.connection, wanted, everything))
    for limit in range(13):
        found = few(memory.connection, wanted, limit)
        assert found is None or (len(found) <= limit and set(admit(memory.connection, wanted, found)) == expected)
    assert few(memory.connection, wanted, 12) is not None


def test_a_rare_tag_or_type_leaves_few_in_a_large_project(memory) -> None:
    for _ in range(10):
        memory.store("x", tags=["common"])
    tagged = memory.store("x", tags=["common", "rare"])
    typed = memory.store("x", fact_type="error")
    assert few(memory.connection, asked(memory), 5) is None
    assert few(memory.connection, asked(memory, tags=("common",)), 5) is None
    assert few(memory.connection, asked(memory, tags=("common", "rare")), 5) == [tagged]
    assert few(memory.connection, asked(memory, fact_type="error"), 5) == [typed]


def test_texts_and_openings_are_those_of_the_time_asked_about(memory) -> None:
    fact = memory.store("Ada: " + "x" * 100, at_ms=1_000)
    memory.rewrite(fact, "Bob: y", at_ms=2_000)
    now, then = asked(memory), asked(memory, as_of=timestamp(1_500))
    assert [text.chars for text in texts(memory.connection, now, [fact, 99])] == [6]
    assert [text.chars for text in texts(memory.connection, then, [fact])] == [105]
    assert openings(memory.connection, now, [fact]) == {fact: "Bob: y"}
    assert openings(memory.connection, then, [fact]) == {fact: ("Ada: " + "x" * 100)[:OPENING_CHARS]}
