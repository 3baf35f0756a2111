"""The program starts and works on Pythons that lack something: SQLite extensions, numpy, uvloop.

Many builds, every pyenv build among them, leave `enable_load_extension` out of sqlite3. One such interpreter of this
version is looked for on this machine; its packages are those of the environment that the tests run in. What an
interpreter can't be found without is taken away by a module that refuses to be imported.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.local_nodes import LocalNode, clean_environment, found

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from node.cli import main; sys.exit(main())"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LACKS_EXTENSIONS = (
    "import sqlite3, sys; "
    f"sys.exit(sys.version_info[:2] != {sys.version_info[:2]} or hasattr(sqlite3.Connection, 'enable_load_extension'))"
)
OPTIONAL = ("numpy", "uvloop", "sqlite_vec", "rich", "segno", "zeroconf")
"""Libraries that a node can do without: what they bring is slower then, or less pretty, or not there."""


def interpreters() -> Iterator[Path]:
    """Every Python of this version that might be a build without extensions."""
    yield from sorted(Path.home().glob(f".pyenv/versions/{VERSION}.*/bin/python"))
    yield from sorted(Path("/opt").glob(f"*/bin/python{VERSION}"))
    yield from (Path(f"/usr/local/bin/python{VERSION}"), Path(f"/usr/bin/python{VERSION}"))


def without_extensions() -> Path | None:
    for python in interpreters():
        if python.exists() and subprocess.run([python, "-c", LACKS_EXTENSIONS], check=False).returncode == 0:
            return python
    return None


def use(node: LocalNode) -> None:
    """A user's first minutes."""
    with node.start():
        fact_id = node.tell("store", "The torque of the M8 bolts is 25 Nm", "--tag", "torque")["id"]
        hits = node.tell("search", "bolts torque")["results"]
        assert [hit["fact"]["id"] for hit in hits] == [fact_id]
        assert node.run("update", fact_id, "--append", "Checked in May.").returncode == 0
        assert node.run("status").returncode == 0
        assert node.stop() == 0
    assert "Traceback" not in node.read_log()


def test_a_python_without_sqlite_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = without_extensions()
    if python is None:
        pytest.skip(f"NOT TESTED: this machine has no Python {VERSION} without enable_load_extension")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{sysconfig.get_path('purelib')}")
    node = found(tmp_path / "n", "n", (str(python), "-c", MAIN))
    use(node)
    checks = {check["name"]: check for check in node.tell("doctor")["checks"]}
    assert checks["sqlite extensions"]["state"] == "ok", "there is another way to load them"
    assert "sqlite3_auto_extension" in checks["sqlite extensions"]["detail"]


def test_a_python_without_what_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = found(tmp_path / "n", "n")
    bare = tmp_path / "bare"
    bare.mkdir()
    for library in OPTIONAL:
        (bare / f"{library}.py").write_text(f"raise ImportError('{library} is not here')\n")
    proof = subprocess.run(
        [sys.executable, "-c", "import numpy"], env=clean_environment(PYTHONPATH=str(bare)), check=False,
        capture_output=True,
    )  # fmt: skip
    assert proof.returncode == 1
    node.environment["PYTHONPATH"] = f"{bare}:{ROOT}"
    use(node)
