"""Facts as JSON lines: what `cortex-node export` writes and `cortex-node import jsonl` reads.

A line is an object with at least `content`. Three sorts of keys:

* fields of a fact that a user may give (FIELDS), under their own name or, as simple logs have it, an alias;
* what the node itself says about an exported fact (DERIVED): `id`, `created_at` and `author` are kept in
  `meta["imported"]`, so that it stays known where a fact came from; the rest is not taken over;
* anything else: kept in `meta`, so that nothing of a log is lost.

Every line is checked before the first is stored, with the same checks that the node makes. A batch is stored under a
key made from its content: importing the same file again within a day, as long as the node remembers keys, stores
nothing twice.

Tests: tests/node/test_jsonl.py.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import IO, Any

import msgspec

from node.errors import Problem
from node.requests import FactDraft, Limits, check_draft

FIELDS = FactDraft.__struct_fields__
ALIASES = {"text": "content", "message": "content", "type": "fact_type"}
DERIVED = frozenset(
    """
    id created_at updated_at author version conflict conflicts retracted retracted_reason score score_provisional
    score_linear trust votes last_vote_at links has_body body_token
    """.split()
)
ORIGIN = ("id", "created_at", "author")

BATCH_BYTES = 1_000_000  # so that a batch of long facts stays one request of ordinary size
# Content and body of full size, each byte escaped as \u00xx, and some meta: a longer line is no fact.
MAX_LINE_BYTES = 8 * (1 << 20)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that can be stored. `origin` is the id that the fact had where it was exported."""

    number: int
    draft: dict[str, Any]
    origin: str | None
    links: tuple[tuple[str, str], ...]
    size: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """One line that can't be stored, and why."""

    number: int
    error: str


def read(file: IO[bytes], limits: Limits) -> Iterator[Line | BadLine]:
    """Every line of `file` that isn't blank; facts that were retracted when they were exported are left out."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            yield BadLine(number, f"longer than {MAX_LINE_BYTES:,} bytes")
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
            continue
        if raw.strip() and (line := _line(number, raw.removeprefix(b"\xef\xbb\xbf"), limits)):
            yield line


def batches(lines: Iterable[Line], most: int) -> Iterator[list[Line]]:
    """The lines in order, in batches of at most `most` and, unless one line is longer, BATCH_BYTES."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == most or size + line.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += line.size
    if batch:
        yield batch


def idempotency_key(batch: Iterable[Line]) -> str:
    """A name for exactly this content in this order."""
    whole = json.dumps([line.draft for line in batch], sort_keys=True, separators=(",", ":"))
    return "import-jsonl-" + sha256(whole.encode()).hexdigest()


def _line(number: int, raw: bytes, limits: Limits) -> Line | BadLine | None:
    try:
        entry = msgspec.json.decode(raw)
        if not isinstance(entry, dict):
            return BadLine(number, 'not an object; a line looks like {"content": "..."}')
        if entry.get("retracted") is True and "id" in entry:
            return None
        draft = _draft(entry)
        check_draft(msgspec.convert(draft, FactDraft), limits)
        origin = entry.get("id")
        return Line(number, draft, origin if isinstance(origin, str) else None, _links(entry), len(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return BadLine(number, str(error))
    except Problem as problem:
        return BadLine(number, problem.detail)


def _draft(entry: dict[str, Any]) -> dict[str, Any]:
    """The fact that a line describes, not yet checked."""
    draft: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    for name, value in entry.items():
        field = ALIASES.get(name, name)
        if field in FIELDS and (field == name or field not in entry):
            # null is how an export says `none`, which is what leaving a field out says too.
            draft |= {} if value is None else {field: value}
        elif name not in DERIVED:
            meta[name] = value
    if isinstance(draft.get("tags"), str):
        draft["tags"] = [tag for part in draft["tags"].split(",") if (tag := part.strip())]
    given = draft.get("meta", {})
    if not isinstance(given, dict):
        return draft  # the check names it
    origin = {name: entry[name] for name in ORIGIN if name in entry} if "id" in entry else {}
    whole = ({"imported": origin} if origin else {}) | meta | given
    return draft | ({"meta": whole} if whole else {})


def _links(entry: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    links = entry.get("links") if "id" in entry else None
    pairs = [link for link in links or [] if isinstance(link, dict)] if isinstance(links, list) else []
    return tuple((str(link["relation"]), str(link["to"])) for link in pairs if {"relation", "to"} <= link.keys())


def renamed_links(lines: Iterable[Line], new_ids: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(from, relation, to) of every exported link, with the ids that the facts have here."""
    return chain.from_iterable(
        ((new_ids[line.origin], relation, new_ids.get(to, to)) for relation, to in line.links)
        for line in lines
        if line.origin in new_ids
    )
