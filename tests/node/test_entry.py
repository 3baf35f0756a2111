"""Which words are the pipe, and that it finds the same home as the command line does."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_edge import shim, starting
from node.config import PREFIX
from node.entry import node_program, pipe_home
from node.paths import Home, default_home

ENVIRONMENTS = [
    {name: value for name, value in zip(("CORTEX_HOME", "XDG_DATA_HOME"), values, strict=True) if value is not None}
    for values in itertools.product((None, "", "/a/home", "~/b"), (None, "", "/xdg", "relative"))
]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=str)
def test_the_home_is_the_one_that_every_command_uses(environ: dict[str, str], platform: str) -> None:
    told = default_home(environ, Path("~").expanduser(), platform).absolute()
    assert pipe_home(["mcp"], environ, platform) == str(told)


@pytest.mark.parametrize("words", [["--home", "/h", "mcp"], ["mcp", "--home", "/h"], ["--home=/h", "mcp"]])
def test_a_home_may_be_named_before_and_after(words: list[str]) -> None:
    assert pipe_home(words, {}) == "/h"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["status"],
        ["mcp", "install", "claude"],
        ["mcp", "--help"],
        ["--json", "mcp"],
        ["mcp", "--home"],
        ["--home", "mcp"],
    ],
)
def test_anything_else_is_the_command_lines(words: list[str]) -> None:
    assert pipe_home(words, {}) is None


def test_names_that_two_modules_have_are_the_same(tmp_path: Path) -> None:
    assert Home(tmp_path).mcp_socket.name == shim.SOCKET_NAME
    assert starting.LOG_NAME not in {path.name for path in Home(tmp_path).secrets}


def test_the_program_that_runs_a_node_is_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [*node_program(str(tmp_path)), "--help"],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0 and "--on-demand" in done.stdout


def test_a_node_that_may_not_be_started_says_how_to_start_it(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), PREFIX + "MCP_AUTOSTART": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "node.entry", "--home", str(tmp_path / "h"), "mcp"],
        input='{"jsonrpc":"2.0","id":1,"method":"initialize"}\n', capture_output=True, text=True, env=environ,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "autostart" in done.stderr and "cortex-node run" in done.stderr
    assert '"id":1,"error"' in done.stdout and "autostart" in done.stdout
