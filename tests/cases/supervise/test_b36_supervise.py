"""B36: output held back, lost after a restart."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from hyperbox_langpacks.base import Command
from hyperbox_langpacks.python.pack import PythonPack


def with_pack(program: Any, **config: Any) -> Any:
    """The pack is what makes Python's own output come at once."""
    python = os.path.realpath(sys.executable)
    found = PythonPack().complete(
        program.view, {"PATH": f"{os.path.dirname(python)}:{os.environ['PATH']}"},
        Command((python, "app.py")))
    return program.supervisor(pack=PythonPack(), found=found, command=(python, "app.py"), **config)


async def test_the_first_byte_comes_at_once_and_a_line_without_end_too(
        program: Any, helpers: Any) -> None:
    program.write(app="import time\nprint('hello')\nprint('no newline', end='')\n"
                      "time.sleep(600)\n")
    supervisor = with_pack(program, port=None, ready="hello")
    await supervisor.open()
    assert (await program.reload(supervisor, 1)).ok
    partial = await helpers.until(
        lambda: [event for event in program.events if event.get("partial")])
    assert partial[0]["text"] == "no newline"
    await supervisor.stop()
    assert program.texts("stdout", 1) == ["hello", "no newline"]


async def test_the_last_words_of_three_restarts_are_all_there_with_their_numbers(
        program: Any, helpers: Any) -> None:
    program.write(app="import signal, sys, time, ver\nprint(ver.V)\n"
                      "print('\\x1b[31mred\\x1b[0m')\n"
                      "def bye(*a):\n    print('bye', end='')\n    raise ValueError(ver.V)\n"
                      "signal.signal(15, bye)\nprint('up')\ntime.sleep(600)\n")
    supervisor = with_pack(program, port=None, ready="up")
    await supervisor.open()
    for number in (1, 2, 3):
        program.write(ver=f"V = 'v{number}'\n")
        assert (await program.reload(supervisor, number)).ok
    await supervisor.stop()
    for number in (1, 2, 3):
        assert program.texts("stdout", number) == [
            f"v{number}", "\x1b[31mred\x1b[0m", "up", "bye"]
        trace = program.texts("stderr", number)
        assert trace[0] == "Traceback (most recent call last):"
        assert trace[-1] == f"ValueError: v{number}"


async def test_a_flood_is_slowed_down_not_lost_and_not_kept(program: Any, helpers: Any) -> None:
    program.write(app="for n in range(100_000): print('line', n)\nprint('up', flush=True)\n"
                      "import time\ntime.sleep(600)\n")
    supervisor = program.supervisor(port=None, ready="^up")
    await supervisor.open()
    assert (await asyncio.wait_for(program.reload(supervisor, 1), 60)).ok
    assert program.texts("stdout", 1) == [f"line {n}" for n in range(100_000)] + ["up"]
