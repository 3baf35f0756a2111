"""Who signed a vote: the ledger says, or an enrolment on its way."""

import sqlite3
from collections.abc import Iterator

import pytest

from ledger.agents import Agent
from ledger.entry import MAX_NUMBER, Kind, text_hash
from node.voting import voters as module
from node.voting.scores import Scores
from node.voting.voters import chunks, voters
from tests.node.voting.ledgers import AUTHORITY, Ledger, a_database, a_vote, enrolment, key


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    database = a_database()
    yield database
    database.close()


def want(connection: sqlite3.Connection, text: bytes, kind: int = Kind.ENROLMENT) -> None:
    connection.execute("INSERT INTO statements (hash, kind, text) VALUES (?,?,?)", (text_hash(text), kind, text))


def who(connection: sqlite3.Connection, *agents: str) -> dict[bytes, Agent]:
    return voters(connection, [a_vote(agent, "f", 1) for agent in agents])


def come(connection: sqlite3.Connection, ledger: Ledger) -> None:
    ledger.put(connection)
    Scores(key(AUTHORITY)).catch_up(connection)


def test_the_ledger_says_who_is_enrolled_and_who_was(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    ledger.revoke("b")
    come(connection, ledger)
    want(connection, enrolment("b", "3"))  # too late: the key was used
    found = who(connection, "a", "b", "stranger")
    assert found == {
        key("a"): Agent(key("a"), key("a"), "a", key("1"), False, 2),
        key("b"): Agent(key("b"), key("b"), "b", key("2"), False, 3, until=4),
    }


def test_an_enrolment_on_its_way_counts_and_one_of_another_mesh_does_not(connection: sqlite3.Connection) -> None:
    want(connection, enrolment("a", "1"))
    want(connection, enrolment("boss", "1", owner=True))
    want(connection, b"damaged")
    assert who(connection, "a", "boss", "b") == {
        key("a"): Agent(key("a"), key("a"), "a", key("1"), False, MAX_NUMBER),
        key("boss"): Agent(key("boss"), key("boss"), "boss", key("1"), True, MAX_NUMBER),
    }
    assert voters(connection, [a_vote("a", "f", 1, mesh=bytes(32))]) == {}
    connection.execute("UPDATE statements SET entry = 5")  # no longer on its way, and not folded yet
    assert who(connection, "a") == {}


def test_a_new_key_on_its_way_stands_for_the_agent(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1", "gone@1")
    ledger.revoke("gone")
    come(connection, ledger)
    for former, name in (("a", "a'"), ("a'", "a''"), ("gone", "back"), ("nobody", "new")):
        want(connection, enrolment(name, "1", replaces=former))
    found = who(connection, "a'", "a''", "back", "new")
    assert {one.name: one.principal for one in found.values()} == {"a'": key("a"), "a''": key("a")}


def test_keys_that_replace_each_other_are_nobody(connection: sqlite3.Connection) -> None:
    want(connection, enrolment("a", "1", replaces="b"))
    want(connection, enrolment("b", "1", replaces="a"))
    assert who(connection, "a", "b") == {}


def test_many_are_asked_for_at_once(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    come(connection, Ledger().enrol(*(f"a{at}@1" for at in range(5))))
    assert len(who(connection, *(f"a{at}" for at in range(5)))) == 5
    assert list(chunks([])) == [] and list(chunks([b"c", b"a", b"b"])) == [[b"a", b"b"], [b"c"]]
