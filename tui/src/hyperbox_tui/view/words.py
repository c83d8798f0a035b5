"""Events and states in words: the same on every screen and in every line of text output."""

from __future__ import annotations

from hyperbox_tui.view.spans import Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from hyperbox_tui.view.spans import Style

RUNG_WORDS = {
    "nothing": "nothing to reload", "notify": "no restart needed", "patch": "in-process patch",
    "warm": "warm restart", "restore": "restored", "cold": "cold restart",
    "reinstall": "reinstall and restart", "rebuild": "environment rebuilt",
}
STATE_MARKS = {"live": "live", "starting": "working", "broken": "broken", "down": "down",
               "offline": "warning"}
STATE_ROLES = {"live": "live", "starting": "working", "broken": "broken", "offline": "broken",
               "down": "dim"}
_SHOWN_NAMES = 3


def duration(ms: float | None) -> str:
    """Milliseconds as a person reads them."""
    if ms is None:
        return ""
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 120_000 else f"{ms / 60_000:.0f} min"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 file``, ``2 files``, ``3,000 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")


def rung_words(event: Mapping[str, Any]) -> str:
    """What the rung did, in words."""
    rung = str(event.get("rung") or "")
    return RUNG_WORDS.get(rung, rung)


def names(event: Mapping[str, Any]) -> str:
    """The first names of a generation's files."""
    paths = [str(path) for path in event.get("paths") or ()]
    total = int(event.get("files") or len(paths))
    shown = ", ".join(paths[:_SHOWN_NAMES])
    return f"{shown}, …" if paths and total > min(len(paths), _SHOWN_NAMES) else shown


def where(error: Mapping[str, Any]) -> str:
    """``app.py:31:18`` as far as it is known."""
    path = error.get("path") or error.get("file")
    if not path:
        return ""
    places = [str(error[key]) for key in ("line", "column") if error.get(key) is not None]
    return ":".join([str(path), *places])


def problem_line(problem: Mapping[str, Any], style: Style) -> list[Span]:
    """Something that stopped nothing: where and what."""
    place = where(problem)
    return [Span(f"{style.mark('warning')} ", "working"), Span(f"{place}: " if place else "",
                                                               "strong"),
            Span(str(problem.get("message") or ""))]


def generation_lines(event: Mapping[str, Any], style: Style, *,
                     source: str | None = None) -> list[list[Span]]:
    """A generation as ``up`` and ``logs`` show it: one line, a broken one with what to see.

    ``source``: the text of the line that the error names.
    """
    if event.get("verdict") == "committed":
        return [_committed(event, style)]
    if event.get("verdict") == "superseded":
        return [[Span(f"{style.mark('quiet')} #{event.get('number')} ", "dim"),
                 Span("superseded by the next save", "dim")]]
    return _rolled_back(event, style, source)


def _committed(event: Mapping[str, Any], style: Style) -> list[Span]:
    total = (event.get("ms") or {}).get("total")
    if event.get("already"):
        return [Span(f"{style.mark('live')} {event.get('why')}", "live")]
    what = "started" if event.get("first") else rung_words(event)
    changed = "" if event.get("first") else _why_nothing(event) or names(event)
    files = int(event.get("files") or 0)
    return [Span(f"{style.mark('live')} ", "live"), Span(f"#{event.get('number')} ", "strong"),
            Span(f"{what} "), Span(duration(total), "live"),
            Span(f"  {count(files, 'file')}  " if files else "", "dim"), Span(changed, "dim"),
            Span(f"  {_why_cold(event)}".rstrip(), "dim")]


def _why_nothing(event: Mapping[str, Any]) -> str:
    """Why nothing had to be reloaded, which names the file."""
    return str(event.get("why") or "") if event.get("rung") == "nothing" else ""


def _why_cold(event: Mapping[str, Any]) -> str:
    """What kept a restart from being warm, as the reason says it after its last ``; ``."""
    reason = str(event.get("why") or "").rpartition("; ")[2]
    named = reason.startswith(("not warm: ", "cold: "))
    return reason if event.get("rung") == "cold" and named and not event.get("first") else ""


def _rolled_back(event: Mapping[str, Any], style: Style, source: str | None) -> list[list[Span]]:
    error: Mapping[str, Any] = event.get("error") or {}
    message = str(error.get("message") or event.get("why") or "rolled back")
    first, *more = message.splitlines() or [message]
    lines = [[Span(f"{style.mark('broken')} ", "broken"),
              Span(f"#{event.get('number')} ", "strong"),
              Span(f"{error.get('phase') or 'rolled back'}  ", "broken"),
              Span(f"{where(error)}  " if where(error) else "", "strong"), Span(first)]]
    if source is not None:
        lines += source_lines(error, source)
    lines += [[Span(f"    {line}", "dim")] for line in more[-12:]]
    if error.get("hint"):
        lines.append([Span(f"    {style.mark('arrow')} {error['hint']}")])
    serving = event.get("serving")
    lines.append([Span("    rolled back: "),
                  Span(f"#{serving} is serving" if serving is not None else "nothing is serving",
                       "live" if serving is not None else "broken")])
    return lines


def source_lines(error: Mapping[str, Any], source: str) -> list[list[Span]]:
    """The line of an error, and a caret below its column where that is known."""
    text = source.rstrip().replace("\t", " ")
    number = str(error.get("line") or "")
    cut = len(text) - len(text.lstrip())
    lines = [[Span(f"    {number} | ", "dim"), Span(text[cut:])]]
    column = error.get("column")
    if isinstance(column, int) and cut < column <= len(text) + 1:
        lines.append([Span(" " * (4 + len(number)) + " | ", "dim"),
                      Span(" " * (column - 1 - cut) + "^", "broken")])
    return lines


def state_spans(target: Mapping[str, Any], style: Style) -> Span:
    """The mark and the word of a target's state."""
    state = str(target.get("state") or "down")
    if state == "live" and target.get("error"):
        return Span(f"{style.mark('broken')} rolled back", "broken")
    mark = style.mark(STATE_MARKS.get(state, "quiet"))
    return Span(f"{mark} {state}", STATE_ROLES.get(state, ""))


def error_lines(message: str, place: str = "", hint: str | None = None,
                who: str = "hyperbox") -> list[list[Span]]:
    """What happened, where, what to do."""
    first, *more = message.splitlines() or [""]
    lines = [[Span(f"{who}: ", "broken"), Span(f"{place}: " if place else "", "strong"),
              Span(first)]]
    lines += [[Span(f"  {line}")] for line in more]
    if hint:
        lines.append([Span("  "), Span(hint, "press")])
    return lines

