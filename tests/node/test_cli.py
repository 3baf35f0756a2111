"""The command line as a whole: what goes where, how it ends, and what it imports."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node import __version__, cli
from node.cli import COMMANDS, main
from node.errors import Problem
from tests.node.scripted_node import ScriptedNode, fact, listening, problem

ID = "k7q2m4zx5tvb3nya-17"
NOT_RUNNING = "the node is not running"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("CORTEX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CORTEX_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def node(home: Path) -> Iterator[ScriptedNode]:
    with listening(home / "node.sock") as node:
        node.answer("GET", f"/v1/facts/{ID}", fact())
        node.answer("POST", "/v1/facts", (201, fact()))
        yield node


Capture = pytest.CaptureFixture[str]


def test_people_get_text_and_scripts_get_json(node: ScriptedNode, capsys: Capture) -> None:
    assert main(["get", ID]) == 0
    text = capsys.readouterr()
    assert text.out.startswith(f"{ID}\nThe spare key is with Ada\n")
    assert main(["get", ID, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == fact()


@pytest.mark.parametrize(
    "words",
    [
        ["--home", "HOME", "--json", "get", ID],
        ["get", "--home", "HOME", ID, "--json"],
        ["--json", "get", ID, "--home=HOME"],
    ],
)
def test_global_options_stand_before_or_after_the_command(
    node: ScriptedNode, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str]
) -> None:
    monkeypatch.setenv("CORTEX_HOME", "/nowhere")
    assert main([word.replace("HOME", str(home)) for word in words]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == ID


def test_global_options_reach_commands_of_two_words(capsys: Capture, home: Path) -> None:
    for words in (
        ["--json", "peers", "add", "hub:1"],
        ["peers", "--json", "add", "hub:1"],
        ["peers", "add", "hub:1", "--json"],
    ):
        assert main(words) == 4
        assert json.loads(capsys.readouterr().out)["code"] == "not_running"


def test_without_a_node_the_exit_code_says_so(capsys: Capture) -> None:
    assert main(["get", ID]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "cortex-node: the node is not running\n  start it with: cortex-node run\n"


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 1), (403, 1), (404, 1), (409, 1), (410, 1), (413, 2), (422, 2), (429, 5), (503, 5), (507, 5)],
)
def test_exit_codes_of_what_the_node_refuses(node: ScriptedNode, capsys: Capture, status: int, code: int) -> None:
    node.answer("GET", f"/v1/facts/{ID}", (status, problem(status, "some_code", "no", "do this")))
    assert main(["get", ID, "--json"]) == code
    said = capsys.readouterr()
    assert json.loads(said.out)["code"] == "some_code"
    assert said.err == "cortex-node: no\n  do this\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command was given"),
        (["serch", "x"], "did you mean search?"),
        (["get"], "arguments are required: ID"),
        (["get", ID, "--jsn"], "unrecognized arguments: --jsn"),
        (["get", ID, "--js"], "unrecognized arguments: --js"),
        (["search", "x", "--as-of", "yesterday"], "--as-of: 'yesterday' is not a time"),
        (["search", "x", "-k", "0"], "not a whole number from 1 to 500"),
        (["store", "x", "--meta", "[]"], "--meta: not a JSON object"),
        (["invite", "--ttl", "10"], "--ttl: '10' is not a span of time"),
        (["invite", "--role", "admim"], "did you mean admin?"),
        (["vote", ID, "yes"], "it is one of: up, down, withdraw; see: cortex-node vote --help"),
        (["peers", "add", "hub"], "HOST:PORT"),
        (["import"], "arguments are required: FORMAT"),
        (["run", "--store-max-mb", "1"], "--store-max-mb"),
        (["status", "--watch", "--json"], "--watch"),
    ],
)
def test_what_is_typed_wrong_ends_with_2_and_a_way_on(capsys: Capture, words: list[str], message: str) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("cortex-node: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 2
    assert bool(said.out) is ("--json" in words)


def test_relative_times_need_no_equals_sign(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.answer("POST", "/v1/search", {"results": []})
    assert main(["search", "key", "--as-of", "-3d", "-k", "5"]) == 0
    assert main(["search", "key", "--as-of=-3d"]) == 0
    assert main(["store", "--valid-from", "-1h", "--valid-until", "2h", "--", "--as-of"]) == 0
    assert [asked.body.get("top_k") for asked in node.asked] == [5, 10, None]
    assert node.asked[2].body["content"] == "--as-of"
    assert node.asked[2].body["valid_from"] < node.asked[2].body["valid_until"]


def test_text_may_come_from_stdin(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße\n".encode())))
    assert main(["store", "-"]) == 0
    assert node.asked[0].body == {"content": "Grüße"}
    assert capsys.readouterr().out == f"{ID}\n"


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main(["status"]) == 130


def test_watching_goes_on_until_interrupted(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    status = {"node": dict.fromkeys(["id", "name", "version", "profile", "pid"], "x") | {"uptime_s": 1}}
    status |= {"resources": {"rss_bytes": 1, "store_bytes": 1}, "projects": [], "peers": [], "warnings": []}
    node.answer("GET", "/v1/status", status)

    def wait(*_: Any) -> None:
        if len(node.asked) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.select, "select", wait)
    assert main(["status", "--watch"]) == 130
    assert len(node.asked) == 3
    assert "\x1b" not in capsys.readouterr().out


def test_help_tells_every_command_and_the_exit_codes(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        if " " not in command.name:
            assert command.summary in " ".join(text.split())
    assert [line.split()[0] for line in text.partition("exit codes:")[2].splitlines()[1:]] == "0 1 2 3 4 5 130".split()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_a_command_has_an_example(capsys: Capture, command: Any) -> None:
    assert main([*command.name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert command.example in text
    assert "--json" in text


def test_the_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cortex-node {__version__}\n"


def test_the_home_is_absolute_and_may_start_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli._home("~/n").path == tmp_path / "n"
    assert cli._home("n").path == tmp_path / "n"
    assert cli._home(None).path == tmp_path
    monkeypatch.delenv("CORTEX_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert cli._home(None).path == cli.default_home({}, tmp_path)


def test_a_user_without_a_home_directory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CORTEX_HOME")
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(Problem, match="no home directory"):
        cli._home(None)


def command(*words: str, **options: Any) -> "subprocess.Popen[bytes]":
    code = "import sys; from node.cli import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *words], **options)


def test_a_closed_pipe_is_quiet(node: ScriptedNode) -> None:
    many = {"facts": [fact(id=str(n)) for n in range(2000)], "next_cursor": None}
    node.answer("GET", "/v1/projects/%2A/facts", many)
    for words in (["list"], ["list", "--json"]):
        with command(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stderr
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


def test_a_terminal_that_is_not_utf8_gets_escapes(node: ScriptedNode) -> None:
    node.answer("GET", f"/v1/facts/{ID}", fact(content="Grüße, 世界"))
    environ = os.environ | {"PYTHONIOENCODING": "latin-1"}
    with command("get", ID, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert "Grüße".encode("latin-1") + rb", \u4e16\u754c" in out


HEAVY = ("aiohttp", "asyncio", "cryptography", "msgspec", "nacl", "numpy", "pycrdt", "rich", "sqlite3", "tomllib")


@pytest.mark.parametrize(
    "words", [["--help"], ["get", ID], ["get", ID, "--json"], ["search", "x"], ["store", "x"]], ids=str
)
def test_a_command_imports_only_what_it_needs(node: ScriptedNode, words: list[str]) -> None:
    code = (
        "import sys; from node.cli import main; code = main(sys.argv[1:]);"
        f"found = [name for name in {HEAVY} if name in sys.modules]; assert not found, found; sys.exit(code)"
    )
    node.answer("POST", "/v1/search", {"results": []})
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)
