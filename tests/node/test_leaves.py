"""The leaves are the sums of the hashes that are stored, however they came to be, in a tree as deep as they need."""

import sqlite3
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import leaves
from node.migrations import migrate
from sync import merkle

HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=30, unique=True)


def a_project(bits: int = merkle.BITS[0]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, 0)
    connection.execute("INSERT INTO projects (id, name, bits) VALUES (1, 'p', ?)", (bits,))
    return connection


def store(connection: sqlite3.Connection, hashes: list[bytes]) -> None:
    """Rows for `rebuild` to read, as the store writes them."""
    rows = [(number, digest) for number, digest in enumerate(hashes, 1 + count(connection, "ops"))]
    connection.executemany(
        "INSERT INTO ops (project, author, seq, hash, subject, timestamp, raw) VALUES (1, 1, ?, ?, '', 0, x'')", rows
    )
    leaves.add(connection, 1, hashes)


def count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def kept(connection: sqlite3.Connection) -> tuple[int, merkle.Leaf, dict[int, merkle.Leaf]]:
    bits, total, ops = connection.execute("SELECT bits, sum, ops FROM projects").fetchone()
    tree = {
        leaf: (merkle.from_signed(held), number)
        for leaf, held, number in connection.execute("SELECT leaf, sum, ops FROM leaves WHERE project = 1")
    }
    return bits, (merkle.from_signed(total), ops), tree


def hashes(number: int, start: int = 0) -> list[bytes]:
    return [blake2b(n.to_bytes(4, "big"), digest_size=32).digest() for n in range(start, start + number)]


@given(st.lists(HASHES, max_size=4), st.sampled_from(merkle.BITS))
def test_adding_batch_by_batch_is_adding_all_at_once(batches: list[list[bytes]], bits: int) -> None:
    connection = a_project(bits)
    everything = list(dict.fromkeys(digest for batch in batches for digest in batch))
    left = list(everything)
    for batch in batches:
        new = [digest for digest in dict.fromkeys(batch) if digest in left]
        left = [digest for digest in left if digest not in new]
        store(connection, new)
    depth, total, tree = kept(connection)
    assert depth == bits
    assert tree == merkle.leaves(everything, bits)
    assert total == merkle.leaves(everything, 0).get(0, merkle.EMPTY)
    before = kept(connection)
    leaves.rebuild(connection, 1, bits)
    assert kept(connection) == before


def test_sums_wrap_around_at_64_bits() -> None:
    connection = a_project()
    highest = [bytes(8) + b"\xff" * 8 + bytes([n]) * 16 for n in range(5)]
    store(connection, highest)
    assert kept(connection)[1] == ((5 * (2**64 - 1)) % 2**64, 5)


@pytest.mark.parametrize("step", [100, 3_000])
def test_a_project_that_grows_gets_a_deeper_tree_and_keeps_its_root(step: int) -> None:
    connection = a_project()
    limit = merkle.OPS_PER_LEAF << merkle.BITS[0]
    everything = hashes(limit + 1)
    for start in range(0, limit, step):
        store(connection, everything[start : min(start + step, limit)])
    assert kept(connection)[0] == merkle.BITS[0], "at the limit it is as it was"
    store(connection, everything[limit:])
    depth, total, tree = kept(connection)
    assert depth == merkle.BITS[1]
    assert tree == merkle.leaves(everything, depth)
    assert total == merkle.leaves(everything, 0)[0]


def test_other_projects_are_not_touched() -> None:
    connection = a_project()
    connection.execute("INSERT INTO projects (id, name, bits) VALUES (2, 'q', 8)")
    leaves.add(connection, 2, hashes(10))
    store(connection, hashes(merkle.OPS_PER_LEAF * 256 + 1, start=10))
    assert connection.execute("SELECT bits, ops FROM projects WHERE id = 2").fetchone() == (8, 10)
    assert connection.execute("SELECT sum(ops) FROM leaves WHERE project = 2").fetchone() == (10,)
