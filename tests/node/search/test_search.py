"""node.search: whole searches, in the words of a user."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt.hlc import timestamp
from node.search import Query, search, vector
from node.search.query import words

NOW_MS = 1_800_000_000_000


def found(memory, text: str, **asked) -> list[int]:
    return [hit.fact for hit in search(memory.connection, Query(text, **{"now_ms": NOW_MS} | asked))]


def test_a_question_finds_its_answer(memory) -> None:
    memory.store("The deploy runs on Fridays", "ops")
    answer = memory.store("Kafka was replaced by NATS because of memory", "ops")
    memory.store("Lunch is at noon", "ops")
    assert found(memory, "why did we replace kafka?", project="ops") == [answer]
    assert found(memory, "why did we replace kafka?") == [answer]
    assert found(memory, "why did we replace kafka?", project="elsewhere") == []


def test_scores_are_0_to_1_the_best_1_and_a_neighbour_has_no_text_score(memory) -> None:
    asked = memory.store("Did you get the job at the bakery?", source="chat")
    answer = memory.store("I start on Monday!", source="chat")
    weaker = memory.store("the bakery on the corner, where I meet my sister for a chat every other week", source="b")
    hits = {hit.fact: hit for hit in search(memory.connection, Query("job bakery", now_ms=NOW_MS))}
    assert list(hits) == [asked, answer, weaker]
    assert hits[asked].match == 1
    assert hits[asked].text is not None and 0.9 < hits[asked].text < 1, "it has every word, and is not the shortest"
    assert hits[answer].text is None and 0 < hits[answer].match < 1
    assert hits[weaker].text is not None and 0 < hits[weaker].text < 1
    assert all(hit.vector is None for hit in hits.values())


@pytest.mark.parametrize("size", [1, 5, 150, 300])
def test_k_results_when_k_exist(memory, size: int) -> None:
    wanted = [memory.store("alpha beta " + "filler " * 30, tags=["t"]) for _ in range(size)]
    for _ in range(300):
        memory.store("alpha beta")
    assert sorted(found(memory, "alpha beta", tags=("t",), top_k=size)) == wanted
    assert len(found(memory, "alpha beta", top_k=size)) == size


def test_as_of_searches_what_was_said_then(memory) -> None:
    fact = memory.store("the gateway is in Oslo", at_ms=1_000)
    memory.rewrite(fact, "the gateway is in Bergen", at_ms=2_000)
    assert found(memory, "Oslo") == []
    assert found(memory, "Bergen") == [fact]
    assert found(memory, "Oslo", as_of=timestamp(1_500)) == [fact]
    assert found(memory, "Bergen", as_of=timestamp(1_500)) == []


def test_what_is_not_valid_now_is_not_found(memory) -> None:
    memory.store("the code is 1234", valid_until=NOW_MS)
    current = memory.store("the code is 5678", valid_from=NOW_MS)
    assert found(memory, "code") == [current]
    gone = memory.store("the code was retracted")
    memory.retract(gone, NOW_MS - 1)
    assert found(memory, "code") == [current]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "🙂",
        "🙂🙂 🚀",
        '"',
        "*",
        '""',
        "()",
        "-",
        "NEAR",
        "the",
        "\0",
        "a" * 2000,
        "alpha " * 333,
        '"alpha',
        "alp*",
        "content:alpha",
        "alpha AND",
        "NOT alpha",
        "NEAR(alpha beta, 5)",
        "^alpha",
        "{content}: alpha",
        "\ud800",
        "'; --",
    ],
)
def test_anything_is_just_text(memory, text: str) -> None:
    fact = memory.store("alpha beta")
    assert found(memory, text) == ([fact] if "alpha" in text else [])


def test_stop_words_alone_are_searched_for(memory) -> None:
    fact = memory.store("to be or not to be")
    assert found(memory, "to be or not") == [fact]
    assert found(memory, "is to") == [fact]


# Letters that every SQLite in use knows as letters.
_KNOWN = st.characters(codec="utf-8", max_codepoint=0x24F, categories=["L", "N", "Zs", "P", "S"])


@given(st.text(_KNOWN | st.sampled_from(string.ascii_letters + " \"'*-:^()"), min_size=1, max_size=60))
@example("Ünïcödé naïve İstanbul ǅ ß ſ")
@example("cafe\u0301 e\u0301a")
def test_a_fact_is_found_by_its_own_text(new_memory, text: str) -> None:
    """What the query calls a word, the index calls a word as well."""
    memory = new_memory()
    fact = memory.store(text)
    assert found(memory, text) == ([fact] if words(text) else [])
    memory.connection.close()


@pytest.mark.parametrize("top_k", [0, -1])
def test_nothing_is_asked_for(memory, top_k: int) -> None:
    memory.store("alpha")
    assert found(memory, "alpha", top_k=top_k) == []


def test_an_empty_memory_answers(memory) -> None:
    assert found(memory, "alpha") == []


def meant(memory, text: str, **asked) -> list[int]:
    """The facts of a hybrid search."""
    memory.embed()
    meaning = memory.meaning(text)
    assert meaning is not None
    return [hit.fact for hit in search(memory.connection, Query(text, **{"now_ms": NOW_MS} | asked), meaning)]


def test_other_words_for_the_same_thing_are_found(memory) -> None:
    memory.store("The deploy runs on Fridays")
    answer = memory.store("My doctor told me to stop eating sugar")
    memory.store("Lunch is at noon")
    question = "what did the physician advise"
    assert found(memory, question) == []
    assert meant(memory, question)[0] == answer


def test_words_and_meaning_together(memory) -> None:
    both = memory.store("the physician advised me to eat no sugar")
    alike = memory.store("my doctor told me to stop eating sweets")
    memory.store("the train leaves at noon")
    memory.embed()
    question = "what did the physician advise"
    hits = {
        hit.fact: hit for hit in search(memory.connection, Query(question, now_ms=NOW_MS), memory.meaning(question))
    }
    assert list(hits)[:2] == [both, alike]
    assert hits[both].match == 1 and hits[both].text and hits[both].vector
    assert hits[alike].text is None and hits[alike].vector and 0 < hits[alike].vector < 1


@pytest.mark.parametrize("few", [1_000, -1])
@pytest.mark.parametrize("size", [1, 5, 150])
def test_k_results_when_k_exist_in_either_leg(memory, monkeypatch: pytest.MonkeyPatch, size: int, few: int) -> None:
    monkeypatch.setattr(vector, "FEW", few)
    wanted = [memory.store("my doctor told me to stop eating sugar", tags=["t"]) for _ in range(size)]
    for _ in range(300):
        memory.store("the physician advised me to eat less")
    assert sorted(meant(memory, "doctor and physician", tags=("t",), top_k=size)) == wanted
    assert len(meant(memory, "doctor and physician", top_k=size)) == size


def test_as_of_knows_what_a_superseded_text_meant(memory) -> None:
    fact = memory.store("my doctor told me to stop eating sugar", at_ms=1_000)
    memory.rewrite(fact, "the train leaves at noon", at_ms=2_000)
    memory.store("the harbour is closed in winter", at_ms=1_000)
    question = "what did the physician advise"
    then = Query(question, as_of=timestamp(1_500), now_ms=NOW_MS)
    memory.embed()
    assert search(memory.connection, then, memory.meaning(question))[0].fact == fact
    hits = search(memory.connection, Query(question, now_ms=NOW_MS), memory.meaning(question))
    (now,) = [hit.vector for hit in hits if hit.fact == fact] or [0.0]
    (before,) = [hit.vector for hit in search(memory.connection, then, memory.meaning(question)) if hit.fact == fact]
    assert before is not None and now is not None and before > now + 0.1


def test_who_is_named_is_favoured_over_who_stands_beside(memory) -> None:
    for number in range(10):
        memory.store(f"Ada: the weather of day {number}", source=f"other {number}")
    asked = memory.store("Bob: did you get the job at the bakery?", source="chat")
    answer = memory.store("Ada: yes, I start on Monday", source="chat")
    assert found(memory, "when does Ada begin at the bakery?")[:2] == [answer, asked]
    assert found(memory, "when does she begin at the bakery?")[:2] == [asked, answer]


@pytest.mark.parametrize(
    "text", ["pump", "the of and", "🙂", '"NEAR( -* pump', "pump " * 400, "pumpe läuft seit gestern"]
)
def test_any_query_is_just_text_with_vectors_too(memory, text: str) -> None:
    fact = memory.store("the pump leaks")
    memory.embed()
    hits = search(memory.connection, Query(text, now_ms=NOW_MS), memory.meaning(text))
    assert [hit.fact for hit in hits] in ([], [fact])
    assert "pump " not in f"{text} " or [hit.fact for hit in hits] == [fact]
