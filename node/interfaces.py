"""This machine's addresses, and when they change: another network, a cable pulled, a laptop that wakes up.

Addresses are polled, which costs a few hundred microseconds every POLL_S and works everywhere. A change counts once two
polls have seen the same, so an interface that flaps, or is still being configured, causes no storm. While a machine
sleeps its monotonic clock stands still and the wall clock does not: a difference says that it was away.

Tests: tests/node/test_interfaces.py.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

POLL_S: Final = 2.0
SLEPT_MS: Final = 10_000
"""The clocks part by more than this only in a sleep, or when somebody sets the clock: then a look does no harm."""
INWARD: Final = ("lo", "veth", "docker", "br-", "virbr", "cni", "podman", "flannel", "cali")
"""Interfaces that lead into this machine, by the beginning of their names: containers and virtual machines."""

Addresses = Mapping[str, tuple[str, ...]]
"""Interface to its addresses, IPv4 first."""


def read(chosen: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """The addresses of each interface that is up; of the `chosen` ones, or of all that lead to other machines."""
    chosen = tuple(chosen)
    states = psutil.net_if_stats()
    found = {}
    for name, entries in sorted(psutil.net_if_addrs().items()):
        if (name not in chosen if chosen else name.startswith(INWARD)) or not (name in states and states[name].isup):
            continue
        addresses = [entry for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)]
        addresses.sort(key=lambda entry: (entry.family != socket.AF_INET, entry.address))
        if addresses:
            found[name] = tuple(entry.address.partition("%")[0] for entry in addresses)
    return found


def local() -> frozenset[str]:
    """Every address that this machine can be reached at now, on whatever interface that is up."""
    states = psutil.net_if_stats()
    up = (entries for name, entries in psutil.net_if_addrs().items() if name in states and states[name].isup)
    every = (entry for entries in up for entry in entries)
    return frozenset(entry.address.partition("%")[0] for entry in every)


def reachable(addresses: Addresses) -> list[str]:
    """Those that another machine might reach from elsewhere, IPv4 first: no loopback, nothing link-local."""
    every = [address for of_one in addresses.values() for address in of_one]
    kept = [address for address in every if not address.startswith(("127.", "169.254.", "fe80:")) and address != "::1"]
    return sorted(dict.fromkeys(kept), key=lambda address: ":" in address)


@dataclass(slots=True)
class Changes:
    """Tells real changes from flapping. Feed it what each poll saw; it does not look at any clock itself."""

    settled: Addresses = field(default_factory=dict)
    _candidate: Addresses | None = None
    _apart_ms: int | None = None

    def changed(self, seen: Addresses) -> bool:
        """Whether the addresses are others than before, and two polls in a row agree on them."""
        if seen == self.settled:
            self._candidate = None
            return False
        if seen != self._candidate:
            self._candidate = seen
            return False
        self.settled, self._candidate = seen, None
        return True

    def slept(self, wall_ms: int, monotonic_ms: int) -> bool:
        """Whether the machine was asleep since the last call."""
        before, self._apart_ms = self._apart_ms, wall_ms - monotonic_ms
        return before is not None and abs(self._apart_ms - before) > SLEPT_MS


async def watch(
    look: Callable[[], Addresses],
    clocks: Callable[[], tuple[int, int]],
    changed: Callable[[Addresses], Any],
    woke: Callable[[], Any],
    poll_s: float = POLL_S,
) -> None:
    """For ever: `changed` when addresses have changed, `woke` after a sleep. `clocks`: wall and monotonic, in ms."""
    changes = Changes(look())
    while True:
        await asyncio.sleep(poll_s)
        if changes.slept(*clocks()):
            woke()
        seen = look()
        if changes.changed(seen):
            changed(seen)
