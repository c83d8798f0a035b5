"""What the program wrote at the paths that its user wants back, found by looking at the tree."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from hyperbox_agent.apply.damage import look_at
from hyperbox_agent.apply.folders import Folders, facts_of
from hyperbox_agent.core.entries import Entry, Kind, Manifest
from hyperbox_agent.core.plan import parent_of
from hyperbox_agent.core.pulls import PullRules
from hyperbox_agent.store.born import birth
from hyperbox_agent.store.record import stamp


class Written:
    """Looks again and again, and reads only files whose ``stat`` says something new."""

    def __init__(self, rules: PullRules) -> None:
        self._rules = rules
        self._known: dict[str, tuple[int, Entry]] = {}
        self.folders: frozenset[str] = frozenset()
        """The folders of the last look: where something can appear that counts."""

    def look(self, root: Folders, recorded: Manifest) -> dict[str, Entry]:
        """What stands at pulled paths, with the folders above. Raises OSError for a lost root.

        Looked at are the folders that were put there and those that count themselves; a folder
        that the program made for itself is not entered.
        """
        found: dict[str, Entry] = {}
        looked: set[str] = set()
        waiting = ["", *(path for path, entry in recorded.items() if entry.kind is Kind.DIR)]
        while waiting:
            folder = waiting.pop()
            if folder not in looked:
                looked.add(folder)
                waiting.extend(self._list(root, folder, found))
        self.folders = frozenset(looked)
        self._known = {path: known for path, known in self._known.items() if path in found}
        for path in list(found):
            _add_parents(path, found)
        return found

    def recorded(self, recorded: Manifest, found: Manifest) -> dict[str, Entry]:
        """The part of ``recorded`` that counts, with the folders above."""
        part = {path: entry for path, entry in recorded.items()
                if path in found or self._rules(path, is_dir=entry.kind is Kind.DIR)}
        for path in list(part):
            _add_parents(path, part)
        return part

    def _list(self, root: Folders, folder: str, found: dict[str, Entry]) -> Iterable[str]:
        try:
            names = os.listdir(root.open(folder))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return ()
        below = []
        for name in names:
            path = f"{folder}/{name}" if folder else name
            # A folder is the more general case: what does not count as one does not count at all.
            if not self._rules(path, is_dir=True):
                continue
            entry = self._entry(root, path)
            if entry is not None and self._rules(path, is_dir=entry.kind is Kind.DIR):
                found[path] = entry
                if entry.kind is Kind.DIR:
                    below.append(path)
        return below

    def _entry(self, root: Folders, path: str) -> Entry | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder, name = root.parent(path)
            facts = facts_of(name, folder)
            if facts is None:
                return None
            first = stamp(facts, birth(name, folder))
            mark = first ^ stat.S_IMODE(facts.st_mode)
            known = self._known.get(path)
            if known is not None and known[0] == mark:
                return known[1]
            entry = look_at(root, path, facts, None)
            after = facts_of(name, folder)
            if entry is None or after is None or stamp(after, birth(name, folder)) != first:
                return None  # Being written: the end of that is an event of its own.
            self._known[path] = (mark, entry)
            return entry
        return None


def _add_parents(path: str, found: dict[str, Entry]) -> None:
    parent = parent_of(path)
    while parent and parent not in found:
        found[parent] = Entry(parent, Kind.DIR, 0o755)
        parent = parent_of(parent)


def still_there(root: Folders, entries: Iterable[Entry]) -> tuple[list[Entry], dict[str, int]]:
    """Those of ``entries`` that stand in the tree, parents first, and the stamps of the files."""
    standing: list[Entry] = []
    stamps: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: entry.path):
        try:
            folder, name = root.parent(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        facts = facts_of(name, folder)
        now = None if facts is None else look_at(root, entry.path, facts, None)
        if facts is not None and now is not None and now.same(entry):
            standing.append(now)
            if entry.kind is not Kind.DIR:
                stamps[entry.path] = stamp(facts, birth(name, folder))
    return standing, stamps
