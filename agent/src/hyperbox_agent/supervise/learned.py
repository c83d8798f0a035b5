"""What programs import from outside their own trees, kept between runs: ``home/learned.json``."""

from __future__ import annotations

from collections.abc import Iterable

from hyperbox_agent.jsonfile import read_json, write_json

_LIMIT = 5000
"""Names kept for one interpreter; a program with more is no less warm for it."""


class LearnedModules:
    """Module names by interpreter. A damaged file counts as empty: it is learned again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[str, list[str]] = _read(path)

    def of(self, interpreter: str) -> tuple[str, ...]:
        """In the order in which they were learned, which is an order that can be imported."""
        return tuple(self._names.get(interpreter, ()))

    def add(self, interpreter: str, names: Iterable[str]) -> int:
        """Add names; gives how many are new. They are saved at once."""
        known = self._names.setdefault(interpreter, [])
        seen = set(known)
        fresh = [name for name in names if name not in seen][:max(_LIMIT - len(known), 0)]
        if fresh:
            known.extend(fresh)
            self._save()
        return len(fresh)

    def replace(self, interpreter: str, names: Iterable[str]) -> None:
        """Forget what was known (the environment was installed anew)."""
        self._names[interpreter] = list(names)[:_LIMIT]
        self._save()

    def _save(self) -> None:
        write_json(self._path, self._names)


def _read(path: str) -> dict[str, list[str]]:
    data = read_json(path)
    if not isinstance(data, dict):
        return {}
    return {key: [name for name in names if isinstance(name, str)]
            for key, names in data.items() if isinstance(key, str) and isinstance(names, list)}
