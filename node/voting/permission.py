"""Whether this node may append to the ledger and sign for it, and if not, why.

* The newest grant names it, for the epoch in which the ledger here is (node/voting/grants.py), and an engine that its
  settings allow.
* It is not *behind*: it knows of no checkpoint larger than its ledger, be it its own mark (node/voting/mark.py), one
  that it has accepted, or one that the sender of a pending vote shows to have seen (node/voting/claims.py). So a hub
  that was restored from a backup catches up before it goes on. What nobody has any longer, a takeover gives up.
* It is not *frozen*: the log has passed every check of itself, and does not contradict the mark. That is for good, and
  an operator's to repair (ledger.log.repair, thaw) or to end by a takeover.

Tests: tests/node/voting/test_permission.py.
"""

import asyncio
import sqlite3
from enum import StrEnum
from typing import Final, NamedTuple

from ledger import quorum, tlog
from ledger.log import Head
from ledger.quorum import NotGranted
from ledger.verify import Finding
from node.identity import Identity
from node.voting import claims, grants
from node.voting.mark import Mark, Signed
from node.voting.table import Table

CONTRADICTS: Final = "mark"
"""The code of the finding that the ledger is not what was signed."""


class Mode(StrEnum):
    """What the hub does, or why it does nothing."""

    OFF = "off"
    DORMANT = "dormant"
    """It was founded without an engine: a takeover begins an epoch with one."""
    NOT_GRANTED = "not_granted"
    BEHIND = "behind"
    FROZEN = "frozen"
    RETRYING = "retrying"
    IDLE = "idle"
    WORKING = "working"


class Stopped(NamedTuple):
    """Why nothing may be appended or signed now."""

    mode: Mode
    reason: str


class Permission:
    """Of one node. `authority`: the key of the mesh's CA; `engine`: what the settings say."""

    def __init__(self, me: Identity, authority: bytes, engine: str) -> None:
        self._key = me.node_key
        self._authority = authority
        self._engine = engine
        self._mark = Mark(me.home.ledger_mark)
        self._loaded = False
        self._signed: Signed | None = None
        self._fits = False
        """Whether the ledger was seen to have the root that was signed."""
        self._settled = True

    @property
    def size(self) -> int:
        """Entries for which this node has signed."""
        return self._signed.size if self._signed else 0

    async def load(self) -> None:
        """Read the mark, the first time. Raises Problem ledger_mark_damaged."""
        if not self._loaded:
            self._signed = await asyncio.to_thread(self._mark.read)
            self._loaded = True

    def note(self, signed: Signed) -> None:
        """This was signed. Only when it returns may anybody here hear of it. Raises Problem."""
        if signed != self._signed:
            self._mark.write(signed)
            self._signed, self._fits, self._settled = signed, True, False

    async def settle(self) -> None:
        """What was noted survives a power cut when it returns: then may other nodes hear of it. Raises Problem."""
        if not self._settled:
            self._settled = True
            await asyncio.to_thread(self._mark.sync)

    def stopped(self, connection: sqlite3.Connection) -> Stopped | None:
        """Why nothing may be appended or signed, in a job; None when it may."""
        table = Table(connection)
        ledger = grants.ledger_of(table)
        if ledger is None:
            return self._not_granted("the ledger is not here yet")
        head = table.head()
        try:
            grant = grants.current(connection, ledger, self._authority)
            quorum.check_may_append(grant, self._key, head)
        except NotGranted as error:
            return self._not_granted(str(error))
        if finding := table.frozen() or self._contradiction(table, head):
            table.freeze(finding)
            return Stopped(Mode.FROZEN, describe(finding))
        if reason := self._behind(connection, head):
            return Stopped(Mode.BEHIND, reason)
        if "none" in (grant.engine, self._engine):
            which = "the settings name no engine" if grant.engine != "none" else "the ledger was founded without a hub"
            return Stopped(Mode.DORMANT, which)
        if grant.engine != self._engine:
            return self._not_granted(f"the grant is for {grant.engine}, the settings say {self._engine}")
        return None

    def _not_granted(self, reason: str) -> Stopped:
        return Stopped(Mode.OFF if self._engine == "none" else Mode.NOT_GRANTED, reason)

    def _contradiction(self, table: Table, head: Head) -> Finding | None:
        """The ledger that is here has another history than was signed here, in this epoch."""
        signed = self._signed
        if signed is None or self._fits or signed.epoch != head.epoch or signed.size > head.size:
            return None
        try:
            root = tlog.root(signed.size, table)
        except LookupError as error:
            return Finding(signed.size, "tree", str(error))
        self._fits = root == signed.root
        what = f"the first {signed.size} entries have another root than this hub has signed"
        return None if self._fits else Finding(None, CONTRADICTS, what)

    def _behind(self, connection: sqlite3.Connection, head: Head) -> str | None:
        """Which larger ledger this node knows of."""
        signed = self._signed
        if signed and (signed.epoch, signed.size) > (head.epoch, head.size):
            self._fits = False
            return f"this hub has signed {signed.size} entries in epoch {signed.epoch}, here are {head.size}"
        (size,) = connection.execute("SELECT coalesce(max(size), 0) FROM ledger_checkpoints").fetchone()
        if size > head.size:
            return f"a checkpoint of {size} entries is known, here are {head.size}"
        if claim := claims.ahead(connection, head.size):
            return f"who sent a pending vote has seen {claim.size} entries, here are {head.size}"
        return None


def describe(finding: Finding) -> str:
    return f"entry {finding.index}: {finding.detail}" if finding.index is not None else finding.detail
