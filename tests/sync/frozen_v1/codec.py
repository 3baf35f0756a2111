"""Frames: the bytes of one message on the wire, one WebSocket binary message each.

One flag byte, then what it says:

    0  the message (sync/messages.py) as it is
    1  the message, compressed by zlib
    2  a Batch: how many ops (2 bytes, big-endian), their signatures (64 bytes each), then, compressed, the Batch
       with each op cut off before its signature

Signatures do not compress, and among text they spoil the text's code: apart, a batch of facts is 6 % smaller.
Compression is per frame, so frames of different peers share nothing, and only where it pays.

A frame is bounded before anything reads it: its size, then the size it decompresses to, then every length inside it
while it is parsed. Whatever is wrong with it raises ProtocolError, and nothing else does. The driver hands
`MAX_FRAME_BYTES` to the WebSocket, so a gigabyte that is only announced is never read.

Tests: tests/sync/test_codec.py (fuzzed).
"""

import zlib
from typing import Final

import msgspec

from crdt.op import MAX_OP_BYTES, SIGNATURE_BYTES, BadOp
from crdt.op import verify as verify_op
from tests.sync.frozen_v1.errors import ProtocolError, Reason
from tests.sync.frozen_v1.messages import MAX_BATCH_BYTES, MAX_BATCH_OPS, Batch, Message, Verified

PLAIN: Final = 0
ZLIB: Final = 1
OPS: Final = 2
MAX_FRAME_BYTES: Final = MAX_OP_BYTES + 4_096
"""The largest op there may be, and what surrounds it; also the bound of what a frame may decompress to."""
COUNT_BYTES: Final = 2
COMPRESS_FROM_BYTES: Final = 256
"""Below this zlib saves nothing that matters."""
ZLIB_LEVEL: Final = 6
"""Against level 1 it takes 3 % (random hexadecimal) to 15 % (prose) off a batch, for 1 ms more per 64 KiB: an eighth of
what verifying the signatures takes."""

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The frame of one message."""
    if isinstance(message, Batch):
        return _encode_batch(message)
    body = _encode(message)
    if len(body) >= COMPRESS_FROM_BYTES:
        packed = zlib.compress(body, ZLIB_LEVEL)
        if len(packed) < len(body):
            return bytes((ZLIB,)) + packed
    return bytes((PLAIN,)) + body


def decode(frame: bytes) -> Message:
    """The message in one frame. Raises ProtocolError: TOO_LARGE or MALFORMED."""
    if len(frame) > MAX_FRAME_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"a frame of {len(frame)} bytes, at most {MAX_FRAME_BYTES}")
    match frame[0] if frame else None:
        case 0:
            message = _parse(frame[1:])
        case 1:
            message = _parse(_decompress(frame[1:]))
        case 2:
            return _decode_batch(frame)
        case flag:
            raise ProtocolError(Reason.MALFORMED, f"frame flag {flag}")
    if isinstance(message, Batch):
        raise ProtocolError(Reason.MALFORMED, "a batch in a frame of another kind")
    return message


def verify(mesh: bytes, batch: Batch) -> Verified:
    """The batch with its ops read and their signatures checked, 0.1 ms each: the driver does this on a thread.

    `mesh`: 32 bytes. Raises ProtocolError: BAD_OP for an envelope that no honest node sends, TOO_LARGE.
    """
    if len(batch.ops) > 1 and sum(map(len, batch.ops)) > MAX_BATCH_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"a batch of more than {MAX_BATCH_BYTES} bytes")
    try:
        ops = tuple(verify_op(mesh, raw) for raw in batch.ops)
    except BadOp as error:
        raise ProtocolError(Reason.BAD_OP, str(error)) from None
    return Verified(batch.number, batch.project, ops, batch.left_ops, batch.oldest_ms)


def _parse(body: bytes) -> Message:
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(Reason.MALFORMED, str(error)) from None


def _encode_batch(batch: Batch) -> bytes:
    signatures = b"".join(raw[-SIGNATURE_BYTES:] for raw in batch.ops)
    unsigned = msgspec.structs.replace(batch, ops=tuple(raw[:-SIGNATURE_BYTES] for raw in batch.ops))
    head = OPS.to_bytes(1, "big") + len(batch.ops).to_bytes(COUNT_BYTES, "big")
    return head + signatures + zlib.compress(_encode(unsigned), ZLIB_LEVEL)


def _decode_batch(frame: bytes) -> Batch:
    count = int.from_bytes(frame[1 : 1 + COUNT_BYTES], "big")
    ends = 1 + COUNT_BYTES + count * SIGNATURE_BYTES
    if not 0 < count <= MAX_BATCH_OPS or len(frame) <= ends:
        raise ProtocolError(Reason.MALFORMED, f"a batch of {count} ops in {len(frame)} bytes")
    unsigned = _parse(_decompress(frame[ends:]))
    if not isinstance(unsigned, Batch) or len(unsigned.ops) != count:
        raise ProtocolError(Reason.MALFORMED, "as many ops as signatures are a batch")
    places = range(1 + COUNT_BYTES, ends, SIGNATURE_BYTES)
    signed = (op + frame[at : at + SIGNATURE_BYTES] for op, at in zip(unsigned.ops, places, strict=True))
    return msgspec.structs.replace(unsigned, ops=tuple(signed))


def _decompress(data: bytes) -> bytes:
    """Bounded: a frame that would grow beyond MAX_FRAME_BYTES is refused after that many bytes."""
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, MAX_FRAME_BYTES + 1)
    except zlib.error as error:
        raise ProtocolError(Reason.MALFORMED, f"zlib: {error}") from None
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"decompresses to more than {MAX_FRAME_BYTES} bytes")
    if not stream.eof or stream.unused_data:
        raise ProtocolError(Reason.MALFORMED, "zlib: cut short, or followed by something")
    return body
