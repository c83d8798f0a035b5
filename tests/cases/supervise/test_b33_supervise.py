"""B33: killed during its start, and looks alive. Health decides, and says what was seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbox_agent.clock import SystemClock

SILENT = """\
import os, socket, time
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
c = s.accept()
print("asked", flush=True)
time.sleep(600)
"""
START_TIMEOUT = 77.0


class HeldClock(SystemClock):
    """Real time, but for the time that a start may take: that is up when the test says so."""

    def __init__(self) -> None:
        self.up = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds == START_TIMEOUT:
            await self.up.wait()
        else:
            await super().sleep(seconds)


@pytest.mark.parametrize(("broken", "words"), [
    ("import os, signal\nos.kill(os.getpid(), 9)\n", "killed by SIGKILL (out of memory?)"),
    ("import os, time\ntime.sleep(0.2)\nos._exit(0)\n", "exit status 0"),
    ("import os, sys\nprint('no database', file=sys.stderr)\nsys.exit(3)\n",
     "exit status 3; last words: no database"),
])
async def test_it_is_rolled_back_with_the_reason_and_the_old_version_serves(
        program: Any, helpers: Any, broken: str, words: str) -> None:
    supervisor = program.supervisor(start_timeout=20.0)
    await supervisor.open()
    await program.reload(supervisor, 1)
    program.write(ver=broken)
    result = await program.reload(supervisor, 2)
    assert not result.ok
    assert words in result.error.message
    assert await program.ask() == "v1"
    assert supervisor.serving == 1
    assert program.states()[-1] == "live"
    await helpers.until(lambda: len(program.marked()) == 1)


@pytest.mark.parametrize(("broken", "sign", "words"), [
    (SILENT, "asked", "no answer in 77 s"),
    ("import time\nprint('asleep', flush=True)\ntime.sleep(99)\n", "asleep",
     "connection refused in 77 s"),
])
async def test_it_binds_or_not_and_never_answers(
        program: Any, helpers: Any, broken: str, sign: str, words: str) -> None:
    clock = HeldClock()
    supervisor = program.supervisor(start_timeout=START_TIMEOUT, clock=clock)
    await supervisor.open()
    await program.reload(supervisor, 1)
    program.write(ver=broken)
    reload = asyncio.ensure_future(program.reload(supervisor, 2))
    await helpers.until(lambda: sign in program.texts("stdout", 2), 30)
    clock.up.set()
    result = await reload
    assert not result.ok
    assert words in result.error.message
    assert await program.ask() == "v1"
    await helpers.until(lambda: len(program.marked()) == 1)
