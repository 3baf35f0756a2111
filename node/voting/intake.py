"""One checkpoint, one record of entries, one fork at a time: whether it is to be believed, and what follows.

The roots that were accepted are one history: each was proved to continue the one before, or computed from entries that
are here. Everything else is measured by it.

* A checkpoint counts when a hub that may has signed it (node/voting/signers.py). A newer one is accepted with a proof
  from the newest root that was accepted; any one when our own entries lead to its root. What can't be told yet waits
  for the checkpoint that it continues, or for entries; that convicts nobody.
* An entry is taken with its inclusion proof under an accepted root, and with its text. One that is here already, the
  same to the byte, is nothing new.
* A fork is kept with its evidence, whoever found it. What was accepted before stays: no second history is merged.

An `Intake` is one job's view of the ledger; it writes through the job's connection and collects what the rest of the
node is to hear of (`Gathered`). Tests: tests/node/voting/test_intake.py.
"""

import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from crdt.op import Op
from ledger import entry as entries
from ledger import tlog
from ledger import vote as votes
from ledger.checkpoint import Checkpoint, Fork, ForkError, Opened, Standing, compare, parse_text
from ledger.entry import BadEntry, Entry, Kind
from ledger.note import BadNote, parse
from ledger.tlog import BadProof
from ledger.verify import Finding
from ledger.vote import BadVote
from node.voting import announce, records
from node.voting.accepted import DAMAGED, FORK, Gathered, accepted_size, read_forks, root_at
from node.voting.records import Announced, Entries, read
from node.voting.signers import Signers
from node.voting.table import Line, Table
from sync.overlap import RESERVED

MAX_FORKS: Final = 16
"""Pieces of evidence that are kept. One convicts; a hub that goes on with both histories makes one with each batch."""
MAX_LOOKED_AT: Final = 50
"""Records of entries among which that of a grant is looked for: it is the first that is announced in its epoch."""


class Waits(NamedTuple):
    """The row of the inbox stays, and need not be looked at before the root at `size` is known here, or at `since`.

    Without a size nobody knows what will decide it. Where a row does not wait it goes: taken in, known already, or
    without effect under the grants that are known.
    """

    size: int | None = None
    since: int | None = None


class _Unfit(Exception):
    """A record that says what its own proofs do not show."""


class Intake:
    """`mesh`: its id; `node_key`: ours. A hub among the signers freezes on what it finds wrong."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        mesh: bytes,
        node_key: bytes,
        signers: Signers,
        gathered: Gathered,
        now_ms: int,
    ) -> None:
        self.gathered = gathered
        self._connection = connection
        self._table = Table(connection)
        self._mesh = mesh
        self._is_hub = signers.is_hub(node_key)
        self._signers = signers
        self._now_ms = now_ms

    # Checkpoints

    def take_checkpoint(self, op: Op) -> Waits | None:
        """A hub's announcement; anybody may have written the op, but for the first."""
        record = read(op, Announced)
        seen = _said(record.note) if record else None
        if record is None or seen is None or not seen.size or seen.origin != self._signers.origin:
            return None
        try:
            opened = self._signers.open(record.note)
        except BadNote:
            return None
        known, accepted = root_at(self._connection, seen.size), accepted_size(self._connection)
        if known is None and seen.size < accepted:
            return Waits(seen.size)
        if known is None and not self._reaches(record.since, accepted):
            return Waits(seen.size, record.since or None)
        if known is None and record.since == 0 and not self._signers.names(op.header.node_key, seen.size):
            return None
        if known != seen.root and not self._of_epoch(opened, record):
            return Waits()
        if known == seen.root:
            self._keep_note(opened, accepted)
            return None
        try:
            if known is not None:
                return self._contradict(opened, known)
            return self._continue(opened, record, accepted)
        except ForkError as error:
            self._convict(error)
            return None

    def _reaches(self, since: int, accepted: int) -> bool:
        """Whether a proof that begins at `since` can show anything here. The first checkpoint needs none, so only a hub
        may say which one that is: a later one would leave whoever comes new without a way from there.
        """
        return accepted == 0 if since == 0 else root_at(self._connection, since) is not None

    def _continue(self, opened: Opened, record: Announced, accepted: int) -> Waits | None:
        """One beyond everything that was accepted, of which the proof begins at a root that was."""
        root = root_at(self._connection, record.since)
        assert root is not None
        if record.since == 0:  # the first that this node sees; nothing was accepted that it could contradict
            self._accept(opened)
            return None
        standing = compare(self._opened(record.since, root), opened, record.proof)
        if standing is not Standing.NEWER or record.since != accepted:
            return Waits(opened.checkpoint.size, record.since if record.since > accepted else None)
        self._accept(opened)
        return None

    def _of_epoch(self, opened: Opened, record: Announced) -> bool:
        """Whether it was signed under the grant in force there, and not before, in a tail that was left behind.

        The key tells, unless a hub took over from itself, after its disk was lost. Then it has to be shown that the
        grant's entry is in it: by a proof from an accepted root of this epoch, or by that entry's inclusion proof.
        """
        if not self._signers.left(record.note, opened.checkpoint.size):
            return True
        seen, granted = opened.checkpoint, self._signers.granted_at(opened.checkpoint.size)
        assert granted is not None
        start, name = granted.grant.start_size, granted.name
        if record.since > start and (root := root_at(self._connection, record.since)) is not None:
            then, now = _rebuilt(record, seen.size, root)
            return then == root and now == seen.root
        rows = self._connection.execute(
            "SELECT o.raw FROM ledger_inbox i JOIN ops o ON o.project = i.project AND o.hash = i.hash"
            " JOIN projects p ON p.id = i.project WHERE i.kind = ? AND i.at <= ? AND p.name = ?"
            " ORDER BY i.at DESC LIMIT ?",
            (records.ENTRIES, start, RESERVED, MAX_LOOKED_AT),
        )
        ops = (records.stored(self._mesh, raw) for (raw,) in rows)
        found = (read(op, Entries) for op in ops if op)
        return any(one and one.size == seen.size and _holds(one, start, name, seen.root) for one in found)

    def _keep_note(self, opened: Opened, accepted: int) -> None:
        """A root that our entries lead to, or that was accepted, is signed: its note stays, if it is news."""
        size = opened.checkpoint.size
        row = self._connection.execute("SELECT note FROM ledger_checkpoints WHERE size = ?", (size,)).fetchone()
        if row is None or (row[0] is None and size == accepted):
            self._accept(opened)
        if row is None and self._is_hub and size < accepted:
            self._bridge(size)

    def _bridge(self, size: int) -> None:
        """Nodes that have accepted a checkpoint which this hub had not heard of: a proof that leads on from there.

        The hub announces one checkpoint since the other; who has one between two of them could not follow.
        """
        newest = self._table.newest_checkpoint()
        later = _said(newest) if newest else None
        if newest and later and size < later.size <= self._table.head().size:
            proof = tuple(tlog.prove_consistency(size, later.size, self._table))
            self.gathered.drafts.append(records.checkpoint_draft(later.size, Announced(newest, size, proof)))

    def _accept(self, opened: Opened) -> None:
        self._table.add_checkpoint(opened.checkpoint.size, opened.raw, self._now_ms)
        announce.heard(self._table, opened.checkpoint.size)
        self.gathered.moved = True

    # Forks

    def take_fork(self, op: Op) -> Waits | None:
        """Evidence that another node found: kept when it convicts, by the keys that may sign at those sizes."""
        if fork := read(op, Fork):
            try:
                older, newer = self._signers.open(fork.older), self._signers.open(fork.newer)
            except BadNote:  # signed by nobody who may: it convicts nobody, and is looked at again under other grants
                return None
            try:
                compare(older, newer, fork.proof, fork.root_then)
            except ForkError as error:
                if not self._signers.left(fork.older, older.checkpoint.size):  # else it may be of a tail left behind
                    self._keep(fork, str(error))
        return None

    def _contradict(self, opened: Opened, known: bytes) -> Waits | None:
        """Signed by a hub that may, with another root than ours. Raises ForkError when there is evidence."""
        size, head = opened.checkpoint.size, self._table.head().size
        accepted = "SELECT 1 FROM ledger_checkpoints WHERE size = ?"
        if self._connection.execute(accepted, (size,)).fetchone():
            compare(self._opened(size, known), opened)
        query = "SELECT size, root FROM ledger_checkpoints WHERE size > ? AND size <= ? AND note NOT NULL ORDER BY size"
        if later := self._connection.execute(query, (size, head)).fetchone():
            proof = tlog.prove_consistency(size, later[0], self._table)
            compare(self._opened(*later), opened, proof, known)
        if self._is_hub and self._table.frozen() is None:  # a second life of this hub, or of another with its grant
            finding = Finding(None, FORK, f"another root was signed for {size} entries, and ours has yet to be")
            self.gathered.alerts.append((FORK, finding.detail))
            self._freeze(finding)
        return Waits()

    def _convict(self, error: ForkError) -> None:
        if not (error.fork.older and error.fork.newer):  # the note of an accepted root is nowhere to be found
            self.gathered.alerts.append((FORK, str(error)))
        elif self._keep(error.fork, str(error)):
            self.gathered.drafts.append(records.fork_draft(error.fork))

    def _keep(self, fork: Fork, detail: str) -> bool:
        """Keeps the evidence; whether it is the first of its epoch, and thus to be told to all."""
        kept, raw = read_forks(self._connection), msgspec.msgpack.encode(fork)
        if fork in kept or len(kept) >= MAX_FORKS:
            return False
        row = (entries.text_hash(raw), raw, self._now_ms)
        self._connection.execute("INSERT INTO ledger_forks VALUES (?, ?, ?)", row)
        self.gathered.alerts.append((FORK, detail))
        epoch = self._signers.epoch_of(fork)
        if epoch == self._signers.epoch:  # the newest grant has settled what was before it
            self._freeze(Finding(None, FORK, detail))
        return epoch not in map(self._signers.epoch_of, kept)

    # Entries

    def take_entries(self, op: Op) -> Waits | None:
        """Entries of the op's project, proved under a root that was accepted. All of the record or none."""
        if (record := read(op, Entries)) is None:
            return None
        if (root := root_at(self._connection, record.size)) is None:
            return Waits(record.size)
        try:
            lines = list(self._new_lines(record, root, op.project))
        except (_Unfit, BadProof, BadEntry, IndexError):
            return None
        if lines:
            before = self._table.head().size
            self._table.put(lines)
            self._check_head(before, self._table.close_gap().size)
            self.gathered.entries += map(_place, lines)
            self.gathered.moved = True
        return None

    def _new_lines(self, record: Entries, root: bytes, project: str) -> Iterator[Line]:
        """Those of the record that are not here yet, each checked. Raises what `take_entries` catches."""
        if len(record.proofs) != len(record.lines):
            raise _Unfit
        before, texts = -1, set[bytes]()
        for (raw, text), places in zip(record.lines, record.proofs, strict=True):
            entry = entries.decode(raw)
            if entry.index <= before or text in texts or min(places, default=0) < 0:
                raise _Unfit
            before = entry.index
            texts.add(text)
            here = self._connection.execute("SELECT raw FROM ledger_entries WHERE id = ?", (entry.index,)).fetchone()
            if here and here[0] == raw:
                continue
            if not _belongs(project, entry, text):
                raise _Unfit
            proof = tuple(record.hashes[place] for place in places)
            tlog.check_inclusion(proof, entry.index, record.size, tlog.leaf_hash(raw), root)
            if finding := self._objection(entry, raw, here is not None):
                self._alarm(finding)
                raise _Unfit
            yield Line(raw, text, record.size, proof)

    def _objection(self, entry: Entry, raw: bytes, here: bool) -> Finding | None:
        """What is wrong, here or with the hub, when an entry is proved and can't be taken in all the same."""
        if here:
            return Finding(entry.index, "chain", "the entry stored here is not the one that the checkpoint stands for")
        if entry.index == 0 and entries.entry_hash(raw) != self._signers.ledger:
            return Finding(0, "statement", "the first entry is that of another ledger than the grant names")
        if (known := self._table.find(entry.text_hash)) is not None:
            return Finding(entry.index, "duplicate", f"its text is that of entry {known}, too")
        return None

    def _check_head(self, before: int, size: int) -> None:
        """Now that the entries are whole up to `size`: they lead to the newest root that was accepted among them."""
        query = "SELECT max(size), root FROM ledger_checkpoints WHERE size > ? AND size <= ?"
        reached, root = self._connection.execute(query, (before, size)).fetchone()
        if reached is not None and tlog.root(reached, self._table) != root:
            self._alarm(Finding(reached, "root", f"the first {reached} entries have another root than was accepted"))

    def _alarm(self, finding: Finding) -> None:
        self.gathered.alerts.append((DAMAGED, f"entry {finding.index}: {finding.code}: {finding.detail}"))
        self._freeze(finding)

    def _freeze(self, finding: Finding) -> None:
        """A hub appends and signs no more (ledger.log)."""
        if self._is_hub and self._table.frozen() is None:
            self._table.freeze(finding)

    # What was accepted

    def _opened(self, size: int, root: bytes) -> Opened:
        """The accepted checkpoint of this size, with its note: ours, or, when that is kept no longer, an op's."""
        row = self._connection.execute("SELECT note FROM ledger_checkpoints WHERE size = ?", (size,)).fetchone()
        checkpoint = Checkpoint(self._signers.origin, size, root)
        return Opened(checkpoint, row[0] if row and row[0] else self._announced_note(checkpoint), (), ())

    def _announced_note(self, checkpoint: Checkpoint) -> bytes:
        rows = self._connection.execute(
            "SELECT o.raw FROM ops o JOIN projects p ON p.id = o.project WHERE o.subject = ? AND p.name = ?",
            (f"{records.LEDGER}/checkpoint/{checkpoint.size}", RESERVED),
        )
        ops = (records.stored(self._mesh, raw) for (raw,) in rows)
        announced = (read(op, Announced) for op in ops if op)
        notes = (one.note for one in announced if one and _said(one.note) == checkpoint)
        return next(filter(self._is_signed, notes), b"")

    def _is_signed(self, raw: bytes) -> bool:
        try:
            self._signers.open(raw)
        except BadNote:
            return False
        return True


def _place(line: Line) -> tuple[bytes, int]:
    entry = entries.decode(line.raw)
    return entry.text_hash, entry.index


def _said(raw: bytes) -> Checkpoint | None:
    """What a note says, whoever signed it."""
    try:
        return parse_text(parse(raw).text)
    except BadNote:
        return None


def _rebuilt(record: Announced, size: int, root: bytes) -> tuple[bytes, bytes]:
    """The two roots that the proof of an announcement leads to; empty ones for a proof that is none."""
    try:
        return tlog.rebuild_roots(record.proof, record.since, size, root)
    except BadProof:
        return b"", b""


def _holds(record: Entries, index: int, name: bytes, root: bytes) -> bool:
    """Whether the record proves that the entry at `index` has the text of this hash, under `root`."""
    for (raw, _), places in zip(record.lines, record.proofs, strict=False):
        try:
            entry = entries.decode(raw)
            if (entry.index, entry.text_hash) == (index, name):
                proof = [record.hashes[place] for place in places]
                tlog.check_inclusion(proof, index, record.size, tlog.leaf_hash(raw), root)
                return True
        except (BadEntry, BadProof, IndexError):
            continue
    return False


def _belongs(project: str, entry: Entry, text: bytes) -> bool:
    """Whether this is the entry's text, in the project that it is about. What a later version writes is not judged."""
    if entries.text_hash(text) != entry.text_hash or (entry.project_tag == entries.NO_PROJECT) != (project == RESERVED):
        return False
    try:
        return entry.kind != Kind.VOTE or votes.decode(text).project == project
    except BadVote:
        return True  # a hub's mistake, in the chain for ever; it counts nowhere
