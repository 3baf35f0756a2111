"""An independent verifier, in Go, accepts our exports and refuses what was tampered with.

It is built from Debian's packages golang-go and golang-golang-x-mod-dev, without a network (.ci/servers installs them).
Our own verification is asked about the same files, and must agree.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import checkpoint, export, log, verify
from ledger.export import Export
from ledger.note import Algorithm, BadNote, Signer
from ledger.policy import Policy, policy_of
from ledger.tiles import decode_bundle, encode_bundle
from tests.ledger.world import HUB, Mesh, drafts, flips, key, secret

SOURCE = Path(__file__).parent / "verifier"
GOPATH = Path("/usr/share/gocode")  # where Debian's packages put Go sources
HAS_GO = shutil.which("go") is not None and (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir()

pytestmark = pytest.mark.skipif(
    not HAS_GO, reason="needs Debian's golang-go and golang-golang-x-mod-dev (make servers)"
)

WITNESS = Signer("example.org/witness", secret("witness"), Algorithm.COSIGNATURE)
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("go"))


def built(folder: Path) -> Path:
    """The program, made in `folder`."""
    program = folder / "verifier"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(folder / "cache")}
    subprocess.run(["go", "build", "-o", program, "."], cwd=SOURCE, env=environment, check=True)
    return program


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    mesh = Mesh().found()
    for number in range(6):
        mesh.append(drafts(50, start=50 * number))
    for size, raw in mesh.storage.notes.items():
        opened = checkpoint.open_checkpoint(raw, policy(mesh).origin, policy(mesh).logs)
        mesh.storage.notes[size] = checkpoint.cosign(opened, WITNESS, 1_700_000_000)
    return mesh


def policy(mesh: Mesh) -> Policy:
    return policy_of(checkpoint.hub_keys(mesh.ledger, [key(HUB)]), [WITNESS.verifier], 1)


def exported(mesh: Mesh) -> Files:
    return dict(export.export(mesh.storage, policy(mesh)))


class Judge:
    """Writes an export to disk and asks both verifiers."""

    def __init__(self, program: Path, mesh: Mesh, folder: Path) -> None:
        self._program, self._mesh, self._folder = program, mesh, folder

    def go(self, files: Files, *more: Path) -> subprocess.CompletedProcess[str]:
        folder = self._folder / "export"
        shutil.rmtree(folder, ignore_errors=True)
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        keys = str(policy(self._mesh).logs[0]), str(WITNESS.verifier)
        command = [str(self._program), str(folder), *keys, *map(str, more)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def ours(self, files: Files) -> bool:
        try:
            return verify.verify(Export(files.get), policy(self._mesh)).ok
        except BadNote:
            return False

    def file(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(data)
        return path


@pytest.fixture
def judge(verifier: Path, mesh: Mesh, tmp_path: Path) -> Judge:
    return Judge(verifier, mesh, tmp_path)


def test_an_export_receipts_and_history_are_accepted(judge: Judge, mesh: Mesh) -> None:
    more = [judge.file(f"{index}.tlog-proof", log.receipt(mesh.storage, index)) for index in (0, 3, 255, 256, 302)]
    more += [judge.file(f"kept-{size}", raw) for size, raw in mesh.storage.notes.items()]
    said = judge.go(exported(mesh), *more)
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"303 entries, 300 votes, {len(more)} more files\n"
    assert judge.ours(exported(mesh))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def edited_entry(files: Files) -> None:
    files["tile/entries/000"] = flip(files["tile/entries/000"], 100 * 148 + 60)


def edited_tile(files: Files) -> None:
    files["tile/0/000"] = flip(files["tile/0/000"], 3_000)


def edited_vote(files: Files) -> None:
    files["text/000"] = flip(files["text/000"], 20_000)


def edited_checkpoint(files: Files) -> None:
    files["checkpoint"] = files["checkpoint"].replace(b"\n303\n", b"\n302\n")


def edited_cosignature(files: Files) -> None:
    head, line = files["checkpoint"].rsplit(b" ", 1)
    files["checkpoint"] = head + b" " + line.replace(line[40:44], line[40:44].swapcase())


def swapped_entries(files: Files) -> None:
    rows = decode_bundle(files["tile/entries/000"])
    rows[7], rows[8] = rows[8], rows[7]
    files["tile/entries/000"] = encode_bundle(rows)


def truncated(files: Files) -> None:
    del files["tile/entries/001.p/47"]


def cut_off(files: Files) -> None:
    files["tile/entries/001.p/47"] = files["tile/entries/001.p/47"][:-148]


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (edited_entry, "chain at entry 100"),
        (edited_tile, "tile tile/0/000"),
        (edited_vote, "text of entry"),
        (edited_checkpoint, "checkpoint"),
        (edited_cosignature, "checkpoint"),
        (swapped_entries, "chain at entry 7"),
        (truncated, "file tile/entries/001.p/47"),
        (cut_off, "length of bundle"),
    ],
)
def test_what_was_tampered_with_is_refused_by_both(
    judge: Judge, mesh: Mesh, tamper: Callable[[Files], None], says: str
) -> None:
    files = exported(mesh)
    tamper(files)
    said = judge.go(files)
    assert said.returncode == 1 and says in said.stderr, said
    assert not judge.ours(files)


def test_a_rewritten_history_is_refused_by_who_kept_a_checkpoint(judge: Judge, mesh: Mesh) -> None:
    other = Mesh().found()
    for number in range(6):
        other.append(drafts(50, start=1_000 + 50 * number))
    assert other.ledger == mesh.ledger
    size, raw = next(iter(other.storage.notes.items()))
    assert raw.split(b"\n")[:3] == mesh.storage.notes[size].split(b"\n")[:3]  # the founding is the same
    kept = judge.file("kept", other.storage.notes[153])
    said = judge.go(exported(mesh), kept)
    assert said.returncode == 1 and "history since size 153" in said.stderr


def test_a_flipped_bit_in_a_receipt_is_refused(judge: Judge, mesh: Mesh) -> None:
    files, raw = exported(mesh), log.receipt(mesh.storage, 42)
    flipped = list(flips(raw))
    for at in range(200, len(raw.split(b"\n\n")[0]) * 8, 997):
        said = judge.go(files, judge.file("flipped.tlog-proof", flipped[at]))
        assert said.returncode == 1, at
