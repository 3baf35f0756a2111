"""Which hub may sign a checkpoint of which size."""

from itertools import permutations

import pytest

from ledger.checkpoint import Checkpoint, hub_signer, sign_checkpoint
from ledger.entry import text_hash
from ledger.note import BadNote
from ledger.statement import Grant
from node.voting.signers import Granted, line_up, read_signers
from tests.node.voting.world import Script, a_reader, sealed
from tests.node.world import keys

LEDGER, OTHER = bytes(32), bytes([1]) * 32
ROOT = bytes([2]) * 32


def granted(epoch: int, hub: int, start: int, before: Granted | None = None, ledger: bytes = LEDGER) -> Granted:
    previous = before.name if before else bytes(32)
    grant = Grant(ledger, epoch, "solo", (keys(hub)[0],), start, ROOT, previous)
    return Granted(grant, text_hash(sealed(grant)))


FIRST = granted(1, 1, 2)
SECOND = granted(2, 2, 10, FIRST)
RIVAL = granted(2, 3, 12, FIRST)
THIRD = granted(3, 4, 20, RIVAL)


def hub_at(grants: list[Granted], size: int) -> bytes | None:
    grant = line_up(LEDGER, grants).at(size)
    return grant.hubs[0] if grant else None


def test_the_newest_grant_that_begins_below_a_size_is_in_force_there() -> None:
    for grants in permutations([FIRST, SECOND]):
        assert hub_at(list(grants), 2) is None
        assert hub_at(list(grants), 3) == hub_at(list(grants), 10) == keys(1)[0]
        assert hub_at(list(grants), 11) == keys(2)[0]


def test_a_grant_that_begins_earlier_than_the_one_before_it_takes_its_place() -> None:
    early = granted(3, 4, 5, SECOND)
    assert hub_at([FIRST, SECOND, early], 5) == keys(1)[0]
    assert hub_at([FIRST, SECOND, early], 6) == hub_at([FIRST, SECOND, early], 50) == keys(4)[0]


def test_two_grants_of_one_epoch_stop_both_until_a_later_one_names_one_of_them() -> None:
    for grants in permutations([FIRST, SECOND, RIVAL]):
        signers = line_up(LEDGER, grants)
        assert signers.at(10) == FIRST.grant and signers.at(11) is None
        assert not any(signers.is_hub(keys(number)[0]) for number in range(1, 5))
    for grants in permutations([FIRST, SECOND, RIVAL, THIRD]):
        signers = line_up(LEDGER, grants)
        assert signers.line == (FIRST, RIVAL, THIRD) and signers.doubt is None
        assert signers.is_hub(keys(4)[0]) and not signers.is_hub(keys(3)[0])


def test_an_epoch_that_is_missing_is_passed_over_and_another_ledger_is_none_of_this_one() -> None:
    assert line_up(LEDGER, [FIRST, THIRD, granted(4, 1, 30, ledger=OTHER)]).line == (FIRST, THIRD)


def test_the_digest_is_equal_for_equal_grants_only() -> None:
    sets = [[FIRST], [FIRST, SECOND], [FIRST, RIVAL], [FIRST, SECOND, RIVAL], [FIRST, SECOND, RIVAL, THIRD]]
    digests = [line_up(LEDGER, grants).digest for grants in sets]
    assert len(set(digests)) == len(sets)
    assert line_up(LEDGER, [RIVAL, FIRST]).digest == line_up(LEDGER, [FIRST, RIVAL]).digest


def note(hub: int, size: int) -> bytes:
    signers = line_up(LEDGER, [FIRST])
    return sign_checkpoint(Checkpoint(signers.origin, size, ROOT), [hub_signer(LEDGER, keys(hub)[1])])


def test_a_checkpoint_counts_by_the_hub_in_force_and_another_is_of_a_tail() -> None:
    signers = line_up(LEDGER, [FIRST, SECOND])
    assert signers.open(note(1, 10)).checkpoint.size == signers.open(note(2, 11)).checkpoint.size - 1
    for hub, size in ((1, 11), (2, 10), (3, 11), (1, 2)):
        with pytest.raises(BadNote):
            signers.open(note(hub, size))
    assert signers.left(note(1, 11), 11)
    assert not any(signers.left(note(hub, size), size) for hub, size in ((1, 10), (2, 11), (3, 11)))


def test_a_key_tells_its_epoch_unless_an_earlier_grant_names_it() -> None:
    again = granted(3, 1, 20, SECOND)
    signers = line_up(LEDGER, [FIRST, SECOND, again])
    assert [signers.telling(size) for size in (2, 10, 20, 21)] == [[], [keys(1)[0]], [keys(2)[0]], []]
    assert line_up(LEDGER, [FIRST, SECOND, RIVAL]).telling(11) == []


async def test_the_grants_are_read_from_the_statements_of_this_ledger() -> None:
    script = Script().found()
    reader = await a_reader(script)
    signers = read_signers(reader.database.direct)
    assert signers is not None and signers.ledger == script.ledger
    assert signers.epoch == 1 and signers.is_hub(script.key)
