"""Commands as the command line would call them, without its printing."""

import io
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from node import clock
from node.cli import parser
from node.commands import Answer, Call
from node.paths import Home


def call_for(
    home: Path,
    *words: str,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    environ: dict[str, str] | None = None,
    start: Callable[[list[str]], int] | None = None,
) -> Call:
    """The call that `cortex-node WORDS` makes."""
    args = parser().parse_args(list(words))
    world: dict[str, Any] = {"start": start} if start else {}
    now_ms = clock.parse_rfc3339("2026-05-11T08:30:00Z")
    return Call(args, Home(home), environ or {}, now_ms, stdin or io.BytesIO(), stdout or io.BytesIO(), **world)


def perform(call: Call) -> Answer:
    """What the command answers."""
    module, _, function = call.args.command.does.partition(":")
    answer = getattr(import_module(f"node.{module}"), function)(call)
    assert isinstance(answer, Answer)
    return answer
