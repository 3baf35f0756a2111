"""How a page gets onto a stream: plain where nobody looks, drawn on a terminal, and never acting on it."""

import io
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import Problem
from node.page import Page, complain, visible, write


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(page: Page) -> str:
    stream = io.StringIO()
    write(page, stream, {})
    return stream.getvalue()


def drawn(page: Page, monkeypatch: pytest.MonkeyPatch, columns: int = 80, **environ: str) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    write(page, stream, {"TERM": "xterm-256color"} | environ)
    return stream.getvalue()


def uncoloured(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def some_page() -> Page:
    page = Page()
    page.line("k7q2-17  #keys", "bold red")
    page.table(("peer", "state", "why"), [("bo", "offline", "it was\nswitched off"), ("hub", "connected", None)])
    return page


def test_plain_columns_line_up() -> None:
    assert plain(some_page()) == (
        "k7q2-17  #keys\n"
        "PEER  STATE      WHY\n"
        "bo    offline    it was switched off\n"
        "hub   connected\n"
    )  # fmt: skip


def test_plain_text_is_never_cut() -> None:
    page = Page()
    page.table(("id", "value"), [("k", "x" * 500)])
    assert "x" * 500 in plain(page)


def test_plain_text_needs_no_rich() -> None:
    code = (
        "import sys; from node.page import Page, write; p = Page(); p.line('x', 'bold'); p.table(('a',), [('b',)]);"
        "write(p, sys.stdout, {}); assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(some_page(), monkeypatch)
    assert "\x1b[1;31m" in text
    assert "connected" in uncoloured(text)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(some_page(), monkeypatch, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)
    assert "\x1b[" in drawn(some_page(), monkeypatch, NO_COLOR="")  # set, but empty: no wish


def test_a_dumb_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(some_page(), monkeypatch, TERM="dumb") == plain(some_page())


@pytest.mark.parametrize("columns", [30, 40, 200])
def test_a_narrow_terminal_loses_no_text_and_breaks_no_id(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    page = Page()
    page.table(("id", "value"), [("k7q2-17", "word " * 30)])
    text = uncoloured(drawn(page, monkeypatch, columns))
    assert text.count("word") == 30
    assert "k7q2-17" in text
    assert max(map(len, text.splitlines())) <= columns


def test_a_terminal_too_narrow_for_a_table_gets_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    page.table(("id", "state", "why"), [("k7q2m4zx5tvb3nya-17", "offline", None), ("x", "connected", "it is")])
    text = uncoloured(drawn(page, monkeypatch, 30))
    assert text.splitlines() == [
        "id  k7q2m4zx5tvb3nya-17",
        "state  offline",
        "",
        "id  x",
        "state  connected",
        "why  it is",
        "",
    ]


def test_a_long_line_is_left_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    page.line("x" * 300)  # a code to be copied must not get line ends
    assert "x" * 300 in drawn(page, monkeypatch, 40)


def test_text_is_not_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    page.line("[red]not red[/red] :smile: [link=file:///x]y[/link]")
    page.table(("value",), [("[bold]x[/bold]",)])
    text = uncoloured(drawn(page, monkeypatch, 200))
    assert "[red]not red[/red] :smile: [link=file:///x]y[/link]" in text
    assert "[bold]x[/bold]" in text


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\u202egnp.exe\u2066\x7f\x00"


def test_what_others_wrote_does_not_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    page.line(HOSTILE)
    page.table(("value",), [(HOSTILE,)])
    for text in (plain(page), uncoloured(drawn(page, monkeypatch, 200))):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", text)
        assert r"\x1b[2J" in text


@given(st.text())
def test_only_what_acts_is_escaped(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    if text.isprintable():
        assert shown == text
    assert visible("a\tb\nc") == "a\tb\nc"


def test_a_qr_code_is_for_terminals_that_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    page.qr_code("CORTEX1-" + "A" * 100)
    assert plain(page) == ""
    assert "\u2584" in drawn(page, monkeypatch, 80)
    assert drawn(page, monkeypatch, 30) == ""


def test_a_problem_says_what_happened_and_what_to_do() -> None:
    stream = io.StringIO()
    complain(Problem(404, "x", "there is no \x1bfact", "look"), stream)
    complain(Problem(500, "x", "failed"), stream)
    assert stream.getvalue() == "cortex-node: there is no \\x1bfact\n  look\ncortex-node: failed\n"
