"""Facts of an earlier system come in once, whatever became of them since; so do the votes that were counted there."""

from typing import Any

import msgspec
import pytest

from node.imports import MAX_VOTES, ImportedFact, Imports, OldVoteDraft
from node.replica import KEY_KEPT_MS
from node.requests import FactChanges, TagChange
from node.voting import records
from node.voting.records import OldVote
from tests.node.world import PROJECT, Node, a_mesh, refused, sync

THEN = "2024-05-11T08:30:00Z"
THEN_MS = 1_715_416_200_000


def fact(number: int = 1, *votes: tuple[str, int], **more: Any) -> ImportedFact:
    origin = {"system": "cortex", "id": str(number), "created_at": THEN}
    drafts = [OldVoteDraft(agent=agent, value=value, time=THEN) for agent, value in votes]
    return ImportedFact(
        **{"content": f"fact {number}", "project": PROJECT, "legacy_id": str(number), "meta": {"imported": origin}}
        | {"votes": drafts}
        | more
    )


def votes_of(node: Node, fact_id: str) -> dict[str, int]:
    """What the ops say."""
    found: dict[str, int] = {}
    for op in sorted(node.ops(), key=lambda op: op.order):
        if op.subject.startswith(f"vote/{fact_id}/") and (vote := records.read(op, OldVote)):
            found[vote.agent] = vote.value
    return found


async def test_facts_keep_their_ids_and_their_votes() -> None:
    node = Node(1)
    told: list[Any] = []
    node.replica.wrote = told.extend
    report = await Imports(node.replica).take([fact(1, ("ada", 1), ("bo", -1)), fact(2)])
    assert report == {"ids": report["ids"], "stored": 2, "already_stored": 0, "votes": 2, "already_voted": 0}
    first = await node.replica.get("1")
    assert (first["id"], first["content"], first["legacy_id"]) == (report["ids"][0], "fact 1", "1")
    assert votes_of(node, first["id"]) == {"ada": 1, "bo": -1}
    assert len(told) == 4, "the peers hear of facts and of votes"
    assert OldVote("ada", 1, THEN_MS) in [records.read(op, OldVote) for op in told]


async def test_again_changes_nothing_also_much_later_and_elsewhere() -> None:
    here, there = await a_mesh()
    drafts = [fact(1, ("ada", 1)), fact(2, retracted=True, retracted_reason="was wrong"), fact(3, ("bo", 1))]
    first = await Imports(here.replica).take(drafts)
    await sync(here, there)
    await here.replica.update("1", FactChanges(content="edited since", meta={}))
    await here.replica.retract("3")
    await here.replica.tag("1", TagChange(add=["mine"]))
    for node in (here, there):
        node.now_ms += 40 * KEY_KEPT_MS
        before = len(node.ops())
        again = await Imports(node.replica).take(drafts)
        assert again == {"ids": first["ids"], "stored": 0, "already_stored": 3, "votes": 0, "already_voted": 2}
        assert len(node.ops()) == before
    assert (await here.replica.get("1"))["content"] == "edited since"


async def test_what_is_new_in_a_later_import_is_added() -> None:
    node = Node(1)
    take = Imports(node.replica).take
    await take([fact(1, ("ada", 1))])
    node.now_ms += 1
    report = await take([fact(1, ("ada", -1), ("bo", 1)), fact(2)])
    assert (report["stored"], report["already_stored"], report["votes"], report["already_voted"]) == (1, 1, 2, 0)
    assert votes_of(node, report["ids"][0]) == {"ada": -1, "bo": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"content": "another fact"},
        {"project": "elsewhere"},
        {"meta": {"imported": {"created_at": "2025-01-01"}}},
        {"meta": {}},
        {"meta": {"imported": "by hand"}},
    ],
)
async def test_another_fact_with_the_same_old_id_is_another_fact(other: dict[str, Any]) -> None:
    node = Node(1)
    await Imports(node.replica).take([fact(1)])
    for stored in (1, 0):
        report = await Imports(node.replica).take([fact(1, **other)])
        assert (report["stored"], report["already_stored"]) == (stored, 1 - stored)
    await refused(node.replica.get("1"), 409, "ambiguous_id", "id")


async def test_what_a_fact_says_since_an_edit_is_not_what_came() -> None:
    node = Node(1)
    await Imports(node.replica).take([fact(1)])
    await node.replica.update("1", FactChanges(source="somebody", content="edited since"))
    report = await Imports(node.replica).take([fact(1, content="edited since")])
    assert (report["stored"], report["already_stored"]) == (1, 0)


async def test_one_fact_twice_in_a_request_is_one_fact() -> None:
    """So the votes on a fact may come in pieces."""
    node = Node(1)
    report = await Imports(node.replica).take([fact(1, ("ada", 1)), fact(2), fact(1, ("ada", 1), ("bo", 1))])
    assert report["ids"] == [report["ids"][0], report["ids"][1], report["ids"][0]]
    assert (report["stored"], report["already_stored"], report["votes"]) == (2, 1, 2)
    assert votes_of(node, report["ids"][0]) == {"ada": 1, "bo": 1}


async def test_the_newest_vote_of_an_agent_counts() -> None:
    node = Node(1)
    votes = [OldVoteDraft(agent="ada", value=-1, time=THEN), OldVoteDraft(agent="ada", value=1, time="2023-01-01")]
    report = await Imports(node.replica).take([fact(1, votes=votes)])
    assert votes_of(node, report["ids"][0]) == {"ada": -1}


async def test_a_withdrawn_fact_comes_withdrawn() -> None:
    node = Node(1)
    await Imports(node.replica).take([fact(1, retracted=True, retracted_reason="was wrong")])
    shown = await node.replica.get("1", retracted=True)
    assert (shown["retracted"], shown["retracted_reason"]) == (True, "was wrong")


async def test_all_or_nothing() -> None:
    node = Node(1)
    take = Imports(node.replica).take
    name = "x" * (records.MAX_NAME_BYTES + 1)
    await refused(take([fact(1), fact(2, ("ada", 2))]), 422, "invalid_votes", "votes")
    await refused(take([fact(1), fact(2, (name, 1))]), 422, "invalid_votes", "votes")
    await refused(take([fact(1), fact(2, ("\n", 1))]), 422, "invalid_votes", "votes")
    await refused(take([fact(1), fact(2, content=" ")]), 422, "invalid_content", "content")
    await refused(take([fact(1), fact(2, body="long")]), 422, "invalid_body", "body")
    await refused(take([]), 422, "invalid_batch", "facts")
    assert node.rows("SELECT count(*) FROM ops") == [(0,)]


def test_a_request_bounds_the_votes_on_a_fact() -> None:
    votes = [{"agent": str(number), "value": 1} for number in range(MAX_VOTES + 1)]
    with pytest.raises(msgspec.ValidationError, match="length"):
        msgspec.convert({"content": "c", "legacy_id": "1", "votes": votes}, ImportedFact)
