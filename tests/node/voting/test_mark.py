"""The mark remembers what was signed, and a damaged one is never taken for none."""

from pathlib import Path

import pytest

from node.errors import Problem
from node.voting.mark import MARK_BYTES, Mark, Signed


def test_it_remembers_the_last_that_was_written(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "ledger.mark")
    assert mark.read() is None
    for size in (3, 1 << 40, 5):
        mark.write(Signed(2, size, bytes([size % 251]) * 32))
        assert Mark(tmp_path / "ledger.mark").read() == Signed(2, size, bytes([size % 251]) * 32)
    assert (tmp_path / "ledger.mark").stat().st_mode & 0o777 == 0o600


def test_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.mark"
    Mark(path).write(Signed(1, 7, bytes(32)))
    good = path.read_bytes()
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(MARK_BYTES)]
    for damaged in (b"", good[:-1], good + b"\0", *flipped):
        path.write_bytes(damaged)
        with pytest.raises(Problem) as caught:
            Mark(path).read()
        assert caught.value.code == "ledger_mark_damaged" and caught.value.action


def test_a_mark_that_can_not_be_kept_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="can't be written"):
        Mark(tmp_path / "nowhere" / "ledger.mark").write(Signed(1, 1, bytes(32)))
    (tmp_path / "folder").mkdir()
    with pytest.raises(Problem, match="can't be read"):
        Mark(tmp_path / "folder").read()
