"""The ledger on disk: `ledger.log.Storage` over one SQLite connection.

A `Table` lives as long as a job: it reads and writes through the connection that it is given, so `commit` is durable
when the job's transaction is. A hub therefore runs `log.plan` and `commit` in one job and `log.publish` in the next.

On a hub, and on a node that carries all projects, the entries are whole from the first on, and the head and every hash
of the tree stand beside them. A node that carries less has gaps; there each entry beyond the head (`put`) keeps the
inclusion proof that came with it, and `close_gap` moves the head over whatever has become whole.

Nothing here checks anything: that is the caller's (ledger.log, node/voting/follow.py). Tests:
tests/node/voting/test_table.py.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from ledger import entry as entries
from ledger import log, tlog
from ledger import vote as votes
from ledger.checkpoint import parse_text, superfluous
from ledger.entry import HASH_BYTES, Entry, Kind, decode
from ledger.log import EMPTY, MAX_BATCH, Batch, Head
from ledger.note import parse
from ledger.tlog import Frontier, Node, Stored
from ledger.verify import Finding
from ledger.vote import BadVote

HEAD: Final = "head"
FROZEN: Final = "frozen"
ANNOUNCED: Final = "announced"
"""Only on a hub: node/voting/announce.py."""
NEWEST_NOTES: Final = 100
"""Notes that are all kept: what a node that was away for a while has accepted is likely one of them."""
_INSERT: Final = "INSERT INTO ledger_entries VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"


class Line(NamedTuple):
    """An entry as a node with gaps keeps it. `proof`: its inclusion under the checkpoint of `size` entries."""

    raw: bytes
    text: bytes | None
    size: int | None = None
    proof: tuple[bytes, ...] = ()


class Table:
    """The ledger's tables through one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    # ledger.verify.Source

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One query for each run of neighbours: a verification asks for hundreds, a proof for single ones."""
        query = "SELECT value FROM ledger_hashes WHERE level = ? AND number BETWEEN ? AND ? ORDER BY number"
        found: list[bytes] = []
        while len(found) < len(nodes):
            first = last = nodes[len(found)]
            for node in nodes[len(found) + 1 :]:
                if node != (last.level, last.number + 1):
                    break
                last = node
            rows = self.connection.execute(query, (first.level, first.number, last.number)).fetchall()
            if len(rows) != last.number - first.number + 1:
                raise LookupError(f"a hash between {first} and {last} is missing")
            found += [value for (value,) in rows]
        return found

    def read_entries(self, start: int, count: int) -> list[bytes]:
        return [raw for raw, _ in self._rows(start, count)]

    def read_texts(self, start: int, count: int) -> list[bytes | None]:
        return [text for _, text in self._rows(start, count)]

    def checkpoints(self) -> list[bytes]:
        query = "SELECT note FROM ledger_checkpoints WHERE note IS NOT NULL ORDER BY size"
        return [note for (note,) in self.connection.execute(query)]

    # ledger.log.Storage

    def head(self) -> Head:
        raw = self.state(HEAD)
        return log.decode_head(raw) if raw else EMPTY

    def find(self, text_hash: bytes) -> int | None:
        row = self.connection.execute("SELECT id FROM ledger_entries WHERE name = ?", (text_hash,)).fetchone()
        return None if row is None else int(row[0])

    def last_of(self, project_tag: bytes) -> int:
        query = "SELECT max(id) FROM ledger_entries WHERE tag = ?"
        return int(self.connection.execute(query, (project_tag,)).fetchone()[0] or 0)

    def commit(self, batch: Batch) -> None:
        self.put([Line(raw, text) for raw, text in zip(batch.entries, batch.texts, strict=True)])
        self._add_hashes(batch.stored)
        self.set_state(HEAD, log.encode_head(batch.after))

    def newest_checkpoint(self) -> bytes | None:
        query = "SELECT note FROM ledger_checkpoints WHERE note IS NOT NULL ORDER BY size DESC LIMIT 1"
        row = self.connection.execute(query).fetchone()
        return None if row is None else bytes(row[0])

    def add_checkpoint(self, size: int, note: bytes, at_ms: int = 0) -> None:
        """Keeps the root for ever, and of older notes one for each thousand entries."""
        root = parse_text(parse(note).text).root
        self.connection.execute(
            "INSERT INTO ledger_checkpoints VALUES (?,?,?,?)"
            " ON CONFLICT DO UPDATE SET root = excluded.root, note = excluded.note, at = max(at, excluded.at)",
            (size, root, note, at_ms),
        )
        query = "SELECT size FROM ledger_checkpoints WHERE note IS NOT NULL ORDER BY size DESC LIMIT ?"
        newest = [size for (size,) in self.connection.execute(query, (NEWEST_NOTES + MAX_BATCH,))]
        drop = superfluous(newest[::-1], newest=NEWEST_NOTES)  # what is older than these was looked at before
        self.connection.executemany("UPDATE ledger_checkpoints SET note = NULL WHERE size = ?", [(at,) for at in drop])

    def frozen(self) -> Finding | None:
        raw = self.state(FROZEN)
        return msgspec.json.decode(raw, type=Finding) if raw else None

    def freeze(self, finding: Finding | None) -> None:
        self.set_state(FROZEN, None if finding is None else msgspec.json.encode(finding))

    def replace_entry(self, index: int, raw: bytes) -> None:
        self.connection.execute("UPDATE ledger_entries SET raw = ? WHERE id = ?", (raw, index))

    # A node that has only some of it

    def put(self, lines: Iterable[Line]) -> None:
        """Adds entries, in any order, each once."""
        for raw, text, size, proof in lines:
            entry = decode(raw)
            said = _vote(entry.kind, text)
            about = (said.project, said.fact, said.agent, said.value, said.time_ms) if said else (None,) * 5
            self.connection.execute(
                _INSERT,
                (entry.index, raw, entry.text_hash, entry.project_tag, entries.entry_hash(raw), text, *about,
                 size, b"".join(proof) if size is not None else None),
            )  # fmt: skip

    def cut(self, size: int) -> list[bytes]:
        """Takes away every entry from `size` on and what was said of them; gives the hashes of their texts.

        For the tail of an epoch that a grant left behind: the caller has seen a grant that begins at `size`.
        """
        names = [name for (name,) in self.connection.execute("SELECT name FROM ledger_entries WHERE id >= ?", (size,))]
        if size < self.head().size:
            last = decode(self.read_entries(size - 1, 1)[0]) if size else None
            frontier = tlog.read_frontier(size, self)
            for level in range(self.head().size.bit_length()):
                query = "DELETE FROM ledger_hashes WHERE level = ? AND number >= ?"
                self.connection.execute(query, (level, size >> level))
            self.set_state(HEAD, log.encode_head(_head_after(last, frontier)) if last else None)
        self.connection.execute("DELETE FROM ledger_entries WHERE id >= ?", (size,))
        self.connection.execute("DELETE FROM ledger_checkpoints WHERE size > ?", (size,))
        return names

    def close_gap(self) -> Head:
        """Moves the head over the entries that follow it without a gap, and stores the hashes that they complete."""
        head = self.head()
        while rows := self.read_entries(head.size, MAX_BATCH):
            frontier, stored = tlog.extend(head.frontier, [tlog.leaf_hash(raw) for raw in rows])
            head = _head_after(decode(rows[-1]), frontier)
            self._add_hashes(stored)
            self.set_state(HEAD, log.encode_head(head))
        return head

    def proof(self, index: int) -> tuple[int, tuple[bytes, ...]] | None:
        """The size and the inclusion proof that came with an entry; None for one that has none of its own."""
        row = self.connection.execute("SELECT size, proof FROM ledger_entries WHERE id = ?", (index,)).fetchone()
        if row is None or row[0] is None:
            return None
        return row[0], tuple(row[1][at : at + HASH_BYTES] for at in range(0, len(row[1]), HASH_BYTES))

    # What is remembered besides

    def state(self, key: str) -> bytes | None:
        row = self.connection.execute("SELECT value FROM ledger_state WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_state(self, key: str, value: bytes | None) -> None:
        if value is None:
            self.connection.execute("DELETE FROM ledger_state WHERE key = ?", (key,))
        else:
            self.connection.execute("INSERT OR REPLACE INTO ledger_state VALUES (?, ?)", (key, value))

    def _rows(self, start: int, count: int) -> list[tuple[bytes, bytes | None]]:
        """Up to `count` entries from `start` on, with their texts, as far as there is no gap."""
        found: list[tuple[bytes, bytes | None]] = []
        query = "SELECT id, raw, text FROM ledger_entries WHERE id >= ? AND id < ? ORDER BY id"
        for index, raw, text in self.connection.execute(query, (start, start + count)):
            if index != start + len(found):
                break
            found.append((raw, text))
        return found

    def _add_hashes(self, stored: Iterable[Stored]) -> None:
        rows = [(*node, value) for node, value in stored]
        self.connection.executemany("INSERT INTO ledger_hashes VALUES (?,?,?)", rows)


def _head_after(last: Entry, frontier: Frontier) -> Head:
    return Head(last.epoch + (last.kind == Kind.GRANT), entries.entry_hash(entries.encode(last)), frontier)


def _vote(kind: int, text: bytes | None) -> votes.Vote | None:
    try:
        return votes.decode(text) if kind == Kind.VOTE and text is not None else None
    except BadVote:
        return None
