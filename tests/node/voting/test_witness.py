"""A witness signs one history, forwards, seldom, and only what is on disk."""

from ledger import note
from ledger.checkpoint import parse_text
from ledger.note import Algorithm, VerifierKey
from ledger.policy import open_under, policy_of
from node.voting import records
from node.voting.records import Cosigned
from node.voting.signers import read_signers
from node.voting.witness import COSIGN_EVERY_MS, witnessed
from tests.node.voting.world import Voter, a_reader, announced, forked, script_of, told
from tests.node.world import member


def signed(node: Voter) -> list[int]:
    """The sizes for which this node has written cosignatures, as its own ops say."""
    own = [op for op in node.ops() if op.header.kind == records.COSIGNATURE and op.header.node_key == node.key]
    return [record.size for op in own if (record := records.read(op, Cosigned))]


async def test_it_signs_the_newest_checkpoint_and_at_most_one_in_ten_minutes() -> None:
    script = script_of(1, 1, 1)
    drafts = announced(script)
    witness = await a_reader(script)
    await witness.follower.cosign()
    for batch in (drafts[:2], drafts[2:4], drafts[4:]):
        await told(witness, *batch)
        for _ in range(3):
            assert await witness.follower.cosign() <= COSIGN_EVERY_MS
        witness.now_ms += 1_000
    assert signed(witness) == [3]
    witness.now_ms += COSIGN_EVERY_MS
    for _ in range(3):
        await witness.follower.cosign()
        witness.now_ms += COSIGN_EVERY_MS
    assert signed(witness) == [3, 6], "the newest, once"


async def test_it_writes_at_once_whatever_the_clock_said_before() -> None:
    script = script_of(1)
    witness = await a_reader(script)
    await witness.follower.cosign()
    await told(witness, *announced(script))
    witness.now_ms -= COSIGN_EVERY_MS
    await witness.follower.cosign()
    assert signed(witness) == [3, 4]


async def test_a_hub_does_not_witness_itself() -> None:
    script = script_of(1)
    hub = await a_reader(script, number=1)
    await hub.follower.cosign()
    assert not signed(hub)


async def test_nothing_is_signed_before_it_is_accepted_nor_on_a_fork() -> None:
    first, second = forked(6, 2, 2)
    witness = await a_reader(first)
    await witness.append(*announced(first))  # here, and not taken in yet
    await witness.follower.cosign()
    assert signed(witness) == [3]
    witness.now_ms += COSIGN_EVERY_MS
    await told(witness, second.checkpoint(8, 6))
    await witness.follower.cosign()
    assert signed(witness) == [3]


async def test_it_never_signs_a_size_again_or_a_smaller_one() -> None:
    """Not after a takeover that begins below, and not after its database was put back from a backup."""
    old = script_of(3)
    new = old.hand_over(2).add("x")
    old.add("a", "b", "c")
    witness = await a_reader(old)
    image = witness.image()
    await told(witness, *announced(old))
    await witness.follower.cosign()
    assert signed(witness) == [9]
    grant = records.statement_draft(4, new.storage.texts[6] or b"")
    drafts = [grant, *announced(new)[2:]]
    again = witness.restored(image)
    await again.merge(witness.ops())
    for node in (witness, again):
        node.now_ms += 2 * COSIGN_EVERY_MS
        await told(node, *drafts)
        assert node.accepted == new.size == 8
        await node.follower.cosign()
        assert signed(node) == [9], "8 is smaller than what it has signed"
    new.add("y", "z")
    await told(witness, *announced(new)[-2:])
    await witness.follower.cosign()
    assert signed(witness) == [9, 10]


async def test_the_lines_that_are_kept_make_a_note_that_counts() -> None:
    script = script_of(1)
    witnesses = [await a_reader(script, *announced(script), number=number) for number in range(20, 24)]
    reader = await a_reader(script, *announced(script))
    for witness in witnesses:
        await witness.follower.cosign()
        await reader.merge(witness.ops())
    raw = witnessed(reader.database.direct, script.notes[4])
    signers = read_signers(reader.database.direct)
    assert signers is not None
    keys = [VerifierKey(one.store.node_id, Algorithm.COSIGNATURE, one.key) for one in witnesses]
    opened = open_under(policy_of([one.key for one in signers.open(raw).hubs], keys, 4), raw)
    assert len(opened.witnesses) == 4 and opened.checkpoint == parse_text(note.parse(script.notes[4]).text)
    assert all(one.time_s == witnesses[0].now_ms // 1_000 for one in opened.witnesses)
    assert witnessed(reader.database.direct, script.notes[3]) == script.notes[3]


async def test_a_later_signature_replaces_the_earlier_one_everywhere() -> None:
    script = script_of(1)
    witness, reader = await a_reader(script, number=20), await a_reader(script)
    await witness.follower.cosign()
    witness.now_ms += COSIGN_EVERY_MS
    await told(witness, *announced(script))
    await witness.follower.cosign()
    await reader.append(member(reader))
    await reader.merge(witness.ops())
    assert reader.rows("SELECT size FROM ledger_cosignatures") == [(4,)]
