"""Every message keeps its number and its bounds: they are the protocol."""

from typing import get_args

import msgspec
import pytest

from crdt.op import MAX_NAME_BYTES, MAX_OP_BYTES
from sync import messages
from sync.codec import MAX_FRAME_BYTES
from sync.messages import (
    HELLO_PROJECTS,
    MAX_ENTRIES,
    MAX_PROJECTS,
    Ack,
    Batch,
    Done,
    Hello,
    Known,
    Message,
    Open,
    Same,
    Vectors,
)

decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encoded(*fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


def test_numbers_are_for_ever() -> None:
    numbers = {kind.__name__: kind.__struct_config__.tag for kind in get_args(Message)}
    assert numbers == {
        "Open": 1, "Carries": 2, "Hello": 3, "Same": 4, "Digests": 5, "Vectors": 6, "Batch": 7, "Ack": 8, "Done": 9,
        "Walk": 12, "Step": 13, "Audit": 14, "Audited": 15, "Push": 20, "Took": 21, "Have": 22, "Want": 23,
    }  # fmt: skip


def test_fields_that_a_later_version_appends_are_ignored() -> None:
    assert decoder.decode(encoded(4, "more")) == Same()
    assert decoder.decode(encoded(8, 1, 2, "more")) == Ack(1, 2)


@pytest.mark.parametrize(
    "fields",
    [
        (0,),
        (10,),
        ("3",),
        (1, 1, 1, bytes(15), "", (), ()),
        (1, 0, 1, bytes(16), "", (), ()),
        (1, 1, 1, bytes(16), "n" * 65, (), ()),
        (1, 1, 1, bytes(16), "", ("p*",) * 257, ()),
        (1, 1, 1, bytes(16), "", (), (bytes(31),)),
        (1, 1, 1, bytes(16), "", ("",), ()),
        (3, bytes(15), 0, ()),
        (3, bytes(16), 2**60, ()),
        (3, bytes(16), 0, (bytes(8),) * (HELLO_PROJECTS + 1)),
        (5, {"p": bytes(7)}),
        (5, {"p" * (MAX_NAME_BYTES + 1): bytes(8)}),
        (6, 0, {}, ()),
        (6, 65, {}, ()),
        (6, 1, {"p": (bytes(16), {bytes(15): 1})}, ()),
        (6, 1, {"p": (bytes(16), {bytes(16): 0})}, ()),
        (6, 1, {"p": (bytes(16), {bytes(16): 2**62})}, ()),
        (6, 1, {}, (HELLO_PROJECTS,)),
        (7, 1, "p", ()),
        (7, 0, "p", (b"x",)),
        (7, 1, "p", (b"x",) * 513),
        (8, 1, 513),
        (8, 1, -1),
    ],
)
def test_what_breaks_a_bound_is_no_message(fields: tuple[object, ...]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(encoded(*fields))


def test_the_largest_of_each_fits_a_frame() -> None:
    name = "p" * (MAX_NAME_BYTES - 4)
    authors = {place.to_bytes(16, "big"): 2**61 for place in range(1, MAX_ENTRIES + 1)}
    most = {f"{name}{place:04}": Known(bytes(16), {}) for place in range(MAX_PROJECTS - 1)}
    for message in (
        Vectors(64, most | {"last": Known(bytes(16), authors)}, ()),
        messages.Digests({f"{name}{place:04}": bytes(8) for place in range(MAX_PROJECTS)}),
        Batch(1, name, (bytes(MAX_OP_BYTES),)),
        Open(1, 1, bytes(16), "n" * 64, ("p" * 127 + "*",) * 256, (bytes(32),) * 256),
    ):
        assert len(msgspec.msgpack.encode(message)) < MAX_FRAME_BYTES
        assert decoder.decode(msgspec.msgpack.encode(message)) == message


def test_a_hello_is_at_most_a_hundred_bytes() -> None:
    hello = Hello(bytes(16), 1_790_000_000_000, (bytes(8),) * HELLO_PROJECTS)
    assert len(msgspec.msgpack.encode(hello)) <= 100
    assert len(msgspec.msgpack.encode(Same())) == len(msgspec.msgpack.encode(Done())) == 2
