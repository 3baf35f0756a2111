"""The client against a real HTTP server on a real unix socket."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.client import Client, NotRunning, segment
from node.errors import EXIT_NOT_RUNNING, Problem
from tests.node.scripted_node import ScriptedNode, listening, problem


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with listening(tmp_path / "node.sock") as node:
        yield node


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "node.sock", timeout_s=5)


def test_a_call_sends_json_and_answers_json(node: ScriptedNode, client: Client) -> None:
    node.answer("POST", "/v1/facts", lambda asked: (201, {"said": asked.body["content"]}))
    assert client.call("POST", "/v1/facts", {"content": "Grüße, 世界"}) == {"said": "Grüße, 世界"}
    assert node.asked[0].headers["Content-Type"] == "application/json"


def test_a_call_says_whether_it_was_a_repeat(node: ScriptedNode, client: Client) -> None:
    node.answer("POST", "/v1/facts", lambda asked: (200 if asked.headers.get("Idempotency-Key") else 201, {}))
    assert client.exchange("POST", "/v1/facts", {})[0] == 201
    assert client.exchange("POST", "/v1/facts", {}, headers={"Idempotency-Key": "k"})[0] == 200


def test_queries_are_escaped_and_none_is_left_out(node: ScriptedNode, client: Client) -> None:
    node.answer("GET", "/v1/projects/team%2Fa%20b/facts", {"facts": []})
    client.call("GET", f"/v1/projects/{segment('team/a b')}/facts", query={"cursor": "a&b=c ", "limit": 5, "x": None})
    assert node.asked[0].query == {"cursor": "a&b=c ", "limit": "5"}


def test_a_problem_document_becomes_the_problem(node: ScriptedNode, client: Client) -> None:
    node.answer(
        "GET", "/v1/facts/x", (410, problem(410, "retracted", "x is gone", "look at its history") | {"field": "id"})
    )
    with pytest.raises(Problem) as caught:
        client.call("GET", "/v1/facts/x")
    found = caught.value
    assert (found.status, found.code, found.detail) == (410, "retracted", "x is gone")
    assert (found.action, found.field, found.exit_code) == ("look at its history", "id", 1)


@pytest.mark.parametrize("document", ["oops", {"error": "oops"}, {"detail": 5}])
def test_an_error_that_is_no_problem_document_is_told_with_its_status(
    node: ScriptedNode, client: Client, document: object
) -> None:
    node.answer("GET", "/v1/status", (503, document))
    with pytest.raises(Problem, match="status 503") as caught:
        client.call("GET", "/v1/status")
    assert caught.value.exit_code == 5


def test_nobody_listens(tmp_path: Path) -> None:
    no_socket = Client(tmp_path / "node.sock")
    with pytest.raises(NotRunning) as caught:
        no_socket.call("GET", "/v1/status")
    assert caught.value.exit_code == EXIT_NOT_RUNNING
    assert "cortex-node run" in caught.value.action
    with socket.socket(socket.AF_UNIX) as left_behind:  # by a node that was killed
        left_behind.bind(str(tmp_path / "node.sock"))
    with pytest.raises(NotRunning):
        no_socket.call("GET", "/v1/status")
    with pytest.raises(NotRunning):
        Client(tmp_path / "node.sock" / "below-a-file").call("GET", "/v1/status")


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="longer than a unix socket") as caught:
        Client(tmp_path / ("x" * 120) / "node.sock").call("GET", "/v1/status")
    assert caught.value.exit_code == 2


def test_no_answer_within_the_timeout(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "node.sock"))
        silent.listen()
        with pytest.raises(Problem, match=r"did not answer within 0\.05 s"):
            Client(tmp_path / "node.sock", timeout_s=0.05).call("GET", "/v1/status")


CUT = [
    b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nline\n\r\n",
    b"nonsense\r\n\r\n",
]


@pytest.mark.parametrize("answer", CUT)
def test_an_answer_that_breaks_off_is_never_taken_for_whole(node: ScriptedNode, client: Client, answer: bytes) -> None:
    node.answer("GET", "/v1/export", answer)
    with pytest.raises(Problem) as caught:
        client.call("GET", "/v1/export")
    assert caught.value.code == "answer_cut"


def test_lines_come_as_they_are(node: ScriptedNode, client: Client) -> None:
    node.answer(
        "GET",
        "/v1/export",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n4\r\n{"a"\r\n5\r\n: 1}\n\r\n0\r\n\r\n',
    )
    assert list(client.lines("/v1/export")) == [b"{}\n", b'{"a": 1}\n']


@pytest.mark.parametrize("answer", CUT)
def test_lines_that_break_off_are_never_taken_for_all(node: ScriptedNode, client: Client, answer: bytes) -> None:
    node.answer("GET", "/v1/export", answer)
    with pytest.raises(Problem) as caught:
        list(client.lines("/v1/export"))
    assert caught.value.code == "answer_cut"


def test_long_lines_and_a_last_one_without_its_end(node: ScriptedNode, client: Client) -> None:
    lines = [b"x" * 200_000 + b"\n", b"\n", b"end"]
    whole = b"".join(lines)
    node.answer("GET", "/v1/export", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(whole), whole))
    assert list(client.lines("/v1/export")) == lines


def test_an_answer_that_is_not_json_is_told(node: ScriptedNode, client: Client) -> None:
    node.answer("GET", "/v1/status", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>")
    with pytest.raises(Problem, match="not JSON"):
        client.call("GET", "/v1/status")
