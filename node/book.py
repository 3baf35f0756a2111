"""The book of peers and invitations: what this node alone knows, beside the replicated set. The only SQL about them.

Addresses are hints where a peer may be: given by the user (`configured`), or the one at which it was last reached. Who
answers there is what its certificate says. Tests: tests/node/test_book.py.
"""

import sqlite3
from dataclasses import dataclass

from node.database import Database
from node.errors import Problem
from node.invitation import refused

MAX_PEERS = 1_000
"""Addresses kept. A mesh larger than that is reached through the peers of these."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a peer may be. `node` once somebody has answered there; `last_contact` in ms since 1970 UTC."""

    address: str
    node: str | None
    configured: bool
    last_contact: int | None


class Book:
    """Peers and invitations in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def addresses(self) -> list[Address]:
        """Every address, on the event loop's thread."""
        rows = self._database.direct.execute(
            "SELECT address, node, configured, last_contact FROM peers ORDER BY address"
        )
        return [Address(address, node, bool(configured), contact) for address, node, configured, contact in rows]

    async def add(self, address: str) -> None:
        """Remember an address that the user gave."""

        def job(connection: sqlite3.Connection) -> None:
            (kept,) = connection.execute("SELECT count(*) FROM peers").fetchone()
            if kept >= MAX_PEERS:
                raise Problem(422, "too_many_peers", f"{MAX_PEERS} addresses are kept", "remove some", "address")
            connection.execute(
                "INSERT INTO peers VALUES (?, NULL, 1, NULL) ON CONFLICT DO UPDATE SET configured = 1", (address,)
            )

        await self._database.write(job)

    async def remove(self, address: str) -> bool:
        """Forget an address; False when it was not known."""

        def job(connection: sqlite3.Connection) -> bool:
            return connection.execute("DELETE FROM peers WHERE address = ?", (address,)).rowcount > 0

        return await self._database.write(job)

    async def met(self, address: str, node: str, now_ms: int) -> None:
        """`node` was reached at `address`."""
        await self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO peers VALUES (?, ?, 0, ?)"
                " ON CONFLICT DO UPDATE SET node = excluded.node, last_contact = excluded.last_contact",
                (address, node, now_ms),
            )
        )

    async def put(self, secret_hash: bytes, grants_json: str, expires_ms: int) -> None:
        """Record an invitation (node.invitation.InvitationBook)."""
        await self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO invitations VALUES (?, ?, ?, NULL)", (secret_hash, grants_json, expires_ms)
            )
        )

    async def take(self, secret_hash: bytes, now_ms: int, node_id: str) -> str:
        """Use an invitation up for `node_id`; its grants. Raises Problem: invitation_unknown, _expired, _used."""

        def job(connection: sqlite3.Connection) -> str:
            row = connection.execute(
                "SELECT grants, expires, used_by FROM invitations WHERE secret_hash = ?", (secret_hash,)
            ).fetchone()
            if row is None:
                raise refused("unknown")
            grants, expires, used_by = row
            if used_by == node_id:
                return str(grants)
            if used_by is not None:
                raise refused("used")
            if now_ms >= expires:
                raise refused("expired")
            connection.execute("UPDATE invitations SET used_by = ? WHERE secret_hash = ?", (node_id, secret_hash))
            return str(grants)

        return await self._database.write(job)
