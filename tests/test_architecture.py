"""The shape of the tree: who may import whom, what a core may touch, what every file must have.

Files are parsed, never imported, so a module that cannot be imported is still judged. A rule is a function from one
parsed file to complaints. Each has, further down, snippets that it must catch and snippets that it must let pass: a
rule that can't fail says nothing. import-linter (pyproject.toml) checks the same directions in the graph of imports.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Package -> the packages of this project that it may import. Arrows point down only.
MAY_IMPORT = {
    "node": {"mcp_edge", "sync", "ledger", "crdt"},
    "mcp_edge": {"ledger", "crdt"},
    "sync": {"ledger", "crdt"},
    "ledger": set[str](),
    "crdt": set[str](),
}
PACKAGES = tuple(MAY_IMPORT)

# Packages whose modules do no I/O, and the modules in them that do.
CORES = ("crdt", "ledger", "sync")
EDGES = ("sync.driver", "sync.discovery")

NOT_IN_A_CORE = frozenset(
    """
    aiofiles aiohttp aiosqlite asyncio concurrent datetime glob http importlib multiprocessing os pathlib psutil random
    requests secrets select selectors shutil signal socket socketserver sqlite3 ssl subprocess tempfile threading time
    urllib uuid uvloop zeroconf zoneinfo
    """.split()
)
CALLS_NOT_IN_A_CORE = frozenset({"open", "print", "input", "breakpoint", "exec", "eval", "__import__"})
# Chance through a library that a core may import otherwise.
NAMES_NOT_IN_A_CORE = frozenset(
    {
        "io.open",
        "io.FileIO",
        "nacl.bindings.crypto_sign_keypair",
        "nacl.bindings.randombytes",
        "nacl.signing.SigningKey.generate",
        "nacl.utils.random",
    }
)

CLOCK = "node.clock"
LOOP_TIME = ("sync.driver", "node.app")  # where a timer is armed, at loop.time() + something
READS_TIME = frozenset(
    [f"time.{name}" for name in ("time", "monotonic", "perf_counter", "clock_gettime")]
    + [f"time.{name}_ns" for name in ("time", "monotonic", "perf_counter", "clock_gettime")]
    + [f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")]
    + ["datetime.date.today"]
)
SLEEPS = frozenset({"time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep"})

# Names that say nothing about what is inside.
SAYS_NOTHING = frozenset(
    """
    base common engine engines handler handlers helper helpers manager managers misc service services util utils
    """.split()
)
MAX_LINES = 600

# Put together here, so that this file passes its own rules.
PACKAGE_HOSTS = tuple(
    f"{name}.{domain}"
    for name, domain in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("piwheels", "org"),
        ("anaconda", "org"),
        ("npmjs", "org"),
        ("crates", "io"),
        ("proxy.golang", "org"),
        ("deb.debian", "org"),
    ]
)
MACHINE_PATH = re.compile(r"(?<![\w.~}/-])/(?:work|root|Users|opt/pypi\S*|opt/wheels)/")


# --- reading the tree ---


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed Python file: dotted name (`crdt` for crdt/__init__.py), path from the root, text, syntax tree."""

    name: str
    path: Path
    source: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def docstring_only(self) -> bool:
        return not self.tree.body or (
            len(self.tree.body) == 1 and ast.get_docstring(self.tree, clean=False) is not None
        )


def parse(path: str | Path, source: str) -> Module:
    path = Path(path)
    parts = path.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, source, ast.parse(source, str(path)))


def modules(*folders: str) -> list[Module]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [parse(path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in paths]


def tracked_texts() -> list[tuple[Path, str]]:
    """Every text file that git tracks or would track; of an unpacked archive without git, all but hidden folders."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        paths = [Path(name) for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        paths = [path for path in paths if not path.parts[0].startswith(".") or path.parts[0] in {".ci", ".gitignore"}]
    texts = []
    for path in paths:
        try:
            texts.append((path, (ROOT / path).read_text(encoding="utf-8")))
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # binary data, a file deleted but not yet committed, a submodule
    return texts


def aliases(tree: ast.Module) -> dict[str, str]:
    """What a name stands for: `import numpy as np` gives np -> numpy, `from time import time` time -> time.time."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                found[name.asname or name.name.partition(".")[0]] = (
                    name.name if name.asname else name.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                found[name.asname or name.name] = f"{node.module}.{name.name}"
    return found


def dotted(node: ast.expr, known: dict[str, str]) -> str | None:
    """The full dotted name that an expression refers to, if it is a plain chain of names."""
    match node:
        case ast.Name():
            return known.get(node.id, node.id)
        case ast.Attribute():
            before = dotted(node.value, known)
            return f"{before}.{node.attr}" if before else None
        case _:
            return None


def references(module: Module) -> Iterator[tuple[int, str]]:
    known = aliases(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute) and (name := dotted(node, known)):
            yield node.lineno, name


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Every import at any depth, also of a literal import_module("..."); `from a import b` gives a.b."""
    known = aliases(module.tree)
    for node in ast.walk(module.tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, name.name) for name in node.names)
            case ast.ImportFrom():
                above = list(module.path.parent.parts)
                above = above[: len(above) - (node.level - 1)] if node.level else []
                start = [*above, node.module] if node.module else above
                yield from ((node.lineno, ".".join([*start, name.name])) for name in node.names)
            case ast.Call(args=[ast.Constant(value=str(target)), *_]) if dotted(node.func, known) in {
                "importlib.import_module",
                "__import__",
            }:
                yield node.lineno, target


def within(name: str, parents: Iterable[str]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def is_core(module: Module) -> bool:
    return within(module.name, CORES) and not within(module.name, EDGES)


# --- rules for one file: complaints, each with its line ---


def import_directions(module: Module) -> Iterator[str]:
    if module.package not in MAY_IMPORT:
        return
    outside = {*PACKAGES, "tests", "bench"} - MAY_IMPORT[module.package] - {module.package}
    for line, name in imports(module):
        if within(name, outside):
            yield f"{line}: {module.package} may not import {name}"


def cores_without_io(module: Module) -> Iterator[str]:
    if not is_core(module):
        return
    for line, name in imports(module):
        if within(name, NOT_IN_A_CORE):
            yield f"{line}: a core may not import {name}"
        if within(name, EDGES):
            yield f"{line}: a core may not know its driver ({name})"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS_NOT_IN_A_CORE:
            yield f"{node.lineno}: a core may not call {node.func.id}()"
    for line, name in references(module):
        if name in NAMES_NOT_IN_A_CORE:
            yield f"{line}: a core may not use {name}"


def time_is_read_in_one_place(module: Module) -> Iterator[str]:
    if module.package not in PACKAGES or module.name == CLOCK:
        return
    for line, name in references(module):
        if name in READS_TIME:
            yield f"{line}: {name}: only {CLOCK} reads the time"
    if module.name in LOOP_TIME:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "time":
            if "loop" in ast.unparse(node.func.value):
                yield f"{node.lineno}: loop.time(): only {' and '.join(LOOP_TIME)}"


def no_sleep(module: Module) -> Iterator[str]:
    if module.package == "tests" and not within(module.name, ["tests.e2e"]):
        for line, name in references(module):
            if name in SLEEPS:
                yield f"{line}: {name}: only tests/e2e may wait; give the core a later `now`, or await the event itself"


def no_silent_handlers(module: Module) -> Iterator[str]:
    known = aliases(module.tree)

    def catches_all(kind: ast.expr | None) -> bool:
        kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
        return any(k is None or dotted(k, known) in {"Exception", "BaseException"} for k in kinds)

    def says_nothing(statement: ast.stmt) -> bool:
        return isinstance(statement, ast.Pass | ast.Continue) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        )

    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and catches_all(node.type) and all(map(says_nothing, node.body)):
            yield f"{node.lineno}: catches everything and says nothing"
        if isinstance(node, ast.Call) and dotted(node.func, known) in {"contextlib.suppress", "suppress"}:
            if any(catches_all(kind) for kind in node.args):
                yield f"{node.lineno}: suppresses everything"


def opens_by_explaining_itself(module: Module) -> Iterator[str]:
    least = 2 if module.package in PACKAGES else 1
    lines = [line for line in (ast.get_docstring(module.tree) or "").splitlines() if line.strip()]
    if len(lines) < least:
        yield f"1: the docstring has {len(lines)} lines; at least {least} say what this file is and what it guarantees"


def not_too_long(module: Module) -> Iterator[str]:
    if (lines := len(module.source.splitlines())) > MAX_LINES:
        yield f"{lines}: {lines} lines; split it at {MAX_LINES}"


def telling_name(module: Module) -> Iterator[str]:
    for part in module.name.split("."):
        if part.strip("_").removeprefix("test_") in SAYS_NOTHING:
            yield f"1: {part!r} does not say what is inside"


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    import_directions,
    cores_without_io,
    time_is_read_in_one_place,
    no_sleep,
    no_silent_handlers,
    opens_by_explaining_itself,
    not_too_long,
    telling_name,
)


# --- rules for the tree ---


def defines_tests(module: Module) -> bool:
    names = [
        node.name
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    targets = [target for node in module.tree.body if isinstance(node, ast.Assign) for target in node.targets]
    names += [target.id for target in targets if isinstance(target, ast.Name)]
    return any(name.startswith(("test", "Test")) for name in names)


def untested(code: Iterable[Module], tests: Iterable[Module]) -> Iterator[str]:
    """A module a/b/c.py has its tests in tests/a/b/test_c.py or tests/a/test_c.py."""
    there = {module.path.as_posix() for module in tests if defines_tests(module)}
    for module in code:
        if module.docstring_only or module.path.stem in {"__init__", "__main__"}:
            continue
        stem = f"test_{module.path.stem.lstrip('_')}.py"
        places = {(Path("tests") / folder / stem).as_posix() for folder in (module.path.parent, module.package)}
        if not places & there:
            yield f"{module.path}: no tests in {' or '.join(sorted(places))}"


def package_folders(code: Iterable[Module]) -> set[str]:
    return {".".join(module.path.parent.parts) for module in code}


def registry_hosts(texts: Iterable[tuple[Path, str]]) -> Iterator[str]:
    for path, text in texts:
        for host in PACKAGE_HOSTS:
            if host in text:
                yield f"{path}: names {host}; where packages come from is the installer's configuration"


def machine_paths(texts: Iterable[tuple[Path, str]]) -> Iterator[str]:
    for path, text in texts:
        for number, line in enumerate(text.splitlines(), 1):
            if found := MACHINE_PATH.search(line):
                yield f"{path}:{number}: {found[0]} is a path of one machine"


# --- the tree keeps the rules ---


def assert_none(found: Iterable[str]) -> None:
    if complaints := list(found):
        pytest.fail("\n".join(complaints), pytrace=False)


def test_there_is_a_tree_to_judge() -> None:
    assert {module.package for module in modules(*PACKAGES)} == set(PACKAGES)
    assert Path("pyproject.toml") in dict(tracked_texts())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps(rule: Callable[[Module], Iterator[str]]) -> None:
    everything = modules(*PACKAGES, "tests", "bench")
    assert_none(f"{module.path}:{found}" for module in everything for found in rule(module))


def test_every_module_has_its_tests() -> None:
    assert_none(untested(modules(*PACKAGES), modules("tests")))


def test_every_package_is_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == package_folders(modules(*PACKAGES))


def test_no_file_names_a_package_registry() -> None:
    assert_none(registry_hosts(tracked_texts()))


def test_no_file_names_a_path_of_one_machine() -> None:
    assert_none(machine_paths(tracked_texts()))


# --- and each rule can fail ---

DOC = '"""What it is.\n\nWhat it guarantees.\n"""\n'

CAUGHT = [
    (import_directions, "crdt/op.py", "import node.store"),
    (import_directions, "crdt/op.py", "from ledger import tlog"),
    (import_directions, "ledger/tlog.py", "from crdt.op import Op"),
    (import_directions, "sync/driver.py", "def f():\n    from node import app"),
    (import_directions, "sync/merkle.py", "import mcp_edge"),
    (import_directions, "mcp_edge/tools.py", "from sync.session import Session"),
    (import_directions, "crdt/text.py", "from ..node import store"),
    (import_directions, "crdt/text.py", "from .. import node"),
    (import_directions, "crdt/op.py", "import importlib\nimportlib.import_module('sync.codec')"),
    (import_directions, "node/app.py", "from tests.sim import world"),
    *((cores_without_io, "crdt/hlc.py", f"import {name}") for name in sorted(NOT_IN_A_CORE)),
    (cores_without_io, "ledger/tlog.py", "from os import path"),
    (cores_without_io, "sync/__init__.py", "import asyncio.events as e"),
    (cores_without_io, "sync/gossip.py", "from sync.driver import connect"),
    (cores_without_io, "sync/gossip.py", "from sync import discovery"),
    (cores_without_io, "sync/gossip.py", "from . import driver"),
    *((cores_without_io, "crdt/op.py", f"{name}('x')") for name in sorted(CALLS_NOT_IN_A_CORE)),
    (cores_without_io, "crdt/op.py", "from nacl.signing import SigningKey\nSigningKey.generate()"),
    (cores_without_io, "crdt/op.py", "import nacl.utils as u\nu.random(8)"),
    (time_is_read_in_one_place, "crdt/hlc.py", "import time\ntime.time()"),
    (time_is_read_in_one_place, "node/store.py", "import time as t\nclock = t.monotonic_ns"),
    (time_is_read_in_one_place, "node/store.py", "from time import perf_counter as now\nnow()"),
    (time_is_read_in_one_place, "node/http.py", "from datetime import UTC, datetime\ndatetime.now(UTC)"),
    (time_is_read_in_one_place, "node/http.py", "import datetime as dt\ndt.datetime.utcnow()"),
    (time_is_read_in_one_place, "node/http.py", "import datetime\ndatetime.date.today()"),
    (time_is_read_in_one_place, "node/http.py", "import asyncio\nasyncio.get_running_loop().time()"),
    (time_is_read_in_one_place, "sync/driver.py", "import time\ntime.monotonic()"),
    (time_is_read_in_one_place, "sync/discovery.py", "self._loop.time()"),
    (no_sleep, "tests/node/test_store.py", "import time\ntime.sleep(1)"),
    (no_sleep, "tests/sync/test_driver.py", "async def test():\n    from asyncio import sleep\n    await sleep(0.1)"),
    (no_sleep, "tests/sim/world.py", "import anyio as a\nwait = a.sleep"),
    (no_silent_handlers, "node/app.py", "try:\n    f()\nexcept:\n    pass"),
    (no_silent_handlers, "node/app.py", "try:\n    f()\nexcept Exception:\n    ..."),
    (
        no_silent_handlers,
        "bench/run.py",
        "for x in y:\n    try:\n        f()\n    except BaseException:\n        continue",
    ),
    (no_silent_handlers, "tests/e2e/test_run.py", "try:\n    f()\nexcept (OSError, Exception) as e:\n    'fine'"),
    (no_silent_handlers, "sync/driver.py", "import contextlib\nwith contextlib.suppress(Exception):\n    f()"),
    (no_silent_handlers, "sync/driver.py", "from contextlib import suppress as s\nwith s(BaseException):\n    f()"),
    (opens_by_explaining_itself, "crdt/op.py", ""),
    (opens_by_explaining_itself, "crdt/op.py", '"""One line."""'),
    (opens_by_explaining_itself, "crdt/op.py", '"""One line.\n\n\n"""'),
    (opens_by_explaining_itself, "node/__init__.py", "x = 1"),
    (opens_by_explaining_itself, "bench/run.py", "x = 1"),
    (not_too_long, "crdt/op.py", DOC + "x = 1\n" * (MAX_LINES - 3)),
    *((telling_name, f"node/{name}.py", DOC) for name in sorted(SAYS_NOTHING)),
    (telling_name, "node/utils/times.py", DOC),
    (telling_name, "crdt/_base.py", DOC),
    (telling_name, "tests/node/test_helpers.py", DOC),
]

PASSED = [
    (import_directions, "node/app.py", "import crdt.op, sync.driver, ledger, mcp_edge.server, node.store"),
    (import_directions, "sync/codec.py", "from crdt.op import Op\nfrom sync import messages\nfrom . import errors"),
    (import_directions, "crdt/op.py", "import nodes_elsewhere, crdt.hlc"),
    (cores_without_io, "sync/driver.py", "import asyncio, aiohttp\nprint(open('x'))"),
    (cores_without_io, "sync/discovery.py", "import zeroconf"),
    (cores_without_io, "node/store.py", "import os, sqlite3"),
    (cores_without_io, "crdt/op.py", "import hashlib, nacl.signing, struct\nself.open('x')\nopened = timer"),
    (time_is_read_in_one_place, "node/clock.py", "import time\ntime.time()"),
    (time_is_read_in_one_place, "node/app.py", "loop.time()"),
    (time_is_read_in_one_place, "node/http.py", "from datetime import datetime\ndatetime.fromisoformat(x).time()"),
    (time_is_read_in_one_place, "tests/sim/run.py", "import time\ntime.perf_counter()"),
    (no_sleep, "tests/e2e/test_two_nodes.py", "import time\ntime.sleep(1)"),
    (no_sleep, "tests/sim/test_world.py", "world.sleep(3)  # virtual"),
    (no_silent_handlers, "node/app.py", "try:\n    f()\nexcept FileNotFoundError:\n    pass"),
    (no_silent_handlers, "node/app.py", "try:\n    f()\nexcept Exception as e:\n    log.error(e)"),
    (no_silent_handlers, "node/app.py", "from contextlib import suppress\nwith suppress(OSError):\n    f()"),
    (opens_by_explaining_itself, "crdt/op.py", DOC),
    (opens_by_explaining_itself, "tests/crdt/test_op.py", '"""One line."""'),
    (not_too_long, "crdt/op.py", DOC + "x = 1\n" * (MAX_LINES - 4)),
    (telling_name, "node/database.py", DOC),
]


@pytest.mark.parametrize(("rule", "path", "source"), CAUGHT, ids=lambda value: getattr(value, "__name__", None))
def test_a_breach_is_caught(rule: Callable[[Module], Iterator[str]], path: str, source: str) -> None:
    assert list(rule(parse(path, source)))


@pytest.mark.parametrize(("rule", "path", "source"), PASSED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_allowed_passes(rule: Callable[[Module], Iterator[str]], path: str, source: str) -> None:
    assert not list(rule(parse(path, source)))


def test_each_rule_is_shown_to_fail_and_to_pass() -> None:
    assert {rule for rule, _, _ in CAUGHT} == {rule for rule, _, _ in PASSED} == set(RULES)


TEST = "def test_it():\n    assert f()"


@pytest.mark.parametrize(
    ("module", "tests"),
    [
        ("crdt/op.py", {}),
        ("crdt/op.py", {"tests/crdt/test_hlc.py": TEST}),
        ("crdt/op.py", {"tests/sync/test_op.py": TEST}),
        ("crdt/op.py", {"tests/crdt/test_op.py": "import crdt.op"}),
        ("node/embedding/table.py", {"tests/node/search/test_table.py": TEST}),
    ],
)
def test_a_module_without_tests_is_named(module: str, tests: dict[str, str]) -> None:
    assert list(untested([parse(module, DOC + "x = 1")], [parse(*item) for item in tests.items()]))


@pytest.mark.parametrize(
    ("module", "source", "tests"),
    [
        ("crdt/op.py", DOC + "x = 1", {"tests/crdt/test_op.py": TEST}),
        ("crdt/_op.py", DOC + "x = 1", {"tests/crdt/test_op.py": "TestOp = Machine.TestCase"}),
        ("crdt/op.py", DOC, {}),
        ("crdt/__init__.py", DOC + "x = 1", {}),
        ("node/embedding/table.py", DOC + "x = 1", {"tests/node/embedding/test_table.py": TEST}),
        ("node/embedding/table.py", DOC + "x = 1", {"tests/node/test_table.py": TEST}),
    ],
)
def test_a_module_with_tests_is_not(module: str, source: str, tests: dict[str, str]) -> None:
    assert not list(untested([parse(module, source)], [parse(*item) for item in tests.items()]))


def test_a_folder_of_code_counts_as_a_package() -> None:
    assert package_folders([parse("node/x.py", ""), parse("node/far/y.py", "")]) == {"node", "node.far"}


@pytest.mark.parametrize("host", PACKAGE_HOSTS)
def test_a_registry_host_is_caught(host: str) -> None:
    assert list(registry_hosts([(Path("README.md"), f"see https://{host}/simple")]))


@pytest.mark.parametrize("folder", ["work", "root", "Users", "opt/wheels"])
def test_a_machine_path_is_caught(folder: str) -> None:
    for text in (f"cd /{folder}/main", f'Path("/{folder}/x")', f"file:///{folder}/x".replace("//", "", 1)):
        assert list(machine_paths([(Path("README.md"), text)])), text


@pytest.mark.parametrize(
    "text", ["https://example.org/work/x", "$HOME/work/", "~/work/x", "ledger/root/", "/var/lib/x/"]
)
def test_other_paths_are_not(text: str) -> None:
    assert not list(machine_paths([(Path("README.md"), text)]))
