"""A database that is not the one that ran here last goes on in a new epoch; one that is, does not."""

import shutil
from pathlib import Path

import pytest

from node import repairs, startmark
from tests.node.test_repairs import copied
from tests.node.world import Node, a_record, on_disk


def started(home: Path, machine: str = "one") -> tuple[Node, bool]:
    """What a start does, and whether it found another database."""
    (home / "machine").write_text(machine)
    node = on_disk(home / "n.db")
    connection = node.database._writer
    return node, startmark.check(connection, node.store, home / "start", node.now_ms, home / "machine")


async def test_a_database_that_ran_here_last_goes_on(tmp_path: Path) -> None:
    node, restored = started(tmp_path)
    before = node.store.author
    for clean in (True, False, True):
        assert not restored
        await (node.stop() if clean else closed(node))
        node, restored = started(tmp_path)
        assert node.store.author == before
    node.database.close()


async def closed(node: Node) -> None:
    """Without a last word."""
    node.database.close()


@pytest.mark.parametrize("what", ["an old copy", "another machine", "no mark beside it"])
async def test_any_other_goes_on_in_a_new_epoch_and_uses_no_dot_twice(what: str, tmp_path: Path) -> None:
    node, _ = started(tmp_path)
    await node.append(a_record("before"))
    await node.stop()
    copied(tmp_path / "n.db", tmp_path / "old.db")
    node, _ = started(tmp_path)
    (lost,) = await node.append(a_record("lost"))
    node.database.close()
    machine = "one"
    if what == "an old copy":
        for file in tmp_path.glob("n.db*"):
            file.unlink()
        shutil.copy(tmp_path / "old.db", tmp_path / "n.db")
    elif what == "another machine":
        machine = "two"
    else:
        (tmp_path / "start").unlink()
    node, restored = started(tmp_path, machine)
    assert restored
    assert node.store.author != lost.author
    (op,) = await node.append(a_record("after"))
    assert (op.author, op.seq) == (node.store.author, 1)
    assert [one["cause"] for one in repairs.recent(node.database.direct)] == ["restored_backup"]
    assert [one["code"] for one in repairs.warnings(node.database.direct, node.store.node_id, node.now_ms)] == ["fork"]
    await node.stop()
    node, restored = started(tmp_path, machine)
    assert not restored, "it is told once"
    node.database.close()


def test_a_new_database_is_no_restored_one(tmp_path: Path) -> None:
    (tmp_path / "start").write_text("left behind\n")
    node, restored = started(tmp_path)
    assert not restored
    node.database.close()
