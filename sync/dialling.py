"""Addresses to keep a connection to, and when to try each again: exponential back-off with jitter and a cap.

An address is only a hint where a peer may be; who answers there is what its certificate says. An address that failed,
or whose session never got as far as agreeing on the protocol, waits twice as long each time, so a mesh whose
certificates have all expired does not saturate anybody's uplink. Tests: tests/sync/test_dialling.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final

from sync.replica import Chance

FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 300.0
"""A peer that was away for a week is found within five minutes of its return."""
JITTER: Final = 0.2
"""Plus or minus, of every interval: peers that lost each other together do not come back together."""
MAX_DOUBLINGS: Final = 16
"""Beyond the cap by far; keeps the power small."""


def jittered(seconds: float, chance: Chance) -> float:
    return seconds * chance.uniform(1 - JITTER, 1 + JITTER)


class _State(Enum):
    WAITING = "waiting"
    DIALLING = "dialling"
    CONNECTED = "connected"


@dataclass(slots=True)
class _Target:
    due: float
    state: _State = _State.WAITING
    failures: int = 0
    peer: str = ""


class Targets:
    """The addresses that this node wants to be connected to."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._targets: dict[str, _Target] = {}

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, address: str) -> bool:
        return address in self._targets

    @property
    def deadline(self) -> float:
        """When the next address is due, on the caller's clock; `inf` if none is."""
        return min((target.due for target in self._targets.values() if target.state is _State.WAITING), default=inf)

    @property
    def active(self) -> int:
        """How many are being dialled, or connected."""
        return sum(target.state is not _State.WAITING for target in self._targets.values())

    @property
    def peers(self) -> list[str]:
        """Who is connected."""
        return [target.peer for target in self._targets.values() if target.state is _State.CONNECTED]

    def waiting(self, now: float = inf) -> list[str]:
        """The addresses that may be dialled by `now`."""
        return [
            address for address, target in self._targets.items() if target.state is _State.WAITING and target.due <= now
        ]

    def want(self, address: str, now: float) -> None:
        """Keep a connection to `address`, from now on; one that is known already is tried at once."""
        target = self._targets.setdefault(address, _Target(now))
        target.due = min(target.due, now)

    def drop(self, address: str) -> None:
        """No longer."""
        self._targets.pop(address, None)

    def take_due(self, now: float) -> Iterator[str]:
        """The addresses to dial now. Each waits for `reached` or `failed`, however long dialling takes."""
        for address in self.waiting(now):
            self.dial(address)
            yield address

    def dial(self, address: str) -> None:
        """This address is being dialled."""
        self._targets[address].state = _State.DIALLING

    def reached(self, address: str, peer: str) -> None:
        """`peer` answered at `address`."""
        if target := self._targets.get(address):
            target.peer, target.state = peer, _State.CONNECTED

    def agreed(self, peer: str) -> None:
        """The session with `peer` works: what went wrong before is forgotten."""
        for target in self._of(peer):
            target.failures = 0

    def lost(self, peer: str, now: float) -> None:
        """The session with `peer` has ended."""
        for target in self._of(peer):
            self._put_off(target, now)

    def failed(self, address: str, now: float) -> None:
        """Nobody answered, or somebody whom we don't want."""
        if target := self._targets.get(address):
            self._put_off(target, now)

    def _put_off(self, target: _Target, now: float) -> None:
        delay = min(FIRST_RETRY_S * 2.0 ** min(target.failures, MAX_DOUBLINGS), MAX_RETRY_S)
        target.failures += 1
        target.peer, target.state = "", _State.WAITING
        target.due = now + jittered(delay, self._chance)

    def _of(self, peer: str) -> list[_Target]:
        return [target for target in self._targets.values() if target.peer == peer]
