"""Exports and receipts on disk: written whole or not at all, and checked by nothing but files."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import log
from ledger.checkpoint import Checkpoint
from ledger.policy import Policy, policy_of
from ledger.tlog import root
from node.errors import Problem
from node.voting import exports, folders, reads
from node.voting.exports import packed
from tests.node.voting.ledger_on_disk import CELLAR, LedgerOnDisk

SIZE = 3 + 3 + 270


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path_factory.mktemp("hub") / "home")
    made.vote(3, CELLAR)
    for _ in range(3):
        made.vote(90)
    yield made
    made.close()


@pytest.fixture
def folder(ledger: LedgerOnDisk, tmp_path: Path) -> Path:
    written = tmp_path / "deep" / "export"
    count = folders.write(written, packed(exports.files(ledger.connection, ledger.place), 0))
    assert count == len([path for path in written.rglob("*") if path.is_file()])
    return written


@pytest.fixture
def rule(ledger: LedgerOnDisk) -> Policy:
    made = reads.policy(ledger.connection, ledger.place)
    assert made
    return made


def codes(found: dict) -> set[tuple[int | None, str]]:  # type: ignore[type-arg]
    return {(one["index"], one["code"]) for one in found["findings"]}


def test_what_was_written_is_the_ledger(ledger: LedgerOnDisk, folder: Path, rule: Policy) -> None:
    told: list[tuple[int, int]] = []
    found = folders.check_folder(folder, rule, None, None, lambda *at: told.append(at))
    assert found["ok"] and (found["checked"], found["size"], found["signatures"]) == (SIZE, SIZE, SIZE)
    assert found["root"] == root(SIZE, ledger.table).hex() and found["policy"] and told[-1] == (SIZE, SIZE)
    assert folders.check_folder(folder, None, None, None)["policy"] is False


def flip(path: Path, at: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


TAMPERING: dict[str, tuple[Callable[[Path], object], tuple[int | None, str]]] = {
    "an entry": (lambda f: flip(f / "tile/entries/000", 100 * 148 + 60), (100, "leaf")),
    "a tile": (lambda f: flip(f / "tile/0/000", 3_000), (93, "leaf")),
    "a bundle that is gone": (lambda f: (f / f"tile/entries/001.p/{SIZE - 256}").unlink(), (256, "bundle")),
    "a text": (lambda f: flip(f / "text/000", 20_000), (None, "")),
    "an earlier checkpoint": (lambda f: flip(f / "history.d/6", 230), (None, "checkpoint")),
    "an earlier checkpoint that is gone": (lambda f: (f / "history.d/6").unlink(), (None, "checkpoint")),
    "the checkpoint": (lambda f: flip(f / "checkpoint", 230), (None, "checkpoint")),
    "no checkpoint": (lambda f: (f / "checkpoint").unlink(), (None, "checkpoint")),
    "a file that is far too long": (
        lambda f: (f / "tile/0/000").write_bytes(bytes(folders.MAX_FILE_BYTES + 1)),
        (0, "tile"),
    ),
    "a checkpoint that is far too long": (
        lambda f: (f / "checkpoint").write_bytes(bytes(folders.MAX_FILE_BYTES + 1)),
        (None, "checkpoint"),
    ),
    "a time stamp with another name": (
        lambda f: ((f / "anchors").mkdir(), (f / "anchors/x.tsr").write_bytes(b"")),
        (None, "anchor"),
    ),
    "a time stamp of nothing": (
        lambda f: ((f / "anchors").mkdir(), (f / "anchors/7.tsr").write_bytes(b"")),
        (None, "anchor"),
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found_and_told_where(folder: Path, rule: Policy, what: str) -> None:
    tamper, finding = TAMPERING[what]
    tamper(folder)
    found = folders.check_folder(folder, rule, None, None)
    assert not found["ok"]
    assert finding in codes(found) or not finding[1], codes(found)


def test_a_kept_checkpoint_is_compared(ledger: LedgerOnDisk, folder: Path, rule: Policy) -> None:
    origin = rule.origin
    good = Checkpoint(origin, 6, root(6, ledger.table))
    assert folders.check_folder(folder, rule, good, None)["ok"]
    found = folders.check_folder(folder, rule, Checkpoint(origin, 6, bytes(32)), None)
    assert codes(found) == {(None, "fork")} and found["kept"]


def test_somebody_else_s_policy_is_not_met(ledger: LedgerOnDisk, folder: Path, rule: Policy, tmp_path: Path) -> None:
    witness = ledger.cosign(ledger.join(tmp_path / "home"))
    found = folders.check_folder(folder, policy_of(rule.logs, [witness], 1), None, None)
    assert codes(found) == {(None, "witness")}


# Writing


def test_a_folder_that_is_not_empty_is_left_alone(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(Problem) as refused:
        folders.write(tmp_path, packed(exports.files(ledger.connection, ledger.place), 0))
    assert refused.value.code == "not_empty" and [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_that_is_cut_off_anywhere_is_none(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    whole = b"".join(packed(exports.files(ledger.connection, ledger.place), 0))
    for number, at in enumerate(range(0, len(whole) - 2_048, len(whole) // 17)):
        folder = tmp_path / str(number)
        with pytest.raises(Problem) as refused:
            folders.write(folder, [whole[:at]])
        assert refused.value.code == "answer_cut" and refused.value.action
        assert not (folder / "checkpoint").exists()
        assert codes(folders.check_folder(folder, None, None, None)) == {(None, "checkpoint")}


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/x", "tile/../../x", "checkpoint/x", "node.key", "text/000/x", "history.d/1/2", ""]
)
def test_no_file_is_written_that_an_export_has_not(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "export"
    with pytest.raises(Problem):
        folders.write(folder, packed([(name, b"x"), ("checkpoint", b"x")], 0))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


# Receipts


def test_a_receipt_proves_its_entry(ledger: LedgerOnDisk, rule: Policy) -> None:
    raw = log.receipt(ledger.table, 5)
    assert folders.is_receipt(raw) and not folders.is_receipt(b"c2sp.org/other")
    found = folders.check_receipt_file(raw, rule, None)
    assert found["ok"] and (found["index"], found["size"], found["entry"]["kind"]) == (5, SIZE, "vote")


def test_any_other_byte_in_a_receipt_is_found(ledger: LedgerOnDisk, rule: Policy) -> None:
    raw = log.receipt(ledger.table, 5)
    seen = set()
    for at in range(0, len(raw), 11):
        found = folders.check_receipt_file(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], rule, None)
        assert not found["ok"], at
        seen |= {code for _, code in codes(found)}
    assert {"proof", "checkpoint"} <= seen


def test_a_receipt_from_another_history_is_a_fork(ledger: LedgerOnDisk, rule: Policy) -> None:
    raw = log.receipt(ledger.table, 5)
    found = folders.check_receipt_file(raw, rule, Checkpoint(rule.origin, SIZE, bytes(32)))
    assert codes(found) == {(5, "fork")}


def test_what_a_reader_gives_is_read_or_refused(ledger: LedgerOnDisk, rule: Policy) -> None:
    assert folders.read_policy(str(rule).encode()) == rule
    assert folders.read_checkpoint(ledger.table.checkpoints()[-1]).size == SIZE
    for read, code in ((folders.read_policy, "bad_policy"), (folders.read_checkpoint, "bad_checkpoint")):
        with pytest.raises(Problem) as refused:
            read(b"nonsense\n")
        assert refused.value.code == code and refused.value.action


def test_a_pipe_in_the_place_of_a_file_is_no_file_and_is_not_waited_for(folder: Path, rule: Policy) -> None:
    for name, code in (("text/000", (0, "text")), ("checkpoint", (None, "checkpoint"))):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert code in codes(folders.check_folder(folder, rule, None, None))
