"""Receipts: what they prove, and that no flipped bit passes."""

import pytest

from ledger import checkpoint, log, receipt, tlog
from ledger.entry import BadEntry, Kind, decode
from ledger.note import BadNote
from ledger.policy import Policy, policy_of
from ledger.tlog import BadProof
from tests.ledger.world import HUB, Memory, Mesh, drafts, flips, key, secret


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    mesh = Mesh().found()
    mesh.append(drafts(20))
    return mesh


def policy(mesh: Mesh, hub: str = HUB) -> Policy:
    return policy_of(checkpoint.hub_keys(mesh.ledger, [key(hub)]))


def test_a_receipt_proves_its_entry(mesh: Mesh) -> None:
    for index in range(len(mesh.storage.entries)):
        entry, opened = receipt.check_receipt(log.receipt(mesh.storage, index), policy(mesh))
        assert entry == decode(mesh.storage.entries[index])
        assert opened.checkpoint.size == len(mesh.storage.entries)
    assert decode(mesh.storage.entries[0]).kind == Kind.GENESIS


def test_a_receipt_comes_back(mesh: Mesh) -> None:
    raw = log.receipt(mesh.storage, 7)
    assert receipt.format_receipt(receipt.parse_receipt(raw)) == raw
    assert raw.startswith(b"c2sp.org/tlog-proof@v1\nextra ")


def test_no_flipped_bit_passes(mesh: Mesh) -> None:
    for flipped in flips(log.receipt(mesh.storage, 7)):
        with pytest.raises((BadProof, BadNote, BadEntry)):
            receipt.check_receipt(flipped, policy(mesh))


def test_a_checkpoint_by_another_hub_proves_nothing(mesh: Mesh) -> None:
    with pytest.raises(BadNote):
        receipt.check_receipt(log.receipt(mesh.storage, 7), policy(mesh, "another hub"))


def test_an_entry_at_another_place_than_it_says_is_refused(mesh: Mesh) -> None:
    """A hub may sign such a tree; its receipts are worth nothing."""
    swapped = [mesh.storage.entries[at] for at in (0, 2, 1)]
    frontier, stored = tlog.extend(tlog.Frontier(), map(tlog.leaf_hash, swapped))
    storage = Memory()
    storage.entries, storage.hashes = swapped, dict(stored)
    said = checkpoint.Checkpoint(checkpoint.origin_of(mesh.ledger), 3, tlog.frontier_root(frontier))
    storage.notes[3] = checkpoint.sign_checkpoint(said, [checkpoint.hub_signer(mesh.ledger, secret(HUB))])
    assert receipt.check_receipt(log.receipt(storage, 0), policy(mesh))
    with pytest.raises(BadProof, match="says that it is number 2"):
        receipt.check_receipt(log.receipt(storage, 1), policy(mesh))


def test_there_is_no_receipt_beyond_the_checkpoint(mesh: Mesh) -> None:
    for index in (-1, len(mesh.storage.entries)):
        with pytest.raises(LookupError):
            log.receipt(mesh.storage, index)


def test_malformed_receipts(mesh: Mesh) -> None:
    raw = log.receipt(mesh.storage, 7)
    head, _, note = raw.partition(b"\n\n")
    lines = head.split(b"\n")
    for wrong in (
        b"",
        b"c2sp.org/tlog-proof@v1",
        raw.replace(b"@v1", b"@v2"),
        raw.replace(b"index 7", b"index 07"),
        raw.replace(b"index 7", b"index -7"),
        raw.replace(b"index 7", b"index " + b"9" * 19),
        raw.replace(b"extra ", b"extra"),
        b"\n".join([lines[0], lines[2], *lines[3:]]) + b"\n\n" + note,
        b"\n".join([*lines, *lines[3:4] * 65]) + b"\n\n" + note,
        head + b"\nshort\n\n" + note,
        raw + bytes(receipt.MAX_RECEIPT_BYTES),
    ):
        with pytest.raises(BadProof):
            receipt.parse_receipt(wrong)
