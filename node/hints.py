"""Where peers may be, as heard: by mDNS, or from a member's own signed word. Tried a few times, then dropped.

An address that the user gave is tried for ever (sync/dialling.py); one that somebody announced is tried TRIES times and
forgotten until it is heard of again, so that made-up addresses cost a few packets. A node that is connected is not
looked for. Tests: tests/node/test_hints.py.
"""

from collections.abc import Callable, Container, Iterable
from typing import Final

TRIES: Final = 4
"""With the back-off of dialling, 1 to 8 s apart: a node that is just starting is reached by the third."""
MAX_HINTS: Final = 64
"""Addresses tried at once. More wait until they are heard of again."""


class Hints:
    """The addresses that are tried because somebody announced them. `dial` and `drop` are the driver's."""

    def __init__(self, dial: Callable[[str], None], drop: Callable[[str], None]) -> None:
        self._dial = dial
        self._drop = drop
        self._failures: dict[str, int] = {}

    def heard(self, node: str, addresses: Iterable[str], connected: Container[str], known: Container[str]) -> None:
        """`node` may be at `addresses`. `known`: addresses that are dialled anyway."""
        if node in connected:
            return
        for address in addresses:
            if address in known:
                self._dial(address)
            elif address in self._failures or len(self._failures) < MAX_HINTS:
                self._failures[address] = 0
                self._dial(address)

    def failed(self, address: str) -> bool:
        """Nobody answered there; whether it was a hint that is now dropped."""
        if address not in self._failures:
            return False
        self._failures[address] += 1
        if self._failures[address] < TRIES:
            return False
        del self._failures[address]
        self._drop(address)
        return True

    def reached(self, address: str) -> None:
        """A peer answered there: from now on it is a last-good address."""
        self._failures.pop(address, None)

    def __contains__(self, address: str) -> bool:
        return address in self._failures
