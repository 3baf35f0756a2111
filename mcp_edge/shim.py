"""`cortex-node mcp`: carries JSON-RPC lines between an MCP client's stdio and the node's socket, and survives the node.

A client starts one of these; all of them talk to one node, so eight clients are eight thin pipes and one owner of the
database. No asyncio and nothing beyond a few modules of the standard library: about 10 MB and 50 ms.

When nobody listens it starts a node (mcp_edge/starting.py). When the connection breaks it makes a new one as soon as
there is something to say, and tells the node what it must know (mcp_edge/conversation.py): the client notices a slow
call. It ends when the client closes stdin or stops reading. Neither side is read faster than the other takes it.

Tests: tests/mcp_edge/test_shim.py, tests/e2e/test_mcp.py.
"""

import contextlib
import errno
import os
import select
import socket
import sys
from collections.abc import Sequence

from mcp_edge.conversation import Conversation, Id
from mcp_edge.lines import Lines
from mcp_edge.starting import TRY_MS, Starting, Unreachable

SOCKET_NAME = "mcp.sock"
CHUNK_BYTES = 65_536
WRITE_BYTES = 4_096
"""PIPE_BUF: what poll(2) promises that a writable pipe takes without blocking."""
MAX_QUEUED_BYTES = 1 << 20
"""From here on one side is not read, until the other has taken some."""
MAX_WAITING = 128
"""Requests without an answer, from which on no further ones are read: no client has so many."""
LINGER_MS = 10_000
"""How long answers are awaited after the client has closed its end, as `printf ... | cortex-node mcp` does."""
LAST_WORDS_MS = 2_000
"""How long a pipe that can't reach a node waits for a first request, to tell its sender why."""
OK, NOT_RUNNING, INTERRUPTED = 0, 4, 130
"""Exit codes, as the whole command line has them."""


class Pipe:
    """One `cortex-node mcp`. `start` is the program that runs a node in `home`."""

    def __init__(self, home: str, start: Sequence[str], stdin: int = 0, stdout: int = 1) -> None:
        self.home = home
        self._stdin, self._stdout = stdin, stdout
        self._talk = Conversation()
        self._node: socket.socket | None = None
        self._client_lines, self._node_lines = Lines(), Lines(sys.maxsize)
        self._sending = b""  # what of the message under way the node has not taken
        self._sending_name: Id | None = None
        self._writing = b""
        self._ended = False  # the client has closed its end
        self._met = False  # a connection has stood before
        self._due = True  # it is time to try again
        self._starting = Starting(home, start)

    def run(self) -> int:
        """Relay until the client ends. The exit code."""
        try:
            return self._relay()
        finally:
            if self._node is not None:
                self._node.close()

    def _relay(self) -> int:
        while True:
            if self._absent and self._due:
                try:
                    self._attach()
                except Unreachable as failure:
                    if self._give_up(str(failure)):
                        return NOT_RUNNING
            if self._ended and not (self._talk.waiting or self._talk.to_client or self._writing):
                return OK
            if not self._step():
                return OK

    @property
    def _absent(self) -> bool:
        """Whether there is no node although there is something to tell it; at first, in any case."""
        return self._node is None and bool(self._talk.waiting or self._talk.to_node or not self._met)

    def _step(self) -> bool:
        """Wait for something to happen, and do what can be done. False when the client is gone."""
        talk = self._talk
        if not self._writing and talk.to_client:
            self._writing = b"".join(line + b"\n" for line in talk.to_client)
            talk.to_client.clear()
        if self._node and not self._sending and talk.to_node:
            line, self._sending_name = talk.to_node.pop(0)
            self._sending = line + b"\n"
        happened = self._wait()
        self._due = not happened
        if self._ended and self._due and not self._absent:
            return False
        if self._node and (event := happened.get(self._node.fileno(), 0)):
            self._exchange(event)
        if happened.get(self._stdin, 0):
            self._read_client()
        if event := happened.get(self._stdout, 0):
            return not event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) and self._write_client()
        return True

    def _wait(self) -> dict[int, int]:
        """What can be read or written, by file descriptor; nothing when the time is up."""
        poll = select.poll()
        if not self._ended:
            queued = sum(len(line) for line, _ in self._talk.to_node)
            room = queued < MAX_QUEUED_BYTES and len(self._talk.waiting) < MAX_WAITING
            poll.register(self._stdin, select.POLLIN if room else 0)
        poll.register(self._stdout, select.POLLOUT if self._writing else 0)
        if self._node:
            unread = len(self._writing) + sum(map(len, self._talk.to_client))
            wanted = select.POLLIN if unread < MAX_QUEUED_BYTES else 0
            poll.register(self._node, wanted | (select.POLLOUT if self._sending else 0))
        return dict(poll.poll(TRY_MS if self._absent else LINGER_MS if self._ended else None))

    # The client

    def _read_client(self) -> None:
        data = os.read(self._stdin, CHUNK_BYTES)
        self._ended = not data
        for line in self._client_lines.feed(data or b"\n"):
            self._talk.from_client(line)

    def _write_client(self) -> bool:
        try:
            self._writing = self._writing[os.write(self._stdout, self._writing[:WRITE_BYTES]) :]
        except BrokenPipeError:
            return False
        return True

    # The node

    def _exchange(self, event: int) -> None:
        assert self._node
        try:
            if event & select.POLLOUT:
                self._sending = self._sending[self._node.send(self._sending) :]
                if not self._sending:
                    self._talk.sent(self._sending_name)
            if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                data = self._node.recv(CHUNK_BYTES)
                if not data:
                    raise ConnectionResetError
                for line in self._node_lines.feed(data):
                    self._talk.from_node(line)
        except BlockingIOError:
            return
        except OSError:
            self._lose()

    def _lose(self) -> None:
        assert self._node
        self._node.close()
        self._node = None
        self._sending, self._node_lines = b"", Lines(sys.maxsize)
        self._due = False  # not at once: a node that turns everybody away must not be stormed
        self._starting.lost()
        self._talk.lost()

    def _attach(self) -> None:
        """Try to connect; start a node when it is time to. Raises Unreachable."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(os.path.join(self.home, SOCKET_NAME))
        except OSError as failure:
            connection.close()
            if failure.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                raise Unreachable(f"cannot reach the node in {self.home}: {failure.strerror or failure}") from None
            self._starting.tried()
            return
        connection.setblocking(False)
        self._node, self._met = connection, True
        self._starting.done()
        self._talk.attached()

    def _give_up(self, why: str) -> bool:
        """Tell everybody that waits. True when there never was a node: then this is the end."""
        with contextlib.suppress(OSError):  # nobody may be there to read it
            os.write(2, f"cortex-node mcp: {why}\n".encode())
        self._starting.lost()
        if not self._met:
            self._await_first_request()
        self._talk.fail(why)
        if self._met:
            return False
        answers = b"".join(line + b"\n" for line in self._talk.to_client)
        with contextlib.suppress(BrokenPipeError):
            while answers:
                answers = answers[os.write(self._stdout, answers) :]
        return True

    def _await_first_request(self) -> None:
        poll = select.poll()
        poll.register(self._stdin, select.POLLIN)
        while not (self._talk.waiting or self._ended) and poll.poll(LAST_WORDS_MS):
            self._read_client()


def run(home: str, start: Sequence[str]) -> int:
    """Relay between this process's stdio and the node in `home`, started by `start` if need be. The exit code."""
    try:
        return Pipe(home, start).run()
    except KeyboardInterrupt:
        return INTERRUPTED
