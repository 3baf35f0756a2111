"""The high-water mark: the largest checkpoint that this node has signed, in HOME/ledger.mark, beside the database.

A hub whose database was put back from a backup must not go on from there: what it appended since would get a second
history. The mark is not part of the database, so it tells. It is written after the checkpoint, before anybody here is
told of it, and is on disk before any other node is. A crash in between leaves a mark that is too low, of a checkpoint
that nobody else has. That costs a vote a few microseconds, and an fsync only with each announcement.

A file of MARK_BYTES bytes, written in place: epoch, size, root, and a digest of them. One that is damaged is an error,
never "no mark". A home that is restored whole brings its old mark with it; then the votes of others tell
(node/voting/permission.py). Tests: tests/node/voting/test_mark.py.
"""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from ledger.tlog import HASH_BYTES
from node import identity
from node.errors import Problem

_LAYOUT: Final = Struct(f">QQ{HASH_BYTES}s")
_DIGEST_BYTES: Final = 16
MARK_BYTES: Final = _LAYOUT.size + _DIGEST_BYTES


class Signed(NamedTuple):
    """A checkpoint that was signed here. `epoch`: of the ledger then; a takeover may go back, and begins another."""

    epoch: int
    size: int
    root: bytes


class Mark:
    """The mark at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Signed | None:
        """The largest checkpoint that was signed here; None before the first. Raises Problem ledger_mark_damaged."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._problem(f"{self._path} can't be read: {error.strerror}") from error
        if len(content) != MARK_BYTES or _digest(content[:-_DIGEST_BYTES]) != content[-_DIGEST_BYTES:]:
            raise self._problem(f"{self._path} is damaged")
        return Signed(*_LAYOUT.unpack(content[:-_DIGEST_BYTES]))

    def write(self, signed: Signed) -> None:
        """It survives the end of this process when it returns. Raises Problem."""
        content = _LAYOUT.pack(*signed)
        self._opened(lambda descriptor: os.pwrite(descriptor, content + _digest(content), 0))

    def sync(self) -> None:
        """What was written survives a power cut when it returns. Raises Problem."""
        self._opened(os.fsync)
        identity.sync_folder(self._path.parent)

    def _opened(self, work: Callable[[int], object]) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                work(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._problem(f"{self._path} can't be written: {error.strerror}") from error

    def _problem(self, detail: str) -> Problem:
        return Problem(
            500,
            "ledger_mark_damaged",
            f"{detail}; without it this hub can't tell whether its ledger is the newest, so it signs nothing",
            "see that the ledger is whole (cortex-node ledger verify), remove the file, and start the node again",
        )


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES, person=b"cortex/mark").digest()
