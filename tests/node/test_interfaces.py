"""Changes of addresses are told once they have settled, and sleeps are noticed."""

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from node import interfaces
from node.interfaces import SLEPT_MS, Addresses, Changes

HOME = {"eth0": ("10.0.0.5",)}
AWAY = {"wlan0": ("192.168.7.9", "fe80::1")}


def test_a_change_counts_when_two_polls_agree() -> None:
    changes = Changes(HOME)
    assert [changes.changed(seen) for seen in (HOME, AWAY, AWAY, AWAY, HOME)] == [False, False, True, False, False]
    assert changes.settled == AWAY


def test_flapping_is_no_change() -> None:
    changes = Changes(HOME)
    assert not any(changes.changed(seen) for seen in (AWAY, HOME, {}, AWAY, HOME))


def test_a_sleep_parts_the_clocks() -> None:
    changes = Changes()
    assert not changes.slept(1_000_000, 500)
    assert not changes.slept(1_002_000, 2_500)
    assert changes.slept(1_004_000 + SLEPT_MS + 1, 4_500)
    assert not changes.slept(1_006_000 + SLEPT_MS + 1, 6_500), "told once"
    assert changes.slept(900_000, 8_500), "a clock that was set back is looked at too"


async def test_the_watch_tells_of_both() -> None:
    seen: Iterator[Addresses] = iter([HOME, HOME, AWAY, AWAY])
    clocks = iter([(0, 0), (2, 2), (SLEPT_MS * 2, 4)])
    told: list[object] = []
    with pytest.raises((StopIteration, RuntimeError)):  # the story ends
        await interfaces.watch(lambda: next(seen), lambda: next(clocks), told.append, lambda: told.append("woke"), 0)
    assert told == ["woke", AWAY]


def test_what_leads_into_this_machine_or_is_down_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(address: str) -> SimpleNamespace:
        return SimpleNamespace(family=socket.AF_INET6 if ":" in address else socket.AF_INET, address=address)

    machine = {
        "lo": [entry("127.0.0.1")],
        "docker0": [entry("172.17.0.1")],
        "eth0": [entry("fe80::1%eth0"), entry("2001:db8::7"), entry("10.0.0.5")],
        "eth1": [entry("10.1.0.5")],
        "empty": [],
    }
    states = {name: SimpleNamespace(isup=name != "eth1") for name in machine}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: machine)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: states)
    assert interfaces.read() == {"eth0": ("10.0.0.5", "2001:db8::7", "fe80::1")}
    assert interfaces.read(["docker0"]) == {"docker0": ("172.17.0.1",)}
    assert interfaces.reachable(interfaces.read()) == ["10.0.0.5", "2001:db8::7"]
    assert interfaces.local() == {"127.0.0.1", "172.17.0.1", "10.0.0.5", "2001:db8::7", "fe80::1"}


def test_on_this_machine_it_answers() -> None:
    assert "127.0.0.1" in interfaces.local()
    assert asyncio.iscoroutinefunction(interfaces.watch)
