"""Where text and JSON leave the command: what the terminal can show is found out once, here."""

from __future__ import annotations

import os
import sys

from hyperbox_tui.view.spans import Span, Style, paint
from hyperbox_tui.view.text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TextIO

NARROWEST = 20


def is_terminal(stream: TextIO) -> bool:
    """Whether a person's terminal is at the other end."""
    try:
        return stream.isatty()
    except ValueError:  # closed before we started
        return False


def style_of(stream: TextIO, environ: Mapping[str, str]) -> Style:
    """What ``stream`` can show."""
    terminal = is_terminal(stream)
    plain = bool(environ.get("NO_COLOR")) or environ.get("TERM", "dumb") == "dumb"
    return Style(colour=terminal and not plain, unicode=speaks_unicode(environ),
                 width=_width(stream) if terminal else None)


def _width(stream: TextIO) -> int | None:
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None
    return max(columns, NARROWEST) if columns else None


def speaks_unicode(environ: Mapping[str, str]) -> bool:
    """Whether the locale is a UTF-8 one.

    Python itself sets LC_CTYPE to C.UTF-8 where the locale is C, so that value alone says nothing.
    """
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = environ.get(name, "")
        if value and not (name == "LC_CTYPE" and value == "C.UTF-8" and _coerced(environ)):
            return "utf-8" in value.lower() or "utf8" in value.lower()
    return False


def _coerced(environ: Mapping[str, str]) -> bool:
    if environ.get("LANG", "") not in ("", "C", "POSIX"):
        return False
    try:
        with open("/proc/self/environ", "rb") as file:
            return b"\0LC_CTYPE=" not in b"\0" + file.read()
    except OSError:
        return False


class Output:
    """The command's two streams. A write to a reader that has gone raises BrokenPipeError."""

    def __init__(self, environ: Mapping[str, str], *, json: bool = False) -> None:
        self.environ = environ
        self.as_json = json
        self.style = style_of(sys.stdout, environ)
        for stream in (sys.stdout, sys.stderr):
            # A name that the locale can't say must never end the command.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    def line(self, *spans: Span | str) -> None:
        """One line of text for a person."""
        sys.stdout.write(paint(spans, self.style) + "\n")

    def lines(self, lines: Iterable[Sequence[Span | str]]) -> None:
        """Several lines."""
        for line in lines:
            self.line(*line)

    def json(self, value: Any) -> None:
        """One JSON object on a line of its own."""
        import json
        sys.stdout.write(json.dumps(json_text(value)) + "\n")

    def text(self, text: str) -> None:
        """Text that is ours: written as it is."""
        sys.stdout.write(text)

    def errors(self, lines: Iterable[Sequence[Span | str]]) -> None:
        """Lines for the error stream, never cut: the end of an error is what one needs."""
        style = style_of(sys.stderr, self.environ)._replace(width=None)
        sys.stderr.write("".join(paint(line, style) + "\n" for line in lines))
        sys.stderr.flush()

    def flush(self) -> None:
        """Write out what is held back."""
        sys.stdout.flush()
