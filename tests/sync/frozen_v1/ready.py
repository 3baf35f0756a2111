"""What the core wants done: the answer to every event, carried out by the driver.

    persist   commit each `Commit` in one transaction, then call `Core.persisted(commit, fresh, now)`
    send      then send the messages, in order, each to its peer
    notify    then tell the node what happened
    close     end these connections, with the reason
    dial      try to reach these addresses

A `Ready` that asks for a commit sends nothing: the answer to a batch exists only once `persisted` has said that it is
on disk. So a driver that crashes, or confuses the order, can delay an acknowledgement and never make a false one.

After etcd-io/raft's Ready. Tests: tests/sync/test_ready.py.
"""

from dataclasses import dataclass
from enum import Enum

from crdt.op import Op
from tests.sync.frozen_v1.errors import SyncError
from tests.sync.frozen_v1.messages import Message


class Outcome(Enum):
    """How a round ended."""

    SAME = "same"
    MOVED = "moved"
    STUCK = "stuck"
    """It differed, and nothing that either side sent was new to the other: roots differ, or a chain is forked."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The verified ops of one batch of `peer`, for one transaction. `session` tells connections apart."""

    peer: str
    session: int
    number: int
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Send:
    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection to `peer`. `Core` has forgotten it already; `disconnected` need not be called."""

    peer: str
    error: SyncError


@dataclass(frozen=True, slots=True)
class PeerOpened:
    """The peer keeps the protocol and is of this mesh; `name` is what it calls itself."""

    peer: str
    name: str


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """`sent_ops` and `received_ops` of a round; `fresh_ops` of those received were new here."""

    peer: str
    outcome: Outcome
    sent_ops: int
    received_ops: int
    fresh_ops: int


@dataclass(frozen=True, slots=True)
class RootsDiffer:
    """Equal vectors, different roots: a lost row, bit rot, a fork or a lie. The Merkle walk is the answer."""

    peer: str
    project: str


@dataclass(frozen=True, slots=True)
class ClockSeen:
    """The peer's wall clock is `ahead_ms` ahead of ours (behind, when negative), give or take the way here."""

    peer: str
    ahead_ms: int


@dataclass(frozen=True, slots=True)
class PeerAgreed:
    """What both carry is settled, as patterns."""

    peer: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lagging:
    """How far apart the two are in the round under way: in all that either side has told so far.

    `ahead_ops`: ours that are not on the peer's disk yet, the oldest written at `ahead_ms` (ms since 1970 UTC, 0 when
    there is none); `behind_ops`, `behind_ms`: the peer's that are not on ours, as it says.
    """

    peer: str
    ahead_ops: int
    ahead_ms: int
    behind_ops: int
    behind_ms: int


Notice = PeerOpened | PeerAgreed | RoundEnded | RootsDiffer | ClockSeen | Lagging


@dataclass(frozen=True, slots=True)
class Ready:
    """See the module."""

    persist: tuple[Commit, ...] = ()
    send: tuple[Send, ...] = ()
    notify: tuple[Notice, ...] = ()
    close: tuple[Close, ...] = ()
    dial: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert not (self.persist and self.send), "an answer before the commit that it depends on"

    def __add__(self, other: "Ready") -> "Ready":
        return Ready(
            self.persist + other.persist,
            self.send + other.send,
            self.notify + other.notify,
            self.close + other.close,
            self.dial + other.dial,
        )


NOTHING = Ready()
