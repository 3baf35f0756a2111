"""What users may ask for, and the limits on it. REST, the command line and MCP all come through here.

The shapes are those of the API; `check_*` turns them into what the store writes, or raises a `Problem` that names the
field. These limits bind a node's own users only: what peers send is bounded by the constants of the protocol
(crdt/op.py), since whether an op counts must not depend on a node's configuration. Tests: tests/node/test_requests.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from crdt.fact import FIELD_TYPES, LINK_PREFIX, MAX_META_DEPTH, RETRACTED, Record, is_json
from crdt.op import MAX_FIELD_BYTES, MAX_NAME_BYTES
from node import legacy
from node.clock import parse_rfc3339
from node.errors import Problem

MAX_WORD_BYTES = 128
"""Of a fact_type, confidence, relation or agent: names, not text."""
MAX_META_BYTES = 65_536
MAX_TOP_K = 500
MAX_PAGE = 500
MAX_DEPTH = 8
MAX_LINKS = 1_000
"""Links that start at one fact: it is read whole at every edit."""
MAX_REASON_BYTES = 4_096
MAX_KEY_CHARS = 200
"""Of an Idempotency-Key."""
MIN_TIME_MS, MAX_TIME_MS = 0, 253_402_300_799_999
"""1970 to the year 9999."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would break a line or drive a terminal. Joiners stay: emoji and many scripts need them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What this node accepts from its own users; each is a key of node.toml."""

    content_bytes: int = 65_536
    tags: int = 64
    tag_bytes: int = 128
    query_chars: int = 2_000
    batch: int = 1_000
    body_bytes: int = 1 << 20


class FactDraft(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A fact to be stored. `legacy_id`: the id that it had in an earlier system, which then names it here too."""

    content: str
    project: str = "default"
    fact_type: str = "knowledge"
    tags: list[str] = []
    confidence: str = "stated"
    source: str | None = None
    agent: str | None = None
    meta: dict[str, Any] = {}
    valid_from: str | None = None
    valid_until: str | None = None
    body: str | None = None
    legacy_id: str | None = None


class FactChanges(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What PATCH may change. A field that is left out stays; null clears it.

    `tags` replaces the whole set. `append` adds to the body; `body` replaces it, and with the `body_base` that a GET
    gave as `body_token`, edits that others made since then are kept. `if_version` refuses the change when the content
    has changed since. `restore` takes a retraction back.
    """

    content: str | UnsetType = UNSET
    fact_type: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    confidence: str | UnsetType = UNSET
    source: str | UnsetType | None = UNSET
    agent: str | UnsetType | None = UNSET
    meta: dict[str, Any] | UnsetType = UNSET
    valid_from: str | UnsetType | None = UNSET
    valid_until: str | UnsetType | None = UNSET
    body: str | UnsetType = UNSET
    body_base: str | UnsetType = UNSET
    append: str | UnsetType = UNSET
    restore: bool = False
    if_version: str | None = None


class TagChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Tags to add and to remove."""

    add: list[str] = []
    remove: list[str] = []


class LinkChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A typed link to another fact, to be made or removed."""

    relation: str
    to: str
    remove: bool = False


class SearchRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A search. `as_of` asks what was valid and known at that time."""

    query: str
    project: str | None = None
    fact_type: str | None = None
    tags: list[str] = []
    top_k: int = 10
    as_of: str | None = None
    archive: bool = False


def check_project(name: str) -> str:
    """A project's name: 1 to 128 bytes, no control characters, no leading underscore (those are the mesh's own)."""
    check_word(name, "project", MAX_NAME_BYTES)
    if name.startswith("_"):
        raise _bad(
            "project", f"project names that start with an underscore are reserved: {name!r}", "choose another name"
        )
    if any(mark in name for mark in "*?["):
        raise _bad("project", f"a project name cannot hold the wildcards * ? [: {name!r}", "choose another name")
    return name


def check_draft(draft: FactDraft, limits: Limits) -> Record:
    """The record that a draft creates. Raises Problem."""
    check_project(draft.project)
    check_content(draft.content, limits)
    valid_from, valid_until = check_time(draft.valid_from, "valid_from"), check_time(draft.valid_until, "valid_until")
    check_interval(valid_from, valid_until)
    if draft.body is not None:
        check_body(draft.body, limits)
    return Record(
        content=draft.content,
        fact_type=check_word(draft.fact_type, "fact_type"),
        confidence=check_word(draft.confidence, "confidence"),
        source=None if draft.source is None else check_word(draft.source, "source", MAX_FIELD_BYTES),
        agent=None if draft.agent is None else check_word(draft.agent, "agent"),
        meta=check_meta(draft.meta),
        valid_from=valid_from,
        valid_until=valid_until,
        tags=tuple(check_tags(draft.tags, limits)),
        legacy_id=legacy.check(draft.legacy_id),
    )


def check_changes(changes: FactChanges, limits: Limits) -> dict[str, Any]:
    """The LWW fields that a change gives a value to, as the store keeps them. Raises Problem."""
    if changes.append is not UNSET and changes.body is not UNSET:
        raise _bad("body", "both body and append are given", "give one of them")
    if changes.body_base is not UNSET and changes.body is UNSET:
        raise _bad("body_base", "body_base is given without a body", "send the whole body that was made from it")
    given = {field: getattr(changes, field) for field in FIELD_TYPES if field != RETRACTED}
    return {field: _check_value(field, value, limits) for field, value in given.items() if value is not UNSET}


def _check_value(field: str, value: Any, limits: Limits) -> Any:
    match field:
        case "content":
            return check_content(value, limits)
        case "meta":
            return check_meta(value)
        case "valid_from" | "valid_until":
            return check_time(value, field)
        case "source":
            return None if value is None else check_word(value, field, MAX_FIELD_BYTES)
        case _:
            return None if value is None else check_word(value, field)


def check_content(content: str, limits: Limits) -> str:
    """Raises Problem when the content is empty or too long."""
    if not content.strip():
        raise _bad("content", "the content is empty", "say what the fact is")
    if (size := _size(content, "content")) > limits.content_bytes:
        raise Problem(
            413,
            "content_too_long",
            f"the content has {size:,} bytes, the limit is {limits.content_bytes:,}",
            "store a summary as content and the long text as body",
            "content",
        )
    return content


def check_body(body: str, limits: Limits) -> str:
    """Raises Problem when the body is too long."""
    if (size := _size(body, "body")) > limits.body_bytes:
        raise Problem(
            413,
            "body_too_long",
            f"the body has {size:,} bytes, the limit is {limits.body_bytes:,}",
            "split it over several facts and link them",
            "body",
        )
    return body


def check_tags(tags: Sequence[str], limits: Limits) -> list[str]:
    """The tags without repeats, in order. Raises Problem."""
    unique = list(dict.fromkeys(tags))
    if len(unique) > limits.tags:
        raise _bad("tags", f"{len(unique)} tags, the limit is {limits.tags}", "use fewer, broader tags")
    for tag in unique:
        check_word(tag, "tags", limits.tag_bytes)
    return unique


def check_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """Raises Problem when meta can't be stored: too large, too deep, or numbers beyond 64 bits."""
    if not is_json(meta):
        raise _bad("meta", f"meta is nested deeper than {MAX_META_DEPTH} levels, or holds no JSON", "keep it flat")
    try:
        size = len(msgspec.msgpack.encode(meta))
    except (OverflowError, UnicodeEncodeError) as error:
        raise _bad("meta", f"meta cannot be stored: {error}", "keep numbers within 64 bits") from None
    if size > MAX_META_BYTES:
        raise _bad("meta", f"meta has {size:,} bytes, the limit is {MAX_META_BYTES:,}", "keep it small")
    return meta


def check_reason(reason: str | None) -> str | None:
    """Why a fact is retracted. Raises Problem when it is too long."""
    return None if reason is None else check_text(reason, "reason", MAX_REASON_BYTES)


def check_text(text: str, field: str, limit: int) -> str:
    """A text of at most `limit` bytes. Raises Problem."""
    if (size := _size(text, field)) > limit:
        raise _bad(field, f"the {field} has {size:,} bytes, the limit is {limit:,}", "say it shortly")
    return text


def check_key(key: str | None) -> str | None:
    """An Idempotency-Key. Raises Problem."""
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise Problem(
            422,
            "invalid_key",
            "the Idempotency-Key is empty, too long, or not plain ASCII",
            f"use 1 to {MAX_KEY_CHARS} letters and digits, such as a UUID",
        )
    return key


def check_link(change: LinkChange) -> str:
    """The register of a link. Raises Problem."""
    check_word(change.relation, "relation")
    check_word(change.to, "to")
    if ":" in change.relation:
        raise _bad("relation", f"a relation cannot hold a colon: {change.relation!r}", "use a dash, such as depends-on")
    return f"{LINK_PREFIX}{change.relation}:{change.to}"


def check_time(text: str | None, field: str) -> int | None:
    """Milliseconds since 1970 UTC of an RFC 3339 time. Raises Problem."""
    if text is None:
        return None
    try:
        ms = parse_rfc3339(text)
    except ValueError:
        ms = -1
    if not MIN_TIME_MS <= ms <= MAX_TIME_MS:
        raise _bad(field, f"{field} is no time: {text!r}", "write it like 2026-05-11T08:30:00Z or 2026-05-11")
    return ms


def check_interval(valid_from: int | None, valid_until: int | None) -> None:
    """Raises Problem when a fact would end before it begins."""
    if valid_from is not None and valid_until is not None and valid_until <= valid_from:
        raise _bad("valid_until", "valid_until is not after valid_from", "give a later valid_until, or none")


def check_search(request: SearchRequest, limits: Limits) -> int | None:
    """The `as_of` of a search in milliseconds, or None for now. Raises Problem."""
    if len(request.query) > limits.query_chars:
        raise Problem(
            413,
            "query_too_long",
            f"the query has {len(request.query):,} characters, the limit is {limits.query_chars:,}",
            "ask a shorter question",
            "query",
        )
    if not 1 <= request.top_k <= MAX_TOP_K:
        raise _bad("top_k", f"top_k is {request.top_k}", f"ask for 1 to {MAX_TOP_K}")
    if request.archive:
        raise _bad("archive", "this node has no archive", "search without archive")
    if request.project is not None:
        check_project(request.project)
    return check_time(request.as_of, "as_of")


def check_word(word: str, field: str, limit: int = MAX_WORD_BYTES) -> str:
    """A name: not empty, not long, on one line. Raises Problem."""
    if not word.strip():
        raise _bad(field, f"{field} is empty", "give one, or leave it out")
    if (size := _size(word, field)) > limit:
        raise _bad(field, f"{field} has {size:,} bytes, the limit is {limit}", "use a shorter one")
    if _CONTROL.search(word):
        raise _bad(field, f"{field} holds a control character: {word!r}", "remove it")
    return word


def _size(text: str, field: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _bad(field, f"{field} is not valid Unicode (a lone surrogate)", "send proper UTF-8") from None


def _bad(field: str, detail: str, action: str) -> Problem:
    return Problem(422, "invalid_" + field, detail, action, field)
