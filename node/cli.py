"""The command line: `cortex-node COMMAND`. How arguments are read, and how a command ends.

The commands themselves are in a table (node/cli_commands.py); the function that does one is imported when it is called.
Most commands need neither aiohttp nor cryptography nor rich, and start without them.

stdout carries the answer, stderr everything else. With --json stdout is one JSON document, also when the command fails:
then it is the problem. A closed pipe (`| head`) ends a command quietly.

Tests: tests/node/test_cli.py.
"""

import argparse
import os
import re
import select
import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from node import arguments, clock
from node.cli_commands import ALIASES, COMMANDS, GROUPS, TIME_OPTIONS
from node.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, Problem
from node.paths import Home, default_home

if TYPE_CHECKING:
    from node.commands import Answer, Call

PROGRAM: Final = "cortex-node"
FEW_CHOICES: Final = 4  # are all named when none of them was meant
WATCH_S: Final = 2.0  # about how often what `status` shows changes while nodes talk

EXIT_CODES: Final = """\
exit codes:
  0    done (also: nothing found, status with warnings)
  1    failed: not found, not allowed, in conflict; doctor found a fault
  2    the command or its input is wrong
  3    integrity: something was tampered with or is damaged
  4    the node is not running
  5    busy, no hub within reach, over quota, or out of space: try again later
  130  interrupted
"""


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of exiting, and never guesses what an abbreviation means."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        action = f"see: {self.prog} --help"
        if found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            from difflib import get_close_matches

            message = message.partition(" (choose from")[0]
            choices = re.findall(r"'([^']+)'", found[2])
            if near := get_close_matches(found[1], choices, 1):
                action = f"did you mean {near[0]}? {action}"
            elif len(choices) <= FEW_CHOICES:
                action = f"it is one of: {', '.join(choices)}; {action}"
        raise Problem(400, "usage", message, action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that isn't UTF-8 gets escapes, not a traceback
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except Problem as problem:
        return _fail(problem, as_json="--json" in given)
    except BrokenPipeError:
        # Nobody reads on. Python would complain when it flushes stdout at exit, so that goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The parser of everything in COMMANDS. Its namespace has `command`: the Command, or None."""
    top = _Parser(prog=PROGRAM, description="A shared memory for AI agents, also offline.", epilog=EXIT_CODES)
    _add_globals(top, home=None, json=False)
    top.add_argument("--version", action="store_true", help="print the version")
    top.set_defaults(command=None)
    groups: dict[tuple[str, ...], Any] = {(): top.add_subparsers(metavar="COMMAND", title="commands")}
    for word, summary in GROUPS.items():
        group = groups[()].add_parser(word, help=summary, aliases=ALIASES.get(word, ()))
        _add_globals(group, home=argparse.SUPPRESS, json=argparse.SUPPRESS)
        kind = "FORMAT" if word == "import" else "COMMAND"
        groups[(word,)] = group.add_subparsers(metavar=kind, title=f"{kind.lower()}s", required=True)
    for command in COMMANDS:
        *above, name = command.name.split()
        made = groups[tuple(above)].add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog="\n\n".join(filter(None, [command.more, f"example:\n  {command.example}"])),
        )
        _add_globals(made, home=argparse.SUPPRESS, json=argparse.SUPPRESS)
        made.set_defaults(command=command)
        for argument in command.arguments:
            made.add_argument(*argument.names, **argument.options)
        if command.settings:
            _add_settings(made)
        if any(other.name.startswith(command.name + " ") for other in COMMANDS):
            groups[(*above, name)] = made.add_subparsers(metavar="COMMAND", title="commands")
    return top


def _add_globals(to: argparse.ArgumentParser, **defaults: Any) -> None:
    """--home and --json, which may stand before or after the command."""
    to.add_argument("--home", metavar="DIR", default=defaults["home"], help="where the node's data is (CORTEX_HOME)")
    to.add_argument("--json", action="store_true", default=defaults["json"], help="print one JSON document")


def _add_settings(to: argparse.ArgumentParser) -> None:
    from node import config

    group = to.add_argument_group("settings, each also a key of node.toml")
    for key in config.KEYS:
        # Help texts of argparse are formats: a % would be one.
        group.add_argument(key.flag, dest=key.variable, metavar="V", action="append", help=key.doc.replace("%", "%%"))


def _run(given: list[str]) -> int:
    try:
        args = parser().parse_args(list(_joined(given)))
    except SystemExit as end:  # --help has been printed
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    if args.version:
        from node import __version__

        print(f"{PROGRAM} {__version__}")
        return EXIT_OK
    if args.command is None:
        raise Problem(400, "usage", "no command was given", f"see: {PROGRAM} --help")
    from importlib import import_module

    from node.commands import Call

    module, _, function = args.command.does.partition(":")
    does = getattr(import_module(f"node.{module}"), function)
    call = Call(args, _home(args.home), os.environ, clock.now_ms(), sys.stdin.buffer, sys.stdout.buffer)
    if getattr(args, "watch", False):
        return _watch(does, call)
    return _tell(does(call), args.json)


def _joined(given: list[str]) -> Iterator[str]:
    """`--as-of -3d` as `--as-of=-3d`: argparse takes what begins with a dash for an option."""
    words = iter(given)
    for word in words:
        if word == "--":
            yield word
            yield from words
        elif word in TIME_OPTIONS and (following := next(words, None)) is not None:
            yield from [f"{word}={following}"] if arguments.is_relative(following) else [word, following]
        else:
            yield word


def _home(told: str | None) -> Home:
    try:
        path = Path(told).expanduser() if told else default_home(os.environ, Path("~").expanduser())
    except RuntimeError as error:
        raise Problem(400, "no_user_home", "this user has no home directory", "say where with --home DIR") from error
    return Home(path.absolute())


def _tell(answer: "Answer", as_json: bool) -> int:
    """Print the answer, and return the exit code."""
    if as_json and answer.document is not None:
        _print_json(answer.document)
    elif answer.show is not None:
        from node.page import Page, write

        page = Page()
        answer.show(page, answer.document)
        write(page, sys.stdout, os.environ)
    return answer.code


def _watch(does: Any, call: "Call") -> int:
    """Show the answer every WATCH_S seconds until interrupted."""
    if call.args.json:
        raise Problem(400, "usage", "--watch goes on for ever, --json is one document", "leave one of them out")
    while True:
        answer = does(call)
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[2J\x1b[H")  # clear the screen, and go to its top
        _tell(answer, as_json=False)
        sys.stdout.flush()
        select.select([], [], [], WATCH_S)


def _fail(problem: Problem, as_json: bool) -> int:
    from node.page import complain

    if as_json:
        _print_json(problem.document())
    complain(problem, sys.stderr)
    return problem.exit_code


def _print_json(document: Any) -> None:
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False))
