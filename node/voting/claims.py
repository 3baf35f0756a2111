"""What the op of a vote tells of the ledger: the newest checkpoint that its sender has accepted, with a signature.

A hub that lost the end of its ledger, and the mark beside it, learns of that from votes (node/voting/permission.py).
So that nobody can stop it with a size that was made up, a claim is evidence or nothing: it counts when a hub has signed
that checkpoint which the grant in force there names, and no earlier one does.

* What a hub of an earlier grant signed beyond the start of a newer one is of a tail that was left behind, and has no
  effect. Nor has a claim under a grant that is not known here yet.
* The key of a hub that took over from itself signs for both epochs and can't tell them apart. There claims have no
  effect, and the hub goes by announced checkpoints, which are proved to be of its epoch (node/voting/intake.py).
* Only the MAX_CLAIMS largest are looked at. Who makes up more of them hides a true one, and stops nobody.

Tests: tests/node/voting/test_claims.py.
"""

import sqlite3
from typing import Final, NamedTuple

from ledger.checkpoint import Checkpoint, hub_keys
from ledger.ed25519 import is_signed
from ledger.entry import HASH_BYTES, MAX_NUMBER
from ledger.note import parse
from node.voting.signers import Signers, read_signers

MAX_CLAIMS: Final = 32
"""Claims that are looked at, equal ones once: 2 ms of signatures if none is true. Honest nodes make few different ones,
one for each checkpoint at which they stood.
"""
_NEXT: Final = (
    "SELECT seen_size, seen_root, seen_signature FROM ballots WHERE entry IS NULL AND seen_size > ?"
    " AND (seen_size, seen_root, seen_signature) < (?, ?, ?)"
    " ORDER BY seen_size DESC, seen_root DESC, seen_signature DESC LIMIT 1"
)


class Claim(NamedTuple):
    """The first `size` entries have this root, signed by a hub (64 bytes, Ed25519, over the checkpoint's text)."""

    size: int
    root: bytes
    signature: bytes


NOTHING: Final = Claim(0, b"", b"")
_LARGEST: Final = Claim(MAX_NUMBER, b"\xff" * (HASH_BYTES + 1), b"")
"""Larger than every claim."""


def newest(connection: sqlite3.Connection) -> Claim:
    """What a vote that is written here now tells; NOTHING when no signature would show it."""
    query = "SELECT size, root, note FROM ledger_checkpoints WHERE note IS NOT NULL ORDER BY size DESC LIMIT 1"
    row, signers = connection.execute(query).fetchone(), read_signers(connection)
    if row is None or signers is None:
        return NOTHING
    size, root, note = row
    names = {(key.name, key.key_id) for key in hub_keys(signers.ledger, signers.telling(size))}
    lines = (line.value for line in parse(note).signatures if (line.name, line.key_id) in names)
    return next((Claim(size, root, signature) for signature in lines), NOTHING)


def ahead(connection: sqlite3.Connection, size: int) -> Claim | None:
    """The largest true claim of a pending vote beyond `size` entries. One query when nobody claims any such thing."""
    claim, signers = _LARGEST, None
    for _ in range(MAX_CLAIMS):
        row = connection.execute(_NEXT, (size, *claim)).fetchone()
        if row is None:
            return None
        claim, signers = Claim(*row), signers or read_signers(connection)
        if signers and is_true(claim, signers):
            return claim
    return None


def is_true(claim: Claim, signers: Signers) -> bool:
    """Whether a hub has signed it under the grant that is in force there, and under no other."""
    text = Checkpoint(signers.origin, claim.size, claim.root).text.encode()
    return any(is_signed(key, text, claim.signature) for key in signers.telling(claim.size))
