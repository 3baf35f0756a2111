"""One node, however many pipes find it missing; and a reason when there is to be none."""

import os
from pathlib import Path

import pytest

from mcp_edge import starting
from mcp_edge.starting import GRACE_TRIES, LOCK_NAME, LOG_NAME, MAX_LOG_BYTES, MAX_TRIES, Starting, Unreachable


class Started(Starting):
    """Counts what it starts."""

    def __init__(self, home: Path, program: list[str] | None = None) -> None:
        super().__init__(str(home), program or ["/bin/sleep", "60"])
        self.spawned = 0

    def _spawn(self) -> int:
        self.spawned += 1
        return super()._spawn()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that was started is waited for: here tries follow each other at once."""
    monkeypatch.setattr(os, "WNOHANG", 0)


def try_until_it_ends(attempt: Starting) -> None:
    for _ in range(MAX_TRIES + 1):
        attempt.tried()


def test_of_several_one_starts_the_node(tmp_path: Path) -> None:
    many = [Started(tmp_path, ["/bin/true"]) for _ in range(8)]
    for one in many:
        one.tried()
    assert sum(one.spawned for one in many) == 1


def test_the_next_starts_it_when_the_first_has_died(tmp_path: Path) -> None:
    first, second = Started(tmp_path, ["/bin/true"]), Started(tmp_path, ["/bin/true"])
    first.tried()
    second.tried()
    assert first._child is not None
    os.waitpid(first._child, 0)  # until its exec it holds the lock too
    first.done()  # closes the lock, as the kernel does for a process that died
    second.tried()
    assert second.spawned == 1


def test_a_node_that_went_away_has_time_to_come_back(tmp_path: Path) -> None:
    one = Started(tmp_path, ["/bin/true"])
    one.lost()
    for _ in range(GRACE_TRIES):
        one.tried()
    assert one.spawned == 0
    one.tried()
    assert one.spawned == 1


def test_what_the_node_wrote_is_the_reason(tmp_path: Path, patience: None) -> None:
    (tmp_path / LOG_NAME).write_text("an earlier line\n")
    one = Started(tmp_path, ["/bin/sh", "-c", "echo starting; echo mcp.autostart is off >&2; exit 1"])
    with pytest.raises(Unreachable) as told:
        try_until_it_ends(one)
    assert str(told.value) == "starting\nmcp.autostart is off"


def test_a_node_that_finds_its_home_taken_was_not_needed(tmp_path: Path, patience: None) -> None:
    one = Started(tmp_path, ["/bin/sh", "-c", "echo a node runs on this home already >&2; exit 1"])
    with pytest.raises(Unreachable, match="did not answer within"):
        try_until_it_ends(one)
    assert 1 < one.spawned <= MAX_TRIES // GRACE_TRIES + 1


def test_a_log_that_has_grown_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / LOG_NAME).write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    Started(tmp_path, ["/bin/true"]).tried()
    assert (tmp_path / LOG_NAME).stat().st_size == 0


def test_a_home_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    one = Started(home, ["/bin/true"])
    one.tried()
    assert home.stat().st_mode & 0o77 == 0
    assert (home / LOCK_NAME).stat().st_mode & 0o77 == 0


def test_the_words_of_a_node_that_finds_its_home_taken_are_known() -> None:
    import inspect

    from node import app

    assert starting.ALREADY_RUNNING.decode() in inspect.getsource(app.locked)
