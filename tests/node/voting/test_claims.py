"""What a vote tells counts when the hub in force has signed it; whatever else anybody claims stops nobody."""

import sqlite3
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ledger import ed25519, tlog
from ledger.checkpoint import Checkpoint, origin_of
from ledger.statement import Grant
from node.voting import claims, records
from node.voting.claims import MAX_CLAIMS, NOTHING, Claim, ahead, is_true, newest
from node.voting.permission import Mode
from node.voting.signers import Granted, line_up, read_signers
from sync.overlap import RESERVED
from tests.node.voting.hubs import PROJECT, Site, authority_secret, follow, founder, joined, pull
from tests.node.voting.world import FACTS, Script, Voter, a_reader, announced, script_of, told
from tests.node.world import keys

LEDGER, ROOT = bytes(32), bytes([2]) * 32


def claim(hub: int, size: int, root: bytes = ROOT, ledger: bytes = LEDGER) -> Claim:
    """Signed by the hub of node `hub`."""
    text = Checkpoint(origin_of(ledger), size, root).text.encode()
    return Claim(size, root, ed25519.sign(keys(hub)[1], text))


def granted(epoch: int, start: int, *hubs: int) -> Granted:
    grant = Grant(LEDGER, epoch, "solo", tuple(keys(hub)[0] for hub in hubs), start, ROOT)
    return Granted(grant, bytes([epoch, *hubs]))


# --- what is true ---


@pytest.mark.parametrize(
    ("line", "true"),
    [
        ([granted(1, 0, 1)], {1: [1, 10, 11, 30]}),
        ([granted(1, 0, 1), granted(2, 10, 2)], {1: [1, 10], 2: [11, 30]}),
        ([granted(1, 0, 1), granted(2, 10, 1)], {1: [1, 10]}),
        ([granted(1, 0, 1), granted(2, 10, 1, 2)], {1: [1, 10], 2: [11, 30]}),
        ([granted(1, 0, 1), granted(2, 10, 2), granted(3, 11, 1)], {1: [1, 10], 2: [11]}),
        ([granted(1, 0, 1), granted(3, 10, 3)], {1: [1, 10], 3: [11, 30]}),
        ([granted(1, 0, 1), granted(2, 10, 2), granted(2, 10, 3)], {1: [1, 10]}),
    ],
)
def test_only_a_hub_of_the_grant_in_force_and_of_none_before_tells_something(
    line: list[Granted], true: dict[int, list[int]]
) -> None:
    signers = line_up(LEDGER, line)
    for hub in (1, 2, 3):
        assert [size for size in (1, 10, 11, 30) if is_true(claim(hub, size), signers)] == true.get(hub, [])


def test_no_bit_of_a_claim_may_be_another() -> None:
    signers, true = line_up(LEDGER, [granted(1, 0, 1)]), claim(1, 9)
    assert is_true(true, signers)
    for wrong in (
        true._replace(size=10),
        true._replace(root=LEDGER),
        true._replace(signature=bytes(64)),
        true._replace(signature=true.signature[:-1] + bytes([true.signature[-1] ^ 1])),
        true._replace(signature=b""),
        claim(1, 9, ledger=ROOT),
        NOTHING,
    ):
        assert not is_true(wrong, signers), wrong


# --- what a vote tells ---


def root_of(script: Script) -> bytes:
    return tlog.root(script.size, script.storage)


async def test_the_newest_checkpoint_that_was_accepted_is_told_as_it_was_signed() -> None:
    script = script_of(1, 4)
    reader = await a_reader(script, *announced(script))
    assert newest(reader.database.direct) == claim(1, 8, root_of(script), script.ledger)


async def test_one_whose_note_is_not_kept_is_not_told() -> None:
    script = script_of(1, 4)
    reader = await a_reader(script, *announced(script))
    reader.rows("UPDATE ledger_checkpoints SET note = NULL WHERE size = 8")
    assert newest(reader.database.direct).size == 4
    reader.rows("UPDATE ledger_checkpoints SET note = NULL")
    assert newest(reader.database.direct) == NOTHING == newest(Voter(9).database.direct)


async def test_of_a_note_with_other_lines_the_hubs_is_told() -> None:
    script = script_of(1)
    reader = await a_reader(script, *announced(script))
    expected = newest(reader.database.direct)
    text, _, line = script.notes[4].decode().partition("\n\n")
    other = Script(2).found().notes[3].decode().rpartition("\n\n")[2]
    note = f"{text}\n\n{other}{line}".encode()
    await reader.database.write(lambda c: c.execute("UPDATE ledger_checkpoints SET note = ? WHERE size = 4", (note,)))
    assert newest(reader.database.direct) == expected and expected.size == 4


async def test_a_takeover_changes_whose_signature_is_told() -> None:
    old = script_of(3)
    for hub, tells in ((2, True), (1, False)):
        new = old.hand_over(hub).add("x", "y")
        reader = await a_reader(old, records.statement_draft(4, new.storage.texts[6] or b""), *announced(new))
        assert reader.accepted == 9
        root = root_of(new)
        assert newest(reader.database.direct) == (claim(2, 9, root, new.ledger) if tells else NOTHING)


# --- what stops a hub ---

_names = count()


def pending(connection: sqlite3.Connection, *told: Claim, entry: int | None = None) -> None:
    """A vote for each of these claims."""
    for said in told:
        name = next(_names).to_bytes(32, "big")
        row = (name, "", "", "", b"", b"", 1, 1, 1, b"", "", *said, entry)
        connection.execute("INSERT INTO ballots VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", row)


@pytest.fixture
async def reader() -> Voter:
    return await a_reader(script_of(3), *announced(script_of(3)))


def by(reader: Voter, hub: int, size: int) -> Claim:
    signers = read_signers(reader.database.direct)
    assert signers is not None
    return claim(hub, size, ledger=signers.ledger)


async def test_the_largest_true_claim_of_a_pending_vote_is_found_behind_what_is_made_up(reader: Voter) -> None:
    connection = reader.database.direct
    made_up = [Claim(900, ROOT, bytes(64)), by(reader, 2, 800), Claim((1 << 62) - 1, b"\xff" * 32, b"\xff" * 64)]
    pending(connection, *made_up, NOTHING, by(reader, 1, 6))
    assert ahead(connection, 6) is None
    pending(connection, by(reader, 1, 7), by(reader, 1, 8), *made_up)
    pending(connection, by(reader, 1, 9), entry=5)
    assert ahead(connection, 6) == ahead(connection, 7) == by(reader, 1, 8)
    assert ahead(connection, 8) is None


async def test_so_many_claims_are_looked_at_and_equal_ones_once(reader: Voter, monkeypatch: Any) -> None:
    connection, true = reader.database.direct, by(reader, 1, 7)
    pending(connection, true, *[Claim(9, ROOT, bytes(64))] * 100)
    pending(connection, *(Claim(9, bytes([number]) * 32, bytes(64)) for number in range(20, MAX_CLAIMS + 18)))
    assert ahead(connection, 6) == true
    pending(connection, Claim(9, ROOT, bytes([1]) * 64))
    checks: list[bytes] = []
    monkeypatch.setattr(claims, "is_signed", lambda key, text, signature: checks.append(signature) or False)
    assert ahead(connection, 6) is None and len(checks) == MAX_CLAIMS


async def test_it_costs_one_query_when_nobody_claims_more(reader: Voter) -> None:
    connection = reader.database.direct
    pending(connection, *(by(reader, 1, size) for size in range(1, 7)), Claim(5, ROOT, bytes(64)))
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    assert ahead(connection, 6) is None
    connection.set_trace_callback(None)
    assert len(asked) == 1


async def test_a_takeover_ends_what_the_former_hub_signed_beyond_its_start(reader: Voter) -> None:
    old = script_of(3)
    new = old.hand_over(2)
    old.add(*FACTS[20:25])
    tail, later = by(reader, 1, 11), by(reader, 2, 8)
    pending(reader.database.direct, tail, later)
    assert ahead(reader.database.direct, 6) == tail, "a grant that is not known here makes nothing true"
    await told(reader, records.statement_draft(4, new.storage.texts[6] or b""))
    assert ahead(reader.database.direct, 6) == later
    assert ahead(reader.database.direct, 8) is None


# --- a hub that has lost something, and one that has not ---


@pytest.fixture
async def sites(tmp_path: Path) -> AsyncIterator[list[Site]]:
    """A hub, one that may take over, and a peer; all know each other, and a ledger of four."""
    hub = await founder(tmp_path / "hub")
    made = [hub, await joined(tmp_path / "heir", hub, "solo"), await joined(tmp_path / "peer", hub)]
    for other in made[1:]:
        await pull(hub, other)
    await hub.enrol("anna")
    await hub.settle()
    for other in made[1:]:
        await pull(other, hub)
        await follow(other)
    yield made
    for site in made:
        site.crash()


async def grown(hub: Site, path: Path) -> None:
    """A backup of the four, and three votes more."""
    hub.crash()
    hub.backup(path)
    await hub.open()
    for _ in range(3):
        await hub.vote("anna", await hub.fact())
    await hub.settle()


async def put_back(hub: Site, path: Path) -> None:
    """The backup, without the mark beside it."""
    hub.crash()
    hub.restore(path)
    hub.me.home.ledger_mark.unlink()
    await hub.open()


async def votes(site: Site) -> Claim:
    """Somebody votes there; the vote tells this."""
    told = await site.database.read(newest)
    await site.vote("anna", await site.fact(), seen=told)
    return told


async def test_a_hub_that_lost_its_mark_too_waits_until_the_entries_are_there(
    sites: list[Site], tmp_path: Path
) -> None:
    """Told by a vote alone, whatever comes first."""
    hub, _, peer = sites
    await grown(hub, tmp_path / "backup")
    before = hub.texts()
    await pull(peer, hub)
    await follow(peer)
    await put_back(hub, tmp_path / "backup")
    assert (await votes(peer)).size == 7
    await pull(hub, peer, [PROJECT])
    await hub.settle()
    assert hub.hub.mode is Mode.BEHIND and "has seen 7 entries, here are 4" in hub.hub.state()["reason"]
    assert hub.size == 4
    await pull(hub, peer)
    await follow(hub)
    await hub.settle()
    assert hub.texts()[:7] == before and hub.size == 8 and hub.hub.mode is Mode.IDLE and hub.check().ok


async def test_after_a_takeover_who_saw_the_tail_stops_nobody(sites: list[Site], tmp_path: Path) -> None:
    hub, heir, peer = sites
    await grown(hub, tmp_path / "backup")
    await pull(peer, hub)
    await follow(peer)
    await heir.hub.takeover(authority_secret(hub), heir.now_ms, abandon=True)
    assert await votes(peer) == hub.claims(7, hub.check().root)
    await pull(heir, peer)
    await heir.settle()
    assert heir.hub.mode is Mode.IDLE and heir.pending() == 0 and heir.check().ok


async def test_a_hub_that_took_over_from_itself_is_not_stopped_by_what_it_signed_before(
    sites: list[Site], tmp_path: Path
) -> None:
    hub, _, peer = sites
    await grown(hub, tmp_path / "backup")
    await pull(peer, hub, [RESERVED])  # the checkpoints of the tail, and none of its votes
    await follow(peer)
    await put_back(hub, tmp_path / "backup")
    await votes(peer)
    await pull(hub, peer, [PROJECT])
    await hub.settle()
    assert hub.hub.mode is Mode.BEHIND
    await hub.hub.takeover(authority_secret(hub), hub.now_ms, abandon=True)
    hub.acknowledged.clear()  # of the tail, which nobody has
    await hub.settle()
    assert hub.hub.mode is Mode.IDLE and hub.size == 6
    await pull(hub, peer)
    await follow(hub)
    await hub.vote("anna", await hub.fact(), seen=hub.claims(900))
    await hub.settle()
    assert hub.hub.mode is Mode.IDLE and hub.size == 7 and hub.check().ok
