"""A mesh is founded whole, or not at all; a process that is killed in the middle leaves nothing that looks whole."""

import os
import signal
import sys
from pathlib import Path

import pytest

from ledger import ed25519, verify
from node import database, identity, mesh
from node.errors import Problem
from node.identity import Identity
from node.paths import Home
from node.voting import founding, grants
from node.voting.keys import KeyStore
from node.voting.table import Table

NOW_MS = 1_800_000_000_000


def table_of(home: Home) -> Table:
    return Table(database.connect(home.database, read_only=True))


@pytest.mark.parametrize("engine", ["solo", "none"])
def test_what_is_founded_is_a_home_with_a_ledger(tmp_path: Path, engine: str) -> None:
    home = Home(tmp_path / "deep" / "home")
    founded = founding.found(home, "pi", engine, NOW_MS)
    assert not [path for path in home.path.iterdir() if path.name.startswith(".") or path.name.endswith("-wal")]
    assert identity.load(home) == founded.me
    assert KeyStore(home.agents).keys() == [founded.owner]
    owner = KeyStore(home.agents).secret(founded.owner)
    assert owner is not None and ed25519.public_key(owner) == founded.owner
    table = table_of(home)
    authority = identity.public_key_of(founded.me.ca)
    report = verify.verify(table, authority=authority)
    assert report.ok and report.checked == 3 and grants.ledger_of(table) == founded.ledger
    assert grants.current(table.connection, founded.ledger, authority).engine == engine
    names = table.connection.execute("SELECT name, owner FROM agents").fetchall()
    assert names == [(founding.OWNER, 1)], "known before the node ever ran"
    assert home.database.stat().st_mode & 0o777 == 0o600


def test_a_second_ledger_is_another_one(tmp_path: Path) -> None:
    one, two = (founding.found(Home(tmp_path / name), name, "solo", NOW_MS) for name in "ab")
    assert one.ledger != two.ledger


def test_a_home_that_is_there_is_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    founding.found(home, "pi", "solo", NOW_MS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(Problem) as caught:
        founding.found(home, "pi", "solo", NOW_MS)
    assert caught.value.code == "home_exists"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_after_a_problem_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    for name, now_ms, code in ((" pi ", NOW_MS, "bad_name"), ("pi", 0, "clock_wrong")):
        with pytest.raises(Problem) as caught:
            founding.found(home, name, "solo", now_ms)
        assert caught.value.code == code and not home.path.exists()

    def full(me: Identity, *rest: object) -> bytes:
        raise database.sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(grants, "found", full)
    with pytest.raises(Problem) as caught:
        founding.found(home, "pi", "solo", NOW_MS)
    assert caught.value.code == "store_failed" and not home.path.exists()


def test_a_folder_that_can_not_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Problem) as caught:
        founding.found(Home(tmp_path / "file" / "home"), "pi", "solo", NOW_MS)
    assert caught.value.code == "home_unwritable"


def found_until_killed(home: Home, at: int) -> bool:
    """Found a mesh in another process, which is killed when it touches files for the `at`-th time; whether it was."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0
        return os.WIFSIGNALED(status)
    steps = 0

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect"):
            steps += str(home.path) in str(arguments[0])
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(audit)
        founding.found(home, "pi", "solo", NOW_MS)
        code = 0
    finally:
        os._exit(code)


def assert_whole(home: Home) -> None:
    assert identity.load(home).founder and KeyStore(home.agents).keys()
    table = table_of(home)
    assert table.head().size == 3 and verify.verify(table).ok
    table.connection.close()


def test_a_killed_init_can_be_run_again_or_says_what_is_there(tmp_path: Path) -> None:
    outcomes = set()
    at = 1
    while found_until_killed(home := Home(tmp_path / str(at)), at):
        if home.founded:
            assert_whole(home)
        else:
            try:
                founding.found(home, "pi", "solo", NOW_MS)
            except Problem as problem:
                assert problem.code == "home_partial" and str(home.certificate.name) in problem.detail
                outcomes.add("partial")
            else:
                assert_whole(home)
                outcomes.add("again")
        at += 1
    assert_whole(home)
    assert outcomes == {"again", "partial"} and at > 15


def test_whoever_founds_a_mesh_without_a_ledger_still_can(tmp_path: Path) -> None:
    me = mesh.found(Home(tmp_path), "pi", NOW_MS)
    assert me.founder and not me.home.database.exists()
