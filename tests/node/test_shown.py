"""What is listed and searched follows from a subject's ops: each content once, with the time in which it was shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import fact
from crdt.fact import FIELD_TYPES, VALUE, Record, Retraction, fold
from crdt.hlc import DEFAULT_AHEAD_MS, timestamp
from node import shown
from node.requests import FactChanges, TagChange
from node.shapes import Fact
from node.voting.verdicts import unvoted
from tests.node.world import NOW_MS, PROJECT, Forger, Node, a_mesh, sync


def texts(node: Node) -> list[tuple[str, str | None, int, int | None]]:
    return node.rows("SELECT content, body, known_from, known_until FROM texts ORDER BY id")


def found(node: Node, word: str) -> list[str]:
    return [
        content
        for (content,) in node.rows(
            "SELECT content FROM texts WHERE id IN (SELECT rowid FROM texts_fts WHERE texts_fts MATCH ?)", word
        )
    ]


async def test_every_content_is_kept_with_the_time_in_which_it_was_shown() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("apples"))["id"]
    for content in ("pears", "plums"):
        node.now_ms += 1_000
        await node.replica.update(name, FactChanges(content=content))
    stamps = [timestamp(NOW_MS + after) for after in (0, 1_000, 2_000)]
    (apples, pears, plums) = texts(node)
    assert [row[0] for row in (apples, pears, plums)] == ["apples", "pears", "plums"]
    assert apples[3] == pears[2] == stamps[1]
    assert pears[3] == plums[2] == stamps[2]
    assert plums[3] is None
    assert found(node, "pears") == ["pears"]
    assert node.rows("SELECT scope, texts FROM texts_counts") == [(shown.scope(2), 3)]


async def test_an_edit_that_touches_no_text_leaves_the_texts_alone() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("apples"))["id"]
    await node.create("later")  # else a text that is written again gets its number again
    before = node.rows("SELECT rowid, * FROM texts")
    await node.replica.tag(name, TagChange(add=["fruit"]))
    await node.replica.update(name, FactChanges(source="the garden", meta={"a": 1}))
    assert node.rows("SELECT rowid, * FROM texts") == before
    assert node.rows("SELECT source FROM facts ORDER BY id") == [("the garden",), (None,)]


async def test_a_body_is_searched_with_the_content_of_today() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("old title", body="about walnuts"))["id"]
    node.now_ms += 1
    await node.replica.update(name, FactChanges(content="new title"))
    assert [(content, body) for content, body, *_ in texts(node)] == [
        ("old title", None),
        ("new title", "about walnuts"),
    ]
    assert found(node, "walnuts") == ["new title"]


async def test_texts_of_concurrent_writes_do_not_overlap_in_time() -> None:
    one, other = await a_mesh(2)
    name = (await one.create("first"))["id"]
    await sync(one, other)
    for number, node in enumerate((one, other, one)):
        node.now_ms = NOW_MS + 1_000 * (number + 1)
        await node.replica.update(name, FactChanges(content=f"write {number}"))
    await sync(one, other)
    for node in (one, other):
        spans = [(start, until) for _, _, start, until in texts(node)]
        assert len(spans) == 4
        assert [until for _, until in spans] == [start for start, _ in spans[1:]] + [None]


async def test_what_is_held_is_not_among_what_was_shown() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    created = await node.create("first")
    held = forger.op(
        2, subject=created["id"], field="content", kind=VALUE, body=fact.encode_value("from the future"),
        timestamp=timestamp(NOW_MS + 2 * DEFAULT_AHEAD_MS), clock=((node.store.author, node.ops()[-1].seq),),
    )  # fmt: skip
    node.now_ms += 1_000
    await node.replica.update(created["id"], FactChanges(content="second"))
    await node.merge([forger.introduction(), held])
    second = timestamp(NOW_MS + 1_000)
    assert texts(node) == [("first", None, node.ops()[1].timestamp, second), ("second", None, second, None)]
    assert found(node, "future") == []


async def test_a_write_that_cannot_be_read_leaves_no_text() -> None:
    forger = Forger(9)
    (node,) = await a_mesh(1)
    created = await node.create("first")
    bad = forger.op(2, subject=created["id"], field="content", kind=VALUE, body=b"\xc1")
    await node.merge([forger.introduction(), bad])
    assert [content for content, *_ in texts(node)] == ["first"]


async def test_what_shows_nothing_any_more_is_gone_from_every_table() -> None:
    (node,) = await a_mesh(1)
    name = (await node.create("first", tags=["a"], body="text"))["id"]
    (number,) = node.rows("SELECT id FROM projects WHERE name = ?", PROJECT)[0]
    await node.database.write(lambda connection: shown.show(connection, number, name, [], 2**63 - 1))
    for table in ("facts", "texts", "tags", "links"):
        assert node.rows(f"SELECT * FROM {table}") == []
    assert found(node, "first") == []


async def test_the_shape_that_is_kept_is_the_shape_of_the_api() -> None:
    (node,) = await a_mesh(1)
    other = await node.create("other")
    await node.create(
        "all fields", fact_type="rule", tags=["b", "a"], confidence="sure", source="me", agent="ann",
        meta={"n": [1, None]}, valid_from="2026-01-01", valid_until="2026-02-01",
    )  # fmt: skip
    (row,) = node.rows("SELECT shown FROM facts WHERE fact_type = 'rule'")
    shape = json.loads(row[0]) | {"body": None}
    assert set(shape) | {"body_token"} | set(unvoted()) == set(Fact.__struct_fields__)
    assert shape["tags"] == ["a", "b"]
    assert (shape["valid_from"], shape["valid_until"]) == ("2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z")
    assert (shape["created_at"], shape["author"]) == ("2027-01-15T08:00:00.000Z", other["author"])


RECORDS = st.builds(
    Record,
    content=st.text(max_size=5),
    fact_type=st.sampled_from(["knowledge", "rule"]),
    source=st.none() | st.text(max_size=3),
    meta=st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=2),
    valid_from=st.none() | st.integers(0, 10**12),
    retracted=st.none() | st.just(Retraction("why")),
    tags=st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(tuple),
)


@given(
    RECORDS.map(fact.encode_record) | st.binary(max_size=10),
    st.sampled_from(["", "someone-1"]),
    st.sampled_from(["", *FIELD_TYPES, "body", "tag:a"]),
    st.sampled_from(["fact", "value", "element", "text", "tomorrow"]),
    st.sampled_from([1, 2, 3]),
)
def test_a_record_alone_shows_what_it_shows_beside_an_op_without_effect(
    body: bytes, subject: str, field: str, kind: str, op_class: int
) -> None:
    """crdt.fact.fold takes a short way for one op; the long way must lead to the same place."""
    forger = Forger(9)
    op = forger.op(5, subject=subject, field=field, kind=kind, body=body, op_class=op_class)  # type: ignore[arg-type]
    beside = forger.op(6, op, subject=op.subject, field="nothing", kind="tomorrow", body=b"", timestamp=op.timestamp)
    assert fold([op]) == fold([op, beside])


@pytest.mark.parametrize("held_after", [0, timestamp(NOW_MS - 1)])
def test_a_record_alone_is_shown_also_while_it_is_held(held_after: int) -> None:
    op = Forger(9).op(5)
    beside = Forger(9).op(6, op, subject=op.subject, field="nothing", kind="tomorrow", body=b"", timestamp=op.timestamp)
    assert fold([op], held_after) == fold([op, beside], held_after)
