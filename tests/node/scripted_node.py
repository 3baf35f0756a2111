"""A stand-in for a running node: a real HTTP server on a real unix socket that answers as a test tells it.

It keeps what it was asked. Used by the tests of the command line; the true server has tests of its own.
"""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class ScriptedNode:
    """`answers`: by (method, path) what to answer: a document, (status, document), bytes, or a function of Asked."""

    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, method: str, path: str, answer: Any) -> None:
        self.answers[method, path] = answer


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False


@contextmanager
def listening(socket_path: Path) -> Iterator[ScriptedNode]:
    """A node that listens on `socket_path` while the block runs."""
    node = ScriptedNode()

    class Talk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            url = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else None
            asked = Asked(self.command, url.path, dict(parse_qsl(url.query)), body, dict(self.headers))
            node.asked.append(asked)
            answer = node.answers.get((asked.method, asked.path), (404, _problem(404, "no_such_route", url.path)))
            while isinstance(answer, Callable):  # type: ignore[arg-type]
                answer = answer(asked)
            if isinstance(answer, bytes):  # the whole answer as it is, then the end of the connection
                self.wfile.write(answer)
                self.close_connection = True
                return
            status, document = answer if isinstance(answer, tuple) else (200, answer)
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = do

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            """Tests have their own output."""

    server = _Server(str(socket_path), Talk)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _problem(status: int, code: str, detail: str, action: str = "") -> dict[str, Any]:
    return {"type": "about:blank", "status": status, "code": code, "detail": detail, "action": action}


problem = _problem


def fact(**fields: Any) -> dict[str, Any]:
    """A Fact in the API's shape."""
    whole: dict[str, Any] = {
        "id": "k7q2m4zx5tvb3nya-17",
        "project": "home",
        "content": "The spare key is with Ada",
        "body": None,
        "has_body": False,
        "fact_type": "knowledge",
        "tags": [],
        "confidence": "stated",
        "source": None,
        "agent": None,
        "meta": {},
        "valid_from": None,
        "valid_until": None,
        "created_at": "2026-05-11T08:30:00.123Z",
        "updated_at": "2026-05-11T08:30:00.123Z",
        "author": "k7q2m4zx5tvb3nya",
        "version": "8c1f",
        "conflict": False,
        "conflicts": [],
        "retracted": False,
        "retracted_reason": None,
        "links": [],
        "legacy_id": None,
        "score": 1_000,
        "score_provisional": 1_000,
        "score_linear": 1_000,
        "trust": "unsettled",
        "votes": {"up": 0, "down": 0, "pending": 0},
        "last_vote_at": None,
    }
    assert fields.keys() <= whole.keys() | {"body_token"}, fields
    return whole | fields
