"""Foreign updates: what is let in can neither harm the reader nor touch what others wrote, however it was made."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from crdt.yjs import CLIENT_BITS, MAX_UNITS, NO_CHANGE, is_text_edit

ME, OTHER, ROOT = (1 << CLIENT_BITS) - 5, 9, "body"
_OTHERS = Doc(client_id=OTHER)
_OTHERS.get(ROOT, type=Text).insert(0, "what another 😀 wrote")
OTHERS_UPDATE = _OTHERS.get_update()


def number(value: int) -> bytes:
    """LEB128."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])


def run(text: str = "a", info: int = 4, places: bytes = b"", root: str = ROOT) -> bytes:
    where = b"\x01" + number(len(root)) + root.encode() if info & 0xC0 == 0 else places
    return bytes([info]) + where + number(len(text.encode())) + text.encode()


def update(*runs: bytes, client: int = ME, clock: int = 0, deletions: bytes = b"\0") -> bytes:
    return b"\x01" + number(len(runs)) + number(client) + number(clock) + b"".join(runs) + deletions


WHOLE = update(
    run("words"), run("é😀", 0xC4, number(OTHER) + b"\x02" + number(OTHER) + b"\x03"), deletions=b"\x01\x09\x01\x02\x03"
)


def read(*updates: bytes) -> str:
    document: Doc[Text] = Doc()
    text = document.get(ROOT, type=Text)
    for part in updates:
        document.apply_update(part)
    text.insert(0, "<")
    return str(text)


def taken_from(root_type: type[Text] | type[Map] | type[Array]) -> bytes:
    """A true update of a document that holds more than text."""
    document: Doc[Text] = Doc(client_id=ME)
    document.get(ROOT, type=Text).insert(0, "text")
    match document.get("root", type=root_type) if root_type is not Text else document.get(ROOT, type=Text):
        case Map() as held:
            held["key"] = 1
        case Array() as held:
            held.append(Text("nested"))
        case Text() as held:
            held.insert(0, "bold", {"bold": True})
    return document.get_update()


def test_an_edit_is_let_in() -> None:
    assert is_text_edit(WHOLE, ME, ROOT)
    assert is_text_edit(NO_CHANGE, ME, ROOT)
    assert read(WHOLE) == read(WHOLE, WHOLE)


@pytest.mark.parametrize(
    "foreign",
    [
        update(run(), client=OTHER),
        update(run(), clock=1),
        update(run(), client=OTHER, clock=5),
        b"\x02" + update(run())[1:-1] + update(run(), client=OTHER)[1:],
        update(),
        update(run(root="title")),
        update(run("")),
        update(run(info=4 | 0x20)),
        update(b"\x00\x05"),
        update(b"\x0a\x05"),
        update(b"\x01" + b"\x01\x04body" + b"\x05"),
        update(b"\x04\x00" + number(OTHER) + b"\x00\x01a"),
        update(run(), deletions=b"\x01\x09\x01" + number(MAX_UNITS) + b"\x01"),
        update(run(), deletions=b"\x01\x09\x01\x01" + number(MAX_UNITS)),
        update(run(), deletions=b"\x01" + number(1 << CLIENT_BITS) + b"\x00"),
        update(run(info=0x84, places=number(ME) + number(MAX_UNITS))),
        update(b"\x04\x01\x04body\x01\xff"),
        update(b"\x04\x01\x04body\x02a"),
        b"\x80\x00" + NO_CHANGE[1:],
        b"\x81\x80\x00",
        NO_CHANGE + b"\0",
        b"\xff" * 100,
        taken_from(Map),
        taken_from(Array),
        taken_from(Text),
        OTHERS_UPDATE,
    ],
)
def test_what_no_edit_does_is_not(foreign: bytes) -> None:
    assert not is_text_edit(foreign, ME, ROOT)


def test_an_update_cut_off_anywhere_is_not() -> None:
    assert not any(is_text_edit(WHOLE[:length], ME, ROOT) for length in range(len(WHOLE)))


NUMBERS = st.integers(0, 30) | st.sampled_from([MAX_UNITS - 1, MAX_UNITS, (1 << 32) - 1, 1 << 62])
CLIENTS = st.sampled_from([ME, OTHER, 0, (1 << CLIENT_BITS) - 1])
PLACES = st.tuples(CLIENTS, NUMBERS).map(lambda place: number(place[0]) + number(place[1]))
RUNS = st.builds(
    lambda text, left, right: run(
        text, 4 | (0x80 if left else 0) | (0x40 if right else 0), (left or b"") + (right or b"")
    ),
    st.text(min_size=1, max_size=4),
    st.none() | PLACES,
    st.none() | PLACES,
)
DELETIONS = st.lists(
    st.builds(
        lambda client, ranges: number(client) + number(len(ranges)) + b"".join(ranges),
        CLIENTS,
        st.lists(st.tuples(NUMBERS, NUMBERS).map(lambda span: number(span[0]) + number(span[1])), max_size=3),
    ),
    max_size=3,
).map(lambda parts: number(len(parts)) + b"".join(parts))
PLAUSIBLE = st.builds(
    lambda runs, deletions: update(*runs, deletions=deletions) if runs else b"\0" + deletions,
    st.lists(RUNS, max_size=4),
    DELETIONS,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(PLAUSIBLE))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3)):
        data[at % len(data)] = byte
    return bytes(data[: draw(st.integers(0, 60) | st.just(len(data)))])


@given(st.lists(PLAUSIBLE | damaged() | st.binary(max_size=40), max_size=3), st.integers(0, 3))
@example([bytes.fromhex("010507c2c28b8b8b8bc2c200080104626f6479057c3f800000")], 0)
def test_whatever_is_let_in_can_be_read_beside_what_others_wrote(updates: list[bytes], at: int) -> None:
    let_in = [part for n, part in enumerate(updates) if is_text_edit(part, ME - n if n else ME, ROOT)]
    let_in.insert(at, OTHERS_UPDATE)
    assert read(*let_in).startswith("<")


@given(damaged() | st.binary(max_size=60))
def test_no_bytes_make_the_check_fail(data: bytes) -> None:
    assert is_text_edit(data, ME, ROOT) in (True, False)


@given(st.lists(RUNS, min_size=1, max_size=4))
def test_without_deletions_nobody_elses_words_are_lost(runs: list[bytes]) -> None:
    data = update(*runs)
    if is_text_edit(data, ME, ROOT):
        shown = iter(read(data, OTHERS_UPDATE))
        assert all(letter in shown for letter in "what another 😀 wrote")
