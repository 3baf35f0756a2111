"""Two real nodes: what one writes the other gets, apart or together, over lines that break, across restarts."""

import random
from math import inf
from pathlib import Path
from typing import Any

import pytest

from bench.local_nodes import LocalNode, agree, enrol, wait_until
from tests.e2e.pairs import Pair, assert_same, ops_on_disk

BULK_FACTS = 3_000
LINE_LASTS_BYTES = 350_000
"""A third of what the bulk takes on the wire, so whoever began anew each time would never end; and more than what is
under way at once, which a break costs (sync/transfer.py)."""


@pytest.mark.parametrize("direction", [1, -1], ids=["from alpha", "from beta"])
def test_a_write_is_on_the_other_node_at_once(pair: Pair, direction: int) -> None:
    here, there = pair.both[::direction]
    [fact] = here.store(f"{here.name} has changed the filter of compressor 2")
    assert wait_until("the other has it", lambda: get(there, fact["id"]), timeout_s=3) == fact
    hits = there.client.call("POST", "/v1/search", {"query": "compressor filter"})["results"]
    assert fact["id"] in [hit["fact"]["id"] for hit in hits]


def test_both_write_while_apart_and_are_the_same_afterwards(pair: Pair) -> None:
    alpha, beta = pair.both
    ids = [fact["id"] for fact in alpha.store(*(f"reading {number} of gauge G7" for number in range(6)))]
    pair.meet()
    pair.part()
    for node in pair.both:
        node.store(*({"content": f"{node.name} notes {n}", "project": f"shift-{n % 3}"} for n in range(100)))
        patch(node, ids[0], content=f"as {node.name} reads it")
        patch(node, ids[1], fact_type=f"type-{node.name}", content=f"{node.name} again")
        call(node, "POST", ids[2], "/tags", add=[f"seen-by-{node.name}"])
    call(alpha, "DELETE", ids[3])
    patch(beta, ids[3], content="beta still writes it")
    call(alpha, "POST", ids[4], "/links", relation="follows", to=ids[5])
    call(beta, "POST", ids[4], "/links", relation="replaces", to=ids[5])
    assert not agree(*pair.both)

    pair.meet()
    assert_same(pair)
    facts = alpha.facts()
    assert facts[ids[0]]["conflict"]
    assert facts[ids[1]]["conflict"]
    assert set(facts[ids[2]]["tags"]) == {"seen-by-alpha", "seen-by-beta"}
    assert ids[3] not in facts, "a retraction stands although the content was edited"
    assert {link["relation"] for link in facts[ids[4]]["links"]} == {"follows", "replaces"}

    told = {"as alpha reads it", "as beta reads it"}
    losers = {one["value"] for one in alpha.history(ids[0]) if one["state"] == "conflicting"}
    assert losers == told - {facts[ids[0]]["content"]}

    patch(beta, ids[0], content="agreed: 4.2 bar")
    wait_until("alpha has it", lambda: alpha.facts()[ids[0]]["content"] == "agreed: 4.2 bar")
    assert not alpha.facts()[ids[0]]["conflict"]


def test_both_edit_one_text_while_apart_and_keep_their_words(pair: Pair) -> None:
    alpha, beta = pair.both
    text = "Pump P3\n\nLeaks at the flange.\n\nSpare seals are in drawer 4.\n"
    fact_id = alpha.store({"content": "hand-over", "body": text})[0]["id"]
    pair.meet()
    pair.part()
    edit_body(alpha, fact_id, "Leaks at the flange.", "Leaks at the flange since Monday, about a cup an hour.")
    edit_body(beta, fact_id, "drawer 4", "drawer 4 and, since May, also in the van")
    patch(beta, fact_id, append="Ada is informed.\n")
    pair.meet()
    bodies = [get(node, fact_id)["body"] for node in pair.both]
    assert bodies[0] == bodies[1]
    assert bodies[0] == (
        "Pump P3\n\nLeaks at the flange since Monday, about a cup an hour.\n\n"
        "Spare seals are in drawer 4 and, since May, also in the van.\nAda is informed.\n"
    )
    assert_same(pair)


def test_a_line_that_breaks_again_and_again_only_delays(pair: Pair) -> None:
    alpha, _ = pair.both
    pair.part()
    chance = random.Random(7)
    for _ in range(BULK_FACTS // 500):
        alpha.store(*({"content": chance.randbytes(200).hex(), "project": "bulk"} for _ in range(500)))
    for line in (pair.line, pair.way_back):
        line.break_every(LINE_LASTS_BYTES)
    pair.meet(60)
    for line in (pair.line, pair.way_back):
        line.break_every(inf)
    assert pair.line.breaks + pair.way_back.breaks >= 2, "the line was to break in the middle"
    assert_same(pair)


@pytest.mark.parametrize("which", ["alpha", "beta"])
def test_a_restart_of_either_loses_nothing(pair: Pair, which: str) -> None:
    restarted, other = pair.both if which == "alpha" else pair.both[::-1]
    restarted.store("before the stop")
    assert restarted.stop() == 0
    [meanwhile] = other.store(f"{other.name} wrote while {restarted.name} was down")
    restarted.start()
    wait_until("they agree again, by themselves", lambda: agree(*pair.both))
    restarted.store("after the start")
    wait_until("and go on", lambda: agree(*pair.both))
    assert meanwhile["id"] in restarted.facts()
    assert_same(pair)


def test_a_clean_stop_skips_no_seq(pair: Pair) -> None:
    alpha, _ = pair.both
    first = alpha.store("the last before")[0]["id"]
    alpha.stop()
    second = alpha.start().store("the first after")[0]["id"]
    author, _, seq = first.rpartition("-")
    assert second == f"{author}-{int(seq) + 1}"


def test_status_says_who_is_away_and_why(pair: Pair) -> None:
    pair.meet()
    pair.part()
    for node, other in (pair.both, pair.both[::-1]):
        [peer] = node.status()["peers"]
        assert (peer["name"], peer["state"], peer["reason"]) == (other.name, "offline", "offline")
    pair.meet()
    for node in pair.both:
        [peer] = node.status()["peers"]
        assert (peer["state"], peer["reason"]) == ("connected", None)


def test_who_was_granted_one_project_gets_that_one_only(pair: Pair, tmp_path: Path) -> None:
    alpha, _ = pair.both
    alpha.store({"content": "salaries", "project": "secret"}, {"content": "press 4", "project": "factory"})
    with enrol(tmp_path / "guest", "guest", alpha, ("--project", "factory")).start() as guest:
        wait_until("the factory is there", lambda: "press 4" in contents(guest))
        guest.store({"content": "from the guest", "project": "factory"}, {"content": "its own", "project": "secret"})
        wait_until("alpha has it", lambda: "from the guest" in contents(alpha))
        guest.tell("sync")
        assert contents(guest) == {"press 4", "from the guest", "its own"}
        assert {one["name"] for one in guest.status()["projects"]} == {"_mesh", "factory", "secret"}
        assert "its own" not in contents(alpha), "it may not read that project, nor does anybody hear of it from there"
        assert guest.stop() == 0


def test_no_op_has_a_namesake(pair: Pair) -> None:
    """After all of the above: one op for each (author, seq), the same ones on both disks."""
    pair.meet()
    alpha, beta = (ops_on_disk(node.home.database) for node in pair.both)
    assert alpha == beta
    assert len({(author, seq) for author, seq, _ in alpha}) == len(alpha)


def contents(node: LocalNode) -> set[str]:
    return {fact["content"] for fact in node.facts().values()}


def get(node: LocalNode, fact_id: str) -> Any:
    return node.client.call("GET", f"/v1/facts/{fact_id}")


def patch(node: LocalNode, fact_id: str, **changes: object) -> Any:
    return node.client.call("PATCH", f"/v1/facts/{fact_id}", changes)


def call(node: LocalNode, method: str, fact_id: str, below: str = "", **body: object) -> Any:
    return node.client.call(method, f"/v1/facts/{fact_id}{below}", body or None)


def edit_body(node: LocalNode, fact_id: str, old: str, new: str) -> None:
    """As an editor does: from the text that it was given."""
    fact = get(node, fact_id)
    assert old in fact["body"]
    patch(node, fact_id, body=fact["body"].replace(old, new), body_base=fact["body_token"])
