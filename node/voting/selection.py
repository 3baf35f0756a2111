"""What a hub takes into the next batch: pending statements first, then pending votes, each checked once more.

A text has one of four ends:

* it is *chosen*: it gets its entry with the next commit;
* it has an entry already: then its row is told so (*known*);
* it *waits*, since something that it needs is not here: the agent's enrolment, the version, its writer's certificate.
  It stays where it is, holds nobody up, and is looked at again when something new has come;
* it is *refused* for ever: a later vote of the agent counts, the agent has ended, its node has enrolled too many.
  `ledger_refused` keeps the reason, by the hash of the text; a takeover forgets them all.

Enrolments of one batch count for the votes after them in it. Everything is asked of the tables in one job, and the
index that each draft will get is known, so what is checked here is what verification will find. A `Cursor` says how
far a walk over what is pending has come. Tests: tests/node/voting/test_selection.py.
"""

import secrets
import sqlite3
from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from crdt.op import Op
from crdt.version import node_id
from ledger import entry as entries
from ledger import statement as statements
from ledger import vote as votes
from ledger.agents import Agent, Agents
from ledger.entry import PROJECT_KEY_BYTES, Kind
from ledger.log import MAX_BATCH, Draft
from ledger.score import Cast, Key, Tally, cast
from ledger.statement import BadStatement, Enrolment, Revocation
from ledger.vote import BadVote
from node.store import Store
from node.voting import records
from node.voting.ballots import Ballot, Ballots, wrote
from node.voting.mappings import keys_of
from node.voting.roster import MAX_KEYS_OF_VOICE
from node.voting.scores import Scores
from node.voting.table import Table
from sync.overlap import covers

MAX_SCAN: Final = 500
"""Statements, and votes, that one job looks at: other writes wait meanwhile. One that waits costs 20 microseconds."""


class Cursor(NamedTuple):
    """How far a walk has come: behind this statement, None when it is through with them; behind this vote."""

    statement: bytes | None = b""
    time: int = -1
    vote: bytes = b""


FIRST: Final = Cursor()


class Waits(Exception):
    """Not yet: what it needs may come."""


class Refused(Exception):
    """Never."""


@dataclass(slots=True)
class Chosen:
    """What one look found. `ops`: keys of projects, just made. `end`: nothing that is pending lies behind `cursor`."""

    cursor: Cursor
    drafts: list[Draft] = field(default_factory=list)
    known: list[bytes] = field(default_factory=list)
    refused: dict[bytes, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    waiting: int = 0
    end: bool = False


class Selection:
    """Of one hub. `authority`: the key of the mesh's CA; `carries`: patterns of the projects that it carries."""

    def __init__(
        self, store: Store, authority: bytes, ballots: Ballots, scores: Scores, carries: Sequence[str]
    ) -> None:
        self.store = store
        self.authority = authority
        self.ballots = ballots
        self.scores = scores
        self.carries = carries

    def choose(self, connection: sqlite3.Connection, cursor: Cursor, now_ms: int) -> Chosen:
        """Up to MAX_BATCH drafts. In a job: it makes keys of projects, and notes what is refused and what is known."""
        look = _Look(self, connection, Chosen(cursor), now_ms)
        if cursor.statement is not None:
            look.take_statements(cursor.statement)
        chosen = look.chosen
        if chosen.cursor.statement is None:
            look.take_votes((chosen.cursor.time, chosen.cursor.vote))
        connection.executemany("INSERT OR REPLACE INTO ledger_refused VALUES (?, ?)", chosen.refused.items())
        taken_in(connection, self.ballots, chosen.known)
        return chosen


def taken_in(connection: sqlite3.Connection, ballots: Ballots, names: Sequence[bytes]) -> None:
    """Write down, in a job, which entries these votes and statements have now, or that they have none any longer."""
    ballots.mark(connection, names)
    connection.executemany(
        "UPDATE statements SET entry = (SELECT id FROM ledger_entries WHERE name = statements.hash) WHERE hash = ?",
        [(name,) for name in names],
    )


class _Look:
    """One look at what is pending. The folds of agents and votes go on in memory over what was chosen so far."""

    def __init__(self, selection: Selection, connection: sqlite3.Connection, chosen: Chosen, now_ms: int) -> None:
        self.chosen = chosen
        self._of = selection
        self._connection = connection
        self._now_ms = now_ms
        self._table = Table(connection)
        self._size = self._table.head().size
        fold = selection.scores.fold(connection)
        self._tallies = fold.tallies
        self._chosen_agents: dict[bytes, Agent] = {}
        self._agents = Agents(
            selection.authority,
            ChainMap(self._chosen_agents, fold.agents.known),
            ChainMap({}, fold.agents.void_from),
            lambda principal: {*self._chosen_agents, *keys_of(connection, principal)},
        )
        self._casts: dict[Key, tuple[Cast, ...]] = {}
        self._tags: dict[str, bytes] = {}
        self._said: dict[bytes, statements.Statement] = {}

    def take_statements(self, after: bytes) -> None:
        """In as many turns as it takes: an enrolment may need another one, and a revocation the enrolment."""
        found = self._connection.execute(
            "SELECT hash, kind, text FROM statements s WHERE entry IS NULL AND kind IN (?, ?) AND hash > ?"
            " AND NOT EXISTS (SELECT 1 FROM ledger_refused r WHERE r.hash = s.hash) ORDER BY hash LIMIT ?",
            (Kind.ENROLMENT, Kind.REVOCATION, after, MAX_SCAN),
        ).fetchall()
        pending = found
        while pending and not self._full:
            waiting = [row for row in pending if not self._take(row[2], partial(self._state, *row[1:]))]
            if len(waiting) == len(pending):
                break
            pending = waiting
        if not self._full:  # else this page is looked at again
            self.chosen.waiting += len(pending)
            last = found[-1][0] if len(found) == MAX_SCAN else None
            self.chosen.cursor = self.chosen.cursor._replace(statement=last)

    def take_votes(self, after: tuple[int, bytes]) -> None:
        ballots = self._of.ballots.pending(self._connection, MAX_SCAN, after)
        for ballot in ballots:
            if self._full:
                return
            self.chosen.cursor = Cursor(None, ballot.time, ballot.id)
            query = "SELECT 1 FROM ledger_refused WHERE hash = ?"
            refused = self._connection.execute(query, (ballot.id,)).fetchone()
            if not refused and not self._take(ballot.signed, partial(self._vote, ballot)):
                self.chosen.waiting += 1
        self.chosen.end = len(ballots) < MAX_SCAN

    @property
    def _full(self) -> bool:
        return len(self.chosen.drafts) == MAX_BATCH

    @property
    def _index(self) -> int:
        """Where the next draft will stand."""
        return self._size + len(self.chosen.drafts)

    def _take(self, text: bytes, judge: Callable[[], Draft]) -> bool:
        """Whether the text has come to an end, whichever; False: it waits, be it for the next batch."""
        if self._full:
            return False
        name = entries.text_hash(text)
        if self._table.find(name) is not None:
            self.chosen.known.append(name)
            return True
        try:
            self.chosen.drafts.append(judge())
        except Refused as reason:
            self.chosen.refused[name] = str(reason)
        except Waits:
            return False
        return True

    def _state(self, kind: int, text: bytes) -> Draft:
        """The draft of an enrolment or a revocation, after which the agents are others."""
        said = self._verified(kind, text)
        match said:
            case Enrolment(voice=voice, replaces=replaces):
                needed = replaces
                member = self._connection.execute("SELECT 1 FROM members WHERE node = ?", (node_id(voice),)).fetchone()
                if member is None:
                    raise Waits
            case Revocation(agent=agent):
                needed = agent
            case _:
                raise Refused("not for a hub to take in")
        if said.mesh != self._of.ballots.mesh:
            raise Refused("a statement of another mesh")
        if objection := self._agents.objection(said):
            if needed and needed not in self._agents.known:
                raise Waits
            raise Refused(objection)
        if isinstance(said, Revocation) and self._is_repeated(said):
            raise Refused("the agent has ended, and this changes nothing or is for the authority to say")
        if isinstance(said, Enrolment) and not said.owner and self._key_count(said.voice) >= MAX_KEYS_OF_VOICE:
            raise Refused(f"its node has enrolled {MAX_KEYS_OF_VOICE} keys, and a hub takes in no more")
        self._agents.apply(self._index, said)
        return Draft(Kind(kind), text)

    def _key_count(self, voice: bytes) -> int:
        """The keys that a node ever enrolled, in the ledger and in this look."""
        query = "SELECT count(*) FROM agents WHERE voice = ?"
        (enrolled,) = self._connection.execute(query, (voice,)).fetchone()
        chosen = (agent for agent in self._chosen_agents.values() if agent.since >= self._size)
        return int(enrolled) + sum(agent.voice == voice for agent in chosen)

    def _verified(self, kind: int, text: bytes) -> statements.Statement:
        """Once for each look, however many turns it takes."""
        if text not in self._said:
            try:
                self._said[text] = statements.verify(kind, text, self._of.authority)
            except BadStatement as error:
                raise Refused(str(error)) from None
        return self._said[text]

    def _is_repeated(self, said: Revocation) -> bool:
        """An end that was told before. When votes become void every node folds all scores anew, so an agent's node says
        that once; the mesh's authority may say it again.
        """
        if self._agents.in_use(said.agent):
            return False
        before = self._agents.void_from.get(self._agents.known[said.agent].principal)
        if said.void_from is None or said.void_from >= (self._index if before is None else before):
            return True
        return before is not None and said.by != self._of.authority

    def _vote(self, ballot: Ballot) -> Draft:
        """The draft of a vote that counts; the cheap questions first."""
        agent = self._agents.known.get(ballot.agent)
        if agent is None or not any(covers(pattern, ballot.project) for pattern in self._of.carries):
            raise Waits
        if self._agents.voter(ballot.agent, self._index) is None:
            raise Refused("the agent was revoked, or has another key since")
        try:
            vote = votes.verify(ballot.signed, self._of.ballots.mesh)
        except BadVote as error:
            raise Refused(str(error)) from None
        own = wrote(self._connection, vote, agent.voice, agent.name)
        if own is None:
            raise Waits
        key = Key(vote.project, vote.fact, vote.version)
        casts = self._casts.get(key) or self._tallies.get(key, Tally()).casts
        counted = cast(casts, Cast(agent.principal, agent.voice, agent.owner, own, vote.counter, vote.value))
        if counted == casts:
            raise Refused("another vote of this agent on this version counts, with this counter or a higher one")
        self._casts[key] = counted
        return Draft(Kind.VOTE, ballot.signed, self._tag(vote.project), own)

    def _tag(self, project: str) -> bytes:
        """The project's tag, whose key is made when its first vote is."""
        if project not in self._tags:
            self._tags[project] = entries.project_tag(self._key(project), project)
        return self._tags[project]

    def _key(self, project: str) -> bytes:
        query = "SELECT key FROM project_keys WHERE project = ?"
        if row := self._connection.execute(query, (project,)).fetchone():
            return bytes(row[0])
        key = secrets.token_bytes(PROJECT_KEY_BYTES)
        draft = records.project_key_draft(project, key)
        self.chosen.ops += self._of.store.append(self._connection, [draft], self._now_ms)
        self._connection.execute("INSERT OR IGNORE INTO project_keys VALUES (?, ?)", (project, key))
        return key
