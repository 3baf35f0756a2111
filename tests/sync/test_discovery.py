"""What is announced, what is believed of what others announce, and that a fault on one interface harms no other.

Here zeroconf is replaced by a record of what it was asked; with real multicast: tests/e2e/test_mesh.py.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from zeroconf import ServiceStateChange

from sync import discovery
from sync.discovery import MAX_FOUND, TYPE, Announcement, Discovery, where

MESH = "0123456789abcdef" * 4
ME = Announcement("me", MESH, proto=1, hub=False, port=7400)


class Air:
    """What was asked of zeroconf, by the addresses of its instance, and what it answers to a lookup."""

    def __init__(self) -> None:
        self.open: dict[tuple[object, ...], Any] = {}
        self.handlers: dict[int, Any] = {}
        self.broken: set[object] = set()
        self.answers: dict[str, Any] = {}
        self.closed: list[tuple[object, ...]] = []

    def announce(self, name: str, *hosts: str, port: int = 7400, **properties: str) -> None:
        self.answers[f"{name}.{TYPE}"] = SimpleNamespace(
            port=port, decoded_properties=properties, parsed_scoped_addresses=lambda: list(hosts)
        )


@pytest.fixture
def air(monkeypatch: pytest.MonkeyPatch) -> Iterator[Air]:
    made = Air()

    class FakeZeroconf:
        def __init__(self, interfaces: list[object], ip_version: object) -> None:
            self.key = tuple(interfaces)
            if self.key[0] in made.broken:
                raise OSError("no such device")
            self.zeroconf = self
            self.services: list[Any] = []
            made.open[self.key] = self

        async def async_register_service(self, info: Any, cooperating_responders: bool) -> None:
            self.services.append(info)

        async def async_unregister_all_services(self) -> None:
            self.services.clear()

        async def async_close(self) -> None:
            made.closed.append(self.key)
            del made.open[self.key]

    class FakeBrowser:
        def __init__(self, zeroconf: FakeZeroconf, kind: str, handlers: list[Any]) -> None:
            made.handlers[id(zeroconf)] = handlers[0]

        async def async_cancel(self) -> None:
            pass

    class Lookup(discovery.AsyncServiceInfo):
        async def async_request(self, zeroconf: Any, timeout: float, *_: Any, **__: Any) -> bool:
            return self.name in made.answers

    monkeypatch.setattr(discovery, "AsyncZeroconf", FakeZeroconf)
    monkeypatch.setattr(discovery, "AsyncServiceBrowser", FakeBrowser)
    monkeypatch.setattr(discovery, "AsyncServiceInfo", Lookup)
    yield made


async def hear(
    listening: Discovery, air: Air, interface: str, name: str, change: ServiceStateChange = ServiceStateChange.Added
) -> None:
    """zeroconf says that `name` was announced, or changed, or said goodbye."""
    heard = listening._listening[interface]
    info = air.answers.get(f"{name}.{TYPE}")
    if change is ServiceStateChange.Removed or info is None:
        listening._changed(interface, heard.zeroconf, TYPE, f"{name}.{TYPE}", change)  # type: ignore[arg-type]
    else:
        listening._heard(interface, heard, f"{name}.{TYPE}", info)


async def listen(air: Air, **interfaces: tuple[str, ...]) -> tuple[Discovery, list[tuple[str, tuple[str, ...]]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    made = Discovery(ME, lambda node, places: found.append((node, tuple(places))))
    await made.interfaces(interfaces or {"eth0": ("10.0.0.5",)})
    return made, found


async def test_it_says_who_and_where_we_are(air: Air) -> None:
    await listen(air)
    [service] = air.open["10.0.0.5",].services
    assert service.name == f"me-eth0.{TYPE}"
    assert service.port == 7400
    assert service.parsed_addresses() == ["10.0.0.5"]
    told = {key.decode(): (value or b"").decode() for key, value in service.properties.items()}
    assert told == {"id": "me", "mesh": MESH[:16], "proto": "1", "hub": "0"}


async def test_a_node_of_this_mesh_is_found(air: Air) -> None:
    listening, found = await listen(air)
    air.announce("b", "10.0.0.9", id="b", mesh=MESH[:16])
    await hear(listening, air, "eth0", "b")
    assert found == [("b", ("10.0.0.9:7400",))]
    assert listening.present() == {"b": ["10.0.0.9:7400"]}
    await hear(listening, air, "eth0", "b", ServiceStateChange.Removed)
    assert listening.present() == {}


@pytest.mark.parametrize(
    "properties",
    [
        {"id": "b", "mesh": "f" * 16},
        {"id": "me", "mesh": MESH[:16]},
        {"mesh": MESH[:16]},
        {"id": "b"},
        {},
    ],
    ids=["another mesh", "ourselves", "nobody", "no mesh", "nothing"],
)
async def test_others_are_not(air: Air, properties: dict[str, str]) -> None:
    listening, found = await listen(air)
    air.announce("b", "10.0.0.9", **properties)
    await hear(listening, air, "eth0", "b")
    assert not found and not listening.present()


async def test_a_fault_on_one_interface_harms_no_other_and_is_tried_again(air: Air) -> None:
    air.broken.add("10.1.0.5")
    interfaces = {"eth1": ("10.1.0.5",), "eth0": ("10.0.0.5",)}
    listening, _ = await listen(air, **interfaces)
    assert list(air.open) == [("10.0.0.5",)]
    assert listening.faults == {"eth1": "no such device"}
    air.broken.clear()
    await listening.interfaces(interfaces)
    assert set(air.open) == {("10.0.0.5",), ("10.1.0.5",)} and not listening.faults


async def test_an_interface_that_changed_is_announced_anew_and_others_are_left_alone(air: Air) -> None:
    listening, _ = await listen(air, eth0=("10.0.0.5",), eth1=("10.1.0.5",))
    await listening.interfaces({"eth0": ("10.0.0.6",), "eth1": ("10.1.0.5",)})
    assert set(air.open) == {("10.0.0.6",), ("10.1.0.5",)}
    assert air.closed == [("10.0.0.5",)]
    await listening.interfaces({})
    assert not air.open


async def test_goodbye_is_said_everywhere(air: Air) -> None:
    listening, _ = await listen(air, eth0=("10.0.0.5",), eth1=("10.1.0.5",))
    await listening.stop()
    assert sorted(air.closed) == [("10.0.0.5",), ("10.1.0.5",)]


async def test_made_up_names_take_bounded_room(air: Air) -> None:
    listening, found = await listen(air)
    for number in range(MAX_FOUND + 10):
        air.announce(f"n{number}", "10.0.0.9", id=f"n{number}", mesh=MESH[:16])
        await hear(listening, air, "eth0", f"n{number}")
    assert len(found) == len(listening.present()) == MAX_FOUND


def test_where_a_host_may_be_dialled() -> None:
    hosts = ["fe80::1", "2001:db8::2", "10.0.0.2", "10.0.0.1", "127.0.0.1", "::1", "224.0.0.251"]
    assert where(hosts, 7, "eth0") == ("10.0.0.2:7", "10.0.0.1:7", "[2001:db8::2]:7", "[fe80::1%eth0]:7")
    assert where(["fe80::1%3"], 7, "eth0") == ("[fe80::1%eth0]:7",)
    assert where([], 7, "eth0") == ()
