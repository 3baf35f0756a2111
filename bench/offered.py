"""Offers requests to a node at a fixed pace, whether it keeps up or not, and keeps book of every answer.

An open loop: a request is sent when it is due, not when the one before is answered, so a server that falls behind
cannot slow its own examination down. Requests go out over many connections in turn, on each one behind the other.
Written on sockets, since an ordinary client costs several times what it would measure. For bench/rest.py and
tests/e2e/test_overload.py.
"""

import asyncio
import re
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

TICK_S: Final = 0.005
UNSENT_MAX: Final = 1 << 20
"""Bytes that may wait in a connection that the server does not read; beyond it a request is not sent."""
_HEAD: Final = re.compile(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n", re.DOTALL)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_CHUNK: Final = 1 << 20


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """The bytes of a request."""
    return f"{method} {path} HTTP/1.1\r\nHost: node\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Offered:
    """What was sent and what came back. `answered`: the requests' numbers by status; `seconds`: of each answer."""

    sent: int = 0
    unsent: int = 0
    answered: dict[int, list[int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    broken: int = 0
    without_retry_after: int = 0
    elapsed_s: float = 0.0

    @property
    def statuses(self) -> Counter[int]:
        return Counter({status: len(numbers) for status, numbers in self.answered.items()})


class _Connection(asyncio.Protocol):
    """Answers come in the order of the requests."""

    def __init__(self, book: Offered, change: asyncio.Event) -> None:
        self._book = book
        self._change = change
        self._out: deque[tuple[int, float]] = deque()
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    @property
    def outstanding(self) -> int:
        return len(self._out)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=UNSENT_MAX)
        self.transport = transport

    def send(self, number: int, raw: bytes) -> None:
        if self.transport is None or self.transport.get_write_buffer_size() > UNSENT_MAX:
            self._book.unsent += 1
            return
        self._out.append((number, perf_counter()))
        self._book.sent += 1
        self.transport.write(raw)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while head := _HEAD.match(self._buffer):
            length = _LENGTH.search(head[0])
            end = head.end() + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                break
            number, began = self._out.popleft()
            status = int(head[1])
            self._book.answered.setdefault(status, []).append(number)
            self._book.seconds.append(perf_counter() - began)
            if status in (429, 503) and b"\r\nretry-after: " not in head[0].lower():
                self._book.without_retry_after += 1
            del self._buffer[:end]
        self._change.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._book.broken += len(self._out)
        self._out.clear()
        self.transport = None
        self._change.set()


async def offer(
    path: Path,
    make: Callable[[int], bytes],
    per_second: float,
    seconds: float,
    connections: int,
    drain_s: float = 60.0,
) -> Offered:
    """Send `make(0)`, `make(1)`, ... at a pace for some time; return when all are answered, or after `drain_s`."""
    book, change = Offered(), asyncio.Event()
    links = [await _connected(path, book, change) for _ in range(connections)]
    began, number = perf_counter(), 0
    while (passed := perf_counter() - began) < seconds:
        while number < passed * per_second:
            links[number % connections].send(number, make(number))
            number += 1
        await asyncio.sleep(TICK_S)
    give_up = perf_counter() + drain_s
    while any(link.outstanding for link in links) and perf_counter() < give_up:
        change.clear()
        try:
            await asyncio.wait_for(change.wait(), give_up - perf_counter())
        except TimeoutError:
            break
    book.elapsed_s = perf_counter() - began
    for link in links:
        if link.transport is not None:
            link.transport.abort()
    return book


async def ask_in_turn(path: Path, make: Callable[[int], bytes], count: int, connections: int) -> Offered:
    """A closed loop beside it: each connection sends its next request when it has its answer; `count` in all."""
    book = Offered()

    async def converse(place: int) -> None:
        mine = asyncio.Event()
        link = await _connected(path, book, mine)
        for number in range(place, count, connections):
            mine.clear()
            link.send(number, make(number))
            while link.outstanding:
                await mine.wait()
                mine.clear()
        if link.transport is not None:
            link.transport.abort()

    began = perf_counter()
    await asyncio.gather(*(converse(place) for place in range(connections)))
    book.elapsed_s = perf_counter() - began
    return book


async def _connected(path: Path, book: Offered, change: asyncio.Event) -> _Connection:
    """A connection that stands. On a thread: asyncio takes a full backlog of a unix socket for a connection."""
    link = socket.socket(socket.AF_UNIX)
    await asyncio.to_thread(link.connect, str(path))
    link.setblocking(False)
    loop = asyncio.get_running_loop()
    return (await loop.create_unix_connection(lambda: _Connection(book, change), sock=link))[1]
