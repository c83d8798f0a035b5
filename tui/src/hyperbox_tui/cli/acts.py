"""`rollback`, `restart`, `pause`, `resume`: one question to the session, one line of answer."""

from __future__ import annotations

from hyperbox_tui.cli.exits import DONE, FAILED
from hyperbox_tui.cli.reach import call
from hyperbox_tui.view.words import generation_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

RELOAD_SECONDS = 120.0
"""A reload may reinstall an environment; the session has limits of its own for each step."""


def rollback(args: Args, out: Output) -> int:
    """Make an older generation live."""
    return _reload(args, out, "rollback", {"number": args.whole("n")})


def restart(args: Args, out: Output) -> int:
    """Restart the program."""
    return _reload(args, out, "restart", {"rung": args.text("rung")})


def pause(args: Args, out: Output) -> int:
    """Stop taking saves."""
    return _switch(args, out, "pause", "saves wait until `hyperbox resume`")


def resume(args: Args, out: Output) -> int:
    """Take saves again."""
    return _switch(args, out, "resume", "saves go live again")


def _reload(args: Args, out: Output, verb: str, body: dict[str, Any]) -> int:
    event = call(args, out.environ, verb, body, timeout=RELOAD_SECONDS)
    if out.as_json:
        out.json(event)
    else:
        out.lines(generation_lines(event, out.style))
    return DONE if event.get("verdict") == "committed" else FAILED


def _switch(args: Args, out: Output, verb: str, words: str) -> int:
    result = call(args, out.environ, verb)
    if out.as_json:
        out.json(result)
    else:
        out.line(words)
    return DONE
