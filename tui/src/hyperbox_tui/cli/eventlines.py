"""Events as lines of text, for `up` and `logs`."""

from __future__ import annotations

import os

from hyperbox_tui.view.spans import Span, paint
from hyperbox_tui.view.text import program_line
from hyperbox_tui.view.words import count, generation_lines, problem_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from hyperbox_tui.view.spans import Style

_SOURCE_LIMIT = 1_000_000


class EventLines:
    """Turns events into lines; remembers only what it has said already."""

    def __init__(self, style: Style, root: str) -> None:
        self._style = style
        self._root = root
        self._url: str | None = None
        self._state = "starting"
        self._refused = False

    def of(self, event: Mapping[str, Any]) -> list[str]:
        """The lines of one event; none for what a person need not see."""
        word = str(event.get("event"))
        if word == "log":
            return [program_line(str(event.get("text", "")), colour=self._style.colour)]
        if word == "dropped":
            return [self.lost(int(event.get("count") or 0))]
        make = _MAKERS.get(word)
        return [paint(line, self._style) for line in make(self, event)] if make else []

    def lost(self, number: int) -> str:
        """What stands in the place of events that could not be kept."""
        return paint([Span(f"{self._style.mark('ellipsis')} ", "dim"),
                      Span(f"{count(number, 'line')} not shown", "dim")], self._style)

    def _generation(self, event: Mapping[str, Any]) -> Sequence[Sequence[Span]]:
        error = event.get("error") or {}
        self._refused = event.get("verdict") == "rolled_back"
        return generation_lines(event, self._style, source=self._source(error))

    def _source(self, error: Mapping[str, Any]) -> str | None:
        """The line that an error names, as it stands in the source now."""
        path, number = error.get("path"), error.get("line")
        if not isinstance(path, str) or not isinstance(number, int) or number < 1:
            return None
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                lines = file.read(_SOURCE_LIMIT).split(b"\n")
        except OSError:
            return None
        return lines[number - 1].decode("utf-8", "replace") if number <= len(lines) else None

    def _live(self, event: Mapping[str, Any]) -> Sequence[Sequence[Span]]:
        state, url = str(event.get("state")), event.get("url")
        if self._refused and state == "live" == self._state and not event.get("error"):
            self._refused = False
            return [[Span(f"{self._style.mark('live')} ", "live"),
                     Span(f"#{event.get('number')} ", "strong"),
                     Span("is what the files say again")]]
        if state == self._state and (url == self._url or state != "live"):
            return []
        came_back = self._state not in ("starting", "live")
        new_url = state == "live" and url and url != self._url
        self._state = state
        if state == "live":
            self._url = url or self._url
        if state == "live" and not (new_url or came_back):
            return []
        return [self._state_line(state, event)]

    def _state_line(self, state: str, event: Mapping[str, Any]) -> list[Span]:
        number = f" #{event['number']}" if event.get("number") is not None else ""
        words = {"live": ("live", "live", f"live{number}"),
                 "broken": ("broken", "broken", "nothing answers"),
                 "offline": ("warning", "broken", "offline, saves wait"),
                 "starting": ("working", "working", "starting"),
                 "down": ("down", "dim", "down")}
        mark, role, text = words.get(state, ("quiet", "", state))
        url = str(event.get("url") or "") if state == "live" else ""
        return [Span(f"{self._style.mark(mark)} {text}", role), Span(f"  {url}" if url else "",
                                                                    "press")]

    def _problem(self, event: Mapping[str, Any]) -> Sequence[Sequence[Span]]:
        lines = [problem_line(event, self._style)]
        if event.get("hint"):
            lines.append([Span("  "), Span(str(event["hint"]), "press")])
        return lines

    def _stopping(self, event: Mapping[str, Any]) -> Sequence[Sequence[Span]]:
        words = "ending it hard" if event.get("again") else "going down; Ctrl-C again hurries it"
        return [[Span(f"{self._style.mark('working')} {words}", "dim")]]


_MAKERS = {
    "generation": EventLines._generation,
    "state": EventLines._live,
    "problem": EventLines._problem,
    "stopping": EventLines._stopping,
}
