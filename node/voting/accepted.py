"""What was accepted of the ledger, and how it is given up when a grant leaves it behind.

The accepted roots are one history, in `ledger_checkpoints`; entries that are whole from the first on lead to more of
them. `Gathered` is what a job that changes any of it collects for the rest of the node (node/voting/follow.py).
Tests: tests/node/voting/test_accepted.py; takeovers in tests/node/voting/test_intake.py and test_history.py.
"""

import sqlite3
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ledger import tlog
from ledger.checkpoint import Fork
from ledger.tlog import EMPTY_ROOT
from node.store import Draft
from node.voting.signers import Signers
from node.voting.table import Table

FORK: Final = "fork"
DAMAGED: Final = "ledger_damaged"
"""The codes of alerts; the first is that of a Finding, too."""


@dataclass(slots=True)
class Gathered:
    """What a job changed. `entries`: (text hash, index) of the new ones; `dropped`: text hashes of entries that went.

    `drafts`: ops of ours to be written. `alerts`: (code, text). `moved`: what waited may be decided now.
    """

    entries: list[tuple[bytes, int]] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    moved: bool = False


def accepted_size(connection: sqlite3.Connection) -> int:
    """The size of the newest checkpoint that was accepted; 0 before the first."""
    return int(connection.execute("SELECT coalesce(max(size), 0) FROM ledger_checkpoints").fetchone()[0])


def root_at(connection: sqlite3.Connection, size: int) -> bytes | None:
    """The root of the first `size` entries as far as it is known here: accepted, or computed from our entries."""
    row = connection.execute("SELECT root FROM ledger_checkpoints WHERE size = ?", (size,)).fetchone()
    if row:
        return bytes(row[0])
    table = Table(connection)
    return tlog.root(size, table) if 0 < size <= table.head().size else EMPTY_ROOT if size == 0 else None


def read_forks(connection: sqlite3.Connection) -> list[Fork]:
    """The evidence that is kept here."""
    return [msgspec.msgpack.decode(raw, type=Fork) for (raw,) in connection.execute("SELECT fork FROM ledger_forks")]


def rebase(connection: sqlite3.Connection, signers: Signers) -> Gathered:
    """Gives up what was taken in beyond the start of a grant and is not its history: an abandoned tail.

    The entry at a grant's `start_size` is the grant's own. Where another stands there, or none, everything from there
    on goes, and comes again from the ops. Where our own root at that size is another than the grant says, nothing is
    given up: that is a fork, and what was accepted first stays.
    """
    gathered, table = Gathered(), Table(connection)
    for grant, name in ((one.grant, one.name) for one in signers.line):
        start = grant.start_size
        here = connection.execute("SELECT name FROM ledger_entries WHERE id = ?", (start,)).fetchone()
        if here and here[0] == name:
            continue
        if root_at(connection, start) not in (None, grant.start_root):
            detail = f"the grant of epoch {grant.epoch} goes on from another history of {start} entries than ours"
            gathered.alerts.append((FORK, detail))
            break
        (last,) = connection.execute("SELECT coalesce(max(id), -1) FROM ledger_entries").fetchone()
        if max(last + 1, accepted_size(connection)) <= start:
            continue
        gathered.dropped += table.cut(start)
        gathered.dropped += _drop_unproved(connection, start, table.head().size)
    return gathered


def _drop_unproved(connection: sqlite3.Connection, start: int, head: int) -> list[bytes]:
    """Entries proved under a root that is gone: below the head the tree proves them, beyond it they come again."""
    connection.execute("UPDATE ledger_entries SET size = NULL, proof = NULL WHERE size > ? AND id < ?", (start, head))
    lost = connection.execute("SELECT name FROM ledger_entries WHERE size > ?", (start,)).fetchall()
    connection.execute("DELETE FROM ledger_entries WHERE size > ?", (start,))
    return [name for (name,) in lost]
