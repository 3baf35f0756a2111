"""Which votes stand: a function of the ops, whatever else strangers write there; and who wrote what it votes on."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.op import Op, OpClass
from ledger.vote import MAX_TIME_MS, vote_id
from node.requests import FactChanges
from node.store import Draft
from node.voting import ballots as module
from node.voting import records
from node.voting.ballots import Ballots, wrote
from node.voting.records import OldVote, VoteRecord
from tests.node.voting.ledgers import YARD, Ledger, a_database, a_vote, key, signed, version_of
from tests.node.world import MESH, NOW_MS, PROJECT, Forger, Node, a_mesh, sync

FACT = "f"


@pytest.fixture(scope="module")
def shared() -> Iterator[sqlite3.Connection]:
    database = a_database()
    database.execute("INSERT INTO projects (name, bits) VALUES (?, 0), (?, 0)", (PROJECT, YARD))
    yield database
    database.close()


@pytest.fixture
def connection(shared: sqlite3.Connection) -> sqlite3.Connection:
    for table in ("ballots", "old_votes", "ledger_entries"):
        shared.execute(f"DELETE FROM {table}")
    return shared


def an_op(draft: Draft, seq: int = 1) -> Op:
    assert isinstance(draft.body, bytes)
    return Forger(1).op(
        seq, project=draft.project, op_class=draft.op_class, subject=draft.subject, field=draft.field, kind=draft.kind,
        body=draft.body, clock=draft.clock,
    )  # fmt: skip


def a_ballot(value: int = 1, counter: int = 1, agent: str = "a", *, seq: int = 1, **more: Any) -> Op:
    """The op of a vote; `record`: what it says beside the vote."""
    record = more.pop("record", {})
    vote = a_vote(agent, FACT, value, counter, **more)
    return an_op(records.vote_draft(vote, VoteRecord(signed(vote, agent), **record), ()), seq)


def rows(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT * FROM ballots ORDER BY id").fetchall()


def show(connection: sqlite3.Connection, *ops: Op, ballots: Ballots | None = None, subject: str = "") -> list[Any]:
    """What stands after these ops of one subject: (counter, value) of each."""
    (number,) = connection.execute("SELECT id FROM projects WHERE name = ?", (PROJECT,)).fetchone()
    (ballots or Ballots(MESH)).show(connection, number, subject or ops[0].subject, ops)
    return connection.execute("SELECT counter, value FROM ballots ORDER BY version, counter, value").fetchall()


@st.composite
def many_ops(draw: st.DrawFn) -> Sequence[Op]:
    made = []
    for seq in range(1, draw(st.integers(1, 10)) + 1):
        value, counter = draw(st.sampled_from([1, -1, 0])), draw(st.integers(1, 4))
        more: dict[str, Any] = {
            "version": version_of(FACT, draw(st.integers(0, 1))),
            "time_ms": draw(st.integers(0, 2)),
        }
        match draw(st.integers(0, 5)):
            case 0:  # a stranger's work, under the agent's name
                vote = a_vote("a", FACT, value, 9, **more)
                text = signed(vote, "a")
                op = an_op(records.vote_draft(vote, VoteRecord(text[:-1] + bytes([text[-1] ^ 1])), ()), seq)
            case 1:  # takes the others away, and is no vote
                op = Forger(2).op(
                    seq, project=PROJECT, op_class=OpClass.REMOVE, subject=records.vote_subject(FACT, key("a")),
                    field=version_of(FACT).hex(), kind=records.VOTE, clock=((Forger(1).author, 1),),
                )  # fmt: skip
            case _:
                op = a_ballot(value, counter, seq=seq, **more)
        made.append(op)
    return made


@given(many_ops(), st.data())
def test_rows_follow_from_the_set_of_ops(shared: sqlite3.Connection, ops: Sequence[Op], data: st.DataObject) -> None:
    shared.execute("DELETE FROM ballots")
    show(shared, *ops)
    expected = rows(shared)
    shared.execute("DELETE FROM ballots")
    ballots, order = Ballots(MESH), data.draw(st.permutations(ops))
    for count in range(1, len(order) + 1):
        show(shared, *order[:count], ballots=ballots)
        show(shared, *order[:count], ballots=ballots)
    assert rows(shared) == expected
    votes = {}
    for op in ops:
        record = records.read(op, VoteRecord)
        vote = module._decoded(record.signed) if record else None
        if record and vote and signed(vote, "a") == record.signed:
            votes[vote_id(record.signed)] = vote
    for version in {vote.version for vote in votes.values()}:
        top = max(vote.counter for vote in votes.values() if vote.version == version)
        values = {v.value for v in votes.values() if (v.version, v.counter) == (version, top)}
        stand = {(row[6], row[7]): row[0] for row in expected if row[4] == version}
        assert stand == {
            (top, value): min(name for name, v in votes.items() if v[3:4] + v[5:7] == (version, top, value))
            for value in values
        }


# --- where a vote belongs ---


def test_a_vote_counts_at_its_place_only(connection: sqlite3.Connection) -> None:
    good = a_ballot()
    assert show(connection, good) == [(1, 1)]
    for wrong in (
        {"subject": records.vote_subject("g", key("a"))},
        {"subject": records.vote_subject(FACT, key("b"))},
        {"subject": f"{good.subject}/x"},
        {"field": version_of("g").hex()},
        {"field": version_of(FACT).hex().upper()},
        {"project": YARD},
        {"op_class": OpClass.APPEND},
        {"kind": "later"},
        {"body": good.header.body + b"x"},
    ):
        place = {
            "project": PROJECT, "subject": good.subject, "field": good.header.field, "kind": good.header.kind,
            "op_class": OpClass.ADD, "body": good.header.body,
        } | wrong  # fmt: skip
        op = Forger(1).op(1, **place)
        (number,) = connection.execute("SELECT id FROM projects WHERE name = ?", (op.project,)).fetchone()
        connection.execute("DELETE FROM ballots")
        Ballots(MESH).show(connection, number, op.subject, [op])
        assert rows(connection) == [], wrong


def test_a_vote_of_another_mesh_or_with_a_wrong_signature_has_no_effect(connection: sqlite3.Connection) -> None:
    assert show(connection, a_ballot(mesh=bytes(32))) == []
    vote = a_vote("a", FACT, 1)
    forged = records.vote_draft(vote, VoteRecord(signed(vote, "a")[:-1] + b"x"), ())
    assert show(connection, an_op(forged)) == []


def test_two_projects_may_hold_a_subject_of_one_name(connection: sqlite3.Connection) -> None:
    show(connection, a_ballot())
    (number,) = connection.execute("SELECT id FROM projects WHERE name = ?", (YARD,)).fetchone()
    for op in (a_ballot(-1, project=YARD), None):
        Ballots(MESH).show(connection, number, a_ballot().subject, [op] if op else [])
        assert (PROJECT, 1) in {(row[2], row[7]) for row in rows(connection)}
    assert len(rows(connection)) == 1


def test_a_reason_that_was_not_signed_is_dropped_and_the_vote_stands(connection: sqlite3.Connection) -> None:
    lie = a_ballot(record={"reason": "it was a lie"})
    assert show(connection, lie) == [(1, 1)] and rows(connection)[0][10] == ""
    true = a_ballot(reason="I saw it", record={"reason": "I saw it"})
    without = a_ballot(reason="I saw it", seq=2)
    for ops in ([true, without], [without, true]):
        assert show(connection, *ops) == [(1, 1)] and rows(connection)[0][10] == "I saw it"


def test_the_newest_checkpoint_that_any_sender_knew_is_told(connection: sqlite3.Connection) -> None:
    """Unchecked; what can't be one is none."""
    claims = [(5, 32, 64), (7, 32, 64), (9, 31, 64), (10, 32, 63), (11, 32, 0), (0, 0, 0)]
    ops = [
        a_ballot(
            seq=size + 1,
            record={"seen_size": size, "seen_root": bytes([size]) * root, "seen_signature": bytes([size]) * signature},
        )
        for size, root, signature in claims
    ]
    for order in (ops, ops[::-1]):
        show(connection, *order)
        assert rows(connection)[0][11:14] == (7, bytes([7]) * 32, bytes([7]) * 64)
    show(connection, *ops[2:])
    assert rows(connection)[0][11:14] == (0, b"", b"")


def test_a_flood_of_votes_leaves_few_rows_and_few_checks(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[bytes] = []
    verify = module.votes.verify
    monkeypatch.setattr(module.votes, "verify", lambda text, mesh: checks.append(text) or verify(text, mesh))
    ops = [a_ballot((-1) ** counter, counter, seq=counter) for counter in range(1, 101)]
    ballots = Ballots(MESH)
    for count in range(98, 101):
        show(connection, *ops[:count], ballots=ballots)
    assert [row[6] for row in rows(connection)] == [100] and len(checks) == 3
    show(connection, *ops, ballots=Ballots(MESH))  # of what stands the row knows, also after a start
    assert len(checks) == 3


# --- the queue of a hub ---


def test_pending_are_those_without_an_entry_the_oldest_first(connection: sqlite3.Connection) -> None:
    ballots = Ballots(MESH)
    for time, agent in ((3, "a"), (1, "b"), (2, "c")):
        show(connection, a_ballot(agent=agent, time_ms=time))
    assert [one.time for one in ballots.pending(connection, 10)] == [1, 2, 3]
    assert [one.time for one in ballots.pending(connection, 1)] == [1]
    first = ballots.pending(connection, 1)[0]
    assert [one.time for one in ballots.pending(connection, 10, (first.time, first.id))] == [2, 3]
    ledger = Ledger()
    place = ledger.add(5, first.signed, bytes([1]) * 32)
    ledger.put(connection, [place])
    ballots.mark(connection, [first.id])
    assert [one.time for one in ballots.pending(connection, 10)] == [2, 3]
    show(connection, a_ballot(agent="b", time_ms=1))  # shown again: its entry is looked up
    assert [one.time for one in ballots.pending(connection, 10)] == [2, 3]
    connection.execute("DELETE FROM ledger_entries")
    ballots.mark(connection, [first.id])
    assert [one.time for one in ballots.pending(connection, 10)] == [1, 2, 3]


# --- votes of the earlier system ---


def test_an_old_vote_is_the_last_that_was_written_of_its_agent(connection: sqlite3.Connection) -> None:
    first = an_op(records.old_vote_draft(PROJECT, FACT, OldVote("zoe", 1, 5)))
    second = Forger(1).op(
        2, first, project=PROJECT, subject=first.subject, field="old", kind=records.OLD_VOTE,
        body=records.old_vote_draft(PROJECT, FACT, OldVote("zoe", -1, 6)).body, clock=((Forger(1).author, 1),),
    )  # fmt: skip
    for ops in ([first, second], [second, first]):
        show(connection, *ops)
        assert connection.execute("SELECT * FROM old_votes").fetchall() == [
            (first.subject, PROJECT, FACT, "zoe", -1, 6)
        ]
    show(connection, subject=first.subject)
    assert connection.execute("SELECT * FROM old_votes").fetchall() == []


@pytest.mark.parametrize("time", [-1, MAX_TIME_MS + 1, (1 << 64) - 1])
def test_an_old_vote_at_no_time_or_in_anothers_name_has_no_effect(connection: sqlite3.Connection, time: int) -> None:
    for vote, name in ((OldVote("zoe", 1, time), "zoe"), (OldVote("zoe", 1, 5), "ben")):
        draft = records.old_vote_draft(PROJECT, FACT, OldVote(name, 1, 5))
        op = Forger(1).op(
            1, project=PROJECT, subject=draft.subject, field="old", kind=records.OLD_VOTE,
            body=records.old_vote_draft(PROJECT, FACT, vote).body,
        )  # fmt: skip
        show(connection, op)
        assert connection.execute("SELECT * FROM old_votes").fetchall() == []


# --- who wrote the version ---


async def test_who_wrote_a_version() -> None:
    one, other = await a_mesh(2)
    named = await one.create("a", agent="claude")
    plain = await one.create("b")
    edited = await other.replica.update((await other.create("c", agent="ada"))["id"], FactChanges(content="d"))
    await sync(one, other)
    connection = one.database.direct

    def ask(fact: dict[str, Any], node: Node, name: str) -> bool | None:
        vote = a_vote("a", fact["id"], 1, version=bytes.fromhex(fact["version"]))
        return wrote(connection, vote, node.key, name)

    assert ask(named, one, "claude") is True
    assert ask(named, one, "ada") is False
    assert ask(named, one, "claude (mcp)") is True, "so it votes when an agent that it may not vote as has its name"
    assert ask(named, other, "claude") is False
    assert ask(plain, one, "anybody") is True
    assert ask(edited, other, "ben") is True  # an edit names no agent
    assert ask(edited, one, "ben") is False
    assert ask(named | {"version": "00" * 32}, one, "claude") is None
    assert ask(named | {"version": plain["version"]}, one, "claude") is None  # of another fact
    tagged = await one.replica.update(plain["id"], FactChanges(fact_type="rule"))
    (other_field,) = [op.hash.hex() for op in one.ops() if op.header.field == "fact_type"]
    assert ask(tagged | {"version": other_field}, one, "anybody") is None
    (record, edit) = other.rows("SELECT hash, raw FROM ops WHERE subject = ? ORDER BY id", edited["id"])
    assert ask(edited | {"version": record[0].hex()}, other, "ada") is True
    connection.execute("UPDATE ops SET raw = ? WHERE hash = ?", (edit[1], record[0]))  # not what was hashed
    assert ask(edited | {"version": record[0].hex()}, other, "ada") is None
    connection.execute("UPDATE ops SET raw = substr(raw, 1, 40) WHERE hash = ?", (bytes.fromhex(plain["version"]),))
    assert ask(plain, one, "anybody") is None


async def test_a_vote_waits_for_its_fact_and_a_rebuild_makes_the_same_rows() -> None:
    one, other = await a_mesh(2)
    for node in (one, other):
        ballots = Ballots(MESH)
        node.store.shows[records.VOTES] = ballots.show
        node.store.clears.append(ballots.clear)
    vote = a_vote("a", "not-here-1", 1, time_ms=NOW_MS)
    await one.append(records.vote_draft(vote, VoteRecord(signed(vote, "a")), ()))
    await one.append(records.old_vote_draft(PROJECT, "not-here-1", OldVote("zoe", 1, 5)))
    await sync(one, other)
    query = "SELECT * FROM ballots", "SELECT * FROM old_votes"
    before = [other.rows(sql) for sql in query]
    assert all(before) and before == [one.rows(sql) for sql in query]
    other.database.direct.execute("UPDATE ballots SET value = -1, id = x'00'")
    await other.database.write(lambda connection: other.store.rebuild(connection, NOW_MS))
    assert [other.rows(sql) for sql in query] == before
