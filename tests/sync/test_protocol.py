"""sync/PROTOCOL.md is true: its transcript is replayed, its messages and limits are those of the code."""

import re
from pathlib import Path
from typing import get_args

from sync import audit, codec, dialling, gossip, messages, overlap, push, session, transfer, trickle, view
from sync import walk as walking
from sync.messages import (
    Ack,
    Audit,
    Audited,
    Batch,
    Carries,
    Digests,
    Done,
    Have,
    Hello,
    Message,
    Open,
    Push,
    Same,
    Step,
    Took,
    Vectors,
    Walk,
    Want,
)
from sync.ready import RoundEnded
from tests.sync.wire import Pair, agree, copied, disk, writer, written

PAGE = (Path(__file__).parents[2] / "sync/PROTOCOL.md").read_text(encoding="utf-8")


def scene() -> Pair:
    """Two nodes that share `plant` and `team/red`, met before, and were both written to since."""
    left, right = disk("plant", "diary", "team/*"), disk("plant", "team/red")
    a, b = writer("a"), writer("b")
    both = written(left, a, "plant", 40) + written(left, a, "team/red", 5)
    copied(both, right)
    copied(written(right, b, "plant", 20), left)
    written(left, a, "plant", 3)
    written(left, a, "diary", 1)
    written(right, b, "team/red", 2)
    return Pair(left, right)


def told(message: Message) -> str:
    match message:
        case Open():
            return f"carries {', '.join(message.prefixes) or 'no prefix'} and {len(message.points)} names"
        case Carries():
            return f"{', '.join(message.names) or 'no name'} of mine; {len(message.points)} points back"
        case Hello():
            return f"digest {message.digest.hex()[:8]}, {len(message.projects or ())} projects"
        case Same():
            return "nothing differs"
        case Digests():
            return ", ".join(message.projects)
        case Vectors():
            parts = (f"{name}: {list(known.vector.values())}" for name, known in message.projects.items())
            return "; ".join(parts) + f"; window {message.window}"
        case Batch():
            return f"{message.number}: {len(message.ops)} ops of {message.project}"
        case Ack():
            return f"{message.number}: committed, {message.fresh} new"
        case Done():
            return "that was all"
        case Push():
            return f"{message.number}: {len(message.ops)} ops of {message.project}"
        case Took():
            return f"{message.number}: {message.fate.name.lower()}"
        case Have() | Want():
            return f"{len(message.dots)} dots of {message.project}"
        case Walk():
            return f"{message.project}, level {message.level}: {told_nodes(message)}"
        case Step():
            return f"{told_nodes(message)}; {len(message.wants) // messages.ID_BYTES} wanted"
        case Audit():
            return f"{message.project}, level {message.level}, node {message.place}"
        case Audited():
            return f"digest {message.digest.hex()[:8]}"


def told_nodes(message: Walk | Step) -> str:
    leaves = (f"{len(ids) // messages.ID_BYTES} ids of {place}" for place, ids in message.leaves.items())
    return ", ".join([*(f"children of {place}" for place in message.nodes), *leaves]) or "nothing more"


def transcript() -> list[str]:
    pair = scene().connect().settle()
    assert agree(pair)
    ops = written(pair.disks["b"], writer("b"), "plant", 1)
    pair.do("b", pair.cores["b"].wrote(ops, pair.now))
    pair.settle()
    assert agree(pair)
    assert all(notice.fresh_ops == notice.received_ops for _, notice in pair.notices if isinstance(notice, RoundEnded))
    return lines(pair)


def lines(pair: Pair, start: int = 0) -> list[str]:
    return [
        f"{sender} > {'b' if sender == 'a' else 'a'}  {type(message).__name__:8} {size:5}  {told(message)}"
        for sender, message, size in pair.log[start:]
    ]


def walk() -> list[str]:
    """A row of 300 is lost on one side, and another on the other."""
    pair = Pair(disk("plant"), disk("plant"))
    ops = [op for op in written(pair.disks["a"], writer("a"), "plant", 300) if op.project == "plant"]
    copied(pair.disks["a"].known["_mesh"].values(), pair.disks["b"])  # type: ignore[arg-type]
    copied(ops, pair.disks["b"])
    pair.connect().settle()
    pair.disks["a"].lose_row(ops[100])
    pair.disks["b"].lose_row(ops[200])
    start = len(pair.log)
    pair.do("a", pair.cores["a"].sync("b", pair.now))
    pair.settle()
    assert agree(pair)
    return lines(pair, start)


def test_the_walk_is_what_the_code_says() -> None:
    block = re.search(r"```walk\n(.*?)```", PAGE, re.DOTALL)
    assert block, "PROTOCOL.md has a block ```walk"
    assert block[1].splitlines() == walk()


def test_the_transcript_is_what_the_code_says() -> None:
    block = re.search(r"```transcript\n(.*?)```", PAGE, re.DOTALL)
    assert block, "PROTOCOL.md has a block ```transcript"
    assert block[1].splitlines() == transcript()


def test_every_message_has_its_line() -> None:
    rows = {name: int(number) for number, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)}
    assert rows == {kind.__name__: kind.__struct_config__.tag for kind in get_args(Message)}
    for kind in get_args(Message):
        row = next(line for line in PAGE.splitlines() if f"| `{kind.__name__}` |" in line)
        assert [field for field in kind.__struct_fields__ if f"`{field}`" not in row] == []


def test_every_limit_is_the_one_in_the_code() -> None:
    modules = (audit, codec, dialling, gossip, messages, overlap, push, session, transfer, trickle, view, walking)
    limits = re.findall(r"^\| `([A-Z_]+)` \| ([\d.,_]+)", PAGE, re.MULTILINE)
    assert len(limits) > 10
    for name, value in limits:
        values = [getattr(module, name) for module in modules if hasattr(module, name)]
        assert values and float(value.replace(",", "")) == values[0], name
