"""A fact: what one subject's ops show.

Registers of a fact, by the name of the op's field:

| field | type | kind of its ops |
| --- | --- | --- |
| (empty) | every field at once: the record that creates the fact | `fact` |
| content, fact_type, confidence, source, agent, meta, valid_from, valid_until, retracted | LWW register | `value` |
| tag:NAME, link:RELATION:ID | presence of one element of an OR-Set | `element` |
| body | text | `text` |

The record stands in all of these registers (crdt/survive.py), so a fact is one op until somebody edits it, and an edit
of one field never fights with an edit of another. Its `legacy_id`, the id that the fact had in an earlier system, is no
register: nothing changes it.

`fold` is a pure function of the set of ops in effect: any order, any node, the same fact. An op whose body is bad, or
whose kind is not known here, shows nothing and still counts for survival. Times are milliseconds since 1970 UTC.

Laws: tests/crdt/test_fact.py, tests/crdt/test_laws.py.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, Final

import msgspec

from crdt.hlc import MAX_TIMESTAMP
from crdt.op import MAX_FIELD_BYTES, Op, OpClass
from crdt.orset import surviving_adds
from crdt.register import Register, resolve
from crdt.survive import in_register, surviving_writes
from crdt.version import node_id

FACT: Final = "fact"
VALUE: Final = "value"
ELEMENT: Final = "element"
TEXT: Final = "text"

TAG_PREFIX: Final = "tag:"
LINK_PREFIX: Final = "link:"
BODY_FIELD: Final = "body"
RETRACTED: Final = "retracted"

MAX_META_DEPTH: Final = 32
"""Of what is nested in `meta`. Without it the depth of the reader's stack would decide what can be read."""

MAX_LEGACY_ID_CHARS: Final = 128
"""Of an id in an earlier system: a number or a UUID, as a rule."""

Millis = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]
"""Milliseconds since 1970 UTC, from the year 1 to 9999: what a date in RFC 3339 can say."""


class Retraction(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `retracted` while a fact is withdrawn; None once it is taken back."""

    reason: str | None = None


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a fact is created with: the body of its first op."""

    content: str
    fact_type: str = "knowledge"
    confidence: str = "stated"
    source: str | None = None
    agent: str | None = None
    meta: dict[str, Any] = {}
    valid_from: Millis | None = None
    valid_until: Millis | None = None
    retracted: Retraction | None = None
    tags: tuple[str, ...] = ()
    legacy_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LEGACY_ID_CHARS)] | None = None

    def __post_init__(self) -> None:
        # A longer tag could never be taken away again: no op's field could name it.
        if not all(0 < len(tag.encode()) <= MAX_FIELD_BYTES - len(TAG_PREFIX) for tag in self.tags):
            raise ValueError(f"a tag has 1 to {MAX_FIELD_BYTES - len(TAG_PREFIX)} bytes")


FIELD_TYPES: Final[dict[str, Any]] = {
    "content": str,
    "fact_type": str,
    "confidence": str,
    "source": str | None,
    "agent": str | None,
    "meta": dict[str, Any],
    "valid_from": Millis | None,
    "valid_until": Millis | None,
    RETRACTED: Retraction | None,
}
"""The LWW registers of a fact, and what each may hold."""

_record = msgspec.msgpack.Decoder(Record).decode
_values = {field: msgspec.msgpack.Decoder(kind).decode for field, kind in FIELD_TYPES.items()}
_encode = msgspec.msgpack.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Fact:
    """What is shown of one fact. `version` is the hash of the op that wrote the content; votes are on a version.

    `created`, `updated` and `retracted` are timestamps (crdt.hlc); `retracted` is None while the fact stands.
    """

    id: str
    project: str
    values: dict[str, Any]
    tags: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    texts: tuple[Op, ...]
    author: str
    version: str
    created: int
    updated: int
    retracted: int | None
    conflicts: tuple[str, ...]
    legacy_id: str | None = None

    @property
    def content(self) -> str:
        return str(self.values["content"])


@dataclass(frozen=True, slots=True)
class Version:
    """One write of a fact's history. `state`: current, superseded, conflicting, retracted, or no_effect."""

    op: Op
    field: str
    value: Any
    state: str


def encode_record(record: Record) -> bytes:
    """The body of a `fact` op."""
    return _encode(record)


def encode_value(value: Any) -> bytes:
    """The body of a `value` op."""
    return _encode(value)


def given(op: Op) -> dict[str, Any]:
    """The LWW fields that `op` gives a value to; empty when its body says nothing that this node can read."""
    values: dict[str, Any] = {}
    try:
        if op.header.kind == FACT and not op.header.field:
            values = msgspec.structs.asdict(_record(op.header.body))
        elif op.header.kind == VALUE and op.header.field in _values:
            values = {op.header.field: _values[op.header.field](op.header.body)}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return values if is_json(values.get("meta")) else {}


def elements(ops: Collection[Op], prefix: str) -> dict[str, list[Op]]:
    """The elements present under `prefix` (TAG_PREFIX or LINK_PREFIX), each with its surviving adds."""
    everywhere = [op for op in ops if not op.header.field]
    grouped: dict[str, list[Op]] = {}
    for op in ops:
        if op.header.field.startswith(prefix):
            grouped.setdefault(op.header.field, []).append(op)
    initial: dict[str, list[Op]] = {}
    if prefix == TAG_PREFIX:
        for record in surviving_writes(everywhere):
            for tag in set(given(record).get("tags", ())):
                initial.setdefault(TAG_PREFIX + tag, []).append(record)
    present: dict[str, list[Op]] = {}
    for field in sorted(grouped.keys() | initial.keys()):
        adds = surviving_adds([*grouped.get(field, []), *everywhere], initial.get(field, []))
        # Kinds that are not known here took part in the survival; they only show nothing.
        known = {(OpClass.WRITE, FACT, ""), (OpClass.ADD, ELEMENT, field)}
        if shown := [op for op in adds if (op.op_class, op.header.kind, op.header.field) in known]:
            present[field[len(prefix) :]] = shown
    return present


def text_ops(ops: Iterable[Op]) -> tuple[Op, ...]:
    """The ops of the body, oldest first, for crdt.text to read."""
    body = (op for op in ops if op.header.field == BODY_FIELD and op.header.kind == TEXT)
    return tuple(sorted((op for op in body if op.op_class == OpClass.APPEND), key=lambda op: op.order))


def fold(ops: Collection[Op], held_after: int = MAX_TIMESTAMP) -> Fact | None:
    """The fact that the ops of one subject show, or None when they don't make one.

    `ops` are all in effect and of one subject and project; timestamps above `held_after` are held. Without the op that
    created the subject there is no fact: writing to a name that nobody created shows nothing.
    """
    if len(ops) == 1 and (alone := _alone(*ops)):
        return alone
    reading = {op.hash: given(op) for op in ops}
    registers = {field: _settle(ops, field, reading, held_after) for field in FIELD_TYPES}
    content = registers["content"].winner
    created = sorted((op for op in ops if not op.header.subject), key=lambda op: op.order)
    if content is None or not created:
        return None
    values = {
        field: reading[register.winner.hash][field] if register.winner else getattr(_EMPTY, field)
        for field, register in registers.items()
    }
    withdrawn = registers[RETRACTED].winner
    links = tuple(
        (relation, target) for relation, _, target in (name.partition(":") for name in elements(ops, LINK_PREFIX))
    )
    return Fact(
        id=content.subject,
        project=content.project,
        values=values,
        tags=tuple(elements(ops, TAG_PREFIX)),
        links=links,
        texts=text_ops(ops),
        author=node_id(content.header.node_key),
        version=content.hash.hex(),
        created=created[0].timestamp,
        updated=max((op.timestamp for op in ops if op.timestamp <= held_after), default=created[0].timestamp),
        retracted=withdrawn.timestamp if withdrawn and values[RETRACTED] is not None else None,
        conflicts=tuple(field for field, register in registers.items() if _disagree(register, field, reading)),
        legacy_id=reading[created[0].hash].get("legacy_id"),
    )


def _alone(op: Op) -> Fact | None:
    """What `fold` makes of a record that stands alone, at a tenth of the cost: most facts are never edited."""
    if op.header.subject or op.header.field or op.header.op_class != OpClass.WRITE or not (values := given(op)):
        return None
    return Fact(
        id=op.subject,
        project=op.project,
        tags=tuple(sorted(set(values.pop("tags")))),
        legacy_id=values.pop("legacy_id"),
        values=values,
        links=(),
        texts=(),
        author=node_id(op.header.node_key),
        version=op.hash.hex(),
        created=op.timestamp,
        updated=op.timestamp,
        retracted=op.timestamp if values[RETRACTED] is not None else None,
        conflicts=(),
    )


def history(ops: Collection[Op], held_after: int = MAX_TIMESTAMP) -> list[Version]:
    """Every write of one fact, oldest first, with what became of it."""
    reading = {op.hash: given(op) for op in ops}
    versions: list[Version] = []
    for field in FIELD_TYPES:
        register = _settle(ops, field, reading, held_after)
        lost = "conflicting" if _disagree(register, field, reading) else "superseded"
        states = [(op, "superseded") for op in register.superseded] + [(op, lost) for op in register.losers]
        if register.winner:
            withdrawn = field == RETRACTED and reading[register.winner.hash][field] is not None
            states.append((register.winner, RETRACTED if withdrawn else "current"))
        for op, state in states:
            value = reading[op.hash][field]
            # A record says much by saying nothing. That is told only where another write disagrees.
            if op.header.field or value not in (None, {}) or state == "conflicting":
                versions.append(Version(op, field, value, state))
    for prefix, name in ((TAG_PREFIX, "tags"), (LINK_PREFIX, "links")):
        alive = {op.hash for adds in elements(ops, prefix).values() for op in adds}
        for op in ops:
            if op.header.field.startswith(prefix) and op.header.kind == ELEMENT and op.op_class in _OF_A_SET:
                sign = "-" if op.op_class == OpClass.REMOVE else "+"
                current = op.hash in alive or op.op_class == OpClass.REMOVE
                element = op.header.field[len(prefix) :]
                versions.append(Version(op, name, sign + element, "current" if current else "superseded"))
    versions += [Version(op, BODY_FIELD, None, "current") for op in text_ops(ops)]
    told = {version.op.hash for version in versions}
    versions += [Version(op, op.header.field, None, "no_effect") for op in ops if op.hash not in told]
    return sorted(versions, key=lambda version: version.op.order)


def _settle(ops: Iterable[Op], field: str, reading: dict[bytes, dict[str, Any]], held_after: int) -> Register:
    """Resolve one LWW register. Every write counts for dominance; only those that can be read are shown."""
    settled = resolve([op for op in in_register(ops, field) if op.header.op_class == OpClass.WRITE], held_after)
    standing = [*settled.losers, settled.winner] if settled.winner else []
    readable = [op for op in standing if field in reading[op.hash]]
    below = [op for op in settled.superseded if field in reading[op.hash]]
    if not readable:
        # What stands can't be read here, so the best of what it superseded is shown. Not simply the latest: that may be
        # a write from a clock ahead which somebody corrected.
        best = resolve(below, held_after).winner
        readable, below = ([best] if best else []), [op for op in below if op != best]
    return Register(readable[-1] if readable else None, tuple(readable[:-1]), tuple(below))


def _disagree(register: Register, field: str, reading: dict[bytes, dict[str, Any]]) -> bool:
    """Whether concurrent writes gave different values: two nodes that wrote the same are no conflict."""
    return any(
        reading[op.hash][field] != reading[register.winner.hash][field] for op in register.losers if register.winner
    )


def is_json(value: Any, depth: int = MAX_META_DEPTH) -> bool:
    """Whether JSON can say `value`. MessagePack can say more: bytes, extension types, NaN, keys that are no strings."""
    match value:
        case None | bool() | int() | str():
            return True
        case float():
            return isfinite(value)
        case list():
            return depth > 0 and all(is_json(item, depth - 1) for item in value)
        case dict():
            return depth > 0 and all(isinstance(key, str) and is_json(value[key], depth - 1) for key in value)
        case _:
            return False


_EMPTY = Record(content="")
_OF_A_SET = (OpClass.ADD, OpClass.REMOVE)
