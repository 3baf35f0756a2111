"""REST over the node's unix socket, for the command line: one request a connection, stdlib only.

A problem document from the node becomes the `Problem` that it describes. When nobody listens the problem is
`NotRunning`, which has an exit code of its own. A connection that breaks before the whole answer is here is reported
as such: what was asked may or may not have been done.

The socket is the user's own (mode 0600), so the size of an answer is not bounded here.

Tests: tests/node/test_client.py, against a real server on a real socket.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from node.errors import EXIT_NOT_RUNNING, Problem
from node.paths import MAX_SOCKET_PATH_BYTES

# A round with a slow peer, or 1,000 facts onto an SD card, takes seconds; a minute without a byte is a fault.
TIMEOUT_S = 60.0
CHUNK_BYTES = 65_536


class NotRunning(Problem):
    """Nobody listens on the node's socket."""

    def __init__(self) -> None:
        super().__init__(503, "not_running", "the node is not running", "start it with: cortex-node run")

    @property
    def exit_code(self) -> int:
        return EXIT_NOT_RUNNING


class Client:
    """Calls of one node. Making it connects to nothing."""

    def __init__(self, socket_path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON document that the node answers. Entries of `query` that are None are left out. Raises Problem."""
        return self.exchange(method, path, body, query, headers)[1]

    def exchange(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """`call`, with the HTTP status before the document: 201 is a fact stored now, 200 one stored by a repeat."""
        with self._request(method, path, body, query, headers or {}) as response:
            return response.status, _document(response.read())

    def lines(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """The lines of a streamed answer, each with its line end, as they come. Raises Problem, also half-way."""
        begun = b""
        for data in self.pieces(path, query, method=method, body=body, headers=headers):
            *lines, begun = (begun + data).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if begun:
            yield begun

    def pieces(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """A streamed answer, as it comes. Raises Problem, also half-way.

        Not by iterating over the response: http.client takes a chunked answer that breaks off between two chunks for
        a whole one then.
        """
        with self._request(method, path, body, query, headers or {}) as response:
            while data := response.read(CHUNK_BYTES):
                yield data
            if response.length:
                raise IncompleteRead(b"", response.length)

    @contextmanager
    def _request(
        self, method: str, path: str, body: Any, query: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> Iterator[HTTPResponse]:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = path + ("?" + urlencode(given) if given else "")
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        sent = dict(headers) | ({"Content-Type": "application/json"} if data is not None else {})
        connection = _Connection(self._socket_path, self._timeout_s)
        try:
            connection.request(method, target, data, sent)
            response = connection.getresponse()
            if response.status >= 400:
                raise _problem(response.status, response.read())
            yield response
        except TimeoutError as error:
            detail = f"the node did not answer within {self._timeout_s:g} s"
            raise Problem(503, "no_answer", detail, "look at its log, and at: cortex-node status") from error
        except (ConnectionError, HTTPException) as error:
            detail = f"the node broke the connection off before its answer was complete ({type(error).__name__})"
            action = "see whether it runs, and whether the change was made, before asking again"
            raise Problem(503, "answer_cut", detail, action) from error
        finally:
            connection.close()


def segment(text: str) -> str:
    """`text` as one segment of a path: an id or a project's name may hold any character."""
    return quote(text, safe="")


class _Connection(HTTPConnection):
    """HTTP/1.1 over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        path = os.fsencode(self._path)
        if len(path) > MAX_SOCKET_PATH_BYTES:
            detail = f"{self._path} is longer than a unix socket's path may be ({MAX_SOCKET_PATH_BYTES} bytes)"
            raise Problem(400, "home_path_too_long", detail, "use a shorter --home")
        try:
            self.sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning from error
        except PermissionError as error:
            action = "run the command as the user that the node runs as"
            raise Problem(403, "not_your_node", f"{self._path} belongs to another user", action) from error


def _document(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except ValueError as error:
        detail = f"the node's answer is not JSON: {data[:200]!r}"
        raise Problem(500, "bad_answer", detail, "see whether node and command line have one version") from error


def _problem(status: int, data: bytes) -> Problem:
    """The problem that an answer describes; one made from the status when it describes none."""
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("detail"), str):
        text = data[:200].decode(errors="replace").strip()
        return Problem(status, "http_error", f"the node answered with status {status}: {text or 'no explanation'}")
    code, action, field = document.get("code"), document.get("action"), document.get("field")
    return Problem(status, str(code or "http_error"), document["detail"], str(action or ""), field and str(field))
