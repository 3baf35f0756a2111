"""The pipe between a client's stdio and a node: whole messages both ways, also over a node that dies."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_edge import shim, starting
from mcp_edge.conversation import REPLAYED
from mcp_edge.shim import Pipe
from tests.mcp_edge.fake_node import Client, FakeNode, echo


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests need not wait as long as people."""
    monkeypatch.setattr(shim, "TRY_MS", 2)
    monkeypatch.setattr(shim, "LAST_WORDS_MS", 200)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    made = FakeNode(tmp_path)
    yield made
    made.close()


def test_requests_are_answered_and_the_end_of_the_client_is_the_end(tmp_path: Path, node: FakeNode) -> None:
    with Client(tmp_path) as client:
        client.say(id=1, method="initialize")
        assert client.hear()["result"] == {"method": "initialize"}
        client.say(id="b", method="tools/list")
        assert client.hear()["id"] == "b"
        assert client.end() == b""
        assert client.code == shim.OK


def test_a_client_that_closes_its_end_at_once_still_gets_its_answers(tmp_path: Path, node: FakeNode) -> None:
    with Client(tmp_path) as client:
        client.say(id=1, method="initialize")
        client.say(id=2, method="tools/list")
        assert len(client.end().splitlines()) == 2


def test_a_message_may_be_long_and_come_in_pieces(tmp_path: Path, node: FakeNode) -> None:
    with Client(tmp_path) as client:
        client.write(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"t":"')
        client.write(b"x" * 3_000_000)
        client.write(b'"}}\n')
        assert client.hear()["id"] == 1
    assert len(node.heard[0]["params"]["t"]) == 3_000_000


def test_one_that_is_too_long_is_answered_with_an_error_and_the_next_one_passes(tmp_path: Path, node: FakeNode) -> None:
    with Client(tmp_path) as client:
        client.write(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"t":"' + b"x" * 10_000_000 + b'"}}\n')
        assert client.hear()["error"]["code"] == -32600
        client.say(id=2, method="ping")
        assert client.hear()["id"] == 2
    assert [message["id"] for message in node.heard] == [2]


def test_a_node_that_dies_in_a_call_is_noticed_as_a_slow_call(tmp_path: Path, node: FakeNode) -> None:
    lives = itertools.count()

    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        if message["method"] == "tools/list" and next(lives) == 0:
            raise ConnectionResetError
        return echo(message)

    node.answer = answer
    with Client(tmp_path) as client:
        client.say(id=0, method="initialize", params={"v": 1})
        client.hear()
        client.say(method="notifications/initialized")
        client.say(id=1, method="tools/list")
        assert client.hear() == {"jsonrpc": "2.0", "id": 1, "result": {"method": "tools/list"}}
    assert node.connections == 2
    again = node.heard[3:]
    assert [message["method"] for message in again] == ["initialize", "notifications/initialized", "tools/list"]
    assert again[0] == {"jsonrpc": "2.0", "id": REPLAYED, "method": "initialize", "params": {"v": 1}}


def test_half_an_answer_is_never_passed_on(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / shim.SOCKET_NAME))
    listener.listen()
    with listener, Client(tmp_path) as client:
        client.say(id=1, method="ping")
        for answer in (b'{"jsonrpc":"2.0","id":1,"resu', b'{"jsonrpc":"2.0","id":1,"result":{}}\n'):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)
        assert client.hear() == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_who_does_not_read_is_not_read_from_without_end(tmp_path: Path, node: FakeNode) -> None:
    node.answer = lambda message: {"jsonrpc": "2.0", "id": message["id"], "result": {"t": "x" * 2_000_000}}
    with Client(tmp_path) as client:
        for number in range(20):
            client.say(id=number, method="x")
        assert client.hear()["id"] == 0  # meanwhile the node is stuck in one of the next few
        assert len(node.heard) < 10
        assert [client.hear()["id"] for _ in range(19)] == list(range(1, 20))


def test_the_node_is_not_read_while_the_client_does_not_take_short_answers_either(tmp_path: Path) -> None:
    ours, nodes = socket.socketpair()
    read_end, write_end = os.pipe()
    pipe = Pipe(str(tmp_path), ["/bin/false"], read_end, write_end)
    pipe._node, pipe._met, pipe._writing = ours, True, b"under way"
    nodes.sendall(b"another answer\n")
    assert ours.fileno() in pipe._wait()
    pipe._talk.to_client = [b"x" * 1_000] * (shim.MAX_QUEUED_BYTES // 1_000 + 1)
    assert ours.fileno() not in pipe._wait()
    ours.close()
    nodes.close()
    os.close(read_end)
    os.close(write_end)


def test_without_a_node_the_client_is_told_why_and_the_pipe_ends(tmp_path: Path, capfd: Any) -> None:
    with Client(tmp_path, ["/bin/sh", "-c", "echo the disk is full >&2; exit 1"]) as client:
        client.say(id=7, method="initialize")
        told = client.hear()
        assert told["id"] == 7 and told["error"]["message"] == "the disk is full"
        client.end()
        assert client.code == shim.NOT_RUNNING
    assert "cortex-node mcp: the disk is full" in capfd.readouterr().err


def test_a_socket_of_somebody_else_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / shim.SOCKET_NAME).mkdir()
    (tmp_path / shim.SOCKET_NAME).chmod(0)
    with Client(tmp_path, ["/bin/false"]) as client:
        client.say(id=7, method="initialize")
        assert "error" in client.hear()


def test_the_node_is_started_and_the_call_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[FakeNode] = []

    def spawn(self: starting.Starting) -> int:
        started.append(FakeNode(tmp_path))
        return 2**22 + 1  # no process; it is never asked for, because the node answers

    monkeypatch.setattr(starting.Starting, "_spawn", spawn)
    with Client(tmp_path) as client:
        client.say(id=1, method="initialize")
        assert client.hear()["id"] == 1
    assert len(started) == 1
    started[0].close()


def test_it_needs_little_and_only_the_standard_library() -> None:
    """Whatever it imports, every client pays for. The size in memory is measured in tests/e2e."""
    said = subprocess.run(
        [sys.executable, "-c", "import sys; before = set(sys.modules)\nfrom mcp_edge import shim\n"
         "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = set(said.stdout.split())
    assert imported - {"mcp_edge"} <= sys.stdlib_module_names
    assert not imported & {
        "asyncio",
        "argparse",
        "pathlib",
        "subprocess",
        "typing",
        "dataclasses",
        "logging",
        "threading",
    }
