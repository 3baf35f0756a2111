"""What one session looks into beyond its rounds: which projects to walk, what to audit with the peer, and how often.

* A project is walked when a round found equal vectors and different roots, when a round moved nothing although the peer
  claims what is not here, and, of those that differ, once an hour whatever the vectors say.
* A walk that moved nothing is not repeated within FRUITLESS_S: what it could not repair it can't repair now. One whose
  ops were of no use yet, because others must come before them, is repeated after RETRY_S. A peer that begins one again
  and again is refused, so that nobody can make this node read its store for ever.
* Once an hour, after a round that found nothing, the bytes of one node of one project's tree are compared under a salt.
  Which node, and the salt, nobody knows before: they come from the session's secret. A small project is audited whole.

Decides, and does nothing. Tests: tests/sync/test_audit.py.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from math import inf
from typing import Final

from sync import merkle
from sync.errors import ProtocolError, Reason
from sync.messages import SALT_BYTES, Audit
from sync.overlap import in_order

WALK_S: Final = 3_600.0
"""Between walks of projects whose vectors differ each time we look."""
AUDIT_S: Final = 3_600.0
"""Between audits with one peer: 120 bytes an hour, and a full pass of 65,536 ops in 16 hours."""
FRUITLESS_S: Final = 600.0
RETRY_S: Final = 60.0
TOO_SOON: Final = 0.5
"""Of either: from then on a peer may walk again, whose clock may run faster."""
AUDITS_S: Final = 60.0
"""Between two audits that a peer asks for."""
SLICE_OPS: Final = 4_096
"""Read for one audit, on average: 10 ms on a laptop."""


def audited_level(ops: int) -> int:
    """The level whose nodes hold at most SLICE_OPS of a project's `ops`, on average."""
    levels = range(merkle.LEVELS)
    return next((level for level in levels if ops <= SLICE_OPS << (level * merkle.FAN_OUT_BITS)), merkle.LEVELS)


class Agenda:
    """Of one session. `secret`: chance that is its own; `now`: when it began, in seconds."""

    def __init__(self, secret: int, now: float) -> None:
        self.pending: Audit | None = None
        """The audit that we asked for and that is not answered."""
        self._secret = secret.to_bytes(32, "little")
        self._drawn = 0
        self._queue: list[str] = []
        self._vain: dict[str, tuple[float, float]] = {}
        """Project to when a walk of it was in vain, and how long to wait."""
        self._walk_at = now + WALK_S
        self._audit_at = now + AUDIT_S * (1 + int.from_bytes(self.salt()[:2], "big") / 65_536) / 2
        self._asked_at = -inf

    def salt(self) -> bytes:
        """SALT_BYTES that nobody can foresee, others each time."""
        self._drawn += 1
        drawn = self._drawn.to_bytes(8, "big")
        return blake2b(drawn, digest_size=SALT_BYTES, key=self._secret, person=b"cortex/salt").digest()

    # Walks

    def suspect(self, names: Iterable[str]) -> None:
        """Walk these projects soon."""
        self._queue = in_order({*self._queue, *names})

    def hourly(self, names: Iterable[str], now: float) -> None:
        """These differ, whatever the reason: walk them if it is time."""
        if now >= self._walk_at:
            self._walk_at = now + WALK_S
            self.suspect(names)

    def next(self, now: float) -> str | None:
        """The project to walk now, the reserved one first; none that was walked in vain lately."""
        due = (name for name in self._queue if self._waited(name, now, 1))
        project = next(due, None)
        self._queue = self._queue[self._queue.index(project) + 1 :] if project is not None else []
        return project

    def walked(self, project: str, ops: int, fresh: int, now: float) -> None:
        """A walk has ended, whoever began it: `ops` went over the wire, `fresh` of them were new to somebody."""
        self._queue = [name for name in self._queue if name != project]
        if fresh:
            self._vain.pop(project, None)
        else:
            self._vain[project] = now, RETRY_S if ops else FRUITLESS_S

    def check_walk(self, project: str, now: float) -> None:
        """The peer begins a walk. Raises ProtocolError when it does so again and again for nothing."""
        if not self._waited(project, now, TOO_SOON):
            raise ProtocolError(Reason.UNEXPECTED, "walks again what it has just walked in vain")

    def _waited(self, project: str, now: float, share: float) -> bool:
        at, wait_s = self._vain.get(project, (-inf, 0.0))
        return now >= at + share * wait_s

    # Audits

    def audit_due(self, now: float) -> bool:
        """Whether to ask for an audit after a round that found nothing."""
        return now >= self._audit_at

    def audit(self, sizes: Mapping[str, int], now: float) -> Audit | None:
        """What to ask the peer, if it is due. `sizes`: how many ops a shared project has here."""
        if not self.audit_due(now) or not sizes:
            return None
        self._audit_at = now + AUDIT_S
        salt = self.salt()
        chance = int.from_bytes(self.salt(), "big")
        names = sorted(sizes)
        # A project's chance is its share of the ops, so that each op's turn comes equally often.
        spot = chance % max(1, sum(sizes.values()))
        name = names[-1]
        for name in names:
            spot -= sizes[name]
            if spot < 0:
                break
        level = audited_level(sizes[name])
        place = (chance >> 64) % (1 << level * merkle.FAN_OUT_BITS)
        self.pending = Audit(name, level, place, salt)
        return self.pending

    def check_audit(self, now: float) -> None:
        """The peer asks for an audit. Raises ProtocolError when it asks too often."""
        if now < self._asked_at + AUDITS_S:
            raise ProtocolError(Reason.UNEXPECTED, "audits more often than once a minute")
        self._asked_at = now

    def answered(self) -> Audit:
        """The audit that the peer's `Audited` is about. Raises ProtocolError when there is none."""
        pending, self.pending = self.pending, None
        if pending is None:
            raise ProtocolError(Reason.UNEXPECTED, "an audit that nobody asked for")
        return pending
