"""`hyperbox bench`: how fast a save goes live on this machine, and what the port's relay costs."""

from __future__ import annotations

from hyperbox_tui.cli.exits import DONE
from hyperbox_tui.cli.own import own_command
from hyperbox_tui.view.spans import Span, columns
from hyperbox_tui.view.words import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

EDITS = 20


def run(args: Args, out: Output) -> int:
    """Measure in a temporary folder and show it."""
    from hyperbox_devcontainer.selfbench import measure
    edits = args.whole("edits") or EDITS
    if not out.as_json:
        out.line(Span(f"{edits} edits of a small web app, in a temporary folder", "dim"))
        out.flush()
    found = measure(own_command("up", "--json"), edits=edits)
    if out.as_json:
        out.json(found.as_json())
        return DONE
    out.lines(columns((
        ["edit to new answer", Span(duration(found.edit_p50), "live"), Span("median", "dim")],
        ["", duration(found.edit_p95), Span("95th percentile", "dim")],
        ["the relay's price", f"{found.relay_kept:+.3f} ms",
         Span("a request on a kept connection", "dim")],
        ["", f"{found.relay_new:+.3f} ms", Span("on a new connection", "dim")])))
    out.line(Span("Beside other tools: ./dev bench in a checkout.", "dim"))
    return DONE
