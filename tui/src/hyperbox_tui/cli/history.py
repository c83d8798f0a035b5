"""`hyperbox history`: the generations, newest first. Read from the file; needs no session."""

from __future__ import annotations

import time

from hyperbox_devcontainer.paths import history_file
from hyperbox_tui.cli.exits import DONE
from hyperbox_tui.cli.project import project_of
from hyperbox_tui.view.spans import Span, columns
from hyperbox_tui.view.words import duration, names, rung_words, where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

LIMIT = 20


def run(args: Args, out: Output) -> int:
    """Show them."""
    from hyperbox_devcontainer.history import read_history
    project = project_of(args, out.environ)
    limit = args.whole("limit")
    events = read_history(history_file(project, out.environ), LIMIT if limit is None else limit)
    if out.as_json:
        out.json({"generations": events})
    elif not events:
        out.line(f"{project.name} has no history yet: ", Span("hyperbox up", "press"))
    else:
        head = [Span(word, "dim") for word in ("GEN", "WHEN", "FILES", "RUNG", "TOTAL", "VERDICT")]
        out.lines(columns([head, *(_row(event, out) for event in events)]))
    return DONE


def _row(event: dict[str, Any], out: Output) -> list[Span | str]:
    total = (event.get("ms") or {}).get("total")
    committed = event.get("verdict") == "committed"
    return [Span(f"#{event.get('number')}", "strong"), Span(_when(event.get("time")), "dim"),
            str(event.get("files", "")).rjust(5),
            rung_words(event) if committed else out.style.mark("none"),
            duration(total).rjust(7), *_verdict(event, out)]


def _verdict(event: dict[str, Any], out: Output) -> list[Span]:
    verdict = event.get("verdict")
    if verdict == "committed":
        what = f"rolled back to #{event.get('number')}" if event.get("rollback") else \
            names(event) or event.get("why") or ""
        return [Span(f"{out.style.mark('live')} {what}".rstrip(), "live")]
    if verdict == "superseded":
        return [Span(f"{out.style.mark('quiet')} superseded", "dim")]
    error = event.get("error") or {}
    return [Span(f"{out.style.mark('broken')} {error.get('phase') or 'rolled back'} "
                 f"{where(error)} {error.get('message') or ''}".rstrip(), "broken")]


def _when(at: Any) -> str:
    if not isinstance(at, int | float):
        return ""
    then = time.localtime(at)
    today = time.localtime()[:3] == then[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", then)
