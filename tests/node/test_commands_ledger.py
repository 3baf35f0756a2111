"""Commands on the ledger: against a scripted node, and without any on the files of a real ledger."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import log
from node import cli, commands_ledger, identity
from node.commands import Answer
from node.errors import EXIT_INTEGRITY, EXIT_OK, Problem
from node.page import Page, write
from node.voting import exports, reads
from tests.node.command_line import call_for, perform
from tests.node.scripted_node import Asked, ScriptedNode, listening, problem
from tests.node.voting.ledger_on_disk import LedgerOnDisk

SIZE = 3 + 3 + 270
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Run = Callable[..., Answer]


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerOnDisk]:
    made = LedgerOnDisk(tmp_path_factory.mktemp("hub") / "home")
    made.vote(3)
    for _ in range(3):
        made.vote(90)
    yield made
    made.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with listening(tmp_path / "node.sock") as node:
        yield node


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda *words, **more: perform(call_for(tmp_path, *words, **more))


def shown(answer: Answer) -> str:
    page, stream = Page(), io.StringIO()
    assert answer.show
    answer.show(page, answer.document)
    write(page, stream, {})
    return stream.getvalue()


def export_of(ledger: LedgerOnDisk, **more: Any) -> bytes:
    pieces = exports.packed(exports.files(ledger.connection, ledger.place, **more), 0)
    return HEAD + chunks(*pieces) + b"0\r\n\r\n"


@pytest.fixture
def exported(ledger: LedgerOnDisk, node: ScriptedNode, run: Run, tmp_path: Path) -> Path:
    node.answer("GET", "/v1/ledger/export", export_of(ledger))
    assert run("ledger", "export", str(tmp_path / "export")).code == EXIT_OK
    return tmp_path / "export"


# Reads


@pytest.mark.parametrize("words", [("ledger", "status"), ("vote-ledger", "status")])
def test_a_read_is_a_hub_s_unless_it_is_to_be_local(
    ledger: LedgerOnDisk, node: ScriptedNode, run: Run, words: tuple[str, ...]
) -> None:
    node.answer("GET", "/v1/ledger/status", reads.status(ledger.connection, ledger.place))
    assert "276, 273 of them votes" in shown(run(*words))
    run(*words, "--local")
    assert [asked.query for asked in node.asked] == [{}, {"read": "local"}]


def test_a_checkpoint_is_printed_as_it_was_signed(ledger: LedgerOnDisk, node: ScriptedNode, run: Run) -> None:
    said = reads.checkpoint(ledger.connection, ledger.place)
    node.answer("GET", "/v1/ledger/checkpoint", said)
    assert shown(run("ledger", "checkpoint")) == said["checkpoint"]


def test_entries_are_paged(ledger: LedgerOnDisk, node: ScriptedNode, run: Run) -> None:
    node.answer("GET", "/v1/ledger/entries", lambda asked: _page(ledger, asked))
    first = shown(run("ledger", "entries", "--limit", "4"))
    assert "name owner" in first and "epoch 1, engine solo" in first and "+1 on fact-1 (garden)" in first
    assert "--start 4" in first and "--start" not in shown(run("ledger", "entries", "--start", str(SIZE - 1)))


def _page(ledger: LedgerOnDisk, asked: Asked) -> Any:
    return reads.entry_page(ledger.connection, int(asked.query["start"]), int(asked.query["limit"]))


def test_a_receipt_goes_to_a_file_whole_or_to_stdout(
    ledger: LedgerOnDisk, node: ScriptedNode, run: Run, tmp_path: Path
) -> None:
    said = reads.proof(ledger.connection, 7)
    node.answer("GET", "/v1/ledger/proof/7", said)
    assert shown(run("ledger", "proof", "7")) == said["receipt"]
    path = tmp_path / "7.tlog-proof"
    assert "entry 7 of 276" in shown(run("ledger", "proof", "7", "--out", str(path)))
    assert path.read_text() == said["receipt"]
    with pytest.raises(Problem) as refused:
        run("ledger", "proof", "7", "--out", str(tmp_path / "nowhere" / "7"))
    assert refused.value.code == "file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7.tlog-proof", "node.sock"]


# Verification of this node's ledger


def result(**more: Any) -> dict[str, Any]:
    found = {"ok": True, "checked": 9, "votes": 6, "signatures": 9, "size": 9, "root": "ab", "whole": True}
    return found | {"findings": []} | more


def test_the_node_verifies_its_own_and_tells_how_far_it_is(node: ScriptedNode, run: Run, tmp_path: Path) -> None:
    lines = [b'{"checked":4,"size":9}\n', json.dumps(result()).encode() + b"\n"]
    node.answer("POST", "/v1/ledger/verify", HEAD + chunks(*lines) + b"0\r\n\r\n")
    (tmp_path / "policy").write_text("policy text")
    (tmp_path / "kept").write_text("note text")
    answer = run("ledger", "verify", "--policy", str(tmp_path / "policy"), "--checkpoint", str(tmp_path / "kept"))
    assert answer.code == EXIT_OK and shown(answer).startswith("ok: 9 entries, 6 of them votes, 9 signatures")
    assert node.asked[0].body == {"policy": "policy text", "checkpoint": "note text"}
    assert node.asked[0].headers["Accept"] == "application/jsonl"


def test_findings_have_an_exit_code_of_their_own(node: ScriptedNode, run: Run) -> None:
    findings = [{"index": 3, "code": "leaf", "detail": "not its hash"}, {"index": None, "code": "root", "detail": "x"}]
    line = json.dumps(result(ok=False, findings=findings)).encode()
    node.answer("POST", "/v1/ledger/verify", HEAD + chunks(line) + b"0\r\n\r\n")
    answer = run("ledger", "verify")
    assert answer.code == EXIT_INTEGRITY
    assert shown(answer).splitlines()[:2] == ["entry 3: leaf: not its hash", "the ledger: root: x"]


@pytest.mark.parametrize(
    "end", [chunks(b'{"checked":4,"size":9}\n') + b"0\r\n\r\n", chunks(b'{"checked":4,"size":9}\n')]
)
def test_a_verification_that_is_broken_off_found_nothing(node: ScriptedNode, run: Run, end: bytes) -> None:
    node.answer("POST", "/v1/ledger/verify", HEAD + end)
    with pytest.raises(Problem) as refused:
        run("ledger", "verify")
    assert refused.value.code == "answer_cut"


def test_a_bar_is_drawn_on_a_terminal_for_long_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for size, drawn in ((commands_ledger.LONG - 1, False), (10 * commands_ledger.LONG, True)):
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        monkeypatch.setenv("TERM", "xterm")
        with commands_ledger._bar() as tell:
            for checked in range(0, size, 1_000):
                tell(checked, size)
        assert ("verifying" in terminal.getvalue()) == drawn


# Exports and receipts, without a node


def test_an_export_is_written_checked_and_can_be_checked_again(
    ledger: LedgerOnDisk, exported: Path, run: Run, tmp_path: Path
) -> None:
    answer = run("ledger", "verify", str(exported))
    assert answer.code == EXIT_OK and answer.document["checked"] == SIZE and "against itself" in shown(answer)
    answer = run("ledger", "verify", str(exported), "--policy", str(exported / "policy"))
    assert answer.code == EXIT_OK and "against itself" not in shown(answer)
    (tmp_path / "kept").write_bytes(ledger.table.checkpoints()[1])
    answer = run("ledger", "verify", str(exported), "--checkpoint", str(tmp_path / "kept"))
    assert answer.code == EXIT_OK and answer.document["kept"]


def test_a_flipped_bit_in_an_export_is_exit_code_3(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = exported / "tile/entries/000"
    data = bytearray(path.read_bytes())
    data[100 * 148 + 60] ^= 1
    path.write_bytes(data)
    assert cli.main(["ledger", "verify", str(exported)]) == EXIT_INTEGRITY
    assert "entry 100: leaf" in capsys.readouterr().out
    assert cli.main(["ledger", "verify", str(exported), "--json"]) == EXIT_INTEGRITY
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_an_export_of_one_project_asks_for_it(
    ledger: LedgerOnDisk, node: ScriptedNode, run: Run, tmp_path: Path
) -> None:
    node.answer("GET", "/v1/ledger/export", export_of(ledger, project="garden"))
    answer = run("ledger", "export", str(tmp_path / "some"), "--project", "garden")
    assert answer.code == EXIT_OK and node.asked[0].query == {"project": "garden"}
    assert "276 entries in" in shown(answer)


def test_an_export_that_is_damaged_on_its_way_is_told(
    ledger: LedgerOnDisk, node: ScriptedNode, run: Run, tmp_path: Path
) -> None:
    files = dict(exports.files(ledger.connection, ledger.place))
    files["text/000"] = files["text/000"].replace(b"fact-1", b"fact-9", 1)
    node.answer("GET", "/v1/ledger/export", HEAD + chunks(*exports.packed(files.items(), 0)) + b"0\r\n\r\n")
    answer = run("ledger", "export", str(tmp_path / "export"))
    assert answer.code == EXIT_INTEGRITY and "text" in shown(answer)


def test_an_export_that_is_refused_or_cut_off_leaves_no_export(
    ledger: LedgerOnDisk, node: ScriptedNode, run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    node.answer("GET", "/v1/ledger/export", (409, problem(409, "not_whole", "gaps", "ask a hub")))
    with pytest.raises(Problem) as refused:
        run("ledger", "export", str(folder))
    assert refused.value.code == "not_whole" and not folder.exists()
    whole = export_of(ledger)
    node.answer("GET", "/v1/ledger/export", whole[: len(whole) // 2])
    with pytest.raises(Problem) as refused:
        run("ledger", "export", str(folder))
    assert refused.value.code == "answer_cut" and not (folder / "checkpoint").exists()
    with pytest.raises(Problem) as refused:
        run("ledger", "export", str(folder))
    assert refused.value.code == "not_empty"


def test_a_receipt_is_checked_under_a_policy(ledger: LedgerOnDisk, exported: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "5.tlog-proof"
    path.write_bytes(log.receipt(ledger.table, 5))
    with pytest.raises(Problem) as refused:
        run("ledger", "verify", str(path))
    assert refused.value.code == "policy_needed"
    policy = ("--policy", str(exported / "policy"))
    answer = run("ledger", "verify", str(path), *policy)
    assert answer.code == EXIT_OK and "entry 5 is in a ledger of 276 entries" in shown(answer)
    path.write_bytes(path.read_bytes().replace(b"index 5", b"index 6"))
    assert run("ledger", "verify", str(path), *policy).code == EXIT_INTEGRITY


def test_on_a_node_s_own_machine_its_grant_is_the_policy(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    path = tmp_path / "5.tlog-proof"
    path.write_bytes(log.receipt(ledger.table, 5))
    assert perform(call_for(ledger.me.home.path, "ledger", "verify", str(path))).code == EXIT_OK


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("{tmp}/nothing",), "file"),
        (("{tmp}/text",), "not_a_receipt"),
        (("{tmp}", "--policy", "{tmp}/text"), "bad_policy"),
        (("{tmp}", "--checkpoint", "{tmp}/text"), "bad_checkpoint"),
        (("{tmp}", "--policy", "{tmp}/nothing"), "file"),
        (("{tmp}/large",), "input_too_long"),
        (("--tsa-cert", "{tmp}/text"), "usage"),
        (("--policy", "{tmp}/latin"), "not_utf8"),
    ],
)
def test_what_cannot_be_checked_is_told(run: Run, tmp_path: Path, words: tuple[str, ...], code: str) -> None:
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "latin").write_bytes(b"\xe4")
    (tmp_path / "large").write_bytes(bytes(commands_ledger.MAX_FILE_BYTES + 1))
    with pytest.raises(Problem) as refused:
        run("ledger", "verify", *(word.format(tmp=tmp_path) for word in words))
    assert refused.value.code == code and refused.value.action


# What changes something


def test_a_takeover_is_explained_and_asked_for(
    ledger: LedgerOnDisk, node: ScriptedNode, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    node.answer("GET", "/v1/ledger/status", reads.status(ledger.connection, ledger.place))
    node.answer("POST", "/v1/ledger/takeover", {"epoch": 2, "start": 9, "abandoned": 3})
    with pytest.raises(Problem) as refused:  # nobody to ask
        run("ledger", "takeover")
    assert refused.value.code == "usage" and "--yes" in refused.value.action

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(Problem) as refused:
        run("ledger", "takeover", stdin=io.BytesIO(b"no\n"))
    assert refused.value.code == "not_agreed"
    assert "gone for good" in capsys.readouterr().err
    assert {asked.method for asked in node.asked} == {"GET"}
    answer = run("ledger", "takeover", stdin=io.BytesIO(b"yes\n"))
    assert "epoch 2, from entry 9 on" in shown(answer) and "3 entries lost" in shown(answer)
    assert node.asked[-1].body == {"abandon": False}


def test_a_takeover_takes_the_key_from_a_file(
    ledger: LedgerOnDisk, node: ScriptedNode, run: Run, tmp_path: Path
) -> None:
    node.answer("POST", "/v1/ledger/takeover", {"epoch": 2, "start": 9, "abandoned": 0})
    key = ledger.me.home.ca_key
    answer = run("ledger", "takeover", "--ca-key", str(key), "--abandon", "--yes")
    assert node.asked[-1].body == {"ca_seed": identity.read_seed(key).hex(), "abandon": True}
    assert "lost" not in shown(answer)
    with pytest.raises(Problem, match="is not there") as caught:
        run("ledger", "takeover", "--ca-key", str(tmp_path / "none"), "--yes")
    assert "ca.key" in caught.value.action


def test_a_stamp_is_told(node: ScriptedNode, run: Run) -> None:
    node.answer("POST", "/v1/ledger/anchor", {"size": 9, "stamped_at": "2026-05-11T08:30:00.000Z"})
    assert shown(run("ledger", "anchor")) == "the checkpoint of 9 entries was stamped at 2026-05-11 08:30:00Z\n"
