"""What the commands do that concern the node itself: found, enrol, run, look after, configure, peers.

A command is a function from a `Call` to an `Answer`: a JSON document in the shape of the API, and how to show it to
people. Commands print nothing and never exit; what goes wrong is a Problem. Most are one call over the node's socket;
`init`, `join`, `config`, `doctor` and `run` work without a running node. Libraries that cost time to import are
imported by the command that needs them.

The commands on facts are in node/commands_facts.py, those on files of facts in node/commands_files.py; the table that
names them all is in node/cli_commands.py. Tests: tests/node/test_commands.py.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from node import render
from node.errors import EXIT_FAILED, EXIT_OK, Problem
from node.page import Page
from node.paths import Home

if TYPE_CHECKING:
    from node.client import Client

MAX_INPUT_BYTES = 1 << 20
"""Of text read from stdin or from a file: the longest body that a fact may have."""


@dataclass
class Call:
    """One command as it was given, with the world around it."""

    args: Namespace
    home: Home
    environ: Mapping[str, str]
    now_ms: int
    stdin: IO[bytes]
    stdout: IO[bytes]
    start: Callable[[list[str]], int] | None = None  # how to run an editor; None: on this terminal

    @cached_property
    def client(self) -> "Client":
        from node.client import Client

        return Client(self.home.socket)

    def text(self, path: str) -> str:
        """The text of a file, or of stdin for `-`. Raises Problem when it is too long, not UTF-8, or can't be read."""
        name = "stdin" if path == "-" else path
        try:
            if path == "-":
                data = self.stdin.read(MAX_INPUT_BYTES + 1)
            else:
                with Path(path).expanduser().open("rb") as file:
                    data = file.read(MAX_INPUT_BYTES + 1)
            if len(data) > MAX_INPUT_BYTES:
                action = "split it over several facts and link them"
                raise Problem(413, "input_too_long", f"{name} has more than {MAX_INPUT_BYTES:,} bytes", action)
            return data.decode()
        except OSError as error:
            raise unreadable(name, error) from error
        except UnicodeDecodeError as error:
            raise Problem(400, "not_utf8", f"{name} is not UTF-8: {error}", "convert it, for example: iconv") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has to say. `show` is None when it has said everything already."""

    document: Any
    show: Callable[[Page, Any], None] | None
    code: int = EXIT_OK


def unreadable(name: str, error: OSError) -> Problem:
    """The problem of a file that can't be read or written."""
    return Problem(400, "file", f"{name}: {error.strerror or error}", "check the path, its permissions and the disk")


def init(call: Call) -> Answer:
    """Found a mesh."""
    from node import app

    return Answer(app.found(call.home.path, _name(call), hub=not call.args.no_hub), render.founded)


def join(call: Call) -> Answer:
    """Enrol this machine with the code of an invitation. The addresses of the first peers go into node.toml."""
    import asyncio

    from node import config, enrol

    name = _name(call)
    code = call.text("-").strip() if call.args.code == "-" else call.args.code
    joined = asyncio.run(enrol.join(call.home, code, name, call.now_ms))
    document = {
        "node": joined.identity.node_id,
        "name": joined.member.name,
        "mesh": joined.identity.mesh_id.hex(),
        "role": str(joined.member.role),
        "home": str(call.home.path),
        "peers": list(joined.peers),
        "peers_written": config.write_template(call.home, name=name, peers=joined.peers),
    }
    return Answer(document, render.joined)


def run(call: Call) -> Answer:
    """Run the node until it is stopped."""
    from node import config

    settings = _flags(call)
    wanted = config.load(call.home, call.environ, settings)  # complains before anything is made
    if call.args.on_demand and not wanted.mcp_autostart:
        action = "start it with: cortex-node run; or allow it: set autostart = true under [mcp] in node.toml"
        raise Problem(
            403, "no_autostart", f"the node in {call.home.path} doesn't run, and mcp.autostart is off", action
        )
    from node import app

    if not call.home.founded:
        if not call.args.init:
            action = "found a mesh with: cortex-node init; or join one with: cortex-node join CODE"
            raise Problem(404, "no_node", f"there is no node in {call.home.path}", action)
        app.found(call.home.path, wanted.name)
    return Answer(None, None, app.run(call.home.path, settings))


def invite(call: Call) -> Answer:
    """Draw up a one-time invitation."""
    wanted = {"role": call.args.role, "projects": call.args.project or ["*"], "ttl_s": call.args.ttl}
    return Answer(call.client.call("POST", "/v1/invitations", wanted), render.invitation)


def status(call: Call) -> Answer:
    """How the node, its peers and its resources are."""
    return Answer(call.client.call("GET", "/v1/status"), render.status)


def doctor(call: Call) -> Answer:
    """Check the installation."""
    from node import doctor

    checks = doctor.examine(call.home, call.environ)
    failed = any(check.state == doctor.FAILED for check in checks)
    document = {"ok": not failed, "checks": [doctor.document(check) for check in checks]}
    return Answer(document, render.checks, EXIT_FAILED if failed else EXIT_OK)


def config(call: Call) -> Answer:
    """The effective settings, or a commented node.toml."""
    from node import config

    if call.args.template:
        return Answer({"template": config.template()}, render.template)
    settings = [
        {
            "key": setting.key.name,
            "value": setting.value,
            "source": setting.source,
            "default": setting.key.default,
            "unit": setting.key.kind.unit or None,
            "expected": setting.key.kind.expected,
            "doc": setting.key.doc,
            "variable": setting.key.variable,
        }
        for setting in config.effective(call.home, call.environ, _flags(call))
    ]
    return Answer({"home": str(call.home.path), "file": str(call.home.config), "settings": settings}, render.settings)


def peers(call: Call) -> Answer:
    """The peers that this node knows."""
    return Answer(call.client.call("GET", "/v1/peers"), render.peers)


def peers_add(call: Call) -> Answer:
    """Keep a connection to another node."""
    return Answer(call.client.call("POST", "/v1/peers", {"address": call.args.address}), _done("added", call))


def peers_remove(call: Call) -> Answer:
    """Forget an address."""
    from node.client import segment

    return Answer(call.client.call("DELETE", f"/v1/peers/{segment(call.args.address)}"), _done("removed", call))


def sync(call: Call) -> Answer:
    """Run a round now, with one peer or with all."""
    document = call.client.call("POST", "/v1/sync", {"peer": call.args.peer} if call.args.peer else {})
    # A peer that is offline is nothing unusual; that no round came about at all is what a script wants to know.
    reached = any(not round_["reason"] for round_ in document["rounds"]) or not document["rounds"]
    return Answer(document, render.rounds, EXIT_OK if reached else EXIT_FAILED)


def _name(call: Call) -> str:
    """What the node will be called: --name, else what the settings say, whose default is the machine's name."""
    from node import config

    given = {"name": call.args.name} if call.args.name else {}
    return config.load(call.home, call.environ, given).name


def _flags(call: Call) -> dict[str, Any]:
    """The settings that were given as flags, by the name of their key."""
    from node import config

    given = vars(call.args)
    return {key.name: config.read_flag(key, given[key.variable]) for key in config.KEYS if given.get(key.variable)}


def _done(verb: str, call: Call) -> Callable[[Page, Any], None]:
    return lambda page, _: page.line(f"{verb} {call.args.address}")
