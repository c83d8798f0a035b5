from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hyperbox_agent
from hyperbox_agent.link.attach import NO_AGENT

SOURCES = str(Path(hyperbox_agent.__file__).parents[1])
CODE = (f"import sys; sys.path.insert(0, {SOURCES!r}); "
        "from hyperbox_agent.link.attach import attach; sys.exit(attach(sys.argv[1]))")


def start(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", CODE, str(home)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path


def listen(home: Path) -> socket.socket:
    # Bound by a short relative name: a test's folder may be too deep for a socket's path.
    from hyperbox_agent.home import run_folder

    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(30)
    listener.bind(os.path.join(run_folder(str(home)), "agent.sock"))
    listener.listen()
    return listener


def test_it_says_when_no_agent_lives_there(home: Path) -> None:
    with start(home) as process:
        out, _ = process.communicate(timeout=30)
    assert out.decode().strip() == NO_AGENT
    assert process.returncode == 3


def test_it_copies_both_ways_and_passes_both_ends(home: Path) -> None:
    listener = listen(home)
    with start(home) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        agent, _ = listener.accept()
        data = os.urandom(300_000)
        agent.sendall(data[:100_000])
        assert process.stdout.read(100_000) == data[:100_000]
        process.stdin.write(data)
        process.stdin.close()
        got = b""
        while piece := agent.recv(1 << 20):
            got += piece
        assert got == data
        agent.sendall(b"last words")
        agent.close()
        assert process.stdout.read() == b"last words"
        assert process.wait(30) == 0
    listener.close()


async def test_it_ends_when_the_session_is_gone(home: Path) -> None:
    listener = listen(home)
    with start(home) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        agent, _ = listener.accept()
        process.stdout.close()
        agent.sendall(bytes(100_000))
        assert await asyncio.to_thread(process.wait, 10) == 1
        process.stdin.close()
        agent.close()
    listener.close()
