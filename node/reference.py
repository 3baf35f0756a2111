"""Makes REFERENCE.md: every command, setting, route and metric, from the tables that the program itself runs on.

`make reference` writes it; tests/test_docs.py fails when it is out of date. Tests: tests/node/test_reference.py.
"""

import argparse
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from node.cli import EXIT_CODES
from node.cli_commands import COMMANDS, Command
from node.config import KEYS
from node.http import Api
from node.http_events import EventsApi
from node.http_import import ImportApi
from node.http_ledger import LedgerApi
from node.http_votes import VotesApi
from node.kinds import toml
from node.metrics import Metrics

SERVED: tuple[Any, ...] = (Api, ImportApi, VotesApi, LedgerApi, EventsApi)
PATH = Path(__file__).with_name("REFERENCE.md")


def render() -> str:
    """The whole page, in Markdown."""
    return "\n".join(
        (
            "# Reference",
            "",
            "Made by `make reference` from the program itself. `cortex-node COMMAND --help` says the same of a",
            "command, `GET /openapi.json` of the shapes that routes take and give.",
            "",
            *_commands(),
            *_settings(),
            *_routes(),
            *_metrics(),
        )
    )


def _commands() -> Iterator[str]:
    yield from ("## Commands", "", "Before or after each: `--home DIR` (or `CORTEX_HOME`) and `--json`.", "")
    for command in COMMANDS:
        yield f"**`{command.name}`** {command.summary}. `{command.example}`"
        yield ""
        if command.arguments:
            yield from _table(("argument", "what it is"), _arguments(command))
    yield from ("```text", EXIT_CODES.rstrip(), "```", "")


def _arguments(command: Command) -> Iterator[tuple[str, str]]:
    for argument in command.arguments:
        metavar = argument.options.get("metavar") or "".join(
            f"{{{','.join(map(str, argument.options['choices']))}}}" if "choices" in argument.options else ""
        )
        name = ", ".join(argument.names)
        shown = name if not name.startswith("-") and not metavar else f"{name} {metavar}" if name[0] == "-" else metavar
        said = argument.options.get("help", "")
        if said is not argparse.SUPPRESS:
            yield f"`{shown.strip()}`", said


def _settings() -> Iterator[str]:
    yield from (
        "## Settings",
        "",
        "A flag of `run` goes before the environment, that before `node.toml` in the home, that before the default.",
        "Names with a dot are keys of a table: `[limits]`, `batch = 100`.",
        "",
    )
    rows = ((f"`{k.name}`", f"`{k.variable}`", f"`{toml(k.default)}`", f"{k.doc} ({k.kind.expected})") for k in KEYS)
    yield from _table(("key", "variable", "default", "what it does"), rows)


def _routes() -> Iterator[str]:
    yield from (
        "## REST",
        "",
        "On the socket `node.sock` in the home (no token) and on `api` (bearer token in the file `token`). Errors are",
        "problem documents (RFC 9457) with `code`, and `action`: what to do.",
        "",
    )
    routes = [
        route
        for its_class in SERVED
        for route in object.__new__(its_class).routes()  # names handlers and calls none: there is nothing to set up
    ]
    rows = (
        (
            f"`{route.method} {route.path}`",
            route.summary + "".join(f" `{name}`: {text}." for name, text in route.query.items()),
        )
        for route in routes
    )
    yield from _table(("route", "what it does"), rows)


def _metrics() -> Iterator[str]:
    yield from ("## Metrics", "", "At `GET /metrics`, for Prometheus.", "")
    rows = (
        (f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in Metrics().all()
    )
    yield from _table(("metric", "kind", "labels", "what it counts"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(inspect.cleandoc(cell).replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
