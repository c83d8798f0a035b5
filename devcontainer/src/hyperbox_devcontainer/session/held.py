"""That a roll-back holds until the next save, whatever is killed and started meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.core.entries import Manifest
from hyperbox_agent.errors import StoreError
from hyperbox_agent.jsonfile import NEW, read_json, write_json

HELD = "held.json"
"""The file in a project's folder: of each target that was rolled back, to what and from what."""


class Held:
    """Which older generation one target was rolled back to, written down.

    It holds while the source is what it was then: a save that nobody saw (no session was up) shows
    in the content, too.
    """

    def __init__(self, state_dir: str, target: str) -> None:
        self._path = os.path.join(state_dir, HELD)
        self._target = target
        found = _load(self._path).get(target, {})
        number = found.get("number") if isinstance(found, dict) else None
        self.number: int | None = number if isinstance(number, int) else None
        """The generation that was gone back to; None: the source is what is to be live."""
        self._source = found.get("source") if self.number is not None else None

    def at(self, number: int, source: Manifest) -> None:
        """The target was rolled back to ``number``, away from ``source``.

        Raises StoreError where that can't be written down; it holds for this session then.
        """
        self.number, self._source = number, fingerprint(source)
        self._save({"number": number, "source": self._source})

    def over(self) -> None:
        """A save went live, or everything was brought down."""
        if self.number is not None:
            self.number = self._source = None
            with contextlib.suppress(StoreError):  # the source is another by then, so it tells
                self._save(None)

    def holds(self, source: Manifest) -> bool:
        """Whether nothing was saved since."""
        return self.number is not None and self._source == fingerprint(source)

    def _save(self, value: Mapping[str, Any] | None) -> None:
        known = _load(self._path)
        known.pop(self._target, None)
        if value is not None:
            known[self._target] = dict(value)
        try:
            write_json(self._path, known)
        except OSError as error:
            raise StoreError(f"the roll-back can't be written down: {error.strerror}",
                             file=self._path) from error


def forget_held(state_dir: str) -> None:
    """Everything was brought down: what is started next is the source."""
    for name in (HELD, HELD + NEW):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(state_dir, name))


def fingerprint(source: Manifest) -> str:
    """Equal for trees with the same content."""
    digest = hashlib.sha256()
    for path in sorted(source):
        entry = source[path]
        mode = "x" if entry.kind.value == "file" and entry.executable else "-"
        digest.update(f"{path}\0{entry.kind.value}{mode}".encode("utf-8", "surrogateescape"))
        digest.update(entry.digest.rjust(32, b"\0"))
    return digest.hexdigest()


def _load(path: str) -> dict[str, Any]:
    known = read_json(path)
    return known if isinstance(known, dict) else {}
