"""An export of this node's ledger: the files of ledger.export, one after the other, and as one tar stream.

    anchors/SIZE.tsr    besides: RFC 3161 time stamps of checkpoints (node/voting/anchor.py)

Only a node with a whole ledger can make one. It is as large as the newest checkpoint was at the beginning, and is read
in pieces, each in a short transaction of its own. The policy that goes with it names the hubs of the current grant, and
the members as witnesses: whoever checks the export against that policy trusts this node to have named them rightly.

With a project's name only the texts of its votes go along: others' entries are there, and show nothing but a hash.
Tests: tests/node/voting/test_exports.py.
"""

import asyncio
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from ledger import entry as entries
from ledger.entry import Entry
from ledger.export import CHECKPOINT, File, export
from node.database import connect
from node.errors import Problem
from node.voting import reads
from node.voting.reads import Place
from node.voting.verification import Kept

BLOCK_BYTES: Final = tarfile.BLOCKSIZE
ANCHORS: Final = "anchors"


def files(connection: sqlite3.Connection, place: Place, project: str | None = None) -> Iterator[File]:
    """The files, the checkpoint last. Raises Problem: no_ledger, not_whole, not_granted, unknown_project."""
    connection.execute("BEGIN")
    try:
        source, whole = Kept(connection), reads.is_whole(connection)
        rule = reads.policy(connection, place)
        include = _of_project(connection, project) if project else _everything
        anchors = connection.execute("SELECT size, token FROM ledger_anchors ORDER BY size").fetchall()
    finally:
        connection.execute("ROLLBACK")
    if not whole:
        raise Problem(
            409,
            "not_whole",
            "this node has only the entries of the projects that it carries, and an export has all",
            "export on a hub, or on a node that carries all projects",
        )
    if rule is None:
        raise Problem(
            409,
            "not_granted",
            "no grant counts here, so nobody can say whose signature an export must have",
            "see: cortex-node ledger status",
        )
    for path, data in export(source, rule, include):
        if path == CHECKPOINT:
            yield from ((f"{ANCHORS}/{size}.tsr", token) for size, token in anchors if size <= source.size)
        yield path, data


def packed(parts: Iterable[File], at_s: int) -> Iterator[bytes]:
    """The files as a tar archive. `at_s`: their time, seconds since 1970 UTC."""
    for path, data in parts:
        info = tarfile.TarInfo(path)
        info.size, info.mtime, info.mode = len(data), at_s, 0o644
        yield info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK_BYTES)
    yield bytes(2 * BLOCK_BYTES)


async def stream(database: Path, place: Place, project: str | None, at_s: int) -> AsyncIterator[bytes]:
    """The tar archive of the ledger in the file `database`, made on a thread, a piece whenever one is asked for."""
    loop = asyncio.get_running_loop()
    with closing(connect(database, read_only=True)) as connection:
        pieces = packed(files(connection, place, project), at_s)
        while True:
            step = loop.run_in_executor(None, partial(next, pieces, None))
            try:
                piece = await asyncio.shield(step)
            except asyncio.CancelledError:
                await asyncio.wait([step])  # the thread still reads; the connection stays open until it has done that
                raise
            if piece is None:
                return
            yield piece


def _of_project(connection: sqlite3.Connection, project: str) -> Callable[[Entry], bool]:
    row = connection.execute("SELECT key FROM project_keys WHERE project = ?", (project,)).fetchone()
    if row is None:
        raise Problem(
            404, "unknown_project", f"there are no votes in {project!r} here", "see: cortex-node status", "project"
        )
    tag = entries.project_tag(row[0], project)
    return lambda entry: entry.project_tag == tag


def _everything(entry: Entry) -> bool:
    return True
