"""Verification: the whole ledger, read again from the first byte, against everything that is said about it.

`verify` reads a `Source` - a node's store or an export - in order and once, in memory that does not grow with the log
(but for the names of votes in `seen`, which may be the caller's own set, on disk). It checks

* the chain: form, index, prev, epoch, the project's entry before;
* the tree: every stored hash, and the root of every checkpoint that was kept, each signed by a hub that was granted;
* the texts: hash, signatures, that the agent could vote, that no vote is there twice;
* the newest checkpoint under the reader's policy, and against an older one that the reader kept.

It stops at nothing: what is wrong becomes a `Finding` that says where. It proves that this is *a* history, and, with a
policy or a kept checkpoint, that it is the one that others saw; a chain alone shows nothing to someone who kept none.

What the texts say is judged in ledger/texts.py. `Walk` is the part that `ledger.log` runs over what it has just stored.
Tests: tests/ledger/test_verify.py, and an independent verifier in Go, tests/ledger/verifier.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSet, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

from ledger import entry as entries
from ledger import note, tlog
from ledger.checkpoint import Checkpoint, Opened, open_checkpoint, origin_of, parse_text
from ledger.entry import NO_HASH, BadEntry, Entry, Kind
from ledger.note import BadNote
from ledger.policy import Policy, cosigned
from ledger.texts import Texts
from ledger.tiles import BadTile
from ledger.tlog import Frontier, HashReader, Stored

T = TypeVar("T")

CHUNK: Final = 256
"""Entries read at a time: a bundle of an export."""
MAX_FINDINGS: Final = 100
"""A log that is wrong everywhere is reported once, not a million times."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, at which entry (None: with the log as a whole). The codes: ledger/FORMAT.md."""

    index: int | None
    code: str
    detail: str


class Source(HashReader, Protocol):
    """A ledger to be read: `ledger.log.Storage` is one, `ledger.export.Export` another."""

    # Hashes are asked for in rows here: neighbours of one level, hundreds at a time.

    def read_entries(self, start: int, count: int) -> Sequence[bytes]:
        """The bytes of up to `count` entries from `start` on; fewer only where the log ends."""
        ...

    def read_texts(self, start: int, count: int) -> Sequence[bytes | None]:
        """The texts of the same entries; None for one that is not kept here."""
        ...

    def checkpoints(self) -> Iterable[bytes]:
        """The notes of all checkpoints that were kept, by size."""
        ...


@dataclass(slots=True)
class Report:
    """What a verification found. `checked`: entries that were read; `opened`: the newest checkpoint, if it is good."""

    checked: int = 0
    votes: int = 0
    signatures: int = 0
    root: bytes = tlog.EMPTY_ROOT
    opened: Opened | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings


class Walk:
    """The chain and the tree, entry by entry, from any place where frontier, hash and epoch are known."""

    def __init__(
        self,
        frontier: Frontier = Frontier(),  # noqa: B008  # frozen
        prev: bytes = NO_HASH,
        epoch: int = 0,
        projects: MutableMapping[bytes, int] | None = None,
    ) -> None:
        self.frontier = frontier
        self.prev = prev
        self.epoch = epoch
        self._projects = projects
        """Tag to the project's last entry; None: links between a project's entries are not checked."""

    def feed(self, raws: Iterable[bytes]) -> tuple[list[Entry | None], list[Stored], list[Finding]]:
        """The entries that come next: decoded, None for a malformed one; the subtrees they complete; what is wrong."""
        decoded: list[Entry | None] = []
        findings: list[Finding] = []
        leaves = []
        for index, raw in enumerate(raws, self.frontier.size):
            leaves.append(tlog.leaf_hash(raw))
            try:
                entry = entries.decode(raw)
            except BadEntry as error:
                findings.append(Finding(index, "entry", str(error)))
                decoded.append(None)
            else:
                before = self._projects.get(entry.project_tag, 0) if self._projects is not None else entry.project_prev
                expected = (index, self.prev, self.epoch, before)
                if (entry.index, entry.prev, entry.epoch, entry.project_prev) != expected:
                    findings += _misplaced(entry, *expected)
                self.epoch = entry.epoch + (entry.kind == Kind.GRANT)
                if self._projects is not None:
                    self._projects[entry.project_tag] = index
                decoded.append(entry)
            self.prev = entries.entry_hash(raw)
        self.frontier, stored = tlog.extend(self.frontier, leaves)
        return decoded, stored, findings


def _misplaced(entry: Entry, index: int, prev: bytes, epoch: int, before: int) -> Iterator[Finding]:
    """Which of an entry's sequencing fields are not what its place asks for."""
    if entry.index != index:
        yield Finding(index, "index", f"the entry says that it is number {entry.index}")
    if entry.prev != prev:
        yield Finding(index, "chain", "prev is not the hash of the entry before")
    if entry.epoch != epoch:
        yield Finding(index, "epoch", f"epoch {entry.epoch} after {epoch} grants")
    if entry.project_prev != before:
        yield Finding(index, "project_prev", f"the entry before with this tag is {before}, not {entry.project_prev}")


def left_out(lines: Iterable[Entry]) -> Iterator[Finding]:
    """What a node that is sent only some of a ledger was not sent: for each gap, the entry that is missing before it.

    `lines`: what it has, in ledger order, each proved by its receipt: all entries without a project, and all of each
    project that it carries. What comes after the last one is for its sender to show: nothing links to it yet.
    """
    last: dict[bytes, int] = {}
    for entry in lines:
        if entry.project_prev != last.get(entry.project_tag, 0):
            yield Finding(entry.project_prev, "left_out", f"entry {entry.index} follows it, and it is not here")
        last[entry.project_tag] = entry.index


def verify(
    source: Source,
    policy: Policy | None = None,
    *,
    authority: bytes | None = None,
    kept: Checkpoint | None = None,
    texts: bool = True,
    seen: MutableSet[bytes] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Reads everything that `source` has. 10 microseconds an entry, 70 with texts and their signatures.

    `policy`: what the newest checkpoint must satisfy; without one the hubs that the ledger itself grants. `authority`:
    the key of the mesh's CA; without it the one that the first entry names. `kept`: a checkpoint accepted earlier.
    `progress` is told (entries read, entries in all).
    """
    return _Verification(source, policy, authority, kept, texts, set() if seen is None else seen).run(progress)


class _Verification:
    """One reading of one source."""

    def __init__(
        self,
        source: Source,
        policy: Policy | None,
        authority: bytes | None,
        kept: Checkpoint | None,
        texts: bool,
        seen: MutableSet[bytes],
    ) -> None:
        self._source = source
        self._policy = policy
        self._kept = kept
        self._texts = Texts(authority, seen, self._find, votes_too=texts)
        self._walk = Walk(projects={})
        self._report = Report()
        self._origin = ""

    def run(self, progress: Callable[[int, int], object] | None) -> Report:
        notes = list(self._notes())
        size = notes[-1][0].size if notes else 0
        ends = sorted({checkpoint.size for checkpoint, _ in notes} | ({self._kept.size} if self._kept else set()))
        by_size: Mapping[int, list[tuple[Checkpoint, bytes]]] = {
            end: [one for one in notes if one[0].size == end] for end in ends
        }
        for end in ends:
            if not self._read_to(end, size, progress):
                break
            for checkpoint, raw in by_size[end]:
                self._check_note(checkpoint, raw)
            if self._kept and self._kept.size == end and self._kept.root != self._report.root:
                self._find(None, "fork", f"the first {end} entries are not those of the checkpoint that was kept")
        self._close(size, bool(notes))
        return self._report

    def _read_to(self, end: int, size: int, progress: Callable[[int, int], object] | None) -> bool:
        """Walks to `end`; False where the log ends before."""
        while (start := self._walk.frontier.size) < end:
            count = min(CHUNK - start % CHUNK, end - start)
            raws = self._guarded(start, "bundle", partial(self._source.read_entries, start, count)) or []
            if not raws:
                self._find(start, "truncated", f"{start} of {end} entries are here")
                return False
            decoded, stored, findings = self._walk.feed(raws)
            for finding in findings:
                self._add(finding)
            self._compare_tree(start, stored)
            if start == 0 and decoded[0] is not None:
                self._origin = self._texts.origin = origin_of(entries.entry_hash(raws[0]))
            self._read_texts(start, decoded)
            self._report.checked = self._walk.frontier.size
            if progress:
                progress(self._report.checked, size)
        self._report.root = tlog.frontier_root(self._walk.frontier)
        return True

    def _compare_tree(self, start: int, stored: Sequence[Stored]) -> None:
        in_rows = sorted(stored)  # level by level, so that a store can read ranges
        there = self._guarded(start, "tile", lambda: self._source.read_hashes([node for node, _ in in_rows]))
        for (node, computed), found in zip(in_rows, there or (), strict=False):
            if computed != found:
                what = "leaf" if node.level == 0 else "tree"
                detail = f"the stored hash {node.number} at level {node.level} is not that of the entries"
                self._find(node.number << node.level, what, detail)

    def _read_texts(self, start: int, decoded: Sequence[Entry | None]) -> None:
        found: Sequence[bytes | None] = ()
        if self._texts.votes_too or any(entry is None or entry.kind != Kind.VOTE for entry in decoded):
            found = self._guarded(start, "text", lambda: self._source.read_texts(start, len(decoded))) or ()
        for entry, text in zip(decoded, [*found] + [None] * (len(decoded) - len(found)), strict=True):
            if entry is not None:
                self._texts.read(entry, text)
        self._report.votes, self._report.signatures = self._texts.votes, self._texts.signatures

    def _notes(self) -> Iterator[tuple[Checkpoint, bytes]]:
        """What the kept notes say, unchecked, by size."""
        found = []
        for raw in self._guarded(None, "checkpoint", lambda: list(self._source.checkpoints())) or []:
            try:
                found.append((parse_text(note.parse(raw).text), raw))
            except BadNote as error:
                self._find(None, "checkpoint", str(error))
        yield from sorted(found, key=lambda one: one[0].size)

    def _check_note(self, checkpoint: Checkpoint, raw: bytes) -> None:
        if checkpoint.root != self._report.root:
            self._find(None, "root", f"the first {checkpoint.size} entries have another root than was signed")
        witnesses = list(self._policy.witnesses.values()) if self._policy else []
        hubs = [*(self._policy.logs if self._policy else ()), *self._texts.hubs]
        try:
            opened = open_checkpoint(raw, self._origin, hubs, witnesses)
        except BadNote as error:
            self._find(None, "checkpoint", f"size {checkpoint.size}: {error}")
            self._report.opened = None
        else:
            self._report.opened = opened

    def _close(self, size: int, signed: bool) -> None:
        beyond = self._guarded(size, "bundle", lambda: self._source.read_entries(size, 1))
        if beyond and self._report.checked == size:
            self._find(size, "unsigned", "entries beyond the newest checkpoint" if signed else "no checkpoint at all")
        if self._report.opened and self._report.opened.checkpoint.size != size:
            self._report.opened = None
        if self._policy and self._report.opened and not cosigned(self._policy, self._report.opened):
            self._find(None, "witness", "the newest checkpoint is cosigned by too few witnesses for the policy")
        if self._kept and self._kept.size > size:
            self._find(None, "older", f"a checkpoint of {self._kept.size} entries was kept, here are {size}")

    def _guarded(self, index: int | None, code: str, read: Callable[[], T]) -> T | None:
        """What `read` returns; None, and a finding, when what it reads is damaged."""
        try:
            return read()
        except (BadTile, LookupError) as error:
            self._find(index, code, str(error))
            return None

    def _find(self, index: int | None, code: str, detail: str) -> None:
        self._add(Finding(index, code, detail))

    def _add(self, finding: Finding) -> None:
        if len(self._report.findings) < MAX_FINDINGS:
            self._report.findings.append(finding)
