"""A peer that lies: it has a certificate of the mesh, keeps the form of the protocol, and means harm.

A lie changes one message of an honest core. The liar's ops are really signed, and what it says of others' ops is not.
"""

from collections.abc import Callable
from random import Random

import msgspec

from crdt.op import MAX_SEQ
from sync.messages import Ack, Batch, Have, Hello, Known, Message, Push, Same, Step, Took, Vectors
from tests.sim.faults import YEAR_MS

STRANGER = b"an author of none"[:16]


def _claim_everything(message: Message, rng: Random) -> Message:
    """Vectors that have seen all that anybody will ever write."""
    if isinstance(message, Vectors):
        claims = {
            name: Known(known.root, dict.fromkeys((*known.vector, STRANGER), MAX_SEQ))
            for name, known in message.projects.items()
        }
        return msgspec.structs.replace(message, projects=claims)
    if isinstance(message, Have):
        return Have(message.project, tuple((author, MAX_SEQ) for author, _ in message.dots))
    return message


def _claim_nothing(message: Message, rng: Random) -> Message:
    """It wants all of it again, and again."""
    if isinstance(message, Vectors):
        nothing = {name: Known(known.root, {}) for name, known in message.projects.items()}
        return msgspec.structs.replace(message, projects=nothing)
    return message


def _withhold(message: Message, rng: Random) -> Message:
    """An op is missing from what it sends, and those after it are not."""
    if isinstance(message, Batch | Push) and len(message.ops) > 1:
        left_out = rng.randrange(len(message.ops))
        return msgspec.structs.replace(message, ops=message.ops[:left_out] + message.ops[left_out + 1 :])
    return message


def _repeat(message: Message, rng: Random) -> Message:
    """The same op several times in one batch."""
    if isinstance(message, Batch | Push):
        return msgspec.structs.replace(message, ops=message.ops * 2)
    return message


def _forge(message: Message, rng: Random) -> Message:
    """A byte of an op is another one."""
    if isinstance(message, Batch | Push):
        first = bytearray(message.ops[0])
        first[rng.randrange(len(first))] ^= 1 << rng.randrange(8)
        return msgspec.structs.replace(message, ops=(bytes(first), *message.ops[1:]))
    return message


def _deny(message: Message, rng: Random) -> Message:
    """All is the same, it says; or nothing ever is."""
    match message:
        case Vectors():
            return Same()
        case Hello():
            return msgspec.structs.replace(message, digest=rng.randbytes(len(message.digest)))
        case _:
            return message


def _wrong_time(message: Message, rng: Random) -> Message:
    if isinstance(message, Hello):
        return msgspec.structs.replace(message, wall_ms=message.wall_ms + YEAR_MS)
    return message


def _miscount(message: Message, rng: Random) -> Message:
    """Answers to what was never asked, and news where there were none."""
    if isinstance(message, Ack | Took):
        return msgspec.structs.replace(message, number=message.number + rng.randint(0, 2))
    return message


def _lead_astray(message: Message, rng: Random) -> Message:
    """Steps of a walk into nodes that nobody named, or that differ everywhere."""
    if isinstance(message, Step):
        nodes = {place + rng.randint(0, 1): rng.randbytes(len(digests)) for place, digests in message.nodes.items()}
        return msgspec.structs.replace(message, nodes=nodes)
    return message


LIES: dict[str, Callable[[Message, Random], Message]] = {
    "claims everything": _claim_everything,
    "claims nothing": _claim_nothing,
    "withholds": _withhold,
    "repeats": _repeat,
    "forges": _forge,
    "denies": _deny,
    "wrong time": _wrong_time,
    "miscounts": _miscount,
    "leads astray": _lead_astray,
}


def draw(rng: Random) -> tuple[str, ...]:
    """A liar has a few lies of its own."""
    return tuple(rng.sample(list(LIES), rng.randint(1, 3)))


def lie(lies: tuple[str, ...], message: Message, rng: Random) -> Message:
    """The message, or what a liar says instead."""
    for name in lies:
        message = LIES[name](message, rng)
    return message
