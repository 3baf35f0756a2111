"""A mesh is founded: its identity, the owner agent's key, and a database in which the ledger has its first entries.

All of it is made offline, before the node runs for the first time, and the certificate comes last (node.identity): so
a home without its ledger is no home. A process that is killed in the middle leaves files that are written over by the
next `init`, or, in the instant in which they are moved into their places, a home that `init` names as incomplete and
leaves alone; a key in HOME/agents that no agent has may stay. After any other failure nothing is left.

Tests: tests/node/voting/test_founding.py.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from ledger import ed25519
from node import database, identity, mesh
from node.errors import Problem
from node.identity import Identity
from node.migrations import migrate
from node.paths import Home
from node.voting import grants
from node.voting.keys import KeyStore
from node.voting.scores import Scores

OWNER: Final = "owner"
"""What the owner agent is called until it has a profile."""


class Founded(NamedTuple):
    """The new node, the owner agent's public key, and the ledger's id."""

    me: Identity
    owner: bytes
    ledger: bytes


def found(home: Home, name: str, engine: str, now_ms: int) -> Founded:
    """Found a mesh and its ledger in `home`. `engine`: of the first grant, "solo" or "none".

    Raises Problem as node.mesh.found does; after a Problem nothing has changed.
    """
    mesh.check_name(name)
    identity.require_vacant(home)
    made = [folder for folder in (home.agents, home.path, *home.path.absolute().parents) if not folder.exists()]
    keys = KeyStore(home.agents)
    ledger = b""

    def fill(me: Identity, authority_seed: bytes, path: Path) -> None:
        nonlocal ledger
        authority = ed25519.secret_key(authority_seed)
        with closing(_new(path)) as connection:
            migrate(connection, now_ms)
            connection.execute("BEGIN IMMEDIATE")
            ledger = grants.found(connection, me, authority, owner, OWNER, engine, now_ms)
            Scores(identity.public_key_of(me.ca)).catch_up(connection)  # who the owner is
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    owner = b""
    try:
        _make(home.path)
        owner = keys.create()
        me = mesh.found(home, name, now_ms, fill)
    except BaseException as error:
        if owner:
            keys.remove(ed25519.public_key(owner))
        for folder in made:
            with suppress(OSError):  # somebody else has put something there, or it was never made
                folder.rmdir()
        if isinstance(error, sqlite3.Error):
            raise _no_database(home, error) from error
        raise
    return Founded(me, ed25519.public_key(owner), ledger)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise identity.unwritable(folder, error) from error


def _new(path: Path) -> sqlite3.Connection:
    for left in (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))):
        left.unlink(missing_ok=True)  # by a process that was killed
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return database.connect(path)


def _no_database(home: Home, error: sqlite3.Error) -> Problem:
    return Problem(507, "store_failed", f"{home.database} can't be written: {error}", "free some space and try again")
