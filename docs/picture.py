"""Runs ``hyperbox demo`` on a terminal and draws what it printed: ``docs/demo.svg``.

Its times are those of the run, so it is made on a machine with nothing else to do.
"""

from __future__ import annotations

import html
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

from rich import _export_format
from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("demo.svg")
TITLE = "./dev demo"
COLUMNS, LINES = 84, 40
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
MARKS = ("✓", "✗")
PIECE = re.compile(r'clip-path="url\(#(demo-line-\d+)\)">(.*?)</text>', re.DOTALL)


def run_demo() -> str:
    """What the demo printed, colours and all. SystemExit where a promise did not hold."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
    argv = [str(Path(sys.executable).with_name("hyperbox")), "demo"]
    unwanted = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
                          env=env | {"TERM": "xterm-256color"}) as demo:
        os.close(theirs)
        printed = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    text = printed.decode().replace("\r\n", "\n")
    if demo.returncode:
        raise SystemExit(f"{text}\nthe demo ended with {demo.returncode}: there is no picture")
    return text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: its last process has closed it
        return b""


def draw(printed: str) -> str:
    """The picture of it. It names no font that would have to be fetched."""
    text = Text.from_ansi(printed.strip("\n"))
    # A piece of its own for what is empty: some viewers drop the spaces that a piece begins with.
    text.highlight_regex(" {2,}", "not blink")
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True,
                          color_system="truecolor")
        console.print(text)
    template = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", _export_format.CONSOLE_SVG_FORMAT,
                      flags=re.DOTALL).replace("Fira Code, monospace", FONTS)
    picture = console.export_svg(title=TITLE, code_format=template, unique_id="demo")
    return "".join(f"{line.rstrip()}\n" for line in picture.split("\n")).rstrip("\n") + "\n"


def pieces_of(picture: str) -> list[list[str]]:
    """The text of a picture: its lines, each with its pieces of one look."""
    lines: dict[str, list[str]] = {}
    for line, text in PIECE.findall(picture):
        if piece := html.unescape(text).replace("\N{NO-BREAK SPACE}", " ").strip():
            lines.setdefault(line, []).append(piece)
    return list(lines.values())


def steps_of(picture: str) -> list[str]:
    """The names of the steps that a picture shows."""
    # Bold, behind the mark: whatever comes next is another piece.
    return [pieces[1] for pieces in pieces_of(picture) if pieces[0] in MARKS]


if __name__ == "__main__":
    PICTURE.write_text(draw(run_demo()), "utf-8")
