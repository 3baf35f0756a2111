"""Who may append, and everything that stops it, told with its reason."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ledger.verify import Finding
from node.errors import Problem
from node.voting.claims import Claim
from node.voting.mark import Signed
from node.voting.permission import Mode, Permission
from node.voting.table import Table
from tests.node.voting.hubs import Site, follow, founder, joined, pull


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Site]:
    site = await founder(tmp_path / "hub")
    await site.enrol("anna")
    await site.settle()
    yield site
    site.crash()


async def judged(site: Site, engine: str = "solo") -> tuple[str, str] | None:
    permission = Permission(site.me, site.authority, engine)
    await permission.load()
    stopped = await site.database.write(permission.stopped)
    return (str(stopped.mode), stopped.reason) if stopped else None


async def run(site: Site, sql: str, *values: Any) -> None:
    await site.database.write(lambda connection: connection.execute(sql, values) and None)


async def test_the_founder_may(hub: Site) -> None:
    assert await judged(hub) is None


async def test_settings_and_grant_both_name_the_engine(hub: Site) -> None:
    assert await judged(hub, "none") == (Mode.DORMANT, "the settings name no engine")
    assert await judged(hub, "etcd") == (Mode.NOT_GRANTED, "the grant is for solo, the settings say etcd")


async def test_who_is_not_granted_may_not(hub: Site, tmp_path: Path) -> None:
    other = await joined(tmp_path / "other", hub)
    assert await judged(other) == (Mode.NOT_GRANTED, "the ledger is not here yet")
    assert await judged(other, "none") == (Mode.OFF, "the ledger is not here yet")
    other.crash()
    await run(hub, "DELETE FROM statements WHERE kind = 4")
    assert await judged(hub) == (Mode.NOT_GRANTED, "no grant for this ledger")


async def test_what_froze_is_frozen(hub: Site) -> None:
    await hub.database.write(lambda c: Table(c).freeze(Finding(2, "leaf", "it is damaged")))
    assert await judged(hub) == (Mode.FROZEN, "entry 2: it is damaged")


@pytest.mark.parametrize(
    ("signed", "mode"),
    [
        (Signed(1, 5, bytes(32)), Mode.BEHIND),
        (Signed(2, 3, bytes(32)), Mode.BEHIND),
        (Signed(1, 4, bytes(32)), Mode.FROZEN),
        (Signed(1, 2, bytes(32)), Mode.FROZEN),
        (Signed(0, 9, bytes(32)), None),
    ],
)
async def test_the_mark_is_compared_within_its_epoch(hub: Site, signed: Signed, mode: Mode | None) -> None:
    permission = Permission(hub.me, hub.authority, "solo")
    await permission.load()
    permission.note(signed)
    stopped = await judged(hub)
    assert stopped == mode if mode is None else stopped is not None and stopped[0] == mode
    assert (mode is Mode.FROZEN) == (hub.table.frozen() is not None), "remembered"


async def test_a_larger_checkpoint_that_was_accepted_means_behind(hub: Site) -> None:
    await run(hub, "INSERT INTO ledger_checkpoints VALUES (9, zeroblob(32), NULL, 0)")
    assert await judged(hub) == (Mode.BEHIND, "a checkpoint of 9 entries is known, here are 4")


async def test_a_sender_who_shows_to_have_seen_more_means_behind(hub: Site) -> None:
    await hub.vote("anna", await hub.fact(), seen=hub.claims(4))
    assert await judged(hub) is None
    await hub.vote("anna", await hub.fact(), seen=hub.claims(9))
    assert await judged(hub) == (Mode.BEHIND, "who sent a pending vote has seen 9 entries, here are 4")


async def test_a_size_that_was_made_up_stops_nobody(hub: Site, tmp_path: Path) -> None:
    other = await joined(tmp_path / "other", hub)
    await pull(other, hub)
    await follow(other)
    true = hub.claims(9)
    for made_up in (Claim(9, bytes(32), bytes(64)), true._replace(size=900), other.claims(9)):
        await hub.vote("anna", await hub.fact(), seen=made_up)
    other.crash()
    assert await judged(hub) is None
    assert hub.rows("SELECT seen_size FROM ballots ORDER BY seen_size") == [(9,), (9,), (900,)]


async def test_a_damaged_mark_is_a_problem(hub: Site) -> None:
    hub.me.home.ledger_mark.write_bytes(b"nonsense")
    with pytest.raises(Problem, match="damaged"):
        await judged(hub)
