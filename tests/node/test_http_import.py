"""The route of imports: its shapes, its guards, and that it waits while bulk work has to."""

import msgspec

from node.errors import Problem
from node.http_import import ImportApi
from node.imports import ImportReport, Imports
from tests.node.served_routes import call, served_routes
from tests.node.world import Node

FACT = {"content": "c", "legacy_id": "1", "votes": [{"agent": "ada", "value": 1, "time": "2024-05-11 08:30:00"}]}


async def test_facts_come_in() -> None:
    node = Node(1)
    async with served_routes(ImportApi(Imports(node.replica), lambda: None).routes()) as client:
        status, report = await call(client, "POST", "/v1/import", {"facts": [FACT]})
        assert status == 200
        assert msgspec.convert(report, ImportReport).votes == 1
        status, problem = await call(client, "POST", "/v1/import", {"facts": [{"content": "c"}]})
        assert (status, problem["code"], problem["field"]) == (422, "invalid_request", "facts[0].legacy_id")
        assert (await call(client, "POST", "/v1/import", {"facts": [FACT]}, token="wrong"))[0] == 401
    assert (await node.replica.get("1"))["content"] == "c"


async def test_it_waits_while_there_is_no_room_for_bulk_work() -> None:
    def refuse() -> None:
        raise Problem(503, "busy", "no memory to spare", "come again")

    node = Node(1)
    async with served_routes(ImportApi(Imports(node.replica), refuse).routes()) as client:
        status, problem = await call(client, "POST", "/v1/import", {"facts": [FACT]})
    assert (status, problem["code"]) == (503, "busy")
    assert node.rows("SELECT count(*) FROM ops") == [(0,)]
