"""Two real nodes, and damage planted in the database of one: it is found, given back by the other, and told."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.local_nodes import LocalNode, agree, wait_until
from node.errors import Problem
from tests.e2e.pairs import Pair, assert_same, ops_on_disk

Damage = Callable[[sqlite3.Connection, Any], object]
FACTS = 60
REPAIRED_S = 60.0
"""A round that finds nothing leaves half a minute until the next; the audit looks twice a minute."""


def delete(connection: sqlite3.Connection, op: Any) -> None:
    connection.execute("DELETE FROM ops WHERE id = ?", (op,))


def delete_several(connection: sqlite3.Connection, op: Any) -> None:
    connection.execute("DELETE FROM ops WHERE id BETWEEN ? AND ? + 9", (op, op))


def change_a_sum(connection: sqlite3.Connection, op: Any) -> None:
    connection.execute(
        "UPDATE leaves SET sum = sum + 1 WHERE (project, leaf) IN (SELECT project, leaf FROM leaves LIMIT 1)"
    )


def rot(connection: sqlite3.Connection, op: Any) -> None:
    (raw,) = connection.execute("SELECT raw FROM ops WHERE id = ?", (op,)).fetchone()
    middle = len(raw) // 2
    flipped = raw[:middle] + bytes((raw[middle] ^ 1,)) + raw[middle + 1 :]
    connection.execute("UPDATE ops SET raw = ? WHERE id = ?", (flipped, op))


@pytest.mark.parametrize(
    ("damage", "cause", "ops"),
    [(delete, "lost_row", 1), (delete_several, "lost_row", 10), (change_a_sum, "drifted_sum", 0), (rot, "bit_rot", 1)],
    ids=["a row deleted", "ten rows deleted", "a sum changed", "a bit flipped"],
)
def test_damage_on_disk_is_repaired_by_the_peer_and_told(pair: Pair, damage: Damage, cause: str, ops: int) -> None:
    """While the program was stopped: it finds out by itself, or when somebody reads what rotted."""
    beta = pair.beta
    beta.store(*(f"{cause} {number} of {ops}" for number in range(FACTS)))
    pair.meet()
    before = ops_on_disk(beta.home.database)
    repairs = len(beta.status()["repairs"])
    assert beta.stop() == 0
    victim = hurt(beta, damage)
    beta.start()
    if damage is rot:
        with pytest.raises(Problem):
            beta.history(victim)
    wait_until("the repair is told", lambda: len(beta.status()["repairs"]) > repairs, REPAIRED_S)
    wait_until("both agree", lambda: agree(*pair.both), REPAIRED_S)
    newest = beta.status()["repairs"][0]
    assert (newest["cause"], newest["ops"]) == (cause, ops)
    if ops:
        assert newest["peer"] == pair.alpha.status()["node"]["id"]
    # counted since the program started
    assert beta.metric(f'cortex_merkle_repairs_total{{cause="{cause}"}}') == (ops or 1)
    assert ops_on_disk(beta.home.database) == before
    assert_same(pair)
    assert not [warning for warning in beta.status()["warnings"] if warning["code"] in ("damage", "fork", "twins")]


def hurt(node: LocalNode, damage: Damage) -> str:
    """Plant damage; the fact whose op was hit."""
    with closing(sqlite3.connect(node.home.database)) as connection, connection:
        op, subject = connection.execute(
            "SELECT o.id, o.subject FROM ops o JOIN facts f ON f.name = o.subject AND f.project = o.project"
            " ORDER BY o.id DESC LIMIT 1 OFFSET 20"
        ).fetchone()
        damage(connection, op)
    return str(subject)


def test_a_node_restored_from_a_copy_of_its_database_loses_nothing(pair: Pair, tmp_path: Path) -> None:
    beta = pair.beta
    beta.store("before the backup")
    pair.meet()
    beta.stop()
    shutil.copy(beta.home.database, tmp_path / "backup.db")
    beta.start()
    lost = {fact["id"] for fact in beta.store(*(f"after the backup {number}" for number in range(20)))}
    wait_until("alpha has them", lambda: agree(*pair.both))
    beta.kill()
    for file in beta.home.path.glob("cortex.db*"):
        file.unlink()
    shutil.copy(tmp_path / "backup.db", beta.home.database)
    pair.line.cut()
    beta.start()
    mine = {fact["id"] for fact in beta.store(*(f"after the restore {number}" for number in range(20)))}
    pair.meet(REPAIRED_S)
    mine |= {beta.store("goes on")[0]["id"]}
    wait_until("both agree", lambda: agree(*pair.both))
    assert_same(pair)
    contents = {fact["content"] for fact in pair.alpha.facts().values()}
    assert {f"after the {what} {number}" for what in ("backup", "restore") for number in range(20)} <= contents
    assert lost | mine <= set(pair.alpha.facts())
    assert {repair["cause"] for repair in beta.status()["repairs"]} >= {"restored_backup"}
    codes = [warning["code"] for warning in beta.status()["warnings"]]
    assert "fork" in codes or not lost & mine
