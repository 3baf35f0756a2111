"""What is believed of a hub: each record good, tampered with, early, late, or of another history."""

from collections.abc import Callable

import msgspec
import pytest

from ledger import tlog
from ledger.checkpoint import Checkpoint, Fork, hub_signer, origin_of, sign_checkpoint
from ledger.entry import entry_hash
from ledger.log import MAX_BATCH
from node.store import Draft
from node.voting import intake, records
from node.voting.accepted import accepted_size, read_forks
from node.voting.records import Announced, Entries
from sync.overlap import RESERVED
from tests.node.voting.world import FACTS, PROJECT, Script, Voter, a_reader, announced, forked, script_of, told
from tests.node.world import keys, member


def alerts(node: Voter) -> list[str]:
    return [code for code, _ in node.alerts]


async def test_what_a_hub_tells_is_taken_in_with_its_notes_entries_and_tree() -> None:
    script = script_of(1, 4, 7)
    reader = await a_reader(script, *announced(script))
    assert reader.table.head() == script.storage.head()
    assert reader.table.checkpoints() == [script.notes[size] for size in sorted(script.notes)]
    assert list(reader.entries().values()) == script.storage.entries and not reader.alerts
    assert reader.committed == {name: at for at, name in enumerate(map(_name, script.storage.entries))}
    assert reader.follower.state(reader.database.direct) == {
        "accepted": 15, "whole": 15, "missing": 0, "unproven": 0, "inbox": 0, "forks": 0
    }  # fmt: skip


def _name(raw: bytes) -> bytes:
    return raw[-32:]


async def test_a_checkpoint_waits_for_the_one_that_it_continues() -> None:
    script = script_of(2, 3)
    reader = await a_reader(script, script.checkpoint(8, 5), script.entries(range(5, 8), 8))
    assert reader.accepted == 3 and reader.follower.state(reader.database.direct)["unproven"] == 1
    await told(reader, script.checkpoint(5, 3))
    assert reader.accepted == 8 and reader.size == 3 and reader.follower.state(reader.database.direct)["missing"] == 2
    assert sorted(reader.entries()) == [0, 1, 2, 5, 6, 7], "what is proved is kept, with gaps"
    await told(reader, script.entries([3, 4], 5))
    assert reader.size == 8 and reader.follower.state(reader.database.direct)["inbox"] == 0


@pytest.mark.parametrize("known", [3, 4, 5, 8])
async def test_a_proof_that_shows_nothing_convicts_nobody(known: int) -> None:
    """Also where the older size is a power of two, of which RFC 9162 leaves the root out."""
    script = script_of(1, 1, 3, 2)
    drafts = [draft for draft in announced(script) if _size(draft) <= known]
    reader = await a_reader(script, *drafts)
    good = msgspec.msgpack.decode(_body(script.checkpoint(10, known)), type=Announced)
    for proof in ((), good.proof[:-1], (*good.proof, bytes(32)), tuple(bytes(32) for _ in good.proof)):
        await told(reader, records.checkpoint_draft(10, msgspec.structs.replace(good, proof=proof)))
    assert reader.accepted == known and not reader.rows("SELECT * FROM ledger_forks")
    assert "fork" not in alerts(reader)
    await told(reader, script.checkpoint(10, known))
    assert reader.accepted == 10


def _body(draft: Draft) -> bytes:
    assert isinstance(draft.body, bytes)
    return draft.body


def _size(draft: Draft) -> int:
    return int(msgspec.msgpack.decode(_body(draft), type=Entries).size) if draft.kind == "entries" else _at(draft)


def _at(draft: Draft) -> int:
    return int(draft.subject.rpartition("/")[2])


async def test_a_checkpoint_that_no_granted_hub_signed_has_no_effect() -> None:
    script = script_of(2)
    checkpoint = Checkpoint(origin_of(script.ledger), 5, tlog.root(5, script.storage))
    stranger = sign_checkpoint(checkpoint, [hub_signer(script.ledger, keys(4)[1])])
    other = sign_checkpoint(Checkpoint("elsewhere", 5, checkpoint.root), [hub_signer(script.ledger, script.secret)])
    flipped = bytearray(script.notes[5])
    flipped[-10] ^= 1
    reader = await a_reader(script)
    for note in (stranger, other, bytes(flipped), b"no note at all"):
        await told(reader, script.checkpoint(5, 3, note=note))
    assert reader.accepted == 3 and reader.follower.state(reader.database.direct)["inbox"] == 0 and not reader.alerts


async def test_an_older_checkpoint_is_kept_when_our_entries_lead_to_its_root() -> None:
    script = script_of(1, 4)
    reader = await a_reader(script, script.checkpoint(8, 3), script.entries(range(3, 8), 8))
    assert reader.accepted == reader.size == 8
    await told(reader, script.checkpoint(4, 3))
    assert reader.rows("SELECT size, note FROM ledger_checkpoints WHERE size = 4") == [(4, script.notes[4])]


async def test_an_older_checkpoint_that_can_not_be_told_yet_waits_for_entries() -> None:
    script = script_of(1, 4)
    reader = await a_reader(script, script.checkpoint(8, 3))
    await told(reader, script.checkpoint(4, 3))
    assert reader.follower.state(reader.database.direct)["unproven"] == 1
    await told(reader, script.entries(range(3, 8), 8))
    assert reader.follower.state(reader.database.direct)["unproven"] == 0 and len(reader.table.checkpoints()) == 3


Tamper = Callable[[Entries], Entries]


def _line(at: int, raw: bytes | None = None, text: bytes | None = None) -> Tamper:
    def tamper(record: Entries) -> Entries:
        lines = list(record.lines)
        lines[at] = (raw or lines[at][0], text or lines[at][1])
        return msgspec.structs.replace(record, lines=tuple(lines))

    return tamper


def _swapped(record: Entries) -> Entries:
    return msgspec.structs.replace(record, lines=record.lines[::-1], proofs=record.proofs[::-1])


def _twice(record: Entries) -> Entries:
    return msgspec.structs.replace(record, lines=record.lines[:1] * 2, proofs=record.proofs[:1] * 2)


TAMPERED: dict[str, Tamper] = {
    "another text": _line(0, text=b"another"),
    "another entry's bytes": lambda record: _line(0, raw=record.lines[1][0])(record),
    "no entry": _line(1, raw=bytes(146)),
    "a hash flipped": lambda record: msgspec.structs.replace(record, hashes=(bytes(32), *record.hashes[1:])),
    "a hash missing": lambda record: msgspec.structs.replace(record, hashes=record.hashes[:-1]),
    "a proof missing": lambda record: msgspec.structs.replace(record, proofs=record.proofs[:-1]),
    "a negative place": lambda record: msgspec.structs.replace(record, proofs=((-1,), *record.proofs[1:])),
    "out of order": _swapped,
    "one entry twice": _twice,
    "under another size": lambda record: msgspec.structs.replace(record, size=5),
}


@pytest.mark.parametrize("name", TAMPERED)
async def test_a_record_of_entries_that_is_wrong_anywhere_changes_nothing(name: str) -> None:
    script = script_of(2, 4)
    reader = await a_reader(script, script.checkpoint(5, 3), script.checkpoint(9, 5))
    bad = TAMPERED[name](script.proved(range(5, 9), 9))
    await told(reader, records.entries_draft(PROJECT, 5, bad))
    assert sorted(reader.entries()) == [0, 1, 2] and not reader.alerts
    await told(reader, script.entries(range(5, 9), 9))
    assert sorted(reader.entries()) == [0, 1, 2, 5, 6, 7, 8]


async def test_an_entry_in_a_project_that_it_is_not_about_has_no_effect() -> None:
    script = script_of(2)
    reader = await a_reader(script, script.checkpoint(5, 3))
    await told(reader, script.entries([3, 4], 5, "elsewhere"), script.entries([3, 4], 5, RESERVED))
    assert sorted(reader.entries()) == [0, 1, 2]
    bare = Voter(9)
    await bare.append(member(bare))
    await bare.merge(script.spoken(*script.beginning()[:2]))
    await told(bare, script.entries(range(3), 3, PROJECT))
    assert bare.accepted == 3 and not bare.entries()


async def test_entries_that_are_here_are_nothing_new_and_none_is_told_twice() -> None:
    script = script_of(3)
    reader = await a_reader(script, *announced(script))
    reader.committed.clear()
    await told(reader, script.entries([4], 6), *announced(script))
    assert not reader.committed and not reader.alerts and reader.follower.state(reader.database.direct)["inbox"] == 0


async def test_the_first_entry_is_that_of_the_ledger_in_the_grant() -> None:
    script, other = Script().found(), Script().found()
    said = script.grant(1, ledger=other.ledger)  # of the same authority, for another ledger
    assert entry_hash(script.storage.entries[0]) == script.ledger
    reader = Voter(9)
    await reader.append(member(reader))
    await reader.merge(script.spoken(records.statement_draft(4, said), *script.beginning()[1:]))
    await reader.work()
    assert reader.accepted == 0 and not reader.entries()


async def test_only_a_hub_says_which_checkpoint_is_the_first() -> None:
    """A member that names a later one, truly signed, would leave a newcomer without a way from there."""
    script, reader = script_of(2, 3), Voter(9)
    await reader.append(member(reader), script.beginning()[0], script.checkpoint(8, 0))
    await reader.work()
    assert reader.accepted == 0
    await reader.merge(script.spoken(*script.beginning(), *announced(script)))
    await reader.work()
    assert (reader.accepted, reader.size) == (8, 8) and not reader.alerts


async def test_an_entry_that_was_changed_on_disk_is_reported_and_freezes_a_hub() -> None:
    script = script_of(3)
    for number, frozen in ((9, False), (1, True)):
        reader = await a_reader(script, *announced(script), number=number)
        await reader.database.write(
            lambda connection: connection.execute("UPDATE ledger_entries SET raw = zeroblob(146) WHERE id = 4")
        )
        await told(reader, script.entries([3, 4], 6))
        assert alerts(reader) == ["ledger_damaged"]
        assert (reader.table.frozen() is not None) == frozen
        assert "entry 4" in reader.alerts[0][1]


# Forks


@pytest.mark.parametrize(("one", "two"), [(2, 2), (2, 1), (4, 2), (1, 2), (2, 4)])
async def test_two_histories_are_a_fork_and_the_first_one_stays(one: int, two: int) -> None:
    first, second = forked(6, one, two)
    reader = await a_reader(first, *announced(first))
    head = reader.table.head()
    await told(reader, second.checkpoint(6 + two, 6), second.entries(range(6, 6 + two), 6 + two))
    later = second.copy().add("later")
    await told(reader, later.checkpoint(later.size, 6), later.checkpoint(later.size, 6 + two))
    if two <= one:
        forks = read_forks(reader.database.direct)
        assert forks and alerts(reader) == ["fork"] * len(forks)
        assert reader.rows("SELECT count(*) FROM ops WHERE subject LIKE 'ledger/fork/%'") == [(1,)]
    else:  # the second is newer and nothing leads to it: only a node that has its entries can tell
        assert reader.follower.state(reader.database.direct)["unproven"]
    assert reader.table.head() == head and accepted_size(reader.database.direct) == 6 + one


async def test_a_newer_tree_that_does_not_hold_the_older_one_is_a_fork() -> None:
    first, second = forked(5, 2, 4)
    reader = await a_reader(first, *announced(first))
    proof = tuple(tlog.prove_consistency(7, 9, second.storage))
    await told(reader, second.checkpoint(9, 7, proof=proof))
    (fork,) = read_forks(reader.database.direct)
    assert fork.proof == proof and (fork.older, fork.newer) == (first.notes[7], second.notes[9])


async def test_evidence_is_believed_when_it_convicts() -> None:
    first, second = forked(6, 2, 2)
    fork = Fork(first.notes[8], second.notes[8])
    reader = await a_reader(first)
    no_forks = [
        Fork(first.notes[8], first.notes[8]),
        Fork(first.notes[6], first.notes[8]),
        Fork(first.notes[8], b"no note"),
        Fork(first.notes[8], sign_checkpoint(Checkpoint("x", 8, bytes(32)), [hub_signer(first.ledger, first.secret)])),
    ]
    await told(reader, *map(records.fork_draft, no_forks))
    assert not read_forks(reader.database.direct) and not reader.alerts
    await told(reader, records.fork_draft(fork))
    assert read_forks(reader.database.direct) == [fork] and alerts(reader) == ["fork"]
    await told(reader, records.fork_draft(fork))
    assert alerts(reader) == ["fork"], "told once"


async def test_evidence_is_kept_for_so_many_forks_and_one_op_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_FORKS", 3)
    first, second = forked(4, 1, 1)
    for number in range(5):
        first.add(FACTS[number + 10])
        second.add(FACTS[number + 30 + 2])
    reader = await a_reader(first, *announced(first))
    await told(reader, *(second.checkpoint(size, 4) for size in range(5, 11)))
    assert len(read_forks(reader.database.direct)) == 3 == len(reader.alerts)
    assert reader.rows("SELECT count(*) FROM ops WHERE subject LIKE 'ledger/fork/%'") == [(1,)]


async def test_a_hub_freezes_on_a_fork() -> None:
    first, second = forked(6, 2, 2)
    hub = await a_reader(first, *announced(first), number=1)
    await told(hub, second.checkpoint(8, 6))
    finding = hub.table.frozen()
    assert finding is not None and finding.code == "fork"


# Takeovers


async def test_a_tail_that_a_grant_left_behind_goes_and_is_no_fork() -> None:
    old = script_of(3)
    new = old.hand_over(2).add("x", "y")
    old.add("a", "b", "c")
    reader = await a_reader(old, *announced(old))
    assert reader.size == 9
    tail = [_name(raw) for raw in old.storage.entries[6:]]
    await told(reader, records.statement_draft(4, new.storage.texts[6] or b""))
    assert reader.size == reader.accepted == 6 and not read_forks(reader.database.direct)
    assert not reader.rows("SELECT * FROM ledger_hashes WHERE (number + 1) << level > 6")
    await told(reader, *_after(new, 6))
    assert reader.table.head() == new.storage.head() and not reader.alerts
    assert all(reader.table.find(name) is None for name in tail)
    await told(reader, *announced(old))
    assert reader.table.head() == new.storage.head() and not reader.alerts, "the tail comes again and is nothing"


def _after(script: Script, size: int) -> list[Draft]:
    drafts = announced(script)
    return [draft for draft in drafts if _size(draft) > size]


async def test_a_hub_that_takes_over_from_itself_is_no_fork() -> None:
    """One key signs both: what has the grant's entry in it is the new epoch's."""
    old = script_of(3)
    new = old.hand_over(1).add("x", "y")
    old.add("a", "b", "c")
    grant = records.statement_draft(4, new.storage.texts[6] or b"")
    begun = [*_after(new, 6)]
    for drafts in ([*announced(old), grant, *begun], [grant, *begun, *announced(old)]):
        reader = await a_reader(old)
        for draft in drafts:
            await told(reader, draft)
        assert reader.table.head() == new.storage.head() and not reader.alerts
    reader = await a_reader(old, *announced(old), grant)
    assert reader.accepted == 6, "without the entry nobody can tell"


async def test_a_grant_that_goes_on_from_another_history_than_ours_is_told_and_nothing_is_given_up() -> None:
    first, second = forked(6, 2, 2)
    reader = await a_reader(first, *announced(first))
    await told(reader, records.statement_draft(4, second.grant(2)))
    assert alerts(reader) == ["fork"] and reader.size == 8


async def test_a_hub_leads_on_from_a_checkpoint_that_it_had_not_heard_of() -> None:
    script = script_of(2, 3)
    hub = await a_reader(script, script.checkpoint(8, 3), script.entries(range(3, 8), 8), number=1)
    other = await a_reader(script, script.checkpoint(5, 3), script.checkpoint(8, 3))
    assert other.accepted == 5
    await told(hub, script.checkpoint(5, 3))
    (raw,) = [op for op in hub.ops() if op.subject == "ledger/checkpoint/8"][1:]
    await told(other, records.checkpoint_draft(8, msgspec.msgpack.decode(raw.header.body, type=Announced)))
    assert other.accepted == 8


async def test_a_full_batch_is_one_record() -> None:
    script = Script().found().add(*(f"f{number}" for number in range(MAX_BATCH)))
    reader = await a_reader(script, *announced(script))
    assert reader.size == MAX_BATCH + 3
