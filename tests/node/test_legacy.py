"""Old ids: each way to a fact takes one, and what is not clear is not guessed."""

import pytest

from crdt.fact import MAX_LEGACY_ID_CHARS, Record, encode_record
from node import legacy, migrations
from node.errors import Problem
from node.requests import FactChanges, FactDraft, LinkChange, TagChange, check_draft
from tests.node.world import Node, a_mesh, refused, sync

OURS = "k7q2m4zx5tvb3nya-17"


async def test_every_verb_takes_the_old_id() -> None:
    node = Node(1)
    fact = await node.create("moved here", legacy_id="123")
    other = await node.create("another", legacy_id="old/other")
    assert fact["legacy_id"] == "123"
    assert await node.replica.get("123") == await node.replica.get(fact["id"]) == fact
    assert (await node.replica.update("123", FactChanges(content="edited")))["id"] == fact["id"]
    assert (await node.replica.tag("123", TagChange(add=["a"])))["tags"] == ["a"]
    linked = await node.replica.link("123", LinkChange(relation="see", to="old/other"))
    assert linked["links"] == [{"relation": "see", "to": other["id"]}]
    assert {found["id"] for found in (await node.replica.graph("123"))["nodes"]} == {fact["id"], other["id"]}
    assert (await node.replica.history("123"))["id"] == fact["id"]
    unlinked = await node.replica.link("123", LinkChange(relation="see", to="old/other", remove=True))
    assert unlinked["links"] == []
    gone = await node.replica.retract("123")
    assert (gone["legacy_id"], gone["retracted"]) == ("123", True)
    await refused(node.replica.get("123"), 410, "retracted")
    await refused(node.replica.get("124"), 404, "unknown_fact")


async def test_it_travels_and_survives_a_rebuild() -> None:
    one, other = await a_mesh()
    fact = await one.create(legacy_id="123")
    plain = await one.create()
    assert plain["legacy_id"] is None
    await sync(one, other)
    assert (await other.replica.get("123"))["id"] == fact["id"]
    before = other.rows("SELECT name, shown, legacy FROM facts ORDER BY name")
    await other.database.write(lambda connection: other.store.rebuild(connection, other.now_ms))
    assert other.rows("SELECT name, shown, legacy FROM facts ORDER BY name") == before


async def test_two_facts_with_one_old_id_are_told_apart_by_nobody() -> None:
    node = Node(1)
    facts = [await node.create(f"of database {number}", legacy_id="7") for number in range(2)]
    problem = await refused(node.replica.get("7"), 409, "ambiguous_id", "id")
    assert all(fact["id"] in problem.detail for fact in facts)
    for number in range(legacy.MAX_NAMED):
        await node.create(f"more {number}", legacy_id="7")
    problem = await refused(node.replica.get("7"), 409, "ambiguous_id", "id")
    assert problem.detail.endswith("and others")


def test_an_old_id_is_no_id_of_this_mesh() -> None:
    def check(legacy_id: str) -> str | None:
        return check_draft(FactDraft(content="c", legacy_id=legacy_id), Node(1).limits).legacy_id

    assert check("123") == "123"
    assert check("x" * MAX_LEGACY_ID_CHARS) == "x" * MAX_LEGACY_ID_CHARS
    for bad in ("", " ", "a\nb", "x" * (MAX_LEGACY_ID_CHARS + 1), OURS):
        with pytest.raises(Problem) as caught:
            check(bad)
        assert (caught.value.code, caught.value.field) == ("invalid_legacy_id", "legacy_id")


async def test_an_id_of_this_mesh_is_not_looked_up() -> None:
    """Who forges a record with such an old id takes nobody's name away, and costs nobody a query."""
    node = Node(1)
    await node.create("c", legacy_id="1")
    await node.database.write(lambda c: c.execute("UPDATE facts SET legacy = ?", (OURS,)))
    assert node.replica.resolve(OURS) == OURS
    assert node.replica.resolve("\ud800") == "\ud800"


def test_a_record_without_one_has_the_bytes_that_it_had() -> None:
    assert b"legacy" not in encode_record(Record(content="c"))


async def test_facts_from_before_show_that_they_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the migration writes into what is shown is what a rebuild would write."""
    node = Node(1)
    await node.create('a "quoted" content with \N{SNOWMAN}')
    (after,) = node.rows("SELECT shown FROM facts")[0]
    before = after.replace(b',"legacy_id":null', b"")
    assert before != after
    (update,) = (
        statement
        for statement in migrations._statements(migrations.MIGRATIONS[-1][1])
        if "UPDATE facts SET shown" in statement
    )
    await node.database.write(lambda c: c.execute("UPDATE facts SET shown = ?", (before,)))
    await node.database.write(lambda c: c.execute(update))
    assert node.rows("SELECT shown FROM facts") == [(after,)]
