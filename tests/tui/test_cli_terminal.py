"""What a person sees in a terminal: through a pty, as the terminal gets it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperbox_devcontainer.history import History
from hyperbox_devcontainer.paths import find_project, history_file
from hyperbox_tui.view.text import cell_width

Played = Any
PATIENCE = 30.0
SGR = re.compile(rb"\x1b\[[0-9;:]*m")
NASTY_NAMES = ["a\x1b]0;pwned\x07.py", "b\x1b]52;c;eA==\x07.py", "c\rOK.py", "d\x9b2J.py",
               "bad\udcff.py", "e\nforged line.py", "f\u202egnp.py"]


class Screen:
    """A terminal of a given size with a command in it."""

    def __init__(self, argv: list[str], cwd: Path, env: dict[str, str], columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, columns)
        self.before = termios.tcgetattr(slave)
        self.got = b""
        self.process = subprocess.Popen(
            ["setsid", "-c", "-w", *argv], cwd=cwd, env=env, stdin=slave, stdout=slave,
            stderr=slave)
        self.slave = slave

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read_until(self, text: bytes) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while text not in self.got:
            assert time.monotonic() < deadline, f"never {text!r} in {self.got!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.got += os.read(self.master, 65536)
        return self.got

    def end(self) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            assert time.monotonic() < deadline, f"never ended: {self.got!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                self.got += os.read(self.master, 65536)
        return self.process.wait()

    @property
    def lines(self) -> list[str]:
        return SGR.sub(b"", self.got).decode().replace("\r\n", "\n").splitlines()


@contextmanager
def screen(played: Played, *words: str, columns: int = 80, **environ: str) -> Iterator[Screen]:
    env = {**played.environ, **environ}
    shown = Screen([*played.argv(*words), *words], played.folder, env, columns)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            shown.process.kill()
        shown.process.wait()
        os.close(shown.master)
        os.close(shown.slave)


def shown(played: Played, *words: str, **more: Any) -> Screen:
    with screen(played, *words, **more) as one:
        one.end()
        return one


def acts(data: bytes) -> bool:
    text = SGR.sub(b"", data).decode().replace("\r\n", "\n")
    return any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c == "\u202e" for c in text)


def nasty_generation(number: int, name: str) -> dict[str, Any]:
    return {"event": "generation", "target": "process", "number": number,
            "verdict": "rolled_back", "rung": "warm", "why": name, "files": 1,
            "ms": {"total": 1.0}, "serving": 1, "time": time.time(), "paths": [name],
            "error": {"phase": "stage", "path": name, "line": None, "message": f"bad {name}",
                      "hint": name}}


def test_b45_no_escape_in_a_name_reaches_the_terminal(live: Played) -> None:
    history = History(history_file(find_project(str(live.folder)), live.environ))
    for number, name in enumerate(NASTY_NAMES, 2):
        live.emit(**nasty_generation(number, name))
        live.emit(event="log", stream="stderr", number=1, text=name)
        live.emit(event="problem", message=name, path=name, hint=name)
        history.append(nasty_generation(number, name))
    history.close()
    live.play(target={"error": nasty_generation(9, NASTY_NAMES[0])["error"], "name": NASTY_NAMES[1],
                      "url": NASTY_NAMES[2]})
    live.play(answer={"rollback": {"raise": NASTY_NAMES[0], "hint": NASTY_NAMES[1]}})
    live.wait_said("gnp")
    for words in (["status"], ["history"], ["logs"], ["rollback"], [NASTY_NAMES[0]],
                  ["status", NASTY_NAMES[1]], ["up", f"--{NASTY_NAMES[2]}"]):
        for columns in (80, 20):
            got = shown(live, *words, columns=columns).got
            assert got
            assert not acts(got), (words, got)
    assert not acts(live.said().encode())
    logs = shown(live, "logs", columns=400).got
    for text in (rb"\x1b]0;pwned\x07.py", rb"\x1b]52;c;eA==\x07.py", rb"d\x9b2J.py",
                 rb"bad\xff.py", rb"e\nforged line.py"):
        assert text in logs


def test_b45_a_folder_with_such_a_name_is_a_project_like_any_other(played: Played) -> None:
    folder = played.folder.parent / "x\x1b]0;pwned\x07\udcff"
    folder.mkdir()
    (folder / "hyperbox.toml").write_bytes(b"[app]\nc\xc3\xb6 = '\\u009b'\n")
    played.folder = folder
    for words in (["status"], ["history"], ["config"], ["up"], ["doctor"]):
        got = shown(played, *words).got
        assert got
        assert not acts(got), (words, got)
    assert rb"x\x1b]0;pwned\x07\xff" in shown(played, "status").got


def test_b45_an_unforeseen_error_is_made_harmless_too(played: Played) -> None:
    script = ("import hyperbox_tui.cli.status as s\n"
              "def boom(*a): raise ZeroDivisionError('\\x1b]0;pwned\\x07')\n"
              "s.project_of = boom\n"
              "from hyperbox_tui.cli.main import main\nraise SystemExit(main(['status']))\n")
    argv = [*played.argv()[:1], "-c", script]
    one = Screen(argv, played.folder, played.environ)
    assert one.end() == 1
    assert not acts(one.got)
    assert b"a fault of ours: ZeroDivisionError" in one.got
    assert b"Traceback" in one.got
    os.close(one.master)
    os.close(one.slave)


@pytest.mark.parametrize("columns", [20, 33, 80])
def test_no_line_is_wider_than_the_terminal(live: Played, columns: int) -> None:
    for words in (["status"], ["history"], ["--help"], ["help", "restart"], []):
        one = shown(live, *words, columns=columns)
        assert max(map(cell_width, one.lines)) <= columns, words


def test_colour_is_for_terminals_that_want_it(live: Played) -> None:
    assert SGR.search(shown(live, "status").got)
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        got = shown(live, "status", **environ).got
        assert b"\x1b" not in got
        assert "● live".encode() in got
    assert "\x1b" not in live.text("status")


def test_a_locale_that_is_not_utf_8_gets_ascii(live: Played) -> None:
    for environ in ({"LC_ALL": "C"}, {"LC_ALL": "", "LANG": "C"}, {"LC_ALL": "en_US.ISO-8859-1"}):
        got = shown(live, "status", **environ).got
        assert got.isascii()
        assert b"* live" in got
    assert "● live".encode() in shown(live, "status", LC_ALL="", LANG="de_DE.utf8").got


def test_b36_a_programs_colours_stay_on_a_terminal_and_go_in_a_pipe(live: Played) -> None:
    live.emit(event="log", stream="stdout", number=1, text="\x1b[31mred\x1b[0m \x1b[2Jx")
    live.wait_said("red")
    got = shown(live, "logs").got
    assert b"\x1b[31mred\x1b[0m \\x1b[2Jx" in got
    assert live.text("logs", "-n", "1") == "red \\x1b[2Jx\n"


def test_ctrl_c_in_the_terminal_of_up_is_down(played: Played) -> None:
    with screen(played, "up") as one:
        one.read_until(b"http://")
        one.type(b"\x03")
        assert one.end() == 0
    assert played.asked()[-1] == {"asked": "stop", "fast": False}


def test_a_terminal_that_closes_only_detaches(played: Played) -> None:
    with screen(played, "up") as one:
        one.read_until(b"http://")
        master, one.master = one.master, os.open(os.devnull, os.O_RDONLY)
        os.close(one.slave)
        one.slave = os.open(os.devnull, os.O_RDONLY)
        os.close(master)
        one.process.wait(PATIENCE)
        played.wait_asked(asked="detach")
    assert [event["asked"] for event in played.asked()] == ["detach"]


def test_what_is_typed_into_up_goes_to_the_program(played: Played) -> None:
    with screen(played, "up") as one:
        one.read_until(b"http://")
        one.type(b"answer\n")
        played.wait_asked(asked="feed", text="answer\n")
        one.type(b"\x03")
        assert one.end() == 0


def test_b37_exec_gives_a_real_terminal_and_gives_it_back(live: Played) -> None:
    script = "import sys; print(sys.stdin.isatty()); print('got', input('? '))"
    with screen(live, "exec", "-it", "--", "python3", "-c", script) as one:
        one.read_until(b"? ")
        assert one.got.startswith(b"True")
        # The person's own terminal is raw meanwhile: echo and line editing are the command's.
        assert not termios.tcgetattr(one.slave)[3] & (termios.ICANON | termios.ECHO)
        one.type(b"y\x7fyes\r")
        one.read_until(b"got yes")
        assert one.end() == 0
        assert termios.tcgetattr(one.slave) == one.before


def test_b37_the_size_of_the_terminal_is_the_commands(live: Played) -> None:
    script = "trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.02; done"
    with screen(live, "exec", "-it", "--", "bash", "-c", script, columns=97) as one:
        one.read_until(b"24 97")
        one.resize(31, 101)
        one.read_until(b"31 101")
        assert one.end() == 5


def test_b37_ctrl_c_belongs_to_the_command(live: Played) -> None:
    script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.02; done"
    with screen(live, "exec", "-it", "--", "bash", "-c", script) as one:
        one.read_until(b"ready")
        one.type(b"\x03")
        one.read_until(b"caught")
        assert one.end() == 7


def test_the_terminal_is_given_back_when_the_session_dies(played: Played) -> None:
    with played.up() as up, screen(played, "exec", "-it", "--", "sh", "-c",
                                   "echo ready; sleep 60") as one:
        one.read_until(b"ready")
        up.send_signal(signal.SIGTERM)
        assert one.end() == 1
        assert b"the session ended" in one.got
        assert termios.tcgetattr(one.slave) == one.before


def test_exec_whose_terminal_closes_ends_its_command(live: Played) -> None:
    with screen(live, "exec", "-it", "--", "sh", "-c", "echo ready; sleep 60") as one:
        one.read_until(b"ready")
        one.process.kill()
        for pid in children_of(one.process.pid):
            os.kill(pid, signal.SIGKILL)
        live.wait_asked(asked="exec closed")


def children_of(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]
