"""The verbs: store, get, update, retract, tag, link, list, graph, export. What REST, the command line and MCP all do.

A write checks its input, then reads what is shown, writes ops and answers from inside one transaction, so its answer is
what is on disk when it returns. An edit writes one op per changed field, with the clock of all that it has seen of that
field; nothing is overwritten, it is superseded.

Answers are dictionaries in the shapes of the API. What the votes on a fact amount to is put in last, also behind the
cache: it is today's (node/voting/verdicts.py). Errors are `Problem`s. Search is node/recall.py.
Tests: tests/node/test_replica.py.
"""

import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import UNSET

from crdt import fact as facts
from crdt.fact import BODY_FIELD, ELEMENT, FACT, RETRACTED, TAG_PREFIX, TEXT, VALUE, Fact, Retraction
from crdt.hlc import MAX_TIMESTAMP, wall_ms
from crdt.op import MAX_BODY_BYTES, Op, OpClass
from crdt.survive import clock_over, dots_of, in_register
from crdt.version import Dot, node_id
from node import legacy, requests, shown
from node.cache import Cache, Computed
from node.clock import rfc3339
from node.database import Database
from node.errors import Problem
from node.graph import around
from node.requests import FactChanges, FactDraft, Limits, LinkChange, TagChange
from node.store import Draft, Store
from node.voting import verdicts

ALL_PROJECTS = "*"
EXPORT_PAGE = 500
EXPORT_PAGE_BYTES = 4 << 20
"""An export holds one page at a time, and a body may have a MiB."""
KEY_KEPT_MS = 24 * 3_600_000
"""How long an Idempotency-Key is remembered: longer than any client retries."""
_LIST_ALL = """
    SELECT created, id, shown FROM facts
    WHERE (created, id) < (:created, :id) AND (retracted IS NULL OR :retracted)
    ORDER BY created DESC, id DESC LIMIT :limit
"""
_LIST_PROJECT = """
    SELECT created, id, shown FROM facts
    WHERE project = (SELECT id FROM projects WHERE name = :project)
      AND (created, id) < (:created, :id) AND (retracted IS NULL OR :retracted)
    ORDER BY created DESC, id DESC LIMIT :limit
"""


class Replica:
    """The facts of one node. `now_ms` tells the time; `wrote` hears of our own new ops once they are on disk.

    `decorate` puts into facts what their votes amount to; by itself, that nobody has voted.
    """

    def __init__(self, store: Store, limits: Limits, now_ms: Callable[[], int], cache: Cache | None = None) -> None:
        self.store = store
        self.cache = cache
        self.database: Database = store.database
        self.limits = limits
        self.now_ms = now_ms
        self.wrote: Callable[[list[Op]], None] = lambda ops: None
        self.decorate: verdicts.Decorate = verdicts.leave_unvoted

    async def store_facts(
        self, drafts: Sequence[FactDraft], key: str | None = None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Store facts, all or none, in order; also whether this is the repeat of a request with the same `key`."""
        if not 0 < len(drafts) <= self.limits.batch:
            raise Problem(
                422, "invalid_batch", f"{len(drafts)} facts in one request", f"send 1 to {self.limits.batch}", "facts"
            )
        records = [requests.check_draft(draft, self.limits) for draft in drafts]
        requests.check_key(key)
        request = blake2b(msgspec.msgpack.encode(list(drafts), order="sorted"), digest_size=16).digest()

        def job(connection: sqlite3.Connection) -> tuple[list[dict[str, Any]], bool, list[Op]]:
            if key is not None and (ids := self._answered(connection, key, request)):
                return self._answer(connection, ids, retracted=True), True, []
            created = self.store.append(
                connection,
                [
                    Draft(draft.project, OpClass.WRITE, "", "", FACT, facts.encode_record(record))
                    for draft, record in zip(drafts, records, strict=True)
                ],
                self.now_ms(),
            )
            bodies = [
                self._text_draft(op.project, op.subject, [], draft.body)
                for op, draft in zip(created, drafts, strict=True)
                if draft.body
            ]
            created += self.store.append(connection, bodies, self.now_ms())
            ids = [op.subject for op in created[: len(drafts)]]
            if key is not None:
                connection.execute(
                    "INSERT INTO answers VALUES (?,?,?,?)", (key, request, msgspec.json.encode(ids), self.now_ms())
                )
            return self._answer(connection, ids), False, created

        answer, repeated, _ = await self.database.write(job, after=lambda result: self.wrote(result[2]))
        return answer, repeated

    async def update(self, fact_id: str, changes: FactChanges) -> dict[str, Any]:
        """Change fields, tags and body of a fact."""
        values = requests.check_changes(changes, self.limits)
        tags = None if changes.tags is UNSET else requests.check_tags(changes.tags, self.limits)

        def drafts(fact: Fact, ops: list[Op]) -> list[Draft]:
            if changes.if_version not in (None, fact.version):
                raise Problem(
                    409, "version_changed", f"the content of {fact_id} has changed since version {changes.if_version}",
                    f"read it again; its version is {fact.version}", "if_version",
                )  # fmt: skip
            if values.keys() & {"valid_from", "valid_until"}:
                merged = fact.values | values
                requests.check_interval(merged["valid_from"], merged["valid_until"])
            made = [_write(fact, ops, name, value) for name, value in values.items() if _changes(fact, name, value)]
            if changes.restore and fact.retracted is not None:
                made.append(_write(fact, ops, RETRACTED, None))
            if tags is not None:
                made += self._tag_drafts(fact, ops, [t for t in tags if t not in fact.tags], set(fact.tags) - set(tags))
            return made + self._body_drafts(fact, changes)

        return await self._edit(fact_id, drafts, retracted=changes.restore)

    async def retract(self, fact_id: str, reason: str | None = None) -> dict[str, Any]:
        """Withdraw a fact. It stays in the history, and for searches as of an earlier time."""
        requests.check_reason(reason)
        return await self._edit(
            fact_id, lambda fact, ops: [_write(fact, ops, RETRACTED, Retraction(reason))], answer_retracted=True
        )

    async def tag(self, fact_id: str, change: TagChange) -> dict[str, Any]:
        """Add and remove tags."""
        adds = requests.check_tags(change.add, self.limits)
        removes = set(change.remove) - set(adds)  # unchecked: a peer's tags may be longer than ours
        return await self._edit(
            fact_id,
            lambda fact, ops: self._tag_drafts(
                fact, ops, [tag for tag in adds if tag not in fact.tags], removes & set(fact.tags)
            ),
        )

    async def link(self, fact_id: str, change: LinkChange) -> dict[str, Any]:
        """Make or remove a typed link to another fact."""
        change = msgspec.structs.replace(change, to=self.resolve(change.to))
        register = requests.check_link(change)

        def drafts(fact: Fact, ops: list[Op]) -> list[Draft]:
            linked = (change.relation, change.to) in fact.links
            if change.remove:
                if not linked:
                    raise Problem(
                        404,
                        "no_such_link",
                        f"{fact_id} has no link {change.relation} to {change.to}",
                        "run: cortex-node get " + fact_id,
                    )
                adds = facts.elements(ops, facts.LINK_PREFIX)[register.removeprefix(facts.LINK_PREFIX)]
                return _removes(fact, register, adds)
            if linked:
                return []
            if len(fact.links) >= requests.MAX_LINKS:
                raise Problem(
                    422, "too_many_links", f"{fact_id} has {len(fact.links)} links, the limit is {requests.MAX_LINKS}",
                    "link from the other side, or by a fact in between", "to",
                )  # fmt: skip
            return [Draft(fact.project, OpClass.ADD, fact.id, register, ELEMENT, b"")]

        if (
            not change.remove
            and self.database.direct.execute("SELECT 1 FROM facts WHERE name = ?", (change.to,)).fetchone() is None
        ):
            raise unknown_fact(change.to, "to")
        return await self._edit(fact_id, drafts)

    async def get(self, fact_id: str, *, retracted: bool = False) -> dict[str, Any]:
        """One fact with its body. Retracted ones are gone (410) unless asked for."""
        fact_id = self.resolve(fact_id)

        async def compute() -> Computed:
            return Computed(await self._get(fact_id, retracted=retracted), fact_id)

        answer: dict[str, Any]
        if self.cache is None:
            answer = await self._get(fact_id, retracted=retracted)
        else:
            answer = await self.cache.answer(_fact_key(fact_id, retracted), fact_id, compute)
        self.decorate(self.database.direct, [answer])
        return answer

    async def _get(self, fact_id: str, *, retracted: bool) -> dict[str, Any]:
        row = self.database.direct.execute("SELECT body IS NULL FROM facts WHERE name = ?", (fact_id,)).fetchone()
        if row is None or row[0]:
            return self._read(self.database.direct, fact_id, retracted=retracted)
        # The body and the token that stands for it must be of one snapshot: an edit builds on both.
        return await self.database.read(partial(self._read, fact_id=fact_id, retracted=retracted))

    async def history(self, fact_id: str) -> dict[str, Any]:
        """Every version of a fact that was ever written here or synced, oldest first."""
        fact_id = self.resolve(fact_id)
        _, ops = await self.database.read(partial(self._load, fact_id=fact_id))
        versions = [
            {
                "version": version.op.hash.hex(),
                "field": version.field,
                "value": _told(version.field, version.value),
                "author": node_id(version.op.header.node_key),
                "agent": facts.given(version.op).get("agent"),
                "at": rfc3339(wall_ms(version.op.timestamp)),
                "state": version.state,
            }
            for version in facts.history(ops)
        ]
        return {"id": fact_id, "versions": versions}

    async def list_facts(
        self, project: str = ALL_PROJECTS, limit: int = 100, cursor: str | None = None, *, retracted: bool = False
    ) -> dict[str, Any]:
        """The facts of a project, or of all (`*`), newest first."""
        if not 1 <= limit <= requests.MAX_PAGE:
            raise Problem(422, "invalid_limit", f"limit is {limit}", f"ask for 1 to {requests.MAX_PAGE}", "limit")
        before = _read_cursor(cursor) if cursor else (MAX_TIMESTAMP, MAX_TIMESTAMP)

        def job(connection: sqlite3.Connection) -> dict[str, Any]:
            rows = connection.execute(
                _LIST_ALL if project == ALL_PROJECTS else _LIST_PROJECT,
                {"project": project, "created": before[0], "id": before[1], "limit": limit + 1, "retracted": retracted},
            ).fetchall()
            listed = [_shape(row[2]) for row in rows[:limit]]
            self.decorate(connection, listed)
            return {"facts": listed, "next_cursor": _write_cursor(rows[limit - 1]) if len(rows) > limit else None}

        return await self.database.read(job)

    async def projects(self) -> dict[str, Any]:
        """The projects with the number of facts in each."""

        def job(connection: sqlite3.Connection) -> list[tuple[str, int]]:
            return connection.execute(
                "SELECT p.name, count(f.id) FROM projects p JOIN facts f ON f.project = p.id AND f.retracted IS NULL"
                " GROUP BY p.id ORDER BY p.name"
            ).fetchall()

        return {"projects": [{"name": name, "facts": number} for name, number in await self.database.read(job)]}

    async def graph(self, fact_id: str, depth: int = 2) -> dict[str, Any]:
        """The facts within `depth` links of one, in either direction, breadth first."""
        if not 0 <= depth <= requests.MAX_DEPTH:
            raise Problem(422, "invalid_depth", f"depth is {depth}", f"ask for 0 to {requests.MAX_DEPTH}", "depth")
        fact_id = self.resolve(fact_id)

        def job(connection: sqlite3.Connection) -> dict[str, Any]:
            self._read(connection, fact_id, retracted=True)
            return around(connection, fact_id, depth)

        return await self.database.read(job)

    async def export(self) -> AsyncIterator[bytes]:
        """Every fact that stands, with its body, one JSON line each, oldest first."""
        last = 0
        while True:
            last, lines = await self.database.read(partial(_export_page, after=last))
            if not lines:
                return
            for line in lines:
                yield line

    def resolve(self, fact_id: str) -> str:
        """The id of the fact that is meant, where a user may give the one of an earlier system. Raises Problem."""
        return legacy.resolve(self.database.direct, fact_id)

    # Inside a transaction

    async def _edit(
        self,
        fact_id: str,
        drafts: Callable[[Fact, list[Op]], list[Draft]],
        *,
        retracted: bool = False,
        answer_retracted: bool = False,
    ) -> dict[str, Any]:
        fact_id = self.resolve(fact_id)

        def job(connection: sqlite3.Connection) -> tuple[dict[str, Any], list[Op]]:
            fact, ops = self._load(connection, fact_id)
            if fact.retracted is not None and not retracted:
                raise retracted_fact(fact_id)
            written = self.store.append(connection, drafts(fact, ops), self.now_ms())
            return self._answer(connection, [fact_id], retracted=answer_retracted)[0], written

        answer, _ = await self.database.write(job, after=lambda result: self.wrote(result[1]))
        return answer

    def _load(self, connection: sqlite3.Connection, fact_id: str) -> tuple[Fact, list[Op]]:
        row = connection.execute("SELECT project FROM facts WHERE name = ?", (fact_id,)).fetchone()
        ops = self.store.effective_ops(connection, fact_id, row[0]) if row else []
        fact = facts.fold(ops, self.store.held_after(self.now_ms()))
        if fact is None:
            raise unknown_fact(fact_id)
        return fact, ops

    def _answer(
        self, connection: sqlite3.Connection, ids: Sequence[str], *, retracted: bool = False
    ) -> list[dict[str, Any]]:
        answer = [self._read(connection, name, retracted=retracted) for name in ids]
        self.decorate(connection, answer)
        return answer

    def _read(self, connection: sqlite3.Connection, fact_id: str, *, retracted: bool = False) -> dict[str, Any]:
        row = connection.execute("SELECT shown, retracted, body FROM facts WHERE name = ?", (fact_id,)).fetchone()
        if row is None:
            raise unknown_fact(fact_id)
        if row[1] is not None and not retracted:
            raise retracted_fact(fact_id)
        shape = _shape(row[0])
        if shape["has_body"]:
            _, ops = self._load(connection, fact_id)
            shape["body"], shape["body_token"] = row[2], _token(facts.text_ops(ops))
        return shape

    def _answered(self, connection: sqlite3.Connection, key: str, request: bytes) -> list[str] | None:
        connection.execute("DELETE FROM answers WHERE at < ?", (self.now_ms() - KEY_KEPT_MS,))
        row = connection.execute("SELECT request, answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if row[0] != request:
            raise Problem(
                409, "key_reused", "this Idempotency-Key was used for other facts", "use a new key per request"
            )
        return msgspec.json.decode(row[1], type=list[str])

    def _tag_drafts(self, fact: Fact, ops: list[Op], adds: Sequence[str], removes: set[str]) -> list[Draft]:
        if adds and len(fact.tags) - len(removes) + len(adds) > self.limits.tags:
            raise Problem(
                422,
                "invalid_tags",
                f"the fact would have more than {self.limits.tags} tags",
                "remove some first",
                "tags",
            )
        present = facts.elements(ops, TAG_PREFIX)
        made = [Draft(fact.project, OpClass.ADD, fact.id, TAG_PREFIX + tag, ELEMENT, b"") for tag in adds]
        for tag in sorted(removes):
            made += _removes(fact, TAG_PREFIX + tag, present[tag])
        return made

    def _body_drafts(self, fact: Fact, changes: FactChanges) -> list[Draft]:
        if changes.append is not UNSET:
            return self._wanted_text(fact, fact.texts, (shown.read_body(fact) or "") + changes.append)
        if changes.body is not UNSET:
            base = fact.texts if changes.body_base is UNSET else _since(changes.body_base, fact.texts)
            return self._wanted_text(fact, base, changes.body)
        return []

    def _wanted_text(self, fact: Fact, base: Sequence[Op], text: str) -> list[Draft]:
        requests.check_body(text, self.limits)
        return [self._text_draft(fact.project, fact.id, base, text)]

    def _text_draft(self, project: str, subject: str, base: Sequence[Op], text: str) -> Draft:
        from crdt import text as body  # pycrdt costs 11 MB; most nodes never meet a body

        def update(dot: Dot) -> bytes:
            made = body.edit(base, dot, text)
            if len(made) > MAX_BODY_BYTES:
                raise Problem(
                    413, "body_too_long", "the body and what it replaces are too much for one edit",
                    "change it in several smaller edits", "body",
                )  # fmt: skip
            return made

        return Draft(project, OpClass.APPEND, subject, BODY_FIELD, TEXT, update)


def _export_page(connection: sqlite3.Connection, after: int) -> tuple[int, list[bytes]]:
    """The next lines of an export, and the number of the last fact in them."""
    rows = connection.execute(
        "SELECT id, shown, body FROM facts WHERE id > ? AND retracted IS NULL ORDER BY id LIMIT ?", (after, EXPORT_PAGE)
    )
    lines: list[bytes] = []
    size = 0
    for number, shape, body in rows:
        lines.append(msgspec.json.encode(_shape(shape) | {"body": body}) + b"\n")
        after, size = number, size + len(lines[-1])
        if size > EXPORT_PAGE_BYTES:
            break
    return after, lines


def _write(fact: Fact, ops: list[Op], field: str, value: Any) -> Draft:
    clock = clock_over(in_register(ops, field))
    return Draft(fact.project, OpClass.WRITE, fact.id, field, VALUE, facts.encode_value(value), clock)


def _removes(fact: Fact, register: str, adds: list[Op]) -> list[Draft]:
    return [Draft(fact.project, OpClass.REMOVE, fact.id, register, ELEMENT, b"", clock) for clock in dots_of(adds)]


def _changes(fact: Fact, field: str, value: Any) -> bool:
    """Whether a write says anything new; writing the shown value again settles a conflict."""
    same = facts.encode_value(fact.values[field]) == facts.encode_value(value)  # to Python 1, 1.0 and True are equal
    return not same or field in fact.conflicts


def _told(field: str, value: Any) -> Any:
    """A value of the history as the API shows it."""
    if field in ("valid_from", "valid_until") and value is not None:
        return rfc3339(value)
    return msgspec.to_builtins(value)


def _shape(row: bytes) -> dict[str, Any]:
    shape: dict[str, Any] = msgspec.json.decode(row)
    shape["body"] = None
    return shape


def _token(ops: Sequence[Op]) -> str:
    """What a reader of a body has seen, for an edit to build on: author and newest seq of its ops."""
    seen: dict[bytes, int] = {}
    for op in ops:
        seen[op.author] = max(op.seq, seen.get(op.author, 0))
    return urlsafe_b64encode(msgspec.msgpack.encode(seen)).decode()


def _since(token: str, ops: Sequence[Op]) -> list[Op]:
    try:
        seen = msgspec.msgpack.decode(urlsafe_b64decode(token.encode()), type=dict[bytes, int])
    except (ValueError, msgspec.MsgspecError):
        raise Problem(
            422, "invalid_body_base", "body_base is not a body_token", "pass on the body_token of GET", "body_base"
        ) from None
    return [op for op in ops if op.seq <= seen.get(op.author, 0)]


def _write_cursor(row: tuple[int, int, bytes]) -> str:
    return urlsafe_b64encode(f"{row[0]} {row[1]}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, int]:
    try:
        created, number = (int(part) for part in urlsafe_b64decode(cursor.encode()).decode().split())
        if not (0 <= created <= MAX_TIMESTAMP and 0 <= number <= MAX_TIMESTAMP):
            raise ValueError(cursor)
        return created, number
    except ValueError:
        raise Problem(
            422, "invalid_cursor", "the cursor is damaged", "pass on next_cursor as it was given", "cursor"
        ) from None


def _fact_key(fact_id: str, retracted: bool) -> bytes:
    return b"get %d " % retracted + fact_id.encode(errors="surrogatepass")


def unknown_fact(fact_id: str, field: str | None = None) -> Problem:
    """No fact has this id here."""
    return Problem(
        404, "unknown_fact", f"there is no fact {fact_id!r} here", "look it up with: cortex-node search", field
    )


def retracted_fact(fact_id: str) -> Problem:
    """The fact was withdrawn."""
    return Problem(
        410, "retracted", f"the fact {fact_id} was retracted", f"see its history: cortex-node history {fact_id}"
    )
