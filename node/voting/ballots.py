"""Votes as gossip brings them, until the ledger has them, and what is left of votes of the earlier system.

`Ballots.show` is told all ops in effect of one subject, whenever they change, and makes the rows that follow from them:
for each version those votes that can count, and of each whether it has its entry already. That is a function of the set
of ops: any order, twice, or on a rebuild, the same rows.

* A vote counts for its place only: its fact, agent and project are the op's, the op's field is its version, it is of
  this mesh and signed by its agent. Anything else has no effect, whoever wrote the op.
* The highest counter stands; under one counter each value once, because two of them cancel each other (ledger.score).
  What an op takes away from the set is not asked here: anybody may write an op, and only the agent may withdraw.
* On what is in the reserved project nobody votes: there the ledger's ops tell of entries without a project.
* Who the agent is, and whether it may vote, is not asked either: its enrolment, or the fact, may come later.
* However many votes an agent signs, a version has at most three rows of it, and a vote that cannot count costs no check
  of its signature. Rows lie on disk and count against the node's share of it; a fixed number of verdicts on signatures
  is remembered.

Tests: tests/node/voting/test_ballots.py.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from crdt import fact as facts
from crdt.op import BadOp, Op, OpClass, decode
from crdt.survive import surviving_writes
from ledger import vote as votes
from ledger.ed25519 import SIGNATURE_BYTES
from ledger.entry import HASH_BYTES
from ledger.vote import MAX_TIME_MS, BadVote, Vote
from node.voting import records
from node.voting.claims import NOTHING, Claim
from node.voting.records import OldVote, VoteRecord
from sync.overlap import RESERVED

CHECKED: Final = 1_024
"""Verdicts on signatures that are kept: half a MiB. Votes that stand are known by their rows; this is for the others,
and for a subject that is shown many times in one batch.
"""
_OLD: Final = "old-"


class Ballot(NamedTuple):
    """A vote that can count, as its row has it. `entry`: its place in the ledger, None while it is pending.

    `seen_...`: the newest checkpoint that the node which wrote the op says it has accepted, unchecked; size 0 when it
    says none (node/voting/claims.py).
    """

    id: bytes
    subject: str
    project: str
    fact: str
    version: bytes
    agent: bytes
    counter: int
    value: int
    time: int
    signed: bytes
    reason: str
    seen_size: int
    seen_root: bytes
    seen_signature: bytes
    entry: int | None


class _Offer(NamedTuple):
    """A vote of the right form at the right place, with what the ops that carry it say besides."""

    id: bytes
    vote: Vote
    signed: bytes
    reason: str
    seen: Claim


class Ballots:
    """The tables `ballots` and `old_votes` of a node in `mesh` (32 bytes)."""

    def __init__(self, mesh: bytes) -> None:
        self.mesh = mesh
        self._is_signed = lru_cache(maxsize=CHECKED)(self._check)

    def show(self, connection: sqlite3.Connection, project: int, subject: str, ops: Sequence[Op]) -> None:
        """`Store.shows["vote"]`: the rows of one subject, from all its ops in effect."""
        (name,) = connection.execute("SELECT name FROM projects WHERE id = ?", (project,)).fetchone()
        if name == RESERVED:
            return
        fact, _, who = subject.removeprefix(f"{records.VOTES}/").rpartition("/")
        if who.startswith(_OLD):
            self._show_old(connection, name, subject, fact, ops)
        else:
            self._show(connection, name, subject, fact, ops)

    def clear(self, connection: sqlite3.Connection) -> None:
        """Empty the tables, before they are made again."""
        connection.execute("DELETE FROM ballots")
        connection.execute("DELETE FROM old_votes")

    def pending(self, connection: sqlite3.Connection, limit: int, after: tuple[int, bytes] = (-1, b"")) -> list[Ballot]:
        """Votes without an entry, the oldest first by their agents' clocks; those behind `after` = (time, id).

        With `after` a hub gets past votes that it cannot append, such as a stranger's.
        """
        rows = connection.execute(
            "SELECT * FROM ballots WHERE entry IS NULL AND (time, id) > (?, ?) ORDER BY time, id LIMIT ?",
            (*after, limit),
        )
        return [Ballot._make(row) for row in rows]

    def mark(self, connection: sqlite3.Connection, vote_ids: Iterable[bytes]) -> None:
        """Look up which of these votes have an entry now, and which have none any longer."""
        connection.executemany(
            "UPDATE ballots SET entry = (SELECT id FROM ledger_entries WHERE name = ballots.id) WHERE id = ?",
            [(vote_id,) for vote_id in vote_ids],
        )

    def _show(self, connection: sqlite3.Connection, project: str, subject: str, fact: str, ops: Sequence[Op]) -> None:
        place = (subject, project)
        kept = connection.execute("SELECT id FROM ballots WHERE subject = ? AND project = ?", place)
        known = {vote_id for (vote_id,) in kept}
        standing = self._standing(self._offers(project, subject, ops), known)
        connection.execute("DELETE FROM ballots WHERE subject = ? AND project = ?", place)
        connection.executemany(
            "INSERT INTO ballots VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
            " (SELECT id FROM ledger_entries WHERE name = ?))",
            [
                (one.id, subject, project, fact, one.vote.version, one.vote.agent, one.vote.counter, one.vote.value,
                 one.vote.time_ms, one.signed, one.reason, *one.seen, one.id)
                for one in standing
            ],
        )  # fmt: skip

    def _offers(self, project: str, subject: str, ops: Iterable[Op]) -> list[_Offer]:
        """The votes that belong here, if they are of this mesh and truly signed; each once, whichever ops carry it."""
        offers: dict[bytes, _Offer] = {}
        for op in ops:
            record = records.read(op, VoteRecord)
            vote = _decoded(record.signed) if record else None
            if record is None or vote is None:
                continue
            place = (vote.project, records.vote_subject(vote.fact, vote.agent), vote.version.hex())
            if place != (project, subject, op.header.field):
                continue
            vote_id = votes.vote_id(record.signed)
            reason = record.reason if votes.reason_hash(record.reason) == vote.reason_hash else ""
            seen = _claimed(record)
            if other := offers.get(vote_id):
                reason, seen = other.reason or reason, max(other.seen, seen)
            offers[vote_id] = _Offer(vote_id, vote, record.signed, reason, seen)
        return list(offers.values())

    def _standing(self, offers: Iterable[_Offer], known: set[bytes]) -> list[_Offer]:
        """Of each version the votes with the highest counter that a true signature has, one of each value."""
        standing: dict[bytes, dict[int, _Offer]] = {}
        for offer in sorted(offers, key=lambda offer: (-offer.vote.counter, offer.id)):
            vote = offer.vote
            values = standing.get(vote.version, {})
            if any(other.vote.counter > vote.counter for other in values.values()) or vote.value in values:
                continue
            if offer.id in known or self._is_signed(offer.signed):
                standing.setdefault(vote.version, {})[vote.value] = offer
        return [offer for values in standing.values() for offer in values.values()]

    def _check(self, signed: bytes) -> bool:
        try:
            votes.verify(signed, self.mesh)
        except BadVote:
            return False
        return True

    def _show_old(
        self, connection: sqlite3.Connection, project: str, subject: str, fact: str, ops: Sequence[Op]
    ) -> None:
        connection.execute("DELETE FROM old_votes WHERE subject = ? AND project = ?", (subject, project))
        writes = [op for op in ops if op.header.field == "old" and op.header.op_class == OpClass.WRITE]
        for op in reversed(surviving_writes(writes)):
            vote = records.read(op, OldVote)
            if vote and records.old_vote_subject(fact, vote.agent) == subject and 0 <= vote.time_ms <= MAX_TIME_MS:
                row = (subject, project, fact, vote.agent, vote.value, vote.time_ms)
                connection.execute("INSERT INTO old_votes VALUES (?,?,?,?,?,?)", row)
                return


def wrote(connection: sqlite3.Connection, vote: Vote, voice: bytes, name: str) -> bool | None:
    """Whether the agent of this voice and name wrote the version that it votes on: its weight is 0 then.

    It did when the node that is its voice signed the version, and names it as the agent or names none. None when the
    version is not here, or is nothing that writes the content of this fact.
    """
    row = connection.execute(
        "SELECT o.raw FROM ops o JOIN projects p ON p.id = o.project WHERE p.name = ? AND o.hash = ?",
        (vote.project, vote.version),
    ).fetchone()
    try:
        op = decode(vote.mesh, row[0]) if row else None
    except BadOp:  # the row has rotted
        return None
    if op is None or op.hash != vote.version or op.subject != vote.fact or op.header.op_class != OpClass.WRITE:
        return None
    given = facts.given(op)
    if "content" not in given:
        return None
    names = (None, name, name.removesuffix(records.CLIENT_SUFFIX))
    return op.header.node_key == voice and given.get("agent") in names


def _claimed(record: VoteRecord) -> Claim:
    claim = Claim(record.seen_size, record.seen_root, record.seen_signature)
    return claim if (len(claim.root), len(claim.signature)) == (HASH_BYTES, SIGNATURE_BYTES) else NOTHING


def _decoded(signed: bytes) -> Vote | None:
    try:
        return votes.decode(signed)
    except BadVote:
        return None
