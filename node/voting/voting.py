"""Votes and the ledger on one node, put together: who hears of what, in which order it starts and stops.

    a vote op is shown  ->  ballots  ->  the hub is woken, if this node is one
    an op of the ledger is shown  ->  inbox  ->  follower  ->  entries, scores  ->  whoever waits for a vote; events
    the hub commits  ->  entries, scores  ->  the same; and ops, for everybody else

Tests: tests/node/voting/test_voting.py, tests/e2e/test_votes.py.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web

from crdt.op import Op
from crdt.version import node_id
from ledger.ed25519 import secret_key
from node import identity
from node.book import Book
from node.breaker import Breaker
from node.config import Config
from node.errors import Problem
from node.events import Events
from node.http import Route
from node.http_ledger import LedgerApi
from node.http_votes import VotesApi
from node.identity import Identity
from node.load import Load
from node.metrics import Metrics
from node.peers import warning
from node.store import Show, Store
from node.voting import forward, reads, records
from node.voting.agents import Agents
from node.voting.anchor import Anchor
from node.voting.ballots import Ballots
from node.voting.follow import Follower, Listeners
from node.voting.forward import Answers, Forward
from node.voting.hub import Hub
from node.voting.inbox import Inbox
from node.voting.keys import KeyStore
from node.voting.machine import Machine
from node.voting.permission import Mode
from node.voting.reads import Place
from node.voting.roster import clear_profiles, show_profile
from node.voting.scores import Scores
from node.voting.verbs import Votes
from node.voting.verification import Verification

ABLE: Final = (Mode.IDLE, Mode.WORKING)
"""A hub that appends."""
EXPLAINED: Final = {
    Mode.BEHIND: "nothing, while peers sync that have what is missing; if nobody has it any more:"
    " cortex-node ledger takeover --abandon",
    Mode.FROZEN: "run: cortex-node ledger verify; then restore a backup, or take over on a node whose ledger is whole",
    Mode.NOT_GRANTED: 'set engine = "none" under [quorum] in node.toml; or, if the former hub is lost for good:'
    " cortex-node ledger takeover",
    Mode.RETRYING: "see the log; it is tried again by itself",
}
MAX_ALERTS: Final = 16


class Voting:
    """What one node has to do with votes. `links` tells the ids of connected peers; `carries` are patterns."""

    def __init__(
        self,
        me: Identity,
        settings: Config,
        store: Store,
        book: Book,
        load: Load,
        metrics: Metrics,
        events: Events,
        *,
        carries: Sequence[str],
        links: Callable[[], Sequence[str]],
        dialled: Callable[[str], str | None],
        wrote: Callable[[Sequence[Op]], None],
        now_ms: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        authority = identity.public_key_of(me.ca)
        self._me = me
        self._store = store
        self._database = store.database
        self._metrics = metrics
        self._events = events
        self._links = links
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alerts: dict[str, str] = {}
        self.place = Place(me.mesh_id, authority, me.node_key)
        self.scores = Scores(authority)
        self._ballots = Ballots(me.mesh_id)
        self._inbox = Inbox(me.mesh_id, authority)
        self._shows()
        self.verification = Verification(self._database.path, self.place, load.pressure.refuse_bulk)
        self.hub = Hub(
            me, store, self._ballots, self.scores, authority=authority, engine=settings.quorum_engine,
            carries=carries, now_ms=now_ms, now=now,
        )  # fmt: skip
        self.hub.on_entries, self.hub.on_alert, self.hub.wrote = self._entered, self._alert, wrote
        self.follower = Follower(
            store, self._inbox, self.scores, self._ballots, me.secret_key, now_ms,
            Listeners(self._entered, self._alert, wrote), self.verification.run, load.background_waits,
        )  # fmt: skip
        founder = me.home.ca_key.exists()
        machine = Machine(
            me.mesh_id, settings.name, me.secret_key, authority, self._authority_secret if founder else None
        )
        self.agents = Agents(store, KeyStore(me.home.agents), self.scores, machine, now_ms, wrote)
        self.votes = Votes(store, self.agents, self.scores, reads.proof, now_ms, wrote, self.hub_near)
        where = forward.whereabouts(self._database, store, book, dialled)
        self._forward = Forward(me, self._database, self.place, where, Breaker("hub"))
        self._anchor = Anchor(settings.anchor_tsa_url, self._database, Breaker("tsa"), now_ms)
        self._load = load
        self._now_ms = now_ms
        load.breakers += [self.hub.breaker, self._forward.breaker, self._anchor.breaker]

    # Life

    async def start(self) -> None:
        """Begin to follow, and to commit where this node is a hub. The database runs, and peers can be told."""
        self._loop = asyncio.get_running_loop()
        await self.agents.ensure_own()
        self.follower.start()
        self.hub.start()
        await self.hub.turn()  # who votes at once finds a hub that knows whether it is one

    async def stop(self) -> None:
        """Idempotent; what is pending stays so."""
        await self.hub.stop()
        await self.follower.stop()

    def changed(self) -> None:
        """Ops have come: a vote may have waited for its fact."""
        if self.hub.waiting:
            self.hub.wake()

    # What others ask

    def routes(self) -> list[Route]:
        """For the API."""
        ledger = LedgerApi(
            self._database, self.place, self._forward, self.verification, takeover=self.takeover,
            anchor=self._anchor.stamp, ready=self.able, refuse_bulk=self._load.pressure.refuse_bulk,
        )  # fmt: skip
        return [*VotesApi(self.votes, self.agents, self._load.admission).routes(), *ledger.routes()]

    def peer_routes(self) -> list[web.RouteDef]:
        """For the peer port."""
        return Answers(self._database, self.place, self.able).routes()

    def able(self) -> bool:
        """Whether this node is a hub, and appends."""
        return self.hub.mode in ABLE

    def hub_near(self) -> bool:
        """Whether a vote may be committed at once: here, or by a hub that is connected."""
        if self.able():
            return True
        granted = reads.grant(self._database.direct, self.place.authority)
        return granted is not None and not {node_id(key) for key in granted.hubs}.isdisjoint(self._links())

    async def takeover(self, ca_seed: bytes | None, abandon: bool) -> dict[str, Any]:
        """Begin an epoch of this node's. `ca_seed`: of the CA's key, None: the one in the home. Raises Problem."""
        secret = self._authority_secret() if ca_seed is None else secret_key(ca_seed)
        if self.able():
            raise Problem(
                409, "hub_already", "this node is the ledger's hub, and commits",
                "nothing is to be done; a takeover is for when the hub is lost",
            )  # fmt: skip
        return await self.hub.takeover(secret, self._now_ms(), abandon=abandon)

    async def describe(self) -> dict[str, Any]:
        """For `status`: `votes_pending`, `ledger`, and warnings."""
        pending, ledger = await self._database.read(self._described)
        followed, hub = await self._database.read(self.follower.state), self.hub.state()
        return {
            "votes_pending": pending,
            "ledger": ledger | {"hub": hub, "following": followed},
            "warnings": self._warnings(ledger, hub),
        }

    async def refresh_metrics(self) -> None:
        """Bring the gauges up to date."""
        pending, ledger = await self._database.read(self._described)
        self._metrics.votes_pending.set(pending)
        self._metrics.ledger_size.set(ledger["size"])
        self._metrics.ledger_forks.set(ledger["forks"])

    # Inside

    def _described(self, connection: sqlite3.Connection) -> tuple[int, dict[str, Any]]:
        (pending,) = connection.execute("SELECT count(*) FROM ballots WHERE entry IS NULL").fetchone()
        return pending, reads.status(connection, self.place)

    def _warnings(self, ledger: dict[str, Any], hub: dict[str, Any]) -> list[dict[str, str]]:
        found = [warning(code, text, "run: cortex-node ledger verify") for code, text in self._alerts.items()]
        if ledger["forks"] and "fork" not in self._alerts:
            text = "a hub has signed two histories; the evidence is kept, and the first one stands"
            found.append(warning("fork", text, "find out who holds that hub's key; then take over with another"))
        if (action := EXPLAINED.get(hub["mode"])) is not None:
            found.append(warning(f"ledger_{hub['mode']}", f"no vote is committed here: {hub['reason']}", action))
        return found

    def _authority_secret(self) -> bytes:
        if not self._me.founder:
            raise Problem(
                409, "no_ca_key", "a takeover needs the key of the mesh's CA, and it is not in this home",
                "name its file: --ca-key FILE; it is ca.key in the home of the machine that founded the mesh",
            )  # fmt: skip
        return secret_key(identity.load_ca_seed(self._me))

    def _shows(self) -> None:
        """Who shows what; what a hub works on wakes it. On the writer's thread."""

        def waking(show: Show, words: tuple[str, ...]) -> Show:
            def shown(connection: sqlite3.Connection, project: int, subject: str, ops: Sequence[Op]) -> None:
                show(connection, project, subject, ops)
                if subject.startswith(words) and self._loop is not None and not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(self.hub.wake)

            return shown

        self._store.shows = {
            records.VOTES: waking(self._ballots.show, (records.VOTES,)),
            records.LEDGER: waking(self._inbox.show, (f"{records.LEDGER}/{records.STATEMENT}",)),
            records.AGENTS: show_profile,
        }
        self._store.clears = [self._ballots.clear, self._inbox.clear, clear_profiles]
        self._store.rebuilds = [self.scores.refold]

    def _entered(self, places: Sequence[tuple[bytes, int]]) -> None:
        """Texts have their entries, durably: here, or by a hub elsewhere."""
        self.votes.told(places)
        facts = partial(_facts_of, self._database.direct)
        self._events.committed((index, facts(index)) for _, index in places)
        self.hub.wake()  # it may have been behind

    def _alert(self, code: str, text: str) -> None:
        if len(self._alerts) < MAX_ALERTS:
            self._alerts[code] = text
        self._metrics.alerts.add(1, code)
        self._events.alert(code, text)


def _facts_of(connection: sqlite3.Connection, index: int) -> str | None:
    row = connection.execute("SELECT fact FROM ledger_entries WHERE id = ?", (index,)).fetchone()
    return row[0] if row else None
