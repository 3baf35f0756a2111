"""This node among its peers: the driver with what it needs of the node, who was met where, how sync goes.

Peers come from `node.toml`, from `peers add`, and from where they were last reached. What goes wrong with a peer is
told in words (`Peer.trouble`), counted, and never stops anything else. Tests: tests/node/test_network.py, tests/e2e.
"""

import asyncio
import logging
import random
import sqlite3
import ssl
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from crdt.op import Op
from node import lags, peers, tls
from node.audit import Auditor
from node.book import Book
from node.carrier import Carrier
from node.clock import rfc3339
from node.config import Config
from node.enrol import Enrolment
from node.errors import Problem
from node.hints import Hints
from node.identity import Identity
from node.invitation import parse_address
from node.lags import LEVEL, Backlog, Lag, Standing
from node.mesh import BadCertificate
from node.metrics import Metrics
from node.peers import Line, Peer
from node.port import CERTIFICATE, Door, TurnedAway
from node.store import Store, UnknownAuthor
from sync.driver import Driver, Link, Remote, Surroundings
from sync.errors import ProtocolError, Reason, Refused, SyncError
from sync.gossip import Core
from sync.overlap import narrowed
from sync.ready import (
    AuditFailed,
    ClockSeen,
    Commit,
    Damaged,
    Lagging,
    Notice,
    Outcome,
    PeerAgreed,
    PeerOpened,
    RootsDiffer,
    RoundEnded,
    WalkEnded,
    Withheld,
)
from sync.trickle import METERED_S

SYNC_TIMEOUT_S = 60.0
"""How long `sync` waits for a round. The round goes on when nobody waits for it any more."""
MAX_LAST_GOOD = 32
"""Addresses where peers were reached, the newest, dialled when the node starts."""
TURNED_AWAY_MS = 3_600_000
"""For an hour `status` tells of connections that were turned away."""

log = logging.getLogger(__name__)


class Network:
    """Everything that concerns peers."""

    def __init__(
        self, me: Identity, config: Config, store: Store, book: Book, metrics: Metrics, now_ms: Callable[[], int]
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self.unreachable: dict[str, str] = {}
        self.turned_away = TurnedAway(lambda why: metrics.refused.add(1, why), now_ms)
        self.door: Door | None = None
        self.on_ops: Callable[[Sequence[Op], str | None], None] = lambda ops, peer: None
        """Hears of ops that are on our disk, our own (None) or a peer's."""
        self.on_round: Callable[[Peer, RoundEnded], None] = lambda peer, ended: None
        self.more_routes: Sequence[web.RouteDef] = ()
        """What is served on the peer port besides."""
        self._named: set[str] = set(config.peers)
        """Addresses that somebody gave: tried for ever, and told of when nobody answers."""
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
            me.node_id,
            config.name,
            me.mesh_id,
            carrier,
            random.SystemRandom(),
            interval_s=max(config.gossip_interval_s, METERED_S) if config.metered else config.gossip_interval_s,
            hub=config.is_hub,
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
                proven=lambda transport: self.door.proven(transport) if self.door else None,
            ),
            config.bytes_per_second,
        )
        self.auditor = Auditor(
            store, now_ms, self._look_again, self._offsets_ms, lambda cause, ops: metrics.repairs.add(ops, cause)
        )
        """Looks after the store; the network starts and stops it, because the two call each other."""
        self._hints = Hints(self._driver.heard_of, self._driver.unwant)

    # Life

    def application(self, enrolment: Enrolment) -> web.Application:
        """What is served on the peer port."""
        app = web.Application(client_max_size=0)
        app.add_routes([*self._driver.routes(), *enrolment.routes(), *self.more_routes])
        return app

    def behind(self, runner: web.AppRunner, context: ssl.SSLContext) -> Door:
        """The door of the peer port, which `runner` serves."""
        assert runner.server, "it is set up"
        self.door = Door(runner.server, context, self.turned_away)
        return self.door

    async def start(self) -> None:
        """Dial every known address."""
        self._driver.start()
        names, standings = await self._store.database.read(_remembered)
        known = sorted(self._book.addresses(), key=lambda place: place.last_contact or 0)
        for place in known:
            if place.node:
                peer = self.peers.setdefault(place.node, Peer(place.node, names.get(place.node, "")))
                peer.address, peer.last_contact_ms = place.address, place.last_contact
        for node, standing in standings.items():
            self.peers.setdefault(node, Peer(node, names.get(node, ""))).standing = standing
        self._named |= {place.address for place in known if place.configured}
        last_good = [place.address for place in known if not place.configured][-MAX_LAST_GOOD:]
        for address in self._named:
            self._driver.want(address)
        for address in reversed(last_good):
            self._driver.heard_of(address)
        self.auditor.start()

    async def stop(self) -> None:
        """End every session, and take no more."""
        await self.auditor.stop()
        if self.door:
            await self.door.close()
        await self._driver.stop()
        await asyncio.gather(*self._notes, return_exceptions=True)
        await self._save(list(self.peers.values()))

    # What users ask

    async def add(self, address: str) -> dict[str, Any]:
        """Remember and dial an address."""
        parse_address(address)
        await self._book.add(address)
        self._named.add(address)
        self._driver.want(address)
        return {"address": address}

    async def remove(self, address: str) -> dict[str, Any]:
        """Forget an address. A session that stands goes on until it ends."""
        if not await self._book.remove(address) and address not in self._config.peers:
            raise Problem(404, "unknown_peer", f"there is no peer at {address!r}", "list them with: cortex-node peers")
        self._driver.unwant(address)
        self._named.discard(address)
        self.unreachable.pop(address, None)
        return {"address": address, "removed": True}

    def wrote(self, ops: Sequence[Op]) -> None:
        """Our own ops are on disk: tell the peers."""
        self._metrics.ops.add(len(ops), "local")
        if ops:
            self._spread(ops)
            self._driver.wrote(ops)
            self.on_ops(ops, None)

    async def sync_now(self, wanted: str | None) -> dict[str, Any]:
        """One round with a peer, or with each that is connected, and what it moved."""
        links = [link for link in self._driver.links.values() if wanted is None or self._is(link, wanted)]
        connected = {link.remote.node for link in links}
        if wanted is not None and not links:
            raise Problem(
                503,
                "peer_offline",
                f"no connected peer is called {wanted!r}",
                "see: cortex-node peers; it syncs when it returns",
            )
        rounds = list(await asyncio.gather(*(self._round(link) for link in links)))
        away = [] if wanted is not None else [peer for node, peer in self.peers.items() if node not in connected]
        return {"rounds": rounds + [_no_round(peer) for peer in away]}

    async def status(self) -> list[dict[str, Any]]:
        """Each known peer, as `status` shows it."""
        backlog = await self.backlog()
        lines, now_ms = self._lines(), self._now_ms()
        return [
            peers.describe(peer, lines.get(node), backlog, self.unreachable.get(peer.address or ""), now_ms)
            for node, peer in sorted(self.peers.items(), key=lambda known: (known[1].label, known[0]))
        ]

    async def backlog(self) -> Backlog:
        """What is on disk here and not in effect."""
        ahead_ms = self._store.clock.ahead_ms
        return await self._store.database.read(lambda connection: lags.backlog(connection, ahead_ms))

    def name(self, node: str) -> str | None:
        """What a node is called, as far as it was met."""
        return self.peers[node].name or None if node in self.peers else None

    def _look_again(self) -> None:
        """The store has changed by itself: see who differs now."""
        for node in list(self._driver.links):
            self._driver.sync(node)

    def _offsets_ms(self) -> list[int]:
        """How far the clocks of connected peers are ahead of ours."""
        met = (peer for node, peer in self.peers.items() if node in self._driver.links)
        return [peer.clock_ms for peer in met if peer.clock_ms is not None]

    def clock_offset_s(self) -> float | None:
        """How far our clock is ahead of the peers' median."""
        return peers.clock_offset_s(peer for node, peer in self.peers.items() if node in self._driver.links)

    def warnings(self) -> list[dict[str, str]]:
        """What somebody should look at."""
        found = [
            peers.warning(
                "unreachable",
                f"nobody was reached at {address}: {why}",
                "see that the node there runs and that its port is open; it is tried again by itself",
            )
            for address, why in sorted(self.unreachable.items())
            if address in self._named
        ]
        recently = self._now_ms() - TURNED_AWAY_MS
        return [*found, *peers.warnings(self.peers.values(), self._lines()), *self.turned_away.warnings(recently)]

    def freshness(self) -> dict[str, Any]:
        """The last complete round with any peer."""
        synced = max((peer.synced_ms for peer in self.peers.values() if peer.synced_ms), default=None)
        behind = max((peer.standing.behind.ops for peer in self.peers.values()), default=0)
        return {"synced_at": rfc3339(synced) if synced else None, "behind_ops": behind}

    # What node/finding.py tells

    def connected(self) -> list[str]:
        """The ids of the peers with whom a connection stands."""
        return list(self._driver.links)

    def dialled(self, node: str) -> str | None:
        """Where a node was reached last by dialling it."""
        return self.peers[node].address if node in self.peers else None

    def heard(self, node: str, addresses: Sequence[str]) -> None:
        """`node` may be at `addresses`: a hint."""
        if node != self._me.node_id:
            self._hints.heard(node, addresses, self._driver.links, self._named)

    def moved(self, addresses: Collection[str]) -> None:
        """This machine's addresses are these now."""
        self._driver.moved(addresses)
        self._retry()

    def woke(self) -> None:
        """This machine was asleep: nobody knows which connections are alive."""
        self._note(self._driver.probe())
        self._retry()

    def _retry(self) -> None:
        for address in self._named:
            self._driver.want(address)
        for address in {peer.address for peer in self.peers.values() if peer.address} - self._named:
            self._driver.heard_of(address)

    # What the driver tells

    async def _commit(self, commit: Commit) -> int:
        try:
            merged = await self._store.database.write(
                lambda c: self._store.merge(c, commit.ops, self._now_ms(), commit.peer)
            )
        except UnknownAuthor as error:
            raise ProtocolError(Reason.BAD_OP, str(error)) from None
        except Problem as problem:
            raise Refused(Reason.QUOTA if problem.status == 507 else Reason.STORE, problem.detail) from None
        self._metrics.ops.add(len(merged.new), "peer")
        self.auditor.heard(merged.repaired, commit.peer)
        self._spread(merged.new)
        self.on_ops(merged.new, commit.peer)
        return len(merged.new)

    def _spread(self, ops: Sequence[Op]) -> None:
        """Ops came to be on our disk: until a round says otherwise, peers lack them."""
        for peer in self.peers.values():
            peer.standing = peer.standing.with_news(ops)

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
                peer.clock_ms = notice.ahead_ms
            case PeerAgreed():
                peer.standing = replace(peer.standing, patterns=notice.patterns)
            case Lagging():
                ahead = Lag(notice.ahead_ops, notice.ahead_ms)
                behind = Lag(notice.behind_ops, notice.behind_ms)
                peer.standing = replace(peer.standing, ahead=ahead, behind=behind)
            case Damaged():
                self._note(self.auditor.mend(notice.project, notice.level, notice.place, notice.peer))
            case AuditFailed():
                log.warning("%s has other bytes for the same ops of project %r", peer.label, notice.project)
            case Withheld():
                self._store.withheld(notice.project, notice.author)
                log.warning("%s claims ops of project %r that it does not give", peer.label, notice.project)
            case WalkEnded():
                if notice.sent_ops or notice.received_ops:
                    peer.round_ended(fruitless=False)
                log.info("walked project %r with %s: %s", notice.project, peer.label, notice)

    def _met(self, peer: Peer, opened: PeerOpened) -> None:
        link = self._driver.links[peer.node]
        peer.name = link.remote.name
        peer.last_contact_ms = self._now_ms()
        if link.dialler == self._me.node_id:
            peer.address = link.address
            self.unreachable.pop(link.address, None)
            self._hints.reached(link.address)
            self._note(self._book.met(link.address, peer.node, self._now_ms()))
        log.info("connected with %s (%s) at %s", peer.name, peer.node, link.address)

    def _round_ended(self, peer: Peer, ended: RoundEnded) -> None:
        self._metrics.rounds.add(1, ended.outcome.value)
        peer.last_contact_ms = self._now_ms()
        peer.round_ended(fruitless=ended.outcome is Outcome.STUCK)
        if not peer.fruitless:
            peer.synced_ms = self._now_ms()
            peer.agreed()
        if ended.outcome is Outcome.SAME:
            peer.standing = replace(peer.standing, ahead=LEVEL, behind=LEVEL)
        self.on_round(peer, ended)
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
            self.turned_away.add(CERTIFICATE, "an unknown address")
            return None
        return Remote(member.node_id, member.name, member.projects)

    def _link_ended(self, link: Link, error: SyncError | None) -> None:
        peer = self.peers.setdefault(link.remote.node, Peer(link.remote.node, link.remote.name))
        peer.bytes_in += link.bytes_in
        peer.bytes_out += link.bytes_out
        self._note(self._save([peer]))
        if error is None:
            if link.told and not link.told.startswith((Reason.REPLACED, Reason.FULL)):
                peer.ended_by_peer(link.told)
                log.warning("%s ended the session: %s", peer.label, peer.detail)
            return
        if error.reason in (Reason.REPLACED, Reason.FULL):
            return
        self._metrics.refused.add(1, error.reason.value)
        peer.ended(error.reason, error.detail)
        log.warning("the session with %s (%s) ended: %s", peer.name or "?", peer.node, error)

    def _not_reached(self, address: str, why: str) -> None:
        self.unreachable[address] = why
        if self._hints.failed(address):
            del self.unreachable[address]
        log.debug("nobody was reached at %s: %s", address, why)

    # Inside

    async def _save(self, changed: Sequence[Peer]) -> None:
        standings = {peer.node: peer.standing for peer in changed if peer.standing.patterns}
        if standings:
            await self._store.database.write(lambda connection: lags.save(connection, standings))

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

    def _lines(self) -> dict[str, Line]:
        links = self._driver.links.items()
        return {node: Line(link.address, link.bytes_in, link.bytes_out) for node, link in links}

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


def _no_round(peer: Peer) -> dict[str, Any]:
    told: dict[str, Any] = {"peer": peer.node, "name": peer.name, "sent_ops": 0, "received_ops": 0, "bytes": 0}
    return told | {"result": "none", "reason": peer.trouble or "offline"}


def _remembered(connection: sqlite3.Connection) -> tuple[dict[str, str], dict[str, Standing]]:
    """The names of members, and how we stood with the peers that we have met."""
    return dict(connection.execute("SELECT node, name FROM members")), lags.load(connection)
