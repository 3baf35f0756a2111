"""MCP with real processes: clients that aren't ours over every transport, pipes, kills, restarts, hostile clients."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.local_nodes import LocalNode, clean_environment, found, free_port, wait_until
from mcp_edge.tools import BY_NAME
from tests.e2e.mcp_clients import ERAS, TRANSPORTS, PipeProcess, authorization, client, in_threads, pipe_command

ROOT = Path(__file__).parents[2]
PIPE_MAX_BYTES = 12 << 20
CLIENTS, STORES = 8, 15


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """A running hub: it serves every transport."""
    with found(tmp_path_factory.mktemp("mcp") / "hub", "hub", profile="hub", http2=f"127.0.0.1:{free_port()}") as node:
        yield node.start()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[LocalNode]:
    """A founded node that does not run. Ends whatever runs on its home, also what a pipe has started."""
    with found(tmp_path / "n", "n") as node:
        yield node
        if (pid := owner(node)) is not None:
            os.kill(pid, signal.SIGKILL)


def owner(node: LocalNode) -> int | None:
    """The process that runs on the node's home."""
    try:
        pid = int(node.home.lock.read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid


def resident_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found
    return int(found[1]) << 10


class TestSdk:
    """The SDK's own client."""

    @pytest.mark.parametrize("era", ERAS)
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_every_call_over_every_transport_in_both_eras(self, hub: LocalNode, transport: str, era: str) -> None:
        async with client(hub, transport, era, "claude-code") as c:
            assert {tool.name for tool in (await c.list_tools()).tools} == BY_NAME.keys()
            said = f"the {transport} door opens in {era}"
            stored = await c.call_tool("cortex_store", {"content": said, "tags": ["door"]})
            name = stored.structured_content["id"]
            found = await c.call_tool("cortex_search", {"query": said})
            assert name in [hit["id"] for hit in found.structured_content["results"]]
            shown = (await c.call_tool("cortex_get", {"id": name})).structured_content["fact"]
            assert (shown["content"], shown["agent"]) == (said, "claude-code")
            assert (await c.call_tool("cortex_get", {"id": "none"})).is_error
            assert json.loads((await c.read_resource(f"cortex://fact/{name}")).contents[0].text)["id"] == name  # type: ignore[union-attr]
            assert said in (await c.get_prompt("recall", {"topic": said})).messages[0].content.text  # type: ignore[union-attr]
        assert hub.client.call("GET", f"/v1/facts/{name}")["content"] == said

    @pytest.mark.parametrize("era", ERAS)
    async def test_a_client_votes_as_itself_and_sees_what_a_fact_is_worth(self, hub: LocalNode, era: str) -> None:
        name = f"Claude Desktop {era}"
        fact = hub.store({"content": f"the pump needs oil, says {era}", "agent": "bo"})[0]["id"]
        async with client(hub, "stdio", era, name) as c:
            voted = await c.call_tool("cortex_vote", {"fact_id": fact, "value": 1, "reason": "looked"})
            assert voted.structured_content["state"] == "committed"
            assert voted.structured_content["score"] == 1333, "one voice does not verify anything"
            hub.tell("vote", fact, "up")
            shown = await c.call_tool("cortex_get", {"id": fact})
            assert shown.structured_content["fact"]["trust"] == "verified"
            assert "trust verified" in shown.content[0].text  # type: ignore[union-attr]
            own = (await c.call_tool("cortex_store", {"content": f"I said so in {era}"})).structured_content["id"]
            told = (await c.call_tool("cortex_vote", {"fact_id": own, "value": 1})).content[0].text  # type: ignore[union-attr]
            assert "your vote weighs 0" in told
            assert (await c.call_tool("cortex_vote", {"fact_id": fact, "value": 2})).is_error
            report = await c.call_tool("cortex_ledger_verify", {})
            assert report.structured_content["ok"]
        [agent] = [one for one in hub.tell("agent", "list")["agents"] if one["name"] == name]
        assert (agent["state"], agent["owner"]) == ("enrolled", False)
        [vote] = [one for one in hub.tell("votes", fact)["votes"] if one["agent"] == name]
        assert (vote["value"], vote["reason"], vote["weight"]) == (1, "looked", agent["weight"])


@pytest.fixture(scope="module")
def inspector() -> list[str]:
    done = subprocess.run([ROOT / ".ci" / "npm"], capture_output=True, text=True, timeout=300, check=True)
    if not done.stdout:
        pytest.skip(f"the MCP Inspector can't be had: {done.stderr.strip()}")
    return [f"{done.stdout.strip()}/node_modules/.bin/mcp-inspector", "--cli"]


@pytest.fixture(scope="module")
def door(hub: LocalNode) -> Iterator[str]:
    """/mcp with the token put on: this version of the Inspector can send no header of its own."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._pass_on()

        def do_GET(self) -> None:
            self._pass_on()

        def do_DELETE(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            inner = HTTPConnection("127.0.0.1", hub.api_port, timeout=30)
            inner.request(self.command, self.path, body, kept | authorization(hub))
            answer = inner.getresponse()
            stream = answer.getheader("Content-Type", "").startswith("text/event-stream")
            data = b"" if stream else answer.read()
            self.send_response(405 if stream else answer.status)
            for header, value in answer.getheaders():
                if header.lower() in ("content-type", "mcp-session-id"):
                    self.send_header(header, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            inner.close()

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/mcp"
    server.shutdown()
    server.server_close()
    thread.join()


class TestInspector:
    """The MCP Inspector's command line, the reference client of others."""

    @pytest.mark.parametrize("way", ["stdio", "http"])
    def test_it_lists_calls_reads_and_asks(self, hub: LocalNode, inspector: list[str], door: str, way: str) -> None:
        target = pipe_command(hub) if way == "stdio" else [door]

        def ask(*words: str) -> Any:
            how = [] if way == "stdio" else ["--transport", "http"]
            done = subprocess.run(
                [*inspector, *target, *how, "--method", *words], capture_output=True, text=True, timeout=60,
                env=hub.environment, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        assert {tool["name"] for tool in ask("tools/list")["tools"]} == BY_NAME.keys()
        called = ask(
            "tools/call", "--tool-name", "cortex_store", "--tool-arg", f"content=inspected over {way}", 'tags=["a"]'
        )
        assert not called["isError"] and called["structuredContent"]["id"]
        assert ask("resources/templates/list")["resourceTemplates"][0]["uriTemplate"] == "cortex://fact/{id}"
        assert ask("resources/read", "--uri", "cortex://status")["contents"]
        assert {prompt["name"] for prompt in ask("prompts/list")["prompts"]} == {"recall", "handoff"}


def test_a_hub_serves_http2(hub: LocalNode) -> None:
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=False)
    if "HTTP2" not in version.stdout:
        pytest.skip("needs a curl that speaks HTTP/2")
    [token] = authorization(hub).values()
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "curl", "version": "1"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    done = subprocess.run(
        [
            "curl", "--silent", "--max-time", "30", "--http2-prior-knowledge", "--write-out", "\n%{http_version}",
            "--header", f"Authorization: {token}", "--header", "Accept: application/json, text/event-stream",
            "--json", json.dumps(hello), f"http://{hub.environment['CORTEX_HTTP2']}/mcp",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer, _, version_used = done.stdout.rpartition("\n")
    assert version_used == "2"
    assert json.loads(answer)["result"]["serverInfo"]["name"] == "cortex-node"


class TestPipe:
    """`cortex-node mcp`."""

    def test_it_is_thin_and_quick(self, hub: LocalNode) -> None:
        warm = PipeProcess(hub)
        warm.greet()
        warm.end()
        start = time.monotonic()
        pipe = PipeProcess(hub)
        pipe.greet()
        took = time.monotonic() - start
        pipe.store("x" * 10_000)
        assert resident_bytes(pipe.process.pid) <= PIPE_MAX_BYTES
        assert took < 1.0, "tens of milliseconds on an idle machine"
        assert pipe.end() == 0

    def test_it_starts_the_node_when_none_runs(self, fresh: LocalNode) -> None:
        pipe = PipeProcess(fresh)
        pipe.greet()
        stored = pipe.store("the first")
        assert fresh.client.call("GET", f"/v1/facts/{stored}")["agent"] == "raw"
        assert pipe.end() == 0
        assert owner(fresh), "the node outlives its client"

    def test_it_founds_a_mesh_on_a_fresh_machine(self, tmp_path: Path) -> None:
        node = LocalNode(tmp_path / "new", {})
        pipe = PipeProcess(node)
        try:
            pipe.greet()
            pipe.store("the first")
            assert pipe.end() == 0
        finally:
            if (pid := owner(node)) is not None:
                os.kill(pid, signal.SIGKILL)

    async def test_of_several_at_once_one_starts_it(self, fresh: LocalNode) -> None:
        pipes = [PipeProcess(fresh) for _ in range(CLIENTS)]
        await in_threads(*(pipe.greet for pipe in pipes))
        assert [pipe.end() for pipe in pipes] == [0] * CLIENTS
        log = (fresh.home.path / "node.log").read_text()
        assert log.count("REST API") == 1 and "already" not in log

    def test_without_autostart_it_says_so(self, fresh: LocalNode) -> None:
        environment = fresh.environment | {"CORTEX_MCP_AUTOSTART": "false"}
        done = subprocess.run(
            pipe_command(fresh), env=environment, input=b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n',
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 4
        assert b"mcp.autostart is off" in done.stderr and b"cortex-node run" in done.stderr
        assert "autostart" in json.loads(done.stdout)["error"]["message"]
        assert owner(fresh) is None

    def test_a_restart_of_the_node_is_a_slow_call(self, fresh: LocalNode) -> None:
        fresh.start()
        pipe = PipeProcess(fresh)
        pipe.greet()
        before = pipe.store("before")
        fresh.stop()
        fresh.start()
        assert pipe.call("cortex_get", id=before)["structuredContent"]["fact"]["content"] == "before"
        assert pipe.store("after")
        assert pipe.end() == 0

    def test_a_killed_node_is_started_again_by_the_next_call(self, fresh: LocalNode) -> None:
        fresh.start()
        pipe = PipeProcess(fresh)
        pipe.greet()
        before = pipe.store("before")
        fresh.kill()
        assert pipe.call("cortex_get", id=before)["structuredContent"]["fact"]["content"] == "before"
        assert pipe.end() == 0

    def test_calls_under_way_when_the_node_is_killed_are_answered_and_stores_made_once(self, fresh: LocalNode) -> None:
        fresh.start()
        pipe = PipeProcess(fresh)
        pipe.greet()
        numbers = range(100, 160)
        for number in numbers:
            params = {"name": "cortex_store", "arguments": {"content": f"fact {number}"}}
            pipe.say({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
            if number == 130:
                fresh.kill()
        answers = [pipe.hear() for _ in numbers]
        assert {answer["id"] for answer in answers} == set(numbers)
        assert not [answer for answer in answers if answer["result"]["isError"]]
        wait_until("the node answers", lambda: fresh.status())
        contents = sorted(fact["content"] for fact in fresh.facts().values())
        assert contents == [f"fact {number}" for number in numbers], "each once"
        assert pipe.end() == 0


class TestManyClients:
    """Eight clients at once, each with its pipe: what was acknowledged is there, whoever is killed."""

    async def test_every_acknowledged_fact_is_there(self, fresh: LocalNode) -> None:
        pipes = [PipeProcess(fresh) for _ in range(CLIENTS)]
        acknowledged: dict[str, str] = {}

        def work(number: int) -> None:
            pipe = pipes[number]
            pipe.greet()
            for step in range(STORES):
                content = f"client {number} step {step}"
                acknowledged[pipe.store(content)] = content
                if (number, step) == (3, 4):
                    pipe.kill()
                    return
                if (number, step) == (5, 7) and (pid := owner(fresh)):
                    os.kill(pid, signal.SIGKILL)

        await in_threads(*(lambda number=number: work(number) for number in range(CLIENTS)))
        facts = wait_until("the node answers", lambda: fresh.facts())
        assert {name: facts[name]["content"] for name in acknowledged} == acknowledged
        assert len(acknowledged) == (CLIENTS - 1) * STORES + 5
        contents = [fact["content"] for fact in facts.values()]
        assert len(contents) == len(set(contents)), "nothing was stored twice"
        for number, pipe in enumerate(pipes):
            if number != 3:
                assert pipe.end() == 0


class TestHostile:
    """What a client may do wrong costs only itself."""

    @pytest.fixture
    def pipe(self, hub: LocalNode) -> Iterator[PipeProcess]:
        made = PipeProcess(hub)
        made.greet()
        yield made
        made.end()

    @pytest.mark.parametrize(
        "line", [b"garbage", b"{", b"[]", b'{"jsonrpc":"2.0","id":1}', b"\xff\xfe\x00", b"[" * 100_000]
    )
    def test_malformed_lines_are_errors_and_the_next_call_works(self, pipe: PipeProcess, line: bytes) -> None:
        assert pipe.process.stdin
        pipe.process.stdin.write(line + b"\n")
        pipe.process.stdin.flush()
        assert pipe.hear()["error"]["code"] in (-32700, -32600)
        assert pipe.ask("ping") == {}

    def test_arguments_of_10_mb_are_an_error_and_memory_is_bounded(self, hub: LocalNode, pipe: PipeProcess) -> None:
        before = resident_bytes(hub.pid)
        for _ in range(3):
            params = {"name": "cortex_store", "arguments": {"content": "x" * 10_000_000}}
            pipe.say({"jsonrpc": "2.0", "id": "big", "method": "tools/call", "params": params})
            answer = pipe.hear()
            assert answer["id"] == "big" and "longer than" in answer["error"]["message"]
        assert pipe.call("cortex_store", content="x" * 1_000_000)["isError"]
        assert pipe.store("small")
        assert resident_bytes(hub.pid) - before < 48 << 20
        assert resident_bytes(pipe.process.pid) < PIPE_MAX_BYTES + (24 << 20)

    def test_a_thousand_that_say_nothing_keep_nobody_out(self, hub: LocalNode) -> None:
        before = resident_bytes(hub.pid)
        with ExitStack() as ends:
            for number in range(1_000):
                unix = number % 2 == 0
                silent = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
                ends.enter_context(silent)
                silent.connect(str(hub.home.mcp_socket) if unix else ("127.0.0.1", hub.api_port))
            pipe = PipeProcess(hub)
            pipe.greet()
            assert pipe.store("among the silent")
            assert pipe.end() == 0
            assert hub.status()["node"]["pid"] == hub.pid
            assert resident_bytes(hub.pid) - before < 32 << 20

    def test_one_that_never_reads_stops_only_itself(self, hub: LocalNode) -> None:
        deaf = PipeProcess(hub)
        deaf.greet()
        before = resident_bytes(hub.pid)
        flood = b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"tools/list"}\n' % n for n in range(200_000))
        assert deaf.process.stdin
        os.set_blocking(deaf.process.stdin.fileno(), False)
        at, tries = 0, 0
        while at < len(flood) and tries < 50:
            try:
                at += os.write(deaf.process.stdin.fileno(), flood[at : at + 65_536])
            except BlockingIOError:
                tries += 1
                time.sleep(0.02)
        assert at < len(flood), "it is not read from for ever"
        pipe = PipeProcess(hub)
        pipe.greet()
        assert pipe.store("heard")
        assert pipe.end() == 0
        assert resident_bytes(hub.pid) - before < 16 << 20
        assert resident_bytes(deaf.process.pid) < PIPE_MAX_BYTES + (8 << 20)
        deaf.kill()

    def test_a_session_that_breaks_in_the_middle_of_a_message(self, hub: LocalNode) -> None:
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(str(hub.home.mcp_socket))
            half.sendall(b'{"jsonrpc":"2.0","id":1,"method":"tools/ca')
        pipe = PipeProcess(hub)
        pipe.greet()
        assert pipe.store("after the break")
        assert pipe.end() == 0


def test_beyond_loopback_the_api_speaks_tls(tmp_path: Path) -> None:
    port = free_port()
    with found(tmp_path / "n", "n", api=f"0.0.0.0:{port}") as node:
        node.start()
        base = ["curl", "--silent", "--max-time", "20", "--output", "-", f"https://localhost:{port}/healthz"]
        trusted = subprocess.run(
            [*base, "--cacert", str(node.home.ca_certificate), "--resolve", f"n:{port}:127.0.0.1", "--insecure"],
            capture_output=True, env=clean_environment(), check=False,
        )  # fmt: skip
        assert trusted.stdout == b"ok\n"
        plain = HTTPConnection("127.0.0.1", port, timeout=10)
        with pytest.raises(OSError):
            plain.request("GET", "/healthz")
            plain.getresponse()
        plain.close()
