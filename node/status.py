"""What `cortex-node status` tells: this node, its resources, its projects and its peers, and what to do about trouble.

Nothing here changes anything. Tests: tests/node/test_status.py.
"""

import os
import socket
import sqlite3
from collections.abc import Sequence
from typing import Any

import psutil

from node import __version__, clock, repairs, tls
from node.config import Config
from node.finding import Finding
from node.identity import Identity
from node.lags import Backlog
from node.metrics import Metrics
from node.network import Network
from node.peers import warning
from node.store import Store
from node.vectors import Vectors
from node.voting.voting import Voting
from sync.overlap import RESERVED, covers, narrowed

STORE_WARN_SHARE = 0.9
"""From here on `status` says that the store is nearly full."""


class Status:
    """Describes one node."""

    def __init__(
        self,
        me: Identity,
        settings: Config,
        store: Store,
        vectors: Vectors,
        network: Network,
        finding: Finding,
        voting: Voting,
        metrics: Metrics,
    ) -> None:
        self._me = me
        self._settings = settings
        self._store = store
        self._vectors = vectors
        self._network = network
        self._finding = finding
        self._voting = voting
        self._metrics = metrics
        self._granted = tls.examine(me).projects
        self._process = psutil.Process()
        self._started = clock.monotonic()

    async def describe(self) -> dict[str, Any]:
        """The shape of GET /v1/status."""
        projects = await self._store.database.read(_projects)
        store_bytes, store_max = self._store_bytes(), self._settings.store_max_mb << 20
        backlog = await self._network.backlog()
        carried = narrowed(self._settings.projects, self._granted)
        warnings = [*self._network.warnings(), *self._finding.faults(), *_backlog_warnings(backlog)]
        now_ms, me = clock.now_ms(), self._me.node_id
        warnings += await self._store.database.read(lambda connection: repairs.warnings(connection, me, now_ms))
        votes = await self._voting.describe()
        warnings += votes.pop("warnings")
        warnings += [_not_carried(name) for name, *_ in projects if not _carries(carried, name)]
        if store_bytes > STORE_WARN_SHARE * store_max:
            warnings.append(
                {
                    "code": "store_nearly_full",
                    "text": f"the store holds {store_bytes >> 20} of {self._settings.store_max_mb} MB",
                    "action": "raise store_max_mb in node.toml",
                }
            )
        progress = self._vectors.progress
        if progress.fault is not None:
            warnings.append(
                {
                    "code": "no_vectors",
                    "text": f"search is by text alone: {progress.fault}",
                    "action": 'mend that and start again; or set embedding = "none" in node.toml, if it shall be so',
                }
            )
        return {
            "at": clock.rfc3339(clock.now_ms()),
            "node": {
                "id": self._me.node_id,
                "name": self._settings.name,
                "version": __version__,
                "profile": self._settings.profile,
                "pid": os.getpid(),
                "uptime_s": round(clock.monotonic() - self._started),
                "mesh": self._me.mesh_id.hex(),
                "home": str(self._me.home.path),
            },
            "resources": {
                "rss_bytes": self._process.memory_info().rss,
                "store_bytes": store_bytes,
                "store_max_bytes": store_max,
            },
            "clock": {
                "offset_s": self._network.clock_offset_s(),
                "held_ops": sum(held.ops for held in backlog.held.values()),
                "culprits": [
                    {
                        "node": node,
                        "name": self._network.name(node),
                        "ops": held.ops,
                        "until": clock.rfc3339(max(0, held.until_ms)),
                    }
                    for node, held in sorted(backlog.held.items())
                ],
            },
            "projects": [
                {
                    "name": name,
                    "facts": facts,
                    "ops": ops,
                    "waiting": waiting,
                    "carried": _carries(carried, name),
                    "root": self._store.root(name).hex(),
                    "vector_digest": self._store.vector_digest(name).hex(),
                }
                for name, facts, ops, waiting in projects
            ],
            "vectors": {
                "state": str(progress.state),
                "model": progress.model,
                "done": progress.done,
                "total": progress.total,
            },
            "peers": await self._network.status(),
            **votes,
            "repairs": await self._store.database.read(repairs.recent),
            "warnings": warnings,
        }

    async def refresh_metrics(self) -> None:
        """Bring the gauges up to date."""
        (facts,) = await self._store.database.read(
            lambda connection: connection.execute("SELECT count(*) FROM facts WHERE retracted IS NULL").fetchone()
        )
        await self._voting.refresh_metrics()
        received, sent = self._network.traffic()
        self._metrics.facts.set(facts)
        self._metrics.rss.set(self._process.memory_info().rss)
        self._metrics.store.set(self._store_bytes())
        self._metrics.bytes.set(received, "in")
        self._metrics.bytes.set(sent, "out")
        self._metrics.lag_ops.values.clear()
        self._metrics.lag_seconds.values.clear()
        for peer in await self._network.status():
            lag = max((peer["behind"], peer["ahead"]), key=lambda way: (way["ops"], way["seconds"]))
            self._metrics.lag_ops.set(lag["ops"], peer["id"])
            self._metrics.lag_seconds.set(lag["seconds"], peer["id"])
        backlog = await self._network.backlog()
        self._metrics.held.set(sum(held.ops for held in backlog.held.values()))

    def _store_bytes(self) -> int:
        path = self._me.home.database
        files = (path, path.with_name(path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


def own_addresses() -> list[str]:
    """This machine's addresses that another machine might reach, IPv4 first; loopback when there is nothing else."""
    found: list[tuple[int, str]] = []
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET:
                found.append((3 if address.address.startswith("127.") else 0, address.address))
            elif address.family == socket.AF_INET6 and not address.address.startswith(("fe80", "::1")):
                found.append((1, address.address.partition("%")[0]))
    best = [address for rank, address in sorted(found) if rank < 3]
    return best or ["127.0.0.1"]


def _carries(carried: Sequence[str], name: str) -> bool:
    return name == RESERVED or any(covers(pattern, name) for pattern in carried)


def _not_carried(name: str) -> dict[str, str]:
    return warning(
        "not_carried",
        f"project {name} is here, and is not synced: this node does not carry it, or its certificate does not grant it",
        "add it to `projects` in node.toml, or join again with an invitation for it; else it stays as it is",
    )


def _backlog_warnings(backlog: Backlog) -> list[dict[str, str]]:
    if not backlog.aside:
        return []
    text = f"{backlog.aside} ops are kept aside: earlier ops of the same authors have not come yet"
    return [
        warning("ops_aside", text, "nothing, while peers are syncing; else see that a peer that has them is reached")
    ]


def _projects(connection: sqlite3.Connection) -> list[tuple[str, int, int, int]]:
    return connection.execute(
        "SELECT p.name, (SELECT count(*) FROM facts f WHERE f.project = p.id AND f.retracted IS NULL), p.ops,"
        " (SELECT count(*) FROM waiting w WHERE w.project = p.id) FROM projects p WHERE p.ops > 0 ORDER BY p.name"
    ).fetchall()
