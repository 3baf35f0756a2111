"""What a member may write that nobody can believe: it harms no node that takes it in.

A member of the mesh signs whatever it likes. Whatever the ops of votes, agents and the ledger say, a node shows them
without an exception - one would undo the whole batch that they came in, for ever -, makes the same rows of them on a
rebuild, and goes on to follow the ledger.
"""

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.op import MAX_FIELD_BYTES, MAX_SUBJECT_BYTES, OpClass
from ledger import note, statement
from ledger.checkpoint import Checkpoint, Fork, origin_of
from ledger.entry import Kind
from ledger.note import Algorithm, Note, Signer
from ledger.statement import Enrolment, Revocation
from ledger.verify import verify
from ledger.vote import MAX_COUNTER, Vote, reason_hash, sign
from node.store import Draft
from node.voting import records
from node.voting.accepted import read_forks
from node.voting.records import Announced, Cosigned, OldVote, Profile, VoteRecord
from node.voting.roster import Roster, clear_profiles, show_profile
from sync.overlap import RESERVED
from tests.node.voting.world import (
    AUTHORITY,
    MESH,
    PROJECT,
    Script,
    Voter,
    a_mesh,
    announced,
    forked,
    key,
    script_of,
    secret,
    settle,
)
from tests.node.world import NOW_MS, a_record, keys, member

TABLES = (
    "ballots", "old_votes", "profiles", "project_keys", "statements", "ledger_inbox", "ledger_cosignatures",
    "ledger_entries", "ledger_checkpoints", "ledger_forks", "tallies", "reputations", "agents",
)  # fmt: skip
ODD = [
    "", "x", "ledger", "ledger/", "ledger//", "ledger/key", "ledger/key/", "ledger/entries", "ledger/entries/",
    "ledger/entries/-1", "ledger/entries/" + "9" * 19, "ledger/entries/" + "9" * 100, "ledger/checkpoint/\u0663",
    "ledger/checkpoint/1e3", "ledger/checkpoint/ 7", "ledger/checkpoint/0", "ledger/fork/", "ledger/statement/x/y",
    "ledger/witness/", "ledger/witness/\0", "vote/", "vote//", "vote///", "vote/old-", "vote/f/old-", "vote/a/b/c",
    "vote/\U0010ffff/" + "0" * 32, "agent/", "agent/" + "0" * 32, "agent/" + "F" * 32, "agent/" + "0" * 32 + "\n",
]  # fmt: skip
"""Subjects that nobody honest writes."""
FACT = "fact-0"


def a_vote(agent: str, value: int = 1, counter: int = 1, fact: str = FACT, project: str = PROJECT) -> Draft:
    said = Vote(MESH, project, fact, bytes(32), key(agent), counter, value, reason_hash(), NOW_MS)
    return records.vote_draft(said, VoteRecord(sign(said, secret(agent))), ())


@cache
def script() -> Script:
    return script_of(2, 3)


@cache
def honest() -> list[Draft]:
    """One of every kind at least, all good."""
    node, node_secret = keys(1)
    enrolled = Enrolment(MESH, key("ann"), "ann", node, False, b"", NOW_MS)
    revoked = Revocation(MESH, key("ann"), 4, node, NOW_MS)
    root = bytes(32)
    signer = Signer("x", node_secret, Algorithm.COSIGNATURE)
    line = str(note.sign(Note(Checkpoint(origin_of(script().ledger), 5, root).text), signer, 7)).splitlines()[-1]
    return [
        *script().beginning(),
        *announced(script()),
        a_vote("ann"),
        records.old_vote_draft(PROJECT, FACT, OldVote("old", 1, NOW_MS)),
        records.project_key_draft(PROJECT, bytes(32)),
        records.statement_draft(Kind.ENROLMENT, statement.seal(enrolled, AUTHORITY, [secret("ann"), node_secret])),
        records.statement_draft(Kind.REVOCATION, statement.seal(revoked, AUTHORITY, [node_secret])),
        records.fork_draft(Fork(script().notes[5], script().notes[8])),
        records.cosignature_draft("x", Cosigned(5, root, line), ()),
        records.profile_draft(key("ann"), Profile("ann"), ()),
    ]


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(max_size=70),
    st.text(max_size=9),
    st.sampled_from([-1, 0, 1, 2**53, 2**62 - 1, 2**62, 2**63 - 1, bytes(32), bytes(146), "", "\0"]),
)  # fmt: skip
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4), max_leaves=8)


@st.composite
def bodies(draw: st.DrawFn, good: bytes) -> bytes:
    """Something near to `good`, or far from it."""
    how = draw(st.sampled_from(["good", "cut", "bits", "value", "value", "value", "any", "deep"]))
    if how == "good":
        return good
    if how == "cut":
        return good[: draw(st.integers(0, len(good)))]
    if how == "bits":
        place = draw(st.integers(0, len(good) - 1))
        return good[:place] + bytes([good[place] ^ draw(st.integers(1, 255))]) + good[place + 1 :]
    if how == "value":
        return msgspec.msgpack.encode(draw(changed(msgspec.msgpack.decode(good))))
    return msgspec.msgpack.encode(draw(values)) if how == "any" else b"\x91" * 5_000


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """`value` with one place in it that is another."""
    if not isinstance(value, list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(values)
    place = draw(st.integers(0, len(value) - 1))
    return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]


@st.composite
def hostile(draw: st.DrawFn, *kinds: str) -> Draft:
    """An op of any kind, or of one of these, at any place, that says anything."""
    good = draw(st.sampled_from([one for one in honest() if not kinds or one.kind in kinds]))
    assert isinstance(good.body, bytes)
    body = draw(bodies(good.body))
    if draw(st.booleans()):
        return Draft(good.project, good.op_class, good.subject, good.field, good.kind, body, good.clock)
    subjects = st.sampled_from([*ODD, *(one.subject for one in honest())]) | st.text(max_size=30)
    return Draft(
        draw(st.sampled_from([good.project, PROJECT, RESERVED, "other"])),
        draw(st.sampled_from([good.op_class, *OpClass])),
        draw(subjects).encode()[:MAX_SUBJECT_BYTES].decode(errors="ignore"),
        draw(st.sampled_from([good.field, "", "x", "old"]) | st.text(max_size=9)).encode()[:MAX_FIELD_BYTES].decode(),
        draw(st.sampled_from([good.kind, *(one.kind for one in honest())])),
        body,
    )


def tables(node: Voter, *names: str) -> dict[str, list[Any]]:
    return {table: sorted(map(repr, node.rows(f"SELECT * FROM {table}"))) for table in names or TABLES}


async def a_node() -> Voter:
    node = Voter(1)
    node.store.shows[records.AGENTS] = show_profile
    node.store.clears = [node.ballots.clear, node.inbox.clear, clear_profiles]
    node.store.rebuilds = [node.scores.refold]
    await node.append(member(node))
    return node


def look(node: Voter) -> None:
    """What users ask."""
    connection = node.database.direct
    Roster(connection, AUTHORITY).everybody()
    node.scores.decorate(
        connection, [{"id": FACT, "project": PROJECT, "version": bytes(32).hex(), "author": node.store.node_id}]
    )
    node.scores.votes(connection, FACT, bytes(32).hex(), PROJECT)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(drafts=st.lists(hostile(), min_size=1, max_size=6), before=st.booleans())
def test_whatever_a_member_writes_is_shown_followed_and_shown_again(drafts: list[Draft], before: bool) -> None:
    async def run() -> None:
        node = await a_node()
        first, second = (honest(), drafts) if before else (drafts, honest())
        for draft in (*first, *second):
            if draft.op_class == OpClass.APPEND and draft.clock:
                continue
            await node.append(draft)
            look(node)
        await node.follower.catch_up()
        assert node.size == 8, "the honest ops are followed all the same"
        look(node)
        shown = tables(node)
        await node.database.write(lambda connection: node.store.rebuild(connection, node.now_ms))
        await node.follower.catch_up()
        assert tables(node) == shown

    asyncio.run(run())


async def test_a_vote_on_what_is_in_the_reserved_project_is_none(tmp_path: Path) -> None:
    hub, other = await a_mesh(tmp_path / "hub")
    await other.enrol("eve")
    (op,) = await other.append(a_record("not a member", RESERVED))
    await settle(hub, other)
    await other.vote("eve", {"project": RESERVED, "id": op.subject, "version": op.hash.hex()}, 1)
    await hub.enrol("ann")
    await settle(hub, other)
    assert not hub.rows("SELECT * FROM ballots")
    assert hub.size == other.size == 5, "nothing stands between other nodes and the ledger"


async def test_one_member_is_one_voice_before_any_hub_says_so(tmp_path: Path) -> None:
    hub, eve = await a_mesh(tmp_path / "hub")
    fact = await hub.create()
    await settle(hub, eve)
    for number in range(3, 9):
        voice, voice_secret = keys(100 + number)
        name = f"sybil {number}"
        said = Enrolment(MESH, key(name), name, voice, False, b"", NOW_MS)
        await eve.state_(Kind.ENROLMENT, statement.seal(said, AUTHORITY, [secret(name), voice_secret]))
        await eve.vote(name, fact, -1)
    await settle(hub, eve)
    for node in (hub, eve):
        shown = dict(fact)
        node.scores.decorate(node.database.direct, [shown])
        assert shown["score_provisional"] == 1_000 and shown["votes"]["pending"] == 6
        assert len(Roster(node.database.direct, AUTHORITY).everybody()) == 1


@st.composite
def versions(draw: st.DrawFn) -> Draft:
    """Something that a vote may be on, of which the content need not be any."""
    good = a_record("seen")
    assert isinstance(good.body, bytes)
    return Draft(
        draw(st.sampled_from([PROJECT, RESERVED, "other", "\U0010ffff"])),
        draw(st.sampled_from([OpClass.WRITE, OpClass.WRITE, *OpClass])),
        draw(st.sampled_from(["", "", FACT, "a/b", "\0"])),
        draw(st.sampled_from(["", "", "content", "agent"])),
        draw(st.sampled_from([good.kind, good.kind, "value", "x"])),
        draw(bodies(good.body)),
    )


UNSIGNED = (records.VOTE, records.OLD_VOTE, records.PROJECT_KEY, records.COSIGNATURE, records.PROFILE)
"""What no hub and no authority signs: their keys are not for a member to have."""
counters = st.sampled_from([1, 2, MAX_COUNTER])


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    things=st.lists(st.tuples(versions(), st.sampled_from([-1, 0, 1]), counters), min_size=1, max_size=6),
    drafts=st.lists(hostile(*UNSIGNED), max_size=6),
)
def test_a_hub_goes_on_and_says_the_same_as_everybody(
    things: list[tuple[Draft, int, int]], drafts: list[Draft], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> None:
        hub, eve, other = await a_mesh(tmp_path_factory.mktemp("hub"), 3)
        await eve.enrol("eve")
        for draft, value, counter in things:
            (op,) = await eve.append(draft)
            said = {"project": op.project, "id": op.subject, "version": op.hash.hex()}
            for agent in ("eve", "nobody"):
                if op.subject:
                    await eve.vote(agent, said, value, counter)
                    await eve.vote(agent, said, 1, counter)
        for draft in drafts:
            if draft.op_class != OpClass.APPEND or not draft.clock:
                await eve.append(draft)
        await settle(hub, eve)
        for op in [op for op in hub.ops() if op.subject.startswith("ledger/")]:
            for project, place in ((op.project, "ledger/entries/7"), (PROJECT, op.subject), ("other", op.subject)):
                await eve.append(Draft(project, op.op_class, place, op.header.field, op.header.kind, op.header.body))
        await hub.enrol("ann")
        await hub.vote("ann", await hub.create(), 1)
        await settle(hub, eve, other)
        assert hub.hub is not None and hub.hub.state()["mode"] == "idle"
        assert hub.rows("SELECT 1 FROM agents WHERE name = 'ann'") and hub.rows("SELECT 1 FROM tallies")
        assert verify(hub.table, authority=AUTHORITY).ok
        for node in (eve, other):
            assert node.entries() == hub.entries() and node.size == hub.size
            for table in ("tallies", "reputations", "agents", "voided"):
                assert tables(node, table) == tables(hub, table)

    asyncio.run(run())


async def test_an_op_that_has_rotted_stops_nobody_who_follows() -> None:
    node, made = await a_node(), script_of(2)
    await node.append(*made.beginning(), *announced(made))
    (row,) = node.rows("SELECT hash FROM ops WHERE subject = 'ledger/entries/3'")
    rot = "UPDATE ops SET raw = x'c1' WHERE hash = ?"
    await node.database.write(lambda connection: list(connection.execute(rot, row)))
    await node.follower.catch_up()
    assert (node.size, node.accepted) == (3, 5) and node.follower.state(node.database.direct)["inbox"] == 0


async def test_a_note_that_a_member_made_up_is_no_evidence_of_a_fork() -> None:
    """What an accepted root was signed with is looked for among ops, once its note is not kept any longer."""
    (one, two), node = forked(6, 2, 2), await a_node()
    text = note.parse(one.notes[8]).text
    planted = [bytes(note.sign(Note(text), Signer(origin_of(one.ledger), keys(number)[1]))) for number in range(60, 68)]
    await node.append(*(records.checkpoint_draft(8, Announced(made_up, 0, ())) for made_up in planted))
    await node.append(*one.beginning(), *announced(one))
    await node.follower.catch_up()
    await node.database.write(lambda connection: list(connection.execute("UPDATE ledger_checkpoints SET note = NULL")))
    await node.append(two.checkpoint(8, since=6))
    await node.follower.catch_up()
    (kept,) = read_forks(node.database.direct)
    assert {kept.older, kept.newer} == {one.notes[8], two.notes[8]}
