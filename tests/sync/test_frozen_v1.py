"""The first version of the protocol still syncs with this one: tests/sync/frozen_v1 is a copy of it, never edited.

What a node of that time says and understands is in the copy: messages, frames, session. It knows no walk, no audit and
no push; whoever talks to it must do without.
"""

from collections import deque
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from sync import codec, session
from sync.ready import Outcome, RoundEnded
from tests.sim.disk import Disk
from tests.sync.frozen_v1 import codec as codec_v1
from tests.sync.frozen_v1 import session as session_v1
from tests.sync.wire import MESH, copied, disk, writer, written

FROZEN = "5ff4098b98e592b8"


class Old:
    """A node of version 1."""

    codec, session, batch = codec_v1, session_v1, codec_v1.Batch


class New:
    """A node of today."""

    codec, session, batch = codec, session, codec.Batch


class Meeting:
    """Two sessions on one perfect connection; each end has the frames of its own time."""

    def __init__(self, a: Any, b: Any, disks: dict[str, Disk]) -> None:
        self.times = {"a": a, "b": b}
        self.disks = disks
        self.frames: deque[tuple[str, bytes]] = deque()
        self.outcomes: list[str] = []
        self.sessions = {
            me: self.times[me].session.Session(me, me, MESH, peer, 1, disks[me], number, 0.0)
            for number, (me, peer) in enumerate((("a", "b"), ("b", "a")), 1)
        }
        for name in self.sessions:
            self.do(name, self.sessions[name].open())

    def do(self, name: str, ready: Any) -> None:
        for commit in ready.persist:
            self.do(name, self.sessions[name].persisted(self.disks[name].commit(commit.ops), 0.0))
        self.frames += [("ba"[name == "b"], self.times[name].codec.encode(send.message)) for send in ready.send]
        self.outcomes += [one.outcome.value for one in ready.notify if type(one).__name__ == RoundEnded.__name__]

    def settle(self) -> None:
        while self.frames:
            name, frame = self.frames.popleft()
            time = self.times[name]
            message = time.codec.decode(frame)
            if isinstance(message, time.batch):
                message = time.codec.verify(MESH, message)
            self.do(name, self.sessions[name].receive(message, 0.0))


def apart() -> dict[str, Disk]:
    """Disks that have some in common, and some that the other lacks."""
    disks = {"a": disk(), "b": disk("p", "team/*")}
    both = written(disks["a"], writer("a"), "p", 30)
    copied(both, disks["b"])
    written(disks["a"], writer("a"), "p", 20)
    written(disks["b"], writer("b"), "p", 40)
    written(disks["b"], writer("b"), "team/red", 5)
    return disks


@pytest.mark.parametrize(("a", "b"), [(Old, New), (New, Old)], ids=["the old one begins", "the new one begins"])
def test_the_first_version_still_syncs(a: Any, b: Any) -> None:
    meeting = Meeting(a, b, apart())
    meeting.settle()
    meeting.do("a", meeting.sessions["a"].begin(0.0))
    meeting.settle()
    assert meeting.outcomes[-2:] == [Outcome.SAME.value] * 2
    for project in ("p", "team/red", "_mesh"):
        assert meeting.disks["a"].root(project) == meeting.disks["b"].root(project)
        assert meeting.disks["a"].known[project].keys() == meeting.disks["b"].known[project].keys()


@pytest.mark.parametrize(("a", "b"), [(Old, New), (New, Old)], ids=["the old one begins", "the new one begins"])
def test_it_is_sent_no_walk_when_roots_differ(a: Any, b: Any) -> None:
    """Damage is then repaired by another peer; the round ends, and the session stands."""
    meeting = Meeting(a, b, apart())
    meeting.settle()
    meeting.do("a", meeting.sessions["a"].begin(0.0))
    meeting.settle()
    meeting.disks["a"].lose_row(next(iter(meeting.disks["a"].known["p"].values())))
    meeting.do("a", meeting.sessions["a"].begin(0.0))
    meeting.settle()
    assert meeting.outcomes[-2:] == [Outcome.STUCK.value] * 2
    assert {one.state.value for one in meeting.sessions.values()} == {"idle"}


def test_the_copy_is_what_it_was() -> None:
    """A test against an old version that is edited tests nothing."""
    files = sorted((Path(__file__).parent / "frozen_v1").glob("*.py"))
    assert blake2b(b"".join(file.read_bytes() for file in files), digest_size=8).hexdigest() == FROZEN
