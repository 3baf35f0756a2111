"""The right to append, and what became of a batch after an error."""

import pytest

from ledger import log, quorum
from ledger.entry import text_hash
from ledger.quorum import Moved, NotGranted, Outcome, Solo
from tests.ledger.world import AUTHORITY, HUB, NOW_MS, DiskError, Failing, Mesh, drafts, grant_text, key

LEDGER, ROOT = bytes(range(32)), bytes(32)
FIRST = grant_text(LEDGER, 2, ROOT)
SECOND = grant_text(LEDGER, 9, ROOT, 2, text_hash(FIRST), ["hub 2"])


def current(*texts: bytes) -> int:
    return quorum.current_grant(texts, LEDGER, key(AUTHORITY)).epoch


def test_the_newest_grant_holds() -> None:
    assert current(FIRST) == 1
    assert current(SECOND, FIRST, FIRST) == current(SECOND) == 2


def test_two_grants_for_one_epoch_stop_both() -> None:
    rival = grant_text(LEDGER, 2, ROOT, hubs=["another hub"])
    with pytest.raises(NotGranted, match="two grants"):
        current(FIRST, rival)
    with pytest.raises(NotGranted, match="does not name"):
        current(grant_text(LEDGER, 9, ROOT, 2, bytes(32)), FIRST)


def test_a_later_grant_replaces_two_of_one_epoch() -> None:
    rival = grant_text(LEDGER, 5, ROOT, 2, text_hash(FIRST), ["another hub"])
    for chosen in (SECOND, rival):
        third = grant_text(LEDGER, 11, ROOT, 3, text_hash(chosen))
        assert current(FIRST, SECOND, rival, third) == 3
    with pytest.raises(NotGranted, match="does not name"):
        current(FIRST, SECOND, rival, grant_text(LEDGER, 11, ROOT, 3, text_hash(FIRST)))


@pytest.mark.parametrize("text", [b"", b"nonsense", FIRST[:-1] + b"x", grant_text(bytes(32), 2, ROOT)])
def test_a_grant_that_is_none_grants_nothing_and_stops_nobody(text: bytes) -> None:
    assert current(FIRST, text) == 1
    with pytest.raises(NotGranted, match="no grant"):
        current(text)


def test_only_the_granted_hub_appends_and_only_in_its_epoch() -> None:
    mesh = Mesh().found()
    grant = quorum.current_grant([mesh.storage.texts[2] or b""], mesh.ledger, key(AUTHORITY))
    quorum.check_may_append(grant, key(HUB), mesh.storage.head())
    with pytest.raises(NotGranted, match="this hub"):
        quorum.check_may_append(grant, key("another hub"), mesh.storage.head())
    with pytest.raises(NotGranted, match="epoch 0"):
        quorum.check_may_append(grant, key(HUB), log.EMPTY)


def test_solo_compares_the_whole_head() -> None:
    mesh = Mesh().found()
    solo = Solo(mesh.storage)
    batch, _ = log.plan(mesh.storage, drafts(2), NOW_MS)
    rival, _ = log.plan(mesh.storage, drafts(2, start=5), NOW_MS)
    solo.commit(batch)
    assert solo.head() == batch.after
    with pytest.raises(Moved):
        solo.commit(rival)
    assert quorum.outcome(rival, solo.head()) is Outcome.MOVED


@pytest.mark.parametrize(("stored", "expected"), [(True, Outcome.COMMITTED), (False, Outcome.NOT_YET)])
def test_an_error_is_not_an_answer(stored: bool, expected: Outcome) -> None:
    mesh = Mesh(Failing(3, stored)).found()
    batch, _ = log.plan(mesh.storage, drafts(2), NOW_MS)
    with pytest.raises(DiskError):
        Solo(mesh.storage).commit(batch)
    assert quorum.outcome(batch, mesh.storage.head()) is expected
