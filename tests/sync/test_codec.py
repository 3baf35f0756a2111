"""A frame is one message or a ProtocolError: nothing else comes of any bytes, and nothing large of small ones."""

import tracemalloc
import zlib
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.op import MAX_OP_BYTES
from sync import codec
from sync.errors import ProtocolError, Reason
from sync.messages import MAX_BATCH_BYTES, MAX_BATCH_OPS, Ack, Batch, Carries, Digests, Message, Same
from tests.sync.frames import anything
from tests.sync.wire import MESH, disk, writer, written


def refused(frame: bytes) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(frame)
    return caught.value.reason


@given(anything)
def test_what_goes_in_comes_out(message: Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(st.binary(max_size=300))
def test_random_bytes_are_a_message_or_a_protocol_error(frame: bytes) -> None:
    try:
        codec.decode(frame)
    except ProtocolError as error:
        assert error.reason in (Reason.MALFORMED, Reason.TOO_LARGE)


@given(anything, st.data())
def test_a_mutated_frame_is_a_message_or_a_protocol_error(message: Message, data: st.DataObject) -> None:
    frame = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.integers(0, len(frame)))] + data.draw(st.binary(max_size=3))
    try:
        codec.decode(bytes(frame))
    except ProtocolError as error:
        assert error.reason in (Reason.MALFORMED, Reason.TOO_LARGE)


def test_ops_come_out_as_they_went_in() -> None:
    ops = tuple(op.raw for op in written(disk("*"), writer("a"), "p", 20))
    assert codec.decode(codec.encode(Batch(3, "p", ops))) == Batch(3, "p", ops)


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    assert refused(b"\x00" + bytes(codec.MAX_FRAME_BYTES)) is Reason.TOO_LARGE


def test_a_zlib_bomb_is_refused_while_it_grows() -> None:
    bomb = b"\x01" + zlib.compress(bytes(200_000_000), 9)
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        assert refused(bomb) is Reason.TOO_LARGE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * codec.MAX_FRAME_BYTES


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x03\x91\x04",
        b"\x02",
        b"\x02\x00\x00" + zlib.compress(b"\x94\x07\x01\xa1p\x90"),
        b"\x02\x00\x01" + bytes(64),
        b"\x02\x00\x01" + bytes(64) + zlib.compress(b"\x91\x04"),
        b"\x02\x00\x02" + bytes(128) + zlib.compress(b"\x94\x07\x01\xa1p\x91\xc4\x01x"),
        b"\x02\xff\xff" + bytes(64 * 513) + b"x",
        b"\x00\x94\x07\x01\xa1p\x91\xc4\x01x",
        b"\x00",
        b"\x00\x91",
        b"\x00\x91\x04\x00",
        b"\x00\xdd\xff\xff\xff\xff",
        b"\x00\x94\x07\x01\xa1p\xdd\xff\xff\xff\xff",
        b"\x00\x92\x05\xdf\xff\xff\xff\xff",
        b"\x00\x92\x05\x81\xa1\xff\xc4\x08" + bytes(8),
        b"\x00" + b"\x91" * 100_000,
        b"\x01",
        b"\x01junk",
        b"\x01" + zlib.compress(b"\x91\x04")[:-1],
        b"\x01" + zlib.compress(b"\x91\x04") + b"more",
    ],
    ids=lambda frame: frame[:12].hex(),
)
def test_malformed_frames(frame: bytes) -> None:
    assert refused(frame) is Reason.MALFORMED


def test_only_what_gains_is_compressed() -> None:
    assert codec.encode(Same()) == b"\x00\x91\x04"
    assert codec.encode(Ack(1, 2))[0] == codec.PLAIN
    points = tuple(Random(place).randbytes(32) for place in range(20))
    assert codec.encode(Carries((), points))[0] == codec.PLAIN
    assert codec.encode(Digests({f"project-{place}": bytes(8) for place in range(50)}))[0] == codec.ZLIB


def test_a_verified_batch_holds_the_ops_that_were_signed() -> None:
    ops = written(disk("*"), writer("a"), "p", 3)[1:]
    verified = codec.verify(MESH, Batch(1, "p", tuple(op.raw for op in ops)))
    assert (verified.number, verified.project, verified.ops) == (1, "p", tuple(ops))


@pytest.mark.parametrize("at", [0, 1, 40, -65, -1])
def test_a_changed_op_is_the_peers_fault(at: int) -> None:
    raw = bytearray(written(disk("*"), writer("a"), "p", 1)[1].raw)
    raw[at] ^= 1
    with pytest.raises(ProtocolError) as caught:
        codec.verify(MESH, Batch(1, "p", (bytes(raw),)))
    assert caught.value.reason is Reason.BAD_OP


def test_an_op_of_another_mesh_is_refused() -> None:
    raw = written(disk("*"), writer("a"), "p", 1)[1].raw
    with pytest.raises(ProtocolError, match="signature"):
        codec.verify(bytes(32), Batch(1, "p", (raw,)))


def test_a_batch_is_bounded_unless_it_is_one_op() -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.verify(MESH, Batch(1, "p", (bytes(MAX_BATCH_BYTES), b"x")))
    assert caught.value.reason is Reason.TOO_LARGE
    assert codec.decode(codec.encode(Batch(1, "p", (bytes(MAX_OP_BYTES),))))


def test_a_batch_of_facts_costs_what_it_may() -> None:
    """The target: 10,000 facts of 300 bytes, 200 of them random hexadecimal digits, in 2.6 MB: 260 bytes each."""
    author, store, rng = writer("a"), disk("*"), Random(1)
    author.sentence = lambda: rng.randbytes(100).hex() + " " * 100  # type: ignore[method-assign]
    ops = written(store, author, "factory-7", 130)[1:]
    frame = codec.encode(Batch(1, "factory-7", tuple(op.raw for op in ops)))
    assert sum(len(op.raw) for op in ops) <= MAX_BATCH_BYTES
    assert len(frame) / len(ops) <= 230


def test_the_decoder_itself_refuses_too_many_ops() -> None:
    """So nothing beyond a bound is ever built."""
    many = msgspec.msgpack.encode((7, 1, "p", (b"x",) * (MAX_BATCH_OPS + 1)))
    assert refused(b"\x02\x02\x00" + bytes(64 * 512) + zlib.compress(many)) is Reason.MALFORMED
