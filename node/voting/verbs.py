"""The verbs: vote, and tell of votes. What REST, the command line and MCP all do.

A vote needs nobody: it is signed, written as an op of the fact's project, and shown as pending. Then its caller waits
for the hub for at most VOTE_WAIT_S, if one is within reach, and else not at all; a vote that is still pending then is
committed when a hub gets it, and asking again tells. So `cast` is the part that works on the database, and `settled`
the part that only waits.

* What is wrong with a vote is said before anything is written: who votes, on what, with which counter, signed by whom.
* The same value by the same agent on the same version is the vote that exists; nothing is written for it. A vote that
  was signed elsewhere is known by its bytes.
* A counter is one more than the highest that is known of the agent on this version, pending or committed, under any of
  its keys. One that has been used is refused.
* Every vote tells the newest checkpoint that was accepted here; a hub that is behind it has lost something
  (node/voting/claims.py).

Tests: tests/node/voting/test_verbs.py.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from crdt import fact as facts
from crdt.op import Op, decode
from crdt.orset import surviving_adds
from crdt.survive import dots_of, in_register
from crdt.version import node_id
from ledger import entry as entries
from ledger import vote as votes
from ledger.vote import BadVote, Vote
from node import legacy
from node.errors import Problem
from node.replica import retracted_fact, unknown_fact
from node.store import Draft, Store
from node.voting import claims, records, requests
from node.voting.agents import Agents, revoked
from node.voting.ballots import wrote as wrote_it
from node.voting.records import VoteRecord
from node.voting.requests import NewVote, Signed, Wanted
from node.voting.roster import Known, Roster, unknown_agent

VOTE_WAIT_S: Final = 2.0
"""How long a vote waits for its entry: a hub on the same LAN answers within 100 ms, and an agent is not to stand
still."""
MAX_WAITING: Final = 1_000
"""Votes that wait at a time; beyond it they are answered as pending at once."""
WAITS: Final = "no hub has committed it yet"
UNPROVEN: Final = frozenset({"unproven_entry", "unknown_entry", "no_ledger"})
"""An entry is here and the checkpoint that proves it is not yet: that comes next."""


class Verdicts(Protocol):
    """What is needed of node/voting/scores.py."""

    def decorate(self, connection: sqlite3.Connection, facts: Sequence[dict[str, Any]]) -> None: ...
    def votes(
        self, connection: sqlite3.Connection, fact_id: str, version: str, project: str
    ) -> list[dict[str, Any]]: ...


Prove = Callable[[sqlite3.Connection, int], dict[str, Any]]
"""The inclusion proof of an entry: node.voting.reads.proof."""


class Shown(msgspec.Struct):
    """What a vote needs of a fact as it is shown."""

    project: str
    version: str
    author: str
    retracted: bool


class Target(NamedTuple):
    """A version that is voted on. `author`: the node that wrote it."""

    fact: str
    project: str
    version: bytes
    author: str


class Cast(NamedTuple):
    """A vote that stands here. `duplicate`: it did before; `own`: on what the voter wrote, so it weighs nothing.

    `waiting`: done when it has its entry; None when it has one, or nobody is there to give it one.
    """

    vote_id: bytes
    target: Target
    ops: list[Op]
    duplicate: bool
    committed: bool
    own: bool = False
    waiting: "asyncio.Future[int] | None" = None


class _Vote(NamedTuple):
    """A vote of an agent on a version, as far as it is known here."""

    counter: int
    value: int
    id: bytes


class Votes:
    """The votes of this node's users. `wrote` hears of our own new ops once they are on disk.

    `hub_near` tells whether this node is a hub that may append, or is connected to one; `prove` gives inclusion proofs.
    """

    def __init__(
        self,
        store: Store,
        agents: Agents,
        scores: Verdicts,
        prove: Prove,
        now_ms: Callable[[], int],
        wrote: Callable[[list[Op]], None],
        hub_near: Callable[[], bool],
        wait_s: float = VOTE_WAIT_S,
    ) -> None:
        self._store = store
        self._database = store.database
        self._agents = agents
        self._scores = scores
        self._prove = prove
        self._now_ms = now_ms
        self._wrote = wrote
        self._hub_near = hub_near
        self._wait_s = wait_s
        self._waiting: dict[bytes, asyncio.Future[int]] = {}

    async def vote(self, fact_id: str, request: NewVote, client: str | None = None) -> dict[str, Any]:
        """Vote, and wait for the entry if a hub is near. `client`: the MCP client that votes. Raises Problem."""
        return await self.settled(await self.cast(fact_id, request, client))

    async def cast(self, fact_id: str, request: NewVote, client: str | None = None) -> Cast:
        """The vote on disk, pending or committed. Raises Problem, and then nothing was written."""
        wanted = requests.check_vote(request)
        fact = legacy.resolve(self._database.direct, fact_id)
        self._target(self._database.direct, fact, wanted.version)
        key = await self._voter(wanted, client)

        def job(connection: sqlite3.Connection) -> Cast:
            target = self._target(connection, fact, wanted.version)
            roster = self._agents.roster(connection)
            known = roster.by_key(key)
            if known is None:
                raise unknown_agent(key.hex(), "agent_key")
            cast = self._cast(connection, target, roster, known, wanted)
            return cast._replace(own=self._is_own(connection, target, known, wanted))

        cast = await self._database.write(job, after=self._written)
        return cast._replace(waiting=self._waiting.get(cast.vote_id))

    async def settled(self, cast: Cast) -> dict[str, Any]:
        """The answer to a vote: `committed` as soon as it is, `pending` when that takes too long."""
        if cast.waiting is not None:
            try:
                await asyncio.wait([cast.waiting], timeout=self._wait_s)
            finally:
                self._waiting.pop(cast.vote_id, None)
        return await self._database.read(lambda connection: self._answer(connection, cast))

    def told(self, placed: Iterable[tuple[bytes, int]]) -> None:
        """These votes and statements, by their hashes, have entries now. On the event loop's thread."""
        for name, index in placed:
            waiting = self._waiting.pop(name, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(index)

    async def votes(
        self, fact_id: str, agent: str | None = None, agent_key: str | None = None, version: str | None = None
    ) -> dict[str, Any]:
        """The votes on the version that is shown, or on `version`; `next_counter` is that of the agent asked for."""
        key = None if agent_key is None else requests.check_key(agent_key, "agent_key")
        wanted = None if version is None else requests.check_version(version)

        def job(connection: sqlite3.Connection) -> dict[str, Any]:
            fact = legacy.resolve(connection, fact_id)
            target = self._target(connection, fact, wanted, retracted=True)
            roster = self._agents.roster(connection)
            asked = roster.by_key(key) if key is not None else None
            if agent is not None:
                asked = roster.find(agent, self._agents.machine.key)
            known = [] if asked is None else _known_votes(connection, target, roster.keys_of(asked.principal))
            judged = self._judge(connection, target)
            return {
                "fact_id": fact,
                "version": target.version.hex(),
                "project": target.project,
                "mesh": self._store.mesh.hex(),
                "next_counter": _next_counter(known),
                **judged,
                "votes": self._scores.votes(connection, fact, target.version.hex(), target.project),
            }

        return await self._database.read(job)

    # Inside

    async def _voter(self, wanted: Wanted, client: str | None) -> bytes:
        """The key that votes; its agent is made where that is due."""
        if wanted.signed is not None:
            return wanted.signed.agent
        if wanted.make and wanted.agent is not None:
            return await self._agents.named(wanted.agent)
        if wanted.agent is not None:
            name = wanted.agent
            return await self._database.read(
                lambda connection: self._agents.roster(connection).find(name, self._agents.machine.key).agent.key
            )
        return await (self._agents.default() if client is None else self._agents.of_client(client))

    def _written(self, cast: Cast) -> None:
        """On the event loop, before anybody else hears of the commit: so no entry can come unnoticed."""
        if not cast.committed and len(self._waiting) < MAX_WAITING and self._hub_near():
            self._waiting.setdefault(cast.vote_id, asyncio.get_running_loop().create_future())
        if cast.ops:
            self._wrote(cast.ops)

    def _cast(
        self, connection: sqlite3.Connection, target: Target, roster: Roster, known: Known, wanted: Wanted
    ) -> Cast:
        before = _known_votes(connection, target, roster.keys_of(known.principal))
        if wanted.signed is None:
            secret = self._agents.secret(known)
            if (standing := _standing(before)) is not None and standing.value == wanted.value:
                return self._made(connection, target, standing.id, [], duplicate=True)
            vote = self._vote(target, known.agent.key, _next_counter(before), wanted, self._now_ms())
            signed = votes.sign(vote, secret)
        else:
            signed = self._signed(target, known, wanted, wanted.signed)
            if any(one.id == votes.vote_id(signed) for one in before):
                return self._made(connection, target, votes.vote_id(signed), [], duplicate=True)
            if wanted.signed.counter < _next_counter(before):
                raise Problem(
                    409, "counter_used",
                    f"this agent has voted on this version with counter {_next_counter(before) - 1} already",
                    f"sign again with counter {_next_counter(before)}", "counter",
                )  # fmt: skip
            vote = votes.decode(signed)
        ops = self._store.append(connection, [self._draft(connection, vote, signed, wanted.reason)], self._now_ms())
        return self._made(connection, target, votes.vote_id(signed), ops)

    def _vote(self, target: Target, key: bytes, counter: int, wanted: Wanted, time_ms: int) -> Vote:
        reason = votes.reason_hash(wanted.reason)
        place = (self._store.mesh, target.project, target.fact, target.version)
        return Vote(*place, key, counter, wanted.value, reason, time_ms)

    def _signed(self, target: Target, known: Known, wanted: Wanted, signed: Signed) -> bytes:
        """A vote that was signed elsewhere, checked. Raises Problem."""
        if known.revoked:
            raise revoked(known)
        if known.agent.key != signed.agent:
            raise Problem(
                403, "key_replaced", f"the agent {known.name!r} has another key now",
                "sign with the new key", "agent_key",
            )  # fmt: skip
        vote = self._vote(target, signed.agent, signed.counter, wanted, signed.time_ms)
        made = votes.attach(vote, signed.signature)
        try:
            votes.verify(made, self._store.mesh)
        except BadVote:
            raise Problem(
                422, "invalid_signature", f"this vote is not signed by the agent {signed.agent.hex()[:16]}",
                f"sign the bytes of ledger/FORMAT.md for mesh {self._store.mesh.hex()}, project {target.project!r}, "
                f"fact {target.fact!r}, version {target.version.hex()}, and the other fields as sent", "signature",
            ) from None  # fmt: skip
        return made

    def _draft(self, connection: sqlite3.Connection, vote: Vote, signed: bytes, reason: str) -> Draft:
        """The op of a vote: it takes the agent's earlier votes on this version away, and tells our checkpoint."""
        (project,) = connection.execute("SELECT id FROM projects WHERE name = ?", (vote.project,)).fetchone()
        subject = records.vote_subject(vote.fact, vote.agent)
        ops = self._store.effective_ops(connection, subject, project)
        earlier = dots_of(surviving_adds(in_register(ops, vote.version.hex())))
        record = VoteRecord(signed, reason, *claims.newest(connection))
        return records.vote_draft(vote, record, earlier[0] if earlier else ())

    def _made(
        self, connection: sqlite3.Connection, target: Target, vote_id: bytes, ops: list[Op], *, duplicate: bool = False
    ) -> Cast:
        placed = connection.execute("SELECT 1 FROM ledger_entries WHERE name = ?", (vote_id,)).fetchone()
        return Cast(vote_id, target, ops, duplicate, placed is not None)

    def _is_own(self, connection: sqlite3.Connection, target: Target, known: Known, wanted: Wanted) -> bool:
        """Whether this vote weighs nothing, since its agent wrote the version: asked only where its node did."""
        if wanted.value == votes.WITHDRAWN or known.agent.owner or node_id(known.agent.voice) != target.author:
            return False
        vote = self._vote(target, known.agent.key, 1, wanted, 0)
        return wrote_it(connection, vote, known.agent.voice, known.agent.name) is True

    def _answer(self, connection: sqlite3.Connection, cast: Cast) -> dict[str, Any]:
        target, vote_id = cast.target, cast.vote_id
        row = connection.execute("SELECT id, raw FROM ledger_entries WHERE name = ?", (vote_id,)).fetchone()
        entry, checkpoint, hashes = None, None, []
        if row is not None:
            entry = {
                "index": row[0],
                "hash": entries.entry_hash(row[1]).hex(),
                "prev_hash": entries.decode(row[1]).prev.hex(),
            }
            try:
                proof = self._prove(connection, row[0])
                checkpoint, hashes = proof["checkpoint"], proof["hashes"]
            except Problem as problem:
                if problem.code not in UNPROVEN:
                    raise
        judged = self._judge(connection, target)
        return {
            "vote_id": vote_id.hex(),
            "fact_id": target.fact,
            "version": target.version.hex(),
            "state": "pending" if entry is None else "committed",
            "duplicate": cast.duplicate,
            "own": cast.own,
            "reason": None if entry else WAITS,
            "entry": entry,
            "checkpoint": checkpoint,
            "proof": hashes,
            "score": judged["score"],
            "score_provisional": judged["score_provisional"],
            "trust": judged["trust"],
        }

    def _judge(self, connection: sqlite3.Connection, target: Target) -> dict[str, Any]:
        """What the votes on a version amount to, in the words of a fact."""
        fact = {"id": target.fact, "project": target.project, "version": target.version.hex(), "author": target.author}
        self._scores.decorate(connection, [fact])
        return {name: fact[name] for name in ("score", "score_provisional", "score_linear", "trust")}

    def _target(
        self, connection: sqlite3.Connection, fact: str, version: bytes | None, *, retracted: bool = False
    ) -> Target:
        """The version that is shown, or the one that is given. Raises Problem 404, and 410 for a retracted fact."""
        row = connection.execute("SELECT shown FROM facts WHERE name = ?", (fact,)).fetchone()
        if row is None:
            raise unknown_fact(fact)
        shown = _decode_shown(row[0])
        if shown.retracted and not retracted:
            raise retracted_fact(fact)
        if version is None or version.hex() == shown.version:
            return Target(fact, shown.project, bytes.fromhex(shown.version), shown.author)
        found = connection.execute(
            "SELECT o.raw FROM ops o JOIN projects p ON p.id = o.project WHERE p.name = ? AND o.hash = ?",
            (shown.project, version),
        ).fetchone()
        op = decode(self._store.mesh, found[0]) if found else None
        if op is None or op.subject != fact or "content" not in facts.given(op):
            raise Problem(
                404, "unknown_version", f"{fact} has no version {version.hex()} here",
                f"the version that it shows is {shown.version}; all of them: cortex-node history {fact}", "version",
            )  # fmt: skip
        return Target(fact, shown.project, version, node_id(op.header.node_key))


def _known_votes(connection: sqlite3.Connection, target: Target, keys: Sequence[bytes]) -> list[_Vote]:
    """The votes of one agent, under any of its keys, on one version: from gossip, and from the ledger."""
    found: dict[bytes, _Vote] = {}
    for key in keys:
        for vote_id, counter, value in connection.execute(
            "SELECT id, counter, value FROM ballots WHERE fact = ? AND version = ? AND agent = ? AND project = ?",
            (target.fact, target.version, key, target.project),
        ):
            found[vote_id] = _Vote(counter, value, vote_id)
        for vote_id, text in connection.execute(
            "SELECT name, text FROM ledger_entries WHERE fact = ? AND agent = ? AND project = ?",
            (target.fact, key, target.project),
        ):
            vote = votes.decode(text)
            if vote.version == target.version:
                found[vote_id] = _Vote(vote.counter, vote.value, vote_id)
    return list(found.values())


def _next_counter(known: Iterable[_Vote]) -> int:
    return 1 + max((one.counter for one in known), default=0)


def _standing(known: Sequence[_Vote]) -> _Vote | None:
    """The vote that counts: none when two values have the highest counter."""
    newest = [one for one in known if one.counter == _next_counter(known) - 1]
    return newest[0] if len({one.value for one in newest}) == 1 else None


_decode_shown: Final = msgspec.json.Decoder(Shown).decode
