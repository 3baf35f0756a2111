"""Whether the database that is here is the one that ran here last.

Each start leaves a mark, random and new, in the database and beside it, in HOME/start, with a hash of the machine's id.
A database put back from a backup has an older mark; one copied to another machine has another machine's. Its own last
seqs are then not to be trusted: the node goes on in a new epoch at once, before it writes anything, so that no dot is
used twice. (Whoever copies the whole home, and runs both on one machine, is found out by node/repairs.py.)

The database comes first. A start that ends between the two writes costs the next one a new epoch, and no more.
Tests: tests/node/test_startmark.py.
"""

import secrets
import sqlite3
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Final

from node import repairs
from node.repairs import Cause
from node.store import Store

MARK: Final = "start"
MACHINE_ID: Final = Path("/etc/machine-id")


def check(connection: sqlite3.Connection, store: Store, beside: Path, now_ms: int, machine: Path = MACHINE_ID) -> bool:
    """Leave a new mark; whether the database was another one than last time, and `store` is in a new epoch."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (MARK,)).fetchone()
    here = _machine(machine)
    last = beside.read_text(encoding="ascii", errors="replace").split() if beside.exists() else []
    mark = secrets.token_hex(8)
    restored = row is not None and last != [row[0], here]
    connection.execute("BEGIN IMMEDIATE")
    if restored:
        store.renew_epoch(connection)
        repairs.record(connection, now_ms, None, Counter({("", Cause.RESTORED_BACKUP, store.node_id): 0}))
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (MARK, mark))
    connection.execute("COMMIT")
    draft = beside.with_suffix(".new")
    draft.write_text(f"{mark} {here}\n", encoding="ascii")
    draft.replace(beside)
    return restored


def _machine(path: Path) -> str:
    """16 characters that stand for this machine; the same everywhere where machines have no id."""
    known = path.read_bytes().strip() if path.exists() else b""
    return blake2b(known, digest_size=8, person=b"cortex/machine").hexdigest()
