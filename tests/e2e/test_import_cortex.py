"""The earlier system's memory moves in: once, under its old ids, while somebody listens to what happens."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from bench.local_nodes import COMMAND_S, LOOPBACK, LocalNode, found
from tests.node.cortex import Cortex


@contextmanager
def listening(node: LocalNode) -> Iterator[HTTPResponse]:
    """The stream of events, as a program on this machine would ask for it."""
    with closing(HTTPConnection(LOOPBACK, node.api_port, timeout=COMMAND_S)) as connection:
        token = node.home.token.read_text().strip()
        connection.request("GET", "/v1/events", headers={"Authorization": f"Bearer {token}"})
        with connection.getresponse() as stream:
            yield stream


def heard_of(fact: str, kind: str, stream: HTTPResponse) -> Any:
    """The data of the next event of this kind that names the fact."""
    event = ""
    while line := stream.readline().decode():
        name, _, value = line.rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == kind and fact in value:
            return json.loads(value)
    raise AssertionError(f"the stream has ended without {kind} of {fact}")


def test_an_earlier_memory_moves_in(tmp_path: Path) -> None:
    cortex = Cortex(tmp_path / "cortex.db")
    pump = cortex.fact("Pump 3 runs dry after nine", tags='["pump"]')
    for voter in ("ada", "bo", "cy"):
        cortex.vote(pump, voter, 1)
    cortex.weighted_vote(pump, cortex.agent("5b0e", "watcher"), -1)
    cortex.deprecate(cortex.fact("Pump 3 is new"), f"updated_by_{pump}")
    with found(tmp_path / "n", "n").start() as node, listening(node) as stream:
        report = node.tell("import", "cortex", str(cortex.path))
        assert (report["stored"], report["votes"], report["bad_facts"]) == (2, 4, 0)
        fact = node.tell("get", "1")
        assert (fact["content"], fact["tags"], fact["legacy_id"]) == ("Pump 3 runs dry after nine", ["pump"], "1")
        assert (fact["score"], fact["score_linear"], fact["trust"]) == (1_000, 1_200, "unsettled")
        assert heard_of(fact["id"], "write", stream)["ops"] == 6
        assert node.run("get", "2").returncode == 1, "it had been deprecated"
        before = node.knowledge()
        again = node.tell("import", "cortex", str(cortex.path))
        assert (again["stored"], again["already_stored"], again["votes"]) == (0, 2, 0)
        assert node.knowledge() == before
        assert "weigh 0" in node.run("import", "cortex", str(cortex.path)).stdout
        assert node.run("vote", "1", "up").returncode == 0
        assert heard_of(fact["id"], "commit", stream)["entries"][-1]["index"] > 0
