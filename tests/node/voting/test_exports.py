"""Exports of a real node's ledger: complete, in pieces, as tar, and judged by an independent verifier in Go."""

import io
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.checkpoint import Checkpoint, open_checkpoint
from ledger.export import Export
from ledger.tiles import decode_bundle, encode_bundle
from ledger.verify import verify
from node.errors import Problem
from node.voting import exports, reads
from tests.ledger.test_verifier import HAS_GO, built
from tests.node.voting.ledger_on_disk import CELLAR, GARDEN, LedgerOnDisk

SIZE = 3 + 3 + 2 + 270
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path_factory.mktemp("hub") / "home")
    made.vote(3)
    made.vote(2, CELLAR)
    for _ in range(3):
        made.vote(90)
    made.cosign(made.join(tmp_path_factory.mktemp("witness") / "home"))
    yield made
    made.close()


def exported(ledger: LedgerOnDisk, project: str | None = None) -> Files:
    return dict(exports.files(ledger.connection, ledger.place, project))


def test_an_export_is_the_ledger_and_passes_verification(ledger: LedgerOnDisk) -> None:
    files = exported(ledger)
    assert list(files)[-1] == "checkpoint"  # who is cut off has none
    report = verify(Export(files.get), reads.policy(ledger.connection, ledger.place), authority=ledger.place.authority)
    assert report.ok and report.checked == SIZE and report.signatures == SIZE


def test_only_one_project_s_texts_go_along_when_that_is_asked_for(ledger: LedgerOnDisk) -> None:
    files = exported(ledger, CELLAR)
    texts = [bool(text) for text in decode_bundle(files["text/000"])]
    assert texts[:9] == [True] * 3 + [False] * 3 + [True] * 2 + [False]
    assert verify(Export(files.get)).ok
    with pytest.raises(Problem) as refused:
        exported(ledger, "attic")
    assert refused.value.code == "unknown_project"


def test_time_stamps_go_along(ledger: LedgerOnDisk) -> None:
    try:
        ledger.connection.execute("INSERT INTO ledger_anchors VALUES (6, x'0102', 5), (9999, x'03', 5)")
        files = exported(ledger)
        assert files["anchors/6.tsr"] == b"\1\2" and "anchors/9999.tsr" not in files
    finally:
        ledger.connection.execute("DELETE FROM ledger_anchors")


def test_a_node_with_gaps_or_without_a_grant_makes_none(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    gaps = ledger.with_gaps(tmp_path / "gaps.db", GARDEN)
    with pytest.raises(Problem) as refused:
        next(exports.files(gaps, ledger.place))
    assert (refused.value.status, refused.value.code) == (409, "not_whole")
    gaps.close()
    whole = sqlite3.connect(tmp_path / "whole.db", isolation_level=None)
    ledger.connection.backup(whole)
    whole.execute("DELETE FROM statements")
    with pytest.raises(Problem) as refused:
        next(exports.files(whole, ledger.place))
    assert refused.value.code == "not_granted"
    whole.close()


async def test_the_stream_is_a_tar_archive(ledger: LedgerOnDisk) -> None:
    pieces = [piece async for piece in exports.stream(ledger.path, ledger.place, None, 1_800_000_000)]
    assert len(pieces) > 5 and max(map(len, pieces)) < 1 << 20
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == exported(ledger)


async def test_a_stream_that_nobody_reads_to_the_end_closes_what_it_opened(ledger: LedgerOnDisk) -> None:
    stream = exports.stream(ledger.path, ledger.place, None, 0)
    assert await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]


# The independent verifier


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("go"))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def edited(files: Files) -> None:
    files["tile/entries/000"] = flip(files["tile/entries/000"], 100 * 148 + 60)


def reordered(files: Files) -> None:
    rows = decode_bundle(files["tile/entries/000"])
    rows[7], rows[8] = rows[8], rows[7]
    files["tile/entries/000"] = encode_bundle(rows)


def truncated(files: Files) -> None:
    path = next(path for path in files if path.startswith("tile/entries/001.p/"))
    files[path] = files[path][:-148]


def rewritten(files: Files) -> None:
    files["tile/0/000"] = flip(files["tile/0/000"], 3_000)


def signed_by_nobody(files: Files) -> None:
    files["checkpoint"] = files["checkpoint"].replace(f"\n{SIZE}\n".encode(), f"\n{SIZE - 1}\n".encode())


@pytest.mark.skipif(not HAS_GO, reason="needs Debian's golang-go and golang-golang-x-mod-dev (make servers)")
@pytest.mark.parametrize("tamper", [None, edited, reordered, truncated, rewritten, signed_by_nobody])
def test_others_can_check_what_a_node_exports(
    ledger: LedgerOnDisk, verifier: Path, tmp_path: Path, tamper: Callable[[Files], None] | None
) -> None:
    files = exported(ledger)
    if tamper:
        tamper(files)
    for path, data in files.items():
        (tmp_path / "export" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / path).write_bytes(data)
    receipt = tmp_path / "7.tlog-proof"
    receipt.write_text(reads.proof(ledger.connection, 7)["receipt"])
    rule = reads.policy(ledger.connection, ledger.place)
    assert rule
    (witness,) = rule.witnesses.values()
    command = [verifier, tmp_path / "export", str(rule.logs[0]), str(witness), receipt]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode == 0) == (tamper is None), said
    shutil.rmtree(tmp_path / "export")


def test_what_is_kept_shows_a_ledger_that_was_made_anew(ledger: LedgerOnDisk) -> None:
    files, rule = exported(ledger), reads.policy(ledger.connection, ledger.place)
    assert rule
    opened = open_checkpoint(files["checkpoint"], rule.origin, rule.logs)
    kept = Checkpoint(opened.checkpoint.origin, 6, bytes(32))
    assert {finding.code for finding in verify(Export(files.get), rule, kept=kept).findings} == {"fork"}
