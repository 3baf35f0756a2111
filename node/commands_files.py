"""What the commands on files of facts do: export, and import of JSON lines and of the earlier system's database.

An export is written beside its place and moved there when it is whole, so a file of that name is never half an export.
An import checks every fact before it stores the first, and can simply be repeated when it was interrupted: batches of
lines are stored under a key made from their content, and the earlier system's facts under their old ids.

Tests: tests/node/test_commands_files.py.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from node import render
from node.client import segment
from node.commands import Answer, Call, unreadable
from node.errors import EXIT_USAGE, Problem

if TYPE_CHECKING:
    from node.jsonl import Line

MAX_REPORTED = 20
"""Bad lines that are told one by one; beyond it only their number."""


def export(call: Call) -> Answer:
    """Write every fact as a JSON line, to a file or to stdout."""
    lines = call.client.lines("/v1/export")
    if call.args.file != "-":
        path = Path(call.args.file).expanduser()
        return Answer({"file": str(path), "facts": _write(path, lines)}, render.exported)
    if call.args.json:
        return Answer({"facts": [json.loads(line) for line in lines]}, None)
    for line in lines:
        call.stdout.write(line)
    call.stdout.flush()
    return Answer(None, None)


def import_jsonl(call: Call) -> Answer:
    """Store every fact of a file of JSON lines."""
    from node import config, jsonl
    from node.requests import Limits

    limits = Limits(**config.load(call.home, call.environ, {}).limits)
    with _seekable(call, call.args.path) as file:
        bad = [line for line in jsonl.read(file, limits) if isinstance(line, jsonl.BadLine)]
        report: dict[str, Any] = {"stored": 0, "already_stored": 0, "links": 0, "bad_links": 0, "bad_lines": len(bad)}
        report["bad"] = [{"line": line.number, "error": line.error} for line in bad[:MAX_REPORTED]]
        if bad and not call.args.skip_bad:
            return Answer(report, render.import_refused, EXIT_USAGE)
        file.seek(0)
        good = (line for line in jsonl.read(file, limits) if isinstance(line, jsonl.Line))
        try:
            for origin, relation, to in _store(call, jsonl.batches(good, limits.batch), report):
                report["links" if _link(call, origin, relation, to) else "bad_links"] += 1
        except Problem as problem:
            _say_how_far(problem, report)
            raise
    return Answer(report, render.imported)


def import_cortex(call: Call) -> Answer:
    """Store the facts and the votes of the earlier system's database."""
    from node import config, import_cortex
    from node.requests import Limits

    limits = Limits(**config.load(call.home, call.environ, {}).limits)
    with import_cortex.opened(Path(call.args.path).expanduser()) as old:
        report: dict[str, Any] = {"stored": 0, "already_stored": 0, "votes": 0, "already_voted": 0}
        bad = [fact for fact in old.facts(limits) if isinstance(fact, import_cortex.BadFact)]
        report |= {"bad_votes": old.bad_votes, "lone_votes": old.lone_votes(), "agents": old.agents}
        report |= {"missing": old.missing, "bad_facts": len(bad)}
        report["bad"] = [{"id": fact.id, "error": fact.error} for fact in bad[:MAX_REPORTED]]
        if bad and not call.args.skip_bad:
            return Answer(report, render.cortex_refused, EXIT_USAGE)
        good = (fact for fact in old.facts(limits) if isinstance(fact, import_cortex.Old))
        try:
            for batch in import_cortex.batches(good, limits.batch):
                taken = call.client.call("POST", "/v1/import", {"facts": batch})
                for count in ("stored", "already_stored", "votes", "already_voted"):
                    report[count] += taken[count]
        except Problem as problem:
            _say_how_far(problem, report)
            raise
    return Answer(report, render.cortex_imported)


def _say_how_far(problem: Problem, report: dict[str, Any]) -> None:
    """Add to the problem that broke an import off what was done until then."""
    done = f"{report['stored'] + report['already_stored']} facts are stored"
    problem.action = f"{problem.action}; {done}; repeat the import, it stores nothing twice".removeprefix("; ")


def _store(call: Call, batches: Iterator[list["Line"]], report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Store the batches, count in `report`, then name the links (from, relation, to) that are to be made."""
    from node import jsonl

    new_ids: dict[str, str] = {}
    linked: list[Line] = []
    for batch in batches:
        key = {"Idempotency-Key": jsonl.idempotency_key(batch)}
        body = {"facts": [line.draft for line in batch]}
        status, stored = call.client.exchange("POST", "/v1/facts", body, headers=key)
        report["stored" if status == 201 else "already_stored"] += len(batch)
        ids = [fact["id"] for fact in stored["facts"]]
        new_ids |= {line.origin: id_ for line, id_ in zip(batch, ids, strict=True) if line.origin}
        linked += [line for line in batch if line.links]
    yield from jsonl.renamed_links(linked, new_ids)


def _link(call: Call, origin: str, relation: str, to: str) -> bool:
    """Link two facts; False when the node won't, for instance because the other fact was not exported."""
    try:
        call.client.call("POST", f"/v1/facts/{segment(origin)}/links", {"relation": relation, "to": to})
    except Problem as problem:
        if problem.status in {404, 410, 422}:
            return False
        raise
    return True


def _write(path: Path, lines: Iterator[bytes]) -> int:
    """Write `lines` to `path`, all or nothing; how many there were."""
    count = 0
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise unreadable(str(path), error) from error
    finally:
        with suppress(OSError):  # moved to its place, or never made
            part.unlink()
    return count


@contextmanager
def _seekable(call: Call, path: str) -> Iterator[IO[bytes]]:
    """The file, or a copy of stdin: it is read twice, once to check and once to store."""
    if path == "-":
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(call.stdin, copy)
            copy.seek(0)
            yield copy
        return
    try:
        file = Path(path).expanduser().open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        yield file
