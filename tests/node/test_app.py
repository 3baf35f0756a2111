"""The node put together: it starts, serves, stops in order, and does not start twice."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from node import app, config, enrol, identity
from node.app import Node
from node.client import Client
from node.clock import now_ms
from node.errors import Problem
from node.identity import Identity
from node.paths import Home
from node.requests import FactDraft

LOCAL = {"listen": "127.0.0.1:0", "api": "127.0.0.1:0", "memory_max_mb": 4_096}  # all tests share this process
Start = Callable[[Identity], Awaitable[Node]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts nodes that stop with the test."""
    running: list[Node] = []

    async def begin(me: Identity) -> Node:
        node = Node(me, config.load(me.home, {}, LOCAL))
        running.append(node)
        await node.start()
        return node

    yield begin
    for node in running:
        await node.stop()


def founded(path: Path) -> Identity:
    app.found(path, "founder")
    return identity.load(Home(path))


async def call(me: Identity, method: str, path: str, body: object = None) -> object:
    return await asyncio.to_thread(Client(me.home.socket).call, method, path, body)


async def test_it_serves_on_a_socket_that_is_its_owners(tmp_path: Path, start: Start) -> None:
    me = founded(tmp_path / "home")
    node = await start(me)
    assert stat.S_IMODE(me.home.socket.stat().st_mode) == 0o600
    stored = await call(me, "POST", "/v1/facts", {"content": "the first"})
    assert isinstance(stored, dict)
    assert (await node.replica.get(stored["id"]))["content"] == "the first"


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    me = founded(tmp_path / "home")
    settings = config.load(me.home, {}, LOCAL)
    first = Node(me, settings)
    await first.start()
    stored, _ = await first.replica.store_facts([FactDraft(content="kept")])
    await first.stop()
    assert not me.home.socket.exists()
    second = Node(me, settings)
    await second.start()
    assert (await second.replica.get(stored[0]["id"]))["content"] == "kept"
    again, _ = await second.replica.store_facts([FactDraft(content="next")])
    numbers = [int(fact["id"].rpartition("-")[2]) for fact in (stored[0], again[0])]
    assert numbers[1] == numbers[0] + 1, "a clean stop loses no seq"
    await second.stop()


async def test_a_node_introduces_itself_once(tmp_path: Path) -> None:
    me = founded(tmp_path / "home")
    for _ in range(2):
        node = Node(me, config.load(me.home, {}, LOCAL))
        await node.start()
        records = "SELECT count(*) FROM ops WHERE subject = ?"
        ops = node.database.direct.execute(records, (me.node_id,)).fetchone()
        await node.stop()
        assert ops == (1,)


def test_a_home_is_owned_by_one_process(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with app.locked(home), pytest.raises(Problem, match=f"pid {os.getpid()}"), app.locked(home):
        raise AssertionError("two owners")
    with app.locked(home):
        assert home.lock.read_text().strip() == str(os.getpid())


async def test_a_default_port_that_is_taken_gives_way(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    monkeypatch.setattr(config, "DEFAULTS", {"api": f"127.0.0.1:{port}", "listen": "127.0.0.1:0"})
    me = founded(tmp_path / "home")
    node = Node(me, config.load(me.home, {}, LOCAL | {"api": f"127.0.0.1:{port}"}))
    try:
        await node.start()
        assert node.bound["api"] != f"127.0.0.1:{port}"
    finally:
        await node.stop()
        taken.close()


async def test_a_port_that_the_user_set_is_never_changed(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    me = founded(tmp_path / "home")
    node = Node(me, config.load(me.home, {}, LOCAL | {"listen": f"127.0.0.1:{port}"}))
    try:
        with pytest.raises(Problem) as refused:
            await node.start()
        assert refused.value.code == "port_taken"
        assert refused.value.field == "listen"
    finally:
        await node.stop()
        taken.close()


async def test_an_invited_machine_joins_and_holds_the_same_facts(tmp_path: Path, start: Start) -> None:
    first = await start(founded(tmp_path / "one"))
    code = (await first.invite("member", ["*"], 600))["code"]
    joined = await enrol.join(Home(tmp_path / "two"), code, "second", now_ms())
    second = await start(identity.load(Home(tmp_path / "two")))
    stored, _ = await first.replica.store_facts([FactDraft(content="known to both")])
    arrived = asyncio.Event()
    second.store.on_change = lambda projects: arrived.set() if "default" in projects else None
    await second.add_peer(joined.peers[0])
    async with asyncio.timeout(20):
        await arrived.wait()
    assert (await second.replica.get(stored[0]["id"]))["content"] == "known to both"


async def test_an_invitation_with_a_role_that_does_not_exist_is_refused(tmp_path: Path, start: Start) -> None:
    node = await start(founded(tmp_path / "home"))
    with pytest.raises(Problem) as refused:
        await node.invite("king", ["*"], 600)
    assert refused.value.field == "role"


async def test_a_fact_is_found_by_its_meaning_soon_after_it_was_stored(tmp_path: Path, start: Start) -> None:
    me = founded(tmp_path / "home")
    node = await start(me)
    await node.replica.store_facts([FactDraft(content="lunch is at noon"), FactDraft(content="the train is late")])
    told = "my doctor told me to stop eating sugar"
    stored, _ = await node.replica.store_facts([FactDraft(content=told)])
    await node.vectors.settled()
    answer = await call(me, "POST", "/v1/search", {"query": "what did the physician advise"})
    assert isinstance(answer, dict)
    assert answer["mode"] == "hybrid" and answer["results"][0]["fact"]["id"] == stored[0]["id"]
    assert answer["results"][0]["legs"]["text"] is None and answer["results"][0]["legs"]["vector"] > 0.2
    status = await call(me, "GET", "/v1/status")
    assert isinstance(status, dict)
    assert status["vectors"] | {"model": None} == {"state": "ready", "model": None, "done": 3, "total": 3}


async def test_the_greeting_says_where_everything_is(tmp_path: Path, start: Start) -> None:
    node = await start(founded(tmp_path / "home"))
    greeting = app.greeting(node)
    assert len(greeting.splitlines()) == 5
    for said in (node.me.node_id, str(tmp_path / "home"), node.bound["api"]):
        assert said in greeting
