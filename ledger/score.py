"""Scores and reputation: a pure fold over the ledger, in integers, so that every node computes the same numbers.

Per project, in ledger order; P, R0 and the shift come from the genesis entry (ledger.statement.Constants):

* An agent's reputation r starts at R0 = 700,000 of 1,000,000; its weight is max(0, 2r - 1,000,000) // 1000, so a
  newcomer weighs 400 and who is right half of the time 0. An owner weighs 1000 and is never judged.
* A vote on a version that its voter wrote weighs 0, the owner's excepted.
* The agents of one machine are one voice. U is the sum over voices of the largest weight that voted up, D likewise.
* score = 1000 (2U + P) // (U + D + P): 1000 is neutral. `verified`: U >= 3D + P, and two voices of some weight or an
  owner are for it. `disputed`: the mirror. Else `contested` when U >= P and D >= P, else `unsettled`.
* Settlement, checked after each vote that counts: the version is decided, three voices voted or an owner did, and it
  had not been settled this way before. Then each vote that is not zero, not on one's own version and not an owner's
  moves its agent: agreed, r += (1,000,000 - r) >> shift; else r -= r >> shift. Later votes earn nothing.

Of one agent's votes on one version the highest counter counts; equal counters with different values count as 0.

`Fold.apply` takes the entries one by one, all or those of some projects: partial nodes have gaps. It is incremental,
and equals `fold` from scratch, with one exception that it reports: a revocation that makes earlier votes void. Verdicts
are computed when read, with the reputations of that moment. Committed and provisional are never mixed.

What the numbers do against liars and Sybils: bench/reputation.py. Laws: tests/ledger/test_score.py.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from ledger import entry as entries
from ledger import statement as statements
from ledger import vote as votes
from ledger.agents import Agent, Agents
from ledger.entry import Entry, Kind
from ledger.statement import BadStatement, Constants, Enrolment, Genesis, Grant, Revocation
from ledger.vote import BadVote, Vote

FULL: Final = 1_000_000
"""Reputation is in millionths."""
OWNER_WEIGHT: Final = 1_000
SETTLING_VOICES: Final = 3
NEUTRAL: Final = 1_000


class Trust(Enum):
    """What the votes on a version amount to."""

    UNSETTLED = "unsettled"
    VERIFIED = "verified"
    DISPUTED = "disputed"
    CONTESTED = "contested"


class Effect(Enum):
    """What an entry did to the scores."""

    NONE = "none"
    COUNTED = "counted"
    FROZEN = "frozen"
    """Scores stand still from here on, of one project or all: an entry that this version can't read."""
    REFOLD = "refold"
    """Votes that were counted are void: fold again from the first entry."""


class Cast(msgspec.Struct, array_like=True, frozen=True):
    """The vote of one agent that counts. `clash`: it signed two values under this counter, so `value` is 0."""

    principal: bytes
    voice: bytes
    owner: bool
    own: bool
    counter: int
    value: int
    clash: bool = False


class Tally(msgspec.Struct, array_like=True, frozen=True):
    """All that is kept of the votes on one version: one `Cast` an agent, by principal; how it was settled so far."""

    casts: tuple[Cast, ...] = ()
    settled: tuple[str, ...] = ()


class Key(NamedTuple):
    """What votes are on. `fact` belongs to it, so a vote that pairs a fact with another's version counts nowhere."""

    project: str
    fact: str
    version: bytes


class Ballot(NamedTuple):
    """One vote, weighed."""

    voice: bytes
    weight: int
    value: int
    owner: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """`score` in thousandths, 0..2000; `up` and `down` are U and D."""

    score: int
    trust: Trust
    up: int = 0
    down: int = 0


class Pending(NamedTuple):
    """A verified vote that is not in the ledger yet. `agent`: None when the voter is not known here at all."""

    vote: Vote
    own: bool
    agent: Agent | None


def weight(reputation: int) -> int:
    return max(0, 2 * reputation - FULL) // 1_000


def judge(constants: Constants, ballots: Iterable[Ballot]) -> Verdict:
    """The verdict that these votes give, in any order."""
    up: dict[bytes, int] = {}
    down: dict[bytes, int] = {}
    owners = set()
    for ballot in ballots:
        if not ballot.value:
            continue
        side = up if ballot.value > 0 else down
        side[ballot.voice] = max(side.get(ballot.voice, 0), ballot.weight)
        if ballot.owner:
            owners.add(ballot.value)
    for_it, against, prior = sum(up.values()), sum(down.values()), constants.prior
    score = 1_000 * (2 * for_it + prior) // (for_it + against + prior)
    if for_it >= 3 * against + prior and (_voices(up) >= 2 or votes.UP in owners):
        trust = Trust.VERIFIED
    elif against >= 3 * for_it + prior and (_voices(down) >= 2 or votes.DOWN in owners):
        trust = Trust.DISPUTED
    elif for_it >= prior and against >= prior:
        trust = Trust.CONTESTED
    else:
        trust = Trust.UNSETTLED
    return Verdict(score, trust, for_it, against)


def linear_score(values: Iterable[int]) -> int:
    """The score of the earlier system, in thousandths: max(0, 1 + 0.1 * sum of the votes)."""
    return max(0, NEUTRAL + 100 * sum(values))


def cast(casts: Iterable[Cast], new: Cast) -> tuple[Cast, ...]:
    """`casts` with `new` among them: commutative, associative, idempotent, so gossip may bring votes in any order."""
    by_agent = {one.principal: one for one in casts}
    old = by_agent.get(new.principal)
    if old is None or new.counter > old.counter:
        by_agent[new.principal] = new
    elif new.counter == old.counter and new.value != old.value and not old.clash:
        by_agent[new.principal] = Cast(new.principal, new.voice, new.owner, new.own, new.counter, 0, clash=True)
    return tuple(by_agent[principal] for principal in sorted(by_agent))


class Fold:
    """Scores after some entries of one ledger. The mappings may be the caller's own, on disk; by default dictionaries.

    `void_from` is what the revocations of the *whole* ledger say (`fold` collects it); it is empty for a fold that
    begins at the first entry and is told by Effect.REFOLD when that was not enough.
    """

    def __init__(
        self,
        authority: bytes,
        *,
        tallies: MutableMapping[Key, Tally] | None = None,
        reputations: MutableMapping[tuple[str, bytes], int] | None = None,
        agents: MutableMapping[bytes, Agent] | None = None,
        void_from: MutableMapping[bytes, int] | None = None,
        frozen: MutableMapping[bytes, int] | None = None,
        constants: Constants | None = None,
        mesh: bytes = b"",
        keys_of: Callable[[bytes], Iterable[bytes]] | None = None,
    ) -> None:
        self._authority = authority
        self.agents = Agents(authority, agents, void_from, keys_of)
        self.tallies: MutableMapping[Key, Tally] = {} if tallies is None else tallies
        self.reputations: MutableMapping[tuple[str, bytes], int] = {} if reputations is None else reputations
        self.frozen: MutableMapping[bytes, int] = {} if frozen is None else frozen
        """Project tag to the index of the entry that stopped its scores; entry.NO_PROJECT stands for all projects."""
        self.constants = constants or Constants()
        self.mesh = mesh

    def apply(self, entry: Entry, text: bytes | None, *, checked: bool = False) -> Effect:
        """What this entry, later than all before it, does. `text`: None when it is not here.

        `checked`: the signatures in the text were verified before. Raises ValueError when it is another entry's text.
        """
        if text is not None and entries.text_hash(text) != entry.text_hash:
            raise ValueError(f"not the text of entry {entry.index}")
        if entries.NO_PROJECT in self.frozen or entry.project_tag in self.frozen:
            return Effect.FROZEN
        if text is None or entry.kind not in list(Kind):
            self.frozen[entry.project_tag] = entry.index
            return Effect.FROZEN
        try:
            if entry.kind == Kind.VOTE:
                return self._count(entry, votes.decode(text) if checked else votes.verify(text, self.mesh))
            return self._state(entry, self._statement(entry.kind, text, checked))
        except (BadVote, BadStatement):
            return Effect.NONE  # on every node: they all have the same text

    def verdict(self, key: Key) -> Verdict:
        """The committed verdict on a version, with today's reputations."""
        return judge(self.constants, self._ballots(key.project, self._tally(key).casts))

    def provisional(self, key: Key, pending: Iterable[Pending]) -> Verdict:
        """The same formula with votes that are not committed yet, in any order; nothing is settled by it."""
        casts = self._tally(key).casts
        for vote, own, agent in pending:
            if agent is not None and Key(vote.project, vote.fact, vote.version) == key:
                casts = cast(casts, _cast_of(vote, own, agent))
        return judge(self.constants, self._ballots(key.project, casts))

    def reputation(self, project: str, principal: bytes) -> int:
        return self.reputations.get((project, principal), self.constants.start)

    def weight(self, project: str, cast: Cast) -> int:
        """What this vote weighs now."""
        if cast.owner:
            return OWNER_WEIGHT
        return 0 if cast.own else weight(self.reputation(project, cast.principal))

    def next_counter(self, key: Key, principal: bytes) -> int:
        """The counter of the agent's next vote on a version, as far as the ledger knows."""
        return 1 + max((one.counter for one in self._tally(key).casts if one.principal == principal), default=0)

    def _statement(self, kind: int, text: bytes, checked: bool) -> statements.Statement:
        return statements.decode(kind, text) if checked else statements.verify(kind, text, self._authority)

    def _state(self, entry: Entry, statement: statements.Statement) -> Effect:
        match statement:
            case Genesis(mesh=mesh, constants=constants):
                if entry.index == 0:
                    self.mesh, self.constants = mesh, constants
                return Effect.COUNTED
            case Enrolment() | Revocation():
                if statement.mesh != self.mesh or self.agents.objection(statement):
                    return Effect.NONE
                return Effect.REFOLD if self.agents.apply(entry.index, statement) else Effect.COUNTED
            case Grant():
                return Effect.NONE

    def _count(self, entry: Entry, vote: Vote) -> Effect:
        agent = self.agents.voter(vote.agent, entry.index)
        if agent is None or vote.mesh != self.mesh:
            return Effect.NONE
        key = Key(vote.project, vote.fact, vote.version)
        tally = self._tally(key)
        casts = cast(tally.casts, _cast_of(vote, entry.own, agent))
        if casts == tally.casts:
            return Effect.NONE
        self.tallies[key] = self._settle(vote.project, Tally(casts, tally.settled))
        return Effect.COUNTED

    def _settle(self, project: str, tally: Tally) -> Tally:
        """Moves the reputations of those who voted, once for each way in which a version is decided."""
        trust = judge(self.constants, self._ballots(project, tally.casts)).trust
        if trust not in (Trust.VERIFIED, Trust.DISPUTED) or trust.value in tally.settled:
            return tally
        voted = [one for one in tally.casts if one.value and (one.owner or not one.own)]
        if len({one.voice for one in voted}) < SETTLING_VOICES and not any(one.owner for one in voted):
            return tally
        right = votes.UP if trust is Trust.VERIFIED else votes.DOWN
        for one in voted:
            if not one.owner:
                now = self.reputation(project, one.principal)
                step = (FULL - now) >> self.constants.shift if one.value == right else -(now >> self.constants.shift)
                self.reputations[project, one.principal] = now + step
        return Tally(tally.casts, (*tally.settled, trust.value))

    def _ballots(self, project: str, casts: Iterable[Cast]) -> list[Ballot]:
        return [Ballot(one.voice, self.weight(project, one), one.value, one.owner) for one in casts]

    def _tally(self, key: Key) -> Tally:
        return self.tallies.get(key, Tally())


Lines = Iterable[tuple[Entry, bytes | None]]


def fold(read: Callable[[], Lines], authority: bytes, *, checked: bool = False) -> Fold:
    """Scores from nothing. `read` gives the entries and their texts from the first on, and is called twice.

    The first pass finds what revocations make void, so that the second counts no vote that is.
    """
    void_from = dict(_void(read(), authority, checked))
    folded = Fold(authority, void_from=void_from)
    for entry, text in read():
        folded.apply(entry, text, checked=checked)
    return folded


def _void(lines: Lines, authority: bytes, checked: bool) -> Mapping[bytes, int]:
    """Principal to the index from which its votes are void, over all revocations."""
    first = Fold(authority)
    for entry, text in lines:
        if entry.kind != Kind.VOTE:
            first.apply(entry, text, checked=checked)
    return first.agents.void_from


def _voices(side: Mapping[bytes, int]) -> int:
    return sum(weighs > 0 for weighs in side.values())


def _cast_of(vote: Vote, own: bool, agent: Agent) -> Cast:
    return Cast(agent.principal, agent.voice, agent.owner, own, vote.counter, vote.value)
