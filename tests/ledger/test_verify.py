"""Verification: a good ledger has no findings, and every kind of damage has one that says where."""

from collections.abc import Callable

import msgspec
import pytest

from ledger import checkpoint, note, tlog, verify
from ledger.checkpoint import Checkpoint
from ledger.entry import Entry, Kind, decode, encode, entry_hash, text_hash
from ledger.log import Draft
from ledger.note import Algorithm, Signer
from ledger.policy import policy_of
from ledger.statement import Constants, Genesis, seal
from ledger.verify import CHUNK, Report
from tests.ledger.world import (
    AUTHORITY,
    HUB,
    MESH,
    NOW_MS,
    TAG,
    Memory,
    Mesh,
    drafts,
    enrolment,
    flips,
    grant_text,
    key,
    revocation,
    secret,
    signed_vote,
)


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh().found()
    for number in range(3):
        mesh.append(drafts(4, start=4 * number))
    return mesh


def codes(report: Report) -> set[tuple[int | None, str]]:
    return {(finding.index, finding.code) for finding in report.findings}


def test_a_good_ledger(mesh: Mesh) -> None:
    told: list[tuple[int, int]] = []
    report = verify.verify(mesh.storage, authority=key(AUTHORITY), progress=lambda *at: told.append(at))
    assert report.ok and (report.checked, report.votes, report.signatures) == (15, 12, 15)
    assert report.root == tlog.root(15, mesh.storage) and report.opened and report.opened.checkpoint.size == 15
    assert told[-1] == (15, 15)


def test_without_texts_only_statements_are_checked(mesh: Mesh) -> None:
    mesh.storage.texts[9] = b"another"
    assert verify.verify(mesh.storage, texts=False).ok
    assert codes(verify.verify(mesh.storage)) == {(9, "text")}


def test_texts_of_votes_may_be_gone(mesh: Mesh) -> None:
    mesh.storage.texts[5:9] = [None] * 4
    assert verify.verify(mesh.storage).ok
    mesh.storage.texts[1] = None
    assert (1, "text_missing") in codes(verify.verify(mesh.storage))


@pytest.mark.parametrize("at", [16, 17, 18, 26, 42, 74, 82, 114, 145, 0])
@pytest.mark.parametrize("index", [0, 1, 2, 3, 8, 14])
def test_a_flipped_bit_anywhere_is_found_there(mesh: Mesh, index: int, at: int) -> None:
    raw = mesh.storage.entries[index]
    mesh.storage.entries[index] = raw[:at] + bytes([raw[at] ^ 2]) + raw[at + 1 :]
    found = codes(verify.verify(mesh.storage))
    assert (index, "leaf") in found and (None, "root") in found


def test_every_flipped_bit_of_one_entry_is_found(mesh: Mesh) -> None:
    raw = mesh.storage.entries[5]
    for flipped in flips(raw):
        mesh.storage.entries[5] = flipped
        assert (5, "leaf") in codes(verify.verify(mesh.storage, texts=False))


def rewritten(mesh: Mesh, change: Callable[[Memory], None], hub: str = HUB) -> Memory:
    """A ledger told anew by whoever holds the storage and the key of `hub`: everything fits but what was changed."""
    storage = Memory()
    storage.entries, storage.texts = list(mesh.storage.entries), list(mesh.storage.texts)
    change(storage)
    frontier, stored = tlog.extend(tlog.Frontier(), map(tlog.leaf_hash, storage.entries))
    storage.hashes = dict(stored)
    said = Checkpoint(checkpoint.origin_of(entry_hash(storage.entries[0])), frontier.size, tlog.frontier_root(frontier))
    storage.notes = {frontier.size: checkpoint.sign_checkpoint(said, [Signer(said.origin, secret(hub))])}
    return storage


def rechained(storage: Memory, where: int, **changes: object) -> None:
    """Changes one entry, and every `prev` after it."""
    prev = decode(storage.entries[where]).prev
    for at in range(where, len(storage.entries)):
        entry = decode(storage.entries[at])
        mine = changes if at == where else {}
        storage.entries[at] = encode(msgspec.structs.replace(entry, prev=prev, **mine))
        prev = entry_hash(storage.entries[at])


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"index": 7}, (6, "index")),
        ({"epoch": 2}, (6, "epoch")),
        ({"project_prev": 3}, (6, "project_prev")),
        ({"project_tag": bytes(31) + b"x"}, (6, "project_prev")),
        ({"text_hash": bytes(32)}, (6, "text")),
    ],
)
def test_what_a_hub_may_not_write_is_found(mesh: Mesh, changes: dict[str, object], found: tuple[int, str]) -> None:
    assert found in codes(verify.verify(rewritten(mesh, lambda storage: rechained(storage, 6, **changes))))


def test_a_broken_chain_is_found_where_it_breaks(mesh: Mesh) -> None:
    def swap(storage: Memory) -> None:
        storage.entries[6], storage.entries[7] = storage.entries[7], storage.entries[6]

    found = codes(verify.verify(rewritten(mesh, swap)))
    assert {(6, "index"), (7, "index"), (6, "chain"), (7, "chain"), (8, "chain")} <= found
    assert (5, "chain") not in found and (9, "chain") not in found


def put(mesh: Mesh, kind: int, text: bytes, tag: bytes = bytes(32)) -> Memory:
    """The ledger with one more entry, by a hub that does not look at what it appends."""

    def append(storage: Memory) -> None:
        index = len(storage.entries)
        project = (14 if index == 15 else 16) if tag == TAG else 2
        entry = Entry(kind, False, index, 1, NOW_MS, entry_hash(storage.entries[-1]), project, tag, text_hash(text))
        storage.entries.append(encode(entry))
        storage.texts.append(text)

    return rewritten(mesh, append)


def test_votes_that_do_not_belong_are_found(mesh: Mesh) -> None:
    good = signed_vote("owner", "new", 1)
    stranger, forged = signed_vote("eve", "f", 1), good[:-1] + bytes([good[-1] ^ 1])
    for text, code in (
        (stranger, "agent"),
        (forged, "signature"),
        (good[:-1], "vote"),
        (mesh.storage.texts[5] or b"", "duplicate"),
    ):
        assert codes(verify.verify(put(mesh, Kind.VOTE, text, TAG))) == {(15, code)}
    assert verify.verify(put(mesh, Kind.VOTE, good, TAG)).ok
    assert verify.verify(put(mesh, 77, b"of a later version")).ok


def test_a_vote_after_the_revocation_is_found(mesh: Mesh) -> None:
    mesh.enrol("ada@m")
    mesh.vote("ada", "f", 1)
    mesh.revoke("ada")
    assert verify.verify(mesh.storage).ok
    assert codes(verify.verify(put(mesh, Kind.VOTE, signed_vote("ada", "g", 1), TAG))) == {(18, "agent")}


def test_statements_that_do_not_belong_are_found(mesh: Mesh) -> None:
    second = seal(Genesis(MESH, key(AUTHORITY), Constants(), 9), key(AUTHORITY), [secret(AUTHORITY)])
    cases = [
        (Kind.GENESIS, second, "statement"),
        (Kind.ENROLMENT, enrolment("owner", "elsewhere"), "statement"),
        (Kind.REVOCATION, revocation("owner", by="eve"), "statement"),
        (Kind.REVOCATION, revocation("owner")[:-1] + b"x", "statement"),
        (Kind.GRANT, grant_text(mesh.ledger, 15, bytes(32), 3), "grant"),
        (Kind.GRANT, grant_text(mesh.ledger, 14, bytes(32), 2), "grant"),
    ]
    for kind, text, code in cases:
        assert (15, code) in codes(verify.verify(put(mesh, kind, text)))


def test_a_rewritten_ledger_is_found_by_who_knows_anything(mesh: Mesh) -> None:
    kept = checkpoint.parse_text(note.parse(mesh.storage.notes[11]).text)
    again = rewritten(mesh, lambda storage: rechained(storage, 6, time_ms=1))
    assert verify.verify(again).ok, "with the hub's key, and nothing known from before, it is a history like another"
    assert codes(verify.verify(again, kept=kept)) == {(None, "fork")}
    stranger = rewritten(mesh, lambda storage: rechained(storage, 6, time_ms=1), hub="stranger")
    assert codes(verify.verify(stranger)) == {(None, "checkpoint")}


def test_less_than_was_kept_is_found(mesh: Mesh) -> None:
    kept = checkpoint.parse_text(note.parse(mesh.storage.notes[15]).text)
    shorter = Memory()
    shorter.entries, shorter.texts, shorter.hashes = (
        mesh.storage.entries[:11],
        mesh.storage.texts[:11],
        mesh.storage.hashes,
    )
    shorter.notes = {size: raw for size, raw in mesh.storage.notes.items() if size <= 11}
    assert verify.verify(shorter).ok
    assert (None, "older") in codes(verify.verify(shorter, kept=kept))


def test_truncation_and_unsigned_entries_are_found(mesh: Mesh) -> None:
    del mesh.storage.notes[15]
    assert codes(verify.verify(mesh.storage)) == {(11, "unsigned")}
    mesh.storage.entries = mesh.storage.entries[:9]
    assert (9, "truncated") in codes(verify.verify(mesh.storage))


def test_a_ledger_without_checkpoints_or_with_bad_ones(mesh: Mesh) -> None:
    notes = mesh.storage.notes
    mesh.storage.notes = {}
    assert codes(verify.verify(mesh.storage)) == {(0, "unsigned")}
    mesh.storage.notes = {**notes, 16: b"nonsense"}
    assert codes(verify.verify(mesh.storage)) == {(None, "checkpoint")}
    mesh.storage.notes = {**notes, 11: notes[11].replace(b"\n11\n", b"\n12\n")}
    assert codes(verify.verify(mesh.storage)) >= {(None, "root"), (None, "checkpoint")}
    assert verify.verify(Memory()).ok


def test_the_policy_of_the_reader_decides(mesh: Mesh) -> None:
    witness = Signer("example.org/w", secret("witness"), Algorithm.COSIGNATURE)
    keys = checkpoint.hub_keys(mesh.ledger, [key(HUB)])
    rule = policy_of(keys, [witness.verifier], 1)
    assert codes(verify.verify(mesh.storage, rule)) == {(None, "witness")}
    opened = checkpoint.open_checkpoint(mesh.storage.notes[15], rule.origin, keys)
    mesh.storage.notes[15] = checkpoint.cosign(opened, witness, 1)
    assert verify.verify(mesh.storage, rule).ok


def test_another_authority_is_found(mesh: Mesh) -> None:
    found = codes(verify.verify(mesh.storage, authority=key("another authority")))
    assert {(0, "statement"), (1, "statement"), (2, "statement")} <= found


def test_what_is_left_out_shows(mesh: Mesh) -> None:
    mesh.enrol("ada@m")
    mesh.append(drafts(2, start=50))
    lines = [decode(raw) for raw in mesh.storage.entries]
    assert not list(verify.left_out(lines))
    assert not list(verify.left_out([line for line in lines if line.kind != Kind.VOTE]))
    for missing in range(1, len(lines)):
        found = [finding.index for finding in verify.left_out([line for line in lines if line.index != missing])]
        follows = [line for line in lines if line.project_tag == lines[missing].project_tag and line.index > missing]
        assert found == ([missing] if follows else [])


def test_findings_are_bounded(mesh: Mesh) -> None:
    for number in range(12):
        mesh.append(drafts(30, start=100 + 30 * number))
    mesh.storage.entries = [raw[:-1] + b"x" for raw in mesh.storage.entries]
    assert len(mesh.storage.entries) > CHUNK
    assert len(verify.verify(mesh.storage).findings) == verify.MAX_FINDINGS


def test_memory_does_not_grow_with_the_log(mesh: Mesh) -> None:
    asked: list[int] = []
    read = mesh.storage.read_entries

    def counted(start: int, count: int) -> list[bytes]:
        asked.append(count)
        return read(start, count)

    mesh.storage.read_entries = counted  # type: ignore[method-assign]
    for number in range(4):
        mesh.append([Draft(Kind.VOTE, draft.text, TAG) for draft in drafts(100, start=1_000 + 100 * number)])
    assert verify.verify(mesh.storage).ok and max(asked) <= CHUNK
