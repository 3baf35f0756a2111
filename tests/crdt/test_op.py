"""The envelope: every limit, and that nothing gets past `verify` but what its author signed, byte for byte."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign

from crdt.hlc import MAX_TIMESTAMP
from crdt.op import (
    CONTEXT,
    FORMAT,
    HASH_BYTES,
    KEY_BYTES,
    MAX_BODY_BYTES,
    MAX_CLOCK,
    MAX_EPOCH,
    MAX_FIELD_BYTES,
    MAX_NAME_BYTES,
    MAX_OP_BYTES,
    MAX_SEQ,
    MAX_SUBJECT_BYTES,
    MAX_TEXT_BYTES,
    PREV_BYTES,
    SIGNATURE_BYTES,
    BadOp,
    Header,
    Op,
    OpClass,
    decode,
    op_hash,
    seal,
    verify,
)
from crdt.text import append
from crdt.version import AUTHOR_ID_BYTES, Dot, author_id, subject_id
from tests.crdt.world import MESH, keys

KEY, SECRET = keys(1)
ME = author_id(KEY, 7)
OTHER = b"o" * AUTHOR_ID_BYTES
HEADER = Header(FORMAT, "garden", OpClass.WRITE, "", "", KEY, 7, 9, 8, b"p" * PREV_BYTES, 5, ((ME, 8),), "fact", b"x")
OTHER_MESH = bytes(32)


def changed(**fields: Any) -> Header:
    return msgspec.structs.replace(HEADER, **fields)


def signed(payload: bytes, mesh: bytes = MESH) -> bytes:
    """An op of any bytes, truly signed."""
    return payload + crypto_sign(CONTEXT + mesh + payload, SECRET)[:SIGNATURE_BYTES]


def packed(header: Any) -> bytes:
    return msgspec.msgpack.encode(header)


def refusal(raw: bytes, mesh: bytes = MESH) -> str:
    with pytest.raises(BadOp) as refused:
        verify(mesh, raw)
    return refused.value.reason


def test_what_is_sealed_verifies_to_the_same_op() -> None:
    op = seal(MESH, HEADER, SECRET)
    for read in (verify(MESH, op.raw), decode(MESH, op.raw)):
        assert (read, read.header, read.raw) == (op, HEADER, op.raw)
        assert read.hash == op_hash(MESH, "garden", op.raw) and len(read.hash) == HASH_BYTES
    assert op.raw == signed(packed(HEADER))


def test_the_views_of_an_op() -> None:
    op = seal(MESH, changed(clock=((OTHER, 3), (OTHER, 5)), op_class=2), SECRET)
    assert op.author == ME and op.dot == Dot(ME, 9) and op.op_class is OpClass.ADD
    assert op.subject == subject_id(op.dot)
    assert op.clock == {OTHER: 5}
    assert op.order == (5, ME, op.hash)
    assert seal(MESH, changed(subject="s-1"), SECRET).subject == "s-1"


def test_ops_are_equal_when_their_hashes_are() -> None:
    op, same, other = (seal(MESH, changed(body=body), SECRET) for body in (b"x", b"x", b"y"))
    assert op == same and hash(op) == hash(same) and len({op, same, other}) == 2
    assert op != other and op != op.hash


@pytest.mark.parametrize(
    "fields",
    [
        {"project": "p" * MAX_NAME_BYTES},
        {"project": "ä" * (MAX_NAME_BYTES // 2)},
        {"subject": "s" * MAX_SUBJECT_BYTES},
        {"field": "f" * MAX_FIELD_BYTES},
        {"kind": "k" * MAX_NAME_BYTES},
        {"epoch": 0},
        {"epoch": MAX_EPOCH},
        {"seq": MAX_SEQ, "prev_seq": MAX_SEQ - 1},
        {"seq": 1, "prev_seq": 0, "prev_hash": b"", "clock": ()},
        {"timestamp": 0},
        {"timestamp": MAX_TIMESTAMP},
        {"body": b""},
        {"body": bytes(MAX_BODY_BYTES)},
        {"clock": ((OTHER, MAX_SEQ),)},
        {"clock": tuple((OTHER, seq) for seq in range(1, MAX_CLOCK + 1))},
        *({"op_class": op_class} for op_class in (OpClass.WRITE, OpClass.ADD, OpClass.REMOVE)),
        {"op_class": OpClass.APPEND, "clock": ()},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_each_limit_admits_what_it_names(fields: dict[str, Any]) -> None:
    header = changed(**fields)
    assert verify(MESH, seal(MESH, header, SECRET).raw).header == header


BREACHES: list[tuple[str, str, dict[str, Any]]] = [
    ("format", "format", {"format": 0}),
    ("format", "format", {"format": FORMAT + 1}),
    ("field", "class", {"op_class": 0}),
    ("field", "class", {"op_class": 5}),
    ("field", "author", {"node_key": b"k" * (KEY_BYTES - 1)}),
    ("field", "author", {"node_key": b"k" * (KEY_BYTES + 1)}),
    ("field", "author", {"epoch": -1}),
    ("field", "author", {"epoch": MAX_EPOCH + 1}),
    ("field", "project", {"project": ""}),
    ("field", "project", {"project": "p" * (MAX_NAME_BYTES + 1)}),
    ("field", "project", {"project": "ä" * (MAX_NAME_BYTES // 2 + 1)}),
    ("field", "subject", {"subject": "s" * (MAX_SUBJECT_BYTES + 1)}),
    ("field", "field", {"field": "f" * (MAX_FIELD_BYTES + 1)}),
    ("field", "kind", {"kind": ""}),
    ("field", "kind", {"kind": "k" * (MAX_NAME_BYTES + 1)}),
    ("field", "seq", {"seq": 0, "prev_seq": -1}),
    ("field", "seq", {"seq": MAX_SEQ + 1}),
    ("field", "prev", {"prev_seq": -1}),
    ("field", "prev", {"prev_seq": 9}),
    ("field", "prev", {"prev_seq": 10}),
    ("field", "prev", {"prev_hash": b"p" * (PREV_BYTES - 1)}),
    ("field", "prev", {"prev_hash": b""}),
    ("field", "prev", {"prev_seq": 0}),
    ("field", "timestamp", {"timestamp": -1}),
    ("field", "timestamp", {"timestamp": MAX_TIMESTAMP + 1}),
    ("field", "body", {"body": bytes(MAX_BODY_BYTES + 1)}),
    ("field", "clock", {"clock": tuple((OTHER, seq) for seq in range(1, MAX_CLOCK + 2))}),
    ("field", "clock", {"clock": ((OTHER[1:], 1),)}),
    ("field", "clock", {"clock": ((OTHER, 0),)}),
    ("field", "clock", {"clock": ((OTHER, MAX_SEQ + 1),)}),
    ("field", "clock", {"clock": ((OTHER, 2), (OTHER, 1))}),
    ("field", "clock", {"clock": ((OTHER, 1), (OTHER, 1))}),
    ("field", "clock", {"clock": ((OTHER, 1), (bytes(AUTHOR_ID_BYTES), 1))}),
    ("field", "clock", {"clock": ((ME, 9),)}),
    ("field", "clock", {"op_class": OpClass.APPEND, "clock": ((OTHER, 1),)}),
]


@pytest.mark.parametrize(("reason", "name", "fields"), BREACHES, ids=[name for _, name, _ in BREACHES])
def test_each_limit_refuses_what_is_beyond(reason: str, name: str, fields: dict[str, Any]) -> None:
    header = changed(**fields)
    with pytest.raises(BadOp, match=name) as refused:
        seal(MESH, header, SECRET)
    assert refused.value.reason == reason
    # From a peer, who signs what it likes.
    assert refusal(signed(packed(header))) == reason


def test_the_largest_op_is_admitted() -> None:
    """Every field at its maximum at once."""
    header = Header(
        FORMAT,
        "p" * MAX_NAME_BYTES,
        OpClass.REMOVE,
        "s" * MAX_SUBJECT_BYTES,
        "f" * MAX_FIELD_BYTES,
        KEY,
        MAX_EPOCH,
        MAX_SEQ,
        MAX_SEQ - 1,
        b"p" * PREV_BYTES,
        MAX_TIMESTAMP,
        tuple((OTHER, MAX_SEQ - n) for n in range(MAX_CLOCK, 0, -1)),
        "k" * MAX_NAME_BYTES,
        bytes(MAX_BODY_BYTES),
    )
    op = seal(MESH, header, SECRET)
    assert len(op.raw) <= MAX_OP_BYTES
    assert verify(MESH, op.raw).header == header


def test_a_text_of_the_largest_size_fits_into_a_body() -> None:
    whole = "ä" * (MAX_TEXT_BYTES // 2)
    assert seal(MESH, changed(body=append([], Dot(ME, 9), whole)), SECRET)


def test_too_much_is_refused_unread() -> None:
    assert refusal(bytes(MAX_OP_BYTES + 1)) == "size"
    assert refusal(b"") == refusal(bytes(SIGNATURE_BYTES)) == "size"


def test_an_op_cut_off_anywhere_is_refused() -> None:
    raw = seal(MESH, HEADER, SECRET).raw
    assert {refusal(raw[:length]) for length in range(len(raw))} <= {"size", "encoding"}


def test_an_op_with_something_behind_it_is_refused() -> None:
    assert refusal(seal(MESH, HEADER, SECRET).raw + b"\0") == "encoding"
    assert refusal(signed(packed(HEADER) + b"\0")) == "encoding"


def test_an_op_of_another_mesh_is_refused() -> None:
    assert refusal(seal(OTHER_MESH, HEADER, SECRET).raw) == "signature"
    assert refusal(seal(MESH, HEADER, SECRET).raw, OTHER_MESH) == "signature"
    assert seal(OTHER_MESH, HEADER, SECRET).hash != seal(MESH, HEADER, SECRET).hash


def test_an_op_in_someone_elses_name_is_refused() -> None:
    assert refusal(signed(packed(changed(node_key=keys(2)[0])))) == "signature"
    assert refusal(signed(packed(changed(node_key=bytes(KEY_BYTES))))) == "signature"


FIELDS = list(msgspec.structs.astuple(HEADER))


def with_field(position: int, encoded: bytes) -> bytes:
    """The op with one field replaced by other bytes."""
    parts = [packed(field) for field in FIELDS]
    parts[position] = encoded
    return signed(bytes([0x90 | len(parts)]) + b"".join(parts))


@pytest.mark.parametrize(
    "raw",
    [
        signed(b"\xdc\x00\x0e" + packed(HEADER)[1:]),
        with_field(0, b"\xcc\x01"),
        with_field(0, b"\xd3" + (1).to_bytes(8, "big")),
        with_field(1, b"\xd9\x06garden"),
        with_field(5, b"\xc5\x00\x20" + KEY),
        with_field(7, b"\xcd\x00\x09"),
        with_field(7, b"\xcb\x40\x22\x00\x00\x00\x00\x00\x00"),
        with_field(11, b"\xdc\x00\x01" + packed((ME, 8))),
        with_field(13, b"\xc6\x00\x00\x00\x01x"),
    ],
    ids=["array16", "uint8", "int64", "str8", "bin16", "uint16", "float", "array16 clock", "bin32"],
)
def test_only_the_shortest_form_is_taken(raw: bytes) -> None:
    assert refusal(raw) == "encoding"


@pytest.mark.parametrize(
    "raw",
    [
        signed(packed([])),
        signed(packed(FIELDS[:-1])),
        signed(packed([*FIELDS, 1])),
        signed(packed(dict(zip("abcdefghijklmn", FIELDS, strict=True)))),
        signed(packed(7)),
        signed(b"\xc1"),
        with_field(0, b"\xc3"),
        with_field(1, packed(b"garden")),
        with_field(1, b"\xa1\xff"),
        with_field(1, b"\xa3\xed\xa0\x80"),
        with_field(7, packed(2**63)),
        with_field(7, packed("9")),
        with_field(11, packed([[ME]])),
        with_field(11, packed([[ME, 8, 1]])),
        with_field(11, packed(None)),
        with_field(13, packed("x")),
        with_field(13, b"\xd4\x05x"),
        with_field(13, b"\x91" * 3000),
    ],
)
def test_whatever_is_no_header_is_refused(raw: bytes) -> None:
    assert refusal(raw) in {"encoding", "field"}


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_refused(data: bytes, is_signed: bool) -> None:
    assert refusal(signed(data) if is_signed else data) in {"size", "encoding"}


OPS = st.builds(
    changed,
    project=st.text(min_size=1, max_size=20),
    op_class=st.sampled_from([OpClass.WRITE, OpClass.ADD, OpClass.REMOVE]),
    subject=st.text(max_size=20),
    field=st.text(max_size=20),
    epoch=st.integers(0, MAX_EPOCH),
    seq=st.integers(9, MAX_SEQ),
    timestamp=st.integers(0, MAX_TIMESTAMP),
    clock=st.sets(st.tuples(st.binary(min_size=16, max_size=16), st.integers(1, MAX_SEQ)), max_size=5).map(
        lambda clock: tuple(sorted(clock))
    ),
    kind=st.text(min_size=1, max_size=20),
    body=st.binary(max_size=300),
).map(lambda header: seal(MESH, header, SECRET))


@given(OPS)
def test_any_op_comes_back_from_its_bytes(op: Op) -> None:
    again = verify(MESH, op.raw)
    assert (again.header, again.hash, again.raw) == (op.header, op.hash, op.raw)
    assert seal(MESH, again.header, SECRET).raw == op.raw


@given(OPS, st.data())
def test_one_changed_bit_is_refused(op: Op, data: st.DataObject) -> None:
    raw = bytearray(op.raw)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert refusal(bytes(raw))
