"""A page of text and tables for people, and how it gets onto a stream.

node/render.py fills a `Page`; `write` puts it onto a stream. On a terminal rich draws it in the terminal's width, with
colour unless NO_COLOR is set. Anywhere else it is plain text whose columns line up and which is never cut, for `grep`
and `less`; rich isn't even imported then.

What others wrote is data: control characters in it, which could move the cursor or recolour the screen, are shown as
escapes, and so are the marks that reverse the order of text.

Tests: tests/node/test_page.py.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, assert_never

from node.errors import Problem

if TYPE_CHECKING:
    import rich.console

# C0 without tab and line feed, DEL, C1, and the embeddings, overrides and isolates of the bidirectional algorithm.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

LAST_LEAST_CHARS = 20
"""Of a table's last column, which is the one that is folded. Where not even that fits, rows are drawn as blocks."""
GAP_CHARS = 2

STATES = {
    "ok": "green",
    "warning": "yellow",
    "failed": "red",
    "connected": "green",
    "offline": "yellow",
    "refused": "red",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, or several."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; the last column may be long."""

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class QrCode:
    """A text to be scanned from the screen; nothing where there is no screen."""

    text: str


@dataclass
class Page:
    """What a command shows, from top to bottom."""

    parts: list[Line | Table | QrCode] = field(default_factory=list)

    def line(self, text: Any = "", style: str = "") -> None:
        """Add a line. `style` is one of rich's, such as `bold` or `dim red`."""
        self.parts.append(Line(visible(str(text)), style))

    def table(self, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
        """Add a table. None becomes an empty cell; line ends within a cell become spaces."""
        cells = [tuple(visible(_cell(value)) for value in row) for row in rows]
        self.parts.append(Table(tuple(headings), cells))

    def qr_code(self, text: str) -> None:
        """Add a QR code, for terminals only."""
        self.parts.append(QrCode(text))


def visible(text: str) -> str:
    """`text` with what would act on a terminal, or mislead the eye, shown as an escape."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write(page: Page, stream: TextIO, environ: Mapping[str, str]) -> None:
    """Put the page onto `stream`: by rich on a terminal, as plain text otherwise."""
    if stream.isatty() and environ.get("TERM") != "dumb":
        _write_rich(page, stream, "NO_COLOR" in environ and environ["NO_COLOR"] != "")
        return
    for part in page.parts:
        match part:
            case Line():
                stream.write(part.text + "\n")
            case Table():
                stream.write(_plain_table(part))
            case QrCode():
                pass
            case _:
                assert_never(part)


def complain(problem: Problem, stream: TextIO) -> None:
    """One line that says what happened, and one that says what to do."""
    stream.write(f"cortex-node: {visible(problem.detail)}\n")
    if problem.action:
        stream.write(f"  {visible(problem.action)}\n")


def _write_rich(page: Page, stream: TextIO, colourless: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, no_color=colourless, highlight=False, markup=False, emoji=False)
    for part in page.parts:
        match part:
            case Line():
                console.print(Text(part.text, part.style), soft_wrap=True)
            case Table():
                _draw_table(part, console)
            case QrCode():
                _draw_qr_code(part, stream, console.width)
            case _:
                assert_never(part)


def _draw_table(table: Table, console: "rich.console.Console") -> None:
    """A table whose columns are whole but for the last; on a terminal too narrow for that, a block for each row."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    *widths, last = _widths(table)
    if sum(width + GAP_CHARS for width in widths) + min(last, LAST_LEAST_CHARS) > console.width:
        for row in table.rows:
            for heading, cell in zip(table.headings, row, strict=True):
                if cell:
                    console.print(Text.assemble((f"{heading}  ", "dim"), (cell, STATES.get(cell, ""))), soft_wrap=True)
            console.print()
        return
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in table.headings[:-1]:
        drawn.add_column(heading, no_wrap=True)
    drawn.add_column(table.headings[-1], overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell, STATES.get(cell, "")) for cell in row))
    console.print(drawn)


def _draw_qr_code(code: QrCode, stream: TextIO, width: int) -> None:
    import segno

    drawn = segno.make(code.text, micro=False)
    if drawn.symbol_size()[0] <= width:  # folded it could not be scanned
        drawn.terminal(stream, compact=True)


def _plain_table(table: Table) -> str:
    lines = [tuple(heading.upper() for heading in table.headings), *table.rows]
    widths = _widths(table)
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def _widths(table: Table) -> list[int]:
    return [max(map(len, column)) for column in zip(table.headings, *table.rows, strict=True)]


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case list() | tuple():
            return ", ".join(str(part) for part in value)
        case _:
            return " ".join(str(value).splitlines())
