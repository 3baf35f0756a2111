"""What happens on this node, told as it happens: the newest events, and those who listen to them.

| event | when | data |
| --- | --- | --- |
| write | ops have come to be on disk here | ops, peer (null: our own), projects, facts (or votes on them), truncated |
| round | a round with a peer has ended | peer, name, result, sent_ops, received_ops |
| commit | the ledger has entries that it had not | entries: index, fact (null: about no fact); truncated |
| alert | somebody should look at something | code, text |
| degraded | a step of giving up has begun or ended | step, begins |
| gap | the listener has missed events | after (what it had last), oldest (what is still here) |

An event says what changed, never what it says: who wants the text asks for the fact. Events are not kept on disk. Each
has an id of this run of the node and its number in it, so after a restart, as after too long an absence, a listener
learns that there is a gap instead of hearing nothing.

Everything here is bounded: what is kept, what an event names, how many listen, how much waits for one. A listener that
falls behind is dropped, and resumes by the id of the last event that it has. All of it happens on the event loop's
thread. The route is node/http_events.py. Tests: tests/node/test_events.py.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from crdt.op import Op
from node.errors import Problem
from node.peers import Peer
from node.voting import records
from sync.ready import RoundEnded

MAX_KEPT: Final = 512
"""Events for those who come back: minutes of a busy node, hours of a quiet one. At most 1 MB, as a rule 100 kB."""
MAX_WAITING: Final = 256
"""Events that wait for one listener. Half of what is kept, so that whoever is dropped for it can still resume."""
MAX_LISTENERS: Final = 32
MAX_NAMED: Final = 50
"""Facts, projects or entries that one event names. Beyond that it says `truncated`."""
MAX_TEXT_CHARS: Final = 1_000

log = logging.getLogger(__name__)


class Event(StrEnum):
    """The kinds of events."""

    WRITE = "write"
    ROUND = "round"
    COMMIT = "commit"
    ALERT = "alert"
    DEGRADED = "degraded"
    GAP = "gap"


class _Told(NamedTuple):
    """An event as it is sent."""

    number: int
    frame: bytes


class Listener:
    """One who listens. `on_drop` is called when it has fallen too far behind, and must cut it off."""

    def __init__(self, leave: Callable[["Listener"], None], backlog: Iterable[bytes]) -> None:
        self.on_drop: Callable[[], None] = lambda: None
        self._leave = leave
        self._waiting = deque(backlog)
        self._arrived = asyncio.Event()
        self._open = True

    async def take(self, timeout_s: float) -> bytes | None:
        """All frames that wait, or those of the next event; nothing when none came in time; None at the end."""
        if not self._waiting and self._open:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
            except TimeoutError:
                return b""
        if not self._waiting and not self._open:
            return None
        frames = b"".join(self._waiting)
        self._waiting.clear()
        return frames

    def put(self, frame: bytes) -> None:
        """One more event."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            self.close()
            log.warning("a listener to events was dropped: it has not read the last %d", MAX_WAITING)
            self.on_drop()
            return
        self._waiting.append(frame)
        self._arrived.set()

    def close(self) -> None:
        """No more events; what waits can still be taken. Idempotent."""
        self._open = False
        self._arrived.set()
        self._leave(self)


class Events:
    """The events of one run of a node. `run` tells it from other runs: letters and digits."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._number = 0
        self._kept: deque[_Told] = deque(maxlen=MAX_KEPT)
        self._listeners: set[Listener] = set()
        self._ended = False

    # What happens

    def tell(self, event: Event, data: Any) -> None:
        """Something has happened."""
        self._number += 1
        told = _Told(self._number, b"id: %b\n" % self.newest.encode() + _frame(event, data))
        self._kept.append(told)
        for listener in tuple(self._listeners):
            listener.put(told.frame)

    def wrote(self, ops: Sequence[Op], peer: str | None = None) -> None:
        """Ops are on our disk: those of `peer`, or our own."""
        if not ops:
            return
        projects, more_projects = _some(op.project for op in ops)
        facts, more_facts = _some(fact for op in ops if (fact := _fact_of(op)))
        self.tell(
            Event.WRITE,
            {
                "ops": len(ops), "peer": peer, "projects": projects, "facts": facts,
                "truncated": more_projects or more_facts,
            },
        )  # fmt: skip

    def round_ended(self, peer: Peer, ended: RoundEnded) -> None:
        """A round with a peer is over."""
        self.tell(
            Event.ROUND,
            {
                "peer": peer.node, "name": peer.name or None, "result": ended.outcome.value,
                "sent_ops": ended.sent_ops, "received_ops": ended.received_ops,
            },
        )  # fmt: skip

    def committed(self, entries: Iterable[tuple[int, str | None]]) -> None:
        """The ledger has these entries: the index of each, and the fact that it is about."""
        named, more = _some(entries)
        if named:
            shown = [{"index": index, "fact": fact} for index, fact in named]
            self.tell(Event.COMMIT, {"entries": shown, "truncated": more})

    def alert(self, code: str, text: str) -> None:
        """Somebody should look."""
        self.tell(Event.ALERT, {"code": code, "text": text[:MAX_TEXT_CHARS]})

    def degraded(self, step: str, begins: bool) -> None:
        """A step of node/pressure.py begins or ends."""
        self.tell(Event.DEGRADED, {"step": str(step), "begins": begins})

    # Who hears of it

    @property
    def newest(self) -> str:
        """The id of the last event."""
        return f"{self._run}-{self._number}"

    def listen(self, after: str | None = None) -> Listener:
        """Listen from now on, or from the event behind `after` on. Raises Problem when too many do, or at the end."""
        if self._ended:
            raise Problem(503, "not_ready", "the node is stopping", "try again in a second")
        if len(self._listeners) >= MAX_LISTENERS:
            raise Problem(
                503, "too_many_listeners", f"{MAX_LISTENERS} clients listen to events already",
                "end one of them, or let several programs share one",
            )  # fmt: skip
        listener = Listener(self._listeners.discard, self._backlog(after))
        self._listeners.add(listener)
        return listener

    def close(self) -> None:
        """The end, for everybody."""
        self._ended = True
        for listener in tuple(self._listeners):
            listener.close()

    def _backlog(self, after: str | None) -> list[bytes]:
        # An id without an event: also who leaves before anything has happened can come back to this place.
        here = b"id: %b\n: listening\n\n" % self.newest.encode()
        if after is None:
            return [here]
        run, _, number = after.rpartition("-")
        last = int(number) if run == self._run and number.isascii() and number.isdigit() else -1
        first = self._kept[0].number if self._kept else self._number + 1
        missed = [told.frame for told in self._kept if told.number > last]
        if first - 1 <= last <= self._number:
            return [*missed, here]
        oldest = f"{self._run}-{first}" if self._kept else None
        return [_frame(Event.GAP, {"after": after[:MAX_TEXT_CHARS], "oldest": oldest}), *missed, here]


def _frame(event: Event, data: Any) -> bytes:
    """One event in the format of WHATWG's HTML, section 9.2. JSON has no line ends."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(data))


def _some(names: Iterable[Any]) -> tuple[list[Any], bool]:
    """The first MAX_NAMED different ones, and whether there are more."""
    different = dict.fromkeys(names)
    return list(islice(different, MAX_NAMED)), len(different) > MAX_NAMED


def _fact_of(op: Op) -> str | None:
    """The fact that an op changes, or votes on."""
    word, slash, rest = op.subject.partition("/")
    if not slash:
        return op.subject
    return rest.partition("/")[0] if word == records.VOTES else None
