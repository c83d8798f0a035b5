"""What has to be done to make one manifest of another, as values: diff, validate, order.

Pure. The order is the one that ``apply/`` carries out: what is new or changed first, deletes last
and children before parents, so that a reader never misses a path that stands in both versions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.errors import ApplyError, MissingBlobsError

__all__ = ["EXACT", "Folding", "Op", "Step", "after", "diff", "first_batch", "inverse",
           "link_escapes", "order", "validate", "validate_pulled"]


# -- difference ---------------------------------------------------------------------------------

def diff(old: Manifest, new: Manifest) -> tuple[Change, ...]:
    """What changed, by content (see ``Entry.same``), sorted by path."""
    changes = [Change(path, entry, None) for path, entry in old.items() if path not in new]
    for path, entry in new.items():
        before = old.get(path)
        if before is None or not before.same(entry):
            changes.append(Change(path, before, entry))
    changes.sort(key=_path)
    return tuple(changes)


def after(base: Manifest, changes: Iterable[Change]) -> dict[str, Entry]:
    """The manifest that ``changes`` make of ``base``."""
    out = dict(base)
    for change in changes:
        if change.new is None:
            out.pop(change.path, None)
        else:
            out[change.path] = change.new
    return out


def inverse(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes that lead back."""
    return tuple(Change(change.path, change.new, change.old) for change in changes)


# -- names --------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Folding:
    """Which names a file system takes for the same one."""

    case: bool = False
    forms: bool = False
    """Unicode forms: a composed and a decomposed é are one name."""

    def __bool__(self) -> bool:
        return self.case or self.forms

    def key(self, path: str) -> str:
        """Equal for two paths that are the same one to that file system."""
        if path.isascii():
            return path.lower() if self.case else path
        if self.forms:
            path = unicodedata.normalize("NFD", path)
        if self.case:
            path = path.casefold()
            if self.forms:
                path = unicodedata.normalize("NFD", path)
        return path


EXACT = Folding()

_REFUSED = re.compile(r"(?:\A|/)(?:\.{0,2}|(\.git))(?:/|\Z)|\0", re.IGNORECASE)
"""Empty parts (so a slash at either end and "" too), "." and "..", NUL; in the group: git's."""
_FOREIGN_FORM = re.compile(r"\\|\A[A-Za-z]:|(?:\A|/)(?:con|prn|aux|nul)(?:\.|/|\Z)", re.IGNORECASE)
_NAME_MAX = 255


def link_escapes(path: str, target: str, is_link: Callable[[str], bool] = lambda _: False) -> bool:
    """Whether a link at ``path`` with the text ``target`` leads, or may lead, out of the root.

    A ``..`` behind a name that is itself a link (``is_link``) can't be judged from names, so it
    counts as leading out.
    """
    if not target or target.startswith("/") or "\0" in target:
        return True
    at = path.split("/")[:-1]
    for part in target.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            at.append(part)
        elif not at or is_link("/".join(at)):
            return True
        else:
            at.pop()
    return False


def validate(changes: Sequence[Change], base: Manifest, *, folding: Folding = EXACT) -> None:
    """Refuse a batch that could leave the root or make no tree.

    Raises ApplyError, with the path in ``file``: names that escape (absolute, ``..``, empty parts,
    NUL), anything in ``.git``, a path listed twice, an entry whose parent is not a folder in the
    result, a link that leads out of the root, two names that the target takes for one.
    """
    by_path: dict[str, Change] = {}
    for change in changes:
        _refuse_name(change.path)
        if change.path in by_path:
            raise ApplyError(f"{change.path!r} is listed twice", file=change.path)
        by_path[change.path] = change
        if change.new is not None:
            _refuse_entry(change.path, change.new)
    result = _Result(base, by_path)
    for change in changes:
        if change.new is not None:
            _refuse_orphan(change.path, result)
            if change.new.kind is Kind.LINK and link_escapes(change.path, change.new.target,
                                                             result.is_link):
                raise ApplyError(f"the link {change.path!r} leads out of the project: "
                                 f"{change.new.target!r}", file=change.path)
    _refuse_orphans_left(changes, base, by_path)
    if folding:
        _refuse_same_names(changes, base, by_path, folding)


def validate_pulled(changes: Sequence[Change], base: Manifest, *, folding: Folding = EXACT) -> None:
    """``validate`` for what a target sends to the source: more is refused.

    A target never writes the project's own configuration, nor names that mean something else on
    another system (backslashes, drive letters, device names). Raises ApplyError.
    """
    for change in changes:
        if change.path == "hyperbox.toml":
            raise ApplyError("the target may not change hyperbox.toml", file=change.path)
        if _FOREIGN_FORM.search(change.path):
            raise ApplyError(f"the target sent the name {change.path!r}, which other systems read "
                             "as a path of another place", file=change.path)
    validate(changes, base, folding=folding)


def is_inside(path: str) -> bool:
    """Whether ``path`` is one that ``validate`` takes: below the root, and not git's."""
    return _REFUSED.search(path) is None


def _refuse_name(path: str) -> None:
    refused = _REFUSED.search(path)
    if refused is None:
        return
    if refused.group(1):
        raise ApplyError(f"{path!r} belongs to git and is never written", file=path)
    raise ApplyError(f"{path!r} is not a path inside the project", file=path)


def _refuse_entry(path: str, entry: Entry) -> None:
    if entry.path != path:
        raise ApplyError(f"{path!r} is announced as {entry.path!r}", file=path)
    if entry.kind is not Kind.DIR and len(entry.digest) != 32:
        raise ApplyError(f"{path!r} comes without a digest", file=path)
    if len(path) * 4 > _NAME_MAX and any(
            len(part.encode("utf-8", "surrogateescape")) > _NAME_MAX for part in path.split("/")):
        raise ApplyError(f"a name in {path!r} is longer than {_NAME_MAX} bytes", file=path)


class _Result:
    """Looks into the manifest that changes would make, without making it."""

    def __init__(self, base: Manifest, by_path: Mapping[str, Change]) -> None:
        self._base = base
        self._by_path = by_path

    def get(self, path: str) -> Entry | None:
        change = self._by_path.get(path)
        return change.new if change is not None else self._base.get(path)

    def is_link(self, path: str) -> bool:
        entry = self.get(path)
        return entry is not None and entry.kind is Kind.LINK


def _refuse_orphan(path: str, result: _Result) -> None:
    parent = parent_of(path)
    if not parent:
        return
    above = result.get(parent)
    if above is None or above.kind is not Kind.DIR:
        what = "is not there" if above is None else f"is a {above.kind.value}"
        raise ApplyError(f"{path!r} can't be put into {parent!r}, which {what}", file=path)


def _refuse_orphans_left(changes: Iterable[Change], base: Manifest,
                         by_path: Mapping[str, Change]) -> None:
    gone = {change.path for change in changes if change.old is not None
            and change.old.kind is Kind.DIR
            and (change.new is None or change.new.kind is not Kind.DIR)}
    if not gone:
        return
    for path in base:
        if parent_of(path) in gone:
            change = by_path.get(path)
            if change is None or change.new is not None:
                raise ApplyError(f"{parent_of(path)!r} would go while {path!r} stays in it",
                                 file=path)


def _refuse_same_names(changes: Iterable[Change], base: Manifest, by_path: Mapping[str, Change],
                       folding: Folding) -> None:
    stays = {folding.key(path): path for path in base
             if path not in by_path or by_path[path].new is not None}
    for change in changes:
        if change.new is None:
            continue
        other = stays.setdefault(folding.key(change.path), change.path)
        if other != change.path:
            raise ApplyError(f"{other!r} and {change.path!r} are one name on the target's file "
                             "system", file=change.path,
                             hint=f"rename one of them, or ignore {change.path!r}")


def parent_of(path: str) -> str:
    """The path of the folder that holds ``path``; "" for the root."""
    return path.rpartition("/")[0]


def _path(change: Change) -> str:
    return change.path


# -- order --------------------------------------------------------------------------------------

class Op(str, Enum):
    """What a step does to one path."""

    RESPELL = "respell"
    """The same entry under another spelling of its name; ``source`` is the old one."""
    FOLDER = "folder"
    """A folder that is to be there."""
    PLACE = "place"
    """A staged file or link takes the path, or a staged folder with all that is in it."""
    MODE = "mode"
    """Only the executable bit changes."""
    REMOVE = "remove"
    REMOVE_FOLDER = "remove_folder"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a batch."""

    op: Op
    path: str
    entry: Entry | None = None
    """What stands there afterwards; None after a removal."""
    source: str = ""
    """RESPELL: the path with the old spelling."""
    tree: bool = False
    """PLACE of a folder that is new as a whole: what is below it has no steps of its own."""


def first_batch(files: Manifest, count: int, changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes that fill an empty tree, sorted: ``files`` that came ahead of them, except where
    ``changes`` say otherwise, and these. Raises MissingBlobsError where there are not ``count``."""
    if count != len(files):
        raise MissingBlobsError(f"{count} files were sent ahead, and {len(files)} are here",
                                digests=())
    batch = {path: Change(path, None, entry) for path, entry in files.items()}
    for change in changes:
        if change.new is None:
            batch.pop(change.path, None)
        else:
            batch[change.path] = change
    return tuple(batch[path] for path in sorted(batch))


def order(changes: Sequence[Change], *, folding: Folding = EXACT) -> tuple[Step, ...]:
    """The steps for validated ``changes``, in the order in which they are to be done.

    A change whose old and new are the same is a repair: the path is placed again.
    """
    respelled: list[Step] = []
    if folding:
        respelled, changes = _respell(changes, folding)
    folders: list[Step] = []
    placed: list[Step] = []
    modes: list[Step] = []
    removed: list[Step] = []
    inside = _Inside()
    for change in sorted(changes, key=_path):
        new = change.new
        if new is None:
            if not inside.replaced(change.path):
                removed.append(_remove(change))
        elif new.kind is Kind.DIR:
            if not inside.new(change.path):
                _order_folder(change, new, inside, folders, placed)
        elif _only_mode(change):
            modes.append(Step(Op.MODE, change.path, new))
        elif not inside.new(change.path):
            if change.old is not None and change.old.kind is Kind.DIR:
                inside.replaced_folders.add(change.path)
            placed.append(Step(Op.PLACE, change.path, new))
    removed.reverse()
    return (*respelled, *folders, *placed, *modes, *removed)


class _Inside:
    """Which folders are moved as a whole, so that paths below them need no steps."""

    def __init__(self) -> None:
        self.new_folders: set[str] = set()
        self.replaced_folders: set[str] = set()

    def new(self, path: str) -> bool:
        return _below(path, self.new_folders)

    def replaced(self, path: str) -> bool:
        return _below(path, self.replaced_folders)


def _below(path: str, folders: set[str]) -> bool:
    if not folders:
        return False
    at = path.find("/")
    while at >= 0:
        if path[:at] in folders:
            return True
        at = path.find("/", at + 1)
    return False


def _order_folder(change: Change, new: Entry, inside: _Inside, folders: list[Step],
                  placed: list[Step]) -> None:
    if change.old is not None and change.old.kind is Kind.DIR:
        folders.append(Step(Op.FOLDER, change.path, new))
        return
    inside.new_folders.add(change.path)
    placed.append(Step(Op.PLACE, change.path, new, tree=True))


def _remove(change: Change) -> Step:
    folder = change.old is not None and change.old.kind is Kind.DIR
    return Step(Op.REMOVE_FOLDER if folder else Op.REMOVE, change.path)


def _only_mode(change: Change) -> bool:
    old, new = change.old, change.new
    return (old is not None and new is not None and old.kind is Kind.FILE is new.kind
            and old.digest == new.digest and old.executable != new.executable)


def _respell(changes: Sequence[Change], folding: Folding) -> tuple[list[Step], list[Change]]:
    """Renames that change only the spelling come first, and the rest is what differs after them.

    On such a target a new spelling can't be placed beside the old one, and placing it *over* the
    old one keeps the old spelling (ext4 changes the directory entry's inode, not its name).
    """
    removed = {folding.key(change.path): change for change in changes if change.new is None}
    steps: list[Step] = []
    spelling: dict[str, str] = {}
    for change in sorted(changes, key=_path):
        twin = removed.get(folding.key(change.path)) if change.new is not None else None
        if change.old is None and twin is not None and _same_kind(change, twin):
            spelling[twin.path] = change.path
            now = _spelled(twin.path, spelling, parents_only=True)
            if now != change.path:
                steps.append(Step(Op.RESPELL, change.path, change.new, source=now))
    if not spelling:
        return [], list(changes)
    return steps, _respelled(changes, spelling)


def _same_kind(change: Change, twin: Change) -> bool:
    return (change.new is not None and twin.old is not None
            and (change.new.kind is Kind.DIR) == (twin.old.kind is Kind.DIR))


def _spelled(path: str, spelling: Mapping[str, str], *, parents_only: bool = False) -> str:
    """``path`` after its folders (and itself) were respelled."""
    if not parents_only and path in spelling:
        return spelling[path]
    parent, _, name = path.rpartition("/")
    if not parent:
        return path
    return f"{_spelled(parent, spelling)}/{name}"


def _respelled(changes: Sequence[Change], spelling: Mapping[str, str]) -> list[Change]:
    old: dict[str, Entry] = {}
    new: dict[str, Entry] = {}
    repairs: set[str] = set()
    for change in changes:
        if change.old is not None:
            path = _spelled(change.path, spelling)
            old[path] = _moved(change.old, path)
        if change.new is not None:
            new[change.path] = change.new
            if change.old is not None and change.old.same(change.new):
                repairs.add(change.path)
    return [*diff(old, new), *(Change(path, new[path], new[path]) for path in repairs)]


def _moved(entry: Entry, path: str) -> Entry:
    return Entry(path, entry.kind, entry.mode, entry.size, entry.digest, entry.target)
