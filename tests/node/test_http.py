"""REST as a client meets it: on the socket and over TCP, with every guard, every error a problem document."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from node import http, shapes
from node.errors import Problem
from node.http import Api
from node.mcp import Mcp
from node.mcp_memory import NodeMemory
from node.metrics import Metrics
from node.paths import Home
from tests.node.exposition import parse
from tests.node.world import PROJECT, Node, a_mesh

TOKEN = "a-token"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Around:
    """What the routes ask of the rest of the node; keeps what it was asked."""

    def __init__(self) -> None:
        self.is_ready = True
        self.asked: list[Any] = []

    async def status(self) -> dict[str, Any]:
        return {"node": {}}

    def ready(self) -> bool:
        return self.is_ready

    async def peers(self) -> dict[str, Any]:
        return {"peers": []}

    async def add_peer(self, address: str) -> dict[str, Any]:
        self.asked.append(address)
        return {"address": address}

    async def remove_peer(self, address: str) -> dict[str, Any]:
        self.asked.append(address)
        return {"address": address}

    async def sync_now(self, peer: str | None) -> dict[str, Any]:
        self.asked.append(peer)
        if peer == "nobody":
            raise Problem(503, "busy", "busy just now", "try again")
        return {"rounds": []}

    async def invite(self, role: str, projects: Any, ttl_s: int) -> dict[str, Any]:
        self.asked.append((role, tuple(projects), ttl_s))
        return {"code": "c"}

    async def refresh_metrics(self) -> None:
        self.asked.append("metrics")


class Service:
    """One node's API and the clients that talk to it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.around = Around()
        self.metrics = Metrics()
        memory = NodeMemory(node.replica, node.recall, self.around.status)
        self.mcp = Mcp(Home(Path("nowhere")), memory, self.metrics, hub=False)
        self.api = Api(node.replica, node.recall, self.around, self.metrics, TOKEN, self.mcp)
        self._clients: list[TestClient[Any, Any]] = []

    async def tcp(self) -> TestClient[Any, Any]:
        client = TestClient(TestServer(self.api.application("tcp", HOSTS)))
        self._clients.append(client)
        await client.start_server()
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    (node,) = await a_mesh(1)
    made = Service(node)
    yield made
    await made.close()


@pytest.fixture
async def tcp(service: Service) -> TestClient[Any, Any]:
    return await service.tcp()


Call = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
async def call(service: Service, tmp_path: Path) -> AsyncIterator[Call]:
    """A request over the unix socket: (status, JSON)."""
    runner = web.AppRunner(service.api.application("socket"), access_log=None)
    await runner.setup()
    await web.UnixSite(runner, tmp_path / "node.sock").start()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "node.sock"))) as session:

        async def request(method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
            raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            data = None if raw is None else io.BytesIO(raw)
            async with session.request(method, "http://node" + path, data=data, **more) as answer:
                raw = await answer.read()
                if answer.status >= 400:
                    assert answer.content_type == "application/problem+json", (answer.status, raw)
                    document = msgspec.json.decode(raw, type=shapes.Error)
                    assert document.status == answer.status
                    assert document.detail
                    assert document.action
                return answer.status, json.loads(raw) if answer.content_type.endswith("json") else raw.decode()

        yield request
    await runner.cleanup()


# --- who may call ---


async def test_the_socket_asks_for_no_token(call: Call) -> None:
    assert (await call("GET", "/v1/projects"))[0] == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        "Bearer \udcff",
        "Bearer é",
    ],
)
async def test_over_tcp_every_call_needs_the_token(
    service: Service, tcp: TestClient[Any, Any], authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for route in service.api.routes():
        path = route.path.replace("{", "").replace("}", "")
        answer = await tcp.request(route.method, path, headers=headers)
        if path in ("/healthz", "/readyz"):
            assert answer.status == 200
            continue
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await answer.json())["code"] == "no_token"
    assert (await tcp.get("/nothing/here", headers=headers)).status == 401, "what exists is nobody's business"


@pytest.mark.parametrize(
    "header", [b"Authorization: Bearer \xff", b"Idempotency-Key: \xff\nAuthorization: Bearer a-token"]
)
async def test_a_header_that_is_no_text_is_refused(tcp: TestClient[Any, Any], header: bytes) -> None:
    reader, writer = await asyncio.open_connection(tcp.host, tcp.port)
    lines = [b"POST /v1/facts HTTP/1.0", b"Host: localhost", *header.split(b"\n"), b"Content-Length: 15", b""]
    writer.write(b"\r\n".join(lines) + b"\r\n" + b'{"content":"x"}')
    status = (await reader.readline()).split()[1]
    assert status == (b"422" if b"a-token" in header else b"401")
    writer.close()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_over_tcp_the_token_opens(tcp: TestClient[Any, Any], scheme: str) -> None:
    assert (await tcp.get("/v1/projects", headers={"Authorization": f"{scheme} {TOKEN}"})).status == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:7401", True),
        ("LOCALHOST:7401", True),
        ("[::1]:7401", True),
        ("evil.example", False),
        ("evil.example:7401", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1:7401:evil.example", False),
        ("", False),
        (":7401", False),
    ],
)
async def test_over_tcp_the_host_must_be_this_one(tcp: TestClient[Any, Any], host: str, allowed: bool) -> None:
    """A name that an attacker's DNS points here (DNS rebinding) is not one of ours, whatever it resolves to."""
    for path in ("/v1/projects", "/healthz"):
        answer = await tcp.get(path, headers=AUTHORIZED | {"Host": host})
        assert answer.status == (200 if allowed else 403)
        assert allowed or (await answer.json())["code"] == "wrong_host"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:7401", True),
        ("https://127.0.0.1:7401", True),
        ("HTTP://127.0.0.1:7401", True),
        ("http://127.0.0.1:3000", False),
        ("http://localhost:7401", False),
        ("http://evil.example", False),
        ("http://evil.example/http://127.0.0.1:7401", False),
        ("null", False),
        ("file://", False),
        ("", False),
    ],
)
async def test_over_tcp_a_page_of_another_origin_may_not_call(
    service: Service, tcp: TestClient[Any, Any], origin: str, allowed: bool
) -> None:
    headers = AUTHORIZED | {"Host": "127.0.0.1:7401", "Origin": origin}
    answer = await tcp.post("/v1/facts", data=b'{"content": "x"}', headers=headers)
    assert answer.status == (201 if allowed else 403)
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert len(service.node.ops()) == 1 + allowed


# --- errors ---


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "field"),
    [
        ("GET", "/nothing/here", None, 404, "no_such_route", None),
        ("GET", "/v1/facts/%ff%00", None, 404, "unknown_fact", None),
        ("GET", "/v1/facts/none", None, 404, "unknown_fact", None),
        ("PUT", "/v1/facts", None, 405, "method_not_allowed", None),
        ("GET", "/v1/facts", None, 405, "method_not_allowed", None),
        ("POST", "/v1/facts", None, 400, "invalid_json", None),
        ("POST", "/v1/facts", b"{", 400, "invalid_json", None),
        ("POST", "/v1/facts", b"\xff\xfe", 400, "invalid_json", None),
        ("POST", "/v1/facts", b'{"content": "\xff"}', 400, "invalid_json", None),
        ("POST", "/v1/facts", b'{"content": "\\ud800"}', 400, "invalid_json", None),
        ("POST", "/v1/facts", b"[" * 100_000, 422, "invalid_request", None),
        ("POST", "/v1/facts", b'{"facts": ' + b"[" * 100_000, 400, "invalid_json", None),
        ("POST", "/v1/facts", b'{"meta":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, 400, "invalid_json", None),
        ("POST", "/v1/facts", [], 422, "invalid_request", None),
        ("POST", "/v1/facts", {}, 422, "invalid_request", "content"),
        ("POST", "/v1/facts", {"content": 5}, 422, "invalid_request", "content"),
        ("POST", "/v1/facts", {"content": "x", "colour": 1}, 422, "invalid_request", "colour"),
        ("POST", "/v1/facts", {"content": "x", "tags": ["a", 1]}, 422, "invalid_request", "tags[1]"),
        ("POST", "/v1/facts", {"content": "x", "meta": {"a": 2**64}}, 422, "invalid_meta", "meta"),
        ("POST", "/v1/facts", {"facts": 1}, 422, "invalid_request", "facts"),
        ("POST", "/v1/facts", {"facts": []}, 422, "invalid_batch", "facts"),
        ("POST", "/v1/facts", {"facts": [{"content": "x"}, {}]}, 422, "invalid_request", "facts[1].content"),
        ("POST", "/v1/facts", {"facts": [{"content": 1}]}, 422, "invalid_request", "facts[0].content"),
        ("POST", "/v1/facts", {"content": "x" * 65_537}, 413, "content_too_long", "content"),
        ("POST", "/v1/facts", {"content": "x", "tags": [str(n) for n in range(65)]}, 422, "invalid_tags", "tags"),
        ("POST", "/v1/facts", {"content": "x", "valid_from": "never"}, 422, "invalid_valid_from", "valid_from"),
        ("POST", "/v1/search", {"query": "x" * 2_001}, 413, "query_too_long", "query"),
        ("GET", "/v1/search", None, 422, "invalid_request", "query"),
        ("GET", "/v1/search?query=x&top_k=many", None, 422, "invalid_top_k", "top_k"),
        ("GET", "/v1/search?query=x&colour=red", None, 422, "invalid_request", "colour"),
        ("GET", "/v1/projects/x/facts?limit=1e3", None, 422, "invalid_limit", "limit"),
        ("GET", "/v1/projects/x/facts?limit=501", None, 422, "invalid_limit", "limit"),
        ("GET", "/v1/projects/x/facts?limit=" + "9" * 5_000, None, 422, "invalid_limit", "limit"),
        ("GET", "/v1/projects/x/facts?cursor=%ff", None, 422, "invalid_cursor", "cursor"),
        ("GET", "/v1/graph/none?depth=", None, 422, "invalid_depth", "depth"),
        ("GET", "/v1/graph/none", None, 404, "unknown_fact", None),
        ("POST", "/v1/facts/none/tags", {"add": "x"}, 422, "invalid_request", "add"),
        ("POST", "/v1/facts/none/links", {"relation": "r"}, 422, "invalid_request", "to"),
        ("PATCH", "/v1/facts/none", {"restore": "yes"}, 422, "invalid_request", "restore"),
        ("PATCH", "/v1/facts/none", {"content": None}, 422, "invalid_request", "content"),
        ("POST", "/v1/peers", {}, 422, "invalid_request", "address"),
        ("POST", "/v1/sync", {"peer": "nobody"}, 503, "busy", None),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(
    call: Call, method: str, path: str, body: Any, status: int, code: str, field: str | None
) -> None:
    answered, problem = await call(method, path, body)
    assert (answered, problem["code"], problem.get("field")) == (status, code, field), problem


async def test_a_request_that_is_too_large_is_refused(call: Call) -> None:
    status, problem = await call("POST", "/v1/facts", b" " * (http.MAX_REQUEST_BYTES + 1))
    assert (status, problem["code"]) == (413, "request_too_large")


async def test_the_largest_fact_that_may_be_stored_fits_a_request(call: Call) -> None:
    fact = {"content": "\x01" * 65_535 + "x", "body": "\x01" * (1 << 20), "meta": {"a": "\x01" * 65_530}}
    status, stored = await call("POST", "/v1/facts", fact)
    assert status == 201
    assert stored["body"] == fact["body"]


async def test_405_says_what_is_allowed_and_503_when_to_come_again(tcp: TestClient[Any, Any]) -> None:
    answer = await tcp.put("/v1/facts", headers=AUTHORIZED)
    assert answer.headers["Allow"] == "POST"
    answer = await tcp.post("/v1/sync", data=b'{"peer": "nobody"}', headers=AUTHORIZED)
    assert answer.headers["Retry-After"] == "1"


async def test_a_fault_of_ours_is_a_problem_document_and_in_the_log(
    service: Service, call: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> Any:
        raise KeyError("secret detail")

    monkeypatch.setattr(service.node.replica, "projects", fails)
    status, problem = await call("GET", "/v1/projects")
    assert status == 500
    assert "secret" not in json.dumps(problem)
    assert "secret detail" in caplog.text


async def test_an_export_that_fails_half_way_is_broken_off(
    service: Service, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"id": "a"}\n'
        raise KeyError("disk")

    monkeypatch.setattr(service.node.replica, "export", half)
    with pytest.raises(aiohttp.ClientError):
        await call("GET", "/v1/export")


# --- facts ---


def shaped(answer: Any, kind: Any) -> Any:
    """The answer, if it has exactly this shape."""
    msgspec.convert(answer, kind)
    return answer


async def test_every_answer_has_its_shape(service: Service, call: Call) -> None:
    status, fact = await call("POST", "/v1/facts", {"content": "the valve leaks", "project": PROJECT, "body": "long"})
    assert status == 201
    shaped(fact, shapes.Fact)
    name = fact["id"]
    status, facts = await call("POST", "/v1/facts", {"facts": [{"content": str(n), "tags": ["t"]} for n in range(3)]})
    assert status == 201
    assert [one["content"] for one in shaped(facts, shapes.Facts)["facts"]] == ["0", "1", "2"]
    other = facts["facts"][0]["id"]
    shaped((await call("GET", f"/v1/facts/{name}"))[1], shapes.Fact)
    shaped((await call("PATCH", f"/v1/facts/{name}", {"content": "new", "valid_from": "2026-01-01"}))[1], shapes.Fact)
    shaped((await call("POST", f"/v1/facts/{name}/tags", {"add": ["a"]}))[1], shapes.Fact)
    linked = shaped((await call("POST", f"/v1/facts/{name}/links", {"relation": "r", "to": other}))[1], shapes.Fact)
    assert linked["links"] == [{"relation": "r", "to": other}]
    graph = shaped((await call("GET", f"/v1/graph/{name}?depth=1"))[1], shapes.Graph)
    assert graph["edges"] == [{"from": name, "relation": "r", "to": other}]
    shaped((await call("GET", f"/v1/facts/{name}/history"))[1], shapes.History)
    assert shaped((await call("GET", "/v1/projects"))[1], shapes.Projects)["projects"] == [
        {"name": "default", "facts": 3},
        {"name": PROJECT, "facts": 1},
    ]
    shaped((await call("GET", f"/v1/projects/{PROJECT}/facts"))[1], shapes.FactPage)
    found = shaped((await call("POST", "/v1/search", {"query": "new"}))[1], shapes.SearchAnswer)
    assert found["results"][0]["fact"]["id"] == name
    status, gone = await call("DELETE", f"/v1/facts/{name}?reason=wrong")
    assert (status, shaped(gone, shapes.Fact)["retracted_reason"]) == (200, "wrong")
    assert (await call("GET", f"/v1/facts/{name}"))[0] == 410
    assert (await call("GET", f"/v1/facts/{name}?include=retracted"))[0] == 200
    back = shaped((await call("PATCH", f"/v1/facts/{name}", {"restore": True}))[1], shapes.Fact)
    assert not back["retracted"]


async def test_an_idempotency_key_answers_201_once_and_then_200(call: Call) -> None:
    for body in ({"content": "x"}, {"facts": [{"content": "x"}, {"content": "y"}]}):
        headers = {"Idempotency-Key": f"key {len(body)} {'facts' in body}"}
        first = await call("POST", "/v1/facts", body, headers=headers)
        again = await call("POST", "/v1/facts", body, headers=headers)
        assert (first[0], again[0]) == (201, 200)
        assert first[1] == again[1]
        status, problem = await call("POST", "/v1/facts", {"content": "other"}, headers=headers)
        assert (status, problem["code"]) == (409, "key_reused")
    assert (await call("POST", "/v1/facts", {"content": "x"}, headers={"Idempotency-Key": "k" * 201}))[0] == 422
    assert (await call("POST", "/v1/facts", {"content": "x"}, headers={"Idempotency-Key": "\udcff"}))[0] == 422


async def test_a_fact_that_speaks_of_facts_is_one_fact(call: Call) -> None:
    status, fact = await call("POST", "/v1/facts", {"content": 'say "facts"', "meta": {"facts": [1]}})
    assert (status, fact["meta"]) == (201, {"facts": [1]})


async def test_a_failed_condition_is_409(call: Call) -> None:
    _, fact = await call("POST", "/v1/facts", {"content": "x"})
    path = f"/v1/facts/{fact['id']}"
    assert (await call("PATCH", path, {"content": "y", "if_version": fact["version"]}))[0] == 200
    status, problem = await call("PATCH", path, {"content": "z", "if_version": fact["version"]})
    assert (status, problem["code"], problem["field"]) == (409, "version_changed", "if_version")


async def test_pages_lead_to_the_next(call: Call) -> None:
    await call("POST", "/v1/facts", {"facts": [{"content": str(n)} for n in range(7)]})
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        _, page = await call("GET", f"/v1/projects/*/facts?limit=3&cursor={cursor}")
        seen += [fact["content"] for fact in page["facts"]]
        cursor = page["next_cursor"]
    assert seen == list("6543210")


async def test_search_by_get_is_search_by_post(call: Call) -> None:
    await call("POST", "/v1/facts", {"content": "the valve leaks", "tags": ["a", "b"], "fact_type": "rule"})
    request = {"query": "valve", "tags": ["a", "b"], "fact_type": "rule", "project": "default", "top_k": 5}
    posted = await call("POST", "/v1/search", request)
    got = await call("GET", "/v1/search?query=valve&tags=a&tags=b&fact_type=rule&project=default&top_k=5")
    assert posted == got
    assert len(got[1]["results"]) == 1
    _, past = await call("GET", "/v1/search?query=valve&as_of=2020-01-01T00:00:00%2B02:00")
    assert (past["results"], past["as_of"]) == ([], "2019-12-31T22:00:00.000Z")


async def test_names_are_percent_decoded(call: Call) -> None:
    await call("POST", "/v1/facts", {"content": "x", "project": "team/a b#é"})
    _, page = await call("GET", "/v1/projects/team%2Fa%20b%23%C3%A9/facts")
    assert len(page["facts"]) == 1


async def test_an_export_is_a_line_a_fact(call: Call) -> None:
    await call("POST", "/v1/facts", {"facts": [{"content": f"line\n{n}", "body": "b" * n} for n in range(5)]})
    status, text = await call("GET", "/v1/export")
    assert status == 200
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["content"] for line in lines] == [f"line\n{n}" for n in range(5)]
    assert lines[4]["body"] == "bbbb"


# --- the node and its peers ---


async def test_the_rest_of_the_node_is_asked(service: Service, call: Call) -> None:
    asked = service.around.asked
    assert (await call("GET", "/v1/status"))[0] == 200
    assert await call("GET", "/v1/peers") == (200, {"peers": []})
    assert (await call("POST", "/v1/peers", {"address": "a:1"}))[0] == 201
    assert (await call("DELETE", "/v1/peers/b:2"))[0] == 200
    assert (await call("POST", "/v1/sync"))[0] == 200
    assert (await call("POST", "/v1/sync", {"peer": "c"}))[0] == 200
    assert (await call("POST", "/v1/invitations", {}))[0] == 201
    assert (await call("POST", "/v1/invitations", {"role": "reader", "projects": ["p"], "ttl_s": 5}))[0] == 201
    assert asked == ["a:1", "b:2", None, "c", ("member", ("*",), 600), ("reader", ("p",), 5)]


async def test_health_and_readiness(service: Service, call: Call) -> None:
    assert await call("GET", "/healthz") == (200, "ok\n")
    assert await call("GET", "/readyz") == (200, "ready\n")
    service.around.is_ready = False
    assert (await call("GET", "/healthz"))[0] == 200
    assert (await call("GET", "/readyz"))[0] == 503


async def test_metrics_are_refreshed_and_count_requests_by_route(service: Service, call: Call) -> None:
    await call("GET", "/v1/projects")
    await call("GET", "/v1/facts/none")
    await call("GET", "/v1/facts/another")
    await call("GET", "/nothing")
    status, text = await call("GET", "/metrics")
    assert status == 200
    samples = parse(text)
    count = "cortex_request_seconds_count"
    assert samples[count, 'surface="socket",name="projects-get"'] == 1
    assert samples[count, 'surface="socket",name="get-get"'] == 2, "by route, not by id"
    assert samples[count, 'surface="socket",name="unknown"'] == 1
    assert service.around.asked == ["metrics"]


async def test_the_description_is_served(service: Service, call: Call) -> None:
    status, document = await call("GET", "/openapi.json")
    assert status == 200
    assert len(document["paths"]) == len({route.path for route in service.api.routes()})
