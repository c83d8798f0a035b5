"""What is typed into `up` belongs to the program: it is carried there, none of it is for us."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable

from hyperbox_agent.errors import AgentError

STDIN = 0
PIECE = 65536
BACKGROUND_SECONDS = 1.0
"""How often a job in the background looks whether it has the terminal again."""

Feed = Callable[[bytes], Awaitable[None]]


def feed_program(feed: Feed, wanted: bool | None) -> None:
    """Carry standard input to the program until its end; ``wanted`` None: only a terminal's.

    The end of our input is not the program's: it goes on waiting, as it would on a quiet terminal.
    """
    if wanted is False or not (wanted or _is_terminal()):
        return
    # A background job that reads its terminal is stopped by SIGTTIN; ignored, the read fails.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    # A thread, as files and /dev/null can't be polled. Daemon: it may hang in its read at the end.
    threading.Thread(target=_carry, args=(feed, asyncio.get_running_loop()), daemon=True).start()


def _is_terminal() -> bool:
    try:
        return os.isatty(STDIN)
    except OSError:
        return False


def _carry(feed: Feed, loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            data = os.read(STDIN, PIECE)
        except OSError:
            if not _in_background():
                return  # closed, or the terminal has gone
            time.sleep(BACKGROUND_SECONDS)
            continue
        if not data:
            return
        try:
            asyncio.run_coroutine_threadsafe(_call(feed, data), loop).result()
        except (RuntimeError, concurrent.futures.CancelledError):
            return  # the loop has been closed: we are leaving
        except AgentError:
            continue  # no program takes it now, as between two starts: typed into the void


async def _call(feed: Feed, data: bytes) -> None:
    await feed(data)


def _in_background() -> bool:
    try:
        return os.tcgetpgrp(STDIN) != os.getpgrp()
    except OSError:
        return False
