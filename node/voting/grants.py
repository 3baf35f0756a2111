"""Who may append to this mesh's ledger: its founding, the grant that holds now, and a takeover.

`found` writes the first entries - genesis, the owner's enrolment, the grant of epoch 1 - before the node ever ran.
`take_over` begins a new epoch here when the hub of the one before is lost. The grant that does so is the last entry of
that epoch, signed by the mesh's CA, so only the machine that holds the CA's key can do it, and an operator does it
knowing that two hubs stop each other. It goes on from the head that this node has, whole from the first entry and
verified. What others were told beyond it is given up only when the operator says so (`abandon`): those votes become
pending again wherever they are, and are committed again.

A grant is also kept as a statement, and goes out as one, so that a former hub hears of it whatever else it has heard.
Tests: tests/node/voting/test_grants.py.
"""

import sqlite3
from collections.abc import Iterator, MutableSet, Sequence
from typing import Final, NamedTuple

from ledger import entry as entries
from ledger import log, quorum, statement, tlog, verify
from ledger.checkpoint import Checkpoint, parse_text
from ledger.ed25519 import public_key
from ledger.entry import NO_HASH, Kind
from ledger.log import Draft, Head
from ledger.note import parse
from ledger.quorum import NotGranted
from ledger.statement import Constants, Enrolment, Genesis, Grant
from ledger.tlog import Node
from ledger.verify import Finding
from node.errors import Problem
from node.identity import Identity
from node.voting import announce
from node.voting.table import Table

MAX_GRANTS: Final = 16
"""Epochs that one takeover may begin, one for each of which a rival grant is known. Two operators make two."""


class Extent(NamedTuple):
    """What of the ledger is here: the whole beginning, and how many entries others were told of."""

    head: Head
    told: int


def found(
    connection: sqlite3.Connection,
    me: Identity,
    authority_secret: bytes,
    owner_secret: bytes,
    owner_name: str,
    engine: str,
    now_ms: int,
) -> bytes:
    """Begin the mesh's ledger, in one job; its id. Secrets are libsodium's 64 bytes. `engine`: "none" or "solo"."""
    authority, table = public_key(authority_secret), Table(connection)
    genesis = Genesis(me.mesh_id, authority, Constants(), now_ms)
    owner = Enrolment(me.mesh_id, public_key(owner_secret), owner_name, me.node_key, True, b"", now_ms)
    enrolment = statement.seal(owner, authority, [owner_secret, me.secret_key, authority_secret])

    def grant(ledger: bytes, size: int, root: bytes) -> bytes:
        first = Grant(ledger, 1, engine, (me.node_key,), size, root)
        return statement.seal(first, authority, [authority_secret])

    text = statement.seal(genesis, authority, [authority_secret])
    log.found(table, text, [enrolment], grant, me.secret_key, now_ms)
    _remember(connection, table, 0)
    announce.begin(table, announce.Told(0, 0))
    return ledger_of(table) or b""


def ledger_of(table: Table) -> bytes | None:
    """The id of the ledger in the table; None while there is none."""
    first = table.read_entries(0, 1)
    return entries.entry_hash(first[0]) if first else None


def current(connection: sqlite3.Connection, ledger: bytes, authority: bytes) -> Grant:
    """The grant that holds, of all that this node has heard of. Raises ledger.quorum.NotGranted."""
    texts = connection.execute("SELECT text FROM statements WHERE kind = 4")
    return quorum.current_grant((text for (text,) in texts), ledger, authority)


# Takeover


def extent(connection: sqlite3.Connection) -> Extent:
    """What is here, after what lies in the table has been joined to the head. In a job."""
    table = Table(connection)
    head = table.close_gap()
    (entry,) = connection.execute("SELECT coalesce(max(id), -1) FROM ledger_entries").fetchone()
    (size,) = connection.execute("SELECT coalesce(max(size), 0) FROM ledger_checkpoints").fetchone()
    return Extent(head, max(head.size, entry + 1, size))


def check(connection: sqlite3.Connection, size: int, authority: bytes) -> list[Finding]:
    """What is wrong with the first `size` entries, signed for or not. A read: 70 microseconds an entry."""
    table = Table(connection)
    try:
        kept = Checkpoint("", size, tlog.root(size, table))
    except LookupError as error:
        return [Finding(size, "tree", str(error))]
    report = verify.verify(_Beginning(table, size), authority=authority, kept=kept, seen=_EachOnce())
    return [finding for finding in report.findings if finding.code not in ("unsigned", "older")]


def require(found: Extent, abandon: bool) -> None:
    """Raises Problem when a takeover would leave behind what nobody has agreed to give up."""
    if not found.head.size:
        raise Problem(
            409,
            "no_ledger",
            "there is no ledger here, or not its first entry",
            "run it on a machine that has been in contact with the former hub, or whose backup is put back",
        )
    if found.told > found.head.size and not abandon:
        raise Problem(
            409,
            "ledger_incomplete",
            f"this node has the first {found.head.size} entries of {found.told} that were told of: "
            f"entry {found.head.size} is the first that is missing",
            "sync with every machine that can still be reached, or take over on one that carries all projects; to go "
            "on without what nobody has, abandon it: its votes are pending again then",
        )


def take_over(
    connection: sqlite3.Connection, me: Identity, authority_secret: bytes, engine: str, head: Head, now_ms: int
) -> list[bytes]:
    """Begin an epoch of this node's at `head`, in one job; the hashes of texts that have no entry any longer.

    The caller has checked everything before `head`, and publishes; what froze the log is settled by that. Raises
    Problem ledger_moved.
    """
    table, authority = Table(connection), public_key(authority_secret)
    if table.head() != head:
        raise Problem(409, "ledger_moved", "entries have come in meanwhile", "run it again")
    table.freeze(None)
    gone = table.cut(head.size)
    connection.execute("UPDATE ledger_entries SET size = NULL, proof = NULL WHERE size > ?", (head.size,))
    ledger = ledger_of(table) or b""
    rival = max(_epochs(connection, ledger, authority), default=0)
    if rival >= head.epoch + MAX_GRANTS:
        raise Problem(409, "epochs_missing", f"a grant of epoch {rival} is known", "sync with the machine that made it")
    newest = table.newest_checkpoint()
    while table.head().epoch <= rival or table.head() == head:
        now = table.head()
        root = tlog.frontier_root(now.frontier)
        grant = Grant(ledger, now.epoch + 1, engine, (me.node_key,), now.size, root, _last_grant(table))
        text = statement.seal(grant, authority, [authority_secret])
        batch, _ = log.plan(table, [Draft(Kind.GRANT, text)], now_ms)
        table.commit(batch)
    _remember(connection, table, head.size)
    connection.execute("DELETE FROM ledger_refused")
    told_size = parse_text(parse(newest).text).size if newest else 0
    announce.begin_anew(table, announce.Told(told_size, told_size))  # what lies beyond was proved under what is gone
    return gone


def _epochs(connection: sqlite3.Connection, ledger: bytes, authority: bytes) -> Iterator[int]:
    """The epochs of all grants that are known."""
    for (text,) in connection.execute("SELECT text FROM statements WHERE kind = 4").fetchall():
        try:
            yield quorum.current_grant([text], ledger, authority).epoch
        except NotGranted:
            continue


def _last_grant(table: Table) -> bytes:
    """The hash of the newest grant in the ledger."""
    query = "SELECT name FROM ledger_entries WHERE tag = ? AND substr(raw, 17, 1) = x'04' ORDER BY id DESC LIMIT 1"
    row = table.connection.execute(query, (entries.NO_PROJECT,)).fetchone()
    return bytes(row[0]) if row else NO_HASH


def _remember(connection: sqlite3.Connection, table: Table, start: int) -> None:
    """The statements among the entries from `start` on, where others that gossip brings are kept."""
    for index, (raw, text) in enumerate(zip(table.read_entries(start, 16), table.read_texts(start, 16), strict=True)):
        entry = entries.decode(raw)
        row = (entry.text_hash, entry.kind, text, start + index)
        connection.execute("INSERT OR REPLACE INTO statements (hash, kind, text, entry) VALUES (?,?,?,?)", row)


class _EachOnce(MutableSet[bytes]):
    """Stands for the votes that a verification has met: the table has an index that takes each only once."""

    def __contains__(self, value: object) -> bool:
        return False

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def add(self, value: bytes) -> None:
        """Nothing: see above."""

    def discard(self, value: bytes) -> None:
        """Nothing: see above."""


class _Beginning:
    """The first `size` entries of a table, as a source of their own."""

    def __init__(self, table: Table, size: int) -> None:
        self._table = table
        self._size = size

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return self._table.read_hashes(nodes)

    def read_entries(self, start: int, count: int) -> list[bytes]:
        return self._table.read_entries(start, min(count, self._size - start))

    def read_texts(self, start: int, count: int) -> list[bytes | None]:
        return self._table.read_texts(start, min(count, self._size - start))

    def checkpoints(self) -> list[bytes]:
        notes = self._table.checkpoints()
        return [note for note in notes if parse_text(parse(note).text).size <= self._size]
