"""Lines as parts with roles; what a role looks like is decided when the line is painted.

Painting cleans every part, so no text reaches a terminal without passing the wall.
"""

from __future__ import annotations

from typing import NamedTuple

from hyperbox_tui.view.text import cell_width, fit, safe_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_COLOURS = {
    "live": "32", "working": "33", "broken": "31", "press": "36", "dim": "2", "strong": "1",
    "title": "1",
}
_MARKS = {
    "live": ("●", "*"), "working": ("◐", "~"), "broken": ("✖", "X"), "down": ("○", "o"),
    "warning": ("!", "!"), "done": ("✓", "+"), "quiet": ("·", "-"), "arrow": ("→", "->"),
    "ellipsis": ("…", "..."), "rule": ("─", "-"), "bar": ("█", "#"), "none": ("–", "-"),
}


class Span(NamedTuple):
    """A part of a line and its role (a key of the colour table, or empty)."""

    text: str
    role: str = ""


class Style(NamedTuple):
    """What the place that is written to can show."""

    colour: bool = False
    unicode: bool = True
    width: int | None = None
    """Cells of a line; None: as long as it gets (a pipe)."""

    def mark(self, name: str) -> str:
        """The mark of that name."""
        return _MARKS[name][0 if self.unicode else 1]


def paint(line: Sequence[Span | str], style: Style) -> str:
    """The line as text: cleaned, fitted to the width, coloured where that is wanted."""
    room = style.width
    parts = []
    spans = [span if isinstance(span, Span) else Span(span) for span in line]
    for index, span in enumerate(spans):
        text = _ascii(safe_line(span.text), style)
        if room is not None:
            last = all(not later.text for later in spans[index + 1:])
            text, room = _fitted(text, room, last, style)
        parts.append(_coloured(text, span.role, style))
        if room is not None and room <= 0:
            break
    return "".join(parts).rstrip(" ")


def _fitted(text: str, room: int, last: bool, style: Style) -> tuple[str, int]:
    width = cell_width(text)
    if width < room or (width == room and last):
        return text, room - width
    ellipsis = style.mark("ellipsis") if room > 3 or style.unicode else ""
    return fit(text + ("" if last else " " * room), room, ellipsis), 0


def _ascii(text: str, style: Style) -> str:
    return text if style.unicode or text.isascii() else text.encode(
        "ascii", "backslashreplace").decode("ascii")


def _coloured(text: str, role: str, style: Style) -> str:
    code = _COLOURS.get(role)
    return f"\x1b[{code}m{text}\x1b[0m" if style.colour and code and text else text


def columns(rows: Iterable[Sequence[Span | str]], *, gap: int = 2) -> list[list[Span]]:
    """Rows of cells with every column as wide as its widest cell; the last is left as it is."""
    table = [[cell if isinstance(cell, Span) else Span(cell) for cell in row] for row in rows]
    if not table:
        return []
    count = max(map(len, table))
    widths = [max((cell_width(safe_line(row[at].text)) for row in table if at < len(row)),
                  default=0) for at in range(count)]
    return [[part for at, cell in enumerate(row)
             for part in _padded(cell, widths[at] + gap, at == len(row) - 1)] for row in table]


def _padded(cell: Span, width: int, last: bool) -> list[Span]:
    if last:
        return [cell]
    return [cell, Span(" " * (width - cell_width(safe_line(cell.text))))]
