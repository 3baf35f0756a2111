"""This node among its peers: the driver with what it needs of the node, who was met where, how sync goes.

Peers come from `node.toml`, from `peers add`, and from where they were last reached. What goes wrong with a peer is
told in words (`Peer.trouble`), counted, and never stops anything else. Tests: tests/node/test_network.py, tests/e2e.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from crdt.op import Op
from node import tls
from node.book import Book
from node.carrier import Carrier
from node.clock import rfc3339
from node.config import Config
from node.enrol import Enrolment
from node.errors import Problem
from node.identity import Identity
from node.invitation import parse_address
from node.mesh import BadCertificate
from node.metrics import Metrics
from node.store import Store, UnknownAuthor
from sync.driver import Driver, Link, Remote, Surroundings
from sync.errors import ProtocolError, Reason, SyncError
from sync.gossip import Core
from sync.overlap import narrowed
from sync.ready import ClockSeen, Notice, Outcome, PeerOpened, RootsDiffer, RoundEnded

SYNC_TIMEOUT_S = 60.0
"""How long `sync` waits for a round. The round goes on when nobody waits for it any more."""
CLOCK_WARN_MS = 60_000
"""A peer whose clock differs by more than a minute is told of."""
NO_CERTIFICATE = "certificate"
"""How the metric names connections of nobody that we know: there is no peer to tell of in `status`."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Peer:
    """What this node knows of one peer. `trouble`: what went wrong last, None once a round has ended well."""

    node: str
    name: str = ""
    address: str | None = None
    last_contact_ms: int | None = None
    synced_ms: int | None = None
    trouble: str | None = None
    detail: str | None = None
    ahead_ms: int = 0
    stuck: bool = False
    bytes_in: int = 0
    bytes_out: int = 0


class Network:
    """Everything that concerns peers."""

    def __init__(
        self, me: Identity, config: Config, store: Store, book: Book, metrics: Metrics, now_ms: Callable[[], int]
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self.unreachable: dict[str, str] = {}
        self._me = me
        self._config = config
        self._store = store
        self._book = book
        self._metrics = metrics
        self._now_ms = now_ms
        self._ended: dict[str, list[asyncio.Future[RoundEnded]]] = {}
        self._notes: set[asyncio.Task[None]] = set()
        carrier = Carrier(store, narrowed(config.projects, tls.examine(me).projects), now_ms)
        core = Core(
            me.node_id, config.name, me.mesh_id, carrier, random.SystemRandom(), interval_s=config.gossip_interval_s
        )
        client_tls = tls.client_context(me)
        self._driver = Driver(
            core,
            Surroundings(
                me=me.node_id,
                mesh=me.mesh_id,
                client_tls=lambda: client_tls,
                identify=self._identify,
                commit=self._commit,
                notify=self._notify,
                ended=self._link_ended,
                unreachable=self._not_reached,
            ),
        )

    # Life

    def application(self, enrolment: Enrolment) -> web.Application:
        """What is served on the peer port."""
        app = web.Application(client_max_size=0)
        app.add_routes([*self._driver.routes(), *enrolment.routes()])
        return app

    def start(self) -> None:
        """Dial every known address."""
        self._driver.start()
        for known in self._book.addresses():
            if known.node:
                self.peers[known.node] = Peer(known.node, address=known.address, last_contact_ms=known.last_contact)
        for address in {*self._config.peers, *(known.address for known in self._book.addresses())}:
            self._driver.want(address)

    async def stop(self) -> None:
        """End every session."""
        await self._driver.stop()

    # What users ask

    async def add(self, address: str) -> dict[str, Any]:
        """Remember and dial an address."""
        parse_address(address)
        await self._book.add(address)
        self._driver.want(address)
        return {"address": address}

    async def remove(self, address: str) -> dict[str, Any]:
        """Forget an address. A session that stands goes on until it ends."""
        if not await self._book.remove(address) and address not in self._config.peers:
            raise Problem(404, "unknown_peer", f"there is no peer at {address!r}", "list them with: cortex-node peers")
        self._driver.unwant(address)
        self.unreachable.pop(address, None)
        return {"address": address, "removed": True}

    def wrote(self, ops: Sequence[Op]) -> None:
        """Our own ops are on disk: tell the peers."""
        self._metrics.ops.add(len(ops), "local")
        if ops:
            self._driver.wrote(ops)

    async def sync_now(self, wanted: str | None) -> dict[str, Any]:
        """One round with a peer, or with each that is connected, and what it moved."""
        links = [link for link in self._driver.links.values() if wanted is None or self._is(link, wanted)]
        if wanted is not None and not links:
            raise Problem(
                503,
                "peer_offline",
                f"no connected peer is called {wanted!r}",
                "see: cortex-node peers; it syncs when it returns",
            )
        return {"rounds": list(await asyncio.gather(*(self._round(link) for link in links)))}

    def status(self) -> list[dict[str, Any]]:
        """Each known peer, as `status` shows it."""
        return [self._peer_status(peer) for _, peer in sorted(self.peers.items())]

    def warnings(self) -> list[dict[str, str]]:
        """What somebody should look at."""
        found = []
        for address, why in sorted(self.unreachable.items()):
            found.append(
                _warning(
                    "unreachable",
                    f"nobody was reached at {address}: {why}",
                    "see that the node there runs and that its port is open; it is tried again by itself",
                )
            )
        for peer in self.peers.values():
            label = peer.name or peer.node
            if abs(peer.ahead_ms) > CLOCK_WARN_MS:
                way = "ahead of" if peer.ahead_ms > 0 else "behind"
                found.append(
                    _warning(
                        "clock",
                        f"the clock of {label} is {abs(peer.ahead_ms) // 1000} s {way} ours",
                        "set the wrong one: timedatectl set-ntp true",
                    )
                )
            if peer.stuck:
                found.append(
                    _warning(
                        "stuck",
                        f"this node and {label} differ, and neither can give the other what it lacks",
                        "run: cortex-node doctor on both",
                    )
                )
            if peer.trouble not in (None, "offline"):
                found.append(
                    _warning(str(peer.trouble), f"{label}: {peer.detail}", "see its log; what was stored is safe")
                )
        return found

    def freshness(self) -> dict[str, Any]:
        """The last complete round with any peer."""
        synced = max((peer.synced_ms for peer in self.peers.values() if peer.synced_ms), default=None)
        return {"synced_at": rfc3339(synced) if synced else None, "behind_ops": 0}

    # What the driver tells

    async def _commit(self, ops: Sequence[Op]) -> int:
        try:
            merged = await self._store.database.write(lambda c: self._store.merge(c, ops, self._now_ms()))
        except UnknownAuthor as error:
            raise ProtocolError(Reason.BAD_OP, str(error)) from None
        self._metrics.ops.add(len(merged.new), "peer")
        return len(merged.new)

    def _notify(self, notice: Notice) -> None:
        peer = self.peers.setdefault(notice.peer, Peer(notice.peer))
        match notice:
            case PeerOpened():
                self._met(peer, notice)
            case RoundEnded():
                self._round_ended(peer, notice)
            case RootsDiffer():
                log.warning(
                    "%s and this node differ in project %r although their vectors are equal",
                    peer.name or peer.node,
                    notice.project,
                )
            case ClockSeen():
                peer.ahead_ms = notice.ahead_ms

    def _met(self, peer: Peer, opened: PeerOpened) -> None:
        link = self._driver.links[peer.node]
        peer.name = link.remote.name
        peer.last_contact_ms = self._now_ms()
        if link.dialler == self._me.node_id:
            peer.address = link.address
            self.unreachable.pop(link.address, None)
            self._note(self._book.met(link.address, peer.node, self._now_ms()))
        log.info("connected with %s (%s) at %s", peer.name, peer.node, link.address)

    def _round_ended(self, peer: Peer, ended: RoundEnded) -> None:
        self._metrics.rounds.add(1, ended.outcome.value)
        peer.last_contact_ms = self._now_ms()
        peer.stuck = ended.outcome is Outcome.STUCK
        if not peer.stuck:
            peer.synced_ms, peer.trouble, peer.detail = self._now_ms(), None, None
        for waiting in self._ended.pop(peer.node, []):
            if not waiting.done():
                waiting.set_result(ended)

    def _identify(self, connection: ssl.SSLObject) -> Remote | None:
        try:
            member = tls.peer_of(connection)
        except BadCertificate as error:
            log.warning("refused a connection: its certificate is %s", error)
            member = None
        if member is None:
            self._metrics.refused.add(1, NO_CERTIFICATE)
            return None
        return Remote(member.node_id, member.name, member.projects)

    def _link_ended(self, link: Link, error: SyncError | None) -> None:
        peer = self.peers.setdefault(link.remote.node, Peer(link.remote.node, link.remote.name))
        peer.bytes_in += link.bytes_in
        peer.bytes_out += link.bytes_out
        if error is None or error.reason is Reason.REPLACED:
            return
        self._metrics.refused.add(1, error.reason.value)
        peer.trouble, peer.detail = error.reason.value, error.detail
        log.warning("the session with %s (%s) ended: %s", peer.name or "?", peer.node, error)

    def _not_reached(self, address: str, why: str) -> None:
        self.unreachable[address] = why
        log.debug("nobody was reached at %s: %s", address, why)

    # Inside

    def _is(self, link: Link, wanted: str) -> bool:
        return wanted in (link.remote.node, link.remote.name, link.address)

    async def _round(self, link: Link) -> dict[str, Any]:
        before = link.bytes_in + link.bytes_out
        future: asyncio.Future[RoundEnded] = asyncio.get_running_loop().create_future()
        self._ended.setdefault(link.remote.node, []).append(future)
        self._driver.sync(link.remote.node)
        answer: dict[str, Any] = {"peer": link.remote.node, "name": link.remote.name, "sent_ops": 0, "received_ops": 0}
        try:
            ended = await asyncio.wait_for(future, SYNC_TIMEOUT_S)
        except TimeoutError:
            return answer | {"result": "under_way", "bytes": link.bytes_in + link.bytes_out - before, "reason": "busy"}
        return answer | {
            "result": ended.outcome.value,
            "sent_ops": ended.sent_ops,
            "received_ops": ended.received_ops,
            "bytes": link.bytes_in + link.bytes_out - before,
            "reason": None,
        }

    def _peer_status(self, peer: Peer) -> dict[str, Any]:
        link = self._driver.links.get(peer.node)
        refused = peer.trouble is not None
        return {
            "id": peer.node,
            "name": peer.name or None,
            "address": link.address if link else peer.address,
            "state": "connected" if link else "refused" if refused else "offline",
            "reason": peer.trouble or (None if link else "offline"),
            "detail": peer.detail,
            "last_contact": rfc3339(peer.last_contact_ms) if peer.last_contact_ms else None,
            "synced_at": rfc3339(peer.synced_ms) if peer.synced_ms else None,
            "bytes_in": peer.bytes_in + (link.bytes_in if link else 0),
            "bytes_out": peer.bytes_out + (link.bytes_out if link else 0),
        }

    def traffic(self) -> tuple[int, int]:
        """Bytes from and to all peers since the start."""
        links = list(self._driver.links.values())
        received = sum(peer.bytes_in for peer in self.peers.values()) + sum(link.bytes_in for link in links)
        sent = sum(peer.bytes_out for peer in self.peers.values()) + sum(link.bytes_out for link in links)
        return received, sent

    def _note(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)


def _warning(code: str, text: str, action: str) -> dict[str, str]:
    return {"code": code, "text": text, "action": action}
