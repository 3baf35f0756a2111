"""The scores' fold on a node: what of the ledger it has taken in, and what follows from that (ledger.score).

`catch_up` folds entries that have come and were not folded: those without a project, and those of each project, each
in ledger order and only as far as no entry between them is missing (`project_prev`). A node that carries some projects
thus comes to the numbers of a hub for them, in whatever order the entries came. The law: the tables are what
`ledger.score.fold` makes of the same entries from nothing.

Most entries come in order and cost one step each. What arrives below something that is folded already makes a fold from
nothing, if it could matter there: an enrolment or a revocation of somebody whose later votes were folded, an entry
before one that stopped the scores, a second tag of a project. So do a revocation that makes earlier votes void, a tail
that is gone or is another, and what had stopped the scores when it can be read at last.

Whoever changes the entries in a job calls `catch_up` and then `changed` in the same job. A signature is checked when
its entry is folded, unless the same vote stands among the ballots, where it was checked. Until the genesis is here
nothing is folded. What facts show of it is node/voting/verdicts.py. Tests: tests/node/voting/test_scores.py.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

from ledger import entry as entries
from ledger import statement as statements
from ledger.entry import NO_PROJECT, Entry, Kind
from ledger.score import Effect, Fold, Trust
from ledger.statement import BadStatement, Enrolment, Genesis, Revocation
from node.store import Store
from node.voting import verdicts
from node.voting.mappings import AGENTS, REPUTATIONS, STOPPED, TALLIES, VOIDED, Mapped, keys_of

_TABLES: Final = ("tallies", "reputations", "agents", "voided", "scores_stopped", "scores_folded")

_LINES: Final = """
    SELECT e.id, e.raw, e.tag, e.hash, e.text, e.project, EXISTS (SELECT 1 FROM ballots b WHERE b.id = e.name)
    FROM ledger_entries e WHERE e.id >= ? AND (? IS NULL OR e.tag = ?) ORDER BY e.id
"""
# One step for each tag: DISTINCT would read the whole index.
_TAGS: Final = """
    WITH RECURSIVE tags (tag) AS (
        SELECT min(tag) FROM ledger_entries
        UNION ALL
        SELECT (SELECT min(e.tag) FROM ledger_entries e WHERE e.tag > tags.tag) FROM tags WHERE tags.tag IS NOT NULL
    ) SELECT tag FROM tags WHERE tag IS NOT NULL
"""
_GONE: Final = """
    SELECT 1 FROM scores_folded f
    WHERE NOT EXISTS (SELECT 1 FROM ledger_entries e WHERE e.id = f.entry AND e.hash = f.hash) LIMIT 1
"""


class _Last(NamedTuple):
    """The entry of a tag that was folded last, and its hash in the chain."""

    place: int
    hash: bytes


class _Line(NamedTuple):
    """An entry to be folded. `checked`: the signature in its text is known to be true."""

    entry: Entry
    text: bytes | None
    project: str | None
    checked: bool


class Scores:
    """The tables of the scores. `authority`: the 32-byte Ed25519 key of the mesh's certificate authority."""

    def __init__(self, authority: bytes) -> None:
        self.authority = authority
        self._genesis_in = lru_cache(maxsize=1)(self._read_genesis)

    def fold(self, connection: sqlite3.Connection) -> Fold:
        """The fold over the tables, for one job or one read."""
        genesis = self.genesis(connection)
        return Fold(
            self.authority,
            tallies=Mapped(connection, TALLIES),
            reputations=Mapped(connection, REPUTATIONS),
            agents=Mapped(connection, AGENTS),
            void_from=Mapped(connection, VOIDED),
            frozen=Mapped(connection, STOPPED),
            constants=genesis.constants if genesis else None,
            mesh=genesis.mesh if genesis else b"",
            keys_of=partial(keys_of, connection),
        )

    def genesis(self, connection: sqlite3.Connection) -> Genesis | None:
        """What the first entry says; None until it is here."""
        row = connection.execute("SELECT raw, text FROM ledger_entries WHERE id = 0").fetchone()
        return self._genesis_in(*row) if row else None

    def catch_up(self, connection: sqlite3.Connection) -> set[str]:
        """Fold what has come since the last time; the projects whose scores may have changed."""
        if connection.execute(_GONE).fetchone() or _may_go_on(connection):
            return self.refold(connection)
        if self.genesis(connection) is None:
            return set()
        last = _read_last(connection)
        ready = _ready(connection, last)
        if not ready:
            return set()
        fold = self.fold(connection)
        if self._late(connection, fold, last, ready):
            return self.refold(connection)
        return self._take_in(connection, fold, last, min(ready.values()))

    def refold(self, connection: sqlite3.Connection) -> set[str]:
        """Fold everything from nothing, in two passes; the projects that have or had scores. For `Store.rebuild`."""
        before = _scored(connection)
        for table in _TABLES:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        if self.genesis(connection) is None:
            return before
        first = Fold(self.authority)
        for line in _lines(connection, {}, 0, NO_PROJECT):
            first.apply(line.entry, line.text)
        fold = self.fold(connection)
        fold.agents.void_from.update(first.agents.void_from)
        return before | self._take_in(connection, fold, {}, 0)

    def changed(self, connection: sqlite3.Connection, store: Store, names: Iterable[str]) -> None:
        """In the same job: searches of these projects may be answered otherwise."""
        numbers = [connection.execute("SELECT id FROM projects WHERE name = ?", (name,)).fetchone() for name in names]
        store.changes(row[0] for row in numbers if row)

    def decorate(self, connection: sqlite3.Connection, facts: Sequence[dict[str, Any]]) -> None:
        """Put into facts, in the API's shape, what the votes on the version that each shows amount to."""
        verdicts.decorate(connection, self, facts)

    def trust(self, connection: sqlite3.Connection, facts: Iterable[int]) -> dict[int, Trust]:
        """Facts (row numbers) of which anything is committed, with the trust in the version that each shows."""
        return verdicts.trust(connection, self, facts)

    def votes(self, connection: sqlite3.Connection, fact_id: str, version: str, project: str) -> list[dict[str, Any]]:
        """Every vote that is known on one version (hex), for `GET /v1/facts/{id}/votes`, the oldest first."""
        return verdicts.votes(connection, self, fact_id, version, project)

    def _take_in(self, connection: sqlite3.Connection, fold: Fold, last: dict[bytes, _Last], start: int) -> set[str]:
        """Fold all that follows without a gap, from the entry `start` on; `last` moves with it."""
        changed = set()
        for line in _lines(connection, last, start):
            effect = fold.apply(line.entry, line.text, checked=line.checked)
            if effect is Effect.REFOLD:
                return self.refold(connection)
            if effect is Effect.COUNTED and line.project is not None:
                changed.add(line.project)
        connection.executemany(
            "INSERT OR REPLACE INTO scores_folded VALUES (?,?,?)", [(tag, *one) for tag, one in last.items()]
        )
        return changed

    def _late(
        self, connection: sqlite3.Connection, fold: Fold, last: Mapping[bytes, _Last], ready: Mapping[bytes, int]
    ) -> bool:
        """Whether any entry that is to be folded could have mattered to one that was."""
        stopped = fold.frozen.get(NO_PROJECT)
        for tag, start in ready.items():
            later = [one for other, one in last.items() if one.place > start and NO_PROJECT != other != tag]
            if tag == NO_PROJECT:
                run = _lines(connection, dict(last), start, tag) if later else ()
                late = any(_matters(connection, line) for line in run)
            else:
                late = (stopped is not None and stopped > start) or any(
                    _project_at(connection, one.place) == _project_at(connection, start) for one in later
                )
            if late:
                return True
        return False

    def _read_genesis(self, raw: bytes, text: bytes | None) -> Genesis | None:
        if text is None or entries.text_hash(text) != entries.decode(raw).text_hash:
            return None
        try:
            statement = statements.verify(Kind.GENESIS, text, self.authority)
        except BadStatement:
            return None
        return statement if isinstance(statement, Genesis) else None


def _read_last(connection: sqlite3.Connection) -> dict[bytes, _Last]:
    return {tag: _Last(index, name) for tag, index, name in connection.execute("SELECT * FROM scores_folded")}


def _may_go_on(connection: sqlite3.Connection) -> bool:
    """Whether an entry that stopped scores can be read now: its text has come, or an upgrade has taught its kind."""
    stops = connection.execute(
        "SELECT e.raw, e.text FROM scores_stopped s JOIN ledger_entries e ON e.id = s.entry WHERE e.text IS NOT NULL"
    )
    stopped = [(entries.decode(raw), text) for raw, text in stops]
    return any(entry.kind in list(Kind) and entries.text_hash(text) == entry.text_hash for entry, text in stopped)


def _ready(connection: sqlite3.Connection, last: Mapping[bytes, _Last]) -> dict[bytes, int]:
    """The tags of which the next entry is here, and its index."""
    ready = {}
    for (tag,) in connection.execute(_TAGS).fetchall():
        after = last[tag].place if tag in last else -1
        row = connection.execute(
            "SELECT id, raw FROM ledger_entries WHERE tag = ? AND id > ? ORDER BY id LIMIT 1", (tag, after)
        ).fetchone()
        if row and entries.decode(row[1]).project_prev == max(after, 0):
            ready[tag] = row[0]
    return ready


def _lines(
    connection: sqlite3.Connection, last: dict[bytes, _Last], start: int, tag: bytes | None = None
) -> Iterator[_Line]:
    """Entries in ledger order, each tag's as far as it has no gap. `last` says where each goes on, and is moved."""
    for index, raw, its_tag, name, text, project, checked in connection.execute(_LINES, (start, tag, tag)):
        before = last[its_tag].place if its_tag in last else -1
        if index <= before:
            continue
        entry = entries.decode(raw)
        if entry.project_prev != max(before, 0):
            continue
        last[its_tag] = _Last(index, name)
        if text is not None and entries.text_hash(text) != entry.text_hash:
            text = None  # it has rotted: as good as one that is not here
        yield _Line(entry, text, project, bool(checked))


def _matters(connection: sqlite3.Connection, line: _Line) -> bool:
    """Whether a statement could have mattered to votes that were folded before it, though they come after it."""
    if line.text is None or line.entry.kind not in list(Kind):
        return True
    try:
        statement = statements.decode(line.entry.kind, line.text)
    except BadStatement:
        return False
    match statement:
        case Enrolment(agent=agent, replaces=replaced):
            keys = {agent, replaced}
        case Revocation(agent=agent):
            keys = {agent}
        case _:
            return False
    query = "SELECT key FROM agents WHERE principal IN (SELECT principal FROM agents WHERE key = ?)"
    keys |= {key for one in list(keys) for (key,) in connection.execute(query, (one,))}
    query = "SELECT 1 FROM ledger_entries WHERE agent = ? AND id > ? LIMIT 1"
    return any(connection.execute(query, (key, line.entry.index)).fetchone() for key in keys)


def _project_at(connection: sqlite3.Connection, index: int) -> str | None:
    (project,) = connection.execute("SELECT project FROM ledger_entries WHERE id = ?", (index,)).fetchone()
    return None if project is None else str(project)


def _scored(connection: sqlite3.Connection) -> set[str]:
    return {project for (project,) in connection.execute("SELECT DISTINCT project FROM tallies")}
