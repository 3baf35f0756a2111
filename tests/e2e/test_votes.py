"""Votes and the ledger as a user meets them: real processes, the command line, `kill -9`, restored backups, takeover.

What is asserted is what was promised: an acknowledged commit is in the ledger exactly once whatever happens to the hub;
votes cast offline are committed without anybody's doing; every change to the ledger's file is found, and named.
"""

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.local_nodes import LocalNode, enrol, found, wait_until
from node.errors import EXIT_BUSY, EXIT_INTEGRITY, Problem
from tests.e2e.pairs import Pair, running_pair

VOTERS = 6
COMMITS_BEFORE_A_KILL = 60
KILLS = 3


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[LocalNode]:
    """The founder of a mesh: a hub by itself."""
    with found(tmp_path / "alpha", "alpha", mdns="false") as node:
        yield node.start()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Pair]:
    """A pair of its own, for tests that ruin it."""
    with running_pair(tmp_path) as pair:
        yield pair


def vote(node: LocalNode, fact_id: str, value: int = 1, **more: Any) -> Any:
    return node.client.call("POST", f"/v1/facts/{fact_id}/vote", {"value": value, **more})


def ledger(node: LocalNode) -> Any:
    return node.client.call("GET", "/v1/ledger/status", query={"read": "local"})


def votes_of(node: LocalNode, fact_id: str) -> list[Any]:
    found: list[Any] = node.client.call("GET", f"/v1/facts/{fact_id}/votes")["votes"]
    return found


def entries_on_disk(node: LocalNode) -> dict[int, bytes]:
    with closing(sqlite3.connect(f"{node.home.database.as_uri()}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT id, raw FROM ledger_entries"))


def trust(node: LocalNode, fact_id: str) -> str:
    return str(node.client.call("GET", f"/v1/facts/{fact_id}")["trust"])


def damage(node: LocalNode, table: str, column: str, where: str) -> None:
    """Change one bit in the database of a node that doesn't run."""
    with closing(sqlite3.connect(node.home.database)) as connection, connection:
        [(whole,)] = connection.execute(f"SELECT {column} FROM {table} WHERE {where}")
        changed = whole[:25] + bytes([whole[25] ^ 1]) + whole[26:]
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (changed,))


# A lone user


def test_a_lone_users_vote_is_committed_at_once_and_verifies(alone: LocalNode) -> None:
    fact = alone.run("store", "Press 4 needs 3 bar").stdout.strip()
    said = alone.run("vote", fact, "up", "--reason", "measured")
    assert said.returncode == 0
    assert said.stdout.startswith("committed #")
    assert alone.tell("get", fact)["trust"] == "verified", "the owner alone may verify"
    again = alone.tell("vote", fact, "up")
    assert again["duplicate"] is True
    assert again["state"] == "committed"
    assert alone.tell("vote", fact, "withdraw")["state"] == "committed"
    assert alone.tell("get", fact)["trust"] == "unsettled"
    report = alone.tell("ledger", "verify")
    assert report["ok"] and report["votes"] == 2, report


def test_an_edit_starts_the_new_version_unsettled(alone: LocalNode) -> None:
    fact = alone.store("The valve opens at 3 bar")[0]["id"]
    assert vote(alone, fact)["trust"] == "verified"
    alone.client.call("PATCH", f"/v1/facts/{fact}", {"content": "The valve opens at 4 bar"})
    assert trust(alone, fact) == "unsettled"
    assert vote(alone, fact, -1)["trust"] == "disputed"


def test_receipts_and_exports_are_checked_without_a_node(alone: LocalNode, tmp_path: Path) -> None:
    fact = alone.store("The spare key is in drawer 2")[0]["id"]
    index = vote(alone, fact)["entry"]["index"]
    receipt, folder = tmp_path / "vote.tlog-proof", tmp_path / "export"
    alone.tell("ledger", "proof", str(index), "--out", str(receipt))
    alone.tell("ledger", "export", str(folder))
    assert alone.stop() == 0
    assert alone.tell("ledger", "verify", str(receipt))["ok"]
    assert alone.tell("ledger", "verify", str(folder))["ok"]

    bundle = next(path for path in folder.glob("tile/entries/**/*") if path.is_file())
    for path in (receipt, bundle, folder / "checkpoint"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:])
        done = alone.run("ledger", "verify", str(receipt if path == receipt else folder), "--json")
        assert done.returncode == EXIT_INTEGRITY, f"{path.name}: {done.stdout}{done.stderr}"
        path.write_bytes(whole)
    (folder / "checkpoint").unlink()
    assert alone.run("ledger", "verify", str(folder)).returncode != 0, "an export that was cut off"


@pytest.mark.parametrize(
    ("table", "column", "where", "code"),
    [
        ("ledger_entries", "raw", "id = 4", "leaf"),
        ("ledger_entries", "text", "id = 4", "text"),
        ("ledger_hashes", "value", "level = 0 AND number = 4", "leaf"),
    ],
    ids=["an entry", "a vote", "a hash"],
)
def test_one_changed_bit_of_the_ledger_is_found(
    alone: LocalNode, table: str, column: str, where: str, code: str
) -> None:
    for number in range(5):
        vote(alone, alone.store(f"reading {number} of gauge 7")[0]["id"])
    assert alone.stop() == 0
    damage(alone, table, column, where)
    alone.start()
    done = alone.run("ledger", "verify", "--json")
    assert done.returncode == EXIT_INTEGRITY, done.stdout + done.stderr
    assert (4, code) in {(finding["index"], finding["code"]) for finding in json.loads(done.stdout)["findings"]}


# Offline, and together again


def test_votes_cast_offline_are_committed_when_the_hub_is_back(two: Pair) -> None:
    alpha, beta = two.both
    facts = [fact["id"] for fact in alpha.store(*(f"shift note {number}" for number in range(30)))]
    two.meet()
    assert wait_until("beta's agent is enrolled", lambda: vote(beta, facts[0])["state"] == "committed")
    two.part()
    for fact in facts[1:]:
        assert vote(beta, fact)["state"] == "pending"
    assert beta.run("vote", facts[1], "up").returncode == 0
    assert beta.status()["votes_pending"] == len(facts) - 1
    assert [one["state"] for one in votes_of(beta, facts[5])] == ["pending"]
    assert beta.run("ledger", "checkpoint").returncode == EXIT_BUSY, "linearizable reads need a hub"
    assert beta.run("ledger", "checkpoint", "--local").returncode == 0
    two.meet()
    wait_until("nothing is pending", lambda: beta.status()["votes_pending"] == 0 == alpha.status()["votes_pending"])
    wait_until("beta has every entry", lambda: entries_on_disk(alpha) == entries_on_disk(beta))
    for node in two.both:
        assert [one["state"] for one in votes_of(node, facts[5])] == ["committed"]
        assert node.tell("ledger", "verify")["ok"]
    assert beta.run("ledger", "checkpoint").returncode == 0


def test_a_vote_beside_a_hub_is_answered_with_its_place(two: Pair) -> None:
    alpha, beta = two.both
    fact = beta.store("the forklift is in hall 3")[0]["id"]
    answer = wait_until("it is committed", lambda: _committed(vote(beta, fact, reason="seen")))
    assert answer["entry"]["index"] > 2
    assert len(answer["entry"]["hash"]) == 64
    same = vote(beta, fact, reason="seen")
    assert same["duplicate"] and same["entry"] == answer["entry"]
    wait_until("both show it", lambda: votes_of(alpha, fact) == votes_of(beta, fact))


def test_two_machines_verify_and_one_does_not(tmp_path: Path, two: Pair) -> None:
    alpha, beta = two.both
    with enrol(tmp_path / "gamma", "gamma", alpha, mdns="false") as gamma:
        gamma.start()
        fact = alpha.store("the crane is out of order")[0]["id"]
        for number, node in enumerate((beta, gamma)):
            wait_until("the fact is there", lambda node=node: node.client.call("GET", f"/v1/facts/{fact}"))  # type: ignore[misc]
            wait_until("it is committed", lambda node=node: _committed(vote(node, fact)))  # type: ignore[misc]
            expected = ("unsettled", "verified")[number]
            for any_node in (alpha, beta, gamma):
                wait_until(f"it is {expected}", lambda n=any_node, e=expected: trust(n, fact) == e)  # type: ignore[misc]


# What must never happen


def test_kill_9_of_the_hub_loses_no_commit_and_makes_none_twice(alone: LocalNode) -> None:
    facts = [fact["id"] for fact in alone.store(*(f"claim {number}" for number in range(40)))]
    told: dict[str, Any] = {}
    lock = threading.Lock()

    def cast(voter: int) -> None:
        turn = 0
        while True:
            fact, value = facts[(voter + turn * VOTERS) % len(facts)], (1, -1)[turn // 7 % 2]
            try:
                answer = alone.client.call(
                    "POST", f"/v1/facts/{fact}/vote", {"value": value, "agent": f"voter {voter}"}
                )
            except Problem:
                return
            if answer["state"] == "committed":
                with lock:
                    told[answer["vote_id"]] = answer["entry"]
            turn += 1

    for voter in range(VOTERS):
        alone.run("agent", "add", f"voter {voter}")
    for kill in range(KILLS):
        with ThreadPoolExecutor(VOTERS) as pool:
            for voter in range(VOTERS):
                pool.submit(cast, voter)
            target = COMMITS_BEFORE_A_KILL * (kill + 1)
            try:
                wait_until("there are commits", lambda n=target: len(told) >= n, 60)  # type: ignore[misc]
            finally:
                alone.kill()
        alone.start()
        wait_until("nothing is pending", lambda: alone.status()["votes_pending"] == 0)
        report = alone.tell("ledger", "verify")
        assert report["ok"], report
        with closing(sqlite3.connect(f"{alone.home.database.as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT id, lower(hex(name)), lower(hex(hash)) FROM ledger_entries").fetchall()
        assert [index for index, *_ in sorted(rows)] == list(range(len(rows)))
        places = {name: (index, value) for index, name, value in rows}
        for vote_id, entry in told.items():
            assert places[vote_id] == (entry["index"], entry["hash"])


def test_a_hub_restored_from_a_backup_catches_up_before_it_appends(two: Pair) -> None:
    alpha, beta = two.both
    facts = [fact["id"] for fact in alpha.store(*(f"reading {number}" for number in range(8)))]
    vote(alpha, facts[0])
    two.meet()
    assert alpha.stop() == 0
    old = alpha.home.database.with_suffix(".old")
    shutil.copy2(alpha.home.database, old)
    alpha.start()
    two.meet()
    for fact in facts[1:5]:
        assert vote(alpha, fact)["state"] == "committed"
    wait_until("beta has every entry", lambda: entries_on_disk(alpha) == entries_on_disk(beta))
    before = entries_on_disk(beta)
    two.part()
    assert alpha.stop() == 0
    shutil.copy2(old, alpha.home.database)
    for name in ("-wal", "-shm"):
        alpha.home.database.with_name(alpha.home.database.name + name).unlink(missing_ok=True)
    alpha.start()
    assert vote(alpha, facts[6])["state"] == "pending", "it is behind what it has signed"
    assert any(warning["code"].startswith("ledger") for warning in alpha.status()["warnings"])
    two.meet()
    wait_until("nothing is pending", lambda: alpha.status()["votes_pending"] == 0)
    after = entries_on_disk(alpha)
    assert {index: after[index] for index in before} == before
    wait_until("beta goes on with it", lambda: entries_on_disk(beta) == after)
    assert ledger(beta)["forks"] == 0
    assert alpha.tell("ledger", "verify")["ok"]


def test_takeover_when_the_only_hub_is_lost(two: Pair) -> None:
    alpha, beta = two.both
    facts = [fact["id"] for fact in beta.store(*(f"note {number}" for number in range(4)))]
    wait_until("it is committed", lambda: _committed(vote(beta, facts[0])))
    wait_until("beta has every entry", lambda: entries_on_disk(alpha) == entries_on_disk(beta))
    before, identity = entries_on_disk(beta), ledger(beta)["ledger"]
    kept = beta.home.path.with_name("ca.key.kept")
    shutil.copy2(alpha.home.ca_key, kept)
    alpha.kill()
    wait_until("beta is alone", lambda: not beta.connected())
    assert vote(beta, facts[1])["state"] == "pending"
    refused = beta.run("ledger", "takeover", "--ca-key", str(kept), "--yes")
    assert refused.returncode != 0, "its configuration does not make it a hub"
    assert beta.stop() == 0
    beta.environment["CORTEX_QUORUM_ENGINE"] = "solo"
    beta.start()
    assert vote(beta, facts[2])["state"] == "pending", "a configuration alone makes no hub"
    assert beta.run("ledger", "takeover", "--ca-key", str(kept), "--yes").returncode == 0
    wait_until("nothing is pending", lambda: beta.status()["votes_pending"] == 0)
    after = entries_on_disk(beta)
    assert {index: after[index] for index in before} == before
    assert ledger(beta)["ledger"] == identity
    assert ledger(beta)["epoch"] == 2
    assert beta.tell("ledger", "verify")["ok"]

    alpha.start()
    two.meet()
    wait_until("alpha follows", lambda: entries_on_disk(alpha) == entries_on_disk(beta))
    fact = alpha.store("alpha is back")[0]["id"]
    wait_until("beta commits alpha's vote", lambda: _committed(vote(alpha, fact)))
    assert ledger(alpha)["epoch"] == 2
    assert ledger(alpha)["forks"] == ledger(beta)["forks"] == 0


# Who may not vote


def test_votes_that_are_refused(alone: LocalNode) -> None:
    fact = alone.store("the door code has changed")[0]["id"]
    refused: list[tuple[dict[str, Any], int]] = [
        ({"value": 2}, 422),
        ({"value": 1, "agent": "nobody"}, 404),
        ({"value": "up"}, 422),
        ({}, 422),
    ]
    for body, status in refused:
        with pytest.raises(Problem) as caught:
            alone.client.call("POST", f"/v1/facts/{fact}/vote", body)
        assert caught.value.status == status, body
        assert caught.value.action
    with pytest.raises(Problem) as caught:
        vote(alone, "there-is-no-such-fact")
    assert caught.value.status == 404
    alone.client.call("DELETE", f"/v1/facts/{fact}")
    with pytest.raises(Problem) as caught:
        vote(alone, fact)
    assert caught.value.status == 410
    assert ledger(alone)["votes"] == 0


def test_a_revoked_agent_votes_no_more_and_its_votes_can_be_void(alone: LocalNode) -> None:
    fact = alone.store("the pump was serviced in May")[0]["id"]
    alone.run("agent", "add", "claude")
    first = wait_until("it is committed", lambda: _committed(vote(alone, fact, agent="claude")))
    done = alone.run("agent", "revoke", "claude", "--void-from", str(first["entry"]["index"]))
    assert done.returncode == 0, done.stderr
    wait_until("it counts no more", lambda: not any(one["counts"] for one in votes_of(alone, fact)))
    with pytest.raises(Problem):
        vote(alone, fact, agent="claude")
    assert alone.tell("ledger", "verify")["ok"]


def _committed(answer: Any) -> Any:
    return answer if answer["state"] == "committed" else None
