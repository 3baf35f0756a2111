"""A question put to a hub over real TLS: answered, checked, refused, and given up in time."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ledger.policy import Policy
from node import mesh, tls
from node.book import Address
from node.breaker import FAILURES, Breaker
from node.database import Database
from node.errors import Problem
from node.identity import Identity
from node.migrations import migrate
from node.paths import Home
from node.voting import forward, reads
from node.voting.forward import Answers, Forward, whereabouts
from node.voting.reads import Place
from tests.node.voting.ledger_on_disk import CELLAR, GARDEN, NOW_MS, LedgerOnDisk

SIZE = 3 + 3 + 2


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path_factory.mktemp("hub") / "home")
    made.vote(3)
    made.vote(2, CELLAR)
    yield made
    made.close()


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(path)
    database.start(lambda connection: migrate(connection, NOW_MS))
    try:
        yield database
    finally:
        database.close()


@asynccontextmanager
async def served(me: Identity, routes: Iterable[web.RouteDef]) -> AsyncIterator[str]:
    """The peer port of a node; its address."""
    app = web.Application(client_max_size=0)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context(me)).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def hub(ledger: LedgerOnDisk) -> AsyncIterator[str]:
    async with opened(ledger.path) as database, served(ledger.me, Answers(database, ledger.place).routes()) as address:
        yield address


@pytest.fixture
async def member(ledger: LedgerOnDisk, tmp_path: Path) -> AsyncIterator[tuple[Identity, Database]]:
    me = ledger.join(tmp_path / "member")
    ledger.with_gaps(me.home.database).close()
    async with opened(me.home.database) as database:
        yield me, database


def asking(me: Identity, database: Database, ledger: LedgerOnDisk, *addresses: str) -> Forward:
    async def where(node: str) -> list[str]:
        assert node == ledger.me.node_id
        return list(addresses)

    place = Place(ledger.place.mesh, ledger.place.authority, me.node_key)
    return Forward(me, database, place, where, Breaker("hub"))


async def refused(call: Any, code: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await call
    assert caught.value.code == code, caught.value.detail
    return caught.value


async def test_a_member_s_questions_are_answered_from_the_hub_s_table(
    ledger: LedgerOnDisk, hub: str, member: tuple[Identity, Database]
) -> None:
    me, database = member
    asks = asking(me, database, ledger, "127.0.0.1:9", hub)  # nobody is at the first address
    status = await asks.ask("status", {})
    assert (status["size"], status["read"], status["hub"]) == (SIZE, "linearizable", ledger.me.node_id)
    assert (await asks.ask("checkpoint", {}))["size"] == SIZE
    page = await asks.ask("entries", {"start": "2", "limit": "2"})
    assert [one["index"] for one in page["entries"]] == [2, 3] and page["next"] == 4
    proof = await asks.ask("proof/7", {})
    assert proof["index"] == 7 and proof["receipt"].startswith("c2sp.org/tlog-proof")


async def test_texts_go_to_members_of_their_project_only(
    ledger: LedgerOnDisk, hub: str, member: tuple[Identity, Database]
) -> None:
    me, database = member
    page = await asking(me, database, ledger, hub).ask("entries", {})
    told = {one["index"]: one["project"] for one in page["entries"] if one["kind"] == "vote" and one["text"]}
    assert told == {3: GARDEN, 4: GARDEN, 5: GARDEN}
    assert (await asking(me, database, ledger, hub).ask("proof/6", {}))["entry"]["text"] is None


async def test_what_a_hub_refuses_is_passed_on(
    ledger: LedgerOnDisk, hub: str, member: tuple[Identity, Database]
) -> None:
    me, database = member
    asks = asking(me, database, ledger, hub)
    problem = await refused(asks.ask("proof/99", {}), "unknown_entry")
    assert problem.status == 404 and problem.action
    assert (await refused(asks.ask("entries", {"limit": "9999"}), "invalid_limit")).status == 422
    assert (await refused(asks.ask("entries", {"start": "x"}), "invalid_start")).status == 422
    for _ in range(FAILURES):
        await refused(asks.ask("proof/99", {}), "unknown_entry")
    assert (await asks.ask("status", {}))["size"] == SIZE  # a refusal is no failure of the hub


async def test_strangers_and_other_meshes_hear_nothing(ledger: LedgerOnDisk, hub: str, tmp_path: Path) -> None:
    stranger = mesh.found(Home(tmp_path / "stranger"), "stranger", NOW_MS)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"https://{hub}/ledger/status", ssl=tls.newcomer_context(ledger.me.ca)) as answer:
            assert answer.status == 403 and (await answer.json(content_type=None))["code"] == "certificate_needed"
        context = tls.newcomer_context(ledger.me.ca)
        context.load_cert_chain(stranger.home.certificate, stranger.home.key)
        with pytest.raises((aiohttp.ClientError, OSError)):
            async with session.get(f"https://{hub}/ledger/status", ssl=context) as answer:
                await answer.read()


async def test_nothing_is_written_there(ledger: LedgerOnDisk, hub: str, member: tuple[Identity, Database]) -> None:
    async with aiohttp.ClientSession() as session:
        for method in ("POST", "PUT", "DELETE"):
            url = f"https://{hub}/ledger/status"
            async with session.request(method, url, ssl=tls.client_context(member[0])) as answer:
                assert answer.status == 405


async def test_without_a_hub_there_is_no_quorum_and_the_way_on_is_told(
    ledger: LedgerOnDisk, member: tuple[Identity, Database]
) -> None:
    me, database = member
    for asks in (asking(me, database, ledger), asking(me, database, ledger, "127.0.0.1:9")):
        problem = await refused(asks.ask("status", {}), "no_quorum")
        assert problem.status == 503 and "--local" in problem.action and problem.exit_code == 5


async def test_a_node_without_a_grant_knows_no_hub(ledger: LedgerOnDisk, member: tuple[Identity, Database]) -> None:
    me, database = member
    await database.write(lambda connection: connection.execute("DELETE FROM statements"))
    assert "no grant" in (await refused(asking(me, database, ledger).ask("status", {}), "no_quorum")).detail


async def test_who_is_no_hub_or_has_to_catch_up_is_passed_over(
    ledger: LedgerOnDisk, hub: str, member: tuple[Identity, Database]
) -> None:
    me, database = member
    other = Place(ledger.place.mesh, ledger.place.authority, me.node_key)
    for answers in (Answers(database, other), Answers(database, ledger.place, ready=lambda: False)):
        async with served(ledger.me, answers.routes()) as address:
            await refused(asking(me, database, ledger, address).ask("status", {}), "no_quorum")
            assert (await asking(me, database, ledger, address, hub).ask("status", {}))["size"] == SIZE


async def test_another_member_in_the_hub_s_place_is_not_believed(
    ledger: LedgerOnDisk, member: tuple[Identity, Database], tmp_path: Path
) -> None:
    """It has the whole ledger, and a certificate of the mesh; it is not who the grant names."""
    me, database = member
    other = ledger.join(tmp_path / "other")
    async with opened(ledger.path) as whole, served(other, Answers(whole, ledger.place).routes()) as address:
        problem = await refused(asking(me, database, ledger, address).ask("status", {}), "no_quorum")
        assert other.node_id in problem.detail


async def test_a_hub_that_has_less_than_was_seen_has_to_catch_up_first(
    ledger: LedgerOnDisk, hub: str, member: tuple[Identity, Database]
) -> None:
    me, database = member
    later = "INSERT INTO ledger_checkpoints VALUES (?, zeroblob(32), NULL, 0)"
    await database.write(lambda connection: connection.execute(later, (SIZE + 1,)))
    problem = await refused(asking(me, database, ledger, hub).ask("status", {}), "no_quorum")
    assert f"{SIZE} entries" in problem.detail


@pytest.mark.parametrize("lie", ["checkpoint", "receipt", "index"])
async def test_what_does_not_hold_is_no_answer(
    ledger: LedgerOnDisk, member: tuple[Identity, Database], lie: str
) -> None:
    me, database = member
    said = reads.proof(ledger.connection, 4)
    said[lie] = 5 if lie == "index" else said[lie][:-20] + ("B" if said[lie][-20] == "A" else "A") + said[lie][-19:]

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(said)

    async with served(ledger.me, [web.get("/ledger/proof/4", answer)]) as address:
        problem = await refused(asking(me, database, ledger, address).ask("proof/4", {}), "no_quorum")
        assert "does not hold" in problem.detail


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a":' * 2_000])
async def test_what_is_no_answer_is_none(ledger: LedgerOnDisk, member: tuple[Identity, Database], body: bytes) -> None:
    me, database = member

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with served(ledger.me, [web.get("/ledger/status", answer)]) as address:
        await refused(asking(me, database, ledger, address).ask("status", {}), "no_quorum")


async def test_an_answer_without_an_end_is_not_read_to_it(
    ledger: LedgerOnDisk, member: tuple[Identity, Database]
) -> None:
    me, database = member
    said = reads.status(ledger.connection, ledger.place) | {"more": "x" * forward.MAX_ANSWER_BYTES}

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(said)

    async with served(ledger.me, [web.get("/ledger/status", answer)]) as address:
        problem = await refused(asking(me, database, ledger, address).ask("status", {}), "no_quorum")
        assert "more than" in problem.detail


async def test_a_hub_that_hangs_is_given_up_and_then_left_alone(
    ledger: LedgerOnDisk, member: tuple[Identity, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    me, database = member
    asked = 0

    async def hang(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(forward, "ANSWER_S", 0.05)
    async with served(ledger.me, [web.get("/ledger/status", hang)]) as address:
        asks = asking(me, database, ledger, address)
        for _ in range(FAILURES):
            await refused(asks.ask("status", {}), "no_quorum")
        before = asked
        assert "rest" in (await refused(asks.ask("status", {}), "no_quorum")).detail and asked == before


async def test_a_hub_answers_only_so_many_at_once(
    ledger: LedgerOnDisk, member: tuple[Identity, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    me, database = member
    monkeypatch.setattr(forward, "MAX_UNDER_WAY", 0)
    async with opened(ledger.path) as own, served(ledger.me, Answers(own, ledger.place).routes()) as address:
        problem = await refused(asking(me, database, ledger, address).ask("status", {}), "no_quorum")
        assert "answering others" in problem.detail


# Where a hub is


class Remembered:
    """A book of addresses, and a store of what nodes have signed."""

    def addresses(self) -> list[Address]:
        return [
            Address("10.0.0.1:1", "hub", False, 5),
            Address("10.0.0.2:1", "hub", False, 9),
            Address("10.0.0.3:1", "other", True, 7),
            Address("10.0.0.4:1", None, True, None),
        ]

    def effective_ops(self, connection: sqlite3.Connection, node: str, project: int) -> list[Any]:
        return []


async def test_the_likeliest_address_comes_first_and_each_once(member: tuple[Identity, Database]) -> None:
    kept: Any = Remembered()
    where = whereabouts(member[1], kept, kept, {"hub": "10.0.0.2:1"}.get)
    assert await where("hub") == ["10.0.0.2:1", "10.0.0.1:1"]
    assert await where("nobody") == []


def test_the_policy_of_a_grant_names_its_hubs(ledger: LedgerOnDisk) -> None:
    rule = reads.policy(ledger.connection, ledger.place)
    assert isinstance(rule, Policy) and [key.key for key in rule.logs] == [ledger.me.node_key]
