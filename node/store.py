"""The set of ops on disk: who may add to it, and what it looks like to others. One transaction per change.

`append` writes our own ops, `merge` those of peers. The same transaction moves the chains (node/chains.py), the Merkle
leaves (node/leaves.py) and what is shown (node/shown.py). So the version vector moves with the commit or not at all,
and a broken connection resumes by itself.

* Our own seqs come from blocks reserved on disk beforehand. After an unclean stop the rest of the block is skipped, so
  a number that may have left this machine is never used again.
* An op of *our own* author that we don't have means that this is an old copy of us, or one of two: we go on in a new
  epoch, as another author. (Not when our own chain names it: then a row was lost, and we remember its seq.)
* What a walk brings is taken in at any place of a chain; why it was missing is recorded (node/repairs.py).
* Only members write. A node's first op is its own member record, so it introduces itself.
* An op from a clock too far ahead is *held*: noted in `held`, and shown anew when time has caught up with it.

`vector`, `root` and what follows them are reads for the event loop's thread; they see committed state only.
`generations` tells how often what is shown of a project or a fact has changed, exactly with the commits that change it.
Tests: tests/node/test_store.py; tests/sim drives the same rules against oracles of its own.
"""

import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crdt.hlc import Clock, horizon, timestamp
from crdt.op import FORMAT, PREV_BYTES, Header, Op, OpClass, decode, seal
from crdt.survive import Clock as OpClock
from crdt.version import Dot, author_id, digest, node_id
from node import leaves, repairs, shown
from node.chains import Chains
from node.database import Database
from node.generations import Generations
from node.repairs import Cause
from sync import merkle
from sync.merkle import Leaf
from sync.overlap import RESERVED
from sync.replica import Rows

SEQ_BLOCK = 1_024
FAR_AHEAD_MS = 24 * 3_600_000
"""Our clock was a day ahead and has been set right. What it stamped is held everywhere; going on from there would hold
all that we write until then. A later write still replaces an earlier one, because its clock says so.
"""
SHOWN_BY = 2
"""Raised by a version that shows what the one before did not, such as a new kind: then all ops are shown anew, once."""
MAX_WITHHELD = 1_000
HLC_RESERVE_MS = 10_000
"""The clock's floor is saved this far ahead, so that it costs one small write every ten seconds, not one per op."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An op of ours that has yet to get its dot. `body` may need the dot: a text update derives its client from it."""

    project: str
    op_class: OpClass
    subject: str
    field: str
    kind: str
    body: bytes | Callable[[Dot], bytes]
    clock: OpClock = ()


@dataclass(slots=True)
class Merged:
    """What became of a batch of a peer's ops: those that joined their chains, how many did not, how many had before."""

    new: list[Op] = field(default_factory=list)
    ahead: int = 0
    known: int = 0
    repaired: Counter[tuple[str, Cause, str | None]] = field(default_factory=Counter)
    """How many of the new came back to where they had been: by project, cause, and the node that wrote them."""


class Introduction(NamedTuple):
    """Who an author is, by a certificate of this mesh."""

    node: str
    name: str
    certificate: bytes


Admit = Callable[[Op], Introduction | None]
"""Reads a member record; None when the op is none, or not a valid one about its own author."""


Show = Callable[[sqlite3.Connection, int, str, Sequence[Op]], None]
"""Brings derived tables up to date with all ops in effect of one subject: of which project (its number), and which."""


class UnknownAuthor(Exception):
    """An op by a node that has no certificate of this mesh."""


class _Books(NamedTuple):
    """What a project's committed ops amount to, in one snapshot."""

    vector: Mapping[bytes, int]
    root: bytes


class Store:
    """The ops of one node in `database`. `mesh`: 32 bytes; `secret_key`: libsodium's 64 bytes."""

    def __init__(self, database: Database, mesh: bytes, secret_key: bytes, admit: Admit) -> None:
        self.database = database
        self.mesh = mesh
        self.node_key = secret_key[32:]
        self.node_id = node_id(self.node_key)
        self.clock = Clock()
        self.epoch = 0
        self.generations = Generations()
        self.on_change: Callable[[set[str]], None] = lambda projects: None
        self.ahead_ms = 0
        """How far our own clock is ahead, as most of our peers say. What we write then is held like anybody's."""
        self.on_suspect: Callable[[], None] = lambda: None
        self.shows: dict[str, Show] = {}
        """Who shows the subjects that are no facts, by what stands before their first slash."""
        self.clears: list[Callable[[sqlite3.Connection], object]] = []
        """Who empties tables that are made of such subjects, before `rebuild` shows all of them again."""
        self.rebuilds: list[Callable[[sqlite3.Connection], object]] = []
        """Who makes again what follows from those tables, after that."""
        self.suspects: set[tuple[str, bytes]] = set()
        """Rows that were met and are not what was hashed once, as (project, hash). Whoever mends takes them out."""
        self._secret_key = secret_key
        self._admit = admit
        self._seq = 0
        self._seq_limit = 0
        self._hlc_limit = 0
        self._chains = Chains(mesh)
        self._members: set[bytes] = set()
        self._touched: set[str] = set()
        self._withheld: set[tuple[str, bytes]] = set()
        self._reshown: set[str] = set()
        self._books: dict[str, _Books] = {}
        database.before_commit = self._committing
        database.on_commit = self._committed
        database.on_rollback = self._forget

    @property
    def author(self) -> bytes:
        """The 16-byte name under which this node writes now."""
        return author_id(self.node_key, self.epoch)

    # Opening and closing

    def load(self, connection: sqlite3.Connection) -> None:
        """Continue where this node stopped, or in a new epoch on a new database. Runs before any job."""
        saved = dict(connection.execute("SELECT key, value FROM meta"))
        self.epoch = saved.get("epoch") or secrets.randbits(63)
        self._seq = saved.get("seq", 0)
        self.clock.last = saved.get("hlc", 0)
        connection.execute("BEGIN IMMEDIATE")
        self._reserve(connection)
        connection.execute("COMMIT")

    def stop(self, connection: sqlite3.Connection) -> None:
        """The last job of a clean stop: the next start goes on with the very next seq."""
        self._seq_limit = self._seq
        self._save(connection, epoch=self.epoch, seq=self._seq, hlc=self.clock.last)

    def renew_epoch(self, connection: sqlite3.Connection) -> None:
        """Go on as a new author, when we can't be sure that we remember all that we have sent."""
        self.epoch = secrets.randbits(63)
        self._seq = 0
        self._reserve(connection)

    # Writing: on the writer's thread, inside a transaction

    def append(self, connection: sqlite3.Connection, drafts: Sequence[Draft], now_ms: int) -> list[Op]:
        """Stamp, chain, sign and insert our own ops, in order; they show at once."""
        ops = []
        limit = self.held_after(now_ms)
        if self.clock.last > limit + timestamp(FAR_AHEAD_MS) and timestamp(now_ms) <= limit:
            self.clock.last = timestamp(now_ms)
        for draft in drafts:
            op = self._seal(connection, draft, now_ms)
            self._introduce(connection, op)
            self._chains.insert(connection, self._chains.project(connection, op.project), op)
            ops.append(op)
        self._finish(connection, ops, now_ms)
        return ops

    def merge(self, connection: sqlite3.Connection, ops: Iterable[Op], now_ms: int, peer: str | None = None) -> Merged:
        """Take in verified ops of `peer`. Raises UnknownAuthor, and then nothing of the transaction stays."""
        chains = self._chains
        merged = Merged()
        old_copy = False
        for op in ops:
            project = chains.project(connection, op.project)
            if chains.has(connection, project, op):
                merged.known += 1
                continue
            self._require_member(connection, op)
            if not chains.joins(connection, project, op):
                old_copy = old_copy or op.author == self.author
                chains.set_aside(connection, op)
                merged.ahead += 1
                continue
            joining = [op]
            while joining:
                new = joining.pop()
                cause = self._account_for(connection, project, new, merged)
                lost = cause in (Cause.LOST_ROW, Cause.BIT_ROT)
                old_copy = old_copy or (new.author == self.author and not lost)
                chains.insert(connection, project, new)
                self.clock.observe(new.timestamp, now_ms)
                merged.new.append(new)
                joining += chains.take_following(connection, new)
        if old_copy:
            self.renew_epoch(connection)
        if merged.repaired:
            repairs.record(connection, now_ms, peer, merged.repaired)
        self._finish(connection, merged.new, now_ms)
        return merged

    def _account_for(self, connection: sqlite3.Connection, project: int, op: Op, merged: Merged) -> Cause | None:
        """Why an op joins at another place than the end of its chain; None when it is simply the next."""
        head = self._chains.head(connection, project, op.author)
        withheld = (op.project, op.author) in self._withheld
        if (op.header.prev_seq, op.header.prev_hash) == (head.seq, head.hash[:PREV_BYTES]):
            if op.author == self.author:
                cause = Cause.RESTORED_BACKUP
            elif withheld:
                cause = Cause.WITHHELD
            else:
                return None
        else:
            cause = repairs.cause_of(connection, project, head.seq, op, self.node_key)
        self._withheld.discard((op.project, op.author))
        repairs.close_gap(connection, project, op)
        merged.repaired[op.project, cause, node_id(op.header.node_key)] += 1
        return cause

    def withheld(self, project: str, author: bytes) -> None:
        """A peer claimed ops that it did not give. When another gives them, that is a repair."""
        if len(self._withheld) < MAX_WITHHELD:
            self._withheld.add((project, author))

    def mend(
        self, connection: sqlite3.Connection, project: str, level: int, place: int, now_ms: int, peer: str | None = None
    ) -> leaves.Mended:
        """Make the books below a node of the tree true. What is missing then, a walk brings back.

        What is shown stays: it was made when the bytes were right.
        """
        mended = leaves.mend(connection, self.mesh, project, level, place)
        number = self._chains.project(connection, project)
        repairs.note_rotten(connection, number, mended.rotten, now_ms)
        if mended.drifted:
            repairs.record(connection, now_ms, peer, Counter({(project, Cause.DRIFTED_SUM, None): 0}))
        self._touched.add(project)
        return mended

    def give_up_gaps(self, connection: sqlite3.Connection, now_ms: int) -> None:
        """Claim no longer what nobody has given back."""
        self._touched.update(repairs.give_up(connection, now_ms))

    def set_ahead(self, connection: sqlite3.Connection, ahead_ms: int, now_ms: int) -> None:
        """Most peers say that our clock is `ahead_ms` ahead: hold what we wrote meanwhile, or cease to."""
        self.ahead_ms = ahead_ms
        limit = self.held_after(now_ms)
        rows = connection.execute(
            "SELECT h.project, h.seq FROM heads h JOIN authors a ON a.id = h.author WHERE a.name = ?", (self.author,)
        ).fetchall()
        hold: dict[tuple[int, str], int] = {}
        for project, seq in rows:
            newest = connection.execute(
                "SELECT o.timestamp, o.subject FROM ops o JOIN authors a ON a.id = o.author"
                " WHERE o.project = ? AND a.name = ? AND o.seq <= ? ORDER BY o.seq DESC",
                (project, self.author, seq),
            )
            for stamp, subject in newest:
                if stamp <= limit:
                    break
                connection.execute("INSERT OR IGNORE INTO held VALUES (?,?,?)", (stamp, project, subject))
                hold[project, subject] = stamp
        for project, subject in hold:
            self._show(connection, project, subject, now_ms)
        self._finish(connection, [], now_ms)

    def release(self, connection: sqlite3.Connection, now_ms: int) -> int:
        """Show anew what is held no longer; how many ops are held still. A write does so too; an idle node must ask."""
        self._finish(connection, [], now_ms)
        (held,) = connection.execute("SELECT count(*) FROM held").fetchone()
        return int(held)

    def rebuild(self, connection: sqlite3.Connection, now_ms: int) -> int:
        """Make every derived table anew from the ops, in the order in which they came; how many facts are shown."""
        for clear in (shown.clear, *self.clears):
            clear(connection)
        subjects = connection.execute("SELECT project, subject FROM ops GROUP BY project, subject ORDER BY min(id)")
        for project, subject in subjects.fetchall():
            self._show(connection, project, subject, now_ms)
        for rebuild in self.rebuilds:
            rebuild(connection)
        (facts,) = connection.execute("SELECT count(*) FROM facts").fetchone()
        return int(facts)

    def show_anew(self, connection: sqlite3.Connection, now_ms: int) -> bool:
        """Rebuild, if an earlier version has shown what is here. Runs before any job; whether it was so."""
        saved = dict(connection.execute("SELECT key, value FROM meta WHERE key = 'shown_by'"))
        if saved.get("shown_by") == SHOWN_BY:
            return False
        connection.execute("BEGIN IMMEDIATE")
        self.rebuild(connection, now_ms)
        self._save(connection, shown_by=SHOWN_BY)
        connection.execute("COMMIT")
        return True

    def effective_ops(
        self, connection: sqlite3.Connection, subject: str, project: int, at_hand: Mapping[bytes, Op] | None = None
    ) -> list[Op]:
        """The ops of one subject that are in effect, on any connection. `at_hand`: ops by hash, to be read no more."""
        at_hand = at_hand or {}
        rows = connection.execute(
            "SELECT o.hash, o.raw, p.name FROM ops o JOIN projects p ON p.id = o.project"
            " WHERE o.subject = ? AND o.project = ? AND o.waiting = 0",
            (subject, project),
        )
        ops = (at_hand.get(op_hash) or self._read(name, op_hash, raw) for op_hash, raw, name in rows)
        return [op for op in ops if op is not None]

    def _read(self, project: str, op_hash: bytes, raw: bytes) -> Op | None:
        """The op in a row; None, and a suspect, when the row is no longer what it was."""
        if not leaves.intact(self.mesh, project, op_hash, raw):
            self._suspect(project, op_hash)
            return None
        return decode(self.mesh, raw)

    def _suspect(self, project: str, op_hash: bytes) -> None:
        self.suspects.add((project, op_hash))
        self.on_suspect()

    def held_after(self, now_ms: int) -> int:
        """The highest timestamp that is not held now."""
        return horizon(now_ms - self.ahead_ms, self.clock.ahead_ms)

    # Reading committed state: on the event loop's thread

    def projects(self) -> list[str]:
        """The projects of which any op is here, the reserved one first."""
        rows = self.database.direct.execute(
            "SELECT name FROM projects WHERE ops > 0 ORDER BY name <> ?, name", (RESERVED,)
        )
        return [name for (name,) in rows]

    def vector(self, project: str) -> Mapping[bytes, int]:
        """Author id to the seq of the last op of its gapless chain here."""
        return self._read_books(project).vector

    def vector_digest(self, project: str) -> bytes:
        """16 bytes that are equal on nodes with equal vectors."""
        return digest(self.vector(project))

    def root(self, project: str) -> bytes:
        """The 16-byte Merkle root of all ops of `project`."""
        return self._read_books(project).root

    def ops_after(self, project: str, author: bytes, seq: int, max_ops: int, max_bytes: int) -> list[bytes]:
        """The author's next ops above `seq`, in chain order: at least one if there is one, within both bounds."""
        rows = self.database.direct.execute(
            "SELECT o.hash, o.raw FROM ops o WHERE o.project = (SELECT id FROM projects WHERE name = ?)"
            " AND o.author = (SELECT id FROM authors WHERE name = ?) AND o.seq > ? ORDER BY o.seq, o.hash LIMIT ?",
            (project, author, seq, max_ops),
        )
        ops: list[bytes] = []
        size = 0
        for op_hash, raw in rows:
            if not leaves.intact(self.mesh, project, op_hash, raw):  # nobody takes it, nor what follows it
                self._suspect(project, op_hash)
                break
            size += len(raw)
            if ops and size > max_bytes:
                break
            ops.append(raw)
        return ops

    def sums(self, project: str, level: int, place: int) -> Mapping[int, Leaf]:
        """What the books say of the children of a node of the project's tree."""
        return leaves.sums(self.database.direct, project, level, place)

    def rows(self, project: str, level: int, place: int, most: int) -> Rows:
        """What is really there below a node."""
        return leaves.rows(self.database.direct, self.mesh, project, level, place, most)

    def op(self, project: str, digest: bytes) -> bytes | None:
        """The op with this hash, if it is here as it was."""
        row = self.database.direct.execute(
            "SELECT raw FROM ops WHERE project = (SELECT id FROM projects WHERE name = ?) AND hash = ?",
            (project, digest),
        ).fetchone()
        return row[0] if row and leaves.intact(self.mesh, project, digest, row[0]) else None

    def content(self, project: str, level: int, place: int, salt: bytes) -> bytes:
        """A digest of all bytes below a node, under a salt."""
        return leaves.content(self.database.direct, project, level, place, salt)

    def _read_books(self, project: str) -> _Books:
        """From one statement, so from one snapshot: a root always stands for the ops that the vector claims."""
        books = self._books.get(project)
        if books is None:
            rows = self.database.direct.execute(
                "SELECT a.name, min(h.seq, coalesce((SELECT min(g.before) FROM gaps g WHERE g.project = h.project"
                " AND g.author = h.author AND g.told), h.seq)), p.sum, p.ops FROM projects p"
                " JOIN heads h ON h.project = p.id JOIN authors a ON a.id = h.author WHERE p.name = ?",
                (project,),
            ).fetchall()
            total, count = rows[0][2:] if rows else (0, 0)
            books = _Books({name: seq for name, seq, *_ in rows if seq}, merkle.root(merkle.from_signed(total), count))
            self._books[project] = books
        return books

    # One op of ours

    def _seal(self, connection: sqlite3.Connection, draft: Draft, now_ms: int) -> Op:
        self._seq += 1
        if self._seq_limit - self._seq < SEQ_BLOCK // 2:
            self._reserve(connection)
        head = self._chains.head(connection, self._chains.project(connection, draft.project), self.author)
        header = Header(
            format=FORMAT,
            project=draft.project,
            op_class=int(draft.op_class),
            subject=draft.subject,
            field=draft.field,
            node_key=self.node_key,
            epoch=self.epoch,
            seq=self._seq,
            prev_seq=head.seq,
            prev_hash=head.hash[:PREV_BYTES],
            timestamp=self.clock.issue(now_ms),
            clock=draft.clock,
            kind=draft.kind,
            body=draft.body if isinstance(draft.body, bytes) else draft.body(Dot(self.author, self._seq)),
        )
        return seal(self.mesh, header, self._secret_key)

    def _reserve(self, connection: sqlite3.Connection) -> None:
        self._seq_limit = self._seq + SEQ_BLOCK
        self._save(connection, epoch=self.epoch, seq=self._seq_limit)

    def _save(self, connection: sqlite3.Connection, **values: int) -> None:
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    # Who may write

    def _require_member(self, connection: sqlite3.Connection, op: Op) -> None:
        key = op.header.node_key
        if self._introduce(connection, op) or key in self._members:
            return
        node = node_id(key)
        known = connection.execute("SELECT 1 FROM members WHERE node = ?", (node,)).fetchone()
        if known is None and key != self.node_key:
            raise UnknownAuthor(f"node {node} has shown no certificate of this mesh")
        self._members.add(key)

    def _introduce(self, connection: sqlite3.Connection, op: Op) -> bool:
        """Note the certificate that `op` shows, the newest of each node; whether it shows one."""
        introduction = self._admit(op) if op.project == RESERVED else None
        if introduction is None:
            return False
        connection.execute(
            "INSERT INTO members (node, name, certificate, timestamp, hash) VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE"
            " SET name = excluded.name, certificate = excluded.certificate, timestamp = excluded.timestamp,"
            " hash = excluded.hash WHERE (excluded.timestamp, excluded.hash) > (timestamp, hash)",
            (*introduction, op.timestamp, op.hash),
        )
        return True

    # The end of every change

    def _finish(self, connection: sqlite3.Connection, ops: Sequence[Op], now_ms: int) -> None:
        """Once a job: heads and leaf sums, ops that wait or are held no longer, and what all of that shows."""
        self._chains.save_heads(connection)
        by_project: dict[str, list[Op]] = {}
        for op in ops:
            by_project.setdefault(op.project, []).append(op)
        subjects = dict.fromkeys(self._due(connection, now_ms))
        for name, added in by_project.items():
            project = self._chains.project(connection, name)
            self._touched.add(name)
            leaves.add(connection, project, [op.hash for op in added])
            woken = self._chains.wake(connection, project, {op.author for op in added})
            subjects |= dict.fromkeys((project, op.subject) for op in [*added, *woken])
            self._hold(connection, project, added, now_ms)
        at_hand = {op.hash: op for op in ops}
        for project, subject in subjects:
            self._show(connection, project, subject, now_ms, at_hand)
        if self.clock.last > self._hlc_limit:
            self._hlc_limit = self.clock.last + timestamp(HLC_RESERVE_MS)
            self._save(connection, hlc=self._hlc_limit)

    def _hold(self, connection: sqlite3.Connection, project: int, ops: Iterable[Op], now_ms: int) -> None:
        limit = self.held_after(now_ms)
        connection.executemany(
            "INSERT OR IGNORE INTO held VALUES (?,?,?)",
            [(op.timestamp, project, op.subject) for op in ops if op.timestamp > limit],
        )

    def _due(self, connection: sqlite3.Connection, now_ms: int) -> list[tuple[int, str]]:
        """The subjects of ops that were held until now."""
        limit = self.held_after(now_ms)
        due = connection.execute(
            "SELECT timestamp, project, subject FROM held WHERE timestamp <= ?", (limit,)
        ).fetchall()
        if due:
            connection.execute("DELETE FROM held WHERE timestamp <= ?", (limit,))
        for stamp, _, _ in due:
            self.clock.observe(stamp, now_ms)
        return [(project, subject) for _, project, subject in due]

    def _show(
        self,
        connection: sqlite3.Connection,
        project: int,
        subject: str,
        now_ms: int,
        at_hand: Mapping[bytes, Op] | None = None,
    ) -> None:
        ops = self.effective_ops(connection, subject, project, at_hand)
        word, slash, _ = subject.partition("/")
        if slash:  # a fact's id has none
            if word in self.shows:
                self.shows[word](connection, project, subject, ops)
            return
        self._reshown.update((subject, shown.scope(project)))
        shown.show(connection, project, subject, ops, self.held_after(now_ms))

    def changes(self, projects: Iterable[int]) -> None:
        """In a job: searches of these projects may be answered otherwise once it is committed."""
        self._reshown.update(shown.scope(project) for project in projects)

    def searches_changed(self, projects: Iterable[int] | None) -> None:
        """Searches of these projects, or of all, are answered otherwise from now on, without a commit."""
        self.generations.move(None if projects is None else map(shown.scope, projects))

    def _committing(self) -> None:
        self.generations.begin(self._reshown)

    def _committed(self) -> Callable[[], None]:
        self._committing()  # where nobody has said so before
        self.generations.end()
        self._reshown = set()
        touched, self._touched = self._touched, set()

        def announce() -> None:
            for name in touched:
                self._books.pop(name, None)
            if touched:
                self.on_change(touched)

        return announce

    def _forget(self) -> None:
        """After a rollback: what was read or reserved in the transaction may not be true. Seqs are simply skipped."""
        self.generations.end()
        self._chains.forget()
        self._members.clear()
        self._seq_limit = 0
        self._hlc_limit = 0
