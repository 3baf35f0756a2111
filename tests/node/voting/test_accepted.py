"""Which roots are known, and what a grant leaves of what was taken in."""

from ledger import tlog
from node.voting import records
from node.voting.accepted import accepted_size, read_forks, rebase, root_at
from node.voting.signers import read_signers
from tests.node.voting.world import Voter, a_reader, announced, forked, script_of, told


async def test_a_root_is_known_when_it_was_accepted_or_when_our_entries_lead_to_it() -> None:
    script = script_of(2, 4)
    reader = await a_reader(script, script.checkpoint(5, 3), script.checkpoint(9, 5), script.entries([3, 4], 5))
    connection = reader.database.direct
    known = {size for size in range(12) if root_at(connection, size)}
    assert known == {0, 1, 2, 3, 4, 5, 9} and accepted_size(connection) == 9
    assert all(root_at(connection, size) == tlog.root(size, script.storage) for size in known)
    assert accepted_size(Voter(8).database.direct) == 0 and not read_forks(connection)


async def test_a_grant_that_is_in_the_ledger_takes_nothing_away() -> None:
    script = script_of(2).hand_over(2).add("x")
    grant = records.statement_draft(4, script.storage.texts[5] or b"")
    reader = await a_reader(script, grant, *announced(script))
    signers = read_signers(reader.database.direct)
    assert signers is not None and signers.epoch == 2 and reader.size == 7
    gathered = rebase(reader.database.direct, signers)
    assert not gathered.dropped and not gathered.alerts and reader.size == 7


async def test_what_lies_beyond_a_grant_goes_with_its_roots_and_hashes_also_where_there_are_gaps() -> None:
    old = script_of(2)
    new = old.hand_over(2)
    old.add("a", "b", "c", "d")
    drafts = announced(old)
    for left_out in (None, 1, 3):
        kept = [draft for at, draft in enumerate(drafts) if at != left_out]
        reader = await a_reader(old, *kept)
        entries = reader.entries()
        await told(reader, records.statement_draft(4, new.storage.texts[5] or b""))
        assert reader.entries() == {index: raw for index, raw in entries.items() if index < 5}
        assert reader.accepted == 5 and reader.size == len(reader.entries())
        assert root_at(reader.database.direct, 5) == tlog.root(5, new.storage)


async def test_a_grant_for_another_history_takes_nothing_away_and_is_told() -> None:
    first, second = forked(6, 2, 2)
    reader = await a_reader(first, *announced(first))
    await told(reader, records.statement_draft(4, second.grant(2)))
    assert reader.size == 8 and [code for code, _ in reader.alerts] == ["fork"]
