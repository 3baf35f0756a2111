"""Appending: votes and statements become entries, at one commit point, and a checkpoint is signed over what was stored.

    plan      drafts -> a `Batch`: entries, the hashes that they add, the head before and after. Reads only.
    commit    THE COMMIT POINT: the quorum makes a batch durable, whole or not at all (ledger.quorum).
    publish   reads back what is stored beyond the newest checkpoint, checks it, and only then signs.

A draft whose text is in the ledger already gets the entry that exists. So after any doubt - an error, a time-out, a
crash - the caller sends everything again: never two entries for one vote, never an acknowledged one lost. There is no
other recovery: `append` begins by publishing what an earlier one may have left committed and unsigned.

When what is read back is not what was committed the log is frozen: nothing is appended or signed until `repair` has put
back bytes that hash to the committed leaf, and the whole log has been verified. Signing over damage would make it the
truth; logs have ended that way.

What is asked of the store is `Storage`; nothing here holds the log or its tree in memory. Every write failed in two
ways, stored and not stored: tests/ledger/test_log.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from ledger import entry as entries
from ledger import statement, tlog, verify
from ledger.checkpoint import Checkpoint, origin_of, parse_text, sign_checkpoint
from ledger.entry import NO_HASH, NO_PROJECT, Entry, Kind
from ledger.note import Signer, parse
from ledger.receipt import Receipt, format_receipt
from ledger.statement import BadStatement, Grant
from ledger.tlog import Frontier, Stored
from ledger.verify import Finding, Source, Walk

MAX_BATCH: Final = 100
"""Entries of one commit: enough to make an fsync cheap for each, and etcd takes 128 operations in one transaction."""


class Frozen(Exception):
    """The log failed a check of itself. `finding` says what is wrong; see `repair`."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"entry {finding.index}: {finding.code}: {finding.detail}")
        self.finding = finding


class Head(NamedTuple):
    """Where the log ends: all that an append must know of it, and what a quorum compares. A few hundred bytes."""

    epoch: int
    chain: bytes
    frontier: Frontier

    @property
    def size(self) -> int:
        return self.frontier.size


EMPTY: Final = Head(0, NO_HASH, Frontier())


class Draft(NamedTuple):
    """A text that wants an entry; the caller has verified it. `own`: the voter wrote the version (ledger.score)."""

    kind: Kind
    text: bytes
    project_tag: bytes = NO_PROJECT
    own: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit adds: entries with their texts, the hashes of the subtrees that they complete, the new head."""

    before: Head
    after: Head
    entries: tuple[bytes, ...]
    texts: tuple[bytes, ...]
    stored: tuple[Stored, ...]


class Storage(Source, Protocol):
    """One ledger on disk. What a write has stored when it raises is unknown, and nothing here assumes either."""

    def head(self) -> Head:
        """The head that the last commit wrote; EMPTY before the first. Reads see every commit that has returned."""
        ...

    def find(self, text_hash: bytes) -> int | None:
        """The index of the entry with this text. Texts are unique: an index on the column makes it so."""
        ...

    def last_of(self, project_tag: bytes) -> int:
        """The index of the last entry with this tag (NO_PROJECT is one), 0 when there is none."""
        ...

    def commit(self, batch: Batch) -> None:
        """Adds all of `batch`, if the head is still `batch.before`, or nothing. Durable when it returns."""
        ...

    def newest_checkpoint(self) -> bytes | None:
        """The note of the largest checkpoint that was added."""
        ...

    def add_checkpoint(self, size: int, note: bytes) -> None:
        """Keeps a note, durably, in place of one of the same size. See checkpoint.superfluous for which may go."""
        ...

    def frozen(self) -> Finding | None: ...

    def freeze(self, finding: Finding | None) -> None:
        """Remembers, durably, why nothing may be appended; None: it may again."""
        ...

    def replace_entry(self, index: int, raw: bytes) -> None:
        """Puts back the bytes of one entry. Only `repair` calls it."""
        ...


@dataclass(frozen=True, slots=True)
class Appended:
    """For each draft, in order, its entry's index and whether that existed before; and a checkpoint over them all."""

    places: tuple[tuple[int, bool], ...]
    checkpoint: bytes


def append(storage: Storage, drafts: Sequence[Draft], signer_secret: bytes, now_ms: int) -> Appended:
    """Appends what is not there yet, up to MAX_BATCH drafts, by a hub whose storage is its whole quorum.

    The caller has seen to it that it may (ledger.quorum.check_may_append). A hub of several runs the same steps with
    its quorum's commit between them. Raises Frozen, ValueError for drafts
    that may not be appended, and what `storage` raises: then send the same drafts again.
    """
    publish(storage, signer_secret)
    batch, places = plan(storage, drafts, now_ms)
    if batch.entries:
        # THE COMMIT POINT. Before it nothing has happened; after it every entry of the batch has its index for ever,
        # whether or not anybody is told. All that follows can be done again.
        storage.commit(batch)
    note = publish(storage, signer_secret)
    if note is None:
        raise ValueError("an empty ledger has no checkpoint: the first draft is its genesis")
    return Appended(places, note)


def found(
    storage: Storage,
    genesis: bytes,
    enrolments: Sequence[bytes],
    grant: Callable[[bytes, int, bytes], bytes],
    signer_secret: bytes,
    now_ms: int,
) -> Appended:
    """Begins a ledger, in one commit: its genesis, the first agents, and the grant that lets a hub go on.

    `grant` makes the text of the grant, signed by the authority, from the ledger's id, its size and root so far.
    """
    drafts = [Draft(Kind.GENESIS, genesis), *(Draft(Kind.ENROLMENT, text) for text in enrolments)]
    if storage.head() != EMPTY:
        raise ValueError("there is a ledger in this storage; a mesh has one")
    batch, _ = plan(storage, drafts, now_ms)
    ledger_id = entries.entry_hash(batch.entries[0])
    text = grant(ledger_id, batch.after.size, tlog.frontier_root(batch.after.frontier))
    return append(storage, [*drafts, Draft(Kind.GRANT, text)], signer_secret, now_ms)


def plan(storage: Storage, drafts: Sequence[Draft], now_ms: int) -> tuple[Batch, tuple[tuple[int, bool], ...]]:
    """The batch that holds those drafts that have no entry yet, each once; and every draft's place. Reads only."""
    if len(drafts) > MAX_BATCH:
        raise ValueError(f"{len(drafts)} drafts, at most {MAX_BATCH} in a batch")
    before = storage.head()
    frontier, chain, epoch = before.frontier, before.chain, before.epoch
    new: dict[bytes, int] = {}
    places, raws, stored = [], [], list[Stored]()
    last_of: dict[bytes, int] = {}
    for draft in drafts:
        name = entries.text_hash(draft.text)
        if (known := storage.find(name)) is None:
            known = new.get(name)
        if known is not None:
            places.append((known, True))
            continue
        index, tag = frontier.size, draft.project_tag
        _check_draft(draft, index, epoch, chain, frontier)
        if tag not in last_of:
            last_of[tag] = storage.last_of(tag)
        raw = entries.encode(Entry(draft.kind, draft.own, index, epoch, now_ms, chain, last_of[tag], tag, name))
        frontier, added = tlog.extend(frontier, [tlog.leaf_hash(raw)])
        chain, epoch = entries.entry_hash(raw), epoch + (draft.kind == Kind.GRANT)
        last_of[tag] = index
        new[name] = index
        places.append((index, False))
        raws.append((raw, draft.text))
        stored += added
    after = Head(epoch, chain, frontier)
    return Batch(before, after, tuple(r for r, _ in raws), tuple(t for _, t in raws), tuple(stored)), tuple(places)


def publish(storage: Storage, signer_secret: bytes) -> bytes | None:
    """The newest checkpoint, after signing one over whatever was committed since the last. None for an empty log.

    Raises Frozen, after remembering it, when what is stored is not what was committed. One read of what is new.
    """
    if finding := storage.frozen():
        raise Frozen(finding)
    head, newest = storage.head(), storage.newest_checkpoint()
    since = parse_text(parse(newest).text) if newest else Checkpoint("", 0, tlog.EMPTY_ROOT)
    if head.size == since.size:
        return newest
    if finding := _check_stored(storage, since, head):
        storage.freeze(finding)
        raise Frozen(finding)
    ledger_id = entries.entry_hash(storage.read_entries(0, 1)[0])
    checkpoint = Checkpoint(origin_of(ledger_id), head.size, tlog.frontier_root(head.frontier))
    note = sign_checkpoint(checkpoint, [Signer(checkpoint.origin, signer_secret)])
    storage.add_checkpoint(head.size, note)
    return note


def receipt(storage: Storage, index: int) -> bytes:
    """The `.tlog-proof` of an entry under the newest checkpoint. Two reads, at most 2 log2(size) hashes."""
    newest = storage.newest_checkpoint()
    size = parse_text(parse(newest).text).size if newest else 0
    if newest is None or not 0 <= index < size:
        raise LookupError(f"entry {index} is not under a checkpoint of {size} entries")
    proof = tuple(tlog.prove_inclusion(index, size, storage))
    return format_receipt(Receipt(index, storage.read_entries(index, 1)[0], proof, newest))


def repair(storage: Storage, index: int, raw: bytes) -> None:
    """Puts back an entry's bytes, from whoever has them. Raises BadProof unless they hash to the committed leaf.

    The log stays frozen until `thaw` has verified all of it.
    """
    newest = storage.newest_checkpoint()
    if newest is None:
        raise tlog.BadProof("no checkpoint says what was committed")
    checkpoint = parse_text(parse(newest).text)
    proof = tlog.prove_inclusion(index, checkpoint.size, storage) if index < checkpoint.size else []
    tlog.check_inclusion(proof, index, checkpoint.size, tlog.leaf_hash(raw), checkpoint.root)
    storage.replace_entry(index, raw)


def thaw(storage: Storage) -> verify.Report:
    """Verifies everything; if nothing is wrong the log may be appended to again."""
    report = verify.verify(storage)
    if all(finding.code == "unsigned" for finding in report.findings):
        storage.freeze(None)
    return report


def encode_head(head: Head) -> bytes:
    """The head as bytes that are equal when the heads are: what a quorum stores and compares."""
    return msgspec.msgpack.encode((head.epoch, head.chain, head.size, head.frontier.hashes))


def decode_head(data: bytes) -> Head:
    """Raises msgspec.DecodeError."""
    epoch, chain, size, hashes = msgspec.msgpack.decode(data, type=tuple[int, bytes, int, tuple[bytes, ...]])
    return Head(epoch, chain, Frontier(size, hashes))


def _check_draft(draft: Draft, index: int, epoch: int, ledger: bytes, frontier: Frontier) -> None:
    """What may stand at this place, whoever verified the text: genesis first and once, a grant that fits."""
    if (draft.kind == Kind.GENESIS) != (index == 0):
        raise ValueError("a ledger begins with its genesis, and has one")
    if draft.kind == Kind.GRANT:
        grant = statement.decode(draft.kind, draft.text)
        fits = isinstance(grant, Grant) and (grant.epoch, grant.start_size) == (epoch + 1, index)
        if not fits or not isinstance(grant, Grant) or grant.start_root != tlog.frontier_root(frontier):
            raise BadStatement(f"the grant is not for epoch {epoch + 1} after these {index} entries")


def _check_stored(storage: Storage, since: Checkpoint, head: Head) -> Finding | None:
    """Whether what is on disk beyond `since` is a continuation of it, and ends where the head says."""
    try:
        frontier = tlog.read_frontier(since.size, storage)
        if tlog.frontier_root(frontier) != since.root:
            return Finding(since.size, "tree", "the stored hashes have another root than was signed")
        walk = _walk_from(storage, frontier)
        while (start := walk.frontier.size) < head.size:
            count = min(verify.CHUNK, head.size - start)
            raws, texts = storage.read_entries(start, count), storage.read_texts(start, count)
            if len(raws) != count or len(texts) != count:
                return Finding(start, "truncated", f"{len(raws)} entries and {len(texts)} texts of {count} are stored")
            decoded, stored, findings = walk.feed(raws)
            if findings:
                return findings[0]
            for (node, computed), found in zip(stored, storage.read_hashes([n for n, _ in stored]), strict=True):
                if computed != found:
                    return Finding(node.number << node.level, "tree", "a stored hash is not that of the entries")
            for entry, text in zip(decoded, texts, strict=True):
                if entry is None or (text is not None and entries.text_hash(text) != entry.text_hash):
                    return Finding(entry.index if entry else start, "text", "the stored text is another")
    except LookupError as error:
        return Finding(since.size, "tree", str(error))
    if Head(walk.epoch, walk.prev, walk.frontier) != head:
        return Finding(head.size, "head", "the stored head is not where the entries end")
    return None


def _walk_from(storage: Storage, frontier: Frontier) -> Walk:
    if not frontier.size:
        return Walk()
    raw = storage.read_entries(frontier.size - 1, 1)[0]
    last = entries.decode(raw)
    return Walk(frontier, entries.entry_hash(raw), last.epoch + (last.kind == Kind.GRANT))
