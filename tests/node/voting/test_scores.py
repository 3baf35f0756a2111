"""The law: whatever entries a node has, in whatever order they came, its tables are what a fold from nothing makes."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.entry import NO_PROJECT, Kind
from ledger.score import Fold, Key, Trust
from node.voting.ballots import Ballots
from node.voting.scores import Scores
from tests.node.voting.ledgers import (
    AUTHORITY,
    HUB,
    OWNER,
    YARD,
    Ledger,
    a_database,
    key,
    tag_of,
    version_of,
)  # fmt: skip
from tests.node.world import MESH, PROJECT

AGENTS, MACHINES, FACTS = 5, 4, 3
TABLES = "ledger_entries tallies reputations agents voided scores_stopped scores_folded".split()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    database = a_database()
    yield database
    database.close()


def state(fold: Fold) -> dict[str, Any]:
    return {
        "tallies": dict(fold.tallies),
        "reputations": dict(fold.reputations),
        "agents": dict(fold.agents.known),
        "voided": dict(fold.agents.void_from),
        "stopped": dict(fold.frozen),
    }


def folded(connection: sqlite3.Connection) -> dict[str, Any]:
    return state(Scores(key(AUTHORITY)).fold(connection))


def verdict(connection: sqlite3.Connection, fact: str, project: str = PROJECT) -> tuple[Trust, int]:
    said = Scores(key(AUTHORITY)).fold(connection).verdict(Key(project, fact, version_of(fact)))
    return said.trust, said.score


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """Agents come, vote, contradict themselves, change keys and are revoked; some entries nobody can read."""
    ledger = Ledger()
    names = {agent: f"a{agent}" for agent in range(AGENTS)}
    for number in range(draw(st.integers(5, 30))):
        agent, machine = draw(st.integers(0, AGENTS - 1)), f"m{draw(st.integers(0, MACHINES - 1))}"
        act = draw(st.sampled_from(["enrol"] * 3 + ["vote"] * 12 + ["rotate", "revoke", "void", "forged", "unknown"]))
        project = draw(st.sampled_from([PROJECT, PROJECT, YARD]))
        fact, value = f"f{draw(st.integers(0, FACTS - 1))}", draw(st.sampled_from([1, 1, 1, -1, 0]))
        match act:
            case "enrol":
                ledger.enrol(f"{names[agent]}@{machine}")
            case "vote":
                voter = draw(st.sampled_from([OWNER, *names.values()]))
                counter = draw(st.sampled_from([0, 0, 0, 1, 2]))
                tag = draw(st.sampled_from([b""] * 4 + [tag_of("another key")]))
                ledger.vote(voter, fact, value, counter, project=project, own=draw(st.booleans()), tag=tag)
            case "rotate":
                former, names[agent] = names[agent], f"{names[agent]}'"
                ledger.rotate(former, names[agent], machine)
            case "revoke":
                ledger.revoke(names[agent], by=draw(st.sampled_from([AUTHORITY, machine, names[agent]])))
            case "void":
                ledger.revoke(names[agent], draw(st.integers(0, len(ledger.lines))))
            case "forged":
                ledger.vote(names[agent], fact, value, project=project, forged=True)
            case _ if draw(st.integers(0, 3)) == 0:
                ledger.add(9, b"of a later version %d" % number, draw(st.sampled_from([NO_PROJECT, tag_of(YARD)])))
            case _ if draw(st.integers(0, 3)) == 0:
                ledger.add(Kind.VOTE, b"gone %d" % number, tag_of(project), lost=True)
            case _:
                pass
    return ledger


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[Ledger, list[list[int]]]:
    """A ledger, and in which batches its entries come to a node that may carry less than all of it."""
    ledger = draw(ledgers())
    left_out = draw(st.sampled_from([None, None, tag_of(YARD), tag_of(PROJECT), NO_PROJECT]))
    coming = [index for index in range(len(ledger.lines)) if ledger.tag(index) != left_out or index == 0]
    order = draw(st.one_of(st.just(coming), st.permutations(coming)))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=6)))
    return ledger, [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


@pytest.fixture(scope="module")
def shared() -> Iterator[sqlite3.Connection]:
    """One database for all examples: making the tables takes longer than an example."""
    database = a_database()
    yield database
    database.close()


def emptied(connection: sqlite3.Connection) -> sqlite3.Connection:
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}")
    return connection


@settings(max_examples=100)
@given(arrivals())
def test_what_is_folded_is_what_a_fold_from_nothing_makes(
    shared: sqlite3.Connection, arriving: tuple[Ledger, list[list[int]]]
) -> None:
    ledger, batches = arriving
    connection, scores, here = emptied(shared), Scores(key(AUTHORITY)), list[int]()
    for batch in batches:
        ledger.put(connection, batch)
        here += batch
        before = folded(connection)
        changed = scores.catch_up(connection)
        assert folded(connection) == state(ledger.fold(ledger.without_gaps(here)))
        assert scores.catch_up(connection) == set()  # and once more changes nothing
        assert different(before, folded(connection)) <= changed
    scores.refold(connection)
    assert folded(connection) == state(ledger.fold(ledger.without_gaps(here)))


def different(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """The projects of which any verdict can be another."""
    parts = ("tallies", "reputations")
    return {
        place[0]
        for part in parts
        for place in before[part].keys() | after[part].keys()
        if before[part].get(place) != after[part].get(place)
    }


@settings(max_examples=40)
@given(ledgers(), st.data())
def test_a_tail_that_is_gone_or_is_another(shared: sqlite3.Connection, ledger: Ledger, data: st.DataObject) -> None:
    connection, scores = emptied(shared), Scores(key(AUTHORITY))
    ledger.put(connection)
    scores.catch_up(connection)
    size = data.draw(st.integers(1, len(ledger.lines)))
    connection.execute("DELETE FROM ledger_entries WHERE id >= ?", (size,))
    if data.draw(st.booleans()):  # or the new tail is there by the next time
        scores.catch_up(connection)
        assert folded(connection) == state(ledger.fold(range(size)))
    ledger.cut(size)
    ledger.enrol("late@m0")
    ledger.vote("late", "f0", -1)
    ledger.put(connection, range(size, len(ledger.lines)))
    scores.catch_up(connection)
    assert folded(connection) == state(ledger.fold())


# --- what costs a fold from nothing, and what does not ---


@pytest.fixture
def refolds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    refold = Scores.refold

    def counting(self: Scores, connection: sqlite3.Connection) -> set[str]:
        counted.append(1)
        return refold(self, connection)

    monkeypatch.setattr(Scores, "refold", counting)
    return counted


def come(connection: sqlite3.Connection, ledger: Ledger, *batches: Iterable[int]) -> Scores:
    scores = Scores(key(AUTHORITY))
    for batch in batches:
        ledger.put(connection, batch)
        scores.catch_up(connection)
    assert folded(connection) == state(ledger.fold(ledger.without_gaps(i for batch in batches for i in batch)))
    return scores


def test_what_comes_in_order_is_folded_once(connection: sqlite3.Connection, refolds: list[int]) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    for agent in "abab":
        ledger.vote(agent, "f", 1)
        ledger.vote(agent, "g", 1, project=YARD)
    come(connection, ledger, *([index] for index in range(len(ledger.lines))))
    assert not refolds


def test_projects_may_come_one_after_the_other(connection: sqlite3.Connection, refolds: list[int]) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    for number in range(4):
        ledger.vote("a", f"f{number}", 1, project=(PROJECT, YARD)[number % 2])
    ledger.enrol("c@3")
    ledger.vote("c", "f9", 1)
    come(connection, ledger, [0, 1, 2, 3], [4, 6, 9], [5, 7], [8])
    assert len(refolds) == 1  # for the enrolment of c alone, whose vote was there before


def test_a_statement_below_votes_of_others_is_simply_taken_in(
    connection: sqlite3.Connection, refolds: list[int]
) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    ledger.vote("a", "f", 1)
    late = ledger.enrol("c@3").revoke("b")
    ledger.vote("a", "g", 1)
    come(connection, ledger, [0, 1, 2, 3, 4, 7], [late - 1, late])
    assert not refolds


def test_a_new_key_that_comes_late_ends_the_old_one(connection: sqlite3.Connection, refolds: list[int]) -> None:
    ledger = Ledger().enrol("a@1")
    ledger.vote("a", "first", 1)
    rotated = ledger.rotate("a", "a'", "1")
    vote = ledger.vote("a", "f", 1)
    come(connection, ledger, [0, 1, 2, 3, vote], [rotated])
    assert verdict(connection, "f")[1] == 1_000 and len(refolds) == 1


def test_a_revocation_that_comes_late_ends_every_key(connection: sqlite3.Connection, refolds: list[int]) -> None:
    ledger = Ledger().enrol("a@1")
    rotated = ledger.rotate("a", "a'", "1")
    revoked = ledger.revoke("a")
    vote = ledger.vote("a'", "f", 1)
    come(connection, ledger, [0, 1, 2, rotated, vote], [revoked])
    assert verdict(connection, "f")[1] == 1_000 and len(refolds) == 1


def test_a_second_tag_of_a_project_is_folded_in_its_place(connection: sqlite3.Connection) -> None:
    """Two nodes gave the project a key, each offline: who voted before the settlement earns, whichever came first."""
    ledger = Ledger().enrol("a@1", "b@2", "c@3", "d@4")
    early = ledger.vote("d", "f", 1, tag=tag_of("another key"))
    votes = [ledger.vote(agent, "f", 1) for agent in "abc"]
    come(connection, ledger, range(early), votes, [early])
    assert Scores(key(AUTHORITY)).fold(connection).reputation(PROJECT, key("d")) > 700_000


@pytest.mark.parametrize("late", ["the stop", "the vote"])
def test_what_stops_all_scores_stops_what_is_above_it(connection: sqlite3.Connection, late: str) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    below = ledger.vote("a", "f", 1)
    stop = ledger.add(9, b"of a later version")
    above = ledger.vote("b", "f", 1, project=YARD)
    batches = ([below, above], [stop]) if late == "the stop" else ([stop], [below, above])
    come(connection, ledger, range(below), *batches)
    assert verdict(connection, "f")[1] == 1_333 and verdict(connection, "f", YARD)[1] == 1_000


def test_an_entry_in_the_place_of_another_is_another(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    size = ledger.vote("a", "f", 1)
    scores = come(connection, ledger, range(size + 1))
    connection.execute("DELETE FROM ledger_entries WHERE id = ?", (size,))
    ledger.cut(size)
    ledger.vote("b", "g", 1, project=PROJECT)
    ledger.put(connection, [size])
    assert scores.catch_up(connection) == {PROJECT}
    assert folded(connection) == state(ledger.fold())


def test_a_project_that_has_lost_its_scores_is_told(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1")
    size = ledger.vote("a", "f", 1)
    scores = come(connection, ledger, range(size + 1))
    connection.execute("DELETE FROM ledger_entries WHERE id = ?", (size,))
    assert scores.catch_up(connection) == {PROJECT}
    assert verdict(connection, "f")[1] == 1_000


def test_what_stopped_the_scores_lets_them_go_on_once_it_can_be_read(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    at = ledger.vote("a", "f", 1)
    ledger.vote("b", "f", 1)
    text = ledger.lines[at].text
    ledger.put(connection)
    for damaged in (None, b"rotten"):
        connection.execute("UPDATE ledger_entries SET text = ? WHERE id = ?", (damaged, at))
        scores = Scores(key(AUTHORITY))
        scores.refold(connection)
        assert scores.fold(connection).frozen == {tag_of(PROJECT): at}
        assert scores.catch_up(connection) == set()
        assert verdict(connection, "f") == (Trust.UNSETTLED, 1_000)
    connection.execute("UPDATE ledger_entries SET text = ? WHERE id = ?", (text, at))
    assert scores.catch_up(connection) == {PROJECT}
    assert verdict(connection, "f") == (Trust.VERIFIED, 1_500)


def test_a_ledger_of_another_authority_is_not_folded(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1")
    ledger.put(connection)
    scores = Scores(key("somebody else"))
    assert scores.catch_up(connection) == scores.refold(connection) == set()
    assert not scores.fold(connection).agents.known


def test_a_signature_is_not_checked_again_when_it_stands_among_the_ballots(
    connection: sqlite3.Connection,
) -> None:
    ledger = Ledger().enrol("a@1")
    ledger.vote("a", "f", 1, forged=True)
    ledger.put(connection)
    Scores(key(AUTHORITY)).catch_up(connection)
    assert verdict(connection, "f")[1] == 1_000
    # Nothing puts a forged vote there. Were it there, nobody would look again.
    connection.execute(
        "INSERT INTO ballots SELECT name, '', '', '', x'', x'', 1, 1, 1, x'', '', 0, x'', x'', id FROM ledger_entries"
        " WHERE agent IS NOT NULL"
    )
    Scores(key(AUTHORITY)).refold(connection)
    assert verdict(connection, "f")[1] == 1_333


def test_what_was_folded_in_a_job_that_failed_is_forgotten(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1", "b@2")
    scores = come(connection, ledger, range(len(ledger.lines)))
    before = len(ledger.lines)
    for agent in "ab":
        ledger.vote(agent, "f", 1)
    connection.execute("BEGIN")
    ledger.put(connection, range(before, len(ledger.lines)))
    assert scores.catch_up(connection) == {PROJECT}
    connection.execute("ROLLBACK")
    assert verdict(connection, "f") == (Trust.UNSETTLED, 1_000)
    ledger.put(connection, range(before, len(ledger.lines)))
    assert scores.catch_up(connection) == {PROJECT}
    assert verdict(connection, "f") == (Trust.VERIFIED, 1_500)


# --- what the issue promises of the numbers, on a node's tables ---


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.sampled_from([1, -1])), max_size=30))
def test_one_newcomer_never_verifies(shared: sqlite3.Connection, earlier: list[tuple[int, int, int]]) -> None:
    ledger = Ledger().enrol(*(f"a{at}@m{at}" for at in range(5)), "new@elsewhere")
    for agent, fact, value in earlier:
        ledger.vote(f"a{agent}", f"earlier {fact}", value)
    ledger.vote("new", "f", 1)
    ledger.put(emptied(shared))
    Scores(key(AUTHORITY)).catch_up(shared)
    assert verdict(shared, "f") == (Trust.UNSETTLED, 1_333)


def test_a_thousand_fresh_agents_of_one_machine_do_not_outvote_five_established(
    connection: sqlite3.Connection,
) -> None:
    ledger = Ledger().enrol(*(f"a{at}@m{at}" for at in range(5)))
    for fact in range(12):
        for agent in range(5):
            ledger.vote(f"a{(agent + fact) % 5}", f"earlier {fact}", 1)
    ledger.enrol(*(f"fresh {at}@one machine" for at in range(1_000)))
    for at in range(1_000):
        ledger.vote(f"fresh {at}", "f", -1)
    for agent in range(5):
        ledger.vote(f"a{agent}", "f", 1)
    ledger.put(connection)
    Scores(key(AUTHORITY)).catch_up(connection)
    assert verdict(connection, "f")[0] is Trust.VERIFIED


def test_two_agreeing_machines_verify_and_a_lone_user_only_as_owner(connection: sqlite3.Connection) -> None:
    ledger = Ledger().enrol("a@1", "b@2", f"tool@{HUB}", f"other@{HUB}")
    for agent in ("a", "b"):
        ledger.vote(agent, "shared", 1)
    for agent in ("tool", "other"):
        ledger.vote(agent, "lone", 1)
    ledger.vote(OWNER, "own", 1, own=True)
    ledger.put(connection)
    Scores(key(AUTHORITY)).catch_up(connection)
    assert [verdict(connection, fact)[0] for fact in ("shared", "lone", "own")] == [
        Trust.VERIFIED, Trust.UNSETTLED, Trust.VERIFIED,
    ]  # fmt: skip


def test_ballots_are_not_asked_to_fold(connection: sqlite3.Connection) -> None:
    """A hub without the project's ops has the same numbers as its carriers."""
    ledger = Ledger().enrol("a@1", "b@2")
    for agent in "ab":
        ledger.vote(agent, "f", 1)
    come(connection, ledger, range(len(ledger.lines)))
    Ballots(MESH).clear(connection)
    before = folded(connection)
    Scores(key(AUTHORITY)).refold(connection)
    assert folded(connection) == before
