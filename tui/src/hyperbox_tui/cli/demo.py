"""`hyperbox demo`: the whole promise in half a minute, kept by the real product and measured.

Every step states what must hold; what did not hold is said, and the exit status is 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from hyperbox_tui.cli import demo_app
from hyperbox_tui.cli.demo_load import Loader
from hyperbox_tui.cli.demo_stage import START_SECONDS, DemoError, Stage
from hyperbox_tui.cli.exits import DONE, FAILED
from hyperbox_tui.view.spans import Span
from hyperbox_tui.view.words import count, duration, rung_words, where

if TYPE_CHECKING:
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

CALM_SECONDS = 0.8
"""A person reads one line before the next comes; a script does not wait."""
FIRST_SECONDS = 1.0
"""Nobody edits in the first second; meanwhile the warm start is prepared."""


class Step(NamedTuple):
    """One step as it went."""

    name: str
    broken: tuple[str, ...]
    """The promises that did not hold; empty: all did."""
    words: list[Span]
    more: list[Span]
    facts: dict[str, Any]


def run(args: Args, out: Output) -> int:
    """Show it, or with --json tell what was measured."""
    began = time.monotonic()
    steps: list[Step] = []
    failure: DemoError | None = None
    if not out.as_json:
        _title(out)
    with Stage(out.environ) as stage:
        demo = _Demo(stage)
        try:
            for step in demo.steps():
                steps.append(step())
                if not out.as_json:
                    _show(steps[-1], out)
                    time.sleep(CALM_SECONDS)
        except DemoError as error:
            failure = error
    held = failure is None and not any(step.broken for step in steps)
    seconds = time.monotonic() - began
    if out.as_json:
        out.json(_report(held, seconds, steps, demo, failure))
    else:
        _close(held, seconds, steps, demo, failure, out)
    return DONE if held else FAILED


class _Demo:
    """The steps in their order. ``load`` is what the steady load saw in all of them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.load: dict[str, Any] | None = None

    def steps(self) -> tuple[Callable[[], Step], ...]:
        return (self.up, self.edit, self.broken, self.mend, self.switch, self.roll_back, self.down)

    def up(self) -> Step:
        began = time.perf_counter()
        self._stage.start()
        state = self._stage.wait_for(lambda event: event.get("event") == "state"
                                     and event.get("state") == "live", seconds=START_SECONDS)
        self._stage.wait_answer(lambda answer: answer.get("text") == "hello")
        took = (time.perf_counter() - began) * 1000
        self._stage.loader = Loader(self._stage.port)
        self._stage.wait_generation(0)
        time.sleep(FIRST_SECONDS)
        return Step("up", (), [Span("live ", "live"), Span(f"after {duration(took)}  "),
                               Span(str(state.get("url") or ""), "press")], [],
                    {"ms": round(took, 1), "url": state.get("url")})

    def edit(self) -> Step:
        return self._good_edit("edit", "good morning", "saved one file, and it answers")

    def mend(self) -> Step:
        return self._good_edit("mend", "good evening", "the next save goes forward")

    def _good_edit(self, name: str, text: str, says: str) -> Step:
        event, took = self._save(lambda: demo_app.write_greeting(self._stage.folder, text),
                                 lambda answer: answer.get("text") == text)
        broken = _unless((event.get("verdict") == "committed", "the save was not committed"))
        return Step(name, broken, _live(event, took), [Span(says, "dim")], _facts(event, took))

    def broken(self) -> Step:
        loader = self._loader()
        mark, after = loader.mark(), len(self._stage.events)
        demo_app.break_greeting(self._stage.folder)
        event = self._stage.wait_generation(after)
        time.sleep(0.5)  # what clients see of it is counted for a moment
        load = loader.since(mark)
        error = event.get("error") or {}
        broken = _unless(
            (event.get("verdict") == "rolled_back", "the broken save was not rolled back"),
            (error.get("path") == "greeting.py" and error.get("line") is not None,
             "the error does not name its file and line"),
            (load.requests > 0 and not load.failed, f"{load.failed} requests failed"),
            (self._answers("good morning"), "the old version does not answer"))
        words = [Span("rolled back  ", "broken"), Span(where(error), "strong"),
                 Span(f"  {error.get('message') or ''}")]
        more = [Span(f"#{event.get('serving')} goes on", "live"),
                Span(f": {count(load.requests, 'answer')} meanwhile, {load.failed} failed", "dim")]
        return Step("break", broken, words, more, {
            "number": event.get("number"), "verdict": event.get("verdict"), "error": error,
            "serving": event.get("serving"), "requests": load.requests, "failed": load.failed})

    def switch(self) -> Step:
        after = len(self._stage.events)
        event, took = self._save(lambda: demo_app.write_parts(self._stage.folder, 2),
                                 lambda answer: answer.get("editions") == [2])
        self._stage.verb("flush")
        generations = [one for one in self._stage.events[after:]
                       if one.get("event") == "generation" and one.get("verdict") != "superseded"]
        broken = _unless(
            (event.get("verdict") == "committed", "the switch was not committed"),
            (len(generations) == 1, f"it took {len(generations)} generations"),
            (event.get("files") == demo_app.PARTS, f"{event.get('files')} files were seen"))
        return Step("switch", broken, _live(event, took),
                    [Span(f"{count(demo_app.PARTS, 'file')} at once: one generation, one reload",
                          "dim")], {**_facts(event, took), "generations": len(generations)})

    def roll_back(self) -> Step:
        before = self._stage.sources()
        began = time.perf_counter()
        status, event = self._stage.verb("rollback")
        took = (self._stage.wait_answer(lambda answer: answer.get("editions") == [1])
                - began) * 1000
        broken = _unless(
            (status == DONE, str((event.get("error") or {}).get("message") or "it failed")),
            (self._answers("good evening"), "the older version does not answer"),
            (self._stage.sources() == before, "a source file was changed"))
        total = (event.get("ms") or {}).get("total", took)
        return Step("roll back", broken, _live(event, total),
                    [Span("the generation before answers; your files are as you left them",
                          "dim")], _facts(event, total))

    def down(self) -> Step:
        loader = self._loader()
        loader.close()
        self.load = loader.since()._asdict()
        began = time.perf_counter()
        status = self._stage.stop()
        took = (time.perf_counter() - began) * 1000
        left = self._stage.left_over()
        broken = _unless((status == DONE, f"`up` ended with status {status}"),
                         (not left, f"left behind: {', '.join(left)}"))
        return Step("down", broken, [Span("down ", "dim"), Span(f"after {duration(took)}")],
                    [Span("no process, no port, no file is left", "dim")],
                    {"ms": round(took, 1), "left": left})

    def _save(self, write: Callable[[], None],
              seen: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], float]:
        """Save, and the time from before it until the first new answer was whole."""
        after = len(self._stage.events)
        began = time.perf_counter()
        write()
        took = (self._stage.wait_answer(seen) - began) * 1000
        return self._stage.wait_generation(after), took

    def _answers(self, text: str) -> bool:
        try:
            self._stage.wait_answer(lambda answer: answer.get("text") == text)
        except DemoError:
            return False
        return True

    def _loader(self) -> Loader:
        assert self._stage.loader is not None
        return self._stage.loader


def _unless(*promises: tuple[bool, str]) -> tuple[str, ...]:
    return tuple(words for held, words in promises if not held)


def _live(event: dict[str, Any], took: float) -> list[Span]:
    return [Span(f"{duration(took)}  ", "live"), Span(rung_words(event))]


def _facts(event: dict[str, Any], took: float) -> dict[str, Any]:
    return {"number": event.get("number"), "verdict": event.get("verdict"),
            "rung": event.get("rung"), "why": event.get("why"), "files": event.get("files"),
            "ms": round(took, 1), "phases": event.get("ms")}


# What is shown


def _title(out: Output) -> None:
    out.line()
    out.line("  ", Span("HyperBox", "title"), Span("  a small web app, and what a save costs",
                                                  "dim"))
    out.line()
    out.flush()


def _show(step: Step, out: Output) -> None:
    mark = Span(out.style.mark("broken" if step.broken else "done") + " ",
                "broken" if step.broken else "live")
    number = step.facts.get("number")
    shown = f"#{number}" if number is not None else ""
    out.line("  ", mark, Span(f"{step.name:<11}", "strong"), Span(f"{shown:<4}", "dim"),
             *step.words)
    if step.more:
        out.line(" " * 19, *step.more)
    for words in step.broken:
        out.line(" " * 19, Span(words, "broken"))
    out.line()
    out.flush()


def _close(held: bool, seconds: float, steps: list[Step], demo: _Demo, failure: DemoError | None,
           out: Output) -> None:
    if demo.load is not None:
        load = demo.load
        out.line("  under load all the while: ", Span(count(load["requests"], "request"), "strong"),
                 ", ", Span(f"{load['failed']} failed", "broken" if load["failed"] else "live"),
                 f", the slowest {duration(load['slowest_ms'])}")
    if failure is not None:
        raise failure
    if held:
        out.line("  every promise held, in ", f"{seconds:.0f} s. Now yours: ",
                 Span("hyperbox up", "press"))
    else:
        count_broken = sum(len(step.broken) for step in steps)
        out.line(Span(f"  {count(count_broken, 'promise')} did not hold", "broken"))
    out.line()


def _report(held: bool, seconds: float, steps: list[Step], demo: _Demo,
            failure: DemoError | None) -> dict[str, Any]:
    return {"ok": held, "seconds": round(seconds, 1),
            "steps": [{"name": step.name, "ok": not step.broken, "broken": list(step.broken),
                       **step.facts} for step in steps],
            "load": demo.load, "error": failure.as_json() if failure else None}
