"""The node: everything put together, started in order, stopped in reverse.

    lock -> database -> store -> verbs -> local API (socket, then loopback TCP) -> peer port -> dialling

One process owns a home: the lock file holds its pid, and the kernel lets go of the lock when the process dies, however
it dies. `run` returns the exit code of `cortex-node run`. Tests: tests/node/test_app.py, tests/e2e.
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from aiohttp import web

from node import clock, config, extension, identity, invitation, mcp_install, members, startmark, tls
from node.book import Book
from node.config import Config
from node.database import Database
from node.enrol import Enrolment
from node.errors import EXIT_OK, Problem
from node.events import Events
from node.finding import Finding
from node.guard import Guard
from node.http import Api
from node.http2 import Http2
from node.http_events import EventsApi
from node.http_import import ImportApi
from node.identity import Identity
from node.imports import Imports
from node.load import Load
from node.mcp import Mcp
from node.mcp_memory import NodeMemory
from node.mesh import Member, Role
from node.metrics import Metrics
from node.migrations import migrate
from node.network import Network
from node.paths import MAX_SOCKET_PATH_BYTES, Home
from node.recall import Recall
from node.replica import Replica
from node.requests import Limits
from node.status import Status, own_addresses
from node.store import Store
from node.vectors import Vectors, open_encoder
from node.voting import founding
from node.voting.voting import Voting
from sync.overlap import RESERVED, narrowed

PORT_STEP, PORT_TRIES = 10, 10
"""Several nodes on one machine need no configuration: 7400, 7410, 7420 and so on; the API next to each."""

log = logging.getLogger("cortex-node")


def found(home: Path, name: str, hub: bool = True) -> dict[str, Any]:
    """Found a mesh in `home`: keys, CA, database with the ledger, node.toml. Raises Problem when something is there.

    `hub`: this node commits votes, with its own disk as the quorum. Otherwise nobody does until a takeover.
    """
    place, engine = Home(home), "solo" if hub else "none"
    me, owner, ledger = founding.found(place, name, engine, clock.now_ms())
    written = config.write_template(place, name=name, **({"quorum.engine": engine} if hub else {}))
    return {
        "node": me.node_id,
        "name": name,
        "mesh": me.mesh_id.hex(),
        "home": str(home),
        "owner": owner.hex(),
        "ledger": ledger.hex(),
        "engine": engine,
        "config_written": written,
    }


def run(home: Path, flags: Mapping[str, Any]) -> int:
    """Run the node in `home` until SIGINT or SIGTERM; its exit code. Raises Problem when it can't start."""
    place = Home(home)
    settings = config.load(place, os.environ, flags)
    me = identity.load(place)
    tls.examine(me)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for chatty in ("aiohttp.access", "mcp"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with locked(place):
        runner = asyncio.Runner(loop_factory=_loop_factory())
        with runner:
            runner.run(_serve(me, settings))
    return EXIT_OK


class Node:
    """One running node."""

    def __init__(self, me: Identity, settings: Config) -> None:
        self.me = me
        self.settings = settings
        self.metrics = Metrics()
        extension.register()
        self.database = Database(me.home.database, settings.store_max_mb << 20)
        self.store = Store(self.database, me.mesh_id, me.secret_key, lambda op: members.introduction(me.ca, op))
        limits = Limits(**settings.limits)
        self.book = Book(self.database)
        self.load = Load(settings, self.store, self.metrics, clock.now_ms)
        self.replica = Replica(self.store, limits, clock.now_ms, self.load.cache)
        self.network = Network(me, settings, self.store, self.book, self.metrics, clock.now_ms)
        self.replica.wrote = self.network.wrote
        self.events = Events(secrets.token_hex(4))
        self.network.on_ops, self.network.on_round = self.events.wrote, self.events.round_ended
        self.load.on_step = self.events.degraded
        self.voting = Voting(
            me, settings, self.store, self.book, self.load, self.metrics, self.events,
            carries=narrowed(settings.projects, tls.examine(me).projects),
            links=self.network.connected, dialled=self.network.dialled, wrote=self.network.wrote,
            now_ms=clock.now_ms, now=clock.monotonic,
        )  # fmt: skip
        self.network.more_routes = self.voting.peer_routes()
        wanted = settings.embedding
        self.vectors = Vectors(self.database, None if wanted == "none" else lambda: open_encoder(wanted))
        self.store.on_change = self._changed
        self.vectors.on_keep = self.store.changes
        self.vectors.on_change = self.store.searches_changed
        self.vectors.paused = self.network.auditor.paused = self.load.background_waits
        self.recall = Recall(
            self.store, limits, clock.now_ms, self.network.freshness, self.vectors.meaning, self.load.cache
        )
        self.replica.decorate = self.recall.decorate = self.voting.scores.decorate
        self.recall.trust = self.voting.scores.trust
        self.finding = Finding(me, settings, self.store, self.network)
        self.reporter = Status(
            me, settings, self.store, self.vectors, self.network, self.finding, self.voting, self.metrics
        )
        memory = NodeMemory(
            self.replica, self.recall, self.status, self.load.admission, self.voting.votes,
            self.voting.verification.run,
        )  # fmt: skip
        self.mcp = Mcp(me.home, memory, self.metrics, hub=settings.profile == "hub")
        self._token = identity.read_secret(me.home.token).decode().strip()
        self.api = Api(
            self.replica, self.recall, self, self.metrics, self._token, self.mcp,
            self.load.admission, self.load.pressure.refuse_bulk,
            (
                *self.voting.routes(),
                *ImportApi(Imports(self.replica), self.load.pressure.refuse_bulk).routes(),
                *EventsApi(self.events).routes(),
            ),
        )  # fmt: skip
        self.bound: dict[str, str] = {}
        """Where we listen, by the setting that says so (`api`, `listen`)."""
        self._runners: list[web.AppRunner] = []
        self._http2: Http2 | None = None
        self._ready = False

    def secured(self, address: str) -> bool:
        """Whether clients of the API speak TLS at `address`."""
        host, _ = _split(address)
        return self.settings.api_tls == "on" or (self.settings.api_tls == "auto" and not _is_loopback(host))

    async def start(self) -> None:
        """Open everything. Raises Problem; what was opened until then is closed by `stop`."""
        self.database.start(self._prepare)
        await self._introduce()
        await self._listen_on_socket()
        await self._listen_on_tcp()
        self._listen_on_http2()
        await self._listen_to_peers()
        await self.network.start()
        self.finding.start(*_split(self.bound["listen"]))
        self.vectors.start()
        self.load.start()
        await self.voting.start()
        await self.mcp.start()  # last: a pipe takes it for the sign that the node is up
        self._ready = True

    async def stop(self) -> None:
        """Stop in reverse; every accepted write is finished."""
        self._ready = False
        await self.mcp.stop()
        if self._http2 is not None:
            await self._http2.stop()
        self.events.close()
        await self.voting.stop()
        await self.finding.stop()
        await self.network.stop()
        await self.vectors.stop()
        await self.load.stop()
        for runner in reversed(self._runners):
            await runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            self.me.home.socket.unlink()
        if self.database.started:
            try:
                await self.database.write(self.store.stop)
            except Problem as problem:  # the next start skips some seqs, as after a crash, and nothing is lost
                log.warning("stopped without a last note: %s", problem.detail)
        self.database.close()

    # What the API asks of the node

    async def status(self) -> dict[str, Any]:
        described = await self.reporter.describe()
        described["resources"] |= self.load.describe()
        return described

    def ready(self) -> bool:
        return self._ready

    async def peers(self) -> dict[str, Any]:
        return {"at": clock.rfc3339(clock.now_ms()), "peers": await self.network.status()}

    async def add_peer(self, address: str) -> dict[str, Any]:
        return await self.network.add(address)

    async def remove_peer(self, address: str) -> dict[str, Any]:
        return await self.network.remove(address)

    async def sync_now(self, peer: str | None) -> dict[str, Any]:
        return await self.network.sync_now(peer)

    async def invite(self, role: str, projects: Sequence[str], ttl_s: int) -> dict[str, Any]:
        if role not in set(Role):
            raise Problem(422, "invalid_role", f"there is no role {role!r}", f"choose {', '.join(Role)}", "role")
        addresses = self.advertised()
        invited = await invitation.invite(
            self.book, self.me, addresses,
            role=Role(role), projects=projects, ttl_ms=ttl_s * 1000, now_ms=clock.now_ms(),
        )  # fmt: skip
        return {
            "code": invitation.encode(invited),
            "addresses": list(addresses),
            "ca_fingerprint": self.me.mesh_id.hex(),
            "role": role,
            "projects": list(projects),
            "expires_at": clock.rfc3339(invited.expires_ms),
        }

    async def refresh_metrics(self) -> None:
        await self.reporter.refresh_metrics()
        self.load.refresh_metrics()

    def _changed(self, projects: set[str]) -> None:
        self.vectors.wake()
        self.voting.changed()

    # Starting

    def _prepare(self, connection: sqlite3.Connection) -> None:
        migrate(connection, clock.now_ms())
        self.store.load(connection)
        anew = self.store.show_anew(connection, clock.now_ms())
        if anew and connection.execute("SELECT 1 FROM facts").fetchone():  # a new home has nothing that was shown
            log.info("all that is stored was made ready for this version")
        if startmark.check(connection, self.store, self.me.home.start_mark, clock.now_ms()):
            log.warning("this database is not the one that ran here last: going on in a new epoch; nothing is lost")

    async def _introduce(self) -> None:
        """Write our own member record, unless the present certificate is recorded already."""

        def job(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT certificate FROM members WHERE node = ?", (self.me.node_id,)).fetchone()
            if row != (self.me.certificate,):
                project = connection.execute("SELECT id FROM projects WHERE name = ?", (RESERVED,)).fetchone()
                earlier = self.store.effective_ops(connection, self.me.node_id, project[0]) if project else []
                self.store.append(connection, [members.draft(self.me, earlier)], clock.now_ms())

        await self.database.write(job)

    async def _listen_on_socket(self) -> None:
        path = self.me.home.socket
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise Problem(
                400, "home_path_too_long",
                f"{path} is longer than a unix socket's path may be ({MAX_SOCKET_PATH_BYTES} bytes)",
                "move the home to a shorter path, and give that with --home",
            )  # fmt: skip
        path.unlink(missing_ok=True)  # the lock says that nobody listens on it
        runner = await self._runner(self.api.application("socket"), handler_cancellation=True)
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, path).start()
        finally:
            os.umask(before)

    async def _listen_on_tcp(self) -> None:
        app = self.api.application("tcp", _names(_split(self.settings.api)[0]))
        context = tls.api_context(self.me) if self.secured(self.settings.api) else None
        runner = await self._runner(app, handler_cancellation=True)

        async def bind(host: str, port: int) -> int:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
            return int(runner.addresses[-1][1])

        await self._listen(bind, "api")

    def _listen_on_http2(self) -> None:
        address = self.settings.http2
        if not address or self.settings.profile != "hub":
            return
        host, port = _split(address)
        self._http2 = Http2(self.mcp.application, Guard(self._token, _names(host)))
        files = (str(self.me.home.certificate), str(self.me.home.key))
        try:
            self._http2.start(host, port, files if self.secured(address) else None)
        except OSError as error:
            raise self._cannot_listen(address, "http2", error) from None
        self.bound["http2"] = f"{address.rpartition(':')[0]}:{self._http2.port}"

    async def _listen_to_peers(self) -> None:
        enrolment = Enrolment(self.me, self.book, self.advertised, self._admitted, clock.now_ms)
        runner = await self._runner(self.network.application(enrolment), lingering_time=1.0, keepalive_timeout=2.0)
        await self._listen(self.network.behind(runner, tls.server_context(self.me)).listen, "listen")

    async def _runner(self, app: web.Application, **more: Any) -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, **more)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _listen(self, bind: Callable[[str, int], Awaitable[int]], key: str) -> None:
        """Listen where the setting `key` says. A default port that is taken gives way to the next free one."""
        address = getattr(self.settings, key)
        host, port = _split(address)
        ports = range(port, port + PORT_STEP * PORT_TRIES, PORT_STEP) if address == config.DEFAULTS[key] else [port]
        for candidate in ports:
            try:
                bound = await bind(host, candidate)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or candidate == ports[-1]:
                    raise self._cannot_listen(address, key, error) from None
            else:
                self.bound[key] = f"{address.rpartition(':')[0]}:{bound}"
                return

    def _cannot_listen(self, address: str, key: str, error: OSError) -> Problem:
        return Problem(
            409, "port_taken", f"cannot listen on {address}: {error.strerror or error}",
            f"stop what uses it, or choose another: set `{key}` in {self.me.home.config}", key,
        )  # fmt: skip

    async def _admitted(self, member: Member, certificate: bytes) -> None:
        """A newcomer has its certificate; it introduces itself to the mesh with its own first op."""
        log.info("enrolled %s (%s) as %s", member.name, member.node_id, member.role)

    def advertised(self) -> tuple[str, ...]:
        """Where this node can be reached, the likeliest address first."""
        if self.settings.advertise:
            return self.settings.advertise[: invitation.MAX_ADDRESSES]
        host, port = _split(self.bound["listen"])
        hosts = own_addresses() if host in ("0.0.0.0", "::") else [host]
        return tuple(f"[{h}]:{port}" if ":" in h else f"{h}:{port}" for h in hosts)[: invitation.MAX_ADDRESSES]


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Own `home` while inside. Raises Problem `already_running` with the pid of the process that does."""
    with home.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(
                409, "already_running", f"a node runs on {home.path} already (pid {_pid(file)})",
                "use that one, or stop it first; another node needs a --home of its own",
            ) from None  # fmt: skip
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _pid(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "unknown"


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _names(host: str) -> frozenset[str]:
    """What a request to the API may call this server in its Host: no name that a stranger could point here."""
    beyond = [host]
    if host in ("0.0.0.0", "::"):
        beyond = [*own_addresses(), os.uname().nodename.lower()]
    return frozenset({"127.0.0.1", "localhost", "[::1]", *(f"[{name}]" if ":" in name else name for name in beyond)})


def _loop_factory() -> Any:
    """uvloop where it is installed: half the cost of a request."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(me: Identity, settings: Config) -> None:
    node = Node(me, settings)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await node.start()
        sys.stdout.write(greeting(node) + "\n")
        sys.stdout.flush()
        await stopped.wait()
        log.info("stopping")
    finally:
        await node.stop()


def greeting(node: Node) -> str:
    """The five lines that end the start-up."""
    settings, me = node.settings, node.me
    scheme = "https" if node.secured(settings.api) else "http"
    return "\n".join(
        (
            f"node       {settings.name} ({me.node_id}), mesh {me.mesh_id.hex()[:16]}",
            f"data       {me.home.path}",
            f"REST API   {scheme}://{node.bound['api']}/v1/  (bearer token in {me.home.token})",
            f"peers      {', '.join(node.advertised())}",
            f"MCP client {json.dumps(mcp_install.entry(me.home, os.environ))}",
        )
    )
