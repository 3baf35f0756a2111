"""The routes of the ledger: a hub's own answers, those of others, what is here, and what is streamed."""

import io
import json
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from ledger.export import Export
from ledger.verify import verify
from node import http_ledger, openapi, shapes
from node.database import PAGE_BYTES, Database
from node.errors import Problem
from node.http import Api
from node.http_ledger import LedgerApi, Verified
from node.metrics import Metrics
from node.migrations import migrate
from node.voting import forward, reads
from node.voting.reads import Place
from node.voting.verification import Verification
from tests.node.served_app import served_app
from tests.node.voting.ledger_on_disk import CELLAR, NOW_MS, LedgerOnDisk

SIZE = 3 + 3 + 270


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path_factory.mktemp("hub") / "home")
    made.vote(3, CELLAR)
    for _ in range(3):
        made.vote(90)
    yield made
    made.close()


class Around:
    """A hub elsewhere, and what the node does about takeovers and stamps. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.ready = True
        self.busy = False
        self.no_hub = False

    async def ask(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        self.asked.append((path, dict(query)))
        if self.no_hub:
            raise forward.no_quorum("nobody knows where a hub is")
        return {"read": "linearizable", "hub": "b"}

    async def takeover(self, seed: bytes | None, abandon: bool) -> dict[str, Any]:
        self.asked.append((seed, abandon))
        return {"epoch": 2}

    async def anchor(self) -> dict[str, Any]:
        return {"size": 6}

    def refuse_bulk(self) -> None:
        if self.busy:
            raise Problem(503, "busy", "no memory", "later")


def api_of(database: Database, place: Place, around: Around) -> Api:
    other: Any = around
    routes = LedgerApi(
        database,
        place,
        other,
        Verification(database.path, place, around.refuse_bulk),
        takeover=around.takeover,
        anchor=around.anchor,
        ready=lambda: around.ready,
        refuse_bulk=around.refuse_bulk,
    ).routes()
    unused: Any = None
    return Api(unused, unused, unused, Metrics(), "token", unused, more=routes)


@pytest.fixture
def around() -> Around:
    return Around()


@pytest.fixture
async def hub(ledger: LedgerOnDisk, around: Around) -> AsyncIterator[aiohttp.ClientSession]:
    database = Database(ledger.path)
    database.start(lambda connection: migrate(connection, NOW_MS))
    async with served_app(api_of(database, ledger.place, around).application("socket")) as client:
        yield client
    database.close()


@pytest.fixture
async def member(ledger: LedgerOnDisk, around: Around, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A node that carries one project, and is no hub."""
    ledger.with_gaps(tmp_path / "member.db", CELLAR).close()
    database = Database(tmp_path / "member.db")
    database.start(lambda connection: migrate(connection, NOW_MS))
    place = Place(ledger.place.mesh, ledger.place.authority, bytes(32))
    async with served_app(api_of(database, place, around).application("socket")) as client:
        yield client
    database.close()


async def get(client: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        document = await answer.json(content_type=None)
        assert answer.status == status, document
        if status >= 400:
            msgspec.convert(document, shapes.Error)
        return document


READS = ("status", "checkpoint", "entries", "proof/4")


@pytest.mark.parametrize("path", READS)
async def test_a_hub_answers_from_its_own_table(hub: aiohttp.ClientSession, around: Around, path: str) -> None:
    said = await get(hub, f"/v1/ledger/{path}")
    assert said["read"] == "linearizable" and said["size"] == SIZE and not around.asked
    assert "cortex-node/ledger/" in said["checkpoint"]


@pytest.mark.parametrize("path", READS)
async def test_others_ask_a_hub_unless_they_are_told_not_to(
    member: aiohttp.ClientSession, around: Around, path: str
) -> None:
    assert (await get(member, f"/v1/ledger/{path}"))["hub"] == "b"
    assert around.asked == [(path, {})]
    said = await get(member, f"/v1/ledger/{path}?read=local")
    assert said["read"] == "local" and said["checkpoint_at"] is None and said["size"] == SIZE
    assert len(around.asked) == 1
    around.no_hub = True
    problem = await get(member, f"/v1/ledger/{path}", 503)
    assert problem["code"] == "no_quorum" and "read=local" in problem["action"]


async def test_parameters_go_along(member: aiohttp.ClientSession, around: Around) -> None:
    await get(member, "/v1/ledger/entries?start=3&limit=2&read=linearizable")
    assert around.asked == [("entries", {"start": "3", "limit": "2"})]


async def test_a_hub_that_has_to_catch_up_asks_another(hub: aiohttp.ClientSession, around: Around) -> None:
    around.ready = False
    assert (await get(hub, "/v1/ledger/status"))["hub"] == "b"


async def test_what_is_here_is_as_old_as_it_says(ledger: LedgerOnDisk, hub: aiohttp.ClientSession) -> None:
    ledger.connection.execute("UPDATE ledger_checkpoints SET at = ? WHERE size = ?", (NOW_MS, SIZE))
    said = await get(hub, "/v1/ledger/status?read=local")
    assert said["checkpoint_at"] == "2027-01-15T08:00:00.000Z"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("status?read=yesterday", 422, "invalid_read"),
        ("entries?start=x", 422, "invalid_start"),
        ("entries?start=-1", 422, "invalid_start"),
        ("entries?limit=257", 422, "invalid_limit"),
        ("proof/x", 422, "invalid_index"),
        (f"proof/{'9' * 30}", 422, "invalid_index"),
        ("proof/9999", 404, "unknown_entry"),
        (f"proof/{1 << 63}", 404, "unknown_entry"),
        ("export?project=attic", 404, "unknown_project"),
    ],
)
async def test_what_is_wrong_is_told(hub: aiohttp.ClientSession, path: str, status: int, code: str) -> None:
    problem = await get(hub, f"/v1/ledger/{path}", status)
    assert problem["code"] == code and problem["action"]


# Tiles and exports


async def test_tiles_are_served_as_files_that_never_change(hub: aiohttp.ClientSession) -> None:
    async with hub.get("/tlog/tile/entries/000") as answer:
        assert answer.status == 200 and len(await answer.read()) == 256 * 148
        assert "immutable" in answer.headers["Cache-Control"]
    async with hub.get("/tlog/checkpoint") as answer:
        assert (await answer.text()).startswith("cortex-node/ledger/") and answer.headers["Cache-Control"] == "no-store"
    for path in ("tile/0/001", "tile/9/000", "text/000", "..%2fcortex.db", "x"):
        assert (await get(hub, f"/tlog/{path}", 404))["code"] == "no_such_tile"


async def test_a_node_with_gaps_has_neither_tiles_nor_an_export(member: aiohttp.ClientSession) -> None:
    assert (await get(member, "/tlog/tile/0/000", 404))["code"] == "not_whole"
    assert (await get(member, "/v1/ledger/export", 409))["code"] == "not_whole"


async def test_an_export_is_streamed_and_good(ledger: LedgerOnDisk, hub: aiohttp.ClientSession) -> None:
    async with hub.get("/v1/ledger/export") as answer:
        assert answer.content_type == "application/x-tar"
        data = await answer.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert verify(Export(files.get), reads.policy(ledger.connection, ledger.place)).ok


async def test_bulk_work_waits_under_pressure(hub: aiohttp.ClientSession, around: Around) -> None:
    around.busy = True
    assert (await get(hub, "/v1/ledger/export", 503))["code"] == "busy"
    async with hub.post("/v1/ledger/verify") as answer:
        assert answer.status == 503


# Verification


async def verified(client: aiohttp.ClientSession, status: int = 200, **body: Any) -> Any:
    async with client.post("/v1/ledger/verify", json=body) as answer:
        document = await answer.json(content_type=None)
        assert answer.status == status, document
        return document


async def test_a_good_ledger_is_verified(hub: aiohttp.ClientSession, member: aiohttp.ClientSession) -> None:
    for client, checked in ((hub, SIZE), (member, 6)):
        found = msgspec.convert(await verified(client), Verified)
        assert found.ok and found.checked == checked and found.size == SIZE


async def test_against_what_the_asker_trusts_and_has_kept(ledger: LedgerOnDisk, hub: aiohttp.ClientSession) -> None:
    note = ledger.table.checkpoints()[0].decode()
    policy = str(reads.policy(ledger.connection, ledger.place))
    assert (await verified(hub, checkpoint=note, policy=policy))["ok"]
    root = note.split("\n")[2]
    found = await verified(hub, checkpoint=note.replace(root, "A" * 43 + "="))
    assert [one["code"] for one in found["findings"]] == ["fork"]
    assert (await verified(hub, 422, checkpoint="x"))["code"] == "invalid_checkpoint"
    assert (await verified(hub, 422, policy="x"))["code"] == "invalid_policy"
    assert (await verified(hub, 422, other="x"))["code"] == "invalid_request"


async def test_progress_is_told_before_the_result(hub: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_ledger, "PROGRESS_S", 0.0)
    async with hub.post("/v1/ledger/verify", headers={"Accept": "application/jsonl"}) as answer:
        assert answer.status == 200 and answer.content_type == "application/jsonl"
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert all(line.keys() == {"checked", "size"} and line["size"] == SIZE for line in lines[:-1])
    assert lines[-1]["ok"] and lines[-1]["checked"] == SIZE


async def test_damage_is_an_answer(ledger: LedgerOnDisk, hub: aiohttp.ClientSession) -> None:
    (text,) = ledger.connection.execute("SELECT text FROM ledger_entries WHERE id = 9").fetchone()
    change = "UPDATE ledger_entries SET text = ? WHERE id = 9"
    ledger.connection.execute(change, (b"another",))
    try:
        found = await verified(hub)
        assert not found["ok"] and [(one["index"], one["code"]) for one in found["findings"]] == [(9, "text")]
    finally:
        ledger.connection.execute(change, (text,))


async def test_a_page_of_the_database_that_is_rotten_is_a_finding(tmp_path: Path, ledger: LedgerOnDisk) -> None:
    path = tmp_path / "rotten.db"
    with sqlite3.connect(path) as connection:
        ledger.connection.backup(connection)
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ledger_hashes'").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)
    found = await Verification(path, ledger.place).run()
    assert not found["ok"] and [one["code"] for one in found["findings"]] == ["database"]


# What changes something


async def test_a_takeover_names_the_key_or_none(hub: aiohttp.ClientSession, around: Around) -> None:
    for body, asked in (({}, (None, False)), ({"ca_seed": "0a" * 32, "abandon": True}, (b"\n" * 32, True))):
        async with hub.post("/v1/ledger/takeover", json=body) as answer:
            assert answer.status == 200 and around.asked.pop() == asked
    async with hub.post("/v1/ledger/takeover", json={"ca_seed": "0a"}) as answer:
        assert answer.status == 422
    async with hub.post("/v1/ledger/anchor") as answer:
        assert await answer.json() == {"size": 6}


def test_every_route_is_described() -> None:
    described = openapi.describe(object.__new__(LedgerApi).routes())
    assert "/tlog/{path}" in described["paths"]
    assert described["paths"]["/tlog/{path}"]["get"]["parameters"][0]["name"] == "path"
    assert "/v1/ledger/proof/{index}" in described["paths"]
