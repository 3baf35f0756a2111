"""Appending: every vote once, every write failed in two ways, and a log that stops when it is not what it was."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import checkpoint, log, tlog, verify
from ledger.entry import Kind, decode, entry_hash, text_hash
from ledger.log import EMPTY, Draft, Frozen
from ledger.statement import BadStatement
from ledger.verify import Finding
from tests.ledger.world import (
    HUB,
    NOW_MS,
    TAG,
    DiskError,
    Failing,
    Memory,
    Mesh,
    drafts,
    grant_text,
    key,
    secret,
    signed_vote,
)


def indices(mesh: Mesh, wanted: list[Draft]) -> list[int]:
    return [index for index, _ in mesh.append(wanted).places]


def test_a_ledger_begins_with_genesis_owner_and_grant() -> None:
    mesh = Mesh().found()
    assert [decode(raw).kind for raw in mesh.storage.entries] == [Kind.GENESIS, Kind.ENROLMENT, Kind.GRANT]
    assert [decode(raw).epoch for raw in mesh.storage.entries] == [0, 0, 0] and mesh.storage.head().epoch == 1
    assert verify.verify(mesh.storage).ok
    with pytest.raises(ValueError, match="has one"):
        log.found(mesh.storage, b"", [], grant_text, secret(HUB), NOW_MS)


def test_entries_are_chained_and_linked_by_project() -> None:
    mesh = Mesh().found()
    other = bytes([7]) * 32
    mesh.append(
        [*drafts(2), Draft(Kind.VOTE, signed_vote("owner", "x", 1, project="other"), other), *drafts(1, start=2)]
    )
    mesh.append(drafts(1, start=3))
    raws = mesh.storage.entries
    found = [decode(raw) for raw in raws]
    assert [entry.project_prev for entry in found[3:]] == [0, 3, 0, 4, 6]
    assert all(entry.prev == entry_hash(raws[entry.index - 1]) for entry in found[1:])
    assert all(entry.epoch == 1 for entry in found[3:])


def test_a_vote_that_is_sent_again_gets_the_entry_that_exists() -> None:
    mesh = Mesh().found()
    first = mesh.append(drafts(3))
    again = mesh.append([*drafts(4), *drafts(1)])
    assert [known for _, known in first.places] == [False] * 3
    assert again.places == ((3, True), (4, True), (5, True), (6, False), (3, True))
    twice = drafts(1, start=9)[0]
    assert mesh.append([twice, twice]).places == ((7, False), (7, True))
    assert len(mesh.storage.entries) == 8


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), max_size=8))
def test_every_vote_is_there_once_however_it_is_sent(batches: list[list[int]]) -> None:
    mesh = Mesh().found()
    votes, places = drafts(13), {}
    for batch in batches:
        for number, index in zip(batch, indices(mesh, [votes[number] for number in batch]), strict=True):
            assert places.setdefault(number, index) == index
    assert sorted(places.values()) == list(range(3, 3 + len(places)))
    assert verify.verify(mesh.storage).ok


def test_a_batch_is_bounded() -> None:
    mesh = Mesh().found()
    mesh.append(drafts(log.MAX_BATCH))
    with pytest.raises(ValueError, match="at most 100"):
        mesh.append(drafts(log.MAX_BATCH + 1))


def test_an_empty_append_changes_nothing() -> None:
    mesh = Mesh().found()
    assert mesh.append([]).checkpoint == mesh.storage.newest_checkpoint()
    with pytest.raises(ValueError, match="genesis"):
        log.append(Memory(), [], secret(HUB), NOW_MS)
    with pytest.raises(ValueError, match="begins"):
        log.append(Memory(), drafts(1), secret(HUB), NOW_MS)


def test_a_grant_fits_its_place_or_is_refused() -> None:
    mesh = Mesh().found()
    head, previous = mesh.storage.head(), text_hash(mesh.storage.texts[2] or b"")
    root = tlog.frontier_root(head.frontier)
    for epoch, size, its_root in ((1, 3, root), (3, 3, root), (2, 2, root), (2, 3, bytes(32))):
        with pytest.raises(BadStatement):
            mesh.append([Draft(Kind.GRANT, grant_text(mesh.ledger, size, its_root, epoch, previous))])
    mesh.append([Draft(Kind.GRANT, grant_text(mesh.ledger, 3, root, 2, previous, [HUB, "hub 2"])), *drafts(1)])
    assert decode(mesh.storage.entries[-1]).epoch == 2
    assert verify.verify(mesh.storage).ok


# --- every write failed in two ways ---


def run(storage: Memory) -> Mesh:
    """Founds a ledger and sends five batches, again and again until each is acknowledged."""
    mesh = Mesh(storage)
    for _ in range(3):
        try:
            mesh.found()
            break
        except DiskError:
            continue
        except ValueError:  # it was stored: as a caller who restarts finds
            log.publish(storage, secret(HUB))
            break
    acknowledged: dict[bytes, int] = {}
    for number in range(5):
        batch = drafts(3, start=number * 2)  # each overlaps the one before
        for _ in range(3):
            try:
                appended = mesh.append(batch)
            except DiskError:
                continue
            for draft, (index, _) in zip(batch, appended.places, strict=True):
                assert acknowledged.setdefault(draft.text, index) == index
            break
    assert {text: storage.texts.index(text) for text in acknowledged} == acknowledged
    assert storage.texts[3:] == list(acknowledged)
    return mesh


WRITES = 12
"""Of `run` when nothing fails: a commit and a checkpoint for the founding and for each batch."""


def test_the_number_of_writes() -> None:
    storage = Failing(0, False)
    run(storage)
    assert storage.writes == WRITES


@pytest.mark.parametrize("stored", [True, False], ids=["raised and stored", "raised and not stored"])
@pytest.mark.parametrize("fails_at", range(1, WRITES + 1))
def test_a_write_that_fails_loses_nothing_and_doubles_nothing(fails_at: int, stored: bool) -> None:
    storage = Failing(fails_at, stored)
    run(storage)
    assert storage.writes >= WRITES
    report = verify.verify(storage)
    assert report.ok and report.checked == 14 and report.votes == 11
    never_failed = Memory()
    run(never_failed)
    assert storage.texts == never_failed.texts


# --- a log that is not what was committed ---


def committed_unsigned() -> Mesh:
    """A crash between the commit and the checkpoint."""
    mesh = Mesh().found()
    mesh.append(drafts(5))
    batch, _ = log.plan(mesh.storage, drafts(4, start=5), NOW_MS)
    mesh.storage.commit(batch)
    return mesh


def test_recovery_is_the_next_append() -> None:
    mesh = committed_unsigned()
    assert [finding.code for finding in verify.verify(mesh.storage).findings] == ["unsigned"]
    assert mesh.append(drafts(4, start=5)).places[0] == (8, True)
    assert verify.verify(mesh.storage).ok


def flip(raw: bytes, at: int = 50) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def damage_entry(storage: Memory) -> None:
    storage.entries[9] = flip(storage.entries[9])


def damage_text(storage: Memory) -> None:
    storage.texts[9] = flip(storage.texts[9] or b"")


def damage_leaf(storage: Memory) -> None:
    storage.hashes[tlog.Node(0, 9)] = bytes(32)


def damage_tree(storage: Memory) -> None:
    storage.hashes[tlog.Node(1, 5)] = bytes(32)


def damage_old_tree(storage: Memory) -> None:
    storage.hashes[tlog.Node(3, 0)] = bytes(32)


def lose_entry(storage: Memory) -> None:
    storage.entries.pop()


def lose_hash(storage: Memory) -> None:
    del storage.hashes[tlog.Node(0, 10)]


def damage_head(storage: Memory) -> None:
    storage.now_head = storage.now_head._replace(chain=bytes(32))


def damage_last_signed(storage: Memory) -> None:
    storage.entries[7] = flip(storage.entries[7])


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (damage_entry, "chain"),
        (damage_text, "text"),
        (damage_leaf, "tree"),
        (damage_tree, "tree"),
        (damage_old_tree, "tree"),
        (lose_entry, "truncated"),
        (lose_hash, "tree"),
        (damage_head, "head"),
        (damage_last_signed, "chain"),
    ],
)
def test_damage_is_not_signed_over(damage: object, code: str) -> None:
    mesh = committed_unsigned()
    before = mesh.storage.newest_checkpoint()
    damage(mesh.storage)  # type: ignore[operator]
    for _ in range(2):  # it stays frozen
        with pytest.raises(Frozen) as raised:
            mesh.append(drafts(1, start=20))
        assert raised.value.finding.code == code
    assert mesh.storage.newest_checkpoint() == before and mesh.storage.frozen()


def test_repair_takes_only_the_bytes_that_were_committed() -> None:
    mesh = Mesh().found()
    mesh.append(drafts(9))
    good = mesh.storage.entries[6]
    damage = flip(good)
    mesh.storage.entries[6] = damage
    report = verify.verify(mesh.storage)
    assert (6, "leaf") in {(finding.index, finding.code) for finding in report.findings}
    mesh.storage.freeze(report.findings[0])
    with pytest.raises(tlog.BadProof):
        log.repair(mesh.storage, 6, damage)
    with pytest.raises(tlog.BadProof):
        log.repair(mesh.storage, 99, good)
    assert not log.thaw(mesh.storage).ok and mesh.storage.frozen()
    log.repair(mesh.storage, 6, good)
    with pytest.raises(Frozen):
        mesh.append(drafts(1, start=20))
    assert log.thaw(mesh.storage).ok
    assert mesh.append(drafts(1, start=20)).places == ((12, False),)


def test_what_was_frozen_by_hand_stays_frozen() -> None:
    mesh = Mesh().found()
    mesh.storage.freeze(Finding(None, "audit", "by hand"))
    with pytest.raises(Frozen, match="by hand"):
        mesh.append(drafts(1))


def test_the_head_comes_back_from_its_bytes() -> None:
    mesh = Mesh().found()
    mesh.append(drafts(9))
    for head in (EMPTY, mesh.storage.head()):
        assert log.decode_head(log.encode_head(head)) == head


def test_checkpoints_are_consistent_with_each_other() -> None:
    mesh = Mesh().found()
    for number in range(6):
        mesh.append(drafts(3, start=number * 3))
    keys = checkpoint.hub_keys(mesh.ledger, [key(HUB)])
    opened = [
        checkpoint.open_checkpoint(raw, checkpoint.origin_of(mesh.ledger), keys) for raw in mesh.storage.checkpoints()
    ]
    for known in opened:
        for seen in opened:
            small, large = sorted((known.checkpoint.size, seen.checkpoint.size))
            proof = tlog.prove_consistency(small, large, mesh.storage)
            assert checkpoint.compare(known, seen, proof) is not checkpoint.Standing.UNPROVEN


def test_a_project_is_linked_across_batches() -> None:
    mesh = Mesh().found()
    for number in range(4):
        mesh.append(drafts(1, start=number))
    assert mesh.storage.last_of(TAG) == 6 and decode(mesh.storage.entries[6]).project_prev == 5
