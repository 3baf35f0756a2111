"""`make demo` tells the truth: it ends well here, says so when something is not so, and cleans up after itself."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.demo import Story
from bench.local_nodes import clean_environment, wait_until

DEMO = Path(__file__).parents[2] / "bench" / "demo.py"


def start(place: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(DEMO), *arguments],
        env=clean_environment(TMPDIR=str(place)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_in(place: Path) -> list[int]:
    """Processes that were told to work in `place`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(place) in word for word in process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


def test_two_nodes_cut_off_write_meet_and_agree(tmp_path: Path) -> None:
    demo = start(tmp_path, "--keep")
    said, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, said
    assert "NOT SO" not in said
    checks = [line for line in said.splitlines() if line.startswith("  ok ")]
    assert len(checks) >= 20
    assert f"{len(checks)} checks, all ok" in said
    [place] = tmp_path.iterdir()
    assert (place / "alpha" / "cortex.db").exists()
    assert (place / "beta" / "cortex.db").exists()
    assert processes_in(place) == []


def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stdout
    try:
        for line in demo.stdout:
            if "join" in line:
                break
        wait_until("beta runs", lambda: len(processes_in(tmp_path)) == 2)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(30) == 143
    finally:
        demo.kill()
        demo.stdout.close()
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def test_what_is_not_so_ends_it_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(0.0)
    story.check("the moon is there", True)
    assert story.result() == 0
    story.check("the moon is a cheese", False)
    assert story.result() == 1
    assert "NOT SO" in capsys.readouterr().out
