"""The doctor: each check passes where all is well, and finds the fault that it is there for."""

import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node import clock, config, doctor, extension, mesh
from node.doctor import FAILED, OK, WARNING, Check
from node.embedding import table
from node.migrations import NEWEST, migrate
from node.paths import Home
from tests.node.scripted_node import listening

NOW = clock.parse_rfc3339("2026-05-11T08:30:00Z")
DAY = 86_400_000
FREE = {"CORTEX_LISTEN": "127.0.0.1:0", "CORTEX_API": "127.0.0.1:0"}

Usage = SimpleNamespace


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The home of a node that was founded at NOW and has an empty database."""
    home = Home(tmp_path / "home")
    mesh.found(home, "pi", NOW)
    with closing(sqlite3.connect(home.database, isolation_level=None)) as connection:
        migrate(connection, NOW)
    home.database.chmod(0o600)
    for path in (home.database, home.certificate):
        os.utime(path, (NOW / 1000, NOW / 1000))
    return home


@pytest.fixture
def bare(tmp_path: Path) -> Home:
    return Home(tmp_path / "not" / "yet")


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def ails(check: Check, state: str, *words: str) -> None:
    assert check.state == state, check
    assert check.action
    for word in words:
        assert word in check.detail + " " + check.action


def test_a_healthy_home_passes_every_check(home: Home) -> None:
    found = doctor.examine(home, FREE, lambda: NOW)
    assert {state for name, state in states(found).items() if name not in ("disk", "sqlite extensions")} == {OK}, found
    assert [check.name for check in found if check.action and check.state == OK] == []
    assert len({check.name for check in found}) == len(found)


def test_before_init_nothing_has_failed_and_the_way_on_is_told(bare: Home) -> None:
    found = doctor.examine(bare, FREE, lambda: NOW)
    assert FAILED not in states(found).values()
    (missing,) = (check for check in found if check.name == "home")
    ails(missing, WARNING, "cortex-node init", "cortex-node join")
    assert not bare.path.exists()


def test_nothing_is_left_behind(home: Home) -> None:
    before = {path: path.stat().st_mode for path in home.path.rglob("*")}
    doctor.examine(home, FREE, lambda: NOW)
    assert {path: path.stat().st_mode for path in home.path.rglob("*")} == before


def test_a_check_that_breaks_is_a_failed_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Check:
        raise RuntimeError("surprise")

    monkeypatch.setattr(doctor, "disk", broken)
    found = {check.name: check for check in doctor.examine(home, FREE, lambda: NOW)}
    ails(found["disk"], FAILED, "surprise")
    assert found["clock"].state == OK


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    ails(doctor.python(), FAILED, "3.10.4", "3.11")


def test_an_old_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    ails(doctor.sqlite(), FAILED, "3.35.0")


def test_sqlite_without_full_text_search(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutFts:
        def execute(self, _: str) -> None:
            raise sqlite3.OperationalError("no such module: fts5")

        def close(self) -> None: ...

    monkeypatch.setattr(sqlite3, "connect", lambda _: WithoutFts())
    ails(doctor.sqlite(), FAILED, "fts5")


def test_extensions_of_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "sqlite_vec", lambda: None)
    monkeypatch.setattr(extension, "route", lambda: "enable_load_extension")
    ails(doctor.extensions(), WARNING, "sqlite-vec isn't installed", "numpy")
    monkeypatch.setattr(extension, "route", lambda: None)
    ails(doctor.extensions(), WARNING, "can't be loaded by this Python", "numpy")


def test_sqlite_vec_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vec0.so").write_bytes(b"made for another machine")
    monkeypatch.setattr(extension, "sqlite_vec", lambda: tmp_path / "vec0.so")
    if extension.route() == "enable_load_extension":
        ails(doctor.extensions(), WARNING, "vec0.so can't be loaded", "numpy")


def test_what_search_by_meaning_is_done_with(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.embedding(home, {})
    assert found.state == OK and "256 dimensions" in found.detail
    assert "as set" in doctor.embedding(home, {"CORTEX_EMBEDDING": "none"}).detail
    monkeypatch.setattr(table.Table.__init__, "__defaults__", (home.path / "no.bin",))
    ails(doctor.embedding(home, {}), WARNING, "search is by text alone", "no.bin")


def test_bad_settings(home: Home) -> None:
    home.config.write_text("lisen = 1")
    found = {check.name: check for check in doctor.examine(home, FREE, lambda: NOW)}
    ails(found["settings"], FAILED, "lisen", "did you mean listen?")
    home.config.write_text("store_max_mb = 50")
    assert doctor.settings(home, {}).detail.startswith("1 of")


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    ails(doctor.directory(Home(tmp_path)), FAILED, "can't be written")


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ails(doctor.directory(Home(tmp_path / "file")), FAILED, "can't be written")


def test_a_home_whose_socket_has_too_long_a_path(tmp_path: Path) -> None:
    ails(doctor.directory(Home(tmp_path / ("x" * 110))), FAILED, "unix socket", "shorter --home")


@pytest.mark.parametrize(("free", "state"), [(1 << 20, FAILED), (100 << 20, WARNING), (10 << 30, OK)])
def test_free_space(home: Home, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=free))
    assert doctor.disk(home).state == state


def test_a_slow_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr(clock, "monotonic", lambda: float(next(times)))
    ails(doctor.disk_sync(home), WARNING, "1000.0 ms", "faster disk")


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (0, FAILED),
        (clock.parse_rfc3339("2120-01-01"), FAILED),
        (NOW - DAY, WARNING),
        (NOW - 60_000, OK),
        (NOW + 1000 * DAY, OK),
    ],
)
def test_a_wrong_clock(home: Home, now: int, state: str) -> None:
    assert doctor.wall_clock(home, now).state == state


@pytest.mark.parametrize("name", ["key", "ca_key", "token"])
def test_a_secret_that_others_can_read(home: Home, name: str) -> None:
    path: Path = getattr(home, name)
    path.chmod(0o640)
    ails(doctor.permissions(home), FAILED, f"chmod 600 {path}")


def test_keys_of_agents_that_others_can_read(home: Home) -> None:
    home.agents.mkdir(mode=0o700)
    path = home.agents / "00"
    path.touch(mode=0o644)
    ails(doctor.permissions(home), FAILED, f"chmod 600 {path}")
    path.unlink()
    home.agents.chmod(0o755)
    ails(doctor.permissions(home), FAILED, f"chmod 700 {home.agents}")


def test_a_home_that_others_can_write(home: Home) -> None:
    home.path.chmod(0o770)
    ails(doctor.permissions(home), FAILED, f"chmod 700 {home.path}")


def test_a_certificate_that_ends(home: Home) -> None:
    member = mesh.check_member(*_certificates(home))
    ails(doctor.certificates(home, member.not_after_ms - DAY), WARNING, "enrol again")
    ails(doctor.certificates(home, member.not_after_ms + DAY), FAILED, "expired")


def _certificates(home: Home) -> tuple[bytes, bytes]:
    from node import identity

    me = identity.load(home)
    return me.ca, me.certificate


def test_a_certificate_of_another_mesh(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    mesh.found(other, "stranger", NOW)
    home.ca_key.unlink()
    shutil.copy(other.ca_certificate, home.ca_certificate)
    ails(doctor.certificates(home, NOW), FAILED, str(home.certificate), "enrol again")


def test_a_certificate_that_is_not_for_the_key(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    mesh.found(other, "stranger", NOW)
    shutil.copy(other.key, home.key)
    found = {check.name: check for check in doctor.examine(home, FREE, lambda: NOW)}
    ails(found["certificates"], FAILED, "another key")


def test_a_damaged_database(home: Home) -> None:
    raw = bytearray(home.database.read_bytes())
    raw[8192:12288] = os.urandom(4096)
    home.database.write_bytes(raw)
    ails(doctor.database(home), FAILED, str(home.database), "restore a backup")
    home.database.write_bytes(b"this is no database at all" * 1000)
    ails(doctor.database(home), FAILED, "can't be read")


def test_a_database_from_a_newer_version(home: Home) -> None:
    with closing(sqlite3.connect(home.database, isolation_level=None)) as connection:
        connection.execute("INSERT INTO migrations VALUES (?, 'later', 0)", (NEWEST + 1,))
    ails(doctor.database(home), FAILED, f"version {NEWEST + 1}", f"up to {NEWEST}")


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


def test_a_port_that_another_program_holds(home: Home, taken: str) -> None:
    ails(doctor.ports(home, FREE | {"CORTEX_API": taken}), FAILED, f"api {taken}", "node.toml")


def test_a_default_port_gives_way(home: Home, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULTS", {"listen": "0.0.0.0:7400", "api": taken})
    ails(doctor.ports(home, FREE | {"CORTEX_API": taken}), WARNING, taken, "next free port")


def test_a_port_that_our_own_node_holds(home: Home, taken: str) -> None:
    with listening(home.socket) as node:
        node.answer("GET", "/v1/status", {"node": {"pid": 4711}})
        check = doctor.ports(home, FREE | {"CORTEX_API": taken})
    assert (check.state, check.detail) == (OK, "the node runs (pid 4711)")


def test_an_address_of_another_machine(home: Home) -> None:
    ails(doctor.ports(home, FREE | {"CORTEX_LISTEN": "192.0.2.1:7400"}), FAILED, "listen 192.0.2.1:7400")
