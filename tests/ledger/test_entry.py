"""Entries: bytes that never change, and what is refused."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import entry
from ledger.entry import NO_HASH, NO_PROJECT, BadEntry, Entry, Kind

HASH = sha256(b"text").digest()
TAG = entry.project_tag(bytes(32), "p")
VOTE = Entry(Kind.VOTE, True, 7, 1, 1_760_000_000_000, HASH, 5, TAG, HASH)
GENESIS = Entry(Kind.GENESIS, False, 0, 0, 1_760_000_000_000, NO_HASH, 0, NO_PROJECT, HASH)

numbers = st.integers(0, entry.MAX_NUMBER)
hashes = st.binary(min_size=32, max_size=32)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    index = draw(numbers)
    tag = draw(hashes.filter(any))
    before = draw(st.integers(0, max(0, index - 1)))
    kind = draw(st.sampled_from([*Kind, 6, 255]))
    if kind == Kind.VOTE:
        return Entry(kind, draw(st.booleans()), index, draw(numbers), draw(numbers), draw(hashes), before, tag, HASH)
    return Entry(kind, False, index, draw(numbers), draw(numbers), draw(hashes), 0, NO_PROJECT, HASH)


@given(entries())
def test_an_entry_comes_back(value: Entry) -> None:
    raw = entry.encode(value)
    assert len(raw) == entry.ENTRY_BYTES == 146
    assert entry.decode(raw) == value


def test_golden_bytes() -> None:
    """As ledger/FORMAT.md lays them out."""
    raw = entry.encode(VOTE)
    expected = (
        b"cortex-entry/v1\0"
        + bytes([5, 1])
        + (7).to_bytes(8, "big")
        + (1).to_bytes(8, "big")
        + (1_760_000_000_000).to_bytes(8, "big")
        + HASH
        + (5).to_bytes(8, "big")
        + TAG
        + HASH
    )
    assert raw == expected
    assert entry.entry_hash(raw) == sha256(b"cortex-chain/v1\0" + raw).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 0},
        {"kind": Kind.GRANT},
        {"project_tag": NO_PROJECT},
        {"project_prev": 7},
        {"project_prev": 8},
        {"index": 1 << 62},
        {"epoch": 1 << 62},
        {"time_ms": 1 << 62},
    ],
)
def test_what_no_hub_writes_is_not_written(change: dict[str, int]) -> None:
    with pytest.raises(BadEntry):
        entry.encode(msgspec.structs.replace(VOTE, **change))


@pytest.mark.parametrize("change", [{"own": True}, {"project_tag": TAG}, {"project_prev": 3}])
def test_a_statement_has_no_project(change: dict[str, object]) -> None:
    with pytest.raises(BadEntry):
        entry.encode(msgspec.structs.replace(GENESIS, index=3, **change))


RAW = entry.encode(VOTE)


@pytest.mark.parametrize("raw", [b"", RAW[:-1], RAW + b"\0", b"X" + RAW[1:], RAW[:17] + b"\2" + RAW[18:]])
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(BadEntry):
        entry.decode(raw)


def test_a_kind_of_a_later_version_is_read() -> None:
    for tag in (NO_PROJECT, TAG):
        later = Entry(6, False, 9, 1, 0, HASH, 0, tag, HASH)
        assert entry.decode(entry.encode(later)) == later


def test_a_tag_needs_the_key() -> None:
    assert entry.project_tag(bytes(32), "p") != entry.project_tag(bytes(31) + b"\1", "p")
    assert entry.project_tag(bytes(32), "p") != entry.project_tag(bytes(32), "q")
    with pytest.raises(ValueError, match="32 bytes"):
        entry.project_tag(b"", "p")
