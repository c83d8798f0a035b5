"""`hyperbox config`: every value of the project's configuration, and where it came from."""

from __future__ import annotations

from hyperbox_tui.cli.exits import DONE
from hyperbox_tui.cli.project import project_of
from hyperbox_tui.view.spans import Span, columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args


def run(args: Args, out: Output) -> int:
    """Show what `hyperbox up` would use now."""
    from hyperbox_devcontainer.config import load
    project = project_of(args, out.environ)
    config = load(project.root, out.environ, {"target": args.text("target")})
    values = config.values()
    if out.as_json:
        out.json({"project": project.name, "path": project.root, "file": config.file,
                  "target": config.target.name,
                  "values": {key: {"value": value, "origin": config.origin(key).kind,
                                   "where": config.origin(key).where}
                             for key, value in values.items()}})
        return DONE
    out.lines(columns([[Span(key, "press"), _shown(value), Span(config.origin(key).word, "dim")]
                       for key, value in values.items()]))
    for note in config.detected.notes if config.detected else ():
        out.line(Span(f"{out.style.mark('warning')} ", "working"), note)
    return DONE


def _shown(value: Any) -> Span:
    if value is None or value in ([], {}, ""):
        return Span("unset", "dim")
    if isinstance(value, bool):
        return Span("true" if value else "false")
    if isinstance(value, list | dict):
        import json
        return Span(json.dumps(value, ensure_ascii=False))
    return Span(str(value))
