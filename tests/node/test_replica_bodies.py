"""The body of a fact: text that several clients and nodes edit at once, and none loses a word."""

import pytest

from node import replica
from node.requests import FactChanges, TagChange
from tests.node.books import check, dump
from tests.node.world import a_mesh, refused, sync


async def test_two_clients_that_edit_one_body_both_keep_their_words() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create(body="The pump is old. It runs."))["id"]
    ann, bob = await node.replica.get(name), await node.replica.get(name)
    assert ann["body_token"] == bob["body_token"]
    await node.replica.update(name, FactChanges(body="The blue pump is old. It runs.", body_base=ann["body_token"]))
    merged = await node.replica.update(
        name, FactChanges(body="The pump is old. It runs well.", body_base=bob["body_token"])
    )
    assert merged["body"] == "The blue pump is old. It runs well."
    replaced = await node.replica.update(name, FactChanges(body="All new."))
    assert replaced["body"] == "All new."


async def test_two_nodes_that_edit_one_body_offline_both_keep_their_words() -> None:
    one, other = await a_mesh(2)
    name = (await one.create(body="one two three"))["id"]
    await sync(one, other)
    await one.replica.update(name, FactChanges(body="one and two three"))
    await other.replica.update(name, FactChanges(append=" four"))
    await sync(one, other)
    for node in (one, other):
        assert (await node.replica.get(name))["body"] == "one and two three four"
        check(node)


async def test_a_body_comes_with_its_token_from_every_verb_that_shows_one_fact() -> None:
    (node,) = await a_mesh(1)
    stored = await node.create(body="text")
    name = stored["id"]
    answers = [
        stored,
        await node.replica.get(name),
        await node.replica.tag(name, TagChange(add=["x"])),
        await node.replica.retract(name),
        await node.replica.update(name, FactChanges(restore=True)),
    ]
    assert {answer["body"] for answer in answers} == {"text"}
    assert len({answer["body_token"] for answer in answers}) == 1
    assert (await node.replica.list_facts())["facts"][0]["body"] is None, "a page would be too large"
    assert "body_token" not in await node.create("no body")


@pytest.mark.parametrize("base", ["x", "", "gA==", "\ud800", "gaFhAQ=="])
async def test_a_base_that_is_no_token(base: str) -> None:
    (node,) = await a_mesh(1)
    name = (await node.create(body="text"))["id"]
    changes = FactChanges(body="new", body_base=base)
    if base == "gA==":  # the token of a body without edits
        assert (await node.replica.update(name, changes))["body"] is not None
    else:
        await refused(node.replica.update(name, changes), 422, "invalid_body_base", "body_base")


async def test_a_body_has_a_mebibyte_and_no_more() -> None:
    (node,) = await a_mesh(1)
    full = "b" * (1 << 20)
    name = (await node.create(body=full))["id"]
    before = dump(node)
    await refused(node.replica.update(name, FactChanges(append="c")), 413, "body_too_long", "body")
    await refused(node.replica.update(name, FactChanges(body=full + "c")), 413, "body_too_long", "body")
    assert dump(node) == before
    assert (await node.replica.update(name, FactChanges(body="a" * (1 << 20))))["body"] == "a" * (1 << 20)


async def test_an_edit_that_no_op_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "MAX_BODY_BYTES", 500)
    (node,) = await a_mesh(1)
    name = (await node.create(body="short"))["id"]
    before = dump(node)
    await refused(node.replica.update(name, FactChanges(append="x" * 500)), 413, "body_too_long", "body")
    assert dump(node) == before


async def test_a_body_may_be_emptied_and_written_again() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create(body="text"))["id"]
    assert (await node.replica.update(name, FactChanges(body="")))["body"] == ""
    assert (await node.replica.get(name))["body"] == ""
    assert (await node.replica.update(name, FactChanges(append="again")))["body"] == "again"
