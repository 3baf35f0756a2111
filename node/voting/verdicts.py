"""What a fact shows of its votes: score and trust, committed and provisional, and the votes one by one.

    score, trust        what the ledger says of the version that is shown, with today's reputations (ledger.score)
    score_provisional   the same formula with the votes that are still pending; nothing is settled by it
    score_linear        the score of the earlier system, over what is committed and what was imported from there
    votes               agents with a committed vote up, down; and those with a vote on the way
    last_vote_at        the newest vote on this version that gossip brought, by its agent's clock

Scores are in thousandths, 0..2000; 1000 is neutral. A pending vote counts when its agent is enrolled and in use, or has
an enrolment on the way; a stranger's weighs nothing and is told as pending.

All of it is read when asked for, never kept: what a vote weighs changes with every other fact that is settled. A page
of facts of one project costs six queries, however long it is, and one where there are no votes at all. One more finds
who wrote a version, for each pending vote from the machine that did. Tests: tests/node/voting/test_verdicts.py.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from crdt.version import node_id
from ledger import score
from ledger import vote as signed_vote
from ledger.agents import Agent
from ledger.score import Cast, Fold, Key, Pending, Tally, Trust
from ledger.statement import Genesis
from ledger.vote import BadVote, Vote
from node.clock import rfc3339
from node.voting.ballots import wrote
from node.voting.mappings import VOIDED, Mapped
from node.voting.voters import chunks
from node.voting.voters import voters as signers_of

MAX_TIME_MS: Final = 253_402_300_799_999
"""The end of the year 9999. An agent may sign any time, and RFC 3339 ends there."""
_ANY: Final = """
    SELECT EXISTS (SELECT 1 FROM tallies) OR EXISTS (SELECT 1 FROM ballots) OR EXISTS (SELECT 1 FROM old_votes)
"""
_TALLIES: Final = """
    SELECT t.project, t.fact, t.version, t.tally
    FROM json_each(?) AS wanted CROSS JOIN tallies t ON t.fact = wanted.value
"""
_BALLOTS: Final = """
    SELECT b.project, b.fact, b.version, b.time, b.signed, b.entry
    FROM json_each(?) AS wanted CROSS JOIN ballots b ON b.fact = wanted.value
"""
_OLD: Final = """
    SELECT o.project, o.fact, o.value FROM json_each(?) AS wanted CROSS JOIN old_votes o ON o.fact = wanted.value
"""
# The version shown is asked of those facts only that have a tally at all.
_COMMITTED: Final = """
    SELECT f.id, p.name, t.fact, t.version, t.tally
    FROM json_each(?) AS wanted CROSS JOIN facts f ON f.id = wanted.value CROSS JOIN projects p ON p.id = f.project
    CROSS JOIN tallies t ON t.fact = f.name AND t.project = p.name
    WHERE lower(hex(t.version)) = json_extract(f.shown, '$.version')
"""
_tally = msgspec.msgpack.Decoder(Tally).decode


Decorate = Callable[[sqlite3.Connection, Sequence[dict[str, Any]]], None]


class Rules(Protocol):
    """Whose statements count, and what the ledger begins with: node.voting.scores.Scores."""

    authority: bytes

    def genesis(self, connection: sqlite3.Connection) -> Genesis | None: ...


class _Way(NamedTuple):
    """When a vote that gossip has brought was cast, and what it says while it is pending."""

    time_ms: int
    pending: Vote | None


class _Listed(NamedTuple):
    """A vote from wherever it is known, and its reason if that is known."""

    vote: Vote
    entry: int | None
    reason: str | None


def unvoted() -> dict[str, Any]:
    """What a fact shows on which nobody has voted."""
    return {
        "score": score.NEUTRAL,
        "score_provisional": score.NEUTRAL,
        "score_linear": score.NEUTRAL,
        "trust": Trust.UNSETTLED.value,
        "votes": {"up": 0, "down": 0, "pending": 0},
        "last_vote_at": None,
    }


def leave_unvoted(connection: sqlite3.Connection, facts: Sequence[dict[str, Any]]) -> None:
    """`decorate` of a node that knows of no votes."""
    for fact in facts:
        fact.update(unvoted())


def _any_votes(connection: sqlite3.Connection) -> bool:
    """Whether there is anything to tell of any fact."""
    return bool(connection.execute(_ANY).fetchone()[0])


def decorate(connection: sqlite3.Connection, rules: Rules, facts: Sequence[dict[str, Any]]) -> None:
    """Put into facts, in the API's shape, what the votes on the version that each shows amount to."""
    leave_unvoted(connection, facts)
    if not facts or not _any_votes(connection):
        return
    names = json.dumps(sorted({fact["id"] for fact in facts}))  # who runs one identity twice may use a name twice
    keys = [Key(fact["project"], fact["id"], bytes.fromhex(fact["version"])) for fact in facts]
    tallies = _read_tallies(connection, names, set(keys))
    ways = _read_ways(connection, names, set(keys))
    old: dict[tuple[str, str], list[int]] = {}
    for project, name, value in connection.execute(_OLD, (names,)):
        old.setdefault((project, name), []).append(value)
    waiting = [way.pending for there in ways.values() for way in there if way.pending]
    voters = signers_of(connection, waiting)
    fold = _fold(connection, rules, tallies, voters, {vote.project for vote in waiting})
    for key, fact in zip(keys, facts, strict=True):
        imported = old.get((key.project, key.fact), ())
        if key in tallies or key in ways or imported:
            fact.update(_told(connection, fold, key, fact["author"], ways.get(key, ()), voters, imported))


def trust(connection: sqlite3.Connection, rules: Rules, facts: Iterable[int]) -> dict[int, Trust]:
    """Facts (row numbers) with a committed vote on the version that they show, and the trust in it."""
    if not connection.execute("SELECT EXISTS (SELECT 1 FROM tallies)").fetchone()[0]:
        return {}
    rows = connection.execute(_COMMITTED, (json.dumps(list(facts)),)).fetchall()
    keys = {number: Key(project, name, version) for number, project, name, version, _ in rows}
    fold = _fold(connection, rules, {keys[number]: _tally(tally) for number, *_, tally in rows})
    return {number: fold.verdict(key).trust for number, key in keys.items()}


def votes(
    connection: sqlite3.Connection, rules: Rules, fact_id: str, version: str, project: str
) -> list[dict[str, Any]]:
    """Every vote that is known on one version (hex) of a fact, by the clocks of their agents; then the imported ones.

    `counts`: it is the one of its agent that the score takes, or, while it is pending, the provisional score. `weight`
    is what it weighs now, 0 when it does not count.
    """
    key = Key(project, fact_id, bytes.fromhex(version))
    listed = _list(connection, key)
    voters = signers_of(connection, [one.vote for one in listed])
    tallies = _read_tallies(connection, json.dumps([fact_id]), {key})
    fold = _fold(connection, rules, tallies, voters, [project])
    casts = fold.tallies.get(key, Tally()).casts
    pending = [
        Pending(one.vote, bool(agent and wrote(connection, one.vote, agent.voice, agent.name)), agent)
        for one in listed
        for agent in [_in_use(voters, one.vote)]
        if one.entry is None
    ]
    committed = {one.principal: one for one in casts}
    provisional = {one.principal: one for one in set(_with(casts, pending)) - set(casts)}
    told, taken = [], set[Cast]()
    for one in listed:
        agent = voters.get(one.vote.agent)
        standing = (provisional if one.entry is None else committed).get(agent.principal) if agent else None
        counts = standing is not None and standing not in taken and _is(standing, one) and _may(fold, one, agent)
        if standing is not None and counts:
            taken.add(standing)  # of two votes that say the same the first counts
        weight = fold.weight(project, standing) if standing is not None and counts else 0
        told.append(_told_vote(one, agent, weight, counts))
    old = connection.execute("SELECT agent, value, time FROM old_votes WHERE fact = ? AND project = ?", key[1::-1])
    return told + [
        {"agent": name, "agent_key": None, "voice": None, "value": value, "weight": 0, "state": "imported",
         "counts": False, "index": None, "reason": None, "counter": None, "at": _at(time)}
        for name, value, time in sorted(old, key=lambda row: row[2])
    ]  # fmt: skip


def _told(
    connection: sqlite3.Connection,
    fold: Fold,
    key: Key,
    author: str,
    ways: Iterable[_Way],
    voters: Mapping[bytes, Agent],
    imported: Iterable[int],
) -> dict[str, Any]:
    """The fields of one fact. `author`: the node that signed the version; only its agents can have written it."""
    casts = fold.tallies.get(key, Tally()).casts
    pending = []
    for vote in (way.pending for way in ways if way.pending):
        agent = _in_use(voters, vote)
        near = agent is not None and node_id(agent.voice) == author
        own = agent is not None and near and wrote(connection, vote, agent.voice, agent.name) is True
        pending.append(Pending(vote, own, agent))
    committed, provisional = fold.verdict(key), fold.provisional(key, pending)
    strangers = {vote.agent for vote, _, agent in pending if agent is None and vote.agent not in voters}
    values = [one.value for one in casts]
    return {
        "score": committed.score,
        "score_provisional": provisional.score,
        "score_linear": score.linear_score([*values, *imported]),
        "trust": committed.trust.value,
        "votes": {
            "up": values.count(signed_vote.UP),
            "down": values.count(signed_vote.DOWN),
            "pending": len(set(_with(casts, pending)) - set(casts)) + len(strangers),
        },
        "last_vote_at": max((_at(way.time_ms) for way in ways), default=None),
    }


def _told_vote(one: _Listed, agent: Agent | None, weight: int, counts: bool) -> dict[str, Any]:
    return {
        "agent": agent.name if agent else None,
        "agent_key": one.vote.agent.hex(),
        "voice": node_id(agent.voice) if agent else None,
        "value": one.vote.value,
        "weight": weight,
        "state": "pending" if one.entry is None else "committed",
        "counts": counts,
        "index": one.entry,
        "reason": one.reason,
        "counter": one.vote.counter,
        "at": _at(one.vote.time_ms),
    }


def _list(connection: sqlite3.Connection, key: Key) -> list[_Listed]:
    """The votes on one version that gossip or the ledger has brought."""
    ballots = connection.execute(
        "SELECT id, signed, entry, reason FROM ballots WHERE fact = ? AND version = ? AND project = ?",
        (key.fact, key.version, key.project),
    )
    found = {
        name: _Listed(signed_vote.decode(signed), entry, reason or None) for name, signed, entry, reason in ballots
    }
    entries = connection.execute(
        "SELECT name, text, id FROM ledger_entries WHERE fact = ? AND project = ? AND text IS NOT NULL ORDER BY id",
        (key.fact, key.project),
    )
    for name, text, index in entries:
        try:
            vote = signed_vote.decode(text)
        except BadVote:  # the row has rotted
            continue
        if vote.version == key.version:
            found[name] = _Listed(vote, index, found[name].reason if name in found else None)
    return sorted(found.values(), key=lambda one: (one.vote.time_ms, one.vote.counter, one.entry is None, one.entry))


def _is(standing: Cast, one: _Listed) -> bool:
    same = (standing.counter, standing.value) == (one.vote.counter, one.vote.value)
    return same and not standing.clash


def _may(fold: Fold, one: _Listed, agent: Agent | None) -> bool:
    """Whether the agent could vote where this vote stands; a pending one stands at the end."""
    if one.entry is None:
        return agent is not None and agent.until is None
    return fold.agents.voter(one.vote.agent, one.entry) is not None


def _with(casts: Iterable[Cast], pending: Iterable[Pending]) -> tuple[Cast, ...]:
    """The votes that count once the pending ones are committed, as far as their agents may vote."""
    after = tuple(casts)
    for vote, own, agent in pending:
        if agent is not None:
            new = Cast(agent.principal, agent.voice, agent.owner, own, vote.counter, vote.value)
            after = score.cast(after, new)
    return after


def _in_use(voters: Mapping[bytes, Agent], vote: Vote) -> Agent | None:
    agent = voters.get(vote.agent)
    return agent if agent is not None and agent.until is None else None


def _fold(
    connection: sqlite3.Connection,
    rules: Rules,
    tallies: dict[Key, Tally],
    voters: Mapping[bytes, Agent] | None = None,
    projects: Iterable[str] = (),
) -> Fold:
    """The fold as far as it is needed: these tallies, and the reputations of those who voted or are about to."""
    principals = {project: {agent.principal for agent in (voters or {}).values()} for project in projects}
    for key, tally in tallies.items():
        principals.setdefault(key.project, set()).update(one.principal for one in tally.casts)
    reputations = {}
    for project, agents in principals.items():
        for some in chunks(agents):
            query = "SELECT agent, reputation FROM reputations WHERE project = ? AND agent IN (?"
            rows = connection.execute(f"{query}{',?' * (len(some) - 1)})", (project, *some))
            reputations.update({(project, agent): reputation for agent, reputation in rows})
    genesis = rules.genesis(connection)
    return Fold(
        rules.authority,
        tallies=tallies,
        reputations=reputations,
        agents=dict(voters or {}),
        void_from=Mapped(connection, VOIDED),
        constants=genesis.constants if genesis else None,
    )


def _read_tallies(connection: sqlite3.Connection, names: str, keys: Collection[Key]) -> dict[Key, Tally]:
    rows = ((Key(*key), tally) for *key, tally in connection.execute(_TALLIES, (names,)))
    return {key: _tally(tally) for key, tally in rows if key in keys}


def _read_ways(connection: sqlite3.Connection, names: str, keys: Collection[Key]) -> dict[Key, list[_Way]]:
    ways: dict[Key, list[_Way]] = {}
    for project, name, version, time_ms, signed, entry in connection.execute(_BALLOTS, (names,)):
        if (key := Key(project, name, version)) in keys:
            ways.setdefault(key, []).append(_Way(time_ms, signed_vote.decode(signed) if entry is None else None))
    return ways


def _at(time_ms: int) -> str:
    return rfc3339(min(time_ms, MAX_TIME_MS))
