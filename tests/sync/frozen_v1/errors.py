"""Why a session ends. Each error carries a `reason` for programs and counters, and a `detail` for people.

    SyncError
      ProtocolError   the peer broke the protocol: it is dropped, counted, and named with the reason
      Mismatch        two honest nodes that cannot talk: another mesh, no common version
      Stalled         the peer said nothing for too long: half-open connection, dead process, very slow link
      Refused         it is our own fault: the store would not take what came, or we are full

Every one closes the session and nothing else. Whatever was committed stays, and the next session goes on from there.
A broken rule of our own is an assertion, not one of these. Tests: tests/sync/test_errors.py.
"""

from enum import StrEnum
from typing import Final

MAX_CLOSE_BYTES: Final = 123
"""Of a WebSocket close frame's reason, RFC 6455 section 5.5."""


class Reason(StrEnum):
    """Why a session ended, as `status`, metrics and the close frame name it."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BAD_OP = "bad_op"
    UNEXPECTED = "unexpected"
    NOT_ASKED = "not_asked"
    WINDOW = "window"
    MESH = "mesh"
    VERSION = "version"
    STALLED = "stalled"
    STORE = "store"
    REPLACED = "replaced"


class SyncError(Exception):
    """The end of a session."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    @property
    def close_text(self) -> str:
        """What the close frame tells the peer: reason and detail, cut to what such a frame may hold."""
        return str(self).encode()[:MAX_CLOSE_BYTES].decode(errors="ignore")


class ProtocolError(SyncError):
    """The peer sent what no honest node sends."""


class Mismatch(SyncError):
    """Both keep the rules, and still cannot sync: MESH or VERSION."""


class Stalled(SyncError):
    """No word from the peer while it was its turn."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.STALLED, detail)


class Refused(SyncError):
    """This node could not go on: STORE (a batch was not committed) or REPLACED (by a newer connection)."""
