"""The ledger as it is asked for: status, checkpoint, entries, proofs, tiles. Functions over a read connection.

Everything is answered under the newest checkpoint that is here, so that what one answer says another can prove; entries
that a hub has committed and not signed yet are not shown. Each answer has that checkpoint's note, for the asker to
check. A node with gaps proves an entry under the checkpoint of the proof that came with it, and has no tiles.

`may_read` says whose votes' texts may be told: of all projects to this machine's own user, of a member's own projects
to a member (node/voting/forward.py). Entries themselves show nothing about anybody's vote.
Tests: tests/node/voting/test_reads.py.
"""

import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from crdt.version import node_id
from ledger import entry as entries
from ledger import note, statement, tiles, tlog
from ledger import vote as votes
from ledger.checkpoint import Checkpoint, Opened, hub_keys, open_checkpoint, parse_text
from ledger.entry import NO_PROJECT, BadEntry, Entry, Kind
from ledger.note import Algorithm, BadNote, VerifierKey
from ledger.policy import Policy, policy_of
from ledger.quorum import NotGranted
from ledger.receipt import Receipt, format_receipt
from ledger.statement import BadStatement, Enrolment, Grant, Revocation
from ledger.tiles import BadTile, Bundle
from ledger.vote import BadVote
from node.clock import rfc3339
from node.errors import Problem
from node.identity import public_key_of
from node.voting import grants
from node.voting.table import Table
from node.voting.witness import witnessed

MAX_PAGE: Final = 256
"""Entries of one answer: a bundle, and with texts at their longest well below a megabyte."""
MAX_WITNESSES: Final = 128
"""Named in a policy, those who have cosigned first. A policy has 256 lines (ledger.policy)."""
NAMES: Final[dict[int, str]] = {kind: kind.name.lower() for kind in Kind}

MayRead = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Place:
    """Whose ledger it is: the mesh's id, the public key of its CA, and the key of this node."""

    mesh: bytes
    authority: bytes
    node_key: bytes

    def is_hub(self, connection: sqlite3.Connection) -> bool:
        """Whether the grant that is current here names this node."""
        granted = grant(connection, self.authority)
        return granted is not None and self.node_key in granted.hubs


def all_projects(project: str) -> bool:
    """This machine's own user may read everything that is on it."""
    return True


def ledger_id(connection: sqlite3.Connection) -> bytes | None:
    """The hash of the genesis entry; None as long as that has not come."""
    return grants.ledger_of(Table(connection))


def grant(connection: sqlite3.Connection, authority: bytes) -> Grant | None:
    """The grant that counts now; None when there is none, or two that contradict each other."""
    ledger = ledger_id(connection)
    try:
        return grants.current(connection, ledger, authority) if ledger else None
    except NotGranted:
        return None


def newest(connection: sqlite3.Connection) -> tuple[Checkpoint, bytes]:
    """The newest checkpoint that was accepted here. Raises Problem no_ledger."""
    raw = Table(connection).newest_checkpoint()
    if raw is None:
        raise Problem(
            404, "no_ledger", "this node has no checkpoint of the ledger yet", "sync with a peer, or found one: init"
        )
    return parse_text(note.parse(raw).text), raw


def is_whole(connection: sqlite3.Connection) -> bool:
    """Whether every entry under the newest checkpoint is here."""
    return Table(connection).head().size >= newest(connection)[0].size


def status(connection: sqlite3.Connection, place: Place) -> dict[str, Any]:
    """How the ledger is. `size`: all entries, `votes`: those of votes, under the newest checkpoint."""
    ledger, granted = ledger_id(connection), grant(connection, place.authority)
    frozen = Table(connection).frozen()
    forks = connection.execute("SELECT count(*) FROM ledger_forks").fetchone()[0]
    answer: dict[str, Any] = {
        "mesh": place.mesh.hex(),
        "ledger": ledger.hex() if ledger else None,
        "engine": granted.engine if granted else "none",
        "epoch": granted.epoch if granted else None,
        "hubs": [node_id(key) for key in granted.hubs] if granted else [],
        "leader": node_id(granted.hubs[0]) if granted and len(granted.hubs) == 1 else None,
        "forks": forks,
        "frozen": {"index": frozen.index, "code": frozen.code, "detail": frozen.detail} if frozen else None,
    }
    if Table(connection).newest_checkpoint() is None:
        return answer | {"size": 0, "votes": 0, "root": None, "checkpoint": None, "checkpoint_at": None, "whole": False}
    seen, _ = newest(connection)
    # Every node has all entries without a project: what is left are votes, also those that are not here.
    others = "SELECT count(*) FROM ledger_entries WHERE tag = ? AND id < ?"
    said = connection.execute(others, (NO_PROJECT, seen.size)).fetchone()[0]
    return answer | {
        "size": seen.size,
        "votes": seen.size - said,
        "root": seen.root.hex(),
        **_under(connection),
        "whole": is_whole(connection),
    }


def checkpoint(connection: sqlite3.Connection, place: Place) -> dict[str, Any]:
    """The newest checkpoint's note, who has signed it, and the policy by which an outsider may judge it."""
    seen, _ = newest(connection)
    raw = witnessed(connection, newest(connection)[1])
    rule = policy(connection, place)
    return {
        "origin": seen.origin,
        "size": seen.size,
        "root": seen.root.hex(),
        **_under(connection, raw),
        "signatures": list(_signatures(raw, rule)),
        "policy": str(rule) if rule else None,
        "anchors": [
            {"size": size, "asked_at": rfc3339(at)}
            for size, at in connection.execute("SELECT size, at FROM ledger_anchors ORDER BY size DESC LIMIT 100")
        ],
    }


def policy(connection: sqlite3.Connection, place: Place) -> Policy | None:
    """Which hubs sign, and which nodes may cosign. None while no grant counts here."""
    ledger, granted = ledger_id(connection), grant(connection, place.authority)
    if ledger is None or granted is None:
        return None
    return policy_of(hub_keys(ledger, granted.hubs), list(witnesses(connection, granted)))


def witnesses(connection: sqlite3.Connection, granted: Grant) -> Iterator[VerifierKey]:
    """The members that are no hubs, those who have cosigned first."""
    rows = connection.execute(
        "SELECT m.node, m.certificate FROM members AS m LEFT JOIN ledger_cosignatures AS c ON c.node = m.node"
        " ORDER BY c.node IS NULL, m.node LIMIT ?",
        (MAX_WITNESSES,),
    )
    for node, certificate in rows:
        key = public_key_of(certificate)
        if key not in granted.hubs:
            yield VerifierKey(node, Algorithm.COSIGNATURE, key)


def entry_page(
    connection: sqlite3.Connection, start: int, limit: int, may_read: MayRead = all_projects
) -> dict[str, Any]:
    """Up to `limit` entries from `start` on, as far as they are here. `next`: where to go on; None at the end."""
    if not 0 <= start <= entries.MAX_NUMBER:
        raise Problem(422, "invalid_start", f"start is {start}", "entries are numbered from 0", "start")
    if not 1 <= limit <= MAX_PAGE:
        raise Problem(422, "invalid_limit", f"limit is {limit}", f"ask for 1 to {MAX_PAGE}", "limit")
    seen, _ = newest(connection)
    query = "SELECT raw, text FROM ledger_entries WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    rows = connection.execute(query, (start, seen.size, limit + 1)).fetchall()
    shown = [describe(raw, text, may_read) for raw, text in rows[:limit]]
    following = shown[-1]["index"] + 1 if len(rows) > limit else None
    return {"entries": shown, "next": following, "size": seen.size, **_under(connection)}


def describe(raw: bytes, text: bytes | None, may_read: MayRead = all_projects) -> dict[str, Any]:
    """One entry, and what its text says if that is here and may be told."""
    try:
        entry = entries.decode(raw)
    except BadEntry as error:
        raise Problem(
            500, "ledger_damaged", f"an entry of the ledger is damaged: {error}", "run: cortex-node ledger verify"
        ) from None
    said = _vote(entry, text)
    hidden = entry.kind == Kind.VOTE and (said is None or not may_read(said["project"]))
    shown = None if hidden else text
    return {
        "index": entry.index,
        "kind": NAMES.get(entry.kind, str(entry.kind)),
        "hash": entries.entry_hash(raw).hex(),
        "prev_hash": entry.prev.hex(),
        "epoch": entry.epoch,
        "time": rfc3339(entry.time_ms) if entry.time_ms < MAX_SHOWN_MS else None,
        "own": entry.own,
        "project": said["project"] if said and not hidden else None,
        "raw": raw.hex(),
        "text": shown.hex() if shown is not None else None,
        "vote": None if hidden else said,
        "statement": _statement(entry, text),
    }


def proof(connection: sqlite3.Connection, index: int, may_read: MayRead = all_projects) -> dict[str, Any]:
    """That an entry is in the ledger: its inclusion proof under a checkpoint, also as a `.tlog-proof` file.

    Under the newest checkpoint if everything up to it is here, else under that of the proof that came with the entry.
    Raises Problem unknown_entry, unproven_entry.
    """
    seen, _ = newest(connection)
    query = "SELECT raw, text FROM ledger_entries WHERE id = ?"
    row = connection.execute(query, (index,)).fetchone() if index < seen.size else None  # SQLite's numbers end
    if row is None:
        action = f"the ledger has {seen.size} entries, from 0; others are on nodes that carry their project"
        raise Problem(404, "unknown_entry", f"there is no entry {index} here", action, "index")
    size, hashes, raw_note = _proved(connection, index)
    receipt = format_receipt(Receipt(index, row[0], hashes, raw_note))
    return {
        "index": index,
        "entry": describe(row[0], row[1], may_read),
        "size": size,
        "hashes": [value.hex() for value in hashes],
        "checkpoint": raw_note.decode(),
        "receipt": receipt.decode(),
    }


def _proved(connection: sqlite3.Connection, index: int) -> tuple[int, tuple[bytes, ...], bytes]:
    """Size, inclusion proof and note of the newest checkpoint under which this entry can be proved here."""
    table = Table(connection)
    came_size, came = table.proof(index) or (0, ())
    own = (
        "SELECT size, note FROM ledger_checkpoints WHERE note IS NOT NULL AND size > ? AND (size <= ? OR size = ?)"
        " ORDER BY size DESC LIMIT 1"
    )
    row = connection.execute(own, (index, table.head().size, came_size)).fetchone()
    if row is None:
        raise Problem(
            409,
            "unproven_entry",
            f"entry {index} is here, but no checkpoint that is here proves it",
            "ask a hub: leave read=local out",
        )
    size, raw = row
    try:
        hashes = came if size == came_size else tuple(tlog.prove_inclusion(index, size, table))
    except LookupError as error:
        raise Problem(500, "ledger_damaged", str(error), "run: cortex-node ledger verify") from None
    return size, hashes, witnessed(connection, raw)


# Files, as C2SP tlog-tiles names them


def file(connection: sqlite3.Connection, path: str) -> tuple[bytes, bool]:
    """A file under /tlog/, and whether it never changes. Raises Problem no_such_tile, not_whole."""
    seen, raw = newest(connection)
    try:
        asked = None if path == "checkpoint" else tiles.parse_path(path)
    except BadTile as error:
        raise _no_tile(str(error)) from None
    if not is_whole(connection):
        raise Problem(
            404,
            "not_whole",
            "this node has only the entries of the projects that it carries, so it has no tiles",
            "ask a hub, or a node that carries all projects",
        )
    if asked is None:
        return witnessed(connection, raw), False
    level = 0 if isinstance(asked, Bundle) else asked.level
    there = (seen.size >> level * tiles.HEIGHT) - asked.index * tiles.WIDTH
    if asked.width > there:
        raise _no_tile(f"{path} has not {asked.width} hashes or entries yet: the ledger has {seen.size} entries")
    table = Table(connection)
    if isinstance(asked, Bundle):
        raws = table.read_entries(asked.index * tiles.WIDTH, asked.width)
        if len(raws) != asked.width:
            raise Problem(500, "ledger_damaged", f"{path} is not whole", "run: cortex-node ledger verify")
        return tiles.encode_bundle(raws), True
    try:
        return tiles.read_tile(asked, table), True
    except LookupError as error:
        raise Problem(500, "ledger_damaged", str(error), "run: cortex-node ledger verify") from None


def _no_tile(detail: str) -> Problem:
    return Problem(
        404, "no_such_tile", detail, "see c2sp.org/tlog-tiles; /tlog/checkpoint says how large the ledger is"
    )


# Inside


def _under(connection: sqlite3.Connection, raw: bytes | None = None) -> dict[str, Any]:
    """The note that an answer stands under, and when it came to be here."""
    seen, kept = newest(connection)
    row = connection.execute("SELECT at FROM ledger_checkpoints WHERE size = ?", (seen.size,)).fetchone()
    said = raw if raw is not None else witnessed(connection, kept)
    return {"checkpoint": said.decode(), "checkpoint_at": rfc3339(row[0]) if row and row[0] else None}


def _signatures(raw: bytes, rule: Policy | None) -> Iterator[Mapping[str, Any]]:
    if rule is None:
        return
    try:
        opened: Opened = open_checkpoint(raw, rule.origin, rule.logs, rule.witnesses.values())
    except BadNote:  # of a hub that the grant names no longer; `ledger verify` knows the earlier ones
        return
    for kind, signed in (("hub", opened.hubs), ("witness", opened.witnesses)):
        for one in signed:
            yield {
                "by": kind,
                "node": node_id(one.key.key),
                "name": one.key.name,
                "key": b64encode(one.key.key).decode(),
            }


def _statement(entry: Entry, text: bytes | None) -> dict[str, Any] | None:
    """The gist of a statement, for people."""
    try:
        said = statement.decode(entry.kind, text) if text is not None and entry.kind != Kind.VOTE else None
    except BadStatement:
        return None
    match said:
        case Enrolment():
            return {"name": said.name, "agent": said.agent.hex(), "owner": said.owner}
        case Revocation():
            return {"agent": said.agent.hex(), "void_from": said.void_from}
        case Grant():
            return {"epoch": said.epoch, "engine": said.engine, "hubs": [node_id(key) for key in said.hubs]}
        case _:
            return None


def _vote(entry: Entry, text: bytes | None) -> dict[str, Any] | None:
    if entry.kind != Kind.VOTE or text is None:
        return None
    try:
        said = votes.decode(text)
    except BadVote:
        return None
    return {
        "project": said.project,
        "fact": said.fact,
        "version": said.version.hex(),
        "agent": said.agent.hex(),
        "counter": said.counter,
        "value": said.value,
    }


MAX_SHOWN_MS: Final = 253_402_300_800_000
"""The year 10000: what RFC 3339 cannot say."""
