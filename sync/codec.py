"""Frames: the bytes of one message on the wire, one WebSocket binary message each.

One flag byte, then MessagePack (sync/messages.py): flag 0 as it is, flag 1 compressed by zlib. Compression is per
frame, so frames of different peers share nothing, and only where it pays.

A frame is bounded before anything reads it: its size, then the size it decompresses to, then every length inside it
while it is parsed. Whatever is wrong with it raises ProtocolError, and nothing else does. The driver hands
`MAX_FRAME_BYTES` to the WebSocket, so a gigabyte that is only announced is never read.

Tests: tests/sync/test_codec.py (fuzzed).
"""

import zlib
from typing import Final

import msgspec

from crdt.op import MAX_OP_BYTES, BadOp
from crdt.op import verify as verify_op
from sync.errors import ProtocolError, Reason
from sync.messages import MAX_BATCH_BYTES, Batch, Message, Verified

PLAIN: Final = 0
ZLIB: Final = 1
MAX_FRAME_BYTES: Final = MAX_OP_BYTES + 4_096
"""The largest op there may be, and what surrounds it; also the bound of what a frame may decompress to."""
COMPRESS_FROM_BYTES: Final = 256
"""Below this zlib saves nothing that matters."""
ZLIB_LEVEL: Final = 6
"""Against level 1 it takes 14 % off a batch of facts for 1 ms more per 64 KiB, an eighth of what verifying it takes."""

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The frame of one message."""
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
    match frame[:1]:
        case b"\x00":
            body = frame[1:]
        case b"\x01":
            body = _decompress(frame[1:])
        case flag:
            raise ProtocolError(Reason.MALFORMED, f"frame flag {flag.hex() or 'missing'}")
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(Reason.MALFORMED, str(error)) from None


def verify(mesh: bytes, batch: Batch) -> Verified:
    """The batch with its ops read and their signatures checked, 0.1 ms each: the driver does this on a thread.

    `mesh`: 32 bytes. Raises ProtocolError: BAD_OP for an envelope that no honest node sends, TOO_LARGE.
    """
    if len(batch.ops) > 1 and sum(map(len, batch.ops)) > MAX_BATCH_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"a batch of more than {MAX_BATCH_BYTES} bytes")
    try:
        return Verified(batch.number, batch.project, tuple(verify_op(mesh, raw) for raw in batch.ops))
    except BadOp as error:
        raise ProtocolError(Reason.BAD_OP, str(error)) from None


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
