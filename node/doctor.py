"""Is this machine fit to run the node, and is the node's home whole? Each check says what it found and how to mend it.

`examine` runs every check and never raises: a check that can't be made is a failed one. Nothing is changed; a probe
file is written into the home and removed again. The node may be running meanwhile.

Tests: tests/node/test_doctor.py.
"""

import os
import shutil
import socket
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from node import arguments, clock, config, extension
from node.errors import Problem
from node.paths import MAX_SOCKET_PATH_BYTES, Home

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"

PYTHON_LEAST = (3, 11)
SQLITE_LEAST = (3, 35, 0)  # RETURNING
FREE_LEAST_BYTES = 64 << 20  # a full write-ahead log, its checkpoint, and room to say so
FREE_GOOD_BYTES = 1 << 30  # the store's default limit
FSYNC_SLOW_MS = 100.0  # an acknowledged write waits for one; a worn SD card takes this long
FSYNC_TRIES = 3
CLOCK_AHEAD_MAX_MS = 300_000  # beyond it peers hold this node's writes (crdt/hlc.py)
CLOCK_LEAST_MS = 1_735_689_600_000  # 2025-01-01: before this program existed
CLOCK_MOST_MS = 4_102_444_800_000  # 2100-01-01
CERTIFICATE_SOON_MS = 30 * 86_400_000


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found. `action` says how to mend it and is empty when all is well."""

    name: str
    state: str
    detail: str
    action: str = ""


def document(check: Check) -> dict[str, Any]:
    """The check as JSON."""
    return asdict(check)


def examine(home: Home, environ: Mapping[str, str], now_ms: Callable[[], int] = clock.now_ms) -> list[Check]:
    """Every check, in the order in which a fault would keep the node from working."""
    checks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("python", python),
        ("sqlite", sqlite),
        ("sqlite extensions", extensions),
        ("settings", partial(settings, home, environ)),
        ("embedding", partial(embedding, home, environ)),
        ("home", partial(directory, home)),
        ("disk", partial(disk, home)),
        ("disk sync", partial(disk_sync, home)),
        ("clock", lambda: wall_clock(home, now_ms())),
        ("permissions", partial(permissions, home)),
        ("certificates", lambda: certificates(home, now_ms())),
        ("database", partial(database, home)),
        ("ports", partial(ports, home, environ)),
    )
    return [_guarded(name, check) for name, check in checks]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Problem as problem:
        return Check(name, FAILED, problem.detail, problem.action)
    except Exception as error:
        return Check(name, FAILED, f"could not be checked: {type(error).__name__}: {error}", "report it as a bug")


def python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < PYTHON_LEAST:
        return Check("python", FAILED, version, "install Python 3.11 or newer")
    return Check("python", OK, f"{version}, {sys.executable}")


def sqlite() -> Check:
    """SQLite's version, and full-text search, without which there is no search."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < SQLITE_LEAST:
        least = ".".join(str(part) for part in SQLITE_LEAST)
        return Check("sqlite", FAILED, version, f"use a Python whose SQLite is {least} or newer")
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE probe USING fts5 (text, tokenize='porter unicode61')")
        except sqlite3.OperationalError as error:
            action = "use a Python whose SQLite has FTS5, such as your distribution's python3"
            return Check("sqlite", FAILED, f"{version} without full-text search: {error}", action)
    return Check("sqlite", OK, f"{version} with FTS5")


def extensions() -> Check:
    """Whether sqlite-vec can judge vectors inside SQLite, and by which route it is loaded."""
    route, path = extension.route(), extension.sqlite_vec()
    action = "nothing breaks: without it vectors are judged by numpy, with the same results"
    if route is None:
        return Check("sqlite extensions", WARNING, "can't be loaded by this Python", action)
    if path is None:
        return Check("sqlite extensions", WARNING, f"could be loaded, by {route}; sqlite-vec isn't installed", action)
    extension.register()
    with closing(sqlite3.connect(":memory:")) as connection:
        if not extension.load(connection):
            return Check("sqlite extensions", WARNING, f"{path} can't be loaded, by {route}", action)
        version = extension.version(connection)
    return Check("sqlite extensions", OK, f"sqlite-vec {version}, loaded by {route}")


def settings(home: Home, environ: Mapping[str, str]) -> Check:
    told = [setting for setting in config.effective(home, environ, {}) if setting.source != "default"]
    return Check("settings", OK, f"{len(told)} of {len(config.KEYS)} differ from the defaults" if told else "defaults")


def embedding(home: Home, environ: Mapping[str, str]) -> Check:
    """Whether there is something to search by meaning with, and whether it is whole."""
    kind = config.load(home, environ, {}).embedding
    if kind == "none":
        return Check("embedding", OK, "none: search is by text alone, as set")
    from node.vectors import EncoderMissing, open_encoder

    try:
        encoder = open_encoder(kind, whole=True)
    except EncoderMissing as error:
        action = 'nothing breaks; mend it, or set embedding = "none" in node.toml'
        return Check("embedding", WARNING, f"search is by text alone: {error}", action)
    return Check("embedding", OK, f"{encoder.model}, {encoder.dims} dimensions")


def directory(home: Home) -> Check:
    """Whether the home can hold the node's files and its socket."""
    path = _existing(home.path)
    if len(os.fsencode(home.socket)) > MAX_SOCKET_PATH_BYTES:
        detail = f"{home.socket} is longer than a unix socket's path may be ({MAX_SOCKET_PATH_BYTES} bytes)"
        return Check("home", FAILED, detail, "use a shorter --home")
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        action = "make it writable for the user that the node runs as, or choose another with --home"
        return Check("home", FAILED, f"{path} can't be written", action)
    if not home.founded:
        action = "found a mesh with: cortex-node init; or enrol with: cortex-node join CODE"
        return Check("home", WARNING, f"there is no node in {home.path}", action)
    return Check("home", OK, str(home.path))


def disk(home: Home) -> Check:
    free = shutil.disk_usage(_existing(home.path)).free
    found = f"{free / 1e9:.1f} GB free"
    if free < FREE_LEAST_BYTES:
        return Check("disk", FAILED, found, f"free at least {FREE_LEAST_BYTES >> 20} MB: writes are about to fail")
    if free < FREE_GOOD_BYTES:
        return Check("disk", WARNING, found, "free some space, or lower store_max_mb")
    return Check("disk", OK, found)


def disk_sync(home: Home) -> Check:
    """How long the disk takes to make a page durable, which every acknowledged write waits for."""
    took_ms = []
    with tempfile.TemporaryFile(dir=_existing(home.path)) as probe:
        for _ in range(FSYNC_TRIES):
            started = clock.monotonic()
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
            took_ms.append((clock.monotonic() - started) * 1000)
    typical = sorted(took_ms)[FSYNC_TRIES // 2]
    found = f"{typical:.1f} ms for 4 KiB"
    if typical > FSYNC_SLOW_MS:
        return Check("disk sync", WARNING, found, "every write waits this long; put the home onto a faster disk")
    return Check("disk sync", OK, found)


def wall_clock(home: Home, now_ms: int) -> Check:
    """Whether the clock can be right: neither before this program existed, nor before the home was last written."""
    shown = clock.rfc3339(now_ms)
    action = "set the clock, and let it be kept right: timedatectl set-ntp true"
    if not CLOCK_LEAST_MS <= now_ms <= CLOCK_MOST_MS:
        return Check("clock", FAILED, f"{shown} can't be right", action)
    written = [path.stat().st_mtime_ns // 1_000_000 for path in (home.database, home.certificate) if path.exists()]
    if written and now_ms + CLOCK_AHEAD_MAX_MS < max(written):
        found = f"{shown} is before {clock.rfc3339(max(written))}, when the home was last written"
        return Check("clock", WARNING, found, action)
    return Check("clock", OK, shown)


def permissions(home: Home) -> Check:
    """Nobody but the owner may read the keys, the token and the socket, or change what lies in the home."""
    open_ones = []
    for path in (*home.secrets, *home.agents.glob("*")):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            open_ones.append(f"chmod 600 {path}")
    if home.agents.exists() and stat.S_IMODE(home.agents.stat().st_mode) & 0o077:
        open_ones.append(f"chmod 700 {home.agents}")
    if home.path.exists() and stat.S_IMODE(home.path.stat().st_mode) & 0o022:
        open_ones.append(f"chmod 700 {home.path}")
    if open_ones:
        return Check("permissions", FAILED, f"{len(open_ones)} files are open to other users", "; ".join(open_ones))
    return Check("permissions", OK, "only the owner can read the secrets")


def certificates(home: Home, now_ms: int) -> Check:
    """Whether the node's certificate is for its key, from the mesh's CA, and in date."""
    if not home.founded:
        return Check("certificates", OK, "none yet")
    from node import identity, mesh

    me = identity.load(home)
    again = "enrol again: ask for an invitation, and join with it in a new home"
    try:
        member = mesh.check_member(me.ca, me.certificate, now_ms)
    except mesh.BadCertificate as error:
        return Check("certificates", FAILED, f"{home.certificate}: {error}", again)
    until = f"{member.name}, {member.role}, valid until {clock.rfc3339(member.not_after_ms)[:10]}"
    if member.not_after_ms - now_ms < CERTIFICATE_SOON_MS:
        return Check("certificates", WARNING, until, again)
    return Check("certificates", OK, until)


def database(home: Home) -> Check:
    """Whether the database opens, is of a version that this program knows, and passes SQLite's quick check."""
    if not home.database.exists():
        return Check("database", OK, "none yet")
    from node.migrations import NEWEST

    restore = "stop the node, keep a copy of the file, and restore a backup"
    try:
        with closing(sqlite3.connect(f"{home.database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            faults = [row[0] for row in connection.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
            (version,) = connection.execute("SELECT max(version) FROM migrations").fetchone()
    except sqlite3.Error as error:
        return Check("database", FAILED, f"{home.database} can't be read: {error}", restore)
    if faults:
        return Check("database", FAILED, f"{home.database} is damaged: {'; '.join(faults)}", restore)
    if version > NEWEST:
        found = f"it has version {version}, this program knows versions up to {NEWEST}"
        return Check("database", FAILED, found, "install the newer cortex-node again")
    return Check("database", OK, f"whole, version {version}, {home.database.stat().st_size / 1e6:.1f} MB")


def ports(home: Home, environ: Mapping[str, str]) -> Check:
    """Whether the node can listen where it is told to; a port that our own running node holds is well used.

    A default port that is taken gives way to another when the node starts (node/app.py), one that was chosen does not.
    """
    settings = config.load(home, environ, {})
    wanted = {"listen": settings.listen, "api": settings.api}
    taken = {key: fault for key, address in wanted.items() if (fault := _cannot_listen(address))}
    if not taken:
        return Check("ports", OK, f"{settings.listen} and {settings.api} are free")
    if (pid := _running_pid(home)) is not None:
        return Check("ports", OK, f"the node runs (pid {pid})")
    found = "; ".join(f"{key} {wanted[key]}: {fault}" for key, fault in taken.items())
    action = "stop the program that holds it, or set another address in node.toml"
    if all(wanted[key] == config.DEFAULTS[key] for key in taken):
        return Check("ports", WARNING, found, f"the node will take the next free port; or {action}")
    return Check("ports", FAILED, found, action)


def _cannot_listen(text: str) -> str | None:
    host, port = arguments.split_address(text)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the node itself listens: connections of an earlier run that linger are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _running_pid(home: Home) -> int | None:
    from node.client import Client

    try:
        answer = Client(home.socket, timeout_s=5).call("GET", "/v1/status")
        return int(answer["node"]["pid"])
    except (Problem, LookupError, TypeError, ValueError):
        return None


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists: where it would be made."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
