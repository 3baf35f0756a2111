"""The shapes of answers about votes and agents, as `/openapi.json` describes them; the tests hold every answer to them.

Fields may be added from one version to the next, never renamed. Tests: tests/node/test_http_votes.py,
tests/node/voting/test_verbs.py.
"""

from typing import Literal

from node.shapes import Shape

Trust = Literal["unsettled", "verified", "disputed", "contested"]


class Entry(Shape):
    """Where a vote stands in the ledger: its entry's index, its hash, and the hash of the entry before."""

    index: int
    hash: str
    prev_hash: str


class VoteAnswer(Shape):
    """A vote: pending, or committed with its entry, the checkpoint, and the inclusion proof under that.

    `duplicate`: it was there before. `own`: it weighs nothing, for its agent wrote the version. Scores are in
    thousandths; 1000 is neutral.
    """

    vote_id: str
    fact_id: str
    version: str
    state: Literal["pending", "committed"]
    duplicate: bool
    own: bool
    reason: str | None
    entry: Entry | None
    checkpoint: str | None
    proof: list[str]
    score: int
    score_provisional: int
    trust: Trust


class CastVote(Shape):
    """One vote on a version. `counts`: it is the one of its agent that the score takes; `index`: its entry."""

    agent: str | None
    agent_key: str | None
    voice: str | None
    value: int
    weight: int
    state: Literal["pending", "committed", "imported"]
    counts: bool
    index: int | None
    reason: str | None
    counter: int | None
    at: str


class FactVotes(Shape):
    """The votes on one version of a fact. `mesh` and `project` are what a vote that is signed elsewhere is about."""

    fact_id: str
    version: str
    mesh: str
    project: str
    next_counter: int
    score: int
    score_provisional: int
    score_linear: int
    trust: Trust
    votes: list[CastVote]


class Standing(Shape):
    """What an agent's votes weigh in a project, of 1000, and by which reputation, of 1,000,000."""

    project: str
    reputation: int
    weight: int


class Agent(Shape, kw_only=True):
    """An agent. `voice` is its node; `key` its newest, `principal` its first key.

    `reputation` and `weight` are those in `project`; `reputations`, of one agent alone, those of every project in which
    it was judged; of a revoked agent they are what its earlier votes weigh, but for those from entry `void_from` on.
    `in_ledger`: nothing about it is still on its way there; `since`: the entry that enrolled it.
    """

    name: str
    key: str
    principal: str
    owner: bool
    voice: str
    voice_name: str | None
    project: str
    reputation: int
    weight: int
    state: Literal["pending", "enrolled", "revoked"]
    in_ledger: bool
    since: int | None
    void_from: int | None
    about: str
    reputations: list[Standing] | None = None


class AgentList(Shape):
    """All agents that this node knows of, by name."""

    agents: list[Agent]


class ToSign(Shape):
    """What an agent that holds its key itself has to sign, in hexadecimal; to be sent back with this `time`."""

    name: str
    key: str
    time: int
    to_sign: str
