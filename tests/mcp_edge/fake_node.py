"""A node that is a thread on a unix socket and answers as it is told, for tests of the pipe."""

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcp_edge.shim import SOCKET_NAME, Pipe

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


def echo(message: dict[str, Any]) -> dict[str, Any] | None:
    """Answers every request with its own method."""
    if "id" not in message:
        return None
    return {"jsonrpc": "2.0", "id": message["id"], "result": {"method": message["method"]}}


class FakeNode:
    """Listens in `home`. `answer` may raise ConnectionError: the connection breaks, as when the node dies."""

    def __init__(self, home: Path, answer: Answer = echo) -> None:
        self.heard: list[dict[str, Any]] = []
        self.answer = answer
        self.connections = 0
        (home / SOCKET_NAME).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(home / SOCKET_NAME))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, connection.makefile("rwb") as stream:
                try:
                    for line in stream:
                        self._take(json.loads(line), stream)
                except (ConnectionError, ValueError):
                    continue

    def _take(self, message: dict[str, Any], stream: Any) -> None:
        self.heard.append(message)
        answer = self.answer(message)
        if answer is not None:
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


class Client:
    """A pipe on a thread, and the client's end of it."""

    def __init__(self, home: Path, start: list[str] | None = None) -> None:
        to_read, self._to_pipe = os.pipe()
        self._from_pipe, to_write = os.pipe()
        self.code: int | None = None
        pipe = Pipe(str(home), start or ["/bin/false"], to_read, to_write)

        def run() -> None:
            self.code = pipe.run()
            os.close(to_write)
            os.close(to_read)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        self._answers = os.fdopen(self._from_pipe, "rb")

    def say(self, **message: Any) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to_pipe, data) :]

    def hear(self) -> Any:
        return json.loads(self._answers.readline())

    def end(self) -> bytes:
        """Close the client's end; what comes until the pipe has ended."""
        if self._to_pipe >= 0:
            os.close(self._to_pipe)
            self._to_pipe = -1
        rest = self._answers.read()
        self.thread.join(5)
        return rest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
        self._answers.close()
