"""`hyperbox doctor`: what this machine and this project give, and what mends the rest."""

from __future__ import annotations

from hyperbox_tui.cli.exits import DONE, FAILED
from hyperbox_tui.cli.project import project_of
from hyperbox_tui.view.spans import Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args
    from hyperbox_tui.cli.probes import Finding

_MARKS = {"good": ("done", "live"), "warning": ("warning", "working"), "bad": ("broken", "broken")}


def run(args: Args, out: Output) -> int:
    """Probe and tell; 1 where something is wrong that keeps `up` from working."""
    from hyperbox_tui.cli.probes import probe_all
    project = project_of(args, out.environ)
    findings = []
    for finding in probe_all(project, out.environ):
        findings.append(finding)
        if not out.as_json:
            _print(finding, out)
            out.flush()
    if out.as_json:
        out.json({"project": project.name, "path": project.root,
                  "findings": [finding._asdict() for finding in findings]})
    return FAILED if any(finding.verdict == "bad" for finding in findings) else DONE


def _print(finding: Finding, out: Output) -> None:
    mark, role = _MARKS[finding.verdict]
    out.line(Span(f"{out.style.mark(mark)} ", role), Span(f"{finding.probed}: ", "strong"),
             finding.found)
    if finding.mend:
        out.line("    ", Span(finding.mend, "press"))
