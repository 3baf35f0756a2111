"""A database is brought up to date step by step, each step whole or not at all, and never back from the future."""

import sqlite3

import pytest

from node import migrations
from node.errors import Problem
from node.migrations import MIGRATIONS, NEWEST, migrate


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
