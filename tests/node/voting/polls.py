"""A node whose users vote, and a hub in one line: what is pending gets its entries when a test says so.

Everything is real but the network and the time: store, ballots, inbox, scores, key store. Node 1 founds the mesh: its
machine holds the authority and the owner agent.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crdt.op import Op
from ledger import log, statement, vote
from ledger.ed25519 import public_key, secret_key, sign
from ledger.entry import Kind, project_tag, text_hash
from ledger.log import Draft
from ledger.statement import Constants, Enrolment, Genesis, Grant
from ledger.vote import Vote
from node.voting import reads
from node.voting.agents import Agents
from node.voting.ballots import Ballots
from node.voting.inbox import Inbox
from node.voting.keys import KeyStore
from node.voting.machine import Machine
from node.voting.records import AGENTS, LEDGER, VOTES
from node.voting.roster import show_profile
from node.voting.scores import Scores
from node.voting.table import Table
from node.voting.verbs import Votes
from tests.node.world import MESH, Node, keys, member

AUTHORITY, AUTHORITY_SECRET = keys(200)
OWNER = "ada"


class Poll(Node):
    """A node that votes. `near`: whether its votes wait for a hub; `heard`: the ops that the network is told of."""

    def __init__(self, number: int, folder: Path, database: Any = None) -> None:
        super().__init__(number, database)
        self.near = False
        self.heard: list[Op] = []
        self.ballots, self.inbox, self.scores = Ballots(MESH), Inbox(MESH, AUTHORITY), Scores(AUTHORITY)
        self.store.shows |= {VOTES: self.ballots.show, LEDGER: self.inbox.show, AGENTS: show_profile}
        founder = number == 1
        self.machine = Machine(MESH, self.name, self.secret, AUTHORITY, (lambda: AUTHORITY_SECRET) if founder else None)
        self.agents = Agents(
            self.store, KeyStore(folder / f"agents-{number}"), self.scores, self.machine,
            lambda: self.now_ms, self.heard.extend,
        )  # fmt: skip
        self.votes = Votes(
            self.store, self.agents, self.scores, reads.proof,
            lambda: self.now_ms, self.heard.extend, lambda: self.near, wait_s=5.0,
        )  # fmt: skip

    async def enrol_owner(self) -> str:
        """The owner, as `init` makes it, pending; its key in hex."""
        secret = self.agents.keys.create()
        said = Enrolment(MESH, public_key(secret), OWNER, self.key, True, b"", self.now_ms)
        text = self.machine.seal(said, [secret])

        def job(connection: sqlite3.Connection) -> None:
            genesis = Genesis(MESH, AUTHORITY, Constants(), self.now_ms)
            table = Table(connection)
            log.found(
                table, statement.seal(genesis, AUTHORITY, [AUTHORITY_SECRET]), [text], self._grant, self.secret,
                self.now_ms,
            )  # fmt: skip
            (grant,) = table.read_texts(2, 1)
            row = (text_hash(grant or b""), Kind.GRANT, grant, 2)
            connection.execute("INSERT INTO statements (hash, kind, text, entry) VALUES (?,?,?,?)", row)
            self.scores.catch_up(connection)

        await self.database.write(job)
        return public_key(secret).hex()

    def _grant(self, ledger: bytes, size: int, root: bytes) -> bytes:
        grant = Grant(ledger, 1, "solo", (self.key,), size, root)
        return statement.seal(grant, AUTHORITY, [AUTHORITY_SECRET])

    async def commit(self) -> list[tuple[bytes, int]]:
        """As a hub: entries for what is pending, statements first, by their times."""

        def job(connection: sqlite3.Connection) -> list[tuple[bytes, int]]:
            table = Table(connection)
            rows = connection.execute("SELECT kind, text FROM statements WHERE entry IS NULL").fetchall()
            waiting = sorted(rows, key=lambda row: statement.decode(*row).time_ms)  # type: ignore[union-attr]
            drafts = [Draft(Kind(kind), text) for kind, text in waiting]
            ballots = self.ballots.pending(connection, 90)
            drafts += [Draft(Kind.VOTE, one.signed, project_tag(bytes(32), one.project)) for one in ballots]
            if not drafts:
                return []
            appended = log.append(table, drafts, self.secret, self.now_ms)
            self.ballots.mark(connection, [one.id for one in ballots])
            connection.execute(
                "UPDATE statements SET entry = (SELECT id FROM ledger_entries WHERE name = statements.hash)"
            )
            self.scores.catch_up(connection)
            names = [draft.text for draft in drafts]
            return [(vote.vote_id(text), index) for text, (index, _) in zip(names, appended.places, strict=True)]

        placed = await self.database.write(job)
        self.votes.told(placed)
        return placed

    def entries(self) -> int:
        return int(self.rows("SELECT count(*) FROM ledger_entries")[0][0])


class Outsider:
    """An agent that holds its key itself."""

    def __init__(self, number: int = 1) -> None:
        self.secret = secret_key(bytes([100 + number]) * 32)
        self.key = public_key(self.secret)

    def sign(self, text: str) -> str:
        """The signature of bytes in hex, in hex."""
        return sign(self.secret, bytes.fromhex(text)).hex()

    def vote(
        self, fact: dict[str, Any], value: int, counter: int = 1, reason: str = "", signed: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A vote as REST takes it; the fields in `signed` are signed instead of the true ones."""
        said = Vote(
            MESH, fact["project"], fact["id"], bytes.fromhex(fact["version"]), self.key, counter, value,
            vote.reason_hash(reason), 1_760_000_000_000,
        )  # fmt: skip
        text = vote.sign(said._replace(**(signed or {})), self.secret)
        return {
            "agent_key": self.key.hex(), "version": fact["version"], "counter": counter, "value": value,
            "reason": reason, "time": said.time_ms, "signature": text[-64:].hex(),
        }  # fmt: skip


async def polls(folder: Path, count: int = 1) -> Sequence[Poll]:
    """Nodes that know each other; the first is the founder, with its ledger and its owner."""
    nodes = [Poll(number + 1, folder) for number in range(count)]
    for node in nodes:
        await node.append(member(node))
    await nodes[0].enrol_owner()
    return nodes
