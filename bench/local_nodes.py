"""Real nodes on this machine, each a process of its own, and a line between two of them that can be cut.

For the demo, the measurements and tests/e2e. A `LocalNode` is started, asked, stopped and killed like any other
program: over its socket (`client`, one process, fast) or with the command line (`run`, what a user does). A `Line` is a
TCP relay in front of a node's peer port: the peer is told the relay's address, and `cut` takes the relay away.

Waiting is polling with a deadline (`wait_until`), never a fixed pause: it lasts as long as it must, and says what it
waited for when it was in vain. Whoever makes a node or a line closes it; both are context managers.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from node.client import Client
from node.config import PREFIX
from node.errors import Problem
from node.paths import Home

PROGRAM = (str(Path(sys.executable).with_name("cortex-node")),)
LOOPBACK = "127.0.0.1"
START_S = 30.0
"""A node starts in a second; a machine that is busy with other tests takes longer."""
STOP_S = 15.0
COMMAND_S = 60.0
POLL_S = 0.03
CHUNK_BYTES = 65_536

T = TypeVar("T")


def wait_until(what: str, condition: Callable[[], T], timeout_s: float = 20.0) -> T:
    """The first true value of `condition`. A Problem counts as not yet. Raises TimeoutError that names `what`."""
    give_up = time.monotonic() + timeout_s
    while True:
        last: object
        try:
            if last := condition():
                return last
        except Problem as problem:
            last = f"{problem.code}: {problem}"
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {timeout_s:g} s in vain until {what}; last seen: {last!r}")
        time.sleep(POLL_S)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would configure a node, and with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | more


class LocalNode:
    """A node with its home in `path`. `settings` are keys of node.toml, given through the environment."""

    def __init__(self, path: Path, settings: Mapping[str, object], program: Sequence[str] = PROGRAM) -> None:
        self.home = Home(path)
        self.port = free_port()
        self.api_port = free_port()
        self.program = tuple(program)
        self.client = Client(self.home.socket)
        self.log = path.with_name(path.name + ".log")
        self.process: subprocess.Popen[bytes] | None = None
        given = {"listen": self.address, "api": f"{LOOPBACK}:{self.api_port}", **settings}
        self.environment = clean_environment(**{PREFIX + key.upper(): str(value) for key, value in given.items()})

    @property
    def address(self) -> str:
        """Where peers reach it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def name(self) -> str:
        """What its home is called."""
        return self.home.path.name

    @property
    def pid(self) -> int:
        """Of its process, which must have been started."""
        assert self.process, "it was never started"
        return self.process.pid

    # Life

    def start(self, *arguments: str) -> Self:
        """Start the process, and return when it is ready. Raises RuntimeError with its log when it ends instead."""
        self.launch(*arguments)
        wait_until(f"{self.name} is ready", self._up, START_S)
        return self

    def launch(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start the process without waiting for anything."""
        assert self.process is None or self.process.poll() is not None, "it is running already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "--home", str(self.home.path), "run", *arguments],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return self.process

    def stop(self) -> int:
        """Ask it to stop, and return its exit code. Raises TimeoutError when it does not."""
        assert self.process, "it was never started"
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} did not stop; its log:\n{self.read_log()}") from None

    def kill(self) -> None:
        """`kill -9`, whatever it is doing."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S)

    def read_log(self) -> str:
        """Everything that it printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _up(self) -> bool:
        if self.process and self.process.poll() is not None:
            raise RuntimeError(f"the node ended with code {self.process.returncode}; its log:\n{self.read_log()}")
        return self.text("/readyz") == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    # Asking

    def run(
        self, *arguments: str, given: bytes | None = None, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """One command of the command line; `given` is its stdin."""
        done = subprocess.run(
            [*self.program, "--home", str(self.home.path), *arguments],
            env={**self.environment, **(environment or {})}, input=given or b"", capture_output=True,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
        return subprocess.CompletedProcess(arguments, done.returncode, done.stdout.decode(), done.stderr.decode())

    def tell(self, *arguments: str, given: bytes | None = None) -> Any:
        """The JSON document of one command that must succeed."""
        done = self.run(*arguments, "--json", given=given)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with code {done.returncode}: {done.stderr or done.stdout}")
        return json.loads(done.stdout)

    def text(self, path: str) -> str:
        """A plain-text answer over the socket."""
        return b"".join(self.client.lines(path)).decode()

    def status(self) -> Any:
        """GET /v1/status."""
        return self.client.call("GET", "/v1/status")

    def store(self, *drafts: dict[str, Any] | str) -> list[Any]:
        """Store facts in one request; what became of them."""
        facts = [{"content": draft} if isinstance(draft, str) else draft for draft in drafts]
        stored: list[Any] = self.client.call("POST", "/v1/facts", {"facts": facts})["facts"]
        return stored

    def facts(self) -> dict[str, Any]:
        """Every fact that stands, by its id, as the export has it."""
        return {fact["id"]: fact for fact in map(json.loads, self.client.lines("/v1/export"))}

    def history(self, fact_id: str) -> list[Any]:
        """Every version of a fact, in an order that does not depend on the node."""
        versions = self.client.call("GET", f"/v1/facts/{fact_id}/history")["versions"]
        return sorted(versions, key=lambda version: (version["at"], version["version"], version["field"] or ""))

    def knowledge(self) -> dict[str, tuple[str, str]]:
        """Per project the Merkle root and the digest of the version vector: equal on nodes with equal ops."""
        return {one["name"]: (one["root"], one["vector_digest"]) for one in self.status()["projects"]}

    def connected(self) -> bool:
        """Whether a session with any peer stands."""
        return any(peer["state"] == "connected" for peer in self.status()["peers"])

    def metric(self, sample: str) -> float:
        """The value of one sample of /metrics, named with its labels; 0 while it is not there."""
        found = (line.rpartition(" ") for line in self.text("/metrics").splitlines())
        return sum(float(value) for name, _, value in found if name == sample)


def found(path: Path, name: str, program: Sequence[str] = PROGRAM, **settings: object) -> LocalNode:
    """The first node of a new mesh, not yet running."""
    node = LocalNode(path, settings, program)
    node.tell("init", "--name", name)
    return node


def enrol(
    path: Path,
    name: str,
    inviter: LocalNode,
    invite: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
    **settings: object,
) -> LocalNode:
    """Another node of the mesh of `inviter`, which must be running; not yet running itself.

    `invite`: options of that command, such as --project.
    """
    node = LocalNode(path, settings, program)
    node.tell("join", inviter.tell("invite", *invite)["code"], "--name", name)
    return node


def agree(*nodes: LocalNode) -> bool:
    """Whether all have the same ops in every project."""
    first, *others = [node.knowledge() for node in nodes]
    return all(other == first for other in others)


class Line:
    """A relay from a port of its own to `target`: whole, or cut. Bytes of both directions are counted."""

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.port = free_port()
        self.bytes = 0
        self.breaks = 0
        self._lasts: float = inf
        self._next_break: float = inf
        self._open: set[asyncio.WriteTransport] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self._thread.start()
        self.mend()

    @property
    def address(self) -> str:
        """What the peer dials."""
        return f"{LOOPBACK}:{self.port}"

    def cut(self) -> None:
        """End every connection in the middle, and refuse new ones."""
        self._do(self._cut())

    def mend(self) -> None:
        """Let connections through again."""
        self._do(self._mend())

    def break_every(self, many_bytes: float) -> None:
        """End every connection each time so many bytes have passed, `inf` for no longer; new ones are let through."""
        self._lasts, self._next_break = many_bytes, self.bytes + many_bytes

    def close(self) -> None:
        """End everything."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _mend(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._relay, LOOPBACK, self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._end_all()

    def _end_all(self) -> None:
        for transport in list(self._open):
            transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # the node behind the line is not there, or an end was aborted
            onward_reader, onward_writer = await asyncio.open_connection(LOOPBACK, self.target)
            ends = {writer.transport, onward_writer.transport}
            self._open |= ends
            try:
                await asyncio.gather(self._pump(reader, onward_writer), self._pump(onward_reader, writer))
            finally:
                self._open -= ends
                onward_writer.transport.abort()
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            self.bytes += len(data)
            if self.bytes >= self._next_break:
                self.breaks += 1
                self._next_break = self.bytes + self._lasts
                self._end_all()
                return
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
