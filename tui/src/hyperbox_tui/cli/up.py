"""`hyperbox up`: the session in the foreground. Ctrl-C ends all of it; a lost terminal does not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from hyperbox_devcontainer.config import Config, load
from hyperbox_devcontainer.errors import InputError
from hyperbox_devcontainer.paths import session_socket
from hyperbox_devcontainer.verbs.server import VerbServer
from hyperbox_tui.cli.exits import DONE
from hyperbox_tui.cli.feeding import feed_program
from hyperbox_tui.cli.printer import Printer
from hyperbox_tui.cli.starting import starting_lines, starting_status

if TYPE_CHECKING:
    from hyperbox_devcontainer.session import Session
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

FAST_SECONDS = 5.0
"""What the second Ctrl-C leaves for ending everything hard."""


def run(args: Args, out: Output) -> int:
    """Bring the project up and stay until it is brought down."""
    flags = {"app.port": args.whole("port"), "target": args.text("target")}
    config = load(args.path, out.environ, flags)
    if config.app.command is None:
        raise InputError(
            "nothing that could run was found here", file=config.project.root,
            hint='say it in hyperbox.toml: [app] command = ["python", "app.py"]')
    return asyncio.run(_Up(config, out).run())


class _Up:
    def __init__(self, config: Config, out: Output) -> None:
        self._config = config
        self._out = out
        self._server = VerbServer(session_socket(config.project, out.environ),
                                  starting_status(config))
        self._printer = Printer(out, self._server.ring, config.project.root)
        self._down = asyncio.Event()
        self._fast = asyncio.Event()
        self._detach = asyncio.Event()

    async def run(self) -> int:
        await self._server.open()
        self._catch_signals()
        self._printer.start(starting_lines(self._config, self._out.style))
        try:
            session = await self._open()
            if session is not None:
                await self._live(session)
        finally:
            self._server.ended()
            await self._server.close()
            await self._printer.close()
        return DONE

    async def _open(self) -> Session | None:
        """The session, or None where the end was asked for before it was open."""
        from hyperbox_agent.clock import SystemClock
        from hyperbox_devcontainer.session import open_session
        opening = asyncio.ensure_future(open_session(
            self._config, on_event=self._server.publish, clock=SystemClock()))
        await self._first(opening)
        if opening.done():
            return await opening
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await self._end_leftovers()
        return None

    async def _live(self, session: Session) -> None:
        self._server.attach(session)
        feed_program(session.feed, self._config.app.stdin)
        ended = asyncio.ensure_future(session.wait())
        await self._first(ended)
        if ended.done():
            await self._end(session)
            await ended
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        if self._detach.is_set():
            await session.detach()
        else:
            await self._end(session)

    async def _end(self, session: Session) -> None:
        """Down: in order, and hard as soon as the person asks again."""
        stopping = asyncio.ensure_future(session.stop(fast=self._server.fast))
        hurry = asyncio.ensure_future(self._fast.wait())
        await asyncio.wait((stopping, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if stopping.done():
            await stopping
            return
        try:
            async with asyncio.timeout(FAST_SECONDS):
                await session.stop(fast=True)
                await stopping
        except TimeoutError:
            stopping.cancel()
            await self._end_leftovers()

    async def _end_leftovers(self) -> None:
        from hyperbox_devcontainer import session
        await asyncio.to_thread(session.down, self._config.project, timeout=FAST_SECONDS)

    async def _first(self, work: asyncio.Future[Any]) -> None:
        """Until ``work`` is done, or the person or a client asks for the end, or output broke."""
        waits = [asyncio.ensure_future(wait) for wait in self._reasons()]
        await asyncio.wait((work, *waits), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _reasons(self) -> list[Coroutine[Any, Any, Any]]:
        return [self._down.wait(), self._detach.wait(), self._server.stop_asked.wait(),
                self._printer.broken.wait()]

    def _catch_signals(self) -> None:
        handlers: Mapping[int, Callable[[], None]] = {
            signal.SIGINT: self._asked, signal.SIGTERM: self._asked, signal.SIGHUP: self._lost}
        loop = asyncio.get_running_loop()
        for number, handler in handlers.items():
            # Ignored from the start (nohup, a script's background job): it stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, handler)

    def _asked(self) -> None:
        if self._down.is_set():
            self._fast.set()
        self._down.set()
        self._printer.say_stopping(again=self._fast.is_set())

    def _lost(self) -> None:
        self._printer.terminal_lost()
        self._detach.set()


