"""What each command on facts asks of the node, and what it makes of the answer."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.commands import Answer, Call
from node.commands_facts import MAX_TITLE_CHARS
from node.errors import Problem
from tests.node.command_line import call_for, perform
from tests.node.scripted_node import ScriptedNode, fact, listening, problem

ID = "k7q2m4zx5tvb3nya-17"
PATH = f"/v1/facts/{ID}"

Run = Callable[..., Answer]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with listening(tmp_path / "node.sock") as node:
        node.answer("POST", "/v1/facts", (201, fact()))
        node.answer("GET", PATH, fact())
        for method, path in (("PATCH", PATH), ("DELETE", PATH), ("POST", f"{PATH}/tags"), ("POST", f"{PATH}/links")):
            node.answer(method, path, fact())
        yield node


@pytest.fixture
def run(node: ScriptedNode, tmp_path: Path) -> Run:
    def run(*words: str, stdin: bytes = b"", **world: Any) -> Answer:
        return perform(call_for(tmp_path, *words, stdin=io.BytesIO(stdin), **world))

    return run


def asked(node: ScriptedNode) -> tuple[str, str, Any]:
    last = node.asked[-1]
    return last.method, last.path, last.body if last.body is not None else last.query


def test_store_sends_what_was_given_and_nothing_else(node: ScriptedNode, run: Run) -> None:
    answer = run("store", "The spare key is with Ada")
    assert asked(node) == ("POST", "/v1/facts", {"content": "The spare key is with Ada"})
    assert answer.document == fact()


def test_store_sends_every_field(node: ScriptedNode, run: Run) -> None:
    run(
        *("store", "x", "--project", "home", "--tag", "a", "--tag", "b", "--type", "event", "--source", "chat 7"),
        *(
            "--confidence",
            "guess",
            "--valid-from",
            "2026-01-31",
            "--valid-until",
            "2026-02-01",
            "--meta",
            '{"room": 1}',
        ),
    )
    assert asked(node)[2] == {
        "content": "x",
        "project": "home",
        "tags": ["a", "b"],
        "fact_type": "event",
        "source": "chat 7",
        "confidence": "guess",
        "valid_from": "2026-01-31T00:00:00.000Z",
        "valid_until": "2026-02-01T00:00:00.000Z",
        "meta": {"room": 1},
    }


def test_store_reads_stdin_without_the_line_end_of_echo(node: ScriptedNode, run: Run) -> None:
    run("store", "-", stdin="Grüße\n\nzwei\r\n".encode())
    assert asked(node)[2] == {"content": "Grüße\n\nzwei"}


def test_store_takes_a_body_whose_first_line_is_the_content(node: ScriptedNode, run: Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("\n# How to open the shed\nlift, then turn\n")
    run("store", "--body", str(notes))
    assert asked(node)[2] == {"content": "How to open the shed", "body": notes.read_text()}
    run("store", "Shed", "--body", "-", stdin=b"lift\n")
    assert asked(node)[2] == {"content": "Shed", "body": "lift\n"}
    run("store", "--body", "-", stdin=b"x" * 999)
    assert len(asked(node)[2]["content"]) == MAX_TITLE_CHARS


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (("store",), b"", "no_text"),
        (("store", "-", "--body", "-"), b"x", "stdin_twice"),
        (("store", "-"), b"\xff", "not_utf8"),
        (("store", "-"), b"x" * ((1 << 20) + 1), "input_too_long"),
        (("store", "x", "--body", "/nowhere/at/all"), b"", "file"),
        (("update", ID), b"", "nothing_to_change"),
        (("update", ID, "--if-version", "v"), b"", "nothing_to_change"),
        (("update", ID, "--edit", "--append", "x"), b"", "edit_and_text"),
        (("tag", ID), b"", "nothing_to_change"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_node_is_asked(
    node: ScriptedNode, run: Run, words: tuple[str, ...], stdin: bytes, code: str
) -> None:
    with pytest.raises(Problem) as caught:
        run(*words, stdin=stdin)
    assert caught.value.code == code
    assert caught.value.exit_code == 2
    assert caught.value.action
    assert not node.asked


def test_search(node: ScriptedNode, run: Run) -> None:
    node.answer("POST", "/v1/search", {"results": []})
    run("search", "spare key")
    assert asked(node) == ("POST", "/v1/search", {"query": "spare key", "top_k": 10})
    run(
        "search", "-", "-p", "home", "--type", "event", "--tag", "a", "-k", "3", "--as-of", "2026-01-31", stdin=b"key\n"
    )
    assert asked(node)[2] == {
        "query": "key",
        "project": "home",
        "fact_type": "event",
        "tags": ["a"],
        "top_k": 3,
        "as_of": "2026-01-31T00:00:00.000Z",
    }


def test_get(node: ScriptedNode, run: Run) -> None:
    run("get", ID)
    assert asked(node) == ("GET", PATH, {})
    run("get", ID, "--include-retracted")
    assert asked(node) == ("GET", PATH, {"include": "retracted"})


def test_an_id_may_hold_any_character(node: ScriptedNode, run: Run) -> None:
    with pytest.raises(Problem):
        run("get", "../status?x=1")
    assert node.asked[-1].path == "/v1/facts/..%2Fstatus%3Fx%3D1"


def test_history_graph_and_retract(node: ScriptedNode, run: Run) -> None:
    node.answer("GET", f"{PATH}/history", {"id": ID, "versions": []})
    node.answer("GET", f"/v1/graph/{ID}", {"nodes": [], "edges": [], "truncated": False})
    assert run("history", ID).document == {"id": ID, "versions": []}
    run("graph", ID)
    assert asked(node) == ("GET", f"/v1/graph/{ID}", {"depth": "2"})
    run("retract", ID, "--reason", "lock was changed")
    assert asked(node) == ("DELETE", PATH, {"reason": "lock was changed"})
    run("retract", ID)
    assert asked(node) == ("DELETE", PATH, {})


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (("new text",), {"content": "new text"}),
        (("--type", "event"), {"fact_type": "event"}),
        (("--source", ""), {"source": None}),
        (("--valid-until", "none"), {"valid_until": None}),
        (("--valid-until", "2026-01-31"), {"valid_until": "2026-01-31T00:00:00.000Z"}),
        (("--tag", "a", "--tag", "b"), {"tags": ["a", "b"]}),
        (("--tag", ""), {"tags": []}),
        (("--append", " and more"), {"append": " and more"}),
        (("--restore",), {"restore": True}),
        (("x", "--if-version", "8c1f"), {"content": "x", "if_version": "8c1f"}),
    ],
)
def test_update_changes_what_is_named(node: ScriptedNode, run: Run, words: tuple[str, ...], changes: Any) -> None:
    run("update", ID, *words)
    assert asked(node) == ("PATCH", PATH, changes)
    assert len(node.asked) == 1


def test_update_reads_stdin_and_files(node: ScriptedNode, run: Run, tmp_path: Path) -> None:
    run("update", ID, "-", stdin=b"new\n")
    assert asked(node)[2] == {"content": "new"}
    run("update", ID, "--append", "-", stdin=b"more\n")
    assert asked(node)[2] == {"append": "more\n"}
    (tmp_path / "body").write_text("all\n")
    run("update", ID, "--body", str(tmp_path / "body"))
    assert asked(node)[2] == {"body": "all\n"}


def test_single_tags_are_added_and_removed_after_the_other_changes(node: ScriptedNode, run: Run) -> None:
    run("update", ID, "x", "--add-tag", "a", "--remove-tag", "b")
    assert [(one.method, one.path, one.body) for one in node.asked] == [
        ("PATCH", PATH, {"content": "x"}),
        ("POST", f"{PATH}/tags", {"add": ["a"], "remove": ["b"]}),
    ]
    run("update", ID, "--add-tag", "a")
    assert asked(node) == ("POST", f"{PATH}/tags", {"add": ["a"], "remove": []})
    run("tag", ID, "--remove", "b", "--remove", "c")
    assert asked(node) == ("POST", f"{PATH}/tags", {"add": [], "remove": ["b", "c"]})


def test_links(node: ScriptedNode, run: Run) -> None:
    run("link", ID, "depends-on", "x-4")
    assert asked(node) == ("POST", f"{PATH}/links", {"relation": "depends-on", "to": "x-4", "remove": False})
    run("unlink", ID, "depends-on", "x-4")
    assert asked(node)[2]["remove"] is True


def test_list(node: ScriptedNode, run: Run) -> None:
    for project in ("%2A", "team%2Fa"):
        node.answer("GET", f"/v1/projects/{project}/facts", {"facts": [], "next_cursor": None})
    run("list")
    assert asked(node) == ("GET", "/v1/projects/%2A/facts", {"limit": "100"})
    run("list", "--project", "team/a", "--limit", "5", "--cursor", "c", "--include-retracted")
    assert asked(node)[1:] == ("/v1/projects/team%2Fa/facts", {"limit": "5", "cursor": "c", "include": "retracted"})


def editor(write: Callable[[str], str], code: int = 0) -> Callable[[list[str]], int]:
    def start(words: list[str]) -> int:
        path = Path(words[-1])
        path.write_text(write(path.read_text()))
        return code

    return start


def drafts_left(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "tmp").iterdir())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path


def test_an_edit_is_sent_with_the_body_it_was_made_from(node: ScriptedNode, run: Run, temporary: Path) -> None:
    node.answer("GET", PATH, fact(body="one\n", has_body=True, body_token="t1"))
    run("update", ID, "--edit", "--type", "idea", start=editor(lambda text: text + "two\n"))
    assert asked(node) == ("PATCH", PATH, {"fact_type": "idea", "body": "one\ntwo\n", "body_base": "t1"})
    assert not drafts_left(temporary)


def test_a_first_body_has_no_base(node: ScriptedNode, run: Run, temporary: Path) -> None:
    run("update", ID, "--edit", start=editor(lambda text: "first"))
    assert asked(node)[2] == {"body": "first"}


def test_an_edit_that_changes_nothing_sends_nothing(node: ScriptedNode, run: Run, temporary: Path) -> None:
    run("update", ID, "--edit", start=editor(lambda text: text))
    assert [one.method for one in node.asked] == ["GET"]
    assert not drafts_left(temporary)


def test_the_editor_is_the_users(node: ScriptedNode, run: Run, temporary: Path) -> None:
    started = []

    def start(words: list[str]) -> int:
        started.append(words[:-1])
        return 0

    run("update", ID, "--edit", environ={"EDITOR": "nano", "VISUAL": "code --wait"}, start=start)
    run("update", ID, "--edit", environ={"EDITOR": "nano"}, start=start)
    run("update", ID, "--edit", environ={}, start=start)
    assert started == [["code", "--wait"], ["nano"], ["vi"]]


def test_an_editor_that_fails_changes_nothing(node: ScriptedNode, run: Run, temporary: Path) -> None:
    with pytest.raises(Problem, match="ended with code 1"):
        run("update", ID, "--edit", start=editor(lambda text: "half", code=1))
    with pytest.raises(Problem, match="can't be started"):
        run("update", ID, "--edit", environ={"EDITOR": str(temporary / "no-such-editor")})
    assert [one.method for one in node.asked] == ["GET", "GET"]
    assert not drafts_left(temporary)


def test_no_word_is_lost_when_the_node_refuses_an_edit(node: ScriptedNode, run: Run, temporary: Path) -> None:
    node.answer("PATCH", PATH, (507, problem(507, "full", "the disk is full", "free some space")))
    with pytest.raises(Problem) as caught:
        run("update", ID, "--edit", start=editor(lambda text: "hours of work"))
    (kept,) = drafts_left(temporary)
    assert kept.read_text() == "hours of work"
    assert str(kept) in caught.value.action
    assert kept.stat().st_mode & 0o077 == 0


def test_answers_are_json(run: Run) -> None:
    json.dumps(run("get", ID).document)


def test_a_call_connects_only_when_it_asks(tmp_path: Path) -> None:
    assert isinstance(call_for(tmp_path, "get", "x"), Call)
