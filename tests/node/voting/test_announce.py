"""What is committed reaches everybody, with proofs that check, also after a crash between the two."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crdt.op import Op
from ledger import tlog
from ledger.checkpoint import Opened, Standing, compare, hub_keys, open_checkpoint, origin_of
from ledger.entry import NO_PROJECT, Kind, decode, text_hash
from ledger.tlog import check_inclusion, leaf_hash
from node.voting import announce
from node.voting.grants import ledger_of
from node.voting.hub import ANNOUNCE_BURST, ANNOUNCE_S
from node.voting.records import Announced, Entries, Wanted, read
from node.voting.table import Table
from sync.overlap import RESERVED
from tests.node.voting.hubs import PROJECT, Site, founder


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Site]:
    site = await founder(tmp_path / "hub")
    yield site
    site.crash()


def notes(hub: Site, ops: list[Op]) -> list[tuple[Opened, Announced]]:
    ledger = ledger_of(hub.table) or b""
    keys = hub_keys(ledger, [hub.me.node_key])
    records = [record for op in ops if (record := read(op, Announced))]
    return [(open_checkpoint(record.note, origin_of(ledger), keys), record) for record in records]


async def test_everything_is_told_where_it_belongs_with_proofs(hub: Site) -> None:
    await hub.enrol("anna")
    for round_ in range(3):
        for project in (PROJECT, "other"):
            await hub.vote("anna", await hub.fact(f"{round_}", project))
        await hub.settle()
    opened = notes(hub, hub.sent)
    roots = {one.checkpoint.size: one.checkpoint.root for one, _ in opened}
    assert [record.since for _, record in opened] == [0, *list(roots)[:-1]]
    for (older, _), (newer, record) in itertools.pairwise(opened):
        assert compare(older, newer, record.proof) is Standing.NEWER
    told = {}
    for op in hub.sent:
        if record := read(op, Entries):
            for (raw, text), places in zip(record.lines, record.proofs, strict=True):
                entry = decode(raw)
                check_inclusion(
                    [record.hashes[place] for place in places], entry.index, record.size, leaf_hash(raw),
                    roots[record.size],
                )  # fmt: skip
                assert text_hash(text) == entry.text_hash
                assert (entry.project_tag == NO_PROJECT) == (op.project == RESERVED)
                told[entry.index] = op.project
            assert op.subject == f"ledger/entries/{decode(record.lines[0][0]).index}"
            assert len(set(record.hashes)) == len(record.hashes)
    assert [told[index] for index in range(len(told))] == [RESERVED] * 4 + [PROJECT, "other"] * 3
    grants = [record for op in hub.sent if (record := read(op, Wanted)) and record.kind == Kind.GRANT]
    assert [record.text for record in grants] == [hub.texts()[2]]


async def test_what_was_committed_before_a_crash_is_told_after_it(hub: Site) -> None:
    await hub.enrol("anna")
    hub.hub._paid_until = hub.now_s + ANNOUNCE_BURST * ANNOUNCE_S  # as if it had just told much
    hub.hub.wake()
    await hub.hub.turn()
    assert hub.size == 4 and not hub.sent
    hub.crash()
    await hub.open()
    assert announce.due(hub.table)
    await hub.settle()
    assert [one.checkpoint.size for one, _ in notes(hub, hub.sent)] == [4] and not announce.due(hub.table)
    hub.sent.clear()
    await hub.settle()
    assert not hub.sent


async def test_much_is_told_in_parts_under_one_checkpoint(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "MAX_ENTRIES", 3)
    for name in ("anna", "ben", "carl", "dora"):
        await hub.enrol(name)
    await hub.settle()
    assert [op.subject for op in hub.sent if op.header.kind == "checkpoint"] == ["ledger/checkpoint/7"]
    sizes = [len(record.lines) for op in hub.sent if (record := read(op, Entries))]
    assert sizes == [3, 3, 1]


async def test_who_never_committed_tells_nothing(hub: Site) -> None:
    def forget(connection: object) -> None:
        Table(connection).set_state("announced", None)  # type: ignore[arg-type]

    await hub.database.write(forget)
    assert not announce.due(hub.table)
    assert await hub.database.write(lambda c: announce.announce(c, hub.store, 1)) == []


async def test_proofs_of_neighbours_share_their_hashes_and_their_reads(hub: Site) -> None:
    for number in range(60):
        await hub.enrol(f"agent {number}")
    await hub.settle()
    (record,) = [record for op in hub.sent if (record := read(op, Entries))]
    assert len(record.lines) == 63
    alone = sum(len(tlog.prove_inclusion(index, 63, hub.table)) for index in range(63))
    assert len(record.hashes) < alone / 2
