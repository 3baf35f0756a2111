"""What the texts of entries say, judged one entry after the other: the part of a verification that needs no tree.

* A text is the one whose hash its entry has, and whoever must has signed it.
* Statements: one genesis, at the beginning; enrolments and revocations that the agents so far allow; grants that follow
  one another. Votes: of agents who could vote, each once.

The caller reads entries in ledger order, of a whole ledger or of one with gaps, as long as every statement is among
them; that they are in the ledger is the caller's to show (ledger.verify, node/voting/verification.py). The texts of
votes may be gone, those of statements may not. Tests: tests/ledger/test_texts.py.
"""

from collections.abc import Callable, MutableSet

from ledger import entry as entries
from ledger import statement
from ledger import vote as votes
from ledger.agents import Agents
from ledger.checkpoint import hub_keys, origin_of
from ledger.entry import NO_HASH, Entry, Kind
from ledger.note import VerifierKey
from ledger.statement import BadStatement, Genesis, Grant
from ledger.vote import BadVote

_STATEMENTS = (Kind.GENESIS, Kind.ENROLMENT, Kind.REVOCATION, Kind.GRANT)


class Texts:
    """Judges texts as they come. `hubs`: the keys of every hub granted so far; `votes`, `signatures`: how many."""

    def __init__(
        self,
        authority: bytes | None,
        seen: MutableSet[bytes],
        find: Callable[[int, str, str], object],
        *,
        votes_too: bool = True,
    ) -> None:
        """`authority`: the key of the mesh's CA; None: the one that the first entry names. `find` is told
        (index, code, detail) of whatever is wrong. `votes_too`: also judge votes, not only statements."""
        self.origin = ""
        """Of the ledger that it is; the caller sets it once the first entry is known."""
        self.hubs: list[VerifierKey] = []
        self.votes = 0
        self.signatures = 0
        self.votes_too = votes_too
        self._authority = authority
        self._seen = seen
        self._find = find
        self._genesis: Genesis | None = None
        self._agents = Agents(authority or b"")
        self._grant_hash = NO_HASH

    def read(self, entry: Entry, text: bytes | None) -> None:
        """The next entry, and its text if that is here."""
        if entry.kind == Kind.VOTE:
            self.votes += 1
            if not self.votes_too:
                return
            if entry.text_hash in self._seen:
                self._find(entry.index, "duplicate", "this vote is in the ledger already")
            self._seen.add(entry.text_hash)
        if text is not None:
            self._check(entry, text)
        elif entry.kind in _STATEMENTS:
            self._find(entry.index, "text_missing", "the statement that the entry is about is not here")

    def _check(self, entry: Entry, text: bytes) -> None:
        if entries.text_hash(text) != entry.text_hash:
            self._find(entry.index, "text", "the text is not the one that the entry is about")
            return
        try:
            if entry.kind == Kind.VOTE:
                self._check_vote(entry, text)
            elif entry.kind in _STATEMENTS:
                self._check_statement(entry, text)
        except BadVote as error:
            self._find(entry.index, "signature" if error.reason == "signature" else "vote", str(error))
        except BadStatement as error:
            self._find(entry.index, "statement", str(error))

    def _check_vote(self, entry: Entry, text: bytes) -> None:
        vote = votes.verify(text, self._genesis.mesh if self._genesis else b"")
        self.signatures += 1
        agent = self._agents.known.get(vote.agent)
        if agent is None or agent.since >= entry.index:
            self._find(entry.index, "agent", f"a vote of {vote.agent.hex()[:16]}, who was not enrolled")
        elif agent.until is not None and agent.until <= entry.index:
            self._find(entry.index, "agent", f"a vote of {agent.name} after its key had ended")

    def _check_statement(self, entry: Entry, text: bytes) -> None:
        if entry.index == 0 and self._authority is None:
            genesis = statement.decode(Kind.GENESIS, text)
            self._authority = genesis.authority if isinstance(genesis, Genesis) else b""
            self._agents = Agents(self._authority)
        said = statement.verify(entry.kind, text, self._authority or b"")
        self.signatures += 1
        match said:
            case Genesis():
                if entry.index:
                    self._find(entry.index, "statement", "a second genesis")
                else:
                    self._genesis = said
            case Grant():
                self._check_grant(entry, said)
                self._grant_hash = entry.text_hash
            case _:
                if self._genesis and said.mesh != self._genesis.mesh:
                    self._find(entry.index, "statement", "a statement of another mesh")
                elif objection := self._agents.objection(said):
                    self._find(entry.index, "statement", objection)
                self._agents.apply(entry.index, said)

    def _check_grant(self, entry: Entry, grant: Grant) -> None:
        if grant.epoch != entry.epoch + 1 or grant.previous != self._grant_hash:
            self._find(entry.index, "grant", f"the grant of epoch {grant.epoch} does not follow that of {entry.epoch}")
        if grant.start_size != entry.index or origin_of(grant.ledger) != self.origin:
            self._find(entry.index, "grant", "a grant for another place or another ledger")
        self.hubs += hub_keys(grant.ledger, grant.hubs)
