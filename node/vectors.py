"""A vector of every text, made in the background and kept on disk.

A store never waits for its vector: a trigger notes each new text in `vectors_due`, and a task works that table off, the
newest first, a slice at a time with pauses. What is due survives a crash, and a text that is edited or deleted takes
its vector with it in the same transaction, so nothing here has to be repaired: `Store.rebuild` makes all texts anew,
and with them all vectors.

Each vector names the model that made it, and vectors of two models are never compared. When the node starts with
another model, every text becomes due again, and search is by text until READY_SHARE of the vectors are there.

A text that the model can't read (another language, see `Encoder.coverage`) gets an empty vector: it is done, and found
by its words. The bits of all vectors are in memory, in a value of node/search/nearest.py that a search takes as it is.

numpy, and with it the encoder, is imported when the task starts, never before. Tests: tests/node/test_vectors.py.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from node import clock
from node.errors import Problem

if TYPE_CHECKING:
    from node.database import Database
    from node.embedding.table import Encoder
    from node.search import Meaning
    from node.search.nearest import Signs

SLICE: Final = 100
"""Texts embedded between two pauses: 2 ms with the table, a second with MiniLM."""
PAUSE_S: Final = 0.05
"""The shortest pause; as long as the slice took, if that was longer: at most half of one core. 50,000 in 30 s."""
QUERIES: Final = 500
"""Vectors of queries kept, of 300 bytes and the query itself. With MiniLM one costs milliseconds."""
PAUSED_LOOK_S: Final = 1.0
RETRY_S: Final = 30.0
"""After a failed write (a full disk, for instance)."""
BODY_CHARS: Final = 1_000
"""Of a body this much is embedded, after the content: a mean over more says less."""
LOAD: Final = 5_000
"""Vectors read at a time at the start, so that no snapshot is kept open for long."""
READY_SHARE: Final = 0.9
"""With fewer vectors, what has one would push aside what has none."""
STALE_SHARE: Final = 0.25
STALE_LEAST: Final = 1_000
"""Texts that are gone stay in memory until they are more than both."""

MODEL_KEY: Final = "model"
"""In the table `meta`: the number of the model that `vectors_due` is about."""

log = logging.getLogger(__name__)


class EncoderMissing(Exception):
    """There is nothing to make vectors with; the text says why and what to do."""


class State(StrEnum):
    """What a search can expect."""

    OFF = "off"
    MISSING = "missing"
    LOADING = "loading"
    BUILDING = "building"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of `total` texts have been given a vector of `model`. `fault` says why there is no model."""

    state: State
    model: str | None = None
    done: int = 0
    total: int = 0
    fault: str | None = None


class Due(NamedTuple):
    """A text that lacks a vector, as far as it is embedded."""

    text: int
    project: int
    content: str
    body: str | None


def open_encoder(kind: str, *, whole: bool = False) -> "Encoder":
    """The encoder of the setting `embedding`; `whole`: every byte of its file is checked. Raises EncoderMissing."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported; products of 256 gain by no thread
    try:
        from node.embedding.minilm import MiniLM, MiniLMError
        from node.embedding.table import Table, TableError
    except ImportError as error:
        raise EncoderMissing(f"numpy can't be imported ({error}): pip install numpy") from error
    try:
        if kind == "minilm":
            return MiniLM()  # which checks its file whenever it is opened
        table = Table()
        if whole:
            table.verify()
        return table
    except (MiniLMError, TableError) as error:
        raise EncoderMissing(str(error)) from error


class Vectors:
    """The vectors of one node. `make` is run on a thread and raises EncoderMissing; None: there shall be none."""

    def __init__(self, database: "Database", make: "Callable[[], Encoder] | None", pause_s: float = PAUSE_S) -> None:
        self.progress = Progress(State.OFF if make is None else State.LOADING)
        self.on_keep: Callable[[set[int]], None] = lambda projects: None
        """Hears, inside the transaction, in which projects texts get vectors."""
        self.on_change: Callable[[set[int] | None], None] = lambda projects: None
        """Hears in which projects searches are answered otherwise from now on; None: in all."""
        self.paused: Callable[[], bool] = lambda: False
        self._database = database
        self._make = make
        self._pause_s = pause_s
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._model = 0
        self._signs: Signs | None = None
        self._embedded: Callable[[str], bytes] = lambda query: b""

    def start(self) -> None:
        """Begin to work off what is due. The database must run."""
        if self._make is None:
            self._settled.set()
        else:
            self._task = asyncio.create_task(self._run(self._make), name="vectors")

    async def stop(self) -> None:
        """Leave the rest for the next start. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def wake(self) -> None:
        """Something was written."""
        if self._task is not None and not self._task.done():
            self._settled.clear()
            self._woken.set()

    async def settled(self) -> None:
        """Return when all that was written has its vector, or there are none to be had."""
        await self._settled.wait()

    def meaning(self, query: str) -> "Meaning | None":
        """The query as a vector; None while there are too few vectors, and for a query that the model can't read."""
        signs = self._signs
        if self.progress.state is not State.READY or signs is None:
            return None
        from node.search.nearest import Question

        vector = self._embedded(query)
        return Question(vector, self._model, signs) if vector else None

    # The task

    async def _run(self, make: "Callable[[], Encoder]") -> None:
        try:
            encoder = await asyncio.to_thread(make)
            self._embedded = lru_cache(QUERIES)(partial(embed, encoder))
        except EncoderMissing as error:
            log.warning("search is by text alone: %s", error)
            self.progress = Progress(State.MISSING, fault=str(error))
            self._settled.set()
            return
        while True:
            try:
                await self._work_off(encoder)
            except (Problem, sqlite3.Error) as error:
                log.warning("vectors wait for %d s: %s", RETRY_S, error)
                await asyncio.sleep(RETRY_S)
            else:
                self._settled.set()
                await self._woken.wait()

    async def _work_off(self, encoder: "Encoder") -> None:
        if self._signs is None:
            self._model = await self._database.write(lambda connection: adopt(connection, encoder.model))
            self._signs = await self._load(encoder)
        while True:
            if self.paused():
                await asyncio.sleep(PAUSED_LOOK_S)
                continue
            self._woken.clear()
            began = clock.monotonic()
            if not await self._slice(encoder, self._signs):
                break
            await asyncio.sleep(max(self._pause_s, min(clock.monotonic() - began, RETRY_S)))
        if len(self._signs) - self.progress.done > max(STALE_LEAST, STALE_SHARE * self.progress.total):
            self._signs = await self._load(encoder)
            self.on_change(None)

    async def _load(self, encoder: "Encoder") -> "Signs":
        """The bits of all vectors of this model."""
        from node.search.nearest import Signs

        signs, last = Signs.none(encoder.dims), 0
        while True:
            rows = await self._database.read(
                lambda connection, after=last: connection.execute(  # type: ignore[misc]
                    "SELECT text, project, vector FROM vectors WHERE text > ? AND model = ? ORDER BY text LIMIT ?",
                    (after, self._model, LOAD),
                ).fetchall()
            )
            if not rows:
                return signs
            last = rows[-1][0]
            signs = await asyncio.to_thread(signs.put, Signs.of(rows, encoder.dims))

    async def _slice(self, encoder: "Encoder", signs: "Signs") -> bool:
        """Embed the newest texts that are due; False when none was."""
        from node.search.nearest import Signs

        due = await self._database.read(due_now)
        if due:
            vectors = await asyncio.to_thread(embed_all, encoder, due)
            rows = list(zip(due, vectors, strict=True))
            projects = {text.project for text in due}

            def job(connection: sqlite3.Connection) -> None:
                self.on_keep(projects)
                keep(connection, self._model, rows)

            await self._database.write(job)
            new = Signs.of([(text.text, text.project, vector) for text, vector in rows], encoder.dims)
            self._signs = signs.put(new)
            self.on_change(projects)
        waiting, total = await self._database.read(counts)
        done = total - waiting
        state = State.READY if done >= READY_SHARE * total else State.BUILDING
        changed = state is not self.progress.state
        self.progress = Progress(state, encoder.model, done, total)
        if changed:
            self.on_change(None)
        return bool(due)


def embed_all(encoder: "Encoder", texts: list[Due]) -> list[bytes]:
    """A vector of each text."""
    return [embed(encoder, f"{due.content}\n{due.body}" if due.body else due.content) for due in texts]


def embed(encoder: "Encoder", text: str) -> bytes:
    """The text's vector; empty when the model can't read it."""
    from node.embedding.table import COVERAGE_MIN

    vector = encoder.embed(text) if encoder.coverage(text) >= COVERAGE_MIN else b""
    return vector if any(vector) else b""


def adopt(connection: sqlite3.Connection, name: str) -> int:
    """The number of a model, from which on every vector shall be of it."""
    connection.execute("INSERT INTO models (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    (model,) = connection.execute("SELECT id FROM models WHERE name = ?", (name,)).fetchone()
    if connection.execute("SELECT value FROM meta WHERE key = ?", (MODEL_KEY,)).fetchone() != (model,):
        connection.execute("INSERT OR IGNORE INTO vectors_due SELECT text FROM vectors WHERE model <> ?", (model,))
        connection.execute("DELETE FROM vectors_due WHERE text IN (SELECT text FROM vectors WHERE model = ?)", (model,))
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (MODEL_KEY, model))
    return int(model)


def due_now(connection: sqlite3.Connection) -> list[Due]:
    """The newest SLICE texts that lack a vector."""
    rows = connection.execute(
        "SELECT texts.id, facts.project, texts.content, substr(texts.body, 1, ?) FROM vectors_due"
        " CROSS JOIN texts ON texts.id = vectors_due.text CROSS JOIN facts ON facts.id = texts.fact"
        " ORDER BY vectors_due.text DESC LIMIT ?",
        (BODY_CHARS, SLICE),
    )
    return [Due._make(row) for row in rows]


def keep(connection: sqlite3.Connection, model: int, rows: list[tuple[Due, bytes]]) -> None:
    """Write the vectors of texts that still say what was embedded: a rowid may have passed to another text since."""
    same: dict[str, Any] = {"model": model, "chars": BODY_CHARS}
    values = [due._asdict() | same | {"vector": vector} for due, vector in rows]
    connection.executemany(
        "INSERT OR REPLACE INTO vectors SELECT id, :project, :model, :vector FROM texts"
        " WHERE id = :text AND content = :content AND substr(body, 1, :chars) IS :body",
        values,
    )
    connection.executemany(
        "DELETE FROM vectors_due WHERE text = :text AND EXISTS"
        " (SELECT 1 FROM vectors WHERE text = :text AND model = :model)",
        values,
    )


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many texts are due, and how many there are."""
    (due,) = connection.execute("SELECT count(*) FROM vectors_due").fetchone()
    (total,) = connection.execute("SELECT coalesce(sum(texts), 0) FROM texts_counts").fetchone()
    return due, total
