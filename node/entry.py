"""Where `cortex-node` begins: `cortex-node mcp` goes straight to the pipe, everything else to the command line.

An MCP client starts a pipe for each of its sessions and keeps it: what is imported here is paid for by all of them. So
this module knows neither argparse nor pathlib, and reads of the arguments only the forms that clients use:
`[--home DIR] mcp [--home DIR]`. Any other goes through node/cli.py, which ends up in the same pipe.

Tests: tests/node/test_entry.py.
"""

import os
import sys
from collections.abc import Mapping, Sequence


def main() -> int:
    """Run one command and return its exit code."""
    home = pipe_home(sys.argv[1:], os.environ)
    if home is None:
        from node.cli import main as command_line

        return command_line()
    return pipe(home)


def pipe(home: str) -> int:
    """Be the pipe between an MCP client and the node in `home`, until the client ends."""
    from mcp_edge import shim

    return shim.run(home, node_program(home))


def node_program(home: str) -> list[str]:
    """The program that a pipe starts when no node runs. -P: a folder `node` where the client runs is not ours."""
    return [sys.executable, "-P", "-m", "node.entry", "--home", home, "run", "--init", "--on-demand"]


def pipe_home(words: Sequence[str], environ: Mapping[str, str], platform: str = sys.platform) -> str | None:
    """The home that `cortex-node WORDS` names when it is the pipe; None when it is another command.

    The same as node.paths.default_home, without pathlib.
    """
    told = ""
    rest = []
    following = iter(words)
    for word in following:
        if word == "--home":
            told = next(following, "")
        elif word.startswith("--home="):
            told = word.partition("=")[2]
        else:
            rest.append(word)
    if rest != ["mcp"] or (not told and "--home" in words):
        return None
    told = told or environ.get("CORTEX_HOME", "")
    user = os.path.expanduser("~")
    if told:
        return os.path.abspath(os.path.expanduser(told))
    if platform == "darwin":
        return os.path.join(user, "Library", "Application Support", "cortex-node")
    data = environ.get("XDG_DATA_HOME", "")
    return os.path.join(data if os.path.isabs(data) else os.path.join(user, ".local", "share"), "cortex-node")


if __name__ == "__main__":
    sys.exit(main())
