"""`hyperbox logs`: what the program says, with a mark where a new generation went live."""

from __future__ import annotations

from hyperbox_devcontainer.errors import NoSessionError
from hyperbox_tui.cli.eventlines import EventLines
from hyperbox_tui.cli.exits import DONE, INTERRUPTED
from hyperbox_tui.cli.project import project_of
from hyperbox_tui.cli.reach import ANSWER_SECONDS, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

LINES = 100
WORDS = ("log", "generation", "state", "problem")


def run(args: Args, out: Output) -> int:
    """Show the last lines; with --follow go on until Ctrl-C or the session's end."""
    project = project_of(args, out.environ)
    lines = args.whole("lines")
    follow = args.on("follow")
    writer = _Writer(out, project.root)
    body = {"tail": LINES if lines is None else lines, "of": ["log"], "follow": follow,
            "words": ["log"] if out.as_json and not follow else list(WORDS)}
    with connect(project, out.environ) as client:
        try:
            for message in client.stream("events", body, timeout=ANSWER_SECONDS):
                writer.write(message)
                if follow:
                    out.flush()
        except KeyboardInterrupt:
            return DONE if follow else INTERRUPTED
        except NoSessionError:
            if not follow:
                raise
            return DONE  # it was followed to its end
    return DONE


class _Writer:
    def __init__(self, out: Output, root: str) -> None:
        self._out = out
        self._lines = EventLines(out.style, root)

    def write(self, message: dict[str, Any]) -> None:
        lost = message.get("lost")
        if self._out.as_json:
            self._out.json({"event": "lost", "count": lost} if lost else message["event"])
        elif lost:
            self._out.text(f"{self._lines.lost(lost)}\n")
        else:
            for line in self._lines.of(message["event"]):
                self._out.text(f"{line}\n")
