"""Every record comes back from its op, is found where it belongs, and what is none says nothing."""

from hashlib import sha256

import msgspec
import pytest

from crdt.op import FORMAT, Header, Op, OpClass, seal
from ledger.checkpoint import Fork
from ledger.ed25519 import public_key, secret_key
from ledger.entry import ENTRY_BYTES
from ledger.vote import Vote, sign
from node.store import Draft
from node.voting import records
from node.voting.records import Announced, Cosigned, Entries, OldVote, Profile, VoteRecord, Wanted
from sync.overlap import RESERVED

MESH, HASH = bytes(32), sha256(b"something").digest()
NODE, AGENT = secret_key(b"n" * 32), secret_key(b"a" * 32)
VOTE = Vote(MESH, "default", "k7q2m4zx5tvb3nya-17", HASH, public_key(AGENT), 1, 1, sha256().digest(), 1_760_000_000_000)


def op_of(draft: Draft, **changes: object) -> Op:
    assert isinstance(draft.body, bytes)
    header = Header(
        FORMAT, draft.project, int(draft.op_class), draft.subject, draft.field, public_key(NODE), 7, 3, 0, b"", 1,
        draft.clock, draft.kind, draft.body,
    )  # fmt: skip
    return seal(MESH, msgspec.structs.replace(header, **changes), NODE)


VOTE_RECORD = VoteRecord(sign(VOTE, AGENT), "measured", 12, HASH, HASH + HASH)
DRAFTS: list[tuple[Draft, object, str]] = [
    (records.vote_draft(VOTE, VOTE_RECORD, ((b"b" * 16, 2),)), VOTE_RECORD, "default"),
    (records.old_vote_draft("default", "f-1", OldVote("claude", -1, 5)), OldVote("claude", -1, 5), "default"),
    (records.project_key_draft("default", HASH), HASH, "default"),
    (
        records.entries_draft("default", 3, Entries(9, ((bytes(ENTRY_BYTES), b"text"),), (HASH,), ((0,),))),
        Entries(9, ((bytes(ENTRY_BYTES), b"text"),), (HASH,), ((0,),)),
        "default",
    ),
    (records.checkpoint_draft(9, Announced(b"note", 3, (HASH,))), Announced(b"note", 3, (HASH,)), RESERVED),
    (records.statement_draft(2, b"text"), Wanted(2, b"text"), RESERVED),
    (records.fork_draft(Fork(b"a", b"b")), Fork(b"a", b"b"), RESERVED),
    (records.cosignature_draft("node", Cosigned(9, HASH, "line"), ()), Cosigned(9, HASH, "line"), RESERVED),
    (
        records.profile_draft(public_key(AGENT), Profile("claude", "a model"), ()),
        Profile("claude", "a model"),
        RESERVED,
    ),
]
IDS = [draft.kind for draft, *_ in DRAFTS]


@pytest.mark.parametrize(("draft", "record", "project"), DRAFTS, ids=IDS)
def test_a_record_comes_back_from_its_op(draft: Draft, record: object, project: str) -> None:
    op = op_of(draft)
    assert records.read(op, type(record)) == record
    assert op.project == project
    assert op.subject.partition("/")[0] in (records.VOTES, records.LEDGER, records.AGENTS)
    assert "/" in op.subject, "else it would pass for a fact"


@pytest.mark.parametrize(("draft", "record", "project"), DRAFTS, ids=IDS)
def test_what_is_no_record_says_nothing(draft: Draft, record: object, project: str) -> None:
    its_type = type(record)
    assert records.read(op_of(draft, body=b"\xc1"), its_type) is None
    assert records.read(op_of(draft, body=b"\xa0"), its_type) is None, "another type"
    assert records.read(op_of(draft, kind="later"), its_type) is None, "a kind of a later version"
    other = OpClass.APPEND if draft.op_class != OpClass.APPEND else OpClass.WRITE
    assert records.read(op_of(draft, op_class=int(other), clock=()), its_type) is None, "another class"
    for _, different, _ in DRAFTS:
        if type(different) is not its_type:
            assert records.read(op_of(draft), type(different)) is None


def test_bounds_hold_for_what_peers_send() -> None:
    too_long = records.vote_draft(VOTE, VoteRecord(VOTE_RECORD.signed, "x" * (records.MAX_REASON_BYTES + 1)), ())
    assert records.read(op_of(too_long), VoteRecord) is None
    empty = records.entries_draft("default", 3, Entries(9, (), (), ()))
    assert records.read(op_of(empty), Entries) is None
    short = records.project_key_draft("default", b"short")
    assert records.read(op_of(short), bytes) is None


def test_one_subject_for_an_agents_votes_on_a_fact_and_a_field_for_each_version() -> None:
    second = VOTE._replace(version=sha256(b"edited").digest())
    drafts = [records.vote_draft(vote, VOTE_RECORD, ()) for vote in (VOTE, second)]
    assert drafts[0].subject == drafts[1].subject
    assert drafts[0].field != drafts[1].field == second.version.hex()
    assert len(op_of(drafts[0]).subject.encode()) < 128
