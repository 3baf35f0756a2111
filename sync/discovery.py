"""Finding peers on the local network by mDNS: announces this node and browses for others. The only zeroconf here.

What it finds is a hint where a node may be, and nothing more: anybody on the network can announce anything. The TXT
record's `mesh` only spares us the nodes of other meshes; who answers at an address is what its certificate says.

Each interface has an instance of its own, so what fails on one (no multicast, a driver that hangs, an address that has
just gone) harms no other, and what is heard on one is answered there. `interfaces` is called whenever the machine's
addresses have changed (node/interfaces.py watches): an instance whose interface changed is made anew, which announces
the new addresses, and asks again who is there. A node that crashes says no goodbye and stays listed for up to 75
minutes: liveness is the sessions' affair.

zeroconf costs 4 to 15 MB: node imports this module only when `mdns` is on.
RFC 6762, RFC 6763. Tests: tests/sync/test_discovery.py, and with real multicast tests/e2e/test_mesh.py.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

TYPE: Final = "_cortex-node._tcp.local."
RESOLVE_MS: Final = 3_000
RESOLVE_TRIES: Final = 3
"""A responder that is being made anew misses a question or two, and its name is not announced as new again."""
MAX_RESOLVING: Final = 64
"""Names that are looked up at once, on one interface. What is beyond is heard of again when it is announced again."""
MAX_FOUND: Final = 1_000
"""Nodes remembered on one interface: a neighbour that makes up names takes no more room than this."""
MAX_ADDRESSES: Final = 8
"""Of one node."""
MESH_CHARS: Final = 16
"""Of the mesh id in hex, in the TXT record."""

log = logging.getLogger(__name__)

Found = Callable[[str, Sequence[str]], None]
"""A node id, and `host:port` where it may be, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is told of this node. `mesh`: its id in hex; `port`: where peers connect."""

    node: str
    mesh: str
    proto: int
    hub: bool
    port: int

    @property
    def properties(self) -> dict[str, str]:
        """The TXT record."""
        return {
            "id": self.node,
            "mesh": self.mesh[:MESH_CHARS],
            "proto": str(self.proto),
            "hub": "1" if self.hub else "0",
        }


@dataclass(slots=True)
class _Listening:
    """mDNS on one interface with these addresses."""

    addresses: tuple[str, ...]
    zeroconf: AsyncZeroconf
    browser: AsyncServiceBrowser | None = None
    present: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Service name to the node that it announces, and where that may be."""
    resolving: set[asyncio.Task[None]] = field(default_factory=set)


class Discovery:
    """Announces one node, and tells `found` of others of its mesh."""

    def __init__(self, announcement: Announcement, found: Found) -> None:
        self.faults: dict[str, str] = {}
        """Interface to why there is no mDNS on it now."""
        self._announcement = announcement
        self._found = found
        self._listening: dict[str, _Listening] = {}

    async def interfaces(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Be heard on these interfaces, by name, each with its addresses, and on no others."""
        for name, listening in list(self._listening.items()):
            if listening.addresses != tuple(addresses.get(name, ())):
                await self._close(name)
        self.faults = {name: why for name, why in self.faults.items() if name in addresses}
        for name, own in addresses.items():
            if own and name not in self._listening:
                await self._open(name, tuple(own))

    def present(self) -> dict[str, list[str]]:
        """Every node that is announced now, and where it may be."""
        found: dict[str, list[str]] = {}
        for listening in self._listening.values():
            for node, addresses in listening.present.values():
                found.setdefault(node, []).extend(address for address in addresses if address not in found[node])
        return found

    async def stop(self) -> None:
        """Say goodbye on every interface."""
        await asyncio.gather(*(self._close(name) for name in list(self._listening)))

    async def _open(self, name: str, own: tuple[str, ...]) -> None:
        try:
            listening = _Listening(own, AsyncZeroconf(interfaces=_places(name, own), ip_version=IPVersion.All))
        except (OSError, RuntimeError, ValueError) as error:  # the address may be gone again, or multicast unknown
            self._fault(name, error)
            return
        self._listening[name] = listening
        self.faults.pop(name, None)
        try:
            await listening.zeroconf.async_register_service(self._service(name, own), cooperating_responders=True)
            listening.browser = AsyncServiceBrowser(
                listening.zeroconf.zeroconf, TYPE, handlers=[lambda *_, **change: self._changed(name, **change)]
            )
        except Exception as error:  # whatever zeroconf raises concerns this interface alone
            self._fault(name, error)
            await self._close(name)

    async def _close(self, name: str) -> None:
        listening = self._listening.pop(name)
        for task in listening.resolving:
            task.cancel()
        try:
            if listening.browser:
                await listening.browser.async_cancel()
            await listening.zeroconf.async_unregister_all_services()
            await listening.zeroconf.async_close()
        except Exception as error:  # the interface may be gone, and with it the way to say goodbye
            log.debug("mDNS on %s did not close in order: %s", name, error)

    def _fault(self, name: str, error: Exception) -> None:
        why = str(error) or type(error).__name__
        if self.faults.get(name) != why:
            log.warning("no mDNS on %s: %s; it is tried again", name, why)
        self.faults[name] = why

    def _service(self, interface: str, own: Sequence[str]) -> AsyncServiceInfo:
        """One name for each interface: two of them may lie on one network."""
        label = f"{self._announcement.node}-{interface}".replace(".", "-")
        return AsyncServiceInfo(
            TYPE,
            f"{label}.{TYPE}",
            port=self._announcement.port,
            properties=self._announcement.properties,
            server=f"{label}.local.",
            addresses=[ip_address(address.partition("%")[0]).packed for address in own],
        )

    # What others announce

    def _changed(
        self, interface: str, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        listening = self._listening.get(interface)
        if listening is None:
            return
        if state_change is ServiceStateChange.Removed:
            listening.present.pop(name, None)
            return
        if len(listening.resolving) < MAX_RESOLVING:
            task = asyncio.get_running_loop().create_task(self._resolve(interface, listening, zeroconf, name))
            listening.resolving.add(task)
            task.add_done_callback(listening.resolving.discard)

    async def _resolve(self, interface: str, listening: _Listening, zeroconf: Zeroconf, name: str) -> None:
        for _ in range(RESOLVE_TRIES):
            info = AsyncServiceInfo(TYPE, name)
            try:
                complete = await info.async_request(zeroconf, RESOLVE_MS)
            except Exception as error:  # a malformed answer is the neighbour's affair
                log.debug("mDNS: %s on %s can't be resolved: %s", name, interface, error)
                return
            if complete:
                self._heard(interface, listening, name, info)
                return

    def _heard(self, interface: str, listening: _Listening, name: str, info: AsyncServiceInfo) -> None:
        told = {key: value or "" for key, value in info.decoded_properties.items()}
        node, mesh = told.get("id", ""), told.get("mesh", "")
        ours = self._announcement.properties
        if not node or node == ours["id"] or mesh != ours["mesh"] or not info.port:
            return
        addresses = where(info.parsed_scoped_addresses(), info.port, interface)
        if not addresses or (name not in listening.present and len(listening.present) >= MAX_FOUND):
            return
        listening.present[name] = node, addresses
        self._found(node, addresses)


def where(hosts: Sequence[str], port: int, interface: str) -> tuple[str, ...]:
    """`host:port` of each host that may be dialled: IPv4 first, link-local last, and else in the given order.

    A link-local address is good on one interface only, and some responders announce it without saying on which.
    """
    ranked: list[tuple[int, str]] = []
    for host in hosts:
        address = ip_address(host.partition("%")[0])
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            continue
        if address.version == 4:
            ranked.append((0, f"{address}:{port}"))
        elif address.is_link_local:
            ranked.append((2, f"[{address}%{interface}]:{port}"))
        else:
            ranked.append((1, f"[{address}]:{port}"))
    ranked.sort(key=lambda place: place[0])
    return tuple(dict.fromkeys(place for _, place in ranked))[:MAX_ADDRESSES]


def _places(interface: str, own: Sequence[str]) -> list[str | int | tuple[tuple[str, int, int], int]]:
    """Where zeroconf shall listen: IPv4 by address, IPv6 by the number of the interface."""
    places: list[str | int | tuple[tuple[str, int, int], int]] = [address for address in own if ":" not in address]
    if any(":" in address for address in own):
        places.append(socket.if_nametoindex(interface))
    return places
