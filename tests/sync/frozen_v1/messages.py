"""The messages of the protocol: what two peers can say, and the bounds of each.

A message is a MessagePack array: its number, then its fields. sync/PROTOCOL.md says who sends what when. A receiver
ignores elements after the last that it knows, so a later version may append fields; a number that it does not know ends
the session, so a new message needs a new protocol version. Numbers 10 to 31 are free for the Merkle walk and the push.

Bounds are part of the type: sync/codec.py refuses what breaks one while it parses. Tests: tests/sync/test_messages.py.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta, Struct

from crdt.op import MAX_NAME_BYTES, MAX_SEQ, Op
from crdt.version import AUTHOR_ID_BYTES
from tests.sync.frozen_v1.digest import DIGEST_BYTES, SHORT_BYTES
from tests.sync.frozen_v1.merkle import ROOT_BYTES

PROTO_MIN: Final = 1
PROTO_MAX: Final = 1

POINT_BYTES: Final = 32
MAX_NODE_NAME: Final = 64
MAX_PATTERNS: Final = 256
"""A node names what it carries one by one, or by prefix; each name costs a curve multiplication of 0.1 ms a session."""
MAX_PROJECTS: Final = 2_000
"""In one message: with names of 128 bytes still a third of a frame. A node that has more tells the rest next round."""
MAX_ENTRIES: Final = 20_000
"""Authors in all vectors of one message, 540 KB: 2,000 nodes that each restored ten backups."""
HELLO_PROJECTS: Final = 6
"""A hello lists each project's digest while that fits 100 bytes; beyond that the answer does, one step later."""
MAX_BATCH_OPS: Final = 512
MAX_BATCH_BYTES: Final = 65_536
"""Of ops, unless a single one is larger: a batch is one transaction, and half a second of signatures on a Raspberry
Pi.
"""
MAX_WINDOW: Final = 64
"""More batches under way than anyone needs to fill a link; a larger grant is a mistake."""

Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Short = Annotated[bytes, Meta(min_length=SHORT_BYTES, max_length=SHORT_BYTES)]
Root = Annotated[bytes, Meta(min_length=ROOT_BYTES, max_length=ROOT_BYTES)]
Point = Annotated[bytes, Meta(min_length=POINT_BYTES, max_length=POINT_BYTES)]
Author = Annotated[bytes, Meta(min_length=AUTHOR_ID_BYTES, max_length=AUTHOR_ID_BYTES)]
Seq = Annotated[int, Meta(ge=1, le=MAX_SEQ)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES)]
Version = Annotated[int, Meta(ge=1, le=1 << 16)]
Wall = Annotated[int, Meta(ge=-(1 << 52), le=1 << 52)]
Number = Annotated[int, Meta(ge=1, le=1 << 32)]
Count = Annotated[int, Meta(ge=0, le=1 << 32)]


class Open(Struct, tag=1, array_like=True, frozen=True):
    """The first message, from both sides: who I am and what I carry.

    `mesh`: first half of the mesh id. `prefixes` are told as they are (`team/*`, `*`); `points` are the names carried
    one by one, blinded (sync/overlap.py).
    """

    proto_min: Version
    proto_max: Version
    mesh: Digest
    name: Annotated[str, Meta(max_length=MAX_NODE_NAME)]
    prefixes: Annotated[tuple[Name, ...], Meta(max_length=MAX_PATTERNS)]
    points: Annotated[tuple[Point, ...], Meta(max_length=MAX_PATTERNS)]


class Carries(Struct, tag=2, array_like=True, frozen=True):
    """The answer to `Open`: the names of mine that your prefixes cover, and your points blinded again, in their
    order.
    """

    names: Annotated[tuple[Name, ...], Meta(max_length=MAX_PATTERNS)]
    points: Annotated[tuple[Point, ...], Meta(max_length=MAX_PATTERNS)]


class Hello(Struct, tag=3, array_like=True, frozen=True):
    """Begins a round: the digest of everything that we share, and the sender's clock (ms since 1970 UTC).

    `projects`: each project's short digest while there are at most HELLO_PROJECTS, else None.
    """

    digest: Digest
    wall_ms: Wall
    projects: Annotated[tuple[Short, ...], Meta(max_length=HELLO_PROJECTS)] | None


class Same(Struct, tag=4, array_like=True, frozen=True):
    """Mine is equal: the round is over."""


class Digests(Struct, tag=5, array_like=True, frozen=True):
    """Mine differs, and the hello didn't say where: the short digest of each of my projects that we share."""

    projects: Annotated[dict[Name, Short], Meta(max_length=MAX_PROJECTS)]


class Known(Struct, array_like=True, frozen=True):
    """What the sender has of one project, at one moment."""

    root: Root
    vector: Annotated[dict[Author, Seq], Meta(max_length=MAX_ENTRIES)]


class Vectors(Struct, tag=6, array_like=True, frozen=True):
    """What I have of each project that differs. `window`: how many batches you may have under way to me.

    `unmatched`: places in your hello's list of digests that equal none of mine, so that you know which projects of
    yours I could not name because nothing of them is here.
    """

    window: Annotated[int, Meta(ge=1, le=MAX_WINDOW)]
    projects: Annotated[dict[Name, Known], Meta(max_length=MAX_PROJECTS)]
    unmatched: Annotated[tuple[Annotated[int, Meta(ge=0, lt=HELLO_PROJECTS)], ...], Meta(max_length=HELLO_PROJECTS)]


class Batch(Struct, tag=7, array_like=True, frozen=True):
    """Ops of one project that you lack, each author's in chain order, as they were received. `number` counts from 1.

    `left_ops`: how many more you lack after these, as far as this round goes; `oldest_ms`: when the oldest of all that
    you lacked was written. Both are for your `status`, and nothing depends on them.
    """

    number: Number
    project: Name
    ops: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MAX_BATCH_OPS)]
    left_ops: Count = 0
    oldest_ms: Wall = 0


class Ack(Struct, tag=8, array_like=True, frozen=True):
    """Your batch is on my disk. `fresh`: how many of its ops were new here."""

    number: Number
    fresh: Annotated[int, Meta(ge=0, le=MAX_BATCH_OPS)]


class Done(Struct, tag=9, array_like=True, frozen=True):
    """You have, or have under way, everything of mine that you lacked."""


Message = Open | Carries | Hello | Same | Digests | Vectors | Batch | Ack | Done


@dataclass(frozen=True, slots=True)
class Verified:
    """A `Batch` whose ops are truly signed (sync.codec.verify): the only form in which the core takes one."""

    number: int
    project: str
    ops: tuple[Op, ...]
    left_ops: int = 0
    oldest_ms: int = 0


Received = Open | Carries | Hello | Same | Digests | Vectors | Verified | Ack | Done
"""What the core can be given."""
