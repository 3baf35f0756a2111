"""Votes and agents over REST: status codes, shapes, guards, and turns that are not held while waiting."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from node.admission import Admission
from node.http_votes import VotesApi
from node.openapi import describe
from node.voting import shapes
from tests.node.served_routes import call, served_routes
from tests.node.voting.polls import OWNER, Outsider, Poll, polls

Client = aiohttp.ClientSession


@pytest.fixture
async def node(tmp_path: Path) -> Poll:
    (made,) = await polls(tmp_path)
    return made


@pytest.fixture
async def client(node: Poll) -> AsyncIterator[Client]:
    async with served_routes(VotesApi(node.votes, node.agents).routes()) as client:
        yield client


async def test_a_vote_is_202_while_pending_and_200_when_committed(node: Poll, client: Client) -> None:
    fact = await node.create()
    path = f"/v1/facts/{fact['id']}/vote"
    status, answer = await call(client, "POST", path, {"value": 1, "reason": "tried it"})
    msgspec.convert(answer, shapes.VoteAnswer)
    assert (status, answer["state"]) == (202, "pending")
    await node.commit()
    status, answer = await call(client, "POST", path, {"value": 1})
    assert (status, answer["state"], answer["duplicate"]) == (200, "committed", True)
    assert answer["entry"]["index"] == node.entries() - 1 and answer["checkpoint"]
    status, told = await call(client, "GET", path + f"s?agent={OWNER}")
    msgspec.convert(told, shapes.FactVotes)
    assert (status, told["next_counter"], told["votes"][0]["reason"]) == (200, 2, "tried it")


async def test_an_agent_from_its_enrolment_to_its_end(node: Poll, client: Client) -> None:
    status, made = await call(client, "POST", "/v1/agents", {"name": "pump 7/b", "about": "x"})
    msgspec.convert(made, shapes.Agent)
    assert status == 201
    assert (await call(client, "POST", "/v1/agents", {"name": "pump 7/b"})) == (200, made)
    status, shown = await call(client, "GET", "/v1/agents/pump%207%2Fb?project=garden")
    msgspec.convert(shown, shapes.Agent)
    assert (status, shown["key"], shown["project"]) == (200, made["key"], "garden")
    node.now_ms += 1
    status, rotated = await call(client, "POST", f"/v1/agents/{made['key']}/rotate")
    assert (status, rotated["principal"]) == (200, made["key"])
    status, ended = await call(client, "POST", f"/v1/agents/{rotated['key'][:12]}/revoke", {"void_from": 2})
    assert (status, ended["state"]) == (200, "revoked")
    status, listed = await call(client, "GET", "/v1/agents")
    msgspec.convert(listed, shapes.AgentList)
    assert [one["name"] for one in listed["agents"]] == [OWNER, "pump 7/b"]


async def test_an_agent_outside_enrols_and_votes_with_what_it_is_told(node: Poll, client: Client) -> None:
    eve = Outsider()
    request: dict[str, Any] = {"name": "eve", "key": eve.key.hex()}
    status, asked = await call(client, "POST", "/v1/agents", request)
    msgspec.convert(asked, shapes.ToSign)
    assert status == 202
    request |= {"time": asked["time"], "signature": eve.sign(asked["to_sign"])}
    assert (await call(client, "POST", "/v1/agents", request))[0] == 201
    fact = await node.create()
    _, told = await call(client, "GET", f"/v1/facts/{fact['id']}/votes?agent_key={eve.key.hex()}")
    assert (told["project"], told["next_counter"]) == (fact["project"], 1)
    status, answer = await call(client, "POST", f"/v1/facts/{fact['id']}/vote", eve.vote(fact, 1))
    assert (status, answer["state"]) == (202, "pending")


async def test_what_clients_of_the_earlier_system_send(node: Poll, client: Client) -> None:
    fact = await node.create()
    status, _ = await call(client, "POST", f"/v1/facts/{fact['id']}/vote", {"vote": 1, "agent_id": "agent-7"})
    assert status == 202


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/facts/a-1/vote", {"value": 1}, 404, "unknown_fact"),
        ("POST", "/v1/facts/a-1/vote", {"value": 3}, 422, "invalid_value"),
        ("POST", "/v1/facts/a-1/vote", {"value": 1, "agnet": "x"}, 422, "invalid_request"),
        ("POST", "/v1/facts/a-1/vote", [1], 422, "invalid_request"),
        ("GET", "/v1/facts/a-1/votes", None, 404, "unknown_fact"),
        ("GET", "/v1/facts/a-1/votes?version=zz", None, 422, "invalid_version"),
        ("GET", "/v1/facts/a-1/votes?agent_key=zz", None, 422, "invalid_agent_key"),
        ("POST", "/v1/agents", {}, 422, "invalid_request"),
        ("POST", "/v1/agents", {"name": "a", "key": "00"}, 422, "invalid_key"),
        ("POST", "/v1/agents", {"name": "a", "signature": "00"}, 422, "invalid_key"),
        ("GET", "/v1/agents/nobody", None, 404, "unknown_agent"),
        ("POST", "/v1/agents/nobody/rotate", {}, 404, "unknown_agent"),
        ("POST", f"/v1/agents/{OWNER}/revoke", {}, 409, "owner_agent"),
        ("POST", f"/v1/agents/{OWNER}/revoke", {"void_from": -1}, 422, "invalid_void_from"),
    ],
)
async def test_bad_input_is_a_problem(
    client: Client, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answered, problem = await call(client, method, path, body)
    assert (answered, problem["code"]) == (status, code)


async def test_every_call_asks_for_the_token(client: Client) -> None:
    for method, path in (("POST", "/v1/facts/a/vote"), ("GET", "/v1/agents"), ("POST", "/v1/agents/a/rotate")):
        assert (await call(client, method, path, token="wrong"))[0] == 401


async def test_a_vote_that_waits_for_a_hub_holds_no_turn(node: Poll) -> None:
    admission = Admission(0, 1, 30, lambda: 0.0)
    node.near = True
    fact = await node.create()
    reached = asyncio.Event()
    write = node.database.write

    async def told(job: Any, after: Any = lambda result: None) -> Any:
        result = await write(job, after)
        reached.set()
        return result

    node.votes._database.write = told  # type: ignore[method-assign]
    routes = VotesApi(node.votes, node.agents, admission).routes()
    async with served_routes(routes, admission) as client:
        voting = asyncio.create_task(call(client, "POST", f"/v1/facts/{fact['id']}/vote", {"value": 1}))
        await reached.wait()
        status, _ = await call(client, "GET", "/v1/agents")
        assert status == 200 and not voting.done()
        await node.commit()
        status, answer = await voting
        assert (status, answer["state"]) == (200, "committed")


def test_every_route_is_described() -> None:
    described = describe(object.__new__(VotesApi).routes())
    assert set(described["paths"]) == {
        "/v1/facts/{id}/vote", "/v1/facts/{id}/votes", "/v1/agents", "/v1/agents/{name}",
        "/v1/agents/{name}/rotate", "/v1/agents/{name}/revoke",
    }  # fmt: skip
