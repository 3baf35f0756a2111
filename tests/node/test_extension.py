"""Which way sqlite-vec comes into SQLite, in this Python and in others."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from node import extension


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        yield opened


def test_sqlite_vec_is_there_and_says_what_it_is() -> None:
    if extension.route() is None or extension.sqlite_vec() is None:
        pytest.skip("this Python can't load it")
    program = (
        "import sqlite3, sys; from node import extension; extension.register();"
        "connection = sqlite3.connect(':memory:');"
        "print(extension.load(connection), extension.version(connection), 'numpy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "True" and said[1].startswith("v") and said[2] == "False", "and costs no numpy"


def test_loading_twice_is_loading_once(connection: sqlite3.Connection) -> None:
    assert extension.load(connection) is extension.load(connection)
    assert (extension.version(connection) is not None) is extension.load(connection)


def test_extensions_are_closed_again_after_loading(connection: sqlite3.Connection) -> None:
    extension.load(connection)
    with pytest.raises(sqlite3.OperationalError, match=r"not authorized|no such function"):
        connection.execute("SELECT load_extension(?)", (str(extension.sqlite_vec()),))


def test_nothing_is_installed(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "PACKAGE", "no_such_package")
    assert extension.sqlite_vec() is None
    extension.register()
    assert not extension.load(connection)
    assert extension.version(connection) is None


def test_a_file_that_does_not_load(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vec0.so").write_bytes(b"made for another machine")
    monkeypatch.setattr(extension, "sqlite_vec", lambda: tmp_path / "vec0.so")
    assert not extension.load(connection)


class Connection:
    """As builds without loadable extensions have it."""


def test_a_python_that_leaves_extensions_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "Connection", Connection)
    assert extension.route() in ("sqlite3_auto_extension", None)

    def no_library(_: str) -> Any:
        raise OSError("statically linked")

    monkeypatch.setattr(extension.ctypes, "CDLL", no_library)
    assert extension.route() is None


def test_another_libsqlite3_than_pythons_is_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "Connection", Connection)
    monkeypatch.setattr(sqlite3, "sqlite_version", "1.2.3")
    assert extension.route() is None
