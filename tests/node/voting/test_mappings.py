"""A table behaves as a dictionary does, and remembers nothing that is not so."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.agents import Agent
from ledger.score import Cast, Key, Tally
from node.voting import mappings
from node.voting.mappings import AGENTS, REPUTATIONS, STOPPED, TALLIES, VOIDED, Mapped
from tests.node.voting.ledgers import a_database

small = st.binary(max_size=2)
numbers = st.integers(0, 3)
casts = st.builds(Cast, small, small, st.booleans(), st.booleans(), numbers, st.integers(-1, 1), st.booleans())
tallies = st.builds(Tally, st.lists(casts, max_size=2).map(tuple), st.lists(st.text(max_size=3), max_size=2).map(tuple))
keys = st.builds(Key, st.text("pq", max_size=1), st.text("fg", max_size=1), small)
LAYOUTS: dict[str, tuple[Any, Any, Any]] = {
    "tallies": (TALLIES, keys, tallies),
    "reputations": (REPUTATIONS, st.tuples(st.text("pq", max_size=1), small), numbers),
    "agents": (AGENTS, small, None),
    "voided": (VOIDED, small, numbers),
    "scores_stopped": (STOPPED, small, numbers),
}


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    database = a_database()
    yield database
    database.close()


def an_agent(draw: st.DrawFn, key: bytes) -> Agent:
    until = draw(st.none() | numbers)
    return Agent(key, draw(small), draw(st.text(max_size=2)), draw(small), draw(st.booleans()), draw(numbers), until)


@pytest.mark.parametrize("table", LAYOUTS)
@given(data=st.data())
def test_a_table_is_a_dictionary(connection: sqlite3.Connection, table: str, data: st.DataObject) -> None:
    connection.execute(f"DELETE FROM {table}")
    layout, some_keys, some_values = LAYOUTS[table]
    mapped, model = Mapped[Any, Any](connection, layout), dict[Any, Any]()
    for _ in range(data.draw(st.integers(0, 8))):
        key = data.draw(some_keys)
        if data.draw(st.booleans()):
            value = an_agent(data.draw, key) if some_values is None else data.draw(some_values)
            mapped[key] = model[key] = value
        elif key in model:
            del mapped[key], model[key]
        else:
            with pytest.raises(KeyError):
                del mapped[key]
        assert mapped.get(key) == model.get(key)
        assert (key in mapped) == (key in model)
    for seen in (mapped, Mapped[Any, Any](connection, layout)):  # also by whoever comes next
        assert dict(seen) == model and len(seen) == len(model)


def test_what_is_remembered_is_bounded(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mappings, "REMEMBERED", 10)
    mapped = Mapped(connection, VOIDED)
    for number in range(100):
        mapped[bytes([number])] = number
        assert mapped.get(bytes([number, 0])) is None
        assert len(mapped._remembered) <= 10
    assert [mapped[bytes([number])] for number in range(100)] == list(range(100))


def test_a_row_is_read_once(connection: sqlite3.Connection) -> None:
    mapped = Mapped(connection, VOIDED)
    mapped[b"a"] = 1
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    assert [mapped[b"a"], mapped.get(b"nobody"), mapped.get(b"nobody")] == [1, None, None]
    connection.set_trace_callback(None)
    assert len(asked) == 1
