"""``hyperbox-agent run``: the whole of it alone, for use inside a container.

Watch, settle, gate, reload and health are the same as with a workstation; there is no shipping and
no history.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.entries import Change
from hyperbox_agent.core.generation import Verdict
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.core.text import program_line, safe_line, safe_text
from hyperbox_agent.errors import AgentError
from hyperbox_agent.home import own_folder
from hyperbox_agent.link.only import OnlyAgent
from hyperbox_agent.supervise.host import Host, HostConfig
from hyperbox_agent.supervise.pipeline import Flight, Pipeline, Shipped, timings
from hyperbox_agent.supervise.process import become_subreaper
from hyperbox_agent.watch.choose import choose_watcher
from hyperbox_agent.watch.gitlock import GitLock
from hyperbox_agent.watch.source import Batch, Source
from hyperbox_agent.watch.tree import SourceTree


@dataclass(frozen=True, slots=True)
class RunArguments:
    """What the command line asked for."""

    folder: str = "."
    port: int | None = None
    json: bool = False
    command: tuple[str, ...] = ()


def parse(words: Sequence[str]) -> RunArguments:
    """Read the words after ``run``. Raises ValueError with a sentence for the user."""
    folder, port, as_json = ".", None, False
    rest = list(words)
    command: tuple[str, ...] = ()
    if "--" in rest:
        cut = rest.index("--")
        command, rest = tuple(rest[cut + 1:]), rest[:cut]
    folders = []
    while rest:
        word = rest.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--port":
            if not rest or not rest[0].isdigit() or not 0 < int(rest[0]) < 65536:
                raise ValueError("--port needs a number from 1 to 65535")
            port = int(rest.pop(0))
        elif word.startswith("-"):
            raise ValueError(f"unknown option {word}")
        else:
            folders.append(word)
    if len(folders) > 1:
        raise ValueError("one folder at a time")
    return RunArguments(folders[0] if folders else folder, port, as_json, command)


class LocalAgent:
    """The pipeline's handle on a host in the same process: nothing is shipped."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def generation(self, number: int, changes: tuple[Change, ...], *, settled: bool,
                         first: bool) -> Shipped:
        """Run one generation."""
        return Shipped(await self._host.generation(
            number, changes, settled=settled, first=first), 0)

    async def settle(self, number: int) -> None:
        """The batch is complete."""
        self._host.settle(number)

    async def supersede(self, number: int) -> None:
        """The batch is out of date."""
        self._host.supersede(number)


class Speaker:
    """Tells what happens: the program's lines, our own on standard error. Nothing of either acts on
    a terminal but the program's colours, and as JSON it is ASCII."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json

    def event(self, event: Mapping[str, Any]) -> None:
        """An event of the host."""
        if self._json:
            if event.get("event") != "phase":
                self._line(json.dumps(event))
        elif event.get("event") == "log":
            stream = sys.stderr if event.get("stream") == "stderr" else sys.stdout
            self._line(program_line(str(event.get("text", "")), colour=stream.isatty()), stream)
        elif event.get("event") == "state":
            url = f" {event['url']}" if event.get("url") else ""
            self._say(f"{event.get('state')} #{event.get('number')}{url}")

    def began(self, number: int, batch: Batch) -> None:
        """Nothing is said before it is decided."""

    def ended(self, flight: Flight, shipped: Shipped) -> None:
        """One line a generation."""
        outcome = shipped.outcome
        ms, total = timings(flight, outcome)
        if self._json:
            self._line(json.dumps({"event": "generation", **outcome.as_json(),
                                   "ms": {**ms, "total": total}}))
        elif outcome.error is not None:
            place = outcome.error.path or ""
            line = f":{outcome.error.line}" if outcome.error.line else ""
            self._say(f"#{flight.number} rolled back: {outcome.error.phase} {place}{line} "
                      f"{outcome.error.message}; serving #{outcome.serving}")
        elif outcome.verdict is Verdict.COMMITTED:
            self._say(f"#{flight.number} {outcome.rung.word} {total:.0f} ms ({outcome.why})")

    def clean(self) -> None:
        """What was refused has been undone."""
        self._say("the files are as the running version again")

    def problem(self, message: str, path: str | None, hint: str | None) -> None:
        """Something that stopped nothing."""
        self._say(f"{message}{f' ({hint})' if hint else ''}")

    def lost(self, error: AgentError) -> None:
        """Can't happen to a host in the same process; said if it does."""
        self._say(error.message)

    def _say(self, text: str) -> None:
        if self._json:
            self._line(json.dumps({"event": "note", "text": text}))
        else:
            self._line(f"hyperbox: {safe_line(text)}", sys.stderr)

    def _line(self, text: str, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        stream.write(f"{text}\n")
        stream.flush()


async def _run(arguments: RunArguments, root: str, home: str) -> int:
    become_subreaper()
    clock = SystemClock()
    speaker = Speaker(as_json=arguments.json)
    tree = SourceTree(root, options=IgnoreOptions(databases=False),
                      cache_file=os.path.join(home, "scan"))
    source = Source(tree, lambda sink: choose_watcher(root, sink), clock, lock=GitLock(root))

    def on_event(event: Mapping[str, Any]) -> None:
        if event.get("event") == "wrote":
            source.own(event["paths"])
        else:
            speaker.event(event)

    host = Host(home, clock, on_event)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    app: dict[str, Any] = {}
    if arguments.command:
        app["command"] = list(arguments.command)
    if arguments.port:
        app["port"] = arguments.port
    await source.open()
    pipeline = Pipeline(source, clock, speaker, next_number=1)
    try:
        await host.configure(HostConfig("alone", os.path.basename(root), "in-place", root, app))
        pipeline.attach(LocalAgent(host))
        pipeline.start(())
        await _until(stopped, asyncio.ensure_future(pipeline.run()))
        return 0
    finally:
        await host.stop()
        source.close()


async def _until(stopped: asyncio.Event, running: asyncio.Future[None]) -> None:
    """Return when it was asked to stop. Raises what ``running`` ends with: without it nothing
    would ever be reloaded again."""
    stopping = asyncio.ensure_future(stopped.wait())
    either: set[asyncio.Future[Any]] = {running, stopping}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.done():
        running.result()
    running.cancel()


def main(words: Sequence[str]) -> int:
    """Run until SIGINT or SIGTERM; gives the exit status."""
    try:
        arguments = parse(words)
    except ValueError as error:
        return _wrong(str(error))
    if not os.path.isdir(arguments.folder):
        return _wrong(f"{arguments.folder} is not a folder")
    try:
        return _alone(arguments)
    except AgentError as error:
        where = f" ({error.file})" if error.file else ""
        hint = f"\n  {safe_line(error.hint)}" if error.hint else ""
        sys.stderr.write(f"hyperbox-agent: {safe_line(error.message + where)}{hint}\n")
        return 1
    except Exception:  # noqa: BLE001 - the edge: a name in it must not act on the terminal either
        sys.stderr.write(safe_text(traceback.format_exc()))
        return 1


def _alone(arguments: RunArguments) -> int:
    root = os.path.realpath(arguments.folder)
    home = own_folder(root)
    only = OnlyAgent(home, hint=f"end the hyperbox-agent that runs {root} first")
    try:
        return asyncio.run(_run(arguments, root, home))
    finally:
        only.close()


def _wrong(message: str) -> int:
    sys.stderr.write(f"hyperbox-agent: {safe_line(message)}\n")
    return 2
