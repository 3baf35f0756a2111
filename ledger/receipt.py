"""Receipts: that an entry is in the ledger, in one file that needs nothing else to be checked (C2SP tlog-proof).

    c2sp.org/tlog-proof@v1
    extra BASE64            the entry's bytes, so that the leaf can be computed; proved by the lines below, not before
    index N
    BASE64...               the inclusion proof
    (an empty line)
    the checkpoint's note

The usual ending is `.tlog-proof`. What is shown: an entry with this text hash is the N-th, under a checkpoint that the
checker's policy lets count. The text itself is compared by its hash. Tests: tests/ledger/test_receipt.py.
"""

from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from ledger import note
from ledger.checkpoint import Opened
from ledger.entry import ENTRY_BYTES, Entry, decode
from ledger.note import MAX_NOTE_BYTES
from ledger.policy import Policy, open_under
from ledger.tlog import HASH_BYTES, MAX_PROOF_HASHES, MAX_SIZE, BadProof, check_inclusion, leaf_hash

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_RECEIPT_BYTES: Final = MAX_NOTE_BYTES + 8_192


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry's bytes and index, its inclusion proof, and the checkpoint's note."""

    index: int
    entry: bytes
    proof: tuple[bytes, ...]
    checkpoint: bytes


def format_receipt(receipt: Receipt) -> bytes:
    lines = [HEADER, f"extra {b64encode(receipt.entry).decode()}", f"index {receipt.index}"]
    lines += [b64encode(value).decode() for value in receipt.proof]
    return "\n".join([*lines, "", ""]).encode() + receipt.checkpoint


def parse_receipt(raw: bytes) -> Receipt:
    """The receipt in `raw`, checked for form only. Raises BadProof."""
    if len(raw) > MAX_RECEIPT_BYTES:
        raise BadProof(f"a receipt of {len(raw)} bytes")
    upper, _, checkpoint = raw.partition(b"\n\n")
    try:
        header, extra, index, *hashes = upper.decode("ascii").split("\n")
    except ValueError:  # also UnicodeDecodeError
        raise BadProof("not a receipt") from None
    entry, number = note.from_base64(extra.removeprefix("extra ")), index.removeprefix("index ")
    proof = [note.from_base64(line) for line in hashes]
    if header != HEADER or not extra.startswith("extra ") or not index.startswith("index "):
        raise BadProof("not a receipt of this format")
    if not (number.isascii() and number.isdecimal() and len(number) < 20 and str(int(number)) == number):
        raise BadProof("no index")
    if int(number) >= MAX_SIZE or len(entry) != ENTRY_BYTES or len(proof) > MAX_PROOF_HASHES:
        raise BadProof("a field of the receipt is out of bounds")
    if any(len(value) != HASH_BYTES for value in proof):
        raise BadProof("a line of the proof is no hash")
    return Receipt(int(number), entry, tuple(proof), checkpoint)


def check_receipt(raw: bytes, policy: Policy) -> tuple[Entry, Opened]:
    """The entry that is proved, and under which checkpoint. Raises BadProof, BadNote or BadEntry."""
    receipt = parse_receipt(raw)
    opened = open_under(policy, receipt.checkpoint)
    checkpoint, entry = opened.checkpoint, decode(receipt.entry)
    check_inclusion(receipt.proof, receipt.index, checkpoint.size, leaf_hash(receipt.entry), checkpoint.root)
    if entry.index != receipt.index:
        raise BadProof(f"the entry says that it is number {entry.index}, the receipt says {receipt.index}")
    return entry, opened
