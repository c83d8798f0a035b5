"""`hyperbox flush`: wait until every save made before is live or rolled back."""

from __future__ import annotations

from hyperbox_tui.cli.exits import DONE, ROLLED_BACK
from hyperbox_tui.cli.reach import SLACK_SECONDS, call
from hyperbox_tui.view.spans import Span
from hyperbox_tui.view.words import error_lines, where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

LIMIT_SECONDS = 60.0


def run(args: Args, out: Output) -> int:
    """Wait; 3 where the newest save was rolled back on any target."""
    limit = args.seconds("timeout", LIMIT_SECONDS)
    result = call(args, out.environ, "flush", {"timeout": limit}, timeout=limit + SLACK_SECONDS)
    targets = result.get("targets") or []
    if out.as_json:
        out.json(result)
    else:
        for target in targets:
            _print(target, out)
    broken = any(target.get("verdict") == "rolled_back" for target in targets)
    return ROLLED_BACK if broken else DONE


def _print(target: dict[str, Any], out: Output) -> None:
    number, serving = target.get("number"), target.get("serving")
    if target.get("verdict") == "rolled_back":
        error = target.get("error") or {}
        out.errors(error_lines(f"#{number} was rolled back: {error.get('message') or ''}",
                               where(error), error.get("hint")))
        out.errors([[f"  #{serving} is serving" if serving is not None else "  nothing answers"]])
    elif serving is None:
        out.line("nothing was saved yet")
    else:
        rolled = number is not None and number != serving
        out.line(Span(f"{out.style.mark('live')} ", "live"), Span(f"#{serving}", "strong"),
                 f" is live, by a rollback from #{number}" if rolled else " is live")
