"""`hyperbox status`: what runs, and what answers now."""

from __future__ import annotations

import os

from hyperbox_devcontainer.errors import NoSessionError, WorkstationError
from hyperbox_devcontainer.paths import project_home
from hyperbox_devcontainer.verbs.client import Client
from hyperbox_tui.cli.exits import DONE
from hyperbox_tui.cli.project import project_of
from hyperbox_tui.cli.reach import connect
from hyperbox_tui.view.spans import Span, columns
from hyperbox_tui.view.words import RUNG_WORDS, count, duration, problem_line, state_spans, where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hyperbox_devcontainer.paths import Project
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

PROBLEMS = 5
"""Of one target, at most; `status --json` has them all."""
ANSWER_SECONDS = 2.0


def run(args: Args, out: Output) -> int:
    """Say it for one project, or with --all for every one that is up."""
    projects = _everything(out) if args.on("all") else [_one(project_of(args, out.environ), out)]
    if out.as_json:
        out.json({"hub": {"running": False}, "projects": projects})
    elif projects:
        _print(projects, out)
    else:
        out.line("Nothing is up.")
    return DONE


def overview(out: Output) -> int:
    """`hyperbox` alone: what is up, or where to begin."""
    projects = _everything(out)
    if projects:
        _print(projects, out)
        return DONE
    out.line("Nothing is up.")
    out.lines(columns((
        ("  ", Span("hyperbox up", "press"), "keep this folder's program running while you edit"),
        ("  ", Span("hyperbox demo", "press"), "see it in half a minute"),
        ("  ", Span("hyperbox --help", "press"), "all verbs"))))
    return DONE


def _one(project: Project, out: Output) -> dict[str, Any]:
    try:
        with connect(project, out.environ) as client:
            return _asked(client)
    except NoSessionError:
        return _without_session(project, out)
    except WorkstationError as error:
        return _unreachable(project, error)


def _asked(client: Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.call("status", timeout=ANSWER_SECONDS)
    return answer | {"session": {"pid": client.pid}}


def _unreachable(project: Project, error: WorkstationError) -> dict[str, Any]:
    return {"name": project.name, "path": project.root, "targets": [],
            "session": {"pid": getattr(error, "pid", None), "error": error.as_json()}}


def _without_session(project: Project, out: Output) -> dict[str, Any]:
    from hyperbox_tui.cli.orphans import orphan_targets
    targets = orphan_targets(project_home(project, out.environ))
    return {"name": project.name, "path": project.root, "targets": targets, "session": None}


def _everything(out: Output) -> list[dict[str, Any]]:
    """Every project whose session listens."""
    from hyperbox_devcontainer.paths import runtime_dir
    folder = runtime_dir(out.environ)
    found = []
    for name in _names(folder):
        if not name.endswith(".sock"):
            continue
        try:
            with Client.connect(os.path.join(folder, name), timeout=0.5) as client:
                found.append(_asked(client))
        except WorkstationError:
            continue  # a socket that a killed session left, or one that is silent: `-C` says more
    return found


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _print(projects: list[dict[str, Any]], out: Output) -> None:
    for project in projects:
        _print_project(project, out)


def _print_project(project: dict[str, Any], out: Output) -> None:
    targets = project.get("targets") or []
    session = project.get("session")
    out.line(Span(str(project.get("name")), "title"), "  ",
             Span(short_path(str(project.get("path")), out), "dim"))
    if session and session.get("error"):
        out.line(Span(f"  {out.style.mark('warning')} ", "broken"), session["error"]["message"])
        out.line("    `hyperbox down` ends it")
        return
    if not targets:
        out.line(Span(f"  {out.style.mark('down')} down", "dim"), "  nothing is up: ",
                 Span("hyperbox up", "press"))
        return
    out.lines(columns(_row(target, out) for target in targets))
    for target in targets:
        _print_more(target, session, out)


def _row(target: dict[str, Any], out: Output) -> list[Span | str]:
    number = target.get("number")
    rung = RUNG_WORDS.get(str(target.get("rung") or ""), "")
    took = duration(target.get("ms")) if isinstance(target.get("ms"), int | float) else ""
    return [f"  {target.get('name')}", state_spans(target, out.style),
            Span(f"#{number}" if number is not None else out.style.mark("none"), "strong"),
            f"{rung} {took}".strip(), Span(str(target.get("url") or ""), "press")]


def _print_more(target: dict[str, Any], session: Any, out: Output) -> None:
    error = target.get("error")
    if error:
        place = where(error)
        out.line(Span(f"  {out.style.mark('broken')} {error.get('phase') or ''} ".rstrip() + " ",
                      "broken"), Span(f"{place}  " if place else "", "strong"),
                 str(error.get("message") or ""))
        if target.get("number") is not None and target.get("state") == "live":
            out.line(f"    #{target['number']} is serving")
    elif target.get("held") is not None:
        pending = int(target.get("pending") or 0)
        out.line(f"  {out.style.mark('quiet')} rolled back to #{target['held']}: "
                 f"{count(pending, 'file')} {'differs' if pending == 1 else 'differ'}; "
                 "the next save goes live")
    elif target.get("paused"):
        out.line(f"  {out.style.mark('quiet')} paused: ", Span("hyperbox resume", "press"),
                 f" lets {count(int(target.get('pending') or 0), 'saved file')} go live")
    elif target.get("pending"):
        pending = target["pending"]
        out.line(f"  {out.style.mark('working')} saves are waiting"
                 + (f": {pending}" if isinstance(pending, int) and pending > 1 else ""))
    for problem in (target.get("problems") or ())[:PROBLEMS]:
        out.line("  ", *problem_line(problem, out.style))
    if session is None:
        out.line("  no session: ", Span("hyperbox up", "press"), " takes it over, ",
                 Span("hyperbox down", "press"), " ends it")


def short_path(path: str, out: Output) -> str:
    """A path with the home folder as ``~``."""
    home = out.environ.get("HOME", "")
    inside = home and home != "/" and (path == home or path.startswith(home.rstrip("/") + "/"))
    return "~" + path[len(home.rstrip("/")):] if inside else path


