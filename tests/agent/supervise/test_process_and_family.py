from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise import procfs
from hyperbox_agent.supervise.family import Family, Frozen, freeze
from hyperbox_agent.supervise.output import Line, Pump
from hyperbox_agent.supervise.process import (
    MARK,
    Child,
    Exit,
    Reaper,
    Spawn,
    become_subreaper,
    open_pipes,
    open_terminal,
    set_size,
    spawn,
)

PYTHON = sys.executable


class Running:
    """A spawned program whose output is collected."""

    def __init__(self, *argv: str, tty: bool = False, cwd: str = "/", mark: str = "") -> None:
        self.mark = mark or f"test-{os.getpid()}-{time.monotonic_ns()}"
        self.lines: list[str] = []
        ends = open_terminal((24, 80)) if tty else open_pipes()
        self.stdin = ends.ours.stdin
        env = {**os.environ, MARK: self.mark}
        self.child = spawn(Spawn(argv, env, cwd, tty=tty), ends, SystemClock())
        self.pumps = [Pump(fd, name, self._line, SystemClock())
                      for name, fd in ends.ours.streams.items()]

    def _line(self, stream: str, line: Line) -> None:
        if not line.partial:
            self.lines.append(line.text)

    def family(self) -> Family:
        return Family(self.child.pid, self.child.start, self.mark)

    async def end(self, grace: float = 2.0) -> Any:
        ended = await self.family().end(grace, SystemClock())
        for pump in self.pumps:
            pump.close()
        if self.stdin is not None:
            os.close(self.stdin)
        self.child.forget()
        return ended


def state_of(pid: int) -> str:
    found = procfs.read_stat(pid)
    return found.state if found is not None else ""


def test_a_stat_line_is_read_past_a_command_name_that_looks_like_one() -> None:
    line = b"42 (a) S (b) c) R 7 42 41 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 98765 10 20"
    assert procfs.parse_stat(line) == procfs.Stat(42, "R", 7, 42, 41, 98765)


def test_signals_do_not_reach_a_later_process_with_the_same_pid() -> None:
    with subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE) as other:
        found = procfs.read_stat(other.pid)
        assert found is not None
        assert not procfs.send(other.pid, found.start - 1, signal.SIGKILL)
        assert procfs.send(other.pid, found.start, signal.SIGTERM)
        assert other.wait() == -signal.SIGTERM


async def test_exit_status_and_signal_are_told() -> None:
    for code, expected in (("raise SystemExit(3)", Exit(status=3)),
                           ("import os; os.kill(os.getpid(), 9)", Exit(signal=9)),
                           ("", Exit(status=0))):
        run = Running(PYTHON, "-c", code)
        assert await run.child.wait() == expected
        assert run.child.exit == expected
        await run.end()
    assert str(Exit(signal=15)) == "killed by SIGTERM"
    assert str(Exit(status=3)) == "exit status 3"


@pytest.mark.parametrize(("argv", "cwd", "words"), [
    (("no-such-program-here",), "/", "program not found: no-such-program-here"),
    (("/etc/passwd",), "/", "not permitted to execute /etc/passwd"),
    ((PYTHON,), "/no/such/folder", "the folder to start it in is missing: /no/such/folder"),
])
async def test_what_can_not_be_started_says_why_and_leaves_no_descriptor(
        argv: tuple[str, ...], cwd: str, words: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProgramError, match=words):
        spawn(Spawn(argv, dict(os.environ), cwd), open_pipes(), SystemClock())
    assert len(os.listdir("/proc/self/fd")) == before


async def test_the_end_of_a_process_that_is_not_our_child_is_seen(helpers: Any) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 >/dev/null & echo $!"],
                          stdout=subprocess.PIPE) as shell:
        pid = int(shell.stdout.readline())  # type: ignore[union-attr]
    child = Child.take(pid, SystemClock())
    assert child.exit is None
    assert child.send(signal.SIGKILL)
    how = await asyncio.wait_for(child.wait(), 30)
    assert how in (Exit(), Exit(signal=9))
    with pytest.raises(ProgramError):
        Child.take(pid, SystemClock(), start=child.start)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def test_stdin_has_no_end_and_takes_what_is_fed() -> None:
    run = Running(PYTHON, "-c", "print('got', input(), flush=True); input()")
    assert run.stdin is not None
    os.write(run.stdin, b"hello\n")
    deadline = time.monotonic() + 30
    while run.lines != ["got hello"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    os.close(run.stdin)
    run.stdin = None
    await asyncio.sleep(0.05)
    assert run.child.exit is None
    before = cpu_ticks(run.child.pid)
    await asyncio.sleep(0.2)
    assert cpu_ticks(run.child.pid) - before <= 5, "it spins on its input"
    await run.end()


async def test_a_terminal_is_a_real_one_with_its_size_and_sigwinch(helpers: Any) -> None:
    code = ("import os, signal\n"
            # os.write: a handler that prints while the program prints is an error in Python.
            "say = lambda *a: os.write(1, f'{os.isatty(0)} {os.get_terminal_size()} "
            "{os.ttyname(0)} {os.getsid(0) == os.tcgetpgrp(0)}\\n'.encode())\n"
            "signal.signal(signal.SIGWINCH, say)\n"
            "say()\n"
            "print('? ', end='', flush=True)\n"
            "print('answer', input(), flush=True)\n")
    run = Running(PYTHON, "-c", code, tty=True)
    assert run.stdin is not None
    await helpers.until(lambda: run.lines)
    assert run.lines[0].startswith("True os.terminal_size(columns=80, lines=24) /dev/pts/")
    assert run.lines[0].endswith("True")
    columns = itertools.count(101)

    def resized() -> bool:
        # Again and again: a signal between Python's last look and its read waits for that read.
        set_size(run.stdin or -1, 40, next(columns))
        return any("columns=1" in line and "lines=40" in line for line in run.lines)

    await helpers.until(resized)
    os.write(run.stdin, b"yes\n")
    await asyncio.wait_for(run.child.wait(), 10)
    await run.pumps[0].drained(2)
    assert run.lines[-1] == "answer yes"
    await run.end()


# ------------------------------------------------------------------------------------ the tree

DAEMON = """\
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


async def test_the_whole_tree_is_ended_daemons_that_forked_twice_too(
        tmp_path: Path, helpers: Any) -> None:
    become_subreaper()
    script, note = tmp_path / "daemon.py", tmp_path / "pid"
    script.write_text(DAEMON)
    run = Running("sh", "-c", f"{PYTHON} {script} {note}; true")
    await helpers.until(lambda: note.exists() and note.read_text())
    daemon = int(note.read_text())
    await helpers.until(lambda: len(run.family().members()) == 3)
    near = {stat.pid for stat in run.family().near()}
    assert daemon in near
    assert near == {stat.pid for stat in run.family().members()}
    ended = await run.end()
    assert ended.killed == ()
    assert ended.count == 3
    assert not procfs.is_alive(daemon, 0)
    assert run.family().members() == []
    assert helpers.marked(run.mark) == []


async def test_who_ignores_sigterm_is_killed_after_the_grace_and_it_is_said(
        helpers: Any) -> None:
    run = Running(PYTHON, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); "
                                "print('up', flush=True); time.sleep(600)")
    await helpers.until(lambda: run.lines)
    ended = await run.end(grace=0.1)
    assert ended.killed == (run.child.pid,)
    assert run.child.exit == Exit(signal=9)


async def test_who_needs_time_to_finish_gets_it(helpers: Any) -> None:
    run = Running(PYTHON, "-c",
                  "import signal, sys, time\n"
                  "def bye(*a):\n    time.sleep(0.2); print('done', flush=True); sys.exit(0)\n"
                  "signal.signal(15, bye); print('up', flush=True)\nwhile True: time.sleep(1)")
    await helpers.until(lambda: run.lines)
    ended = await run.end(grace=30)
    assert ended.killed == ()
    assert run.lines[-1] == "done"
    assert run.child.exit == Exit(status=0)


async def test_a_stopped_process_is_ended_too(helpers: Any) -> None:
    run = Running("sleep", "600")
    os.kill(run.child.pid, signal.SIGSTOP)
    await helpers.until(lambda: state_of(run.child.pid) == "T")
    assert (await run.end()).killed == ()


async def test_a_tree_stands_still_while_it_is_frozen_and_goes_on_after(helpers: Any) -> None:
    run = Running("sh", "-c", f"{PYTHON} -c 'while True: pass' & {PYTHON} -c 'while True: pass'")
    await helpers.until(lambda: len(run.family().near()) == 3)
    frozen = Frozen()
    await freeze([run.family()], frozen)
    members = run.family().members()
    assert len(frozen.pids) == 3
    assert {stat.state for stat in members} <= {"T", "D"}
    assert frozen.restless == []
    frozen.thaw()
    frozen.thaw()
    await helpers.until(lambda: not any(s.state == "T" for s in run.family().members()))
    await run.end()


async def test_what_somebody_else_stopped_is_not_woken(helpers: Any) -> None:
    run = Running("sleep", "600")
    os.kill(run.child.pid, signal.SIGSTOP)
    await helpers.until(lambda: state_of(run.child.pid) == "T")
    frozen = Frozen()
    await freeze([run.family()], frozen)
    frozen.thaw()
    assert frozen.pids == []
    assert state_of(run.child.pid) == "T"
    await run.end()


async def test_orphans_are_buried_and_nobodys_children_are_stolen(helpers: Any) -> None:
    if not become_subreaper():
        pytest.skip("no subreaper here")
    reaper = Reaper(SystemClock())
    run = Running("sh", "-c", "sh -c 'sleep 0.05 & echo $!'; sleep 600")
    await helpers.until(lambda: run.lines)
    orphan = int(run.lines[0])
    await helpers.until(lambda: state_of(orphan) == "Z")
    own = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
    other = Running("sh", "-c", "exit 5")
    assert reaper.sweep() == []
    assert await own.wait() == 7
    assert await other.child.wait() == Exit(status=5)
    assert orphan in reaper.sweep()
    assert procfs.read_stat(orphan) is None
    await run.end()
    await other.end()
