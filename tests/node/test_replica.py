"""The verbs: what each does, what a concurrent write makes of it, and what bad input gets: an error, no change."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from node import replica, requests
from node.requests import FactChanges, FactDraft, Limits, LinkChange, TagChange
from tests.node.books import check, dump
from tests.node.world import NOW_MS, Node, a_mesh, on_disk, refused, sync

UNKNOWN = "aaaaaaaaaaaaaaaa-1"


def now(node: Node, after_ms: int) -> None:
    node.now_ms = NOW_MS + after_ms


# --- store ---


async def test_what_is_stored_is_what_is_read() -> None:
    (node,) = await a_mesh(1)
    stored = await node.create(
        "the valve leaks", tags=["b", "a"], source="ann", meta={"n": [1, {"x": None}]}, body="long"
    )
    assert await node.replica.get(stored["id"]) == stored
    assert stored["tags"] == ["a", "b"]
    assert (stored["body"], stored["has_body"]) == ("long", True)
    assert stored["author"] == node.store.node_id
    assert (stored["conflict"], stored["retracted"], stored["links"]) == (False, False, [])
    assert stored["created_at"] == stored["updated_at"] == "2027-01-15T08:00:00.000Z"


async def test_a_batch_is_stored_in_order_and_all_or_nothing() -> None:
    (node,) = await a_mesh(1)
    drafts = [FactDraft(content=f"fact {number}", body="b" * (number % 2)) for number in range(10)]
    stored, repeated = await node.replica.store_facts(drafts)
    assert [fact["content"] for fact in stored] == [f"fact {number}" for number in range(10)]
    assert [fact["has_body"] for fact in stored] == [bool(number % 2) for number in range(10)]
    assert not repeated
    before = dump(node)
    bad = [*drafts, FactDraft(content="x" * 65_537)]
    await refused(node.replica.store_facts(bad), 413, "content_too_long", "content")
    assert dump(node) == before


@pytest.mark.parametrize("size", [0, 1_001])
async def test_a_batch_has_1_to_1000_facts(size: int) -> None:
    (node,) = await a_mesh(1)
    await refused(node.replica.store_facts([FactDraft(content="x")] * size), 422, "invalid_batch", "facts")


async def test_a_repeated_key_stores_once_and_answers_the_same() -> None:
    (node,) = await a_mesh(1)
    draft = FactDraft(content="once", meta={"a": 1, "b": 2})
    first, repeated = await node.replica.store_facts([draft, draft], "key")
    assert not repeated
    again, repeated = await node.replica.store_facts([draft, draft], "key")
    assert repeated
    assert again == first
    reordered = FactDraft(content="once", meta={"b": 2, "a": 1})
    assert await node.replica.store_facts([reordered, draft], "key") == (first, True), "JSON objects have no order"
    assert len((await node.replica.list_facts())["facts"]) == 2
    await refused(node.replica.store_facts([FactDraft(content="other")], "key"), 409, "key_reused")
    await node.replica.retract(first[0]["id"])
    again, _ = await node.replica.store_facts([draft, draft], "key")
    assert [fact["retracted"] for fact in again] == [True, False]


async def test_a_key_is_remembered_over_a_restart_and_forgotten_after_a_day(tmp_path: Path) -> None:
    node = on_disk(tmp_path / "n.db")
    draft = [FactDraft(content="once")]
    first, _ = await node.replica.store_facts(draft, "key")
    node.database.close()
    node = on_disk(tmp_path / "n.db")
    now(node, replica.KEY_KEPT_MS)
    assert await node.replica.store_facts(draft, "key") == (first, True)
    now(node, replica.KEY_KEPT_MS + 1)
    second, repeated = await node.replica.store_facts(draft, "key")
    assert not repeated
    assert second != first
    node.database.close()


async def test_one_key_at_the_same_time_stores_once(tmp_path: Path) -> None:
    node = on_disk(tmp_path / "n.db")
    answers = await asyncio.gather(*(node.replica.store_facts([FactDraft(content="once")], "key") for _ in range(20)))
    assert [repeated for _, repeated in answers].count(False) == 1
    assert len({facts[0]["id"] for facts, _ in answers}) == 1
    node.database.close()


async def test_a_request_that_failed_leaves_its_key_free() -> None:
    node = Node(1, limits=Limits(content_bytes=5))
    await refused(node.replica.store_facts([FactDraft(content="too long")], "key"), 413, "content_too_long", "content")
    _, repeated = await node.replica.store_facts([FactDraft(content="short")], "key")
    assert not repeated


async def test_our_own_ops_are_told_of_once_they_are_on_disk() -> None:
    (node,) = await a_mesh(1)
    told: list[int] = []
    node.replica.wrote = lambda ops: told.append(sum(op.hash in {op.hash for op in node.ops()} for op in ops))
    stored = await node.create("a fact", body="a body")
    await node.replica.update(stored["id"], FactChanges(content="new", tags=["a", "b"]))
    await node.replica.retract(stored["id"])
    assert told == [2, 3, 1]


# --- get, and what is not there ---


CALLS: list[Callable[[Node, str], Awaitable[Any]]] = [
    lambda node, name: node.replica.get(name),
    lambda node, name: node.replica.update(name, FactChanges(content="x")),
    lambda node, name: node.replica.retract(name),
    lambda node, name: node.replica.tag(name, TagChange(add=["x"])),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", [UNKNOWN, "", "' OR 1=1", "x" * 10_000])
async def test_an_id_that_does_not_exist(call: Callable[[Node, str], Awaitable[Any]], name: str) -> None:
    (node,) = await a_mesh(1)
    await node.create()
    before = dump(node)
    await refused(call(node, name), 404, "unknown_fact")
    assert dump(node) == before


@pytest.mark.parametrize("call", CALLS)
async def test_a_retracted_fact_is_gone(call: Callable[[Node, str], Awaitable[Any]]) -> None:
    (node,) = await a_mesh(1)
    name = (await node.create())["id"]
    answer = await node.replica.retract(name, "it was wrong")
    assert (answer["retracted"], answer["retracted_reason"]) == (True, "it was wrong")
    before = dump(node)
    assert "history" in (await refused(call(node, name), 410, "retracted")).action
    assert dump(node) == before
    assert await node.replica.get(name, retracted=True) == answer


async def test_history_and_graph_of_what_is_not_there() -> None:
    (node,) = await a_mesh(1)
    await refused(node.replica.history(UNKNOWN), 404, "unknown_fact")
    await refused(node.replica.graph(UNKNOWN), 404, "unknown_fact")


# --- update ---


async def test_every_field_is_changed_and_cleared() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("old", tags=["old"], source="s", agent="a", valid_from="2026-01-01"))["id"]
    new = await node.replica.update(
        name,
        FactChanges(
            content="new", fact_type="rule", tags=["new"], confidence="sure", source="t", agent="b", meta={"n": 1},
            valid_from="2026-02-01", valid_until="2026-03-01",
        ),
    )  # fmt: skip
    assert [new[field] for field in ("content", "fact_type", "tags", "confidence", "source", "agent", "meta")] == [
        "new", "rule", ["new"], "sure", "t", "b", {"n": 1},
    ]  # fmt: skip
    assert (new["valid_from"], new["valid_until"]) == ("2026-02-01T00:00:00.000Z", "2026-03-01T00:00:00.000Z")
    cleared = await node.replica.update(
        name, FactChanges(source=None, agent=None, valid_from=None, valid_until=None, tags=[], meta={})
    )
    assert [cleared[f] for f in ("source", "agent", "valid_from", "valid_until", "tags", "meta")] == [
        None, None, None, None, [], {},
    ]  # fmt: skip
    assert cleared["content"] == "new"
    check(node)


async def test_a_change_that_says_nothing_new_writes_nothing() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("same", tags=["a"], meta={"n": 1}))["id"]
    written = len(node.ops())
    for changes in (FactChanges(), FactChanges(content="same", tags=["a"], meta={"n": 1}), FactChanges(restore=True)):
        await node.replica.update(name, changes)
    assert len(node.ops()) == written
    assert (await node.replica.update(name, FactChanges(meta={"n": True})))["meta"] == {"n": True}
    assert len(node.ops()) == written + 1, "true is not 1"


async def test_if_version_refuses_to_overwrite_what_was_not_seen() -> None:
    (node,) = await a_mesh(1)
    first = await node.create("first")
    second = await node.replica.update(first["id"], FactChanges(content="second", if_version=first["version"]))
    assert second["version"] != first["version"]
    before = dump(node)
    problem = await refused(
        node.replica.update(first["id"], FactChanges(content="third", if_version=first["version"])),
        409, "version_changed", "if_version",
    )  # fmt: skip
    assert second["version"] in problem.action
    assert dump(node) == before
    tagged = await node.replica.tag(first["id"], TagChange(add=["x"]))
    assert tagged["version"] == second["version"], "a version is of the content"


async def test_an_interval_is_checked_with_what_is_there() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create(valid_from="2026-02-01"))["id"]
    await refused(
        node.replica.update(name, FactChanges(valid_until="2026-01-01")), 422, "invalid_valid_until", "valid_until"
    )
    await node.replica.update(name, FactChanges(valid_until="2026-03-01"))


async def test_an_interval_that_two_nodes_made_impossible_does_not_block_other_edits() -> None:
    one, other = await a_mesh(2)
    name = (await one.create(valid_from="2026-01-01", valid_until="2026-12-01"))["id"]
    await sync(one, other)
    await one.replica.update(name, FactChanges(valid_from="2026-11-01"))
    await other.replica.update(name, FactChanges(valid_until="2026-02-01"))
    await sync(one, other)
    assert (await one.replica.update(name, FactChanges(content="still editable")))["content"] == "still editable"


async def test_a_conflict_is_shown_on_both_and_settled_by_a_write() -> None:
    one, other = await a_mesh(2)
    name = (await one.create("first"))["id"]
    await sync(one, other)
    now(one, 1_000)
    now(other, 2_000)
    await one.replica.update(name, FactChanges(content="from one", source="one"))
    await other.replica.update(name, FactChanges(content="from other"))
    await sync(one, other)
    for node in (one, other):
        fact = await node.replica.get(name)
        assert (fact["content"], fact["conflict"], fact["conflicts"]) == ("from other", True, ["content"])
        assert fact["source"] == "one", "another field is no conflict"
        versions = (await node.replica.history(name))["versions"]
        assert {v["value"]: v["state"] for v in versions if v["field"] == "content"} == {
            "first": "superseded", "from one": "conflicting", "from other": "current",
        }  # fmt: skip
    settled = await one.replica.update(name, FactChanges(content="from other"))
    assert not settled["conflict"]
    await sync(one, other)
    for node in (one, other):
        fact = await node.replica.get(name)
        assert (fact["content"], fact["conflict"]) == ("from other", False)
    assert await one.replica.get(name) == await other.replica.get(name)


# --- retract and restore ---


async def test_a_retraction_is_taken_back() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("first"))["id"]
    await node.replica.retract(name)
    back = await node.replica.update(name, FactChanges(restore=True, content="second"))
    assert (back["retracted"], back["retracted_reason"], back["content"]) == (False, None, "second")
    states = [v["state"] for v in (await node.replica.history(name))["versions"] if v["field"] == "retracted"]
    assert states == ["superseded", "current"]
    check(node)


async def test_an_edit_made_elsewhere_meanwhile_is_there_after_a_retraction() -> None:
    one, other = await a_mesh(2)
    name = (await one.create("first"))["id"]
    await sync(one, other)
    await one.replica.retract(name)
    await other.replica.update(name, FactChanges(content="edited"))
    await sync(one, other)
    for node in (one, other):
        await refused(node.replica.get(name), 410, "retracted")
    assert (await other.replica.update(name, FactChanges(restore=True)))["content"] == "edited"


async def test_a_reason_has_its_own_limit_and_name() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create())["id"]
    await refused(node.replica.retract(name, "r" * 4_097), 422, "invalid_reason", "reason")
    assert (await node.replica.retract(name, ""))["retracted_reason"] == ""


# --- tags and links ---


async def test_tags_are_added_and_removed() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create(tags=["a", "b"]))["id"]
    fact = await node.replica.tag(name, TagChange(add=["c", "c", "a"], remove=["b", "nothing"]))
    assert fact["tags"] == ["a", "c"]
    fact = await node.replica.tag(name, TagChange(add=["b"], remove=["b"]))
    assert fact["tags"] == ["a", "b", "c"], "an add wins over a remove of one request"
    assert node.rows("SELECT tag FROM tags ORDER BY tag") == [("a",), ("b",), ("c",)]


async def test_a_concurrent_add_survives_a_remove() -> None:
    one, other = await a_mesh(2)
    name = (await one.create(tags=["a", "b"]))["id"]
    await sync(one, other)
    await one.replica.tag(name, TagChange(remove=["a", "b"]))
    await other.replica.tag(name, TagChange(remove=["a"]))
    await other.replica.tag(name, TagChange(add=["a"]))
    await sync(one, other)
    for node in (one, other):
        assert (await node.replica.get(name))["tags"] == ["a"]
        check(node)


async def test_a_fact_has_64_tags_and_more_only_by_merging() -> None:
    one, other = await a_mesh(2)
    name = (await one.create(tags=[f"t{n}" for n in range(40)]))["id"]
    await sync(one, other)
    await one.replica.tag(name, TagChange(add=[f"one{n}" for n in range(24)]))
    await refused(one.replica.tag(name, TagChange(add=["one too many"])), 422, "invalid_tags", "tags")
    await one.replica.tag(name, TagChange(add=["swapped in"], remove=["t0"]))
    await other.replica.tag(name, TagChange(add=[f"other{n}" for n in range(24)]))
    await sync(one, other)
    assert len((await one.replica.get(name))["tags"]) == 88
    assert len((await one.replica.tag(name, TagChange(remove=["t1"])))["tags"]) == 87, "taking away always works"
    await refused(one.replica.tag(name, TagChange(add=["t1"])), 422, "invalid_tags", "tags")


async def test_a_tag_that_is_longer_than_ours_may_be_can_be_removed() -> None:
    one, other = await a_mesh(2)
    other.replica.limits = Limits(tag_bytes=300)
    name = (await one.create())["id"]
    await sync(one, other)
    await other.replica.tag(name, TagChange(add=["t" * 300]))
    await sync(one, other)
    assert (await one.replica.tag(name, TagChange(remove=["t" * 300])))["tags"] == []


async def test_links_are_made_once_and_taken_away() -> None:
    (node,) = await a_mesh(1)
    one, other = (await node.create("one"))["id"], (await node.create("other"))["id"]
    change = LinkChange(relation="causes", to=other)
    linked = await node.replica.link(one, change)
    assert linked["links"] == [{"relation": "causes", "to": other}]
    written = len(node.ops())
    assert (await node.replica.link(one, change))["links"] == linked["links"]
    assert len(node.ops()) == written
    gone = await node.replica.link(one, LinkChange(relation="causes", to=other, remove=True))
    assert gone["links"] == []
    await refused(node.replica.link(one, LinkChange(relation="causes", to=other, remove=True)), 404, "no_such_link")
    assert (await node.replica.link(one, change))["links"] == linked["links"]


async def test_a_link_leads_to_a_fact() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create())["id"]
    await refused(node.replica.link(name, LinkChange(relation="r", to=UNKNOWN)), 404, "unknown_fact", "to")
    await refused(node.replica.link(UNKNOWN, LinkChange(relation="r", to=name)), 404, "unknown_fact")
    await refused(node.replica.link(name, LinkChange(relation="a:b", to=name)), 422, "invalid_relation", "relation")


async def test_links_of_one_fact_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_LINKS", 2)
    (node,) = await a_mesh(1)
    name = (await node.create())["id"]
    for relation in ("a", "b"):
        await node.replica.link(name, LinkChange(relation=relation, to=name))
    await refused(node.replica.link(name, LinkChange(relation="c", to=name)), 422, "too_many_links", "to")
    await node.replica.link(name, LinkChange(relation="a", to=name))
