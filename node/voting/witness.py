"""Witnessing: this node's signature under the newest checkpoint that it has accepted, and those of others.

A witness vouches that it has seen one history only. So it signs what is on disk as accepted, in a later job; never two
roots for one size, never a smaller size than before; and nothing while a fork of the present epoch is known. One
signature in ten minutes: each is an op that every node keeps. The hub that signed a checkpoint does not witness it.

What was signed last is read from the ledger's state and from our own op, whichever is larger: a database that was put
back from a backup gets the op from its peers. Tests: tests/node/voting/test_witness.py.
"""

import sqlite3
from typing import Final, NamedTuple

import msgspec

from crdt.op import Op
from crdt.survive import clock_over
from crdt.version import node_id
from ledger import note
from ledger.checkpoint import parse_text
from ledger.note import Algorithm, BadNote, Note, Signer
from node.store import Store
from node.voting import records
from node.voting.inbox import MAX_COSIGNATURES
from node.voting.records import Cosigned
from node.voting.signers import Signers
from node.voting.table import Table
from sync.overlap import RESERVED

COSIGN_EVERY_MS: Final = 600_000
WITNESSED: Final = "witnessed"


class Signed(NamedTuple):
    """What this witness signed last, and when."""

    size: int
    root: bytes
    at_ms: int


def due_ms(connection: sqlite3.Connection) -> int:
    """From when on this node may sign again, in milliseconds since 1970 UTC."""
    last = _last(Table(connection))
    return last.at_ms + COSIGN_EVERY_MS if last else 0


def cosign(
    connection: sqlite3.Connection, store: Store, secret: bytes, signers: Signers, now_ms: int, forked: bool
) -> list[Op]:
    """Sign the newest accepted checkpoint, if this node may now; the op that says so. Not in the job that accepted it.

    `secret`: the node's 64 bytes; `forked`: whether a fork of the present epoch is known.
    """
    table = Table(connection)
    newest, last = table.newest_checkpoint(), _last(table)
    if newest is None or forked or signers.is_hub(store.node_key):
        return []
    checkpoint = parse_text(note.parse(newest).text)
    node = node_id(store.node_key)
    row = connection.execute("SELECT size FROM ledger_cosignatures WHERE node = ?", (node,)).fetchone()
    before = max(last.size if last else 0, row[0] if row else 0)
    early = last is not None and 0 <= now_ms - last.at_ms < COSIGN_EVERY_MS
    if checkpoint.size <= before or early:
        return []
    signer = Signer(node, secret, Algorithm.COSIGNATURE)
    line = str(note.sign(Note(checkpoint.text), signer, now_ms // 1_000)).splitlines()[-1]
    draft = records.cosignature_draft(
        node, Cosigned(checkpoint.size, checkpoint.root, line), _seen(connection, store, node)
    )
    table.set_state(WITNESSED, msgspec.msgpack.encode((checkpoint.size, checkpoint.root, now_ms)))
    return store.append(connection, [draft], now_ms)


def witnessed(connection: sqlite3.Connection, raw: bytes) -> bytes:
    """The note of a checkpoint with the cosignatures that are kept for it. Raises BadNote for what is no checkpoint."""
    opened = note.parse(raw)
    checkpoint = parse_text(opened.text)
    lines = connection.execute(
        "SELECT line FROM ledger_cosignatures WHERE size = ? AND root = ? ORDER BY node LIMIT ?",
        (checkpoint.size, checkpoint.root, MAX_COSIGNATURES),
    )
    for (line,) in lines:
        try:
            opened = note.merge(opened, note.parse(f"{opened.text}\n{line}\n".encode()))
        except BadNote:
            continue
    return bytes(opened)


def _seen(connection: sqlite3.Connection, store: Store, node: str) -> tuple[tuple[bytes, int], ...]:
    """The clock over this witness's earlier signatures, which the next one replaces."""
    row = connection.execute("SELECT id FROM projects WHERE name = ?", (RESERVED,)).fetchone()
    ops = store.effective_ops(connection, f"{records.LEDGER}/witness/{node}", row[0]) if row else []
    return clock_over(ops)


def _last(table: Table) -> Signed | None:
    raw = table.state(WITNESSED)
    return Signed(*msgspec.msgpack.decode(raw, type=tuple[int, bytes, int])) if raw else None
