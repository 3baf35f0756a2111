"""Facts of an earlier system, taken in with the votes that were counted there: all of a request or none, and once.

A fact is here already when one of the same project has its old id, and the record which created that one has the same
content and, in `meta.imported`, the same time of creation. That is asked of the ops, not of what is shown: a fact that
was edited, retagged or retracted since is still the one that came, and stays as it is. So an import can be repeated at
any time, also on another node of the mesh once that has what this one stored. Two nodes that import one database before
they have met make two facts of each, and node/legacy.py tells of both.

Old votes are not signed. They weigh nothing, never become entries of the ledger, and count in the linear score only
(node/voting/records.py). Each agent has one on a fact, its newest. Tests: tests/node/test_imports.py.
"""

import sqlite3
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from crdt import fact as facts
from crdt.fact import FACT, Record, Retraction
from crdt.op import Op, OpClass
from node import requests
from node.errors import Problem
from node.replica import Replica
from node.requests import FactDraft, Limits
from node.store import Draft
from node.voting import records
from node.voting.records import MAX_NAME_BYTES, OldVote

MAX_VOTES: Final = 1_000
"""Of one fact in a request. More come with the same fact again, in another."""
IMPORTED: Final = "imported"
"""The key of `meta` under which an import keeps where a fact comes from."""


class OldVoteDraft(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A vote of the earlier system: +1 or -1."""

    agent: str
    value: int
    time: str | None = None


class ImportedFact(FactDraft, forbid_unknown_fields=True, kw_only=True):
    """A fact of an earlier system. `retracted`: it had been withdrawn there already."""

    legacy_id: str
    retracted: bool = False
    retracted_reason: str | None = None
    votes: Annotated[list[OldVoteDraft], msgspec.Meta(max_length=MAX_VOTES)] = msgspec.field(default_factory=list)


class ImportedFacts(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A batch: stored in order, all or none."""

    facts: list[ImportedFact]


class ImportReport(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an import did. `ids`: the facts, in the order in which they were sent."""

    ids: list[str]
    stored: int
    already_stored: int
    votes: int
    already_voted: int


class _Place(NamedTuple):
    """A fact that an import concerns: its id, and the row number of its project; None when it has just been made."""

    id: str
    project: int | None


def check(draft: ImportedFact, limits: Limits) -> tuple[Record, list[OldVote]]:
    """The record and the old votes that a draft asks for. Raises Problem."""
    if draft.body is not None:
        raise Problem(422, "invalid_body", "an imported fact has no body", "give it one with PATCH", "body")
    record = requests.check_draft(draft, limits)
    reason = requests.check_reason(draft.retracted_reason)
    if draft.retracted:
        record = msgspec.structs.replace(record, retracted=Retraction(reason))
    votes = sorted(map(_checked, draft.votes), key=lambda vote: (vote.time_ms, vote.value))
    return record, list({vote.agent: vote for vote in votes}.values())


class Imports:
    """The verb of `POST /v1/import`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._store = replica.store

    async def take(self, drafts: Sequence[ImportedFact]) -> dict[str, Any]:
        """Store what is not here yet; an `ImportReport`."""
        limits = self._replica.limits
        if not 0 < len(drafts) <= limits.batch:
            raise Problem(
                422, "invalid_batch", f"{len(drafts)} facts in one request", f"send 1 to {limits.batch}", "facts"
            )
        checked = [(draft.project, *check(draft, limits)) for draft in drafts]

        def job(connection: sqlite3.Connection) -> tuple[dict[str, Any], list[Op]]:
            now_ms = self._replica.now_ms()
            places, created = self._facts(connection, [(project, record) for project, record, _ in checked], now_ms)
            votes = {
                (place.id, vote.agent): records.old_vote_draft(project, place.id, vote)
                for place, (project, _, old) in zip(places, checked, strict=True)
                for vote in old
                if place.project is None or not self._has_vote(connection, project, place, vote)
            }
            written = self._store.append(connection, list(votes.values()), now_ms)
            report = {
                "ids": [place.id for place in places],
                "stored": len(created),
                "already_stored": len(places) - len(created),
                "votes": len(votes),
                "already_voted": sum(len(old) for _, _, old in checked) - len(votes),
            }
            return report, created + written

        report, _ = await self._replica.database.write(job, after=lambda result: self._replica.wrote(result[1]))
        return report

    def _facts(
        self, connection: sqlite3.Connection, wanted: Sequence[tuple[str, Record]], now_ms: int
    ) -> tuple[list[_Place], list[Op]]:
        """Where each fact is, and the ops that created those which were not here."""
        places: list[_Place | None] = [self._find(connection, project, record) for project, record in wanted]
        missing: dict[tuple[str, Any], list[int]] = {}
        for number, (project, record) in enumerate(wanted):
            if places[number] is None:
                missing.setdefault((project, _identity(record)), []).append(number)
        firsts = [wanted[numbers[0]] for numbers in missing.values()]
        drafts = [
            Draft(project, OpClass.WRITE, "", "", FACT, facts.encode_record(record)) for project, record in firsts
        ]
        created = self._store.append(connection, drafts, now_ms)
        for op, numbers in zip(created, missing.values(), strict=True):
            for number in numbers:
                places[number] = _Place(op.subject, None)
        return [place for place in places if place is not None], created

    def _find(self, connection: sqlite3.Connection, project: str, record: Record) -> _Place | None:
        rows = connection.execute(
            "SELECT f.name, f.project FROM facts f JOIN projects p ON p.id = f.project"
            " WHERE f.legacy = ? AND p.name = ? ORDER BY f.id",
            (record.legacy_id, project),
        )
        for name, number in rows.fetchall():
            ops = self._store.effective_ops(connection, name, number)
            if any(_identity(came) == _identity(record) for came in map(_created, ops) if came):
                return _Place(name, number)
        return None

    def _has_vote(self, connection: sqlite3.Connection, project: str, place: _Place, vote: OldVote) -> bool:
        assert place.project is not None, "a new fact has no votes"
        subject = records.old_vote_draft(project, place.id, vote).subject
        ops = self._store.effective_ops(connection, subject, place.project)
        return any(records.read(op, OldVote) == vote for op in ops)


def _identity(record: Record) -> tuple[str | None, str, Any]:
    origin = record.meta.get(IMPORTED)
    return record.legacy_id, record.content, str(origin.get("created_at")) if isinstance(origin, dict) else None


def _created(op: Op) -> Record | None:
    """The record by which `op` created its fact."""
    given = facts.given(op) if not op.header.subject else {}
    return Record(**given) if given else None


def _checked(draft: OldVoteDraft) -> OldVote:
    if not draft.agent.strip() or not draft.agent.isprintable() or len(draft.agent.encode()) > MAX_NAME_BYTES:
        raise _bad_votes(f"a voter is called {draft.agent!r}", f"give a name of 1 to {MAX_NAME_BYTES} bytes")
    if draft.value not in (1, -1):
        raise _bad_votes(f"a vote of {draft.agent} is {draft.value}", "give 1 or -1; leave out what was withdrawn")
    return OldVote(draft.agent, draft.value, requests.check_time(draft.time, "votes") or 0)


def _bad_votes(detail: str, action: str) -> Problem:
    return Problem(422, "invalid_votes", detail, action, "votes")
