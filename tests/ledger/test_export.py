"""Exports: they verify, they come back, and whatever is done to a file is found."""

from collections.abc import Callable

import pytest

from ledger import checkpoint, export, note, verify
from ledger.checkpoint import Checkpoint
from ledger.entry import Entry, Kind
from ledger.export import Export
from ledger.note import BadNote
from ledger.policy import Policy, parse_policy, policy_of
from ledger.verify import Report
from tests.ledger.world import HUB, Mesh, drafts, key

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    mesh = Mesh().found()
    for number in range(6):
        mesh.append(drafts(50, start=50 * number))
    return mesh


def policy(mesh: Mesh) -> Policy:
    return policy_of(checkpoint.hub_keys(mesh.ledger, [key(HUB)]))


def exported(mesh: Mesh, include: Callable[[Entry], bool] = lambda entry: True) -> Files:
    return dict(export.export(mesh.storage, policy(mesh), include))


def checked(files: Files, rule: Policy | None = None, kept: Checkpoint | None = None) -> Report:
    return verify.verify(Export(files.get), rule, kept=kept)


def test_an_export_verifies(mesh: Mesh) -> None:
    files = exported(mesh)
    report = checked(files, policy(mesh))
    assert report.ok and (report.checked, report.votes, report.signatures) == (303, 300, 303)
    assert parse_policy(files["policy"]) == policy(mesh)
    assert {path for path in files if not path.startswith(("history", "text"))} == {
        "checkpoint",
        "policy",
        "tile/0/000",
        "tile/0/001.p/47",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/47",
    }
    assert list(export.export(mesh.storage, policy(mesh)))[-1][0] == "checkpoint"


def test_what_comes_back_is_what_went(mesh: Mesh) -> None:
    back = Export(exported(mesh).get)
    assert back.read_entries(0, 1_000) == mesh.storage.entries
    assert back.read_entries(250, 10) == mesh.storage.entries[250:260]
    assert back.read_texts(0, 1_000) == mesh.storage.texts
    assert list(back.checkpoints()) == mesh.storage.checkpoints()


def test_texts_may_stay_behind(mesh: Mesh) -> None:
    files = exported(mesh, lambda entry: False)
    report = checked(files)
    assert report.ok and report.votes == 300 and report.signatures == 3
    assert [text is not None for text in Export(files.get).read_texts(0, 5)] == [True] * 3 + [False] * 2


def test_a_ledger_without_checkpoint_is_not_exported() -> None:
    with pytest.raises(LookupError):
        list(export.export(Mesh().storage, Policy(())))


@pytest.mark.parametrize("at", [0, 1, 77, 2_000, -1])
def test_a_flipped_bit_in_any_file_is_found(mesh: Mesh, at: int) -> None:
    files = exported(mesh)
    for path, data in files.items():
        if path == "policy":
            continue  # the exporter's word about itself; a reader uses a policy of their own
        at_there = at % len(data)
        flipped = data[:at_there] + bytes([data[at_there] ^ 1]) + data[at_there + 1 :]
        try:
            report = checked({**files, path: flipped}, policy(mesh))
        except BadNote:
            assert path == "checkpoint"
        else:
            assert report.findings, path


def test_a_file_that_is_missing_or_cut_off_is_found(mesh: Mesh) -> None:
    files = exported(mesh)
    for path in files.keys() - {"policy", "history"}:
        for data in (None, files[path][:-1], files[path] + b"\0"):
            damaged = {**files, path: data or b""}
            if data is None:
                del damaged[path]
            try:
                report = checked(damaged, policy(mesh))
            except BadNote:
                assert path == "checkpoint"
            else:
                assert report.findings, path


def test_a_rolled_back_and_a_grown_export(mesh: Mesh) -> None:
    files = exported(mesh)
    newest = checkpoint.parse_text(note.parse(files["checkpoint"]).text)
    earlier = {**files, "checkpoint": mesh.storage.notes[253], "history": b""}
    assert [finding.code for finding in checked(earlier, kept=newest).findings][-1] == "older"
    kept = checkpoint.parse_text(note.parse(mesh.storage.notes[153]).text)
    assert checked(files, kept=kept).ok


def test_an_exports_paths_are_its_readers_own(mesh: Mesh) -> None:
    asked: list[str] = []
    files = {**exported(mesh), "history": b"../../etc/passwd\n53\n"}

    def read(path: str) -> bytes | None:
        asked.append(path)
        return files.get(path)

    verify.verify(Export(read))
    assert not [path for path in asked if ".." in path or path.startswith("/")]


def test_votes_are_what_include_is_asked_about(mesh: Mesh) -> None:
    asked: list[int] = []
    exported(mesh, lambda entry: bool(asked.append(entry.kind)))
    assert set(asked) == {int(Kind.VOTE)}


def test_no_checkpoint_is_no_export() -> None:
    with pytest.raises(BadNote, match="no file"):
        Export({}.get)
