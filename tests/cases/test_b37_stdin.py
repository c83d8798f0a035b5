"""B37: standard input belongs to the program and to ``exec``, never to the tool."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

from journey import HYPERBOX, Project, eventually


def test_b37_exec_gives_a_real_terminal(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.up():
        master, slave = pty.openpty()
        code = "import sys; print(sys.stdin.isatty()); print('got', input('? '))"
        asked = subprocess.Popen([*HYPERBOX, "exec", "-it", "--", sys.executable, "-c", code],
                                 cwd=project.root, env=project.env, stdin=slave, stdout=slave,
                                 stderr=slave, start_new_session=True)
        os.close(slave)
        seen = b""
        deadline = time.monotonic() + 60
        sent = False
        while time.monotonic() < deadline:
            try:
                seen += os.read(master, 4096)
            except OSError:
                break
            if b"? " in seen and not sent:
                os.write(master, b"hello\n")
                sent = True
        assert asked.wait(60) == 0
        os.close(master)
        assert b"True" in seen
        assert b"got hello" in seen


def test_b37_exec_passes_bytes_and_the_exit_status(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.up():
        raw = bytes(range(256)) * 500
        done = subprocess.run([*HYPERBOX, "exec", "-i", "--", "cat"], cwd=project.root,
                              env=project.env, input=raw, capture_output=True, timeout=60)
        assert done.stdout == raw
        assert project.hb("exec", "--", "sh", "-c", "exit 7").returncode == 7


def test_b37_a_closed_stdin_stops_and_spins_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("app.py", (project.root / "app.py").read_text().replace(
        "http.server.Threading", "import sys, threading\n"
        "read = lambda: [print('in', line) for line in sys.stdin]\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "http.server.Threading"))
    with project.up() as up:
        assert project.ask() == "v1"
        before = _cpu(up.process.pid)
        time.sleep(1.0)
        assert _cpu(up.process.pid) - before < 0.5
        eventually(lambda: project.ask() == "v1")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
