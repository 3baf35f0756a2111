"""A database is brought up to date step by step, each step whole or not at all, and never back from the future."""

import sqlite3
from hashlib import sha256

import pytest

from ledger.entry import Entry, Kind, encode
from node import migrations
from node.errors import Problem
from node.migrations import MIGRATIONS, NEWEST, migrate
from node.voting import claims


@pytest.fixture
def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def test_a_new_database_gets_everything_once(connection: sqlite3.Connection) -> None:
    assert migrate(connection, 5) == NEWEST
    made = schema(connection)
    assert migrate(connection, 6) == 0
    assert schema(connection) == made
    recorded = connection.execute("SELECT version, name, at FROM migrations").fetchall()
    assert recorded == [(number, name, 5) for number, (name, _) in enumerate(MIGRATIONS, 1)]


def test_a_database_from_the_future_is_refused_with_both_numbers(connection: sqlite3.Connection) -> None:
    migrate(connection, 5)
    connection.execute("INSERT INTO migrations VALUES (?, 'from the future', 6)", (NEWEST + 3,))
    before = schema(connection)
    with pytest.raises(Problem, match=rf"version {NEWEST + 3}.* up to {NEWEST}") as refused:
        migrate(connection, 7)
    assert refused.value.code == "database_newer"
    assert refused.value.action
    assert schema(connection) == before


def test_a_step_that_fails_leaves_nothing_of_itself_and_runs_again(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(connection, 5)
    before = schema(connection)
    broken = (*MIGRATIONS, ("adds", "CREATE TABLE a (n);\nCREATE TABLE b (n);\nCREATE TABLE a (n);\n"))
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    monkeypatch.setattr(migrations, "NEWEST", len(broken))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection, 6)
    assert schema(connection) == before
    assert not connection.in_transaction
    mended = (*MIGRATIONS, ("adds", "CREATE TABLE a (n);\nCREATE TABLE b (n);\n"))
    monkeypatch.setattr(migrations, "MIGRATIONS", mended)
    assert migrate(connection, 7) == 1
    assert {"a", "b"} <= {name for _, name, _ in schema(connection)}


def test_steps_run_in_order_from_where_the_database_is(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (("one", "CREATE TABLE n (v);\n"), ("two", "INSERT INTO n VALUES (2);\n"), ("three", "DELETE FROM n;\n"))
    monkeypatch.setattr(migrations, "MIGRATIONS", steps[:2])
    monkeypatch.setattr(migrations, "NEWEST", 2)
    assert migrate(connection, 5) == 2
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    monkeypatch.setattr(migrations, "NEWEST", 3)
    assert migrate(connection, 6) == 1
    assert connection.execute("SELECT count(*) FROM n").fetchone() == (0,)


def test_the_script_may_hold_triggers_and_comments() -> None:
    script = "CREATE TABLE t (a);  -- one; two\nCREATE TRIGGER x AFTER INSERT ON t BEGIN\nDELETE FROM t;\nEND;\n"
    assert len(list(migrations._statements(script))) == 2
    with pytest.raises(AssertionError, match="unfinished"):
        list(migrations._statements("CREATE TABLE t (a)"))


@pytest.mark.parametrize(
    ("sql", "uses"),
    [
        ("SELECT 1 FROM ops WHERE project = 1 AND author = 2 AND seq > 3 ORDER BY seq, hash", "ops_by_chain"),
        ("SELECT 1 FROM ops WHERE project = 1 AND hash >= x'00' AND hash < x'01'", "ops_by_hash"),
        ("SELECT raw FROM ops WHERE subject = 'a' AND project = 1", "ops_by_subject"),
        ("SELECT shown FROM facts WHERE name = 'a'", "facts_by_name"),
        (
            "SELECT id FROM facts WHERE project = 1 AND (created, id) < (5, 6) ORDER BY created DESC, id DESC",
            "by_project",
        ),
        ("SELECT id FROM facts WHERE (created, id) < (5, 6) ORDER BY created DESC, id DESC", "facts_by_time"),
        ("SELECT id FROM texts WHERE fact = 1", "texts_by_fact"),
        ("SELECT 1 FROM links WHERE origin = 'a' OR target = 'a'", "links_by_target"),
        ("DELETE FROM answers WHERE at < 5", "answers_by_time"),
        ("SELECT 1 FROM held WHERE timestamp <= 5", "PRIMARY KEY"),
        ("SELECT 1 FROM waiting WHERE project = 1 AND author = x'00' AND seq <= 5", "PRIMARY KEY"),
    ],
)
def test_what_is_asked_often_has_an_index(connection: sqlite3.Connection, sql: str, uses: str) -> None:
    migrate(connection, 5)
    plan = " ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql))
    assert uses in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


def entry(connection: sqlite3.Connection, index: int, kind: Kind, own: bool = False) -> bytes:
    """An entry in the table, with a text of its own where it is a vote: by agent `index % 3`."""
    text = bytes([index % 256, index // 256]) * 40
    tag = bytes(32) if kind != Kind.VOTE else bytes([1]) * 32
    raw = encode(Entry(kind, own, index, 1, 5, bytes([index % 251]) * 32, 0, tag, sha256(text).digest()))
    about = (
        ("garden", f"fact {index}", bytes([index % 3]) * 32, 1, 1_800_000_000_123) if kind == Kind.VOTE else [None] * 5
    )
    row = (index, raw, sha256(text).digest(), tag, sha256(raw).digest(), text, *about, None, None)
    connection.execute("INSERT INTO ledger_entries VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
    return raw


def test_programs_of_the_earlier_system_find_its_vote_ledger(connection: sqlite3.Connection) -> None:
    migrate(connection, 5)
    entry(connection, 0, Kind.GENESIS)
    raws = [entry(connection, index, Kind.VOTE, own=index > 4) for index in range(1, 7)]
    for number, (owner, name) in enumerate(((1, "owner"), (0, "anna"))):
        agent = bytes([number]) * 32
        row = (agent, agent, name, bytes(32), owner, 0)
        connection.execute("INSERT INTO agents (key, principal, name, voice, owner, since) VALUES (?,?,?,?,?,?)", row)
    connection.execute("INSERT INTO reputations VALUES ('garden', ?, 831250)", (bytes([1]) * 32,))
    found = connection.execute("SELECT * FROM vote_ledger ORDER BY id")
    names = ["id", "fact_id", "agent_id", "vote", "vote_weight", "prev_hash", "hash", "timestamp", "signature"]
    assert [column[0] for column in found.description] == names
    rows = found.fetchall()
    assert rows[0] == (
        1, "fact 1", "01" * 32, 1, 0.662, "01" * 32, sha256(raws[0]).hexdigest(), "2027-01-15T08:00:00.123Z",
        "0100" * 32,
    )  # fmt: skip
    assert [row[4] for row in rows] == [0.662, 0.0, 1.0, 0.662, 0.0, 1.0], "a stranger and an author weigh nothing"
    connection.execute("DELETE FROM reputations")
    assert connection.execute("SELECT vote_weight FROM vote_ledger WHERE id = 1").fetchone() == (0.4,)


def test_programs_of_the_earlier_system_find_a_root_for_each_thousand_votes(connection: sqlite3.Connection) -> None:
    migrate(connection, 5)
    entry(connection, 0, Kind.GENESIS)
    for index in range(1, 3_400):
        entry(connection, index, Kind.ENROLMENT if index % 100 == 0 else Kind.VOTE)
    for size in range(70, 3_401, 70):
        connection.execute("INSERT INTO ledger_checkpoints VALUES (?, ?, NULL, 0)", (size, bytes([size // 70]) * 32))
    found = connection.execute("SELECT * FROM vote_merkle_roots ORDER BY id")
    assert [column[0] for column in found.description] == [
        "id", "root_hash", "vote_start_id", "vote_end_id", "vote_count",
    ]  # fmt: skip
    rows = found.fetchall()
    assert [row[:4] for row in rows] == [
        (1, "0f" * 32, 1, 1_049),
        (2, "1d" * 32, 1_050, 2_029),
        (3, "2c" * 32, 2_030, 3_079),
    ]
    for _, root, first, last, count in rows:
        votes = "SELECT count(*) FROM vote_ledger WHERE id BETWEEN ? AND ?"
        assert connection.execute(votes, (first, last)).fetchone() == (count,)
        (size,) = connection.execute(
            "SELECT size FROM ledger_checkpoints WHERE lower(hex(root)) = ?", (root,)
        ).fetchone()
        assert size == last + 1, "the root stands for all votes up to the last one"


def test_the_views_of_an_empty_ledger_are_empty(connection: sqlite3.Connection) -> None:
    migrate(connection, 5)
    assert connection.execute("SELECT * FROM vote_ledger").fetchall() == []
    assert connection.execute("SELECT * FROM vote_merkle_roots").fetchall() == []


@pytest.mark.parametrize(
    ("sql", "uses"),
    [
        (claims._NEXT.replace("?", "5"), "ballots_seen (seen_size>? AND (seen_size,seen_root,seen_signature)<"),
        ("SELECT text FROM statements WHERE kind = 4", "statements_grants"),
        ("SELECT count(*) FROM statements WHERE entry IS NULL AND behind = x'00'", "statements_behind"),
        ("SELECT id FROM ledger_entries WHERE name = x'00'", "sqlite_autoindex_ledger_entries"),
        ("SELECT max(id) FROM ledger_entries WHERE tag = x'00'", "ledger_entries_by_tag"),
        ("SELECT * FROM ballots WHERE entry IS NULL AND (time, id) > (5, x'') ORDER BY time, id", "ballots_pending"),
    ],
)
def test_what_a_hub_asks_for_each_batch_has_an_index(connection: sqlite3.Connection, sql: str, uses: str) -> None:
    migrate(connection, 5)
    plan = " ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql))
    assert uses in plan and "TEMP B-TREE" not in plan
