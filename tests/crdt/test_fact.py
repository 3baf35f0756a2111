"""What a fact shows, what its history tells, and that no op of anybody's can break either."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import fact
from crdt.fact import FIELD_TYPES, MAX_META_DEPTH, Record, Retraction
from crdt.op import MAX_FIELD_BYTES, OpClass
from crdt.version import node_id
from tests.crdt.histories import histories, share
from tests.crdt.world import FAR_MS, HELD_AFTER, NOW_MS, Node, a_fact, meet

FULL = Record(
    content="c",
    fact_type="rule",
    confidence="guess",
    source="s",
    agent="a",
    meta={"k": [1, 2.5, None, {"n": True}]},
    valid_from=-1,
    valid_until=NOW_MS,
    tags=("x", "y"),
)


# --- one author ---


def test_a_record_is_a_fact() -> None:
    (node,) = a_fact(FULL, nodes=1)
    shown = node.shown
    record = msgspec.structs.asdict(FULL)
    assert shown.values == {field: record[field] for field in FIELD_TYPES}
    assert (shown.id, shown.project) == (node.ops[0].subject, "garden")
    assert (shown.content, shown.tags, shown.links, shown.texts, shown.conflicts) == ("c", ("x", "y"), (), (), ())
    assert shown.author == node_id(node.key)
    assert shown.version == node.ops[0].hash.hex()
    assert shown.created == shown.updated == node.ops[0].timestamp
    assert not shown.retracted


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", "d"),
        ("fact_type", "idea"),
        ("confidence", "sure"),
        ("source", None),
        ("agent", "b"),
        ("meta", {}),
        ("valid_from", None),
        ("valid_until", 253_402_300_799_999),
        ("retracted", Retraction("wrong")),
    ],
)
def test_a_write_changes_one_field(field: str, value: Any) -> None:
    (node,) = a_fact(FULL, nodes=1)
    before = node.shown
    op = node.set(field, value)
    assert node.shown.values == {**before.values, field: value}
    assert node.shown.version == (op.hash.hex() if field == "content" else before.version)
    assert (node.shown.created, node.shown.updated) == (before.created, op.timestamp)


def test_an_old_id_stays_whatever_is_written() -> None:
    (node,) = a_fact(Record(content="c", legacy_id="123"), nodes=1)
    assert node.shown.legacy_id == "123"
    assert "legacy_id" not in node.shown.values
    node.set("content", "d")
    node.set("legacy_id", "124")
    assert node.shown.legacy_id == "123"
    node.rewrite(Record(content="all new", legacy_id="125"))
    assert (node.shown.content, node.shown.legacy_id) == ("all new", "123")


def test_a_record_with_an_old_id_too_long_says_nothing() -> None:
    raw = msgspec.msgpack.encode({"content": "c", "legacy_id": "x" * (fact.MAX_LEGACY_ID_CHARS + 1)})
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=Record)


def test_a_fact_is_withdrawn_and_brought_back() -> None:
    (node,) = a_fact(nodes=1)
    node.retract("wrong")
    assert node.shown.retracted
    assert node.states("retracted") == {Retraction("wrong"): "retracted"}
    node.set("retracted", None)
    assert not node.shown.retracted
    assert node.states("retracted") == {Retraction("wrong"): "superseded", None: "current"}


def test_without_the_op_that_created_it_there_is_no_fact() -> None:
    node = Node(1)
    node.subject = "nobody-1"
    node.set("content", "c")
    assert fact.fold(node.ops) is None
    assert fact.fold([]) is None


def test_without_content_there_is_no_fact() -> None:
    node = Node(1)
    op = node.write(OpClass.WRITE, "", fact.FACT, b"\xc1", subject="")
    assert fact.fold([op]) is None


def test_links_are_relation_and_target() -> None:
    (node,) = a_fact(nodes=1)
    node.add("link:causes:x-1")
    node.add("link:see:urn:isbn:1")
    assert node.shown.links == (("causes", "x-1"), ("see", "urn:isbn:1"))


# --- concurrent writes ---


@pytest.mark.parametrize("later_ms", [0, 1, -1])
def test_concurrent_writes_show_one_winner_and_a_conflict_until_written_again(later_ms: int) -> None:
    left, right = a_fact()
    right.now_ms += later_ms
    left.set("content", "left")
    right.set("content", "right")
    meet(left, right)
    assert left.shown == right.shown and left.history == right.history
    assert left.shown.conflicts == ("content",)
    loser = ({"left", "right"} - {left.shown.content}).pop()
    assert left.states("content") == {"first": "superseded", left.shown.content: "current", loser: "conflicting"}
    right.set("content", "settled")
    meet(left, right)
    assert left.shown == right.shown and left.shown.content == "settled"
    assert left.shown.conflicts == ()
    assert left.states("content") == dict.fromkeys(("first", "left", "right"), "superseded") | {"settled": "current"}


def test_concurrent_writes_of_one_value_are_no_conflict() -> None:
    left, right = a_fact()
    left.set("content", "same")
    right.set("content", "same")
    meet(left, right)
    assert left.shown.conflicts == () and "conflicting" not in left.states("content").values()


def test_writes_of_two_fields_do_not_fight() -> None:
    left, right = a_fact()
    left.set("content", "left")
    right.set("source", "right")
    meet(left, right)
    assert (left.shown.content, left.shown.values["source"], left.shown.conflicts) == ("left", "right", ())


def test_the_record_conflicts_with_what_another_writes_meanwhile() -> None:
    left, right = a_fact()
    left.rewrite(Record(content="all new", source="s"))
    right.now_ms += 1
    right.set("content", "one field")
    meet(left, right)
    assert left.shown == right.shown
    assert (left.shown.content, left.shown.values["source"]) == ("one field", "s")
    assert left.shown.conflicts == ("content",)


def test_a_loser_that_gave_no_value_is_told_of_too() -> None:
    left, right = a_fact(FULL)
    left.rewrite(Record(content="c"))
    right.now_ms += 1
    right.set("source", "written meanwhile")
    meet(left, right)
    assert left.shown.conflicts == ("source",)
    assert left.states("source") == {"s": "superseded", None: "conflicting", "written meanwhile": "current"}


def test_a_held_write_is_not_shown_before_its_time_and_dates_nothing() -> None:
    ahead, other = a_fact()
    ahead.now_ms = FAR_MS
    held = ahead.set("content", "from tomorrow")
    now = other.set("content", "from today")
    meet(ahead, other)
    assert other.shown.content == "from today" and other.shown.updated == now.timestamp
    assert other.states("content")["from tomorrow"] == "conflicting"
    later = fact.fold(other.about, held.timestamp)
    assert later is not None and later.content == "from tomorrow" and later.updated == held.timestamp


def test_two_creations_with_one_dot_show_the_same_in_any_order() -> None:
    bodies = [fact.encode_record(Record(content=content)) for content in ("one", "two")]
    ops = [
        Node(1).write(OpClass.WRITE, "", fact.FACT, body, subject="", timestamp=5 + n) for n, body in enumerate(bodies)
    ]
    assert ops[0].subject == ops[1].subject
    assert fact.fold(ops) == fact.fold(ops[::-1])
    assert fact.history(ops) == fact.history(ops[::-1])


# --- kinds of tomorrow, bad bodies ---


def test_a_node_that_knows_a_kind_and_one_that_does_not_agree_on_what_survives() -> None:
    """The newer node writes kinds that the older one can't read; both then show what a third write leaves."""
    new, old = a_fact(Record(content="c", tags=("gone",)))
    new.write_value("content", b"?", kind="tomorrow")
    new.add("tag:quiet", kind="tomorrow")
    new.remove("tag:gone", kind="tomorrow")
    meet(new, old)
    assert old.shown.content == "c", "the newest that it can read"
    assert old.shown.tags == ()
    assert {told.state for told in old.history if told.op.header.kind == "tomorrow"} == {"no_effect"}
    old.set("content", "d")
    meet(new, old)
    assert old.shown.content == new.shown.content == "d" and old.shown.conflicts == ()


def test_behind_an_unknown_write_the_best_that_can_be_read_is_shown() -> None:
    """Not the one with the highest timestamp: that came from a clock ahead, and somebody corrected it."""
    ahead, other = a_fact()
    ahead.now_ms = FAR_MS
    ahead.set("content", "from a clock ahead")
    ahead.send(other)
    other.set("content", "corrected")
    other.write_value("content", b"?", kind="tomorrow")
    assert other.shown.content == "corrected"
    assert other.states("content")["from a clock ahead"] == "superseded"


def test_an_unknown_write_is_no_conflict() -> None:
    left, right = a_fact()
    left.set("content", "left")
    right.now_ms += 1
    right.set("content", "right")
    right.write_value("content", b"?", kind="tomorrow")
    meet(left, right)
    assert left.shown.content == "left" and left.shown.conflicts == ()
    assert left.states("content")["right"] == "superseded", "by a write that can't be read, which counts all the same"


BAD_VALUES = [
    ("content", b""),
    ("content", b"\xc1"),
    ("content", b"\x01"),
    ("content", b"\xa1\xff"),
    ("content", b"\xa1a\xa1b"),
    ("content", b"\xc0"),
    ("valid_from", msgspec.msgpack.encode(2**63)),
    ("valid_from", msgspec.msgpack.encode(253_402_300_800_000)),
    ("valid_from", msgspec.msgpack.encode(1.5)),
    ("retracted", b"\xc3"),
    ("meta", b"\x80\x80"),
    ("meta", b"\x81\x01\x01"),
    ("meta", b"\x81\xa1a\xc4\x01b"),
    ("meta", b"\x81\xa1a\xd4\x05x"),
    ("meta", b"\x81\xa1a\xd6\xff\x00\x00\x00\x00"),
    ("meta", b"\x81\xa1a\x81\x01\x02"),
    ("meta", b"\x81\xa1a\x81\x91\x01\x02"),
    ("meta", b"\x81\xa1a\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    ("meta", b"\x81\xa1a" + b"\x91" * MAX_META_DEPTH + b"\x01"),
    ("meta", b"\x81\xa1a" + b"\x91" * 100_000 + b"\x01"),
    ("", b"\x80"),
    ("", msgspec.msgpack.encode({"content": "c", "tags": [""]})),
    ("", msgspec.msgpack.encode({"content": "c", "tags": ["t" * (MAX_FIELD_BYTES - 3)]})),
    ("", msgspec.msgpack.encode({"content": "c", "meta": {"a": b"b"}})),
]


@pytest.mark.parametrize(("field", "body"), BAD_VALUES, ids=lambda part: repr(part)[:40])
def test_a_bad_body_shows_nothing_and_still_dominates(field: str, body: bytes) -> None:
    left, right = a_fact(FULL)
    before = left.shown.values
    left.now_ms += 1
    op = left.write_value(field, body, kind=fact.VALUE if field else fact.FACT)
    left.send(right)
    for node in (left, right):
        assert node.shown.values == before and node.shown.conflicts == ()
        assert [told.state for told in node.history if told.op == op] == ["no_effect"]
    assert op.clock and right.seen(field) == ((left.author, op.seq),)
    right.set(field or "content", "mended" if field in ("", "content") else before[field])
    assert right.shown.conflicts == () and right.shown.content == ("mended" if field in ("", "content") else "c")


def test_meta_as_deep_as_is_let_in() -> None:
    (node,) = a_fact(nodes=1)
    node.write_value("meta", b"\x81\xa1a" + b"\x91" * (MAX_META_DEPTH - 1) + b"\x01")
    assert node.shown.values["meta"]["a"]


def test_a_tag_as_long_as_is_let_in_can_be_taken_away() -> None:
    longest = "t" * (MAX_FIELD_BYTES - len(fact.TAG_PREFIX))
    (node,) = a_fact(Record(content="c", tags=(longest,)), nodes=1)
    assert node.shown.tags == (longest,)
    node.remove(fact.TAG_PREFIX + longest)
    assert node.shown.tags == ()
    with pytest.raises(ValueError, match="tag"):
        Record(content="c", tags=(longest + "t",))


@given(st.sampled_from(["", *FIELD_TYPES, "mood"]), st.binary(max_size=40), st.integers(0, 80), st.sampled_from("fv"))
def test_no_body_breaks_a_fact_and_what_is_shown_is_json(field: str, data: bytes, at: int, kind: str) -> None:
    (node,) = a_fact(FULL, nodes=1)
    whole = fact.encode_record(FULL)
    for body in (data, whole[:at] + data[:3] + whole[at + len(data[:3]) :]):
        node.write_value(field, body, kind={"f": fact.FACT, "v": fact.VALUE}[kind])
        values = {**node.shown.values, "retracted": None}
        assert json.loads(json.dumps(values, allow_nan=False)) == values
        assert {told.op for told in node.history} == set(node.ops)


@share
@given(histories())
def test_old_and_new_nodes_agree_and_nobody_crashes(nodes: list[Node]) -> None:
    meet(*nodes)
    for node in nodes[1:]:
        assert node.shown == nodes[0].shown and node.history == nodes[0].history


@share
@given(histories())
def test_what_is_in_conflict_has_a_loser_in_the_history(nodes: list[Node]) -> None:
    for node in nodes:
        conflicting = {told.field for told in node.history if told.state == "conflicting"}
        assert set(node.shown.conflicts) == conflicting
        for field in node.shown.conflicts:
            node.set(field, node.shown.values[field])
        assert node.shown.conflicts == () or any(op.dot == node.ops[-1].dot for op in node.ops[:-1])


@share
@given(histories())
def test_the_current_version_is_what_is_shown(nodes: list[Node]) -> None:
    for node in nodes:
        shown = fact.fold(node.about, HELD_AFTER)
        assert shown is not None
        for told in node.history:
            if told.field in FIELD_TYPES and told.state in ("current", "retracted"):
                assert told.value == shown.values[told.field]
