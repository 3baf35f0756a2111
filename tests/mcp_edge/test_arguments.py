"""Arguments as models and older clients send them: what is plain is read, anything else is refused by name."""

from typing import Any

import pytest

from mcp_edge.arguments import Argument, chosen, number, read, schema, switch, text, texts, thing
from mcp_edge.memory import MemoryProblem

KNOWN: dict[str, Argument] = {
    "content": text("what", required=True), "tags": texts(), "top_k": number(), "retract": switch(), "meta": thing(),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("tags", ["a", "b"], ["a", "b"]),
        ("tags", '["a", "b"]', ["a", "b"]),
        ("tags", "a, b", ["a", "b"]),
        ("tags", "a", ["a"]),
        ("tags", "", []),
        ("tags", "[]", []),
        ("top_k", 5, 5),
        ("top_k", "5", 5),
        ("top_k", 5.0, 5),
        ("retract", True, True),
        ("retract", "true", True),
        ("meta", {"a": 1}, {"a": 1}),
        ("meta", '{"a": 1}', {"a": 1}),
    ],
)
def test_what_is_plain_is_read(name: str, given: Any, expected: Any) -> None:
    assert read(KNOWN, {"content": "x", name: given})[name] == expected


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("content", 5), ("content", ["x"]), ("tags", 5), ("tags", [1]), ("tags", "[1]"), ("tags", "[a"), ("tags", {}),
        ("top_k", "many"), ("top_k", 1.5), ("top_k", True), ("top_k", float("inf")), ("retract", 1), ("meta", "x"),
        ("meta", []), ("meta", "[" * 100_000),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(name: str, given: Any) -> None:
    with pytest.raises(MemoryProblem) as refused:
        read(KNOWN, {"content": "x", name: given})
    assert refused.value.field == name
    assert refused.value.action
    assert len(refused.value.detail) < 200


def test_null_is_as_good_as_nothing() -> None:
    assert read(KNOWN, {"content": "x", "tags": None}) == {"content": "x"}


def test_what_is_missing_or_unknown_is_named() -> None:
    with pytest.raises(MemoryProblem) as missing:
        read(KNOWN, {"content": None})
    assert missing.value.code == "missing_argument"
    with pytest.raises(MemoryProblem) as unknown:
        read(KNOWN, {"content": "x", "topk": 1})
    assert "did you mean top_k?" in unknown.value.action


def test_the_schema_is_json_schema() -> None:
    made = schema(KNOWN)
    assert made["required"] == ["content"]
    assert made["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}


def test_one_of_a_few_numbers_may_be_said_in_words() -> None:
    value = {"value": chosen({"up": 1, "down": -1}, required=True)}
    assert schema(value)["properties"]["value"] == {"type": "integer", "enum": [1, -1]}
    for given, meant in ((1, 1), ("-1", -1), ("UP", 1), (1.0, 1)):
        assert read(value, {"value": given}) == {"value": meant}
    for given in (0, "sideways", True, [1]):
        with pytest.raises(MemoryProblem) as refused:
            read(value, {"value": given})
        assert "one of 1, -1" in refused.value.action
