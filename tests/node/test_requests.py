"""Every limit on what users may ask for, at its edge: the last that passes, the first that doesn't, what is said."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.fact import FIELD_TYPES, MAX_META_DEPTH, RETRACTED, encode_record
from crdt.op import MAX_BODY_BYTES
from node import requests
from node.config import KEYS
from node.errors import Problem
from node.requests import FactChanges, FactDraft, Limits, LinkChange, SearchRequest

LIMITS = Limits()


def draft(**more: Any) -> Any:
    return requests.check_draft(FactDraft(**{"content": "a fact"} | more), LIMITS)


def search(**more: Any) -> Any:
    return requests.check_search(SearchRequest(**{"query": "valve"} | more), LIMITS)


def change(**more: Any) -> Any:
    return requests.check_changes(FactChanges(**more), LIMITS)


def link(relation: str, to: str) -> str:
    return requests.check_link(LinkChange(relation=relation, to=to))


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value  # type: ignore[no-any-return]


EDGES: list[tuple[str, Callable[[], Any], Callable[[], Any], int, str | None]] = [
    ("content", lambda: draft(content="x" * 65_536), lambda: draft(content="x" * 65_537), 413, "content"),
    (
        "content in bytes",
        lambda: draft(content="é" * 32_768),
        lambda: draft(content="é" * 32_768 + "x"),
        413,
        "content",
    ),
    ("empty content", lambda: draft(content="x"), lambda: draft(content=""), 422, "content"),
    ("blank content", lambda: draft(content=" x"), lambda: draft(content=" \n\t"), 422, "content"),
    (
        "tags",
        lambda: draft(tags=[str(n) for n in range(64)]),
        lambda: draft(tags=[str(n) for n in range(65)]),
        422,
        "tags",
    ),
    ("a tag", lambda: draft(tags=["é" * 64]), lambda: draft(tags=["é" * 64 + "x"]), 422, "tags"),
    ("an empty tag", lambda: draft(tags=["x"]), lambda: draft(tags=["x", " "]), 422, "tags"),
    ("a control character", lambda: draft(tags=["a b"]), lambda: draft(tags=["a\nb"]), 422, "tags"),
    ("an escape", lambda: draft(source="[31m"), lambda: draft(source="\x1b[31m"), 422, "source"),
    ("project", lambda: draft(project="p" * 128), lambda: draft(project="p" * 129), 422, "project"),
    ("a reserved project", lambda: draft(project="mesh_"), lambda: draft(project="_mesh"), 422, "project"),
    ("a wildcard", lambda: draft(project="team/a"), lambda: draft(project="team/*"), 422, "project"),
    ("no project", lambda: draft(project="p"), lambda: draft(project=""), 422, "project"),
    ("fact_type", lambda: draft(fact_type="t" * 128), lambda: draft(fact_type="t" * 129), 422, "fact_type"),
    ("confidence", lambda: draft(confidence="t" * 128), lambda: draft(confidence="t" * 129), 422, "confidence"),
    ("agent", lambda: draft(agent="t" * 128), lambda: draft(agent="t" * 129), 422, "agent"),
    ("source", lambda: draft(source="t" * 512), lambda: draft(source="t" * 513), 422, "source"),
    ("body", lambda: draft(body="b" * (1 << 20)), lambda: draft(body="b" * (1 << 20) + "b"), 413, "body"),
    ("meta", lambda: draft(meta={"a": "x" * 65_530}), lambda: draft(meta={"a": "x" * 65_531}), 422, "meta"),
    ("depth", lambda: draft(meta=nested(MAX_META_DEPTH)), lambda: draft(meta=nested(MAX_META_DEPTH + 1)), 422, "meta"),
    ("a number", lambda: draft(meta={"a": 2**64 - 1}), lambda: draft(meta={"a": 2**64}), 422, "meta"),
    ("below zero", lambda: draft(meta={"a": -(2**63)}), lambda: draft(meta={"a": -(2**63) - 1}), 422, "meta"),
    ("infinity", lambda: draft(meta={"a": 1e308}), lambda: draft(meta={"a": float("inf")}), 422, "meta"),
    ("a surrogate", lambda: draft(content="\U0001f600"), lambda: draft(content="\ud83d"), 422, "content"),
    ("one in meta", lambda: draft(meta={"a": "é"}), lambda: draft(meta={"a": "\ud83d"}), 422, "meta"),
    (
        "the first time",
        lambda: draft(valid_from="1970-01-01"),
        lambda: draft(valid_from="1969-12-31"),
        422,
        "valid_from",
    ),
    (
        "the last time",
        lambda: draft(valid_until="9999-12-31"),
        lambda: draft(valid_until="10000-01-01"),
        422,
        "valid_until",
    ),
    ("no time", lambda: draft(valid_from="2026-02-28"), lambda: draft(valid_from="2026-02-30"), 422, "valid_from"),
    (
        "an end before the beginning",
        lambda: draft(valid_from="2026-01-01", valid_until="2026-01-02"),
        lambda: draft(valid_from="2026-01-02", valid_until="2026-01-01"),
        422,
        "valid_until",
    ),
    (
        "an end at the beginning",
        lambda: draft(valid_from="2026-01-01", valid_until="2026-01-01T00:00:00.001Z"),
        lambda: draft(valid_from="2026-01-01", valid_until="2026-01-01"),
        422,
        "valid_until",
    ),
    ("query", lambda: search(query="q" * 2_000), lambda: search(query="q" * 2_001), 413, "query"),
    ("top_k", lambda: search(top_k=500), lambda: search(top_k=501), 422, "top_k"),
    ("no top_k", lambda: search(top_k=1), lambda: search(top_k=0), 422, "top_k"),
    ("as_of", lambda: search(as_of="2026-01-01"), lambda: search(as_of="then"), 422, "as_of"),
    ("search in the reserved", lambda: search(project="mesh"), lambda: search(project="_mesh"), 422, "project"),
    ("the archive", lambda: search(archive=False), lambda: search(archive=True), 422, "archive"),
    ("relation", lambda: link("r" * 128, "x-1"), lambda: link("r" * 129, "x-1"), 422, "relation"),
    ("a colon", lambda: link("depends-on", "x-1"), lambda: link("depends:on", "x-1"), 422, "relation"),
    ("no relation", lambda: link("r", "x-1"), lambda: link("", "x-1"), 422, "relation"),
    ("to", lambda: link("r", "x" * 128), lambda: link("r", "x" * 129), 422, "to"),
    ("a changed content", lambda: change(content="x" * 65_536), lambda: change(content="x" * 65_537), 413, "content"),
    ("a changed agent", lambda: change(agent=None), lambda: change(agent=""), 422, "agent"),
    ("a changed time", lambda: change(valid_until=None), lambda: change(valid_until=""), 422, "valid_until"),
    ("two ways to a body", lambda: change(append="a"), lambda: change(append="a", body="b"), 422, "body"),
    ("a base of nothing", lambda: change(body="b", body_base="x"), lambda: change(body_base="x"), 422, "body_base"),
    ("a reason", lambda: requests.check_reason("r" * 4_096), lambda: requests.check_reason("r" * 4_097), 422, "reason"),
    ("a key", lambda: requests.check_key("k" * 200), lambda: requests.check_key("k" * 201), 422, None),
    ("no key", lambda: requests.check_key(None), lambda: requests.check_key(""), 422, None),
    ("a key that is no ASCII", lambda: requests.check_key("k-1"), lambda: requests.check_key("k\udcff"), 422, None),
]


@pytest.mark.parametrize(("passes", "fails", "status", "field"), [e[1:] for e in EDGES], ids=[e[0] for e in EDGES])
def test_the_edge(passes: Callable[[], Any], fails: Callable[[], Any], status: int, field: str | None) -> None:
    passes()
    with pytest.raises(Problem) as refused:
        fails()
    assert (refused.value.status, refused.value.field) == (status, field)
    assert refused.value.action


@pytest.mark.parametrize("word", ["👩‍👩‍👧", "می‌خواهم", "naïve café", "日本語", "c++", "a/b", "#1"])
def test_what_people_call_things(word: str) -> None:
    assert draft(tags=[word], fact_type=word, source=word, project=word).tags == (word,)


def test_the_limits_are_those_of_the_config() -> None:
    """And whatever the config allows fits an op."""
    keys = {key.name.removeprefix("limits."): key for key in KEYS if key.name.startswith("limits.")}
    assert keys.keys() == set(Limits.__slots__)
    for name, key in keys.items():
        assert key.default == getattr(LIMITS, name), name
    most = {name: key.kind.high for name, key in keys.items()}  # type: ignore[attr-defined]
    largest = requests.check_draft(
        FactDraft(
            content="c" * most["content_bytes"], project="p" * 128, source="s" * 512, meta={"a": "x" * 65_530},
            tags=[f"{n:03}" + "t" * (most["tag_bytes"] - 3) for n in range(most["tags"])],
            fact_type="t" * 128, confidence="c" * 128, agent="a" * 128,
        ),
        Limits(**most),
    )  # fmt: skip
    assert len(encode_record(largest)) < MAX_BODY_BYTES
    assert most["body_bytes"] < MAX_BODY_BYTES


def test_tags_are_kept_once_each_in_order() -> None:
    assert requests.check_tags(["b", "a", "b"], LIMITS) == ["b", "a"]
    assert requests.check_tags([str(n % 64) for n in range(640)], LIMITS) == [str(n) for n in range(64)]


def test_a_change_names_what_it_changes_and_nothing_else() -> None:
    assert change() == {}
    assert change(source=None, valid_from="1970-01-01", tags=["x"], restore=True) == {"source": None, "valid_from": 0}


def test_every_field_of_a_fact_can_be_changed() -> None:
    assert set(FIELD_TYPES) - {RETRACTED} < set(FactChanges.__struct_fields__)
    assert set(FactDraft.__struct_fields__) - {"project", "legacy_id"} < set(FactChanges.__struct_fields__)


@given(
    st.dictionaries(st.text(max_size=5), st.recursive(st.text() | st.floats() | st.integers(), st.lists), max_size=3)
)
def test_meta_that_is_let_in_comes_back_as_it_went(meta: dict[str, Any]) -> None:
    try:
        checked = requests.check_meta(meta)
    except Problem:
        return
    assert msgspec.json.decode(msgspec.json.encode(checked)) == meta
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(checked)) == meta
