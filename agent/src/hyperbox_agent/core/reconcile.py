"""Three trees, one decision: what goes down to the target, what comes up to the source.

Pure. ``base`` is what both ends held when they last agreed. The source rules; what a target wrote
is taken up only where ``pulls`` says so (everywhere, for two-way). Nothing that exists on one end
alone is ever lost: where both ends changed a path, neither is touched there and both are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hyperbox_agent.core.entries import Change, Entry, Kind, Manifest
from hyperbox_agent.core.plan import diff, parent_of
from hyperbox_agent.errors import ApplyError

Pulls = Callable[[str], bool]
"""Whether what the target does to this path counts."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both ends changed ``path``, or one put a file where the other works in a folder."""

    path: str
    base: Entry | None
    source: Entry | None
    target: Entry | None


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The decision."""

    down: tuple[Change, ...]
    """For the target."""
    up: tuple[Change, ...]
    """For the source: validate it with ``validate_pulled``."""
    conflicts: tuple[Conflict, ...]
    base: dict[str, Entry]
    """The next base, once ``down`` and ``up`` were applied."""


def reconcile(base: Manifest, source: Manifest, target: Manifest, pulls: Pulls) -> Reconciled:
    """Decide. A target that is empty although the base is not is a new one: it gets everything.

    Raises ApplyError when the source is empty although the base is not: a root that vanished must
    not empty the target, and even less be filled from it.
    """
    if base and not source:
        raise ApplyError("the source is empty, although it was not before: nothing was changed",
                         hint="bring the folder back, or forget the target to begin anew")
    return merge(base if target else {}, source, target, pulls)


def merge(base: Manifest, source: Manifest, target: Manifest, pulls: Pulls) -> Reconciled:
    """``reconcile`` for a part of the trees, where nothing being there may well be meant."""
    paths = {*base, *source, *target}
    final, clashes = _decide(paths, base, source, target, pulls)
    clashes |= _impossible(final)
    roots = {path for path in clashes if not _is_below(path, clashes)}
    _keep_parents(final, roots, base, source, target)

    def result(own: Manifest) -> dict[str, Entry]:
        return _result(final, roots, own)

    return Reconciled(
        down=diff(target, result(target)),
        up=diff(source, result(source)),
        conflicts=tuple(Conflict(path, base.get(path), source.get(path), target.get(path))
                        for path in sorted(roots)),
        base=result(base),
    )


def resolved(base: Manifest, loser: Manifest, paths: Iterable[str]) -> dict[str, Entry]:
    """The base with which the conflicts at ``paths`` are decided against ``loser``.

    That end then counts as unchanged there, so the other's version goes to both.
    """
    chosen = set(paths)
    out = {path: entry for path, entry in base.items() if not _at_or_below(path, chosen)}
    out.update((path, entry) for path, entry in loser.items() if _at_or_below(path, chosen))
    return out


def _decide(paths: Iterable[str], base: Manifest, source: Manifest, target: Manifest, pulls: Pulls
            ) -> tuple[dict[str, Entry | None], set[str]]:
    final: dict[str, Entry | None] = {}
    clashes: set[str] = set()
    for path in paths:
        before, here, there = base.get(path), source.get(path), target.get(path)
        if not pulls(path) or _same(here, there) or _same(before, there):
            final[path] = here
        elif _same(before, here) or here is None:
            # One end changed it, or the other only removed it: an edit outlives a removal.
            final[path] = there
        elif there is None:
            final[path] = here
        else:
            final[path] = here
            clashes.add(path)
    return final, clashes


def _same(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or one.same(other)


def _impossible(final: dict[str, Entry | None]) -> set[str]:
    """Files that would have to hold something: one end put them where the other has a folder."""
    found: set[str] = set()
    for path, entry in final.items():
        if entry is not None:
            for parent in _parents(path):
                above = final.get(parent)
                if above is not None and above.kind is not Kind.DIR:
                    found.add(parent)
    return found


def _keep_parents(final: dict[str, Entry | None], roots: set[str], base: Manifest,
                  source: Manifest, target: Manifest) -> None:
    """A folder that one end removed stays for what the other end has put into it since."""
    for path in [path for path, entry in final.items() if entry is not None or path in roots]:
        for parent in _parents(path):
            if final.get(parent) is None:
                final[parent] = next(entry for side in (source, target, base)
                                     if (entry := side.get(parent)) and entry.kind is Kind.DIR)


def _result(final: dict[str, Entry | None], roots: set[str], own: Manifest) -> dict[str, Entry]:
    out = {path: entry for path, entry in final.items()
           if entry is not None and not _at_or_below(path, roots)}
    if roots:
        out.update((path, entry) for path, entry in own.items() if _at_or_below(path, roots))
    return out


def _parents(path: str) -> Iterable[str]:
    parent = parent_of(path)
    while parent:
        yield parent
        parent = parent_of(parent)


def _is_below(path: str, folders: set[str]) -> bool:
    return bool(folders) and any(parent in folders for parent in _parents(path))


def _at_or_below(path: str, folders: set[str]) -> bool:
    return path in folders or _is_below(path, folders)
