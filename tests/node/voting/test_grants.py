"""A ledger is founded once, the grant that holds is found, and a takeover goes on from what is whole and true."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ledger import log, statement
from ledger.entry import Kind, decode, text_hash
from ledger.log import Draft
from ledger.quorum import NotGranted
from ledger.statement import Enrolment, Grant
from node.errors import Problem
from node.voting import grants
from node.voting.grants import Extent
from node.voting.table import Table
from tests.ledger.world import key, secret
from tests.node.voting.hubs import Site, authority_secret, follow, founder, joined, pull


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Site]:
    site = await founder(tmp_path / "hub")
    yield site
    site.crash()


@pytest.fixture
async def heir(tmp_path: Path, hub: Site) -> AsyncIterator[Site]:
    site = await joined(tmp_path / "heir", hub, "solo")
    yield site
    site.crash()


async def heard(heir: Site, hub: Site) -> None:
    await hub.settle()
    await pull(heir, hub)
    await follow(heir)


def grants_of(site: Site) -> list[Grant]:
    found = []
    for raw, text in zip(site.table.read_entries(0, 99), site.texts(), strict=True):
        if decode(raw).kind == Kind.GRANT:
            said = statement.verify(Kind.GRANT, text, site.authority)
            assert isinstance(said, Grant)
            found.append(said)
    return found


async def test_a_ledger_is_founded_with_its_owner_and_once(hub: Site) -> None:
    kinds = [decode(raw).kind for raw in hub.table.read_entries(0, 9)]
    assert kinds == [Kind.GENESIS, Kind.ENROLMENT, Kind.GRANT]
    owner = statement.verify(Kind.ENROLMENT, hub.texts()[1], hub.authority)
    assert isinstance(owner, Enrolment)
    assert (owner.name, owner.owner, owner.voice, owner.mesh) == ("owner", True, hub.me.node_key, hub.me.mesh_id)
    assert grants_of(hub)[0].hubs == (hub.me.node_key,) and grants_of(hub)[0].engine == "solo"
    again = (hub.me, authority_secret(hub), secret("owner 2"), "owner", "solo", hub.now_ms)
    with pytest.raises(ValueError, match="has one"):
        await hub.database.write(lambda connection: grants.found(connection, *again))
    assert hub.check().ok


async def test_the_current_grant_is_found_where_statements_are(hub: Site) -> None:
    ledger = grants.ledger_of(hub.table) or b""
    assert grants.current(hub.database.direct, ledger, hub.authority) == grants_of(hub)[0]
    with pytest.raises(NotGranted):
        grants.current(hub.database.direct, bytes(32), hub.authority)


async def test_a_grant_is_the_last_entry_of_the_epoch_before(hub: Site, heir: Site) -> None:
    await hub.enrol("anna")
    await heard(heir, hub)
    await heir.hub.takeover(authority_secret(hub), heir.now_ms)
    first, second = grants_of(heir)
    assert (second.epoch, second.start_size, second.hubs) == (2, 4, (heir.me.node_key,))
    assert second.previous == text_hash(heir.texts()[2]) and first.ledger == second.ledger
    assert [decode(raw).epoch for raw in heir.table.read_entries(2, 9)] == [0, 1, 1]
    assert heir.table.head().epoch == 2 and heir.check().ok
    assert any(op.header.kind == "statement" for op in heir.sent)


async def test_without_the_first_entry_there_is_nothing_to_take_over(hub: Site, heir: Site) -> None:
    with pytest.raises(Problem) as caught:
        await heir.hub.takeover(authority_secret(hub), heir.now_ms)
    assert caught.value.code == "no_ledger" and caught.value.action
    with pytest.raises(Problem) as caught:
        await heir.hub.takeover(secret("somebody"), heir.now_ms)
    assert caught.value.code == "not_the_authority"


async def test_what_is_missing_is_named(hub: Site, heir: Site) -> None:
    await hub.enrol("anna")
    await heard(heir, hub)
    await hub.vote("anna", await hub.fact())
    await hub.enrol("ben")
    await hub.settle()
    await pull(heir, hub, ["_mesh"])  # the vote is in a project that the heir does not get
    await follow(heir)
    assert await heir.database.write(grants.extent) == Extent(heir.table.head(), 6)
    with pytest.raises(Problem, match=r"the first 5 entries of 6 .*entry 5 is the first") as caught:
        await heir.hub.takeover(authority_secret(hub), heir.now_ms)
    assert caught.value.code == "ledger_incomplete"
    assert heir.hub.state()["mode"] == "off" and heir.size == 5


async def test_a_ledger_that_is_not_true_is_not_taken_over(hub: Site, heir: Site) -> None:
    await hub.enrol("anna")
    await heard(heir, hub)
    spoil = "UPDATE ledger_entries SET text = CAST(text || x'00' AS BLOB) WHERE id = 3"
    await heir.database.write(lambda connection: connection.execute(spoil) and None)
    with pytest.raises(Problem) as caught:
        await heir.hub.takeover(authority_secret(hub), heir.now_ms)
    assert caught.value.code == "ledger_damaged" and "entry 3" in caught.value.detail
    assert heir.size == 4


async def test_a_ledger_that_moved_meanwhile_is_not_taken_over(hub: Site) -> None:
    head = hub.table.head()
    await hub.enrol("anna")
    await hub.settle()
    job = (hub.me, authority_secret(hub), "solo", head, hub.now_ms)
    with pytest.raises(Problem) as caught:
        await hub.database.write(lambda connection: grants.take_over(connection, *job))
    assert caught.value.code == "ledger_moved" and hub.size == 4


async def test_a_rival_that_nobody_has_the_entries_of_is_outlived(hub: Site) -> None:
    """Another machine took over, told of its grant, and was lost before anybody had its entries."""
    head = hub.table.head()
    root = log.tlog.frontier_root(head.frontier)
    ledger, secret_key = grants.ledger_of(hub.table) or b"", authority_secret(hub)
    rival = Grant(ledger, 2, "solo", (key("lost"),), head.size, root, text_hash(hub.texts()[2]))
    await hub.say(Kind.GRANT, statement.seal(rival, hub.authority, [secret_key]))
    await hub.settle()
    assert hub.hub.state()["mode"] == "not_granted"
    assert (await hub.hub.takeover(secret_key, hub.now_ms))["epoch"] == 3
    assert [grant.epoch for grant in grants_of(hub)] == [1, 2, 3]
    await hub.enrol("anna")
    await hub.settle()
    assert hub.size == 6 and hub.check().ok


async def test_the_beginning_of_a_table_is_verified_alone(hub: Site) -> None:
    await hub.enrol("anna")
    await hub.settle()
    await hub.enrol("ben")
    await hub.settle()
    batch, _ = log.plan(hub.table, [Draft(Kind.ENROLMENT, b"not a statement")], hub.now_ms)
    await hub.database.write(lambda connection: Table(connection).commit(batch))
    for size in (3, 4, 5):
        assert grants.check(hub.database.direct, size, hub.authority) == []
    (finding,) = grants.check(hub.database.direct, 6, hub.authority)
    assert (finding.index, finding.code) == (5, "statement"), "also what is not signed for"
    assert grants.check(hub.database.direct, 7, hub.authority)[0].code == "tree"
