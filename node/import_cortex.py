"""The database of the earlier system, CORTEX, as facts that `POST /v1/import` takes.

It is one SQLite file with the tables `facts`, `consensus_votes`, `consensus_votes_v2` and `agents`. It is opened for
reading, nothing is written beside it, and all of it is read as it was at one moment, row by row. Its versions differ in
columns: only `id` and `content` of `facts` must be there, and what else is missing is told.

| there | here |
| --- | --- |
| id | legacy_id |
| project, content, fact_type, confidence, source, tags, valid_from, valid_until | the same |
| meta, or metadata | meta, with `imported`: system, id, created_at, and what would not fit elsewhere |
| a fact that was deprecated, or has a tombstone | a retracted fact, with the reason |
| a vote | an old vote, under the agent's name: unsigned, weighs nothing, counts in the linear score |

Keys, reputations and stakes of its agents are not taken over: nothing was ever signed with these keys, and reputation
is earned here. Its scores follow from the votes; sessions, graph and transactions are not memory.
Tests: tests/node/test_import_cortex.py.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from node import imports
from node.clock import parse_rfc3339, rfc3339
from node.commands import unreadable
from node.errors import Problem
from node.imports import ImportedFact
from node.requests import Limits
from node.voting.records import MAX_NAME_BYTES

BATCH_BYTES: Final = 1_000_000
"""So that a batch of long facts stays one request of ordinary size."""
VOTE_BYTES: Final = 100
"""What a vote adds to a request, about."""
ENCRYPTED: Final = "v6_aesgcm:"
"""How the content of a fact begins that the earlier system had encrypted."""
_WAL_VERSION: Final = slice(18, 20)
"""Where a database's header says that it keeps a write-ahead log, by two bytes of 2 (sqlite.org/fileformat.html)."""

_FACTS: Final = (
    "id", "content", "project", "fact_type", "tags", "confidence", "source", "meta",
    "valid_from", "valid_until", "created_at", "is_tombstoned",
)  # fmt: skip
_MUST: Final = ("id", "content")
_OTHER_NAMES: Final = {"meta": "metadata"}
_NOT_MISSED: Final = frozenset({"is_tombstoned"})
_VOTES: Final = {
    "consensus_votes": ("fact_id", "agent", "vote", "timestamp"),
    "consensus_votes_v2": ("fact_id", "agent_id", "vote", "created_at"),
}


@dataclass(frozen=True, slots=True)
class Old:
    """One fact that can be imported, with its votes in pieces of what one request may have."""

    drafts: tuple[dict[str, Any], ...]
    size: int


@dataclass(frozen=True, slots=True)
class BadFact:
    """One fact that can't be imported, and why."""

    id: str
    error: str


class _Row(NamedTuple):
    """A fact as it was there, with one of its votes."""

    id: Any
    content: Any
    project: Any
    fact_type: Any
    tags: Any
    confidence: Any
    source: Any
    meta: Any
    valid_from: Any
    valid_until: Any
    created_at: Any
    is_tombstoned: Any
    agent: Any
    vote: Any
    voted_at: Any


class OldDatabase:
    """The earlier system's database, open. `missing`: tables and columns of it that are not there."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.missing: list[str] = []
        self.bad_votes = 0
        self._columns = {name: self._columns_of(name) for name in ("facts", "agents", *_VOTES)}
        if absent := [name for name in _MUST if name not in self._columns["facts"]]:
            what = f"no column {absent[0]} in its table facts" if self._columns["facts"] else "no table facts"
            raise Problem(
                400, "not_cortex", f"this is no database of CORTEX: it has {what}",
                "give the earlier system's database, usually ~/.cortex/cortex.db",
            )  # fmt: skip
        self._select = self._statement()
        self._names = self._agent_names()

    @property
    def agents(self) -> int:
        """How many agents it had."""
        return len(self._names)

    def facts(self, limits: Limits) -> Iterator[Old | BadFact]:
        """Every fact, in the order of the ids, checked as the node will check it."""
        self.bad_votes = 0
        rows = map(_Row._make, self._connection.execute(self._select))
        for _, same in groupby(rows, key=lambda row: row.id):
            yield self._fact(list(same), limits)

    def lone_votes(self) -> int:
        """Votes on facts that are not there."""
        return sum(
            self._count(f"SELECT count(*) FROM {table} WHERE fact_id NOT IN (SELECT id FROM facts)")  # noqa: S608
            for table in self._vote_tables()
        )

    def _fact(self, rows: list[_Row], limits: Limits) -> Old | BadFact:
        name = str(rows[0].id)
        try:
            draft = _draft(rows[0])
            imports.check(msgspec.convert(draft, ImportedFact), limits)
            votes = list(self._votes(rows, draft["meta"][imports.IMPORTED].get("created_at")))
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
            return BadFact(name, str(error))
        except Problem as problem:
            return BadFact(name, problem.detail)
        pieces = [votes[at : at + imports.MAX_VOTES] for at in range(0, len(votes), imports.MAX_VOTES)] or [[]]
        size = len(msgspec.json.encode(draft)) + VOTE_BYTES * len(votes)
        return Old(tuple(draft | {"votes": piece} for piece in pieces), size)

    def _votes(self, rows: Iterable[_Row], otherwise: str | None) -> Iterator[dict[str, Any]]:
        """The votes on a fact that can be kept; `otherwise`: when they were cast, if they don't say."""
        for row in rows:
            if row.vote is None:
                continue
            agent = self._names.get(row.agent, str(row.agent)).strip()
            fits = bool(agent) and agent.isprintable() and len(agent.encode()) <= MAX_NAME_BYTES
            if row.vote in (1, -1) and fits:
                yield {"agent": agent, "value": int(row.vote), "time": _time(row.voted_at) or _time(otherwise)}
            else:
                self.bad_votes += 1

    def _statement(self) -> str:
        """One query for facts with their votes: neither the facts nor the votes have to fit into memory."""
        known = self._columns["facts"]
        columns = []
        for name in _FACTS:
            there = name if name in known else _OTHER_NAMES.get(name, "")
            columns.append(f"f.{there}" if there in known else "NULL")
            if there not in known and name not in _NOT_MISSED:
                self.missing.append(f"facts.{name}")
        votes = [f"SELECT {', '.join(_VOTES[table])} FROM {table}" for table in self._vote_tables()]  # noqa: S608
        united = " UNION ALL ".join(votes) or "SELECT NULL, NULL, NULL, NULL"
        return (
            f"WITH v (fact, agent, vote, at) AS ({united})"  # noqa: S608 - the names are our own
            f" SELECT {', '.join(columns)}, v.agent, v.vote, v.at FROM facts f LEFT JOIN v ON v.fact = f.id"
            " ORDER BY f.id"
        )

    def _vote_tables(self) -> list[str]:
        """Those that are there whole; what is missing of the others is noted."""
        whole = []
        for table, columns in _VOTES.items():
            absent = [f"{table}.{name}" for name in columns if name not in self._columns[table]]
            if not absent:
                whole.append(table)
            elif not set(absent if self._columns[table] else [table]) <= set(self.missing):
                self.missing += absent if self._columns[table] else [table]
        return whole

    def _agent_names(self) -> dict[Any, str]:
        """What the agents are called, by id. Names were not unique there; here a vote has only the name."""
        if not {"id", "name"} <= self._columns["agents"]:
            self.missing.append("agents")
            return {}
        names = dict(self._connection.execute("SELECT id, name FROM agents WHERE name IS NOT NULL").fetchall())
        often = Counter(names.values())
        return {id_: str(name) if often[name] == 1 else f"{name} ({str(id_)[:8]})" for id_, name in names.items()}

    def _columns_of(self, table: str) -> frozenset[str]:
        return frozenset(
            name for (name,) in self._connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        )

    def _count(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


@contextmanager
def opened(path: Path) -> Iterator[OldDatabase]:
    """The database at `path`, as it is at this moment. Raises Problem when it is none, or cannot be read."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise unreadable(str(path), error) from error
    # SQLite leaves files beside a database with a write-ahead log, even where it only reads. Without a log there is
    # nobody who writes, and the file is all there is.
    alone = header[_WAL_VERSION] == b"\x02\x02" and not path.with_name(path.name + "-wal").exists()
    uri = f"file:{quote(str(path.absolute()))}?mode=ro" + ("&immutable=1" if alone else "")
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode(errors="replace")
            connection.execute("BEGIN")
            yield OldDatabase(connection)
    except sqlite3.Error as error:
        raise Problem(
            400, "unreadable_database", f"{path} cannot be read as a SQLite database: {error}",
            "give the earlier system's database; if that runs, stop it first",
        ) from error  # fmt: skip


def batches(facts: Iterable[Old], most: int) -> Iterator[list[dict[str, Any]]]:
    """The drafts in order, in batches of at most `most` and, unless one fact is longer, BATCH_BYTES."""
    batch: list[dict[str, Any]] = []
    size = 0
    for fact in facts:
        for draft in fact.drafts:
            if batch and (len(batch) == most or size + fact.size > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(draft)
            size += fact.size
    if batch:
        yield batch


def _draft(row: _Row) -> dict[str, Any]:
    """The fact that a row describes, not yet checked."""
    if isinstance(row.content, str) and row.content.startswith(ENCRYPTED):
        raise Problem(422, "encrypted", "its content is encrypted", "decrypt it in the earlier system first", "content")
    meta, origin = _meta(row.meta), {"system": "cortex", "id": str(row.id)}
    if row.created_at is not None:
        origin["created_at"] = _time(row.created_at) or str(row.created_at)
    if not isinstance(meta, dict):
        origin["meta"] = str(meta)
        meta = {}
    if imports.IMPORTED in meta:
        origin[imports.IMPORTED] = meta[imports.IMPORTED]
    reason = meta.get("deprecation_reason")
    retracted = bool(row.is_tombstoned) or reason is not None
    draft = {
        "legacy_id": str(row.id),
        "content": row.content,
        "project": row.project,
        "fact_type": row.fact_type,
        "tags": _tags(row.tags),
        "confidence": row.confidence,
        "source": row.source or None,
        "retracted": retracted or None,
        "retracted_reason": str(reason) if reason is not None else None,
    }
    since, until = _time(row.valid_from), _time(row.valid_until)
    if since and until and until <= since:  # of a second in which it was stored and deprecated
        origin["valid_from"], since = since, None
    draft |= {"valid_from": since, "valid_until": until, "meta": meta | {imports.IMPORTED: origin}}
    return {name: value for name, value in draft.items() if value is not None}


def _meta(text: Any) -> Any:
    """The object that a JSON text says; the text itself, if it says none. An empty one is no meta."""
    try:
        meta = msgspec.json.decode(text) if text else {}
    except (msgspec.MsgspecError, TypeError, RecursionError):
        return text
    return meta if isinstance(meta, dict) else text


def _tags(text: Any) -> list[str]:
    """A list in JSON, or words between commas."""
    try:
        tags = msgspec.json.decode(text) if text else []
    except (msgspec.MsgspecError, TypeError, RecursionError):
        tags = str(text).split(",")
    listed = tags if isinstance(tags, list) else [tags]
    return [tag for one in listed if (tag := str(one).strip())]


def _time(text: Any) -> str | None:
    """The time as the API has it; None when it is none."""
    try:
        return rfc3339(parse_rfc3339(text)) if text else None
    except (ValueError, TypeError, AttributeError):
        return None
