"""SQLite's extensions: whether this Python can load them, by which route, and sqlite-vec itself.

Many builds of Python leave `enable_load_extension` out. Where `_sqlite3` is linked with a shared libsqlite3, the C
function sqlite3_auto_extension of that same library is in reach through ctypes: symbols are looked up through the
module's own links. It works for connections that are opened afterwards, the other route for one connection at a time;
`register` once before the first connection and `load` for each serve both.

sqlite-vec is found by its path. Importing its package would import numpy, and all that is needed of it is one file.
Tests: tests/node/test_extension.py.
"""

import ctypes
import importlib.util
import sqlite3
from pathlib import Path
from typing import Final, Literal

Route = Literal["enable_load_extension", "sqlite3_auto_extension"]

PACKAGE: Final = "sqlite_vec"
LIBRARY: Final = "vec0"
ENTRY_POINT: Final = "sqlite3_vec_init"
SUFFIXES: Final = (".so", ".dylib", ".dll")


def route() -> Route | None:
    """How this Python can load an extension; None when it can't."""
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return "enable_load_extension"
    return "sqlite3_auto_extension" if _library() is not None else None


def sqlite_vec() -> Path | None:
    """The file of the installed sqlite-vec, None when there is none."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    files = (Path(spec.origin).with_name(LIBRARY + suffix) for suffix in SUFFIXES)
    return next((file for file in files if file.exists()), None)


def register() -> None:
    """Have sqlite-vec in every connection that is opened from now on, where that is the route. Idempotent."""
    path = sqlite_vec()
    if path is None or route() != "sqlite3_auto_extension":
        return
    library = _library()
    assert library is not None, "the route exists because of it"
    library.sqlite3_auto_extension(ctypes.cast(getattr(ctypes.CDLL(str(path)), ENTRY_POINT), ctypes.c_void_p))


def load(connection: sqlite3.Connection) -> bool:
    """Whether `connection` has sqlite-vec, which is loaded into it if need be."""
    if version(connection) is not None:
        return True
    path = sqlite_vec()
    if path is None or route() != "enable_load_extension":
        return False
    try:
        connection.enable_load_extension(True)
        connection.load_extension(str(path))
    except sqlite3.OperationalError:  # made for another machine or another libc: the answer is no
        return False
    finally:
        connection.enable_load_extension(False)
    return version(connection) is not None


def version(connection: sqlite3.Connection) -> str | None:
    """The version of sqlite-vec in `connection`, None when it isn't loaded."""
    try:
        return str(connection.execute("SELECT vec_version()").fetchone()[0])
    except sqlite3.OperationalError:
        return None


def _library() -> ctypes.CDLL | None:
    """The libsqlite3 that Python's sqlite3 uses, None when it is not a shared one."""
    import _sqlite3

    try:
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_libversion.restype = ctypes.c_char_p
        same = library.sqlite3_libversion().decode() == sqlite3.sqlite_version
        return library if same and hasattr(library, "sqlite3_auto_extension") else None
    except (OSError, AttributeError):
        return None
