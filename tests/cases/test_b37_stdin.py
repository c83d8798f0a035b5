"""B37: standard input belongs to the program and to ``exec``, never to the tool."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journey import HYPERBOX, Project, belonging, eventually


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
        missing = project.hb("exec", "--", "no-such-program")
        assert (missing.returncode, missing.stdout) == (127, "")
        assert "program not found: no-such-program" in missing.stderr
        (project.root / "plain.txt").write_text("no program")
        forbidden = project.hb("exec", "--", "./plain.txt")
        assert forbidden.returncode == 126, forbidden.stderr


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


def test_b37_exec_carries_more_than_fits_on_the_way(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.up():
        raw = os.urandom(1 << 20) * 20
        done = subprocess.run([*HYPERBOX, "exec", "-i", "--", "cat"], cwd=project.root,
                              env=project.env, input=raw, capture_output=True, timeout=120)
        assert done.stdout == raw


def test_b37_what_exec_started_ends_with_it_and_at_down(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.up() as up:
        script = 'setsid -f sleep 777 >/dev/null 2>&1; sleep 0.2; echo left'
        done = project.hb("exec", "--", "sh", "-c", script)
        assert (done.returncode, done.stdout) == (0, "left\n")
        assert not sleepers(project)
        # A client that is killed while nobody reads what it sent.
        with exec_of(project, "sleep", "777") as process:
            assert process.stdin is not None
            eventually(lambda: len(sleepers(project)) == 1)
            fill(process.stdin.fileno())
            process.kill()
            eventually(lambda: not sleepers(project))
        with exec_of(project, "sleep", "777") as process:
            assert process.stdin is not None
            eventually(lambda: len(sleepers(project)) == 1)
            fill(process.stdin.fileno())
            process.terminate()
            assert process.wait(60) == 143
        with exec_of(project, "sh", "-c", "setsid -f sleep 777; sleep 777") as process:
            eventually(lambda: len(sleepers(project)) == 3)
            up.process.kill()
            eventually(lambda: not sleepers(project))


def test_b37_what_exec_started_under_a_killed_agent_ends_at_down(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with project.up(), exec_of(project, "sh", "-c", "setsid -f sleep 777; sleep 777"):
        eventually(lambda: len(sleepers(project)) == 3)
        for line in belonging(project):
            if "hyperbox_agent serve" in line:
                os.kill(int(line.split()[0]), signal.SIGKILL)


@contextmanager
def exec_of(project: Project, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*HYPERBOX, "exec", "-i", "--", *argv], cwd=project.root,
                          env=project.env, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        try:
            yield process
        finally:
            process.kill()
            process.stdin.close()


def sleepers(project: Project) -> list[str]:
    """What a test of ``exec`` started."""
    return [line for line in belonging(project) if "sleep 777" in line and "exec -i" not in line]


def fill(descriptor: int) -> None:
    """Write until nothing has been taken for a while: everything on the way is full."""
    since = time.monotonic()
    while time.monotonic() - since < 0.5:
        try:
            os.write(descriptor, bytes(65536))
            since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
