"""node.search.text: what the words of a query find, and in which order."""

import pytest

from node.search import Query, text
from node.search.eligible import conditions
from node.search.query import words
from node.search.rank import best

NOW_MS = 1_800_000_000_000


def leg(memory, asked: str, size: int = 100, least: int = 10, **filters) -> dict[int, float]:
    wanted = conditions(memory.connection, Query(asked, **{"now_ms": NOW_MS} | filters))
    assert wanted is not None
    found = text.leg(memory.connection, words(asked), wanted, size, least)
    return {text.fact: share for text, share in found.items()}


def test_words_are_stemmed_and_ored(memory) -> None:
    both = memory.store("she paints sunsets")
    one = memory.store("a painting of horses")
    memory.store("nothing of the kind")
    assert best(leg(memory, "painted sunset"), 9) == [both, one]


def test_a_rare_word_weighs_more_than_a_frequent_one(memory) -> None:
    for _ in range(8):
        memory.store("deploy went well today")
    rare = memory.store("kafka went well today")
    found = leg(memory, "deploy kafka")
    assert best(found, 1) == [rare]


def test_rare_is_counted_within_the_project(memory) -> None:
    """`alpha` is rare here and frequent elsewhere; `beta` the other way round."""
    alpha = memory.store("alpha word", "here")
    for _ in range(4):
        memory.store("beta word", "here")
    for _ in range(30):
        memory.store("alpha word", "elsewhere")
    assert best(leg(memory, "alpha beta", project="here"), 1) == [alpha]


def test_another_project_is_never_found(memory) -> None:
    memory.store("alpha", "big")
    here = memory.store("alpha", "small")
    for n in range(10):
        memory.store(f"filler {n}", "big")
    assert set(leg(memory, "alpha filler", project="small")) == {here}
    assert here not in leg(memory, "alpha filler", project="big")


def test_the_scope_of_a_project_is_not_searched(memory) -> None:
    memory.store("alpha")
    assert leg(memory, "p1") == {}
    named = memory.store("raspberry p1")
    assert set(leg(memory, "p1")) == {named}


def test_a_short_text_says_it_denser_and_long_ones_are_equally_long(memory) -> None:
    long = memory.store("alpha " + "filler " * 400)
    longer = memory.store("alpha " + "filler " * 4000)
    short = memory.store("alpha is short")
    found = leg(memory, "alpha")
    assert best(found, 1) == [short]
    assert found[long] == found[longer]


def test_the_body_is_searched(memory) -> None:
    fact = memory.store("handover", body="the valve sticks when cold")
    assert set(leg(memory, "valve")) == {fact}


def test_a_deleted_text_is_gone_and_no_longer_counted(memory) -> None:
    fact = memory.store("alpha")
    memory.connection.execute("DELETE FROM texts WHERE fact = ?", (fact,))
    assert leg(memory, "alpha") == {}
    assert memory.connection.execute("SELECT sum(texts) FROM texts_counts").fetchone() == (0,)


def test_size_bounds_the_answer_and_equals_are_the_newest(memory) -> None:
    facts = [memory.store("alpha") for _ in range(30)]
    assert sorted(leg(memory, "alpha", size=10)) == facts  # one chunk of candidates, all of them equal
    assert best(leg(memory, "alpha", size=10), 3) == facts[:-4:-1]


def test_filters_hold_before_the_ranking(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNK", 4)
    wanted = [memory.store("alpha " + "filler " * 50, tags=["t"]) for _ in range(3)]
    for _ in range(100):
        memory.store("alpha")
    assert set(leg(memory, "alpha", size=2, least=2, tags=("t",))) >= set(wanted[1:])
    assert set(leg(memory, "alpha", size=3, least=3, tags=("t",))) == set(wanted)


def test_a_frequent_word_adds_to_what_a_rarer_one_found(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "POSTINGS_MAX", 10)
    plain = memory.store("kafka")
    both = memory.store("kafka deploy")
    frequent = [memory.store("deploy") for _ in range(20)]
    found = leg(memory, "deploy kafka", least=1)
    assert best(found, 9) == [both, plain]
    assert set(leg(memory, "deploy kafka", least=10)) == {plain, both, *frequent}


def test_of_frequent_words_the_text_with_all_of_them_is_best(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "POSTINGS_MAX", 10)
    both = memory.store("alpha beta")
    for _ in range(20):
        memory.store("alpha")
        memory.store("beta")
    assert best(leg(memory, "alpha beta"), 1) == [both]


def test_filters_are_met_by_frequent_words_too(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "POSTINGS_MAX", 5)
    monkeypatch.setattr(text, "FIRST_MAX", 5)
    old = [memory.store("alpha", tags=["t"]) for _ in range(3)]
    for _ in range(50):
        memory.store("alpha")
    assert set(leg(memory, "alpha", tags=("t",), least=3)) == set(old)


def test_of_too_many_words_the_rarest_are_looked_up(memory) -> None:
    many = " ".join(f"common{n}" for n in range(text.TERMS_MAX))
    for _ in range(2):
        memory.store(many)
    fact = memory.store("needle")
    unknown = " ".join(f"unknown{n}" for n in range(200))
    assert fact in leg(memory, f"{many} {unknown} needle")
    assert leg(memory, unknown) == {}


def test_statements_do_not_walk_the_tables(memory) -> None:
    """Every table but the index and the lists handed in is reached by a key."""
    from node.search import eligible

    filters = {"known_at": 1, "valid_at": 1, "project": 1, "fact_type": None, "tags": "[]", "texts": "[]"}
    places = {"facts": "[]", "around": 1, "reach": 2}
    for statement, values in ((eligible._ADMIT, filters), (eligible._BESIDE, places)):
        plan = memory.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        steps = [row[3] for row in plan]
        scans = [step for step in steps if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
        assert all(step.startswith("SCAN (subquery") for step in scans), steps


def test_of_a_frequent_word_the_newest_texts_are_read(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "POSTINGS_MAX", 5)
    monkeypatch.setattr(text, "FIRST_MAX", 5)
    facts = [memory.store("alpha") for _ in range(20)]
    assert sorted(leg(memory, "alpha", least=5)) == facts[-5:]


def test_a_fact_with_two_texts_at_one_time_counts_by_its_best(memory) -> None:
    for _ in range(9):
        memory.store("beta")
    short = memory.store("alpha")
    fact = memory.store("alpha beta " + "filler " * 200)
    memory.connection.execute(
        "INSERT INTO texts (fact, scope, content, known_from) VALUES (?, 'p1', 'alpha', 1)", (fact,)
    )
    found = leg(memory, "alpha beta")
    assert found[fact] == found[short]
