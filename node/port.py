"""The peer port's door: who may hold a connection there without a session, how long, and whom it turned away.

aiohttp waits for ever for a header. Here a connection has STRANGER_S to show a member's certificate and ask for a
session (`proven`), or to enrol; then it is cut. At most MAX_STRANGERS connections may be without a session at once;
when one more comes, the oldest makes way, so that somebody who opens them all has to go on opening them. A session has
deadlines of its own (sync/session.py).

A handshake that fails leaves no trace in asyncio's own server, so connections are accepted here: a client that speaks
no TLS, a certificate of another mesh, one that has expired. `status` says how often, and from which address last.
Tests: tests/node/test_port.py.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

STRANGER_S: Final = 15.0
"""Enrolment takes four round trips of a few kilobytes."""
HANDSHAKE_S: Final = 10.0
BACKLOG: Final = 128
ACCEPT_RETRY_S: Final = 1.0
MAX_STRANGERS: Final = 64
"""Each costs about 100 KB in OpenSSL and aiohttp."""

PLAIN: Final = "plain_text"
FOREIGN: Final = "other_mesh"
EXPIRED: Final = "expired"
HANDSHAKE: Final = "handshake"
SLOW: Final = "slow"
CROWDED: Final = "crowded"
CERTIFICATE: Final = "certificate"

SAID: Final = {
    PLAIN: "spoke no TLS",
    FOREIGN: "showed a certificate that this mesh's CA has not signed",
    EXPIRED: "showed a certificate that has expired, by this machine's clock",
    HANDSHAKE: "did not finish the TLS handshake",
    SLOW: f"asked for nothing within {STRANGER_S:.0f} s",
    CROWDED: f"had to make way, with {MAX_STRANGERS} others before it",
    CERTIFICATE: "showed no certificate of a member",
}
_ACTIONS = {
    PLAIN: "peers connect with `cortex-node join` and `peers add`; point other programs at the `api` port",
    FOREIGN: "if it is yours, have it join this mesh: `cortex-node invite`",
    EXPIRED: "check both clocks; if they are right, that machine must join again",
}
_NOT_TLS = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL"})
_EXPIRED_CODE = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class TurnedAway:
    """Connections that ended before a session: how many by why, when (ms since 1970 UTC) and from where the last."""

    count: Callable[[str], None]
    now_ms: Callable[[], int]
    times: dict[str, int] = field(default_factory=dict)
    last: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, why: str, host: str) -> None:
        """One more."""
        self.times[why] = self.times.get(why, 0) + 1
        self.last[why] = self.now_ms(), host
        self.count(why)
        log.info("turned away %s: it %s", host, SAID[why])

    def warnings(self, since_ms: int) -> list[dict[str, str]]:
        """What came since then, in words."""
        return [
            {
                "code": f"turned_away_{why}",
                "text": f"{times} {'connection' if times == 1 else 'connections'} to the peer port {SAID[why]}"
                f" (the last from {self.last[why][1]})",
                "action": _ACTIONS.get(why, "nothing needs to be done; if it goes on, see who connects to that port"),
            }
            for why, times in sorted(self.times.items())
            if self.last[why][0] >= since_ms
        ]


class Door:
    """The listening side of the peer port. `server`: makes aiohttp's protocol; `context`: of TLS, for a server."""

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        turned_away: TurnedAway,
        stranger_s: float = STRANGER_S,
    ) -> None:
        self._server = server
        self._context = context
        self._turned_away = turned_away
        self._stranger_s = stranger_s
        self._listeners: list[tuple[socket.socket, asyncio.Task[None]]] = []
        self._strangers: dict[asyncio.Task[None], asyncio.Transport | None] = {}
        self._proof: dict[asyncio.BaseTransport, asyncio.Future[None]] = {}

    async def listen(self, host: str, port: int) -> int:
        """Begin to take connections; the port, which the system chooses for 0. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")
        listener.setblocking(False)
        self._listeners.append((listener, asyncio.get_running_loop().create_task(self._accept(listener))))
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        """Take no more; sessions go on."""
        tasks = [*(task for _, task in self._listeners), *self._strangers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener, _ in self._listeners:
            listener.close()
        self._listeners.clear()

    def proven(self, transport: asyncio.BaseTransport) -> None:
        """The other side is a member, and has asked for a session."""
        proof = self._proof.pop(transport, None)
        if proof and not proof.done():
            proof.set_result(None)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:  # out of file descriptors, most likely
                log.warning("cannot take a connection: %s", error.strerror)
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            self._make_room(address[0])
            task = loop.create_task(self._attend(connection, address[0]))
            self._strangers[task] = None
            task.add_done_callback(lambda task: self._strangers.pop(task, None))

    def _make_room(self, host: str) -> None:
        gone = [task for task, transport in self._strangers.items() if transport and transport.is_closing()]
        if len(self._strangers) - len(gone) < MAX_STRANGERS:
            return
        oldest = next(task for task in self._strangers if task not in gone)
        oldest.cancel()
        del self._strangers[oldest]
        self._turned_away.add(CROWDED, host)

    async def _attend(self, connection: socket.socket, host: str) -> None:
        """One connection until it has a session, or has had its time."""
        loop = asyncio.get_running_loop()
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(self._stranger_s):
                transport, _ = await loop.connect_accepted_socket(
                    self._server, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
                )
                task = asyncio.current_task()
                assert task
                if task in self._strangers:
                    self._strangers[task] = transport
                proof = self._proof[transport] = loop.create_future()
                await proof
        except ssl.SSLError as error:
            self._turned_away.add(_why(error), host)
        except TimeoutError:
            if transport is None or not transport.is_closing():
                self._turned_away.add(SLOW if transport else HANDSHAKE, host)
            self._cut(transport)
        except OSError as error:  # it hung up: a port scan, or a link that broke
            log.debug("%s hung up in the handshake: %s", host, error)
        except asyncio.CancelledError:
            self._cut(transport)
            raise

    def _cut(self, transport: asyncio.Transport | None) -> None:
        if transport:
            self._proof.pop(transport, None)
            if not transport.is_closing():
                transport.abort()


def _why(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return EXPIRED if error.verify_code == _EXPIRED_CODE else FOREIGN
    return PLAIN if error.reason in _NOT_TLS else HANDSHAKE
