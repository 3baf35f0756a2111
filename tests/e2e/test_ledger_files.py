"""The ledger outside of a node: exports of the real program before an independent verifier, and reads put to a hub.

The verifier is in Go and knows none of our code (tests/ledger/verifier). It, and `cortex-node ledger verify`, must take
what the program exports, and must both refuse it after each of five kinds of tampering.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.local_nodes import LocalNode, enrol, found, wait_until
from ledger.tiles import decode_bundle, encode_bundle
from node.errors import EXIT_BUSY, EXIT_INTEGRITY, EXIT_OK
from tests.ledger.test_verifier import HAS_GO, built

VOTES = 4


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """The founder of a mesh, with a few committed votes."""
    with found(tmp_path_factory.mktemp("hub") / "alpha", "alpha", mdns="false") as node:
        node.start()
        for number in range(VOTES):
            fact = node.run("store", f"fact {number}").stdout.strip()
            assert node.run("vote", fact, "up").stdout.startswith("committed #")
        yield node


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not HAS_GO:
        pytest.skip("needs Debian's golang-go and golang-golang-x-mod-dev (make servers)")
    return built(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="module")
def export(hub: LocalNode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(hub, tmp_path_factory.mktemp("files") / "export")


def exported(hub: LocalNode, folder: Path) -> Path:
    done = hub.run("ledger", "export", str(folder))
    assert done.returncode == EXIT_OK, done.stderr
    return folder


def hub_key(folder: Path) -> str:
    return (folder / "policy").read_text().split()[1]


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def the_one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def edited(folder: Path) -> None:
    change(the_one(folder, "tile/entries/000.p/*"), 5 * 148 + 60)


def reordered(folder: Path) -> None:
    path = the_one(folder, "tile/entries/000.p/*")
    rows = decode_bundle(path.read_bytes())
    rows[4], rows[5] = rows[5], rows[4]
    path.write_bytes(encode_bundle(rows))


def truncated(folder: Path) -> None:
    path = the_one(folder, "tile/entries/000.p/*")
    path.write_bytes(path.read_bytes()[:-148])


def another_vote(folder: Path) -> None:
    path = the_one(folder, "text/000.p/*")
    change(path, path.stat().st_size - 10)


def another_size(folder: Path) -> None:
    path = folder / "checkpoint"
    origin, size, rest = path.read_text().split("\n", 2)
    path.write_text(f"{origin}\n{int(size) - 1}\n{rest}")


@pytest.mark.parametrize("tamper", [None, edited, reordered, truncated, another_vote, another_size])
def test_an_outsider_checks_what_the_program_exports(
    hub: LocalNode, export: Path, verifier: Path, tmp_path: Path, tamper: Callable[[Path], None] | None
) -> None:
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    if tamper:
        tamper(folder)
    outsider = subprocess.run([verifier, folder, hub_key(export), "-"], capture_output=True, text=True, check=False)
    ours = hub.run("ledger", "verify", str(folder), "--policy", str(export / "policy"))
    assert (outsider.returncode == 0) == (tamper is None), outsider.stderr
    assert ours.returncode == (EXIT_INTEGRITY if tamper else EXIT_OK), ours.stdout
    assert tamper is None or ": " in ours.stdout.splitlines()[0]  # where, what


def test_a_receipt_and_a_kept_checkpoint_go_on_being_good(hub: LocalNode, verifier: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text(hub.run("ledger", "checkpoint").stdout)
    receipt = tmp_path / "4.tlog-proof"
    hub.run("ledger", "proof", "4", "--out", str(receipt))
    fact = hub.run("store", "one more").stdout.strip()
    assert hub.run("vote", fact, "up").returncode == EXIT_OK
    folder = exported(hub, tmp_path / "export")
    done = subprocess.run([verifier, folder, hub_key(folder), "-", receipt, kept], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in ((str(receipt), "--policy", str(folder / "policy")), (str(folder),), ()):
        said = hub.run("ledger", "verify", *words, "--checkpoint", str(kept))
        assert said.returncode == EXIT_OK, said.stdout + said.stderr


def test_reads_are_a_hubs_and_offline_only_local_ones_are_answered(hub: LocalNode, tmp_path: Path) -> None:
    with enrol(tmp_path / "beta", "beta", hub, ("--project", "elsewhere"), mdns="false") as member:
        member.start()
        size = hub.tell("ledger", "status")["size"]
        wait_until("the ledger is here", lambda: member.tell("ledger", "status", "--local")["size"] >= size)
        there = member.tell("ledger", "proof", "4")
        assert there["read"] == "linearizable" and there["entry"]["text"] is None  # a vote in another's project
        assert member.tell("ledger", "status")["size"] >= size
        assert member.run("ledger", "verify").returncode == EXIT_OK
        hub.stop()
        try:
            refused = member.run("ledger", "status")
            assert refused.returncode == EXIT_BUSY and "--local" in refused.stderr
            assert "as of" in member.run("ledger", "status", "--local").stdout
            assert member.run("ledger", "verify").returncode == EXIT_OK
        finally:
            hub.start()
