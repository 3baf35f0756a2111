"""The ops of votes, agents and the ledger: where each is written, and what its body says.

| project | subject | field | class | kind | body |
| --- | --- | --- | --- | --- | --- |
| the fact's | vote/FACT/AGENT | the version | add | vote | `VoteRecord` |
| the fact's | vote/FACT/old-NAME | old | write | old-vote | `OldVote` |
| the project's | ledger/key | key | write | project-key | 32 bytes |
| the project's | ledger/entries/FIRST | entries | append | entries | `Entries`: votes of this project |
| reserved | ledger/entries/FIRST | entries | append | entries | `Entries`: statements |
| reserved | ledger/checkpoint/SIZE | checkpoint | append | checkpoint | `Announced` |
| reserved | ledger/statement/HASH | statement | append | statement | `Wanted` |
| reserved | ledger/fork/HASH | fork | append | fork | ledger.checkpoint.Fork |
| reserved | ledger/witness/NODE | cosignature | write | cosignature | `Cosigned` |
| reserved | agent/PRINCIPAL | profile | write | profile | `Profile` |

AGENT and PRINCIPAL are the first 16 bytes of a key in hex, FACT a fact's id, numbers are decimal. A subject with a
slash is never a fact's. Each subject has few ops, so that reading one again costs little however long the ledger is.

A vote is an add that takes away the agent's earlier votes on the version which its writer had seen. Which of them
counts is decided by their counters alone (ledger.score): anybody may take an op away, and only the agent a vote. A body
that does not decode has no effect: `read` gives None.
Tests: tests/node/voting/test_records.py.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from crdt.op import BadOp, Op, OpClass, decode
from crdt.survive import Clock
from ledger import entry as entries
from ledger.checkpoint import Fork
from ledger.log import MAX_BATCH
from ledger.note import MAX_NOTE_BYTES
from ledger.statement import MAX_STATEMENT_BYTES
from ledger.tlog import MAX_PROOF_HASHES
from ledger.vote import Vote
from node.store import Draft
from sync.overlap import RESERVED

VOTES, LEDGER, AGENTS = "vote", "ledger", "agent"
"""The first word of a subject: who shows it (`Store.shows`)."""

VOTE: Final = "vote"
OLD_VOTE: Final = "old-vote"
PROJECT_KEY: Final = "project-key"
ENTRIES: Final = "entries"
CHECKPOINT: Final = "checkpoint"
STATEMENT: Final = "statement"
FORK: Final = "fork"
COSIGNATURE: Final = "cosignature"
PROFILE: Final = "profile"

CLIENT_SUFFIX: Final = " (mcp)"
"""What sets an MCP client apart from an agent of its name that it may not vote as. Facts name it without."""
MAX_REASON_BYTES: Final = 2_000
MAX_ABOUT_BYTES: Final = 1_000
MAX_NAME_BYTES: Final = 128
MAX_HASHES: Final = MAX_BATCH * MAX_PROOF_HASHES
MAX_VOTE_BYTES: Final = 1_024
"""A signed vote with names at their longest has 481."""

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Size = Annotated[int, Meta(ge=0, le=entries.MAX_NUMBER)]
Raw = Annotated[bytes, Meta(min_length=entries.ENTRY_BYTES, max_length=entries.ENTRY_BYTES)]
Text = Annotated[bytes, Meta(min_length=1, max_length=MAX_STATEMENT_BYTES)]
Note = Annotated[bytes, Meta(min_length=1, max_length=MAX_NOTE_BYTES)]


class VoteRecord(msgspec.Struct, array_like=True, frozen=True):
    """A signed vote with its reason, and the newest checkpoint that the node which wrote the op has accepted.

    `seen_signature`: a hub's, over that checkpoint's text (node/voting/claims.py); without it the rest says nothing.
    """

    signed: Annotated[bytes, Meta(max_length=MAX_VOTE_BYTES)]
    reason: Annotated[str, Meta(max_length=MAX_REASON_BYTES)] = ""
    seen_size: Size = 0
    seen_root: bytes = b""
    seen_signature: bytes = b""


class OldVote(msgspec.Struct, array_like=True, frozen=True):
    """A vote of the earlier system: unsigned, so it weighs nothing and counts in the linear score only."""

    agent: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES)]
    value: Annotated[int, Meta(ge=-1, le=1)]
    time_ms: int


class Wanted(msgspec.Struct, array_like=True, frozen=True):
    """A signed statement (ledger.statement) that wants an entry, or a grant that has to be known at once."""

    kind: int
    text: Text


class Announced(msgspec.Struct, array_like=True, frozen=True):
    """A hub's checkpoint, and the proof that it continues the one of `since` entries, which was announced before it."""

    note: Note
    since: Size
    proof: Annotated[tuple[Hash, ...], Meta(max_length=2 * MAX_PROOF_HASHES)] = ()


class Entries(msgspec.Struct, array_like=True, frozen=True):
    """Entries of one project, or those of none, with their texts, proved under the checkpoint of `size` entries.

    The proof of the n-th entry is `hashes[place] for place in proofs[n]`: neighbours share most of theirs.
    """

    size: Size
    lines: Annotated[tuple[tuple[Raw, Text], ...], Meta(min_length=1, max_length=MAX_BATCH)]
    hashes: Annotated[tuple[Hash, ...], Meta(max_length=MAX_HASHES)]
    proofs: Annotated[tuple[tuple[int, ...], ...], Meta(max_length=MAX_BATCH)]


class Cosigned(msgspec.Struct, array_like=True, frozen=True):
    """The signature line that a witness would add to the note of the checkpoint with this size and root."""

    size: Size
    root: Hash
    line: Annotated[str, Meta(max_length=1_024)]


class Profile(msgspec.Struct, array_like=True, frozen=True):
    """What an agent is called and what it says of itself; the name in its enrolment stands until there is one."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES)]
    about: Annotated[str, Meta(max_length=MAX_ABOUT_BYTES)] = ""


Record = VoteRecord | OldVote | Wanted | Announced | Entries | Cosigned | Profile | Fork | bytes
T = TypeVar("T")

_TYPES: Final[dict[str, tuple[OpClass, Any]]] = {
    VOTE: (OpClass.ADD, VoteRecord),
    OLD_VOTE: (OpClass.WRITE, OldVote),
    PROJECT_KEY: (OpClass.WRITE, Hash),
    ENTRIES: (OpClass.APPEND, Entries),
    CHECKPOINT: (OpClass.APPEND, Announced),
    STATEMENT: (OpClass.APPEND, Wanted),
    FORK: (OpClass.APPEND, Fork),
    COSIGNATURE: (OpClass.WRITE, Cosigned),
    PROFILE: (OpClass.WRITE, Profile),
}
_decoders: Final[dict[str, Callable[[bytes], Any]]] = {
    kind: msgspec.msgpack.Decoder(its_type).decode for kind, (_, its_type) in _TYPES.items()
}


def read(op: Op, its_type: type[T]) -> T | None:
    """What the op says, if it is a record of this type at the place where such records are; else None.

    Whoever reads a vote or a profile still checks who signed it.
    """
    op_class, _ = _TYPES.get(op.header.kind, (None, None))
    if op_class is None or op.header.op_class != op_class:
        return None
    try:
        record = _decoders[op.header.kind](op.header.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, its_type) else None


def stored(mesh: bytes, raw: bytes | None) -> Op | None:
    """The op in a row of `ops`; None when there is none, or it has rotted. Who must be sure compares its hash."""
    try:
        return decode(mesh, raw) if raw else None
    except BadOp:
        return None


def short(key: bytes) -> str:
    """An agent's or a node's key, or a hash, as it stands in a subject."""
    return key[:16].hex()


def vote_subject(fact: str, agent: bytes) -> str:
    return f"{VOTES}/{fact}/{short(agent)}"


def vote_draft(vote: Vote, record: VoteRecord, earlier: Clock) -> Draft:
    """The op of a vote. `earlier`: the dots of this agent's votes on this version that it replaces."""
    subject = vote_subject(vote.fact, vote.agent)
    return _draft(vote.project, OpClass.ADD, subject, vote.version.hex(), VOTE, record, earlier)


def old_vote_subject(fact: str, agent: str) -> str:
    return f"{VOTES}/{fact}/old-{short(entries.text_hash(agent.encode()))}"


def old_vote_draft(project: str, fact: str, vote: OldVote) -> Draft:
    return _draft(project, OpClass.WRITE, old_vote_subject(fact, vote.agent), "old", OLD_VOTE, vote)


def project_key_draft(project: str, key: bytes) -> Draft:
    return _draft(project, OpClass.WRITE, f"{LEDGER}/key", "key", PROJECT_KEY, key)


def entries_draft(project: str, first: int, record: Entries) -> Draft:
    return _draft(project, OpClass.APPEND, f"{LEDGER}/entries/{first}", "entries", ENTRIES, record)


def checkpoint_draft(size: int, record: Announced) -> Draft:
    return _draft(RESERVED, OpClass.APPEND, f"{LEDGER}/checkpoint/{size}", "checkpoint", CHECKPOINT, record)


def statement_draft(kind: int, text: bytes) -> Draft:
    subject = f"{LEDGER}/statement/{short(entries.text_hash(text))}"
    return _draft(RESERVED, OpClass.APPEND, subject, "statement", STATEMENT, Wanted(kind, text))


def fork_draft(fork: Fork) -> Draft:
    subject = f"{LEDGER}/fork/{short(entries.text_hash(msgspec.msgpack.encode(fork)))}"
    return _draft(RESERVED, OpClass.APPEND, subject, "fork", FORK, fork)


def cosignature_draft(node: str, record: Cosigned, earlier: Clock) -> Draft:
    """`earlier`: the clock over this witness's cosignatures before (crdt.survive.clock_over)."""
    return _draft(RESERVED, OpClass.WRITE, f"{LEDGER}/witness/{node}", "cosignature", COSIGNATURE, record, earlier)


def profile_draft(principal: bytes, record: Profile, earlier: Clock) -> Draft:
    return _draft(RESERVED, OpClass.WRITE, f"{AGENTS}/{short(principal)}", "profile", PROFILE, record, earlier)


def _draft(
    project: str, op_class: OpClass, subject: str, field: str, kind: str, record: Record, clock: Clock = ()
) -> Draft:
    return Draft(project, op_class, subject, field, kind, msgspec.msgpack.encode(record), clock)
