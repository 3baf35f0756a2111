"""The verbs about agents: list, show, add, rotate, revoke. What REST and the command line do.

Each change is a signed statement (ledger.statement), written as an op in the reserved project; it counts when a hub has
put it into the ledger, and here at once (node/voting/roster.py). This node signs as the voice of its agents; what needs
the mesh's authority - an owner's new key, the end of another machine's agent - works on the founder's machine.

* An agent's key lies in this node's key store, or the agent holds it itself. Then it is told what to sign, and sends
  the signature.
* `add` is idempotent by name among this node's agents, so whoever is not sure asks again.
* A key is on disk before its enrolment is, and stays when it is not known whether that was written. A key that was
  replaced or revoked is deleted after that is on disk.
* Votes that wait when an agent changes its key are signed anew with the new one: same counter, same value, so they
  count once whichever comes first.

Reputation is per project. Answers show that of the project asked for, else of `default`. Tests:
tests/node/voting/test_agents.py.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from crdt.op import Op
from crdt.survive import clock_over
from crdt.version import node_id
from ledger import vote as votes
from ledger.ed25519 import public_key
from ledger.entry import Kind, text_hash
from ledger.score import OWNER_WEIGHT, Fold, weight
from ledger.statement import MAX_NAME_BYTES, Enrolment, payload
from node.errors import Problem
from node.store import Draft, Store
from node.voting import records, requests
from node.voting.accepted import accepted_size
from node.voting.keys import KeyStore
from node.voting.machine import Machine, elsewhere
from node.voting.records import CLIENT_SUFFIX, Profile, VoteRecord
from node.voting.requests import AgentEnd, NewAgent, NewKey
from node.voting.roster import MAX_KEYS_OF_VOICE, Known, Roster
from sync.overlap import RESERVED

MAX_AGENTS: Final = 256
"""Of one node, not revoked. Every name of an MCP client makes one, and each is an entry in everybody's ledger."""
MAX_SIGNED_ANEW: Final = 1_000
"""Pending votes that follow an agent to its new key; a hub takes a hundred at a time."""
DEFAULT_PROJECT: Final = "default"


class Folds(Protocol):
    """What is needed of node/voting/scores.py."""

    def fold(self, connection: sqlite3.Connection) -> Fold: ...


class _Done(NamedTuple):
    """What a job did. `made`: the agent was not there before; `gone`: keys that nothing needs any longer."""

    answer: dict[str, Any]
    ops: list[Op]
    made: bool = False
    gone: tuple[bytes, ...] = ()


class Agents:
    """The agents as this node's users see and change them. `wrote` hears of our own new ops once they are on disk."""

    def __init__(
        self,
        store: Store,
        keys: KeyStore,
        scores: Folds,
        machine: Machine,
        now_ms: Callable[[], int],
        wrote: Callable[[list[Op]], None],
    ) -> None:
        self.keys = keys
        self.machine = machine
        self._store = store
        self._database = store.database
        self._scores = scores
        self._now_ms = now_ms
        self._wrote = wrote

    # Reading

    async def everybody(self, project: str | None = None) -> dict[str, Any]:
        """`{"agents": [...]}`, all that this node knows of, by name."""

        def job(connection: sqlite3.Connection) -> dict[str, Any]:
            roster, fold = self.roster(connection), self._scores.fold(connection)
            return {"agents": [self._describe(fold, connection, known, project) for known in roster.everybody()]}

        return await self._database.read(job)

    async def show(self, word: str, project: str | None = None) -> dict[str, Any]:
        """One agent, with its reputation in every project in which it was judged. Raises Problem."""

        def job(connection: sqlite3.Connection) -> dict[str, Any]:
            known = self.roster(connection).find(word, self.machine.key)
            fold = self._scores.fold(connection)
            rows = connection.execute(
                "SELECT project FROM reputations WHERE agent = ? ORDER BY project", (known.principal,)
            )
            judged = [name for (name,) in rows.fetchall()]
            told = [{"project": name, **_standing(fold, known, name)} for name in judged]
            return self._describe(fold, connection, known, project) | {"reputations": told}

        return await self._database.read(job)

    def roster(self, connection: sqlite3.Connection) -> Roster:
        """Who the agents are, for one job or read."""
        return Roster(connection, self.machine.authority)

    # Which agent votes

    async def default(self) -> bytes:
        """The key that votes when nobody is named: the owner's on the founder's machine, else this machine's own.

        The machine's own agent is enrolled when it is first needed. Raises Problem.
        """
        owner = await self._database.read(self._owner)
        return owner if owner is not None else bytes.fromhex((await self.ensure_own())["key"])

    async def ensure_own(self) -> dict[str, Any]:
        """The agent of this machine, named after the node; on the founder's machine too. Revoked, it stays so."""
        return await self._ensure(_fitting(self.machine.name))

    async def of_client(self, name: str) -> bytes:
        """The key of the agent of an MCP client, made when the client votes first.

        Never the owner's or the node's, nor that of an agent which holds its key itself.
        """

        def job(connection: sqlite3.Connection) -> bool:
            ours = self._named_here(self.roster(connection), name)
            return ours is not None and (ours.agent.owner or not (ours.revoked or self.keys.secret(ours.agent.key)))

        name = _fitting(name)
        if name == _fitting(self.machine.name) or await self._database.read(job):
            name += CLIENT_SUFFIX
        return await self.named(name)

    async def named(self, name: str) -> bytes:
        """The key of this node's agent of that name, made when there is none. Raises Problem."""
        return bytes.fromhex((await self._ensure(name))["key"])

    def secret(self, known: Known) -> bytes:
        """The secret of an agent's present key. Raises Problem agent_revoked, not_your_agent."""
        if known.revoked:
            raise revoked(known)
        if (secret := self.keys.secret(known.agent.key)) is None:
            raise elsewhere(known, "vote as an agent of this node, or sign the vote with its key: ledger/FORMAT.md")
        return secret

    # Changing

    async def add(self, request: NewAgent) -> tuple[dict[str, Any], bool]:
        """Enrol an agent of this node, or change what it says of itself; also whether it is new. Raises Problem."""
        name, about = requests.check_agent(request)
        if request.key is not None:
            return await self._add_outside(request, name, about)
        if request.time is not None or request.signature is not None:
            raise Problem(422, "invalid_key", "a signature without a key", "give the agent's key, too", "key")
        return await self._add(name, about)

    async def rotate(self, word: str, request: NewKey | None = None) -> dict[str, Any]:
        """Give an agent a new key. Its reputation goes on. Raises Problem."""
        if request is not None and request.key is not None:
            return await self._rotate_outside(word, request)
        secret = await asyncio.to_thread(self.keys.create)

        def job(connection: sqlite3.Connection) -> _Done:
            known = self._changeable(connection, word)
            former = self.keys.secret(known.agent.key)
            if former is None:
                raise elsewhere(known, "it holds its key itself: give the new `key`, and sign")
            self._require_key(connection, known)
            said = self.machine.enrolment(known.agent.name, public_key(secret), self._now_ms(), known)
            text, anew = self.machine.seal(said, [secret, former]), self._signed_anew(connection, said.replaces, secret)
            return self._record(connection, Kind.ENROLMENT, text, said.agent, anew)._replace(gone=(said.replaces,))

        return (await self._with_new_key(secret, job)).answer

    async def revoke(self, word: str, request: AgentEnd | None = None) -> dict[str, Any]:
        """End an agent; with `void_from` its votes from that index on are void. Repeating it changes nothing.

        For this node's agents, and on the founder's machine for all. Raises Problem.
        """
        void_from = requests.check_end(request or AgentEnd())

        def job(connection: sqlite3.Connection) -> _Done:
            roster = self.roster(connection)
            known = roster.find(word, self.machine.key)
            if known.agent.owner:
                raise Problem(
                    409, "owner_agent", "the owner agent can't be revoked: the mesh would have none",
                    f"when its key is in danger: cortex-node agent rotate {known.name}", "agent",
                )  # fmt: skip
            if void_from is not None and void_from > (size := accepted_size(connection)):
                raise Problem(
                    422, "invalid_void_from", f"there is no entry {void_from}: the ledger has {size}",
                    "give the index of the first vote that shall not count (cortex-node votes ID)", "void_from",
                )  # fmt: skip
            before = roster.void_from(known.principal)
            if known.revoked and (void_from is None or (before is not None and before <= void_from)):
                return _Done(self._answer(connection, known.agent.key), [])
            text = self.machine.end(known, void_from, self._now_ms(), again=before is not None)
            return self._record(connection, Kind.REVOCATION, text, known.agent.key)._replace(gone=(known.agent.key,))

        done = await self._database.write(job, after=self._heard)
        self._forget(done)
        return done.answer

    async def _ensure(self, name: str) -> dict[str, Any]:
        """This node's agent of that name, also a revoked one; made when there is none."""

        def job(connection: sqlite3.Connection) -> dict[str, Any] | None:
            ours = self._named_here(self.roster(connection), name)
            return None if ours is None else self._answer(connection, ours.agent.key)

        found = await self._database.read(job)
        return found if found is not None else (await self._add(name, None))[0]

    async def _add(self, name: str, about: str | None) -> tuple[dict[str, Any], bool]:
        if done := await self._database.write(lambda connection: self._change(connection, name, about), self._heard):
            return done.answer, False
        secret = await asyncio.to_thread(self.keys.create)
        key = public_key(secret)

        def job(connection: sqlite3.Connection) -> _Done:
            if done := self._change(connection, name, about):  # somebody was faster
                return done._replace(gone=(key,))
            self._require_room(connection)
            text = self.machine.seal(self.machine.enrolment(name, key, self._now_ms()), [secret])
            profile = self._profile(connection, key, name, about or None)
            return self._record(connection, Kind.ENROLMENT, text, key, profile)._replace(made=True)

        done = await self._with_new_key(secret, job)
        return done.answer, done.made

    def _change(self, connection: sqlite3.Connection, name: str, about: str | None) -> _Done | None:
        """What is done when this node has an agent of that name already."""
        ours = self._named_here(self.roster(connection), name)
        if ours is None or ours.revoked:
            return None
        drafts = [] if about is None or about == ours.about else self._profile(connection, ours.principal, name, about)
        ops = self._append(connection, drafts)
        return _Done(self._answer(connection, ours.agent.key), ops)

    async def _with_new_key(self, secret: bytes, job: Callable[[sqlite3.Connection], _Done]) -> _Done:
        """Run a job that enrols a new key. When it refuses, nothing was written, and the key is deleted again."""
        try:
            done = await self._database.write(job, after=self._heard)
        except Problem:
            self.keys.remove(public_key(secret))
            raise
        self._forget(done)
        return done

    def _heard(self, done: _Done | None) -> None:
        if done is not None and done.ops:
            self._wrote(done.ops)

    def _forget(self, done: _Done) -> None:
        for key in done.gone:
            self.keys.remove(key)

    # Agents that hold their keys themselves

    async def _add_outside(self, request: NewAgent, name: str, about: str | None) -> tuple[dict[str, Any], bool]:
        key = requests.check_key(request.key or "")
        time_ms, signature = requests.check_time(request.time), requests.check_signature(request.signature)

        def job(connection: sqlite3.Connection) -> _Done:
            if known := self.roster(connection).by_key(key):
                if known.name != name or known.agent.voice != self.machine.key:
                    raise _key_in_use(known)
                return _Done(self._answer(connection, key), [])
            self._require_room(connection)
            said = self.machine.enrolment(name, key, self._now_ms() if time_ms is None else time_ms)
            if signature is None or time_ms is None:
                return _Done(_to_sign(said), [])
            text = self.machine.attach(said, {key: signature})
            profile = self._profile(connection, key, name, about or None)
            return self._record(connection, Kind.ENROLMENT, text, key, profile)._replace(made=True)

        done = await self._database.write(job, after=self._heard)
        return done.answer, done.made

    async def _rotate_outside(self, word: str, request: NewKey) -> dict[str, Any]:
        key, time_ms = requests.check_key(request.key or ""), requests.check_time(request.time)
        signature = requests.check_signature(request.signature)
        former = requests.check_signature(request.former_signature, "former_signature")

        def job(connection: sqlite3.Connection) -> _Done:
            known = self._changeable(connection, word)
            if other := self.roster(connection).by_key(key):
                if known.agent.key == key:
                    return _Done(self._answer(connection, key), [])
                raise _key_in_use(other)
            self._require_key(connection, known)
            said = self.machine.enrolment(known.agent.name, key, self._now_ms() if time_ms is None else time_ms, known)
            if signature is None or former is None or time_ms is None:
                return _Done(_to_sign(said), [])
            text = self.machine.attach(said, {key: signature, known.agent.key: former})
            return self._record(connection, Kind.ENROLMENT, text, key)

        return (await self._database.write(job, after=self._heard)).answer

    # Inside a job

    def _record(
        self, connection: sqlite3.Connection, kind: int, text: bytes, key: bytes, more: Sequence[Draft] = ()
    ) -> _Done:
        """Write a statement; the answer shows the agent of `key`."""
        ops = self._append(connection, [records.statement_draft(kind, text), *more])
        if connection.execute("SELECT 1 FROM statements WHERE hash = ?", (text_hash(text),)).fetchone() is None:
            raise Problem(
                503, "too_many_statements", "too many changes of this node's agents wait for a hub already",
                "connect to a hub, then do it again",
            )  # fmt: skip
        return _Done(self._answer(connection, key), ops)

    def _append(self, connection: sqlite3.Connection, drafts: Sequence[Draft]) -> list[Op]:
        return self._store.append(connection, drafts, self._now_ms())

    def _profile(self, connection: sqlite3.Connection, principal: bytes, name: str, about: str | None) -> list[Draft]:
        if about is None:
            return []
        project = connection.execute("SELECT id FROM projects WHERE name = ?", (RESERVED,)).fetchone()
        subject = f"{records.AGENTS}/{records.short(principal)}"
        earlier = self._store.effective_ops(connection, subject, project[0]) if project else []
        return [records.profile_draft(principal, Profile(name, about), clock_over(earlier))]

    def _signed_anew(self, connection: sqlite3.Connection, former: bytes, secret: bytes) -> list[Draft]:
        """The agent's pending votes under its new key."""
        rows = connection.execute(
            "SELECT signed, reason, seen_size, seen_root, seen_signature FROM ballots WHERE entry IS NULL AND agent = ?"
            " ORDER BY time, id LIMIT ?",
            (former, MAX_SIGNED_ANEW),
        )
        drafts = []
        for signed, *said in rows:
            vote = votes.decode(signed)._replace(agent=public_key(secret))
            drafts.append(records.vote_draft(vote, VoteRecord(votes.sign(vote, secret), *said), ()))
        return drafts

    def _owner(self, connection: sqlite3.Connection) -> bytes | None:
        for known in self.roster(connection).of_voice(self.machine.key):
            if known.agent.owner and not known.revoked and self.keys.secret(known.agent.key) is not None:
                return known.agent.key
        return None

    def _named_here(self, roster: Roster, name: str) -> Known | None:
        """This node's agent of that name; one that is not revoked if there is one."""
        ours = [known for known in roster.named(name) if known.agent.voice == self.machine.key]
        return min(ours, key=lambda known: known.revoked, default=None)

    def _require_room(self, connection: sqlite3.Connection) -> None:
        ours = [known for known in self.roster(connection).of_voice(self.machine.key) if not known.revoked]
        if len(ours) >= MAX_AGENTS:
            raise Problem(
                409, "too_many_agents", f"this node has {len(ours)} agents, the limit is {MAX_AGENTS}",
                "revoke those that are not needed: cortex-node agent list, cortex-node agent revoke NAME",
            )  # fmt: skip
        self._require_key(connection)

    def _require_key(self, connection: sqlite3.Connection, former: Known | None = None) -> None:
        """That a hub takes in one more key of this node; an owner's, always."""
        if former and former.agent.owner:
            return
        if self.roster(connection).key_count(self.machine.key) >= MAX_KEYS_OF_VOICE:
            raise Problem(
                409, "too_many_keys", f"this node has enrolled {MAX_KEYS_OF_VOICE} keys, and a hub takes in no more",
                "vote as an agent that there is, or enrol a new one on another node of the mesh",
            )  # fmt: skip

    def _changeable(self, connection: sqlite3.Connection, word: str) -> Known:
        """An agent that may have a new key here."""
        known = self.roster(connection).find(word, self.machine.key)
        if known.revoked:
            raise revoked(known)
        if known.agent.voice != self.machine.key:
            raise elsewhere(known, "give it a new key on its own node")
        return known

    def _answer(self, connection: sqlite3.Connection, key: bytes) -> dict[str, Any]:
        known = self.roster(connection).by_key(key)
        assert known is not None, "an agent whose statement has just been written"
        return self._describe(self._scores.fold(connection), connection, known, None)

    def _describe(
        self, fold: Fold, connection: sqlite3.Connection, known: Known, project: str | None
    ) -> dict[str, Any]:
        agent, voice = known.agent, node_id(known.agent.voice)
        row = connection.execute("SELECT name FROM members WHERE node = ?", (voice,)).fetchone()
        asked = project or DEFAULT_PROJECT
        return {
            "name": known.name,
            "key": agent.key.hex(),
            "principal": agent.principal.hex(),
            "owner": agent.owner,
            "voice": voice,
            "voice_name": row[0] if row else None,
            "project": asked,
            **_standing(fold, known, asked),
            "state": known.state,
            "in_ledger": known.in_ledger,
            "since": known.since,
            "void_from": fold.agents.void_from.get(agent.principal),
            "about": known.about,
        }


def revoked(known: Known) -> Problem:
    """The agent is at its end."""
    return Problem(
        403, "agent_revoked", f"the agent {known.name!r} is revoked",
        "vote as another agent; a new one: cortex-node agent add NAME", "agent",
    )  # fmt: skip


def _standing(fold: Fold, known: Known, project: str) -> dict[str, int]:
    """What the agent's votes weigh in a project, and by which reputation, in millionths."""
    reputation = fold.reputation(project, known.principal)
    return {"reputation": reputation, "weight": OWNER_WEIGHT if known.agent.owner else weight(reputation)}


def _fitting(name: str) -> str:
    """A name from outside, cut to what an enrolment takes, with room for CLIENT_SUFFIX."""
    return name.encode()[: MAX_NAME_BYTES - len(CLIENT_SUFFIX)].decode(errors="ignore")


def _to_sign(said: Enrolment) -> dict[str, Any]:
    """What an agent that holds its key itself has to sign."""
    return {"name": said.name, "key": said.agent.hex(), "time": said.time_ms, "to_sign": payload(said).hex()}


def _key_in_use(known: Known) -> Problem:
    return Problem(
        409, "key_in_use", f"this key is or was that of the agent {known.name!r}", "enrol another key", "key"
    )
