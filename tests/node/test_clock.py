"""Time is read in one place, and told to people in one form that is read back as the same millisecond."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import clock

YEAR_9999_MS = 253_402_300_799_999


@given(st.integers(0, YEAR_9999_MS))
def test_every_millisecond_survives_being_written_and_read(ms: int) -> None:
    written = clock.rfc3339(ms)
    assert len(written) == len("2026-05-11T08:30:00.123Z")
    assert written.endswith("Z")
    assert clock.parse_rfc3339(written) == ms


@given(st.integers(0, YEAR_9999_MS), st.integers(0, YEAR_9999_MS))
def test_times_sort_as_their_text_does(one: int, other: int) -> None:
    assert (clock.rfc3339(one) < clock.rfc3339(other)) == (one < other)


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2026-05-11", "2026-05-11T00:00:00.000Z"),
        ("2026-05-11T08:30:00", "2026-05-11T08:30:00.000Z"),
        ("2026-05-11T10:30:00+02:00", "2026-05-11T08:30:00.000Z"),
        ("2026-05-11T08:30:00.1Z", "2026-05-11T08:30:00.100Z"),
        ("2026-05-11t08:30:00z", "2026-05-11T08:30:00.000Z"),
        (" 2026-05-11 08:30:00Z\n", "2026-05-11T08:30:00.000Z"),
        ("2026-05-11T08:30:00.9996Z", "2026-05-11T08:30:01.000Z"),
    ],
)
def test_what_people_write(text: str, same_as: str) -> None:
    assert clock.rfc3339(clock.parse_rfc3339(text)) == same_as


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01", "2026-02-30", "12:30", "2026-05-11T25:00:00Z", "0001-01-01T00:00:00+05:00", "\0"],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        clock.parse_rfc3339(text)


def test_now_is_now_and_intervals_never_run_backwards() -> None:
    before = datetime.now(UTC).timestamp() * 1000
    now = clock.now_ms()
    after = datetime.now(UTC).timestamp() * 1000
    assert before - 1 <= now <= after
    assert clock.monotonic() <= clock.monotonic()
