"""What this node knows of each peer, and what it tells of it: state, lag in both directions, and the reason.

A lag is never told without a reason. The reasons, in the order in which they are looked for:

    version, quota, refused   the last session ended so, and there is none now; `detail` says what was the matter
    offline                   nobody was reached, or the connection ended
    repairing                 equal vectors, different ops: what differs is being looked for
    held_clock                ops that it wrote are held, since its clock is too far ahead
    waiting_for_op            ops that it wrote wait here for others that have not come yet
    busy                      a round is under way, or about to begin

Nothing here does I/O. Tests: tests/node/test_peers.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from node.clock import rfc3339
from node.lags import Backlog, Standing
from sync.errors import Reason

CLOCK_WARN_MS = 60_000
"""A peer whose clock differs by more than a minute is told of."""
TOLD_CHARS = 120
"""Of what a peer says in its own words, when it ends a session."""

Warning_ = dict[str, str]

_REASONS = {
    Reason.VERSION: "version",
    Reason.QUOTA: "quota",
    Reason.STORE: "quota",
    Reason.STALLED: "offline",
    Reason.REPLACED: "offline",
}
_ACTIONS = {
    "version": "install the newer cortex-node on whichever of the two is older",
    "quota": "make room: raise store_max_mb, or free some disk",
    "refused": "see its log; what was stored is safe",
}


@dataclass(slots=True)
class Peer:
    """One peer. `trouble`: why the last session ended, None once a round has ended well; `detail` says it in words.

    `clock_ms`: how far its clock is ahead of ours, as it told last; None before it did. `fruitless`: the last round
    brought nothing, though something differed; `stuck`: the one before it, too.
    """

    node: str
    name: str = ""
    address: str | None = None
    last_contact_ms: int | None = None
    synced_ms: int | None = None
    trouble: str | None = None
    detail: str | None = None
    clock_ms: int | None = None
    fruitless: bool = False
    stuck: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    standing: Standing = field(default_factory=Standing)

    @property
    def label(self) -> str:
        return self.name or self.node

    def round_ended(self, fruitless: bool) -> None:
        """A round is over. One that brings nothing is no trouble: what it was to bring was pushed meanwhile."""
        self.stuck, self.fruitless = fruitless and self.fruitless, fruitless

    def ended(self, reason: Reason, detail: str) -> None:
        """A session with it ended for a reason that this node found."""
        self.trouble, self.detail = _REASONS.get(reason, "refused"), detail or str(reason)

    def ended_by_peer(self, told: str) -> None:
        """It ended the session, and said why: `told` is its close frame, whatever that may be."""
        reason, _, detail = told.partition(": ")
        plain = "".join(letter for letter in detail or told if letter.isprintable())[:TOLD_CHARS]
        known = reason if reason in set(Reason) else None
        self.trouble = _REASONS.get(Reason(known), "refused") if known else "offline"
        self.detail = f"it says: {plain}"

    def agreed(self) -> None:
        """A round ended, and both had the same."""
        self.trouble = self.detail = None


@dataclass(frozen=True, slots=True)
class Line:
    """The connection with a peer, as far as it is told of."""

    address: str
    bytes_in: int
    bytes_out: int


def describe(peer: Peer, line: Line | None, backlog: Backlog, unreached: str | None, now_ms: int) -> dict[str, Any]:
    """A peer as `status` shows it. `unreached`: what went wrong when it was dialled last."""
    reason, detail = why(peer, line is not None, backlog, unreached, now_ms)
    away = "refused" if peer.trouble in ("version", "quota", "refused") else "offline"
    return {
        "id": peer.node,
        "name": peer.name or None,
        "address": line.address if line else peer.address,
        "state": "connected" if line else away,
        "behind": peer.standing.behind.shown(now_ms),
        "ahead": peer.standing.ahead.shown(now_ms),
        "reason": reason,
        "detail": detail,
        "last_contact": rfc3339(peer.last_contact_ms) if peer.last_contact_ms else None,
        "synced_at": rfc3339(peer.synced_ms) if peer.synced_ms else None,
        "bytes_in": peer.bytes_in + (line.bytes_in if line else 0),
        "bytes_out": peer.bytes_out + (line.bytes_out if line else 0),
    }


def why(
    peer: Peer, connected: bool, backlog: Backlog, unreached: str | None, now_ms: int
) -> tuple[str | None, str | None]:
    """The reason for the lag, and its detail; (None, None) when there is neither a lag nor trouble."""
    if not connected:
        return peer.trouble or "offline", peer.detail or unreached or "the connection ended"
    if peer.stuck:
        return "repairing", "equal vectors and different ops: what differs is being looked for"
    if held := backlog.held.get(peer.node):
        until = max(0, held.until_ms - now_ms) // 1000
        return "held_clock", f"{held.ops} of its ops are held: its clock is far ahead; they count in {until} s"
    if waiting := backlog.waiting.get(peer.node):
        return "waiting_for_op", f"{waiting} of its ops wait for others that have not come yet"
    if peer.standing.ahead.ops or peer.standing.behind.ops:
        return "busy", "a round is under way or about to begin"
    return None, None


def clock_offset_s(peers: Iterable[Peer]) -> float | None:
    """How far our clock is ahead of the others', by their median; None when none has told."""
    offsets = [peer.clock_ms for peer in peers if peer.clock_ms is not None]
    return round(-median(offsets) / 1000, 3) if offsets else None


def warnings(peers: Iterable[Peer], connected: Mapping[str, Line]) -> list[Warning_]:
    """What of the peers somebody should look at."""
    found = []
    for peer in peers:
        if peer.clock_ms is not None and abs(peer.clock_ms) > CLOCK_WARN_MS:
            way = "ahead of" if peer.clock_ms > 0 else "behind"
            text = f"the clock of {peer.label} is {abs(peer.clock_ms) // 1000} s {way} ours"
            found.append(warning("clock", text, "set the wrong one: timedatectl set-ntp true"))
        if peer.stuck:
            text = f"this node and {peer.label} differ, and neither can give the other what it lacks"
            found.append(warning("stuck", text, "run: cortex-node doctor on both"))
        if peer.trouble in _ACTIONS and peer.node not in connected:
            found.append(warning(peer.trouble, f"{peer.label}: {peer.detail}", _ACTIONS[peer.trouble]))
    return found


def warning(code: str, text: str, action: str) -> Warning_:
    """One line of `warnings`."""
    return {"code": code, "text": text, "action": action}
