"""A real ledger in a real database: founded by a real mesh, with votes in two projects; and a copy of it with gaps."""

import sqlite3
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from ledger import log, tlog, vote
from ledger.checkpoint import cosign, hub_keys, open_checkpoint
from ledger.ed25519 import public_key, secret_key
from ledger.entry import NO_PROJECT, Kind, decode, project_tag
from ledger.log import Draft
from ledger.note import Algorithm, Signer, VerifierKey
from ledger.statement import Enrolment, seal
from ledger.vote import Vote, reason_hash
from node import identity, mesh
from node.database import connect
from node.identity import Identity
from node.mesh import Role
from node.migrations import migrate
from node.paths import Home
from node.voting import grants, reads
from node.voting.reads import Place
from node.voting.table import Line, Table

NOW_MS = 1_800_000_000_000
GARDEN, CELLAR = "garden", "cellar"
KEYS = {name: sha256(name.encode()).digest() for name in (GARDEN, CELLAR)}
OWNER = secret_key(sha256(b"owner").digest())


class LedgerOnDisk:
    """The ledger of the mesh that `me` founded in `home`, in the home's database. `connection` may write."""

    def __init__(self, home: Path) -> None:
        self.me: Identity = mesh.found(Home(home), "hub", NOW_MS)
        self.path = self.me.home.database
        self.connection = connect(self.path)
        migrate(self.connection, NOW_MS)
        authority = secret_key(identity.load_ca_seed(self.me))
        self.place = Place(self.me.mesh_id, public_key(authority), self.me.node_key)
        grants.found(self.connection, self.me, authority, OWNER, "owner", "solo", NOW_MS)
        for project, key in KEYS.items():
            self.connection.execute("INSERT INTO project_keys VALUES (?, ?)", (project, key))
        self.table = Table(self.connection)
        self._authority = authority
        self._votes = 0

    def append(self, *drafts: Draft) -> None:
        log.append(self.table, drafts, self.me.secret_key, NOW_MS + self._votes)

    def vote(self, count: int = 1, project: str = GARDEN) -> None:
        """The owner votes on as many facts, in one batch."""
        drafts = []
        for _ in range(count):
            self._votes += 1
            fact = f"fact-{self._votes}"
            version, agent = sha256(fact.encode()).digest(), public_key(OWNER)
            said = Vote(self.me.mesh_id, project, fact, version, agent, 1, 1, reason_hash(), NOW_MS)
            drafts.append(Draft(Kind.VOTE, vote.sign(said, OWNER), project_tag(KEYS[project], project)))
        self.append(*drafts)

    def enrol(self, name: str) -> None:
        secret = secret_key(sha256(name.encode()).digest())
        said = Enrolment(self.me.mesh_id, public_key(secret), name, self.me.node_key, False, b"", NOW_MS)
        text = seal(said, self.place.authority, [secret, self.me.secret_key, self._authority])
        self.append(Draft(Kind.ENROLMENT, text))

    def join(self, home: Path, projects: Iterable[str] = (GARDEN,)) -> Identity:
        """Another member of the mesh, which this node has been told of."""
        seed = identity.new_seed()
        key = identity.key_pair(seed)[0]
        certificate = mesh.issue(mesh.load_authority(self.me), key, "member", Role.MEMBER, tuple(projects), NOW_MS)
        joined = identity.create(Home(home), seed, certificate, self.me.ca)
        row = (joined.node_id, "member", certificate, 1, b"")
        self.connection.execute(
            "INSERT INTO members (node, name, certificate, timestamp, hash) VALUES (?,?,?,?,?)", row
        )
        return joined

    def cosign(self, witness: Identity) -> VerifierKey:
        """The witness has cosigned the newest checkpoint; its key."""
        seen, raw = reads.newest(self.connection)
        hubs = hub_keys(reads.ledger_id(self.connection) or b"", [self.me.node_key])
        signer = Signer(witness.node_id, witness.secret_key, Algorithm.COSIGNATURE)
        note = cosign(open_checkpoint(raw, seen.origin, hubs), signer, NOW_MS // 1_000).decode()
        row = (witness.node_id, seen.size, seen.root, note.rstrip("\n").rpartition("\n")[2])
        self.connection.execute("INSERT INTO ledger_cosignatures VALUES (?,?,?,?)", row)
        return signer.verifier

    def with_gaps(self, path: Path, project: str = GARDEN) -> sqlite3.Connection:
        """A node that carries `project` only: statements and its votes, each with a proof, and every checkpoint."""
        connection = connect(path)
        migrate(connection, NOW_MS)
        there = Table(connection)
        size = self.table.head().size
        tags = (NO_PROJECT, project_tag(KEYS[project], project))
        raws, texts = self.table.read_entries(0, size), self.table.read_texts(0, size)
        there.put(
            Line(raw, text, size, tuple(tlog.prove_inclusion(index, size, self.table)))
            for index, (raw, text) in enumerate(zip(raws, texts, strict=True))
            if decode(raw).project_tag in tags
        )
        for row in self.connection.execute("SELECT size, root, note, at FROM ledger_checkpoints"):
            connection.execute("INSERT INTO ledger_checkpoints VALUES (?, ?, ?, ?)", row)
        for row in self.connection.execute("SELECT hash, kind, text, entry FROM statements"):
            connection.execute("INSERT INTO statements (hash, kind, text, entry) VALUES (?, ?, ?, ?)", row)
        there.close_gap()
        return connection

    def close(self) -> None:
        self.connection.close()
