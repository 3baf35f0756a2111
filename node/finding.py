"""Finding the other nodes, and being found: mDNS, the addresses that members sign, this machine's own as they change.

All of it gives hints to node/network.py, and none of it is needed by a node whose peers are in its settings. When the
machine's addresses change, or it wakes up, dead connections are ended, the new addresses are announced and signed, and
everybody who might be near is tried at once.

Tests: tests/node/test_finding.py, and with real networks tests/e2e/test_mesh.py.
"""

import asyncio
import contextlib
import ipaddress
import logging
import sqlite3
from collections.abc import Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

from crdt.op import Op
from node import addresses, clock, interfaces
from node.config import Config
from node.errors import Problem
from node.identity import Identity
from node.interfaces import Addresses
from node.network import Network
from node.peers import warning
from node.store import Store
from sync.messages import PROTO_MAX
from sync.overlap import RESERVED

if TYPE_CHECKING:
    from sync.discovery import Discovery

SEEK_S: Final = 20.0
"""How often a node that has few connections looks whom it might reach."""
SOON_S: Final = (1.0, 2.0, 2.0, 4.0, 8.0)
"""After the start and after a change: others may be changing too, and miss what is announced only once."""
SEEK_MEMBERS: Final = 4
"""Members whose signed addresses are tried at once, drawn anew each time."""
ENOUGH: Final = 8
"""Connections with which a node looks for no more by signed addresses."""

log = logging.getLogger(__name__)


class Finding:
    """Finds peers for `network`, until `stop`."""

    def __init__(self, me: Identity, config: Config, store: Store, network: Network) -> None:
        self._me = me
        self._config = config
        self._store = store
        self._network = network
        self._discovery: Discovery | None = None
        self._host, self._port = "", 0
        self._everywhere = True
        self._seen: Addresses = {}
        self._written_ms = 0
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()

    def start(self, host: str, port: int) -> None:
        """Peers reach this node at `host` (maybe every address) and `port`."""
        self._host, self._port = host, port
        self._everywhere = host in ("0.0.0.0", "::")
        local = not self._everywhere and ipaddress.ip_address(host).is_loopback
        if self._config.mdns and not local:
            from sync.discovery import Announcement, Discovery  # megabytes, see there

            hub = self._config.is_hub
            told = Announcement(self._me.node_id, self._me.mesh_id.hex(), PROTO_MAX, hub, port)
            self._discovery = Discovery(told, self._network.heard)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Say goodbye."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._discovery:
            await self._discovery.stop()

    def faults(self) -> list[dict[str, str]]:
        """What of it does not work, for `status`."""
        if self._discovery is None:
            return []
        action = "other ways to find peers go on; to be without mDNS set `mdns = false`, or choose `interfaces`"
        faults = sorted(self._discovery.faults.items())
        return [warning("mdns", f"no mDNS on {name}: {why}", action) for name, why in faults]

    async def _run(self) -> None:
        self._seen = self._look()
        watching = asyncio.get_running_loop().create_task(
            interfaces.watch(self._look, clock.both_ms, self._changed, self._woke)
        )
        waits = chain(SOON_S, repeat(SEEK_S))
        try:
            while True:
                await self._round()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(next(waits)):  # wait_for may swallow a cancellation (CPython 3.11)
                        await self._again.wait()
                if self._again.is_set():
                    self._again.clear()
                    waits = chain(SOON_S, repeat(SEEK_S))
        finally:
            watching.cancel()

    async def _round(self) -> None:
        """One look around. Whatever fails in it is told, and tried again in the next."""
        try:
            if self._discovery:
                await self._discovery.interfaces(self._seen)
            await self._publish()
            await self._seek()
        except (OSError, Problem, sqlite3.Error) as error:
            log.warning("looking for peers: %s", error)

    def _look(self) -> Addresses:
        seen = interfaces.read(self._config.interfaces)
        if self._everywhere:
            return seen
        return {name: (self._host,) for name, of_one in seen.items() if self._host in of_one}

    def _changed(self, seen: Addresses) -> None:
        log.info("this machine's addresses changed: %s", ", ".join(interfaces.reachable(seen)) or "none")
        self._seen = seen
        self._network.moved(interfaces.local())
        self._again.set()

    def _woke(self) -> None:
        log.info("this machine was asleep")
        self._network.woke()
        self._again.set()

    # Our own addresses

    def reachable(self) -> tuple[str, ...]:
        """`host:port` where others may reach this node; empty when it is only to be reached from this machine."""
        if self._config.advertise:
            return self._config.advertise[: addresses.MAX_ADDRESSES]
        own = interfaces.reachable(self._seen)[: addresses.MAX_ADDRESSES]
        named = (f"[{host}]" if ":" in host else host for host in own)
        return tuple(f"{host}:{self._port}" for host in named)

    async def _publish(self) -> None:
        """Sign where we are, if that has changed. A machine without a network says nothing: it would only be news."""
        own, now_ms = self.reachable(), clock.now_ms()
        if not own or now_ms - self._written_ms < addresses.MIN_WRITE_MS:
            return

        def job(connection: sqlite3.Connection) -> list[Op]:
            earlier = self._about(connection, self._me.node_id)
            if set(addresses.told(self._me.node_id, earlier)) == set(own):
                return []
            return self._store.append(connection, [addresses.draft(self._me.node_id, own, earlier)], now_ms)

        if ops := await self._store.database.write(job):
            self._written_ms = now_ms
            self._network.wrote(ops)

    # The others'

    async def _seek(self) -> None:
        connected = self._network.connected()
        if self._discovery:
            for node, places in self._discovery.present().items():
                self._network.heard(node, places)
        if len(connected) >= ENOUGH:
            return
        for node, signed in await self._store.database.read(lambda c: self._told(c, connected)):
            self._network.heard(node, signed)

    def _told(self, connection: sqlite3.Connection, connected: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
        nodes = [node for (node,) in connection.execute("SELECT node FROM members ORDER BY random()")]
        wanted = [node for node in nodes if node not in connected and node != self._me.node_id][:SEEK_MEMBERS]
        return [(node, addresses.told(node, self._about(connection, node))) for node in wanted]

    def _about(self, connection: sqlite3.Connection, node: str) -> list[Op]:
        project = connection.execute("SELECT id FROM projects WHERE name = ?", (RESERVED,)).fetchone()
        return self._store.effective_ops(connection, node, project[0]) if project else []
