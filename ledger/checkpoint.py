"""Checkpoints: what a log says it holds, signed (C2SP tlog-checkpoint), and how two of them stand to each other.

A checkpoint is the text of a signed note: the origin (which log), the size, the root. Each hub signs with a key of its
own under the one origin; witnesses add cosignatures. Extension lines are refused: nobody could audit them.

`compare` tells a fork from everything that is none. A fork is two validly signed checkpoints of one size with different
roots, or a proof that leads to the newer root and to another older one than was signed. An older checkpoint is *old*, a
missing or useless proof makes a newer one *unproven*; neither convicts anybody. `Fork` is the evidence: `check_fork`
judges it with nothing but the log's keys. Tests: tests/ledger/test_checkpoint.py.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

from ledger import note
from ledger.note import Algorithm, BadNote, Note, Signer, Verified, VerifierKey
from ledger.tlog import HASH_BYTES, MAX_SIZE, BadProof, rebuild_roots

ORIGIN_PREFIX: Final = "cortex-node/ledger/"
_TEXT: Final = re.compile(r"([^\n]+)\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first `size` entries of the log `origin` have this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint whose note was checked: `raw` as it came, who of the known keys signed (at least one hub)."""

    checkpoint: Checkpoint
    raw: bytes
    hubs: tuple[Verified, ...]
    witnesses: tuple[Verified, ...]


class Standing(Enum):
    """How a checkpoint that was seen stands to the one that is known."""

    SAME = "same"
    OLDER = "older"
    NEWER = "newer"
    UNPROVEN = "unproven"


class Fork(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Evidence that a log said two things: both notes, and, where the sizes differ, the proof that fails.

    `root_then`: what the proof shows that the newer tree's first `older.size` entries hash to.
    """

    older: bytes
    newer: bytes
    proof: tuple[bytes, ...] = ()
    root_then: bytes = b""


class ForkError(Exception):
    """The log has shown two histories. Keep `fork`, show it, never merge it."""

    def __init__(self, detail: str, fork: Fork) -> None:
        super().__init__(detail)
        self.fork = fork


def origin_of(ledger_id: bytes) -> str:
    """The origin of a ledger's checkpoints, and the name of every hub's key. `ledger_id`: its genesis entry's hash."""
    return ORIGIN_PREFIX + ledger_id.hex()


def hub_signer(ledger_id: bytes, secret: bytes) -> Signer:
    return Signer(origin_of(ledger_id), secret)


def hub_keys(ledger_id: bytes, keys: Iterable[bytes]) -> list[VerifierKey]:
    """What opens the checkpoints of hubs with these 32-byte keys, as a grant lists them."""
    return [VerifierKey(origin_of(ledger_id), Algorithm.ED25519, key) for key in keys]


def parse_text(text: str) -> Checkpoint:
    """The checkpoint that a note's text says. Raises BadNote."""
    found = _TEXT.fullmatch(text)
    root = note.from_base64(found[3]) if found else b""
    if not found or len(root) != HASH_BYTES or int(found[2]) > MAX_SIZE:
        raise BadNote("the text is no checkpoint: origin, size, root, and nothing else")
    return Checkpoint(found[1], int(found[2]), root)


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[Signer]) -> bytes:
    """The note. The caller has re-read and re-verified what the root stands for (ledger.log.publish does)."""
    signed = Note(checkpoint.text)
    for signer in signers:
        signed = note.sign(signed, signer)
    return bytes(signed)


def open_checkpoint(
    raw: bytes, origin: str, hubs: Iterable[VerifierKey], witnesses: Iterable[VerifierKey] = ()
) -> Opened:
    """The checkpoint in `raw`. Raises BadNote unless it is of this log and one of `hubs` has signed it."""
    opened, verified = note.open_note(raw, [*(known := list(hubs)), *witnesses])
    checkpoint = parse_text(opened.text)
    if checkpoint.origin != origin:
        raise BadNote(f"a checkpoint of {checkpoint.origin}, not of {origin}")
    by_hubs = tuple(signature for signature in verified if signature.key in known)
    if not by_hubs:
        raise BadNote("no hub that is known here has signed")
    return Opened(checkpoint, raw, by_hubs, tuple(one for one in verified if one.key not in known))


def cosign(opened: Opened, witness: Signer, time_s: int) -> bytes:
    """The note with the cosignature of `witness`.

    The caller has found the checkpoint to be consistent with the last one that it accepted, and has *persisted* it as
    that last one: a witness that signs first can be made to sign both sides of a fork (C2SP tlog-witness).
    """
    return bytes(note.sign(note.parse(opened.raw), witness, time_s))


def compare(known: Opened, seen: Opened, proof: Sequence[bytes] | None = None, root_then: bytes = b"") -> Standing:
    """How `seen` stands to `known`. Raises ForkError with the evidence when both can't be of one history.

    `proof` goes from the smaller to the larger size, whoever made it. It names the tree that it starts from, except
    where the smaller size is a power of two (RFC 9162 leaves that hash out): there only `root_then`, the root at that
    size as the proof's maker has it, can show a fork; without it a proof that fails is merely useless.
    """
    older, newer = sorted((known, seen), key=lambda opened: opened.checkpoint.size)
    before, after = older.checkpoint, newer.checkpoint
    if before.origin != after.origin:
        raise ValueError(f"{before.origin} and {after.origin} are two logs")
    if before.size == after.size:
        if before.root == after.root:
            return Standing.SAME
        raise ForkError(f"two roots were signed for size {before.size}", Fork(known.raw, seen.raw))
    standing = Standing.OLDER if seen is older else Standing.UNPROVEN
    if proof is None:
        return standing
    try:
        then, now = rebuild_roots(proof, before.size, after.size, root_then or before.root)
    except BadProof:
        return standing
    if now != after.root:
        return standing
    if then != before.root:
        raise ForkError(
            f"the log of {after.size} entries does not begin with the {before.size} that were signed before",
            Fork(older.raw, newer.raw, tuple(proof), then),
        )
    return Standing.OLDER if seen is older else Standing.NEWER


def check_fork(fork: Fork, origin: str, hubs: Iterable[VerifierKey]) -> tuple[Checkpoint, Checkpoint]:
    """The two checkpoints that contradict each other. Raises BadNote or BadProof when the evidence shows no fork."""
    keys = list(hubs)
    older, newer = (open_checkpoint(raw, origin, keys) for raw in (fork.older, fork.newer))
    try:
        compare(older, newer, fork.proof, fork.root_then)
    except ForkError:
        return older.checkpoint, newer.checkpoint
    raise BadProof("the two checkpoints do not contradict each other")


def superfluous(sizes: Sequence[int], every: int = 1_000, newest: int = 100) -> list[int]:
    """Which of the kept checkpoints (their sizes, ascending) may go: of each span of `every` entries the last stays."""
    spans = {size // every: size for size in sizes}
    return [size for size in sizes[: max(0, len(sizes) - newest)] if spans[size // every] != size]
