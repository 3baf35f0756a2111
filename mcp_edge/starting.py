"""Starts the node when an MCP client needs it and none answers: one node, however many pipes find it missing.

A pipe tries to connect every TRY_MS and reports each try here. Which pipe starts the node is settled by a lock on a
file in the home, which the kernel lets go of when its holder dies. A node that went away is given time to come back:
whoever runs it as a service restarts it, and must not find its home taken.

Whether a node may be started like this (`mcp.autostart`) is for the node to say, which can read its settings: it then
ends, and what it wrote into its log is the reason that the client gets.

Of the standard library alone, like the pipe. Tests: tests/mcp_edge/test_starting.py.
"""

import fcntl
import os
from collections.abc import Sequence

LOG_NAME, LOCK_NAME = "node.log", "start.lock"
TRY_MS = 50
GRACE_TRIES = 60
"""How long a node that went away has to come back before a pipe starts one: a restart takes a second or two."""
MAX_TRIES = 1200
"""A minute: a first start on a slow card. Clients wait about as long for an answer."""
MAX_LOG_BYTES = 1 << 20
"""A longer node.log is begun anew when a pipe starts a node."""
MAX_REASON_BYTES = 2_000
ALREADY_RUNNING = b"a node runs on"
"""What a node says that finds its home taken."""


class Unreachable(Exception):
    """No node answers, and none can be started; says why."""


class Starting:
    """The search for one node. `program` runs a node in `home`."""

    def __init__(self, home: str, program: Sequence[str]) -> None:
        self._home = home
        self._program = list(program)
        self._tries = 0
        self._start_after = 0  # tries
        self._child: int | None = None
        self._log_at = 0
        self._lock: int | None = None

    def done(self) -> None:
        """A node answers."""
        self._child = None
        self._unlock()

    def lost(self) -> None:
        """The node went away."""
        self._tries, self._start_after = 0, GRACE_TRIES

    def tried(self) -> None:
        """No node answered this time: start one, or see what became of the one that was started. Raises Unreachable."""
        self._tries += 1
        if self._child is not None:
            self._look_after(self._child)
        elif self._tries > self._start_after and self._locked():
            self._child = self._spawn()
        if self._tries > MAX_TRIES:
            raise Unreachable(f"the node in {self._home} did not answer within {MAX_TRIES * TRY_MS // 1000} s")

    def _look_after(self, child: int) -> None:
        pid, status = os.waitpid(child, os.WNOHANG)
        if not pid:
            return
        self._child = None
        self._unlock()
        said = self._said()
        if ALREADY_RUNNING not in said:
            code = os.waitstatus_to_exitcode(status)
            raise Unreachable(said.decode(errors="replace") or f"the node ended at once (code {code})")
        self._start_after = self._tries + GRACE_TRIES  # another was quicker: that one will answer

    def _locked(self) -> bool:
        """Whether it falls to this pipe to start the node."""
        if self._lock is None:
            os.makedirs(self._home, mode=0o700, exist_ok=True)
            self._lock = os.open(os.path.join(self._home, LOCK_NAME), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _spawn(self) -> int:
        """Start the node as a program of its own, which outlives this one. Its log is node.log in the home."""
        path = os.path.join(self._home, LOG_NAME)
        fresh = os.path.exists(path) and os.path.getsize(path) > MAX_LOG_BYTES
        log = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if fresh else os.O_APPEND), 0o600)
        self._log_at = os.fstat(log).st_size
        nothing = os.open(os.devnull, os.O_RDWR)
        streams = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        child = os.posix_spawn(self._program[0], self._program, os.environ, file_actions=streams, setsid=True)
        os.close(log)
        os.close(nothing)
        return child

    def _said(self) -> bytes:
        """The last that the node wrote into its log."""
        with open(os.path.join(self._home, LOG_NAME), "rb") as log:
            log.seek(self._log_at)
            return log.read()[-MAX_REASON_BYTES:].strip()
