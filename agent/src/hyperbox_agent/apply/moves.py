"""The steps of a batch with the concrete places that they take from and keep in.

A move is idempotent: carried out a second time, after a crash, it finds its source gone and does
nothing. So a journal of moves can be replayed from any point. Sources and keeps are relative to the
home; a keep receives what stood in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hyperbox_agent.core.entries import Change, Kind
from hyperbox_agent.core.plan import Op, Step

FILE_MODE = 0o666
EXECUTABLE_MODE = 0o777
FOLDER_MODE = 0o777
"""Before the umask of the process that applies: the target's, so that the program's other users
read what they would read after a checkout there."""


@dataclass(frozen=True, slots=True)
class Move:
    """One step, ready to be carried out."""

    op: Op
    path: str
    source: str = ""
    """PLACE: the staged file or folder. RESPELL: the path in the tree with the old spelling."""
    keep: str = ""
    folder: bool = False
    """PLACE: the source is a folder."""
    executable: bool = False

    def as_json(self) -> list[Any]:
        """For the journal."""
        return [self.op.value, self.path, self.source, self.keep, int(self.folder),
                int(self.executable)]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Move:
        """The inverse. Raises ValueError, TypeError."""
        op, path, source, keep, folder, executable = data
        return cls(Op(op), str(path), str(source), str(keep), bool(folder), bool(executable))


def moves_for(steps: Iterable[Step], stage: str, trash: str) -> tuple[Move, ...]:
    """Of step *i* what is new is staged at ``<stage>/<i>``, what is old kept at ``<trash>/<i>``."""
    out: list[Move] = []
    for index, step in enumerate(steps):
        keep = f"{trash}/{index}"
        executable = step.entry is not None and step.entry.executable
        source = f"{stage}/{index}" if step.op is Op.PLACE else step.source
        out.append(Move(step.op, step.path, source, keep, step.tree, executable))
    return tuple(out)


def undo_moves(moves: Sequence[Move], changes: Iterable[Change],
               is_there: Callable[[str], bool]) -> tuple[Move, ...]:
    """The moves that lead back from any point inside ``moves``; removals come last.

    ``is_there`` says whether a path below the home exists: what was kept decides what is put back.
    """
    by_path = {change.path: change for change in changes}
    inside = _by_folder([move.path for move in moves if move.folder], by_path)
    back: list[Move] = []
    gone: list[Move] = []
    for move in reversed(moves):
        for undone in _undo(move, by_path.get(move.path), inside, is_there):
            last = undone.op in (Op.REMOVE, Op.REMOVE_FOLDER)
            (gone if last else back).append(undone)
    gone.sort(key=lambda move: move.path, reverse=True)
    return (*back, *gone)


def _by_folder(folders: Iterable[str], by_path: dict[str, Change]) -> dict[str, list[Change]]:
    """For each folder that was placed as a whole: it, and what was new in it."""
    out: dict[str, list[Change]] = {folder: [] for folder in folders}
    if out:
        for path, change in by_path.items():
            at = len(path)
            while at > 0 and path[:at] not in out:
                at = path.rfind("/", 0, at)
            if at > 0 and change.new is not None:
                out[path[:at]].append(change)
    return out


def _undo(move: Move, change: Change | None, inside: dict[str, list[Change]],
          is_there: Callable[[str], bool]) -> Iterable[Move]:
    if move.op is Op.RESPELL:
        return [Move(Op.RESPELL, move.source, move.path, move.keep)]
    if move.op is Op.MODE:
        old = change.old if change else None
        return [Move(Op.MODE, move.path, executable=bool(old and old.executable))]
    if move.op is Op.REMOVE_FOLDER:
        return [Move(Op.FOLDER, move.path, keep=move.keep)]
    if move.op is Op.REMOVE:
        return _put_back(move.path, move.keep, "", is_there)
    if move.op is Op.PLACE and not move.folder:
        return _undo_file(move, change, is_there)
    if move.op is Op.PLACE:
        return _undo_folder(move, change, inside[move.path], is_there)
    return []


def _undo_file(move: Move, change: Change | None, is_there: Callable[[str], bool]) -> list[Move]:
    if is_there(move.source):
        return []  # Never placed: what stands there stood there before.
    if is_there(move.keep):
        was_folder = change is not None and change.old is not None and change.old.kind is Kind.DIR
        return [Move(Op.PLACE, move.path, move.keep, move.source, was_folder)]
    return [Move(Op.REMOVE, move.path, keep=move.source)]


def _undo_folder(move: Move, change: Change | None, inside: Iterable[Change],
                 is_there: Callable[[str], bool]) -> list[Move]:
    if change is not None and change.old is not None and is_there(move.keep):
        return [Move(Op.PLACE, move.path, move.keep, move.source)]
    out: list[Move] = []
    for inner in inside:
        path, rest = inner.path, inner.path[len(move.path) :]
        if inner.new is None or is_there(move.source + rest):
            continue
        if inner.new.kind is Kind.DIR:
            out.append(Move(Op.REMOVE_FOLDER, path))
        else:
            out += (_put_back(path, move.keep + rest, move.source + rest, is_there)
                    or [Move(Op.REMOVE, path, keep=move.source + rest)])
    return out


def _put_back(path: str, kept: str, keep: str, is_there: Callable[[str], bool]) -> list[Move]:
    return [Move(Op.PLACE, path, kept, keep)] if is_there(kept) else []
