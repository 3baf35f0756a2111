"""The messages of the protocol: what two peers can say, and the bounds of each.

A message is a MessagePack array: its number, then its fields. sync/PROTOCOL.md says who sends what when. A receiver
ignores elements after the last that it knows, so a later version may append fields; a number that it does not know ends
the session, so a new message needs a new protocol version: `Walk` and what follows it came with version 2, and are not
sent to who speaks version 1.

Bounds are part of the type: sync/codec.py refuses what breaks one while it parses. Tests: tests/sync/test_messages.py.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from crdt.op import MAX_NAME_BYTES, MAX_SEQ, Op
from crdt.version import AUTHOR_ID_BYTES
from sync.digest import DIGEST_BYTES, SHORT_BYTES
from sync.merkle import FAN_OUT, LEVELS, MAX_BITS, ROOT_BYTES

PROTO_MIN: Final = 1
PROTO_MAX: Final = 2
WALKS_FROM: Final = 2
"""The version that brought the walk and the audit."""
PUSHES_FROM: Final = 2
"""The version that brought fresh ops outside of rounds."""

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
MAX_PUSH_OPS: Final = 64
"""What gathers while one send is under way. More than that is a backlog, and a round's business."""
MAX_DOTS: Final = 256
"""Named in one message: 6 KB."""
MAX_WINDOW: Final = 64
"""More batches under way than anyone needs to fill a link; a larger grant is a mistake."""
SALT_BYTES: Final = 16
NODE_BYTES: Final = 4
"""Of a digest of a node's sum, salted anew for each walk: two nodes that differ look equal once in 4 * 10^9 times, and
not again in the next walk.
"""
ID_BYTES: Final = 8
"""Of an op's hash: the two bytes of its leaf, and six that tell the few ops of a leaf apart."""
MAX_NODES: Final = 1_024
"""Nodes told in one step, 70 KB: more differences than that are left to the next walk."""
MAX_IDS: Final = 8_192
"""Ids told in one step, 64 KB, and ops re-hashed for it: 20 ms on a laptop, and ten times that on a small board."""

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
Salt = Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
Level = Annotated[int, Meta(ge=0, le=LEVELS)]
Place = Annotated[int, Meta(ge=0, lt=1 << MAX_BITS)]
Children = Annotated[bytes, Meta(min_length=FAN_OUT * NODE_BYTES, max_length=FAN_OUT * NODE_BYTES)]
Ids = Annotated[bytes, Meta(max_length=MAX_IDS * ID_BYTES)]
Nodes = Annotated[dict[Place, Children], Meta(max_length=MAX_NODES)]
Leaves = Annotated[dict[Place, Ids], Meta(max_length=MAX_NODES)]
Dots = Annotated[tuple[tuple[Author, Seq], ...], Meta(min_length=1, max_length=MAX_DOTS)]
Count = Annotated[int, Meta(ge=0, le=1 << 32)]


class Open(Struct, tag=1, array_like=True, frozen=True):
    """The first message, from both sides: who I am and what I carry.

    `mesh`: first half of the mesh id. `prefixes` are told as they are (`team/*`, `*`); `points` are the names carried
    one by one, blinded (sync/overlap.py). `hub`: I am one. `peers`: how many I am connected to already.
    """

    proto_min: Version
    proto_max: Version
    mesh: Digest
    name: Annotated[str, Meta(max_length=MAX_NODE_NAME)]
    prefixes: Annotated[tuple[Name, ...], Meta(max_length=MAX_PATTERNS)]
    points: Annotated[tuple[Point, ...], Meta(max_length=MAX_PATTERNS)]
    hub: bool = False
    peers: Annotated[int, Meta(ge=0, le=1 << 16)] = 0


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


class Walk(Struct, tag=12, array_like=True, frozen=True):
    """Begins a walk of one project's tree: one node at `level`, told as in `Step`. `salt` is for all of the walk."""

    project: Name
    salt: Salt
    level: Level
    nodes: Nodes
    leaves: Leaves


class Step(Struct, tag=13, array_like=True, frozen=True):
    """One level further down: of the nodes that you told me of, those that differ here.

    `nodes`: place to the salted digests of its 16 children. `leaves`: place to the ids of all that is in it, one after
    the other. `wants`: the ids, of those in your last message's `leaves`, that I lack. Without nodes and leaves it is
    the last step.
    """

    nodes: Nodes
    leaves: Leaves
    wants: Ids


class Audit(Struct, tag=14, array_like=True, frozen=True):
    """Read all ops below the node at `place` of `level`, and tell me their salted digest."""

    project: Name
    level: Level
    place: Place
    salt: Salt


class Audited(Struct, tag=15, array_like=True, frozen=True):
    """BLAKE2b-128 of the bytes of those ops, in the order of their hashes, keyed with the salt."""

    digest: Digest


class Fate(IntEnum):
    """What became of a push."""

    STORED = 0
    """On my disk, and some of it was new."""
    KNOWN = 1
    """All of it was on my disk before."""
    DROPPED = 2
    """Some of it doesn't join its chain here, or its author is unknown to me. I shall begin a round."""


class Push(Struct, tag=20, array_like=True, frozen=True):
    """Fresh ops of one project, unasked, each author's in chain order. `number` counts from 1 in each session."""

    number: Number
    project: Name
    ops: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MAX_PUSH_OPS)]


class Took(Struct, tag=21, array_like=True, frozen=True):
    """I am done with your push `number`. `fate`: what became of it."""

    number: Number
    fate: Fate


class Have(Struct, tag=22, array_like=True, frozen=True):
    """Fresh ops that are on my disk, by their dots: ask for those that don't reach you otherwise."""

    project: Name
    dots: Dots


class Want(Struct, tag=23, array_like=True, frozen=True):
    """These have not reached me: push them."""

    project: Name
    dots: Dots


Message = (
    Open
    | Carries
    | Hello
    | Same
    | Digests
    | Vectors
    | Batch
    | Ack
    | Done
    | Walk
    | Step
    | Audit
    | Audited
    | Push
    | Took
    | Have
    | Want
)


@dataclass(frozen=True, slots=True)
class Verified:
    """A `Batch` whose ops are truly signed (sync.codec.verify): the only form in which the core takes one."""

    number: int
    project: str
    ops: tuple[Op, ...]
    left_ops: int = 0
    oldest_ms: int = 0


@dataclass(frozen=True, slots=True)
class Pushed:
    """A `Push` whose ops are truly signed (sync.codec.verify)."""

    number: int
    project: str
    ops: tuple[Op, ...]


Received = (
    Open
    | Carries
    | Hello
    | Same
    | Digests
    | Vectors
    | Verified
    | Ack
    | Done
    | Walk
    | Step
    | Audit
    | Audited
    | Pushed
    | Took
    | Have
    | Want
)
"""What the core can be given."""
