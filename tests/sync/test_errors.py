"""Every end of a session has a reason that fits a close frame."""

import pytest

from sync.errors import MAX_CLOSE_BYTES, Mismatch, ProtocolError, Reason, Refused, Stalled, SyncError


@pytest.mark.parametrize("kind", [ProtocolError, Mismatch, Refused])
def test_an_error_carries_its_reason_and_says_what_happened(kind: type[SyncError]) -> None:
    error = kind(Reason.WINDOW, "too many")
    assert isinstance(error, SyncError)
    assert (error.reason, error.detail, str(error)) == (Reason.WINDOW, "too many", "window: too many")


def test_silence_has_one_reason() -> None:
    assert Stalled("no word").reason is Reason.STALLED


@pytest.mark.parametrize("detail", ["x" * 500, "ü" * 500, ""])
def test_the_close_frame_gets_what_fits(detail: str) -> None:
    text = ProtocolError(Reason.MALFORMED, detail).close_text
    assert text.startswith("malformed: ")
    assert len(text.encode()) <= MAX_CLOSE_BYTES
    assert str(ProtocolError(Reason.MALFORMED, detail)).startswith(text)


def test_reasons_are_words_for_programs() -> None:
    assert all(reason.value.replace("_", "").isalpha() and reason.value.islower() for reason in Reason)
