"""What the ledger answers: under one checkpoint, provable, bounded, and silent about what may not be told."""

import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from crdt.version import node_id
from ledger import checkpoint, tiles, tlog
from ledger.entry import decode, entry_hash
from ledger.policy import parse_policy
from ledger.receipt import check_receipt
from ledger.tiles import Bundle, TileReader
from node.errors import Problem
from node.migrations import migrate
from node.voting import reads
from tests.node.voting.ledger_on_disk import CELLAR, GARDEN, NOW_MS, LedgerOnDisk


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path_factory.mktemp("hub") / "home")
    made.vote(3)
    made.vote(2, CELLAR)
    made.enrol("ada")
    for _ in range(3):
        made.vote(90)
    yield made
    made.close()


SIZE = 3 + 3 + 2 + 1 + 270


def test_the_status_tells_what_the_ledger_holds(ledger: LedgerOnDisk) -> None:
    said = reads.status(ledger.connection, ledger.place)
    assert (said["size"], said["votes"], said["epoch"], said["engine"]) == (SIZE, 275, 1, "solo")
    assert said["ledger"] == entry_hash(ledger.table.read_entries(0, 1)[0]).hex()
    assert said["root"] == tlog.root(SIZE, ledger.table).hex()
    assert said["leader"] == node_id(ledger.me.node_key) and said["hubs"] == [said["leader"]]
    assert said["whole"] and said["frozen"] is None and said["forks"] == 0
    assert ledger.place.is_hub(ledger.connection)


def test_a_node_that_knows_nothing_yet_says_so(tmp_path: Path, ledger: LedgerOnDisk) -> None:
    connection = sqlite3.connect(tmp_path / "empty.db", isolation_level=None)
    migrate(connection, NOW_MS)
    said = reads.status(connection, ledger.place)
    assert (said["size"], said["ledger"], said["engine"], said["checkpoint"]) == (0, None, "none", None)
    with pytest.raises(Problem) as refused:
        reads.checkpoint(connection, ledger.place)
    assert refused.value.code == "no_ledger" and refused.value.action
    connection.close()


def test_an_outsider_can_judge_the_checkpoint_by_the_policy_beside_it(ledger: LedgerOnDisk) -> None:
    said = reads.checkpoint(ledger.connection, ledger.place)
    rule = parse_policy(said["policy"].encode())
    opened = checkpoint.open_checkpoint(said["checkpoint"].encode(), said["origin"], rule.logs)
    assert (opened.checkpoint.size, opened.checkpoint.root.hex()) == (said["size"], said["root"])
    assert [(one["by"], one["node"]) for one in said["signatures"]] == [("hub", ledger.me.node_id)]


def test_cosignatures_stand_under_the_note(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    ledger.connection.execute("BEGIN")
    try:
        key = ledger.cosign(ledger.join(tmp_path / "home"))
        said = reads.checkpoint(ledger.connection, ledger.place)
        assert [(one["by"], one["name"]) for one in said["signatures"]][1:] == [("witness", key.name)]
        assert str(key) in said["policy"]
        assert reads.file(ledger.connection, "checkpoint")[0].decode() == said["checkpoint"]
        assert key.name in reads.proof(ledger.connection, 1)["receipt"]
    finally:
        ledger.connection.execute("ROLLBACK")


@pytest.mark.parametrize("index", [0, 2, 5, 8, SIZE - 1])
def test_each_entry_is_proved_by_its_receipt(ledger: LedgerOnDisk, index: int) -> None:
    said = reads.proof(ledger.connection, index)
    rule = reads.policy(ledger.connection, ledger.place)
    assert rule
    entry, opened = check_receipt(said["receipt"].encode(), rule)
    assert entry.index == index == said["entry"]["index"] and opened.checkpoint.size == said["size"] == SIZE
    hashes = [bytes.fromhex(value) for value in said["hashes"]]
    leaf = tlog.leaf_hash(bytes.fromhex(said["entry"]["raw"]))
    tlog.check_inclusion(hashes, index, SIZE, leaf, opened.checkpoint.root)


def test_there_is_no_proof_of_what_is_not_there(ledger: LedgerOnDisk) -> None:
    with pytest.raises(Problem) as refused:
        reads.proof(ledger.connection, SIZE)
    assert (refused.value.status, refused.value.code) == (404, "unknown_entry")


def test_pages_follow_one_another_and_are_the_chain(ledger: LedgerOnDisk) -> None:
    found, start = [], 0
    while start is not None:
        page = reads.entry_page(ledger.connection, start, 100)
        found += page["entries"]
        start = page["next"]
    assert [one["index"] for one in found] == list(range(SIZE))
    assert all(after["prev_hash"] == one["hash"] for one, after in pairwise(found))
    assert [one["kind"] for one in found[:4]] == ["genesis", "enrolment", "grant", "vote"]
    assert found[3]["vote"]["fact"] == "fact-1" and found[3]["project"] == GARDEN


@pytest.mark.parametrize(("start", "limit", "field"), [(-1, 10, "start"), (0, 0, "limit"), (0, 257, "limit")])
def test_a_page_is_bounded(ledger: LedgerOnDisk, start: int, limit: int, field: str) -> None:
    with pytest.raises(Problem) as refused:
        reads.entry_page(ledger.connection, start, limit)
    assert refused.value.field == field


def test_texts_of_votes_are_told_only_to_who_may_read_the_project(ledger: LedgerOnDisk) -> None:
    page = reads.entry_page(ledger.connection, 0, 20, lambda project: project == CELLAR)
    told = {one["project"] for one in page["entries"] if one["text"] and one["kind"] == "vote"}
    hidden = [one for one in page["entries"] if one["kind"] == "vote" and not one["text"]]
    assert told == {CELLAR} and len(hidden) == 14
    assert all(one["project"] is None and one["vote"] is None and one["raw"] for one in hidden)
    assert all(one["text"] for one in page["entries"] if one["kind"] != "vote")
    assert reads.proof(ledger.connection, 3, lambda project: False)["entry"]["text"] is None


def test_what_no_checkpoint_covers_is_not_shown(ledger: LedgerOnDisk) -> None:
    """A hub between its commit and its signature."""
    ledger.connection.execute("BEGIN")
    try:
        ledger.connection.execute("DELETE FROM ledger_checkpoints WHERE size = ?", (SIZE,))
        said = reads.status(ledger.connection, ledger.place)
        assert said["size"] == SIZE - 90 and said["whole"]
        assert reads.entry_page(ledger.connection, SIZE - 91, 10)["entries"][-1]["index"] == SIZE - 91
        with pytest.raises(Problem) as refused:
            reads.proof(ledger.connection, SIZE - 1)
        assert refused.value.code == "unknown_entry"
    finally:
        ledger.connection.execute("ROLLBACK")


# With gaps


@pytest.fixture
def gaps(ledger: LedgerOnDisk, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = ledger.with_gaps(tmp_path / "gaps.db", CELLAR)
    yield connection
    connection.close()


def test_a_node_with_gaps_counts_what_it_does_not_have(ledger: LedgerOnDisk, gaps: sqlite3.Connection) -> None:
    said = reads.status(gaps, ledger.place)
    assert (said["size"], said["votes"], said["whole"]) == (SIZE, 275, False)
    page = reads.entry_page(gaps, 0, 100)
    assert [one["index"] for one in page["entries"]] == [0, 1, 2, 6, 7, 8] and page["next"] is None


@pytest.mark.parametrize("index", [0, 2, 6, 8])
def test_a_node_with_gaps_proves_what_it_has(ledger: LedgerOnDisk, gaps: sqlite3.Connection, index: int) -> None:
    rule = reads.policy(gaps, ledger.place)
    assert rule
    entry, _ = check_receipt(reads.proof(gaps, index)["receipt"].encode(), rule)
    assert entry.index == index


def test_a_proof_whose_checkpoint_is_gone_is_a_hub_s_to_give(gaps: sqlite3.Connection) -> None:
    gaps.execute("UPDATE ledger_checkpoints SET note = NULL WHERE size = ?", (SIZE,))
    with pytest.raises(Problem) as refused:
        reads.proof(gaps, 6)
    assert refused.value.code == "unproven_entry" and "hub" in refused.value.action


def test_an_entry_is_proved_by_the_tree_where_its_own_proof_has_lost_its_checkpoint(
    ledger: LedgerOnDisk, gaps: sqlite3.Connection
) -> None:
    gaps.execute("UPDATE ledger_checkpoints SET note = NULL WHERE size = ?", (SIZE,))
    said, rule = reads.proof(gaps, 1), reads.policy(gaps, ledger.place)
    assert rule and said["size"] == 3
    assert check_receipt(said["receipt"].encode(), rule)[0].index == 1


def test_a_node_with_gaps_has_no_tiles(gaps: sqlite3.Connection) -> None:
    for path in ("checkpoint", f"tile/0/001.p/{SIZE - 256}"):  # a checkpoint promises its tiles
        with pytest.raises(Problem) as refused:
            reads.file(gaps, path)
        assert (refused.value.status, refused.value.code) == (404, "not_whole")


# Tiles


def test_the_tiles_make_the_root(ledger: LedgerOnDisk) -> None:
    def read(path: str) -> bytes | None:
        try:
            return reads.file(ledger.connection, path)[0]
        except Problem as problem:
            assert problem.status == 404
            return None

    assert tlog.root(SIZE, TileReader(SIZE, read)) == tlog.root(SIZE, ledger.table)
    bundle = reads.file(ledger.connection, Bundle(1, SIZE - 256).path)[0]
    assert [decode(raw).index for raw in tiles.decode_bundle(bundle)] == list(range(256, SIZE))
    assert reads.file(ledger.connection, "tile/0/000") == (read("tile/0/000"), True)
    assert not reads.file(ledger.connection, "checkpoint")[1]


@pytest.mark.parametrize(
    "path",
    ["tile/0/001", f"tile/0/001.p/{SIZE - 255}", "tile/entries/002.p/1", "tile/1/001.p/1", "tile/2/000.p/1", "x", "",
     "tile/0/000.p/256", "tile/0/0", "../cortex.db", "tile/64/000.p/1"],
)  # fmt: skip
def test_a_tile_that_is_not_there_yet_is_not_found(ledger: LedgerOnDisk, path: str) -> None:
    with pytest.raises(Problem) as refused:
        reads.file(ledger.connection, path)
    assert refused.value.status == 404 and refused.value.action


def test_a_narrower_tile_than_there_is_stays_what_it_was(ledger: LedgerOnDisk) -> None:
    wide, narrow = (reads.file(ledger.connection, f"tile/0/001.p/{width}")[0] for width in (SIZE - 256, 5))
    assert wide.startswith(narrow) and len(narrow) == 5 * 32


def test_a_hash_that_is_missing_is_damage(ledger: LedgerOnDisk) -> None:
    ledger.connection.execute("BEGIN")
    try:
        ledger.connection.execute("DELETE FROM ledger_hashes WHERE level = 0 AND number = 3")
        for ask in (lambda: reads.file(ledger.connection, "tile/0/000"), lambda: reads.proof(ledger.connection, 2)):
            with pytest.raises(Problem) as refused:
                ask()
            assert refused.value.code == "ledger_damaged" and refused.value.exit_code == 3
    finally:
        ledger.connection.execute("ROLLBACK")


def test_statements_are_told_in_words(ledger: LedgerOnDisk) -> None:
    genesis, owner, grant, *_, ada = reads.entry_page(ledger.connection, 0, 9)["entries"]
    assert genesis["statement"] is None and (owner["statement"]["name"], owner["statement"]["owner"]) == ("owner", True)
    assert grant["statement"] == {"epoch": 1, "engine": "solo", "hubs": [ledger.me.node_id]}
    assert ada["statement"]["name"] == "ada" and not ada["statement"]["owner"]
