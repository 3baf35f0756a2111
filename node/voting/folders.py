"""Exports and receipts on disk: written so that half of one is never taken for a whole, and checked without a node.

`write` unpacks an export into an empty folder, the file `checkpoint` last: without it the folder is no export. What is
unpacked is bounded and named by a strict pattern, whoever made the archive.

`check_folder` and `check_receipt_file` need nothing but the files and what their reader trusts: a policy (whose
signatures count), a checkpoint that was kept earlier, the certificate of a time-stamping authority. Without a policy an
export is checked against itself, by the hubs that it says were granted. That finds damage, not a ledger made up from
the beginning.

Tests: tests/node/voting/test_folders.py.
"""

import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from io import RawIOBase
from itertools import chain
from pathlib import Path
from typing import Any, Final

from ledger import note
from ledger.checkpoint import Checkpoint, parse_text
from ledger.entry import BadEntry
from ledger.export import CHECKPOINT, HISTORY, POLICY, Export, Read
from ledger.note import BadNote
from ledger.policy import BadPolicy, Policy, parse_policy
from ledger.receipt import HEADER, check_receipt, parse_receipt
from ledger.tiles import BadTile
from ledger.tlog import BadProof
from ledger.verify import MAX_FINDINGS, Finding, Report, verify
from node.errors import Problem
from node.voting import reads
from node.voting.anchor import BadStamp, stamped
from node.voting.exports import ANCHORS
from node.voting.verification import Progress, Seen, document

MAX_FILE_BYTES: Final = 256 * (2 + 65_535)
"""A full bundle of texts at their longest."""
_NAME: Final = re.compile(
    rf"{CHECKPOINT}|{POLICY}|{HISTORY}|{HISTORY}\.d/[0-9]{{1,19}}|{ANCHORS}/[0-9]{{1,19}}\.tsr"
    r"|(?:tile/(?:entries|[0-9]{1,2})|text)/(?:x[0-9]{3}/){0,6}[0-9]{3}(?:\.p/[0-9]{1,3})?"
)


def is_receipt(raw: bytes) -> bool:
    """Whether it begins like one."""
    return raw.startswith(HEADER.encode())


def file_of(folder: Path) -> Read:
    """Reads the files of an export; whatever else stands in their place is none. Raises BadTile for one that is too
    long."""

    def read(path: str) -> bytes | None:
        try:
            with open(folder / path, "rb", opener=_without_waiting) as file:
                data = file.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        if data is not None and len(data) > MAX_FILE_BYTES:
            raise BadTile(f"{path} is longer than any file of an export")
        return data

    return read


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe, too, without waiting for whoever may write to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def check_folder(
    folder: Path,
    policy: Policy | None,
    kept: Checkpoint | None,
    certificate: bytes | None,
    progress: Progress = lambda checked, size: None,
) -> dict[str, Any]:
    """What is wrong with an export. `certificate`: of the time-stamping authority, in PEM; without it time stamps
    are only counted."""
    read = file_of(folder)
    try:
        source = Export(read)
    except (BadNote, BadTile) as error:
        return document(Report(), [Finding(None, "checkpoint", str(error))], 0, whole=False)
    with closing(Seen()) as seen:
        report = verify(source, policy, kept=kept, seen=seen, progress=progress)
    stamps, findings = _stamps(folder, source, certificate)
    found = document(report, [*report.findings, *findings][:MAX_FINDINGS], source.checkpoint.size, whole=True)
    return found | {"policy": policy is not None, "kept": kept is not None, "anchors": stamps}


def check_receipt_file(raw: bytes, policy: Policy, kept: Checkpoint | None) -> dict[str, Any]:
    """What is wrong with a receipt, and which entry it proves."""
    report, findings = Report(), list[Finding]()
    answer: dict[str, Any] = {"index": None, "entry": None}
    size = 0
    try:
        answer["index"] = parse_receipt(raw).index
        entry, opened = check_receipt(raw, policy)
        answer["entry"] = reads.describe(parse_receipt(raw).entry, None)
        report.checked, report.root, size = 1, opened.checkpoint.root, opened.checkpoint.size
        if kept and kept.size == size and kept.root != report.root:
            findings.append(Finding(entry.index, "fork", f"another root was kept for {size} entries"))
    except (BadProof, BadEntry, BadNote) as error:
        code = {BadProof: "proof", BadEntry: "entry", BadNote: "checkpoint"}[type(error)]
        findings.append(Finding(answer["index"], code, str(error)))
    return document(report, findings, size, whole=False) | answer


def read_policy(raw: bytes) -> Policy:
    """A policy that somebody gave. Raises Problem bad_policy."""
    try:
        return parse_policy(raw)
    except BadPolicy as error:
        raise Problem(400, "bad_policy", f"not a policy: {error}", "see c2sp.org/tlog-policy", "policy") from None


def read_checkpoint(raw: bytes) -> Checkpoint:
    """A checkpoint that somebody kept: its signatures were checked when they accepted it. Raises Problem."""
    try:
        return parse_text(note.parse(raw).text)
    except BadNote as error:
        action = "give the whole note, as `cortex-node ledger checkpoint` prints it"
        raise Problem(400, "bad_checkpoint", f"not a checkpoint: {error}", action, "checkpoint") from None


def require_empty(folder: Path) -> None:
    """Raises Problem not_empty unless an export may be written there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Problem(409, "not_empty", f"{folder} is no empty folder", "name a new one, or empty it")


def write(folder: Path, pieces: Iterable[bytes]) -> int:
    """Unpacks an export into `folder`, which is made or is empty; how many files. Raises Problem, OSError."""
    require_empty(folder)
    coming = iter(pieces)
    first = next(coming, b"")  # before anything is made: a node that refuses does it here
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with tarfile.open(fileobj=_Pieces(chain([first], coming)), mode="r|") as archive:
            for member in archive:
                if not member.isreg() or not _NAME.fullmatch(member.name) or member.size > MAX_FILE_BYTES:
                    raise _bad_archive(f"{member.name[:100]!r} is no file of an export")
                content = archive.extractfile(member)
                _write_file(folder / member.name, content.read() if content else b"")
                count += 1
    except tarfile.TarError as error:
        raise _bad_archive(str(error)) from None
    if not (folder / CHECKPOINT).exists():
        raise _bad_archive("it ends before the checkpoint")
    _flush(folder)
    return count


def _bad_archive(detail: str) -> Problem:
    return Problem(502, "answer_cut", f"the export that came is not whole: {detail}", "empty the folder, and try again")


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamps(folder: Path, source: Export, certificate: bytes | None) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The time stamps of an export, and what is wrong with them."""
    shown, findings = list[dict[str, Any]](), list[Finding]()
    read = file_of(folder)
    for path in sorted((folder / ANCHORS).glob("*.tsr")):
        size, token = path.name.removesuffix(".tsr"), read(f"{ANCHORS}/{path.name}")
        if not (size.isascii() and size.isdecimal()) or token is None:
            findings.append(Finding(None, "anchor", f"{path.name[:100]!r} is not the name of a time stamp"))
            continue
        raw = read(CHECKPOINT if int(size) == source.checkpoint.size else f"{HISTORY}.d/{size}")
        try:
            if raw is None:
                raise BadStamp("the checkpoint that it stamps is not here")
            about = parse_text(note.parse(raw).text)
            at = stamped(token, about, certificate) if certificate else None
            shown.append({"size": about.size, "stamped_at": at})
        except (BadStamp, BadNote) as error:
            findings.append(Finding(None, "anchor", f"the time stamp of size {size}: {error}"))
    return shown, findings


class _Pieces(RawIOBase):
    """What is streamed, as tarfile reads it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken
