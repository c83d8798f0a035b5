"""Errors in words, on the error stream: what happened, where, what to do."""

from __future__ import annotations

from hyperbox_devcontainer.errors import ConfigError, WorkstationError
from hyperbox_tui.view.words import error_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hyperbox_tui.cli.output import Output


def report(out: Output, error: BaseException) -> None:
    """Say what went wrong. An error that nobody foresaw comes with its traceback, made harmless."""
    if out.as_json:
        _report_json(out, error)
    for problem in error.problems if isinstance(error, ConfigError) else (error,):
        if _is_ours(problem):
            out.errors(error_lines(str(problem), place_of(problem), getattr(problem, "hint", None)))
        else:
            _report_unforeseen(out, problem)


def place_of(error: BaseException) -> str:
    """``hyperbox.toml:12:3`` as far as it is known."""
    file = getattr(error, "file", None)
    if not file:
        return ""
    places = [getattr(error, "line", None), getattr(error, "column", None)]
    return ":".join([str(file), *(str(place) for place in places if place is not None)])


def _is_ours(error: BaseException) -> bool:
    if isinstance(error, WorkstationError):
        return True
    from hyperbox_agent.errors import AgentError
    return isinstance(error, AgentError)


def _report_json(out: Output, error: BaseException) -> None:
    from hyperbox_devcontainer.verbs.errors import error_json
    problems = error.problems if isinstance(error, ConfigError) else (error,)
    out.json({"error": error_json(problems[0]), "errors": [error_json(one) for one in problems]})
    out.flush()


def _report_unforeseen(out: Output, error: BaseException) -> None:
    from traceback import format_exception
    trace = "".join(format_exception(error)).rstrip().splitlines()
    out.errors([*([line] for line in trace),
                *error_lines(f"a fault of ours: {type(error).__name__}: {error}",
                             hint="please report it with the lines above")])
