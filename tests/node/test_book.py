"""Peers' addresses and invitations survive a restart; an invitation is used once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node import book as books
from node.book import Address, Book
from node.database import Database
from node.errors import Problem
from node.migrations import migrate

NOW_MS = 1_800_000_000_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "cortex.db")
    opened.start(lambda connection: migrate(connection, NOW_MS))
    yield opened
    opened.close()


async def test_addresses_are_remembered_and_forgotten(database: Database) -> None:
    book = Book(database)
    await book.add("10.0.0.1:7400")
    await book.met("10.0.0.2:7400", "peer-id", NOW_MS)
    assert Book(database).addresses() == [
        Address("10.0.0.1:7400", None, True, None),
        Address("10.0.0.2:7400", "peer-id", False, NOW_MS),
    ]
    assert await book.remove("10.0.0.1:7400")
    assert not await book.remove("10.0.0.1:7400")
    assert [known.address for known in book.addresses()] == ["10.0.0.2:7400"]


async def test_an_address_that_the_user_gave_stays_the_users_when_it_is_reached(database: Database) -> None:
    book = Book(database)
    await book.add("10.0.0.1:7400")
    await book.met("10.0.0.1:7400", "peer-id", NOW_MS)
    assert book.addresses() == [Address("10.0.0.1:7400", "peer-id", True, NOW_MS)]


async def test_the_number_of_addresses_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "MAX_PEERS", 2)
    book = Book(database)
    await book.add("10.0.0.1:7400")
    await book.add("10.0.0.2:7400")
    with pytest.raises(Problem, match="2 addresses"):
        await book.add("10.0.0.3:7400")


async def test_an_invitation_is_used_by_one_node_only(database: Database) -> None:
    book = Book(database)
    await book.put(b"secret", "{grants}", NOW_MS + 1000)
    assert await book.take(b"secret", NOW_MS, "first") == "{grants}"
    assert await book.take(b"secret", NOW_MS + 5000, "first") == "{grants}", "its answer may have been lost"
    with pytest.raises(Problem) as refused:
        await book.take(b"secret", NOW_MS, "second")
    assert refused.value.code == "invitation_used"


async def test_an_invitation_that_is_unknown_or_expired_is_refused(database: Database) -> None:
    book = Book(database)
    await book.put(b"secret", "{grants}", NOW_MS + 1000)
    for secret, now_ms, code in ((b"other", NOW_MS, "unknown"), (b"secret", NOW_MS + 1000, "expired")):
        with pytest.raises(Problem) as refused:
            await book.take(secret, now_ms, "node")
        assert refused.value.code == f"invitation_{code}"
