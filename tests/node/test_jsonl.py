"""Lines of facts: what is taken over, what is refused and where, and that a batch has a stable name."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import jsonl
from node.jsonl import BadLine, Line, batches, idempotency_key, read, renamed_links
from node.requests import Limits
from tests.node.scripted_node import fact


def lines(*entries: Any, limits: Limits | None = None) -> list[Line | BadLine]:
    raw = [entry if isinstance(entry, bytes) else json.dumps(entry).encode() for entry in entries]
    return list(read(io.BytesIO(b"\n".join(raw)), limits or Limits()))


def draft(entry: Any) -> dict[str, Any]:
    (line,) = lines(entry)
    assert isinstance(line, Line), line
    return line.draft


def test_a_simple_log() -> None:
    assert draft({"text": "door opened", "type": "event", "at": "noon", "tags": "door, b12"}) == {
        "content": "door opened",
        "fact_type": "event",
        "tags": ["door", "b12"],
        "meta": {"at": "noon"},
    }


def test_own_names_go_before_aliases() -> None:
    assert draft({"text": "other", "content": "this"}) == {"content": "this", "meta": {"text": "other"}}


def test_an_exported_fact_keeps_what_users_gave_and_where_it_came_from() -> None:
    exported = fact(
        tags=["keys"], source="Ada", meta={"room": "b12"}, body="long", links=[{"relation": "a", "to": "b"}]
    )
    assert draft(exported) == {
        "project": "home",
        "content": "The spare key is with Ada",
        "body": "long",
        "fact_type": "knowledge",
        "tags": ["keys"],
        "confidence": "stated",
        "source": "Ada",
        "meta": {
            "imported": {
                "id": "k7q2m4zx5tvb3nya-17",
                "created_at": "2026-05-11T08:30:00.123Z",
                "author": "k7q2m4zx5tvb3nya",
            },
            "room": "b12",
        },
    }


def test_where_it_came_from_first_stays_known() -> None:
    assert draft(fact(meta={"imported": {"id": "first"}}))["meta"]["imported"] == {"id": "first"}


def test_every_field_of_an_exported_fact_is_either_given_or_derived() -> None:
    assert fact().keys() <= set(jsonl.FIELDS) | jsonl.DERIVED


def test_retracted_facts_and_blank_lines_are_left_out() -> None:
    assert lines(b"", b"  ", fact(retracted=True)) == []


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (b"not json", "JSON"),
        (b"[1]", "not an object"),
        (b"null", "not an object"),
        (b'{"content": "a"', "truncated"),
        (b'{"content": "\xff"}', "utf-8"),
        (b"[" * 100_000, "recursion"),
        ({}, "content"),
        ({"content": 5}, "content"),
        ({"content": " "}, "empty"),
        ({"content": "x" * 65_537}, "65,536"),
        ({"content": "x", "tags": [f"t{n}" for n in range(65)]}, "65 tags"),
        ({"content": "x", "tags": {"a": 1}}, "tags"),
        ({"content": "x", "meta": "m"}, "meta"),
        ({"content": "x", "valid_from": "noon"}, "valid_from"),
        ({"content": "x", "valid_from": "2026-02-01", "valid_until": "2026-01-01"}, "valid_until"),
        ({"content": "x", "project": "_mesh"}, "underscore"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_why(entry: Any, words: str) -> None:
    good, bad, after = lines({"content": "before"}, entry, {"content": "after"})
    assert isinstance(bad, BadLine)
    assert bad.number == 2
    assert words in bad.error
    assert isinstance(good, Line) and isinstance(after, Line)
    assert after.number == 3


def test_a_line_without_end_is_passed_over_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 100)
    found = lines({"content": "x" * 1000}, {"content": "after"})
    assert [type(line) for line in found] == [BadLine, Line]
    assert found[1].number == 2


def test_the_nodes_own_limits_hold() -> None:
    (line,) = lines({"content": "x", "tags": ["a", "b"]}, limits=Limits(tags=1))
    assert isinstance(line, BadLine)


def test_a_byte_order_mark_is_no_content() -> None:
    assert draft(b'\xef\xbb\xbf{"content": "x"}') == {"content": "x"}


def some(size: int, number: int = 0) -> Line:
    return Line(number, {"content": str(number)}, None, (), size)


@given(st.lists(st.integers(1, 2 * jsonl.BATCH_BYTES), max_size=50), st.integers(1, 10))
def test_batches_keep_order_and_limits(sizes: list[int], most: int) -> None:
    given_lines = [some(size, number) for number, size in enumerate(sizes)]
    made = list(batches(given_lines, most))
    assert [line for batch in made for line in batch] == given_lines
    for batch in made:
        assert 0 < len(batch) <= most
        assert len(batch) == 1 or sum(line.size for line in batch) <= jsonl.BATCH_BYTES


def test_a_key_names_content_and_order() -> None:
    one, two = some(1, 1), some(1, 2)
    assert idempotency_key([one, two]) == idempotency_key([some(9, 1), some(9, 2)])
    assert len({idempotency_key(batch) for batch in ([one, two], [two, one], [one])}) == 3
    assert len(idempotency_key([one])) <= 200


def test_links_follow_the_facts_to_their_new_ids() -> None:
    old = [fact(id="a", links=[{"relation": "needs", "to": "b"}, {"relation": "see", "to": "elsewhere"}]), fact(id="b")]
    read_lines = [line for line in lines(*old) if isinstance(line, Line)]
    assert list(renamed_links(read_lines, {"a": "new-a", "b": "new-b"})) == [
        ("new-a", "needs", "new-b"),
        ("new-a", "see", "elsewhere"),
    ]
    assert list(renamed_links(read_lines, {"b": "new-b"})) == []
