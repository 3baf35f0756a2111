"""What is read of many facts: lists and their pages, history, export; each within its bounds."""

import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from node import jsonl, replica
from node.requests import FactChanges, FactDraft, Limits, TagChange
from tests.node.world import NOW_MS, PROJECT, Node, a_mesh, refused, sync

UNKNOWN = "aaaaaaaaaaaaaaaa-1"


async def test_pages_hold_every_fact_once_while_others_write() -> None:
    (node,) = await a_mesh(1)
    names = [(await node.create(f"fact {n}"))["id"] for n in range(25)]
    seen: list[str] = []
    cursor = None
    while True:
        page = await node.replica.list_facts(PROJECT, 4, cursor)
        seen += [fact["id"] for fact in page["facts"]]
        await node.create("written meanwhile")
        await node.replica.tag(names[0], TagChange(add=[f"t{len(seen)}"]))
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == names[::-1]


async def test_lists_are_of_one_project_or_of_all_without_what_is_retracted() -> None:
    (node,) = await a_mesh(1)
    garden = await node.create("a")
    yard = await node.create("b", project="yard")
    gone = await node.create("c")
    await node.replica.retract(gone["id"])

    async def listed(*args: Any, **more: Any) -> list[str]:
        return [fact["id"] for fact in (await node.replica.list_facts(*args, **more))["facts"]]

    assert await listed(PROJECT) == [garden["id"]]
    assert await listed("*") == [yard["id"], garden["id"]]
    assert await listed(PROJECT, retracted=True) == [gone["id"], garden["id"]]
    assert await listed("nowhere") == []
    assert (await node.replica.projects())["projects"] == [
        {"name": PROJECT, "facts": 1},
        {"name": "yard", "facts": 1},
    ]


async def test_a_full_last_page_has_no_next() -> None:
    (node,) = await a_mesh(1)
    for number in range(4):
        await node.create(str(number))
    assert (await node.replica.list_facts(PROJECT, 4))["next_cursor"] is None
    assert (await node.replica.list_facts(PROJECT, 3))["next_cursor"] is not None


@pytest.mark.parametrize("limit", [0, 501, -5])
async def test_a_page_has_1_to_500_facts(limit: int) -> None:
    (node,) = await a_mesh(1)
    await refused(node.replica.list_facts(limit=limit), 422, "invalid_limit", "limit")


@pytest.mark.parametrize(
    "cursor", ["x", "====", "MQ==", "é", "MSAyIDM=", "OTk5OTk5OTk5OTk5OTk5OTk5OTkgMQ==", "LTEgLTE=", "\ud800"]
)
async def test_a_damaged_cursor(cursor: str) -> None:
    (node,) = await a_mesh(1)
    await refused(node.replica.list_facts(cursor=cursor), 422, "invalid_cursor", "cursor")


async def test_history_tells_every_version_with_who_and_when() -> None:
    one, other = await a_mesh(2)
    name = (await one.create("first", agent="ann", valid_from="2026-01-01"))["id"]
    await sync(one, other)
    other.now_ms = NOW_MS + 1_000
    await other.replica.update(name, FactChanges(content="second", valid_from="2026-02-01"))
    await other.replica.retract(name, "wrong")
    versions = (await other.replica.history(name))["versions"]
    told = [(v["field"], v["value"], v["author"], v["at"][17:19], v["state"]) for v in versions]
    ann, bob = one.store.node_id, other.store.node_id
    assert ("content", "first", ann, "00", "superseded") in told
    assert ("content", "second", bob, "01", "current") in told
    assert ("valid_from", "2026-01-01T00:00:00.000Z", ann, "00", "superseded") in told
    assert ("valid_from", "2026-02-01T00:00:00.000Z", bob, "01", "current") in told
    assert ("retracted", {"reason": "wrong"}, bob, "01", "retracted") in told
    assert [v["agent"] for v in versions if v["value"] == "first"] == ["ann"]
    assert [v["at"] for v in versions] == sorted(v["at"] for v in versions)


async def exported(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line) async for line in node.replica.export()]


async def test_what_is_exported_is_imported_elsewhere() -> None:
    (node,) = await a_mesh(1)
    stored = [
        await node.create("plain"),
        await node.create("full", tags=["a"], source="s", meta={"n": 1}, valid_from="2026-01-01", body="long\ntext"),
    ]
    gone = await node.create("gone")
    await node.replica.retract(gone["id"])
    lines = await exported(node)
    assert [line["id"] for line in lines] == [fact["id"] for fact in stored]
    file = io.BytesIO(b"".join([line async for line in node.replica.export()]))
    other = Node(2)
    read = [line for line in jsonl.read(file, Limits()) if isinstance(line, jsonl.Line)]
    drafts = [msgspec.convert(line.draft, FactDraft) for line in read]
    copies, _ = await other.replica.store_facts(drafts)
    for copy, original in zip(copies, stored, strict=True):
        same = ("project", "content", "body", "fact_type", "tags", "confidence", "source", "valid_from", "valid_until")
        assert [copy[field] for field in same] == [original[field] for field in same]
        assert copy["meta"]["imported"]["id"] == original["id"]


@pytest.mark.parametrize(("limit", "value"), [("EXPORT_PAGE", 3), ("EXPORT_PAGE_BYTES", 1_000)])
async def test_an_export_comes_in_pages(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, limit, value)
    (node,) = await a_mesh(1)
    names = [(await node.create(f"fact {n}", body="b" * 300))["id"] for n in range(8)]
    read, pages = node.database.read, []

    async def count(job: Callable[..., Any]) -> Any:
        pages.append(job)
        return await read(job)

    monkeypatch.setattr(node.database, "read", count)
    assert [line["id"] for line in await exported(node)] == names
    assert len(pages) >= 4, "and one that finds no more"


async def test_an_export_of_nothing() -> None:
    assert await exported(Node(1)) == []
