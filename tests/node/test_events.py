"""Events: in order, once, with a way back; and whoever cannot follow is told so or let go."""

import asyncio
import json
from typing import Any

import pytest

from node.errors import Problem
from node.events import MAX_KEPT, MAX_LISTENERS, MAX_NAMED, MAX_TEXT_CHARS, MAX_WAITING, Event, Events, Listener
from node.peers import Peer
from node.voting import records
from node.voting.records import OldVote
from sync.ready import Outcome, RoundEnded
from tests.node.world import PROJECT, Node, a_mesh

NOW = 0.0
"""Nobody waits here."""
EVER = 60.0


def told(frames: bytes | None) -> list[tuple[str | None, str, Any]]:
    """(id, event, data) of each event in a piece of the stream, as a client would read it."""
    assert frames is not None
    found = []
    for block in frames.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


async def heard(listener: Listener) -> list[Any]:
    """The data of all that waits."""
    return [data for _, _, data in told(await listener.take(NOW))]


def events(count: int = 0, run: str = "run") -> Events:
    made = Events(run)
    for number in range(1, count + 1):
        made.tell(Event.ALERT, number)
    return made


async def test_who_listens_hears_what_happens_from_then_on() -> None:
    source = events(3)
    listener = source.listen()
    assert await heard(listener) == []
    asyncio.get_running_loop().call_soon(source.tell, Event.ROUND, {"peer": "p"})
    assert told(await listener.take(EVER)) == [("run-4", "round", {"peer": "p"})]
    assert await listener.take(NOW) == b""


@pytest.mark.parametrize("last", range(4))
async def test_who_comes_back_hears_what_it_missed(last: int) -> None:
    source = events(3)
    assert await heard(source.listen(f"run-{last}")) == list(range(last + 1, 4))


async def test_who_left_before_anything_happened_can_come_back() -> None:
    source = events()
    first = await source.listen().take(NOW)
    assert first is not None and b"id: run-0\n" in first
    source.tell(Event.ALERT, "missed")
    assert await heard(source.listen("run-0")) == ["missed"]


@pytest.mark.parametrize("after", ["other-3", "run-9", "run--1", "run-", "", "nonsense", "run-\N{SUPERSCRIPT TWO}"])
async def test_an_id_that_cannot_be_resumed_from_is_a_gap(after: str) -> None:
    source = events(3)
    gap, *rest = told(await source.listen(after).take(NOW))
    assert gap == (None, "gap", {"after": after, "oldest": "run-1"})
    assert [data for _, _, data in rest] == ([] if after == "run-9" else [1, 2, 3])


async def test_what_was_too_long_ago_is_a_gap() -> None:
    source = events(MAX_KEPT + 10)
    for last, is_gap in ((8, True), (9, True), (10, False)):
        frames = told(await source.listen(f"run-{last}").take(NOW))
        assert (frames[0][1] == "gap") is is_gap
        assert len(frames) == MAX_KEPT + is_gap
    assert await heard(Events("new").listen("run-1")) == [{"after": "run-1", "oldest": None}]


async def test_who_does_not_read_is_dropped_and_nobody_else() -> None:
    source = events()
    slow, quick = source.listen(), source.listen()
    dropped: list[str] = []
    slow.on_drop = lambda: dropped.append("slow")
    for number in range(MAX_WAITING + 5):
        source.tell(Event.ALERT, number)
        await quick.take(NOW)
    assert dropped == ["slow"]
    assert await slow.take(NOW) is None
    source.tell(Event.ALERT, "later")
    assert await heard(quick) == ["later"]


async def test_only_so_many_listen() -> None:
    source = events()
    listeners = [source.listen() for _ in range(MAX_LISTENERS)]
    with pytest.raises(Problem) as caught:
        source.listen()
    assert (caught.value.status, caught.value.code) == (503, "too_many_listeners")
    listeners[0].close()
    listeners[0].close()
    source.listen()


async def test_at_the_end_everybody_is_let_go() -> None:
    source = events()
    listener = source.listen()
    await listener.take(NOW)
    asyncio.get_running_loop().call_soon(source.close)
    assert await listener.take(EVER) is None
    with pytest.raises(Problem):
        source.listen()


async def test_what_waits_at_the_end_is_still_told() -> None:
    source = events()
    listener = source.listen()
    source.alert("c", "last words")
    source.close()
    assert await heard(listener) == [{"code": "c", "text": "last words"}]
    assert await listener.take(NOW) is None


async def test_a_write_names_projects_and_facts_and_nothing_of_what_they_say() -> None:
    node, _ = await a_mesh()
    source = events()
    listener = source.listen()
    fact = await node.create("a secret")
    vote = records.old_vote_draft(PROJECT, fact["id"], OldVote("ada", 1, 0))
    key = records.project_key_draft(PROJECT, bytes(32))
    source.wrote([*(op for op in node.ops() if op.subject == fact["id"]), *await node.append(vote, key)], "a-peer")
    (data,) = await heard(listener)
    assert data == {"ops": 3, "peer": "a-peer", "projects": [PROJECT], "facts": [fact["id"]], "truncated": False}
    source.wrote([])
    assert await heard(listener) == []


async def test_a_large_write_names_only_some() -> None:
    node = Node(1)
    for _ in range(MAX_NAMED + 1):
        await node.create()
    source = events()
    listener = source.listen()
    source.wrote(node.ops())
    (data,) = await heard(listener)
    assert (len(data["facts"]), data["ops"], data["truncated"]) == (MAX_NAMED, MAX_NAMED + 1, True)


async def test_the_other_events() -> None:
    source = events()
    listener = source.listen()
    source.committed([(7, "a-fact"), (8, None)])
    source.committed([])
    source.committed((index, None) for index in range(MAX_NAMED + 1))
    source.alert("fork", "x" * (MAX_TEXT_CHARS + 1))
    source.degraded("bulk", True)
    source.round_ended(Peer("a-peer", "pi"), RoundEnded("a-peer", Outcome.MOVED, 3, 4, 4))
    commit, long, alert, degraded, ended = told(await listener.take(NOW))
    entries = [{"index": 7, "fact": "a-fact"}, {"index": 8, "fact": None}]
    assert commit[1:] == ("commit", {"entries": entries, "truncated": False})
    assert (len(long[2]["entries"]), long[2]["truncated"]) == (MAX_NAMED, True)
    assert alert[1:] == ("alert", {"code": "fork", "text": "x" * MAX_TEXT_CHARS})
    assert degraded[1:] == ("degraded", {"step": "bulk", "begins": True})
    data = {"peer": "a-peer", "name": "pi", "result": "moved", "sent_ops": 3, "received_ops": 4}
    assert ended[1:] == ("round", data)
