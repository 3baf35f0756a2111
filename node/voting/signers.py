"""Whose signature makes a checkpoint count: the grants in a row, and which of them is in force at a size.

A grant is signed by the mesh's certificate authority; it names the hubs that go on after `start_size` entries, and its
own entry is the first that they add. So the checkpoint of `size` entries must be signed by a hub of the newest grant
with `start_size < size`. What a hub of an earlier grant signed beyond that is an *abandoned tail*: not accepted, and no
fork either, as nobody was to go on from it.

Two grants for one epoch stop both, until one of a later epoch names the one that it follows. Until then nothing beyond
them is accepted. Tests: tests/node/voting/test_signers.py.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger import entry as entries
from ledger import statement
from ledger.checkpoint import Fork, Opened, hub_keys, open_checkpoint, origin_of, parse_text
from ledger.entry import Kind
from ledger.note import BadNote, parse
from ledger.statement import Grant


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant and the SHA-256 of its text."""

    grant: Grant
    name: bytes


@dataclass(frozen=True, slots=True)
class Signers:
    """The grants of one ledger that hold, by epoch. `doubt`: beyond this size two grants of one epoch stop each other.

    `ledger`: the ledger's id.
    """

    ledger: bytes
    line: tuple[Granted, ...]
    doubt: int | None = None

    @property
    def origin(self) -> str:
        return origin_of(self.ledger)

    @property
    def digest(self) -> bytes:
        """Equal for equal grants: whether what was judged before must be judged anew."""
        return entries.text_hash(b"".join(granted.name for granted in self.line) + str(self.doubt).encode())

    @property
    def epoch(self) -> int:
        """Of the newest grant."""
        return self.line[-1].grant.epoch if self.line else 0

    def at(self, size: int) -> Grant | None:
        """The grant in force for a checkpoint of `size` entries; None when there is none, or two."""
        granted = self.granted_at(size)
        return granted.grant if granted else None

    def granted_at(self, size: int) -> Granted | None:
        """The same with its name."""
        if self.doubt is not None and size > self.doubt:
            return None
        return next((one for one in reversed(self.line) if one.grant.start_size < size), None)

    def telling(self, size: int) -> list[bytes]:
        """Keys of the hubs in force there whose signature alone tells that: no earlier grant names them."""
        if (grant := self.at(size)) is None:
            return []
        earlier = self._keys_before(grant)
        return [key for key in grant.hubs if key not in earlier]

    def names(self, key: bytes, size: int) -> bool:
        """Whether this is the key of a hub that may sign a checkpoint of `size` entries."""
        grant = self.at(size)
        return grant is not None and key in grant.hubs

    def is_hub(self, key: bytes) -> bool:
        """Whether this node is a hub now."""
        return self.doubt is None and bool(self.line) and key in self.line[-1].grant.hubs

    def epoch_of(self, fork: Fork) -> int:
        """Of the grant under which the newer side of a fork was signed; 0 when none is known."""
        try:
            grant = self.at(parse_text(parse(fork.newer).text).size)
        except BadNote:
            return 0
        return grant.epoch if grant else 0

    def open(self, raw: bytes) -> Opened:
        """The checkpoint in a note. Raises BadNote unless a hub that may has signed it."""
        size = parse_text(parse(raw).text).size
        if (grant := self.at(size)) is None:
            raise BadNote(f"no grant is known for a checkpoint of {size} entries")
        return open_checkpoint(raw, self.origin, hub_keys(self.ledger, grant.hubs))

    def left(self, raw: bytes, size: int) -> bool:
        """Whether this is of a tail: signed beyond the start of a grant by a hub of one before it."""
        if (grant := self.at(size)) is None:
            return False
        try:
            open_checkpoint(raw, self.origin, hub_keys(self.ledger, self._keys_before(grant)))
        except BadNote:
            return False
        return True

    def _keys_before(self, grant: Grant) -> set[bytes]:
        """Those of the hubs of earlier epochs."""
        return {key for one in self.line if one.grant.epoch < grant.epoch for key in one.grant.hubs}


def read_signers(connection: sqlite3.Connection) -> Signers | None:
    """From the grants that are known here, all verified once (node/voting/inbox.py); None without any."""
    rows = connection.execute("SELECT hash, text FROM statements WHERE kind = ?", (Kind.GRANT,)).fetchall()
    granted = [Granted(grant, name) for name, text in rows if isinstance(grant := _decode(text), Grant)]
    if not granted:
        return None
    genesis = connection.execute("SELECT hash FROM ledger_entries WHERE id = 0").fetchone()
    first = min(granted, key=lambda one: (one.grant.epoch, one.name))
    return line_up(bytes(genesis[0]) if genesis else first.grant.ledger, granted)


def line_up(ledger: bytes, granted: Iterable[Granted]) -> Signers:
    """Orders the grants of a ledger; of two for one epoch that stands which the next epoch's names as the one before.

    Where none of them is named both fall, and with them what is beyond; an epoch that is missing is passed over.
    """
    by_epoch: dict[int, list[Granted]] = {}
    for one in granted:
        if one.grant.ledger == ledger:
            by_epoch.setdefault(one.grant.epoch, []).append(one)
    line: list[Granted] = []
    doubt: int | None = None
    for epoch in sorted(by_epoch, reverse=True):
        standing: Sequence[Granted] = by_epoch[epoch]
        if len(standing) > 1 and line and line[-1].grant.epoch == epoch + 1:
            standing = [one for one in standing if one.name == line[-1].grant.previous]
        if len(standing) == 1:
            line.append(standing[0])
        elif not line:
            starts = [one.grant.start_size for one in standing]
            doubt = min(starts if doubt is None else [*starts, doubt])
    return Signers(ledger, tuple(reversed(line)), doubt)


def _decode(text: bytes) -> statement.Statement | None:
    try:
        return statement.decode(Kind.GRANT, text)
    except statement.BadStatement:
        return None
