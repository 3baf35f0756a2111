"""What bad input gets: a clear error with the promised exit code, and nothing lost or changed.

Every refusal is asked for as a user would, through the command line or the API of a running node.
"""

import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.local_nodes import LOOPBACK, LocalNode, found, free_port, wait_until
from node import invitation
from node.clock import now_ms, rfc3339
from node.errors import Problem
from node.migrations import NEWEST

DISK_MB = 16
BALLAST_MB = 6
"""Freed when the disk is full: room for what was written, and for its checkpoint."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """A running node with two facts."""
    with found(tmp_path_factory.mktemp("node") / "n", "n").start() as node:
        node.store("the first fact", "the second fact")
        yield node


@pytest.fixture
def fact_id(node: LocalNode) -> str:
    return next(iter(node.facts()))


@pytest.fixture
def unchanged(node: LocalNode) -> Iterator[None]:
    """Afterwards the node holds exactly the ops that it held before."""
    before = node.knowledge()
    yield
    assert node.knowledge() == before


# Facts


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (["store", "-"], b"x" * 65_537, "65,537 bytes, the limit is 65,536"),
        (["store", "  "], b"", "empty"),
        (["store", "x", *(f"--tag=t{n}" for n in range(65))], b"", "65 tags, the limit is 64"),
        (["store", "x", "--tag", "t" * 129], b"", "129 bytes"),
        (["store", "x", "--valid-from", "yesterday"], b"", "'yesterday' is not a time"),
        (["store", "x", "--valid-from", "2026-13-01"], b"", "'2026-13-01' is not a time"),
        (["store", "x", "--valid-from", "2026-05-02", "--valid-until", "2026-05-01"], b"", "valid_until"),
        (["store", "x", "--meta", "{"], b"", "not JSON"),
        (["store", "x", "--project", "_mesh"], b"", "reserved"),
        (["store", "-"], b"\xff\xfe", "not UTF-8"),
        (["search", "x" * 2_001], b"", "2,001 characters"),
        (["search", "x", "--as-of", "soon"], b"", "'soon' is not a time"),
        (["stor", "x"], b"", "did you mean store"),
        (["store", "x", "--tga", "y"], b"", "--tga"),
    ],
)
def test_a_bad_fact_is_refused_with_code_2(node: LocalNode, arguments: list[str], given: bytes, said: str) -> None:
    done = node.run(*arguments, given=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "arguments",
    [["get"], ["history"], ["update", "--type=rule"], ["retract"], ["tag", "--add=x"], ["graph"], ["link", "like"]],
    ids=lambda arguments: arguments[0],
)
def test_an_unknown_id_is_refused_with_code_1(node: LocalNode, fact_id: str, arguments: list[str]) -> None:
    command, *more = arguments
    unknown = "aaaaaaaaaaaaaaaa-7"
    done = node.run(command, unknown, *more, *([fact_id] if command == "link" else []))
    assert (done.returncode, done.stdout) == (1, "")
    assert unknown in done.stderr


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"content": "x", "valid_from": "noon"}, 422, "valid_from"),
        ({"content": "x", "valid_from": "2026-05-02T00:00:00Z", "valid_until": "2026-05-02T00:00:00Z"}, 422, None),
        ({"content": "x", "valid_until": "12026-01-01T00:00:00Z"}, 422, "valid_until"),
        ({"content": "x", "tags": "not a list"}, 422, "tags"),
        ({"content": "x" * 65_537}, 413, "content"),
        ({"content": "x", "typo": 1}, 422, None),
        ({"facts": [{"content": "good"}, {"content": ""}]}, 422, "content"),
        ({"facts": []}, 422, "facts"),
        ({"facts": [{"content": "x"}] * 1_001}, 422, "facts"),
        ([], 422, None),
        ("text", 422, None),
    ],
    ids=str,
)
def test_the_api_says_which_field(node: LocalNode, body: Any, status: int, field: str | None) -> None:
    with pytest.raises(Problem) as refused:
        node.client.call("POST", "/v1/facts", body)
    assert refused.value.status == status
    assert field is None or refused.value.field == field


def test_65536_bytes_and_64_tags_are_fine(node: LocalNode) -> None:
    [fact] = node.store({"content": "x" * 65_536, "tags": [f"t{n}" for n in range(64)]})
    assert len(node.facts()[fact["id"]]["tags"]) == 64


# Settings, homes, invitations


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("file", "did you mean gossip_interval_s"),
        ("environment", "did you mean CORTEX_GOSSIP_INTERVAL_S"),
        ("flag", "--gossip-intervals"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, where: str, said: str) -> None:
    node = found(tmp_path / "n", "n")
    founded = node.home.database.read_bytes()
    flags: list[str] = []
    match where:
        case "file":
            node.home.config.write_text("gossip_intervals = 30\n")
        case "environment":
            node.environment["CORTEX_GOSSIP_INTERVALS"] = "30"
        case _:
            flags = ["--gossip-intervals", "30"]
    done = node.run("run", *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert node.home.database.read_bytes() == founded, "nothing was begun"


def test_a_home_whose_path_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    node = found(tmp_path / ("n" * 100), "n")
    done = node.run("run")
    assert done.returncode == 2
    assert "107 bytes" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_run_says_which_process_is_there(node: LocalNode) -> None:
    done = node.run("run")
    assert done.returncode == 1
    assert str(node.pid) in done.stderr
    assert node.text("/readyz") == "ready\n"


@pytest.mark.usefixtures("unchanged")
def test_init_and_join_overwrite_nothing(node: LocalNode) -> None:
    key = node.home.key.read_bytes()
    code = node.tell("invite")["code"]
    for command in (["init"], ["join", code]):
        done = node.run(*command)
        assert done.returncode == 1
        assert "already the home of a node" in done.stderr
    assert node.home.key.read_bytes() == key


def test_an_invitation_is_taken_up_once_and_in_time(node: LocalNode, tmp_path: Path) -> None:
    code = node.tell("invite")["code"]
    assert LocalNode(tmp_path / "first", {}).run("join", code, "--name", "first").returncode == 0
    assert_not_joined(tmp_path / "second", code, 1, "has been used by another node")
    late = node.tell("invite", "--ttl", "1s")
    wait_until("it has expired", lambda: rfc3339(now_ms()) > late["expires_at"])
    assert_not_joined(tmp_path / "late", late["code"], 1, "has expired")


def test_an_invitation_that_is_damaged_or_of_another_mesh_is_refused(node: LocalNode, tmp_path: Path) -> None:
    code = node.tell("invite")["code"]
    true = invitation.decode(code, now_ms())
    guessed = replace(true, secret=bytes(16))
    foreign = replace(true, fingerprint=bytes(32))
    away = replace(true, addresses=(f"{LOOPBACK}:{free_port()}",))
    old = replace(true, expires_ms=now_ms() - 3_600_000)
    assert_not_joined(tmp_path / "a", code[:-8] + ("B" if code[-8] == "A" else "A") + code[-7:], 2, "checksum")
    assert_not_joined(tmp_path / "b", "CORTEX1-HELLO", 2, "not a whole invitation")
    assert_not_joined(tmp_path / "c", invitation.encode(guessed), 1, "no such invitation")
    assert_not_joined(tmp_path / "d", invitation.encode(foreign), 1, "belongs to another mesh")
    assert_not_joined(tmp_path / "e", invitation.encode(away), 5, "can't be reached")
    assert_not_joined(tmp_path / "f", invitation.encode(old), 1, "has expired")
    assert LocalNode(tmp_path / "g", {}).run("join", code, "--name", "g").returncode == 0, "none of that has used it up"


def test_a_member_that_is_not_the_founder_cannot_invite(node: LocalNode, tmp_path: Path) -> None:
    member = LocalNode(tmp_path / "m", {})
    member.tell("join", node.tell("invite")["code"], "--name", "m")
    with member.start():
        done = member.run("invite")
        assert done.returncode == 1
        assert "CA key" in done.stderr
        assert member.stop() == 0


def test_a_database_from_a_newer_version_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with found(tmp_path / "n", "n").start() as node:
        node.store("from the future")
        node.stop()
    with closing(sqlite3.connect(node.home.database)) as connection, connection:
        connection.execute("INSERT INTO migrations VALUES (?, 'of tomorrow', 0)", (NEWEST + 5,))
    content = node.home.database.read_bytes()
    done = node.run("run")
    assert done.returncode == 1
    assert f"version {NEWEST + 5}" in done.stderr
    assert f"up to {NEWEST}" in done.stderr
    assert "Traceback" not in done.stderr
    assert node.home.database.read_bytes() == content


@pytest.mark.parametrize("damage", ["header", "page"])
def test_a_damaged_database_is_refused_with_code_3(tmp_path: Path, damage: str) -> None:
    with found(tmp_path / "n", "n").start() as node:
        node.store("soon to be lost")
        node.stop()
    with node.home.database.open("r+b") as file:
        file.seek(0 if damage == "header" else 100)
        file.write(b"\xa5" * 3_000)
    done = node.run("run")
    assert done.returncode == 3
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr


# Ports


@pytest.mark.parametrize("key", ["listen", "api"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, key: str) -> None:
    node = found(tmp_path / "n", "n")
    with taken(node.port if key == "listen" else node.api_port) as port:
        done = node.run("run")
    assert done.returncode == 1
    assert f"cannot listen on {LOOPBACK}:{port}" in done.stderr
    assert f"`{key}`" in done.stderr
    assert node.start().text("/readyz") == "ready\n"
    assert node.stop() == 0


def test_a_default_port_that_is_taken_gives_way_to_the_next(tmp_path: Path) -> None:
    node = found(tmp_path / "n", "n")
    del node.environment["CORTEX_API"]
    with taken(7401), node.start():
        assert "http://127.0.0.1:7401/" not in node.read_log()
        assert "http://127.0.0.1:74" in node.read_log()
        assert node.stop() == 0


# Space


def test_a_full_store_refuses_writes_and_lives_on(tmp_path: Path) -> None:
    with found(tmp_path / "n", "n", store_max_mb=16).start() as node:
        first = node.store("written while there was room")[0]["id"]
        facts = fill(node)
        assert_full_but_alive(node, first, facts)
        assert any(warning["code"] == "store_nearly_full" for warning in node.status()["warnings"])
        assert node.stop() == 0
        node.environment["CORTEX_STORE_MAX_MB"] = "32"
        node.start()
        assert node.store("there is room again")[0]["id"] in node.facts()
        assert len(node.facts()) == facts + 1


def test_a_full_disk_refuses_writes_and_lives_on(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(BALLAST_MB << 20))
    with found(small_disk / "n", "n") as node:
        node.start()
        first = node.store("written while there was room")[0]["id"]
        facts = fill(node)
        assert_full_but_alive(node, first, facts)
        assert node.stop() == 0, "it stops cleanly, although it can't write that it has"
        refused = node.run("run")
        assert refused.returncode == 5
        assert "Traceback" not in refused.stderr
        ballast.unlink()
        node.start()
        assert len(node.facts()) == facts
        again = node.store("there is room again")[0]["id"]
        assert again in node.facts()
        assert node.stop() == 0


def test_space_that_is_freed_while_it_runs_is_used(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(BALLAST_MB << 20))
    with found(small_disk / "n", "n").start() as node:
        facts = fill(node)
        ballast.unlink()
        node.store("there is room again")
        assert len(node.facts()) == facts + 1
        assert node.stop() == 0
        node.start()
        assert len(node.facts()) == facts + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    ) if os.geteuid() == 0 else None  # fmt: skip
    if mounted is None or mounted.returncode:
        why = mounted.stderr.strip() if mounted else "only root can mount one"
        pytest.skip(f"NOT TESTED: no small disk to fill up: {why}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(node: LocalNode) -> int:
    """Write until a lone small fact is refused; how many facts are there."""
    for size, many in ((4_000, 50), (4_000, 1), (10, 1)):
        with pytest.raises(Problem) as refused:
            for round_ in range(100_000):
                node.store(*(f"{size} {round_} {number} ".ljust(size, "x") for number in range(many)))
        assert (refused.value.status, refused.value.code) == (507, "store_full")
    return len(node.facts())


def assert_full_but_alive(node: LocalNode, fact_id: str, facts: int) -> None:
    for command in (["store", "-"], ["update", fact_id, "-"]):
        done = node.run(*command, given=b"x" * 50_000)  # a short text may still find a place in a page
        assert done.returncode == 5
        assert "full" in done.stderr
    assert node.client.call("GET", f"/v1/facts/{fact_id}")["content"] == "written while there was room"
    hits = node.client.call("POST", "/v1/search", {"query": "while there was room"})["results"]
    assert hits[0]["fact"]["id"] == fact_id
    assert len(node.facts()) == facts
    assert node.run("status").returncode == 0


def assert_not_joined(path: Path, code: str, exit_code: int, said: str) -> None:
    """Refused, and nothing of a home is there."""
    done = LocalNode(path, {}).run("join", code)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert said in done.stderr
    assert not path.exists()


@contextmanager
def taken(port: int) -> Iterator[int]:
    """Somebody listens on `port`; if another program does already, that will do."""
    with socket.socket() as other:
        try:
            other.bind((LOOPBACK, port))
            other.listen()
        except OSError:
            pass
        yield port
