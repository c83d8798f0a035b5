"""The source tree as it was last seen, and what changed since."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.ignore import IgnoreOptions, Pattern, Scope
from hyperbox_agent.errors import WatchError
from hyperbox_agent.watch.base import Counts, Hint, Problem, Refresh, ScanReport, What
from hyperbox_agent.watch.cache import EMPTY, read_cache, write_cache
from hyperbox_agent.watch.depth import Depth, below_any, depths
from hyperbox_agent.watch.ignorefiles import GITIGNORE, VENV_MARK, IgnoreFiles
from hyperbox_agent.watch.listing import Listed, Named, is_special, list_folder
from hyperbox_agent.watch.look import Look, no_collector
from hyperbox_agent.watch.scan import (
    RACY,
    ChangedError,
    digest_file,
    dir_entry,
    file_entry,
    inode,
    link_entry,
    link_fault,
    mode_of,
    read_content,
    signature,
)

__all__ = ["Counts", "Refresh", "ScanReport", "SourceTree"]


class SourceTree:
    """The manifest of a folder, kept current by hints. Ignored folders are never entered.

    Symbolic links are never followed. What can't be carried (unreadable, links that leave the
    root) is in ``problems`` by path, once each; nothing else suffers from it.
    """

    def __init__(self, root: str, *, options: IgnoreOptions | None = None,
                 cache_file: str | None = None,
                 environ: Mapping[str, str] | None = None) -> None:
        self.root = os.path.abspath(root)
        self.manifest: dict[str, Entry] = {}
        self.problems: dict[str, Problem] = {}
        self.on_read: Callable[[Entry, bytes], None] | None = None
        """Gets each small file that is read, with its bytes."""
        self._cache_file = cache_file
        self.options = options or IgnoreOptions()
        self._ignore = IgnoreFiles(self.root, self.options,
                                   os.environ if environ is None else environ)
        self._base = self.root.rstrip("/") + "/"
        # By folder: its kept children with their signatures, the rules inside it, and how many
        # (ignored folders, special files) it holds. Children are keyed by whole path: the same str
        # object as in the manifest, which is cheaper than a name of its own.
        self._known: dict[str, dict[str, bytes]] = {}
        self._scopes: dict[str, Scope] = {}
        self._passed: dict[str, tuple[int, int]] = {}
        self._passing: set[str] = set()
        # What paths were before they changed, kept until the change has been reported: a look
        # that ends in an error loses none.
        self._before: dict[str, Entry | None] = {}
        # Whether the last look ended in an error, so that its hints are still to be looked at.
        self._behind = False

    # -- asked from outside -------------------------------------------------------------------

    def load(self) -> ScanReport:
        """Scan all, reading only files that the cache does not know.

        Raises WatchError when the root is gone.
        """
        deque(self.loading(), maxlen=0)
        return self.report

    def loading(self) -> Iterator[str]:
        """``load`` by folders: gives each before it is listed, to be watched; then ``report`` is
        there."""
        self._require_root()
        self._clear()
        cache, note = read_cache(self._cache_file) if self._cache_file else (EMPTY, None)
        self._ignore.load()
        look = Look(cache=cache)
        with no_collector():
            yield from self._folders_below("", look)
            self._settle_passing()
        self._before.clear()
        self._behind = False
        self.report = ScanReport(self.counts, look.hashed, frozenset(look.unstable), note)

    def refresh(self, hints: Iterable[Hint]) -> Refresh:
        """Look at the hinted places. Raises WatchError when the root is gone."""
        wanted = depths(hints)
        if self._behind:
            wanted = {"": Depth.BELOW}
        self._behind = True
        self._require_root()
        look = Look()
        if wanted and self._ignore.outside_changed():
            self._ignore.load()
            wanted = {"": Depth.BELOW}
        deep: set[str] = set()
        for path in sorted(wanted):
            if not below_any(path, deep):
                if wanted[path] is Depth.BELOW:
                    deep.add(path)
                self._look_at(path, wanted[path], look)
        if look.linked and "" not in deep:
            self._look_at_other_names(look)
        return self._result(look)

    def rescan(self) -> Refresh:
        """Look at all. Raises WatchError when the root is gone."""
        return self.refresh((Hint("", What.LOST, 0.0),))

    def read(self, entry: Entry) -> bytes:
        """The bytes of a file, or the text of a link. Raises WatchError when they are not its own.
        """
        data = read_content(self._base + entry.path, entry)
        if data is None:
            raise WatchError(f"{entry.path} changed since it was looked at", file=entry.path)
        return data

    def dirs(self) -> Iterator[str]:
        """The folders to watch, the root ("") among them; git's own excludes too."""
        yield from list(self._known)
        yield from self._git_dirs()

    def reason(self, path: str, *, is_dir: bool = False) -> Pattern | None:
        """The pattern that has ``path`` ignored; None if it is not."""
        return self._ignore.reason(path, is_dir)

    @property
    def counts(self) -> Counts:
        """How much there is now."""
        return Counts.of(self.manifest, self._passed.values())

    def _git_dirs(self) -> list[str]:
        return [os.path.dirname(self._ignore.exclude_file)] if self._ignore.exclude_file else []

    def save_cache(self) -> None:
        """Keep what is known for the next ``load``. Raises WatchError when it can't be written."""
        if self._cache_file is None or not self._known:
            return
        try:
            write_cache(self._cache_file, self._cacheable())
        except OSError as error:
            raise WatchError(f"can't write the scan cache: {error.strerror}",
                             file=self._cache_file) from error

    def _clear(self) -> None:
        for kept in (self.manifest, self.problems, self._known, self._scopes, self._passed,
                     self._passing, self._before):
            kept.clear()

    # -- the pass -----------------------------------------------------------------------------

    def _require_root(self) -> None:
        if not os.path.isdir(self.root):
            raise WatchError(f"the project folder is gone: {self.root}", file=self.root,
                             hint="nothing was deleted anywhere; put it back and work goes on")

    def _result(self, look: Look) -> Refresh:
        self._settle_passing()
        self._require_root()
        changes = [Change(path, old, self.manifest.get(path))
                   for path, old in sorted(self._before.items())
                   if not _same(old, self.manifest.get(path))]
        self._before.clear()
        self._behind = False
        new_dirs = [folder for folder in look.new_dirs if folder in self._known]
        if "" in look.new_dirs:
            new_dirs += self._git_dirs()
        return Refresh(tuple(changes), frozenset(look.unstable), tuple(new_dirs),
                       tuple(d for d in look.gone_dirs if d not in self._known), look.rescanned)

    def _look_at(self, path: str, depth: Depth, look: Look) -> None:
        if path.startswith("../"):
            return
        if path == "":
            self._look_into("", depth, look)
            return
        folder, _, name = path.rpartition("/")
        if folder in look.new_dirs and depth is Depth.ENTRY:
            # Read as a whole in this very pass, hence later than the event.
            return
        while folder and folder not in self._known:
            # Nothing is known of its folder: it is ignored, or new. Ask for that one instead.
            path, depth = folder, Depth.BELOW
            folder, _, name = path.rpartition("/")
        if name in (GITIGNORE, VENV_MARK):
            self._look_into(folder, Depth.LISTING, look)
            return
        try:
            listed = Named(self.root if not folder else self._base + folder, name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                self._drop(path, look)
            else:
                self._trouble(path, error)
            return
        self._take_again(folder, path, listed, depth, look)

    def _look_at_other_names(self, look: Look) -> None:
        linked = set(look.linked)
        names = [path for children in self._known.values() for path, mark in children.items()
                 if mark == RACY or inode(mark) in linked]
        for path in names:
            self._look_at(path, Depth.ENTRY, look)

    def _take_again(self, folder: str, path: str, listed: Listed, depth: Depth,
                    look: Look) -> None:
        known = self._known[folder]
        taken = self._take(self._scopes[folder], path, listed, known, look)
        if taken is None:
            self._drop(path, look)
            return
        is_folder, mark = taken
        entry = self.manifest.get(path)
        known[entry.path if entry else path] = mark
        if is_folder:
            new = path not in self._known or path in look.new_dirs
            self._look_into(path, Depth.BELOW if new else depth, look)

    def _look_into(self, folder: str, depth: Depth, look: Look) -> None:
        if depth is Depth.BELOW:
            self._look_below(folder, look)
        else:
            for found in self._look_folder(folder, look, all_below=False):
                self._look_below(found, look)

    def _look_below(self, folder: str, look: Look) -> None:
        deque(self._folders_below(folder, look), maxlen=0)

    def _folders_below(self, folder: str, look: Look) -> Iterator[str]:
        look.rescanned = True
        waiting = [folder]
        while waiting:
            at = waiting.pop()
            yield at
            look.new_dirs[at] = None
            waiting += self._look_folder(at, look, all_below=True)

    def _look_folder(self, folder: str, look: Look, *, all_below: bool) -> list[str]:
        """Compare a folder's listing with what is known; the folders to look below next."""
        if all_below or folder not in self._scopes:
            self._scopes[folder] = self._scope(folder)
        try:
            listing = self._list(folder)
        except OSError as error:
            self._unlisted(folder, error, look)
            return []
        names = {listed.name for listed in listing}
        if folder and VENV_MARK in names and self._is_venv(folder):
            self._drop(folder, look)
            self._count_ignored(folder.rpartition("/")[0])
            return []
        changed = self._ignore.read_own(folder, names)
        if changed:
            self._scopes[folder] = self._scope(folder)
        if self.problems and self.problems.pop(folder, None) is not None:
            # It could not be read, so it could not be watched either.
            look.new_dirs[folder] = None
        return self._compare(folder, listing, look, all_below=all_below or changed)

    def _compare(self, folder: str, listing: list[Listed], look: Look, *,
                 all_below: bool) -> list[str]:
        scope = self._scopes[folder]
        known = self._known.get(folder, {})
        prefix = folder + "/" if folder else ""
        fresh: dict[str, bytes] = {}
        below = []
        ignored = special = 0
        for listed in self._without_files(listing, prefix, scope, known, fresh, look):
            path = prefix + listed.name
            taken = self._take(scope, path, listed, known, look)
            if taken is None:
                ignored += listed.is_dir(follow_symlinks=False)
                special += is_special(listed)
                continue
            is_folder, mark = taken
            entry = self.manifest.get(path)
            fresh[entry.path if entry else path] = mark
            if is_folder and (all_below or path not in self._known or path in look.new_dirs):
                below.append(path)
        self._known[folder] = fresh
        if ignored or special:
            self._passed[folder] = (ignored, special)
        else:
            self._passed.pop(folder, None)
        if len(known) != len(fresh) or known.keys() != fresh.keys():
            for path in known.keys() - fresh.keys():
                self._drop(path, look)
        return below

    def _without_files(self, listing: Iterable[Listed], prefix: str, scope: Scope,
                       known: Mapping[str, bytes], fresh: dict[str, bytes],
                       look: Look) -> Iterator[Listed]:
        """Note the files that no rule speaks of, which are nearly all; hand out the rest.

        One flat loop: it runs once a file of the tree, and each call in it costs 10 ms at 50,000.
        """
        manifest, kept = self.manifest, scope.surely_kept
        cached = look.cache.digest if look.cache is not EMPTY else None
        for listed in listing:
            path = prefix + listed.name
            if (not listed.is_file(follow_symlinks=False) or not kept(path, listed.name)
                    or path in self._known):
                yield listed
                continue
            try:
                found = listed.stat(follow_symlinks=False)
            except OSError:
                yield listed
                continue
            mark = signature(found)
            if known.get(path) == mark:
                fresh[manifest[path].path] = mark
                continue
            digest = cached(path, mark) if cached is not None else None
            if digest is None:
                fresh[path] = self._read(path, listed.path, found, mark, look)
            else:
                fresh[path] = mark
                manifest[path] = file_entry(path, found, digest)

    def _take(self, scope: Scope, path: str, listed: Listed, known: Mapping[str, bytes],
              look: Look) -> tuple[bool, bytes] | None:
        """Note one listed entry: (is it a folder, its mark); None: it is not part of the tree."""
        try:
            if listed.is_dir(follow_symlinks=False):
                return self._take_dir(scope, path, listed, known.get(path), look)
            if scope.ignored_by(path, listed.name, False) is not None:
                return None
            if path in self._known:
                self._drop(path, look)
            if listed.is_file(follow_symlinks=False):
                found = listed.stat(follow_symlinks=False)
                mark = signature(found)
                if known.get(path) != mark:
                    mark = self._read(path, listed.path, found, mark, look)
                return False, mark
            return (False, self._take_link(path, listed)) if listed.is_symlink() else None
        except FileNotFoundError:
            # Gone since it was listed. An event will tell, if it is not told already.
            return None
        except OSError as error:
            # A folder may be listed but not entered: that is one problem, not one an entry.
            denied = isinstance(error, PermissionError)
            self._trouble(path.rpartition("/")[0] if denied else path, error)
            return path in self._known, known.get(path, RACY)

    def _read(self, path: str, full: str, found: os.stat_result, mark: bytes, look: Look) -> bytes:
        """Note a file's content; the mark to know it by. What can't be read stays as it was."""
        try:
            digest, mark, data = digest_file(full, found, mark)
        except ChangedError:
            look.unstable.add(path)
            return RACY
        except OSError as error:
            self._trouble(path, error)
            return RACY
        look.hashed += 1
        if found.st_nlink > 1:
            look.linked.add(found.st_ino)
        if self.problems:
            self.problems.pop(path, None)
        old = self.manifest.get(path)
        entry = file_entry(path if old is None else old.path, found, digest)
        self._put(entry)
        if self.on_read is not None and data is not None:
            self.on_read(entry, data)
        return mark

    def _take_dir(self, scope: Scope, path: str, listed: Listed, mark: bytes | None,
                  look: Look) -> tuple[bool, bytes] | None:
        inner = scope.enter(path, listed.name)
        if inner is None:
            return None
        found = listed.stat(follow_symlinks=False)
        now = found.st_ino.to_bytes(8, "little")
        if mark is not None and mark != now:
            # Another folder under the same name: its content is unknown, its watch is void.
            look.new_dirs[path] = None
        old = self.manifest.get(path)
        if inner.passing:
            self._passing.add(path)
            if old is not None and old.kind is not Kind.DIR:
                self._unput(path)
            return True, now
        self._passing.discard(path)
        if old is None or old.kind is not Kind.DIR or old.mode != found.st_mode & 0o777:
            self._put(dir_entry(path if old is None else old.path, found.st_mode))
        return True, now

    def _take_link(self, path: str, listed: Listed) -> bytes:
        target = os.readlink(listed.path)
        fault = link_fault(path, target)
        if fault is not None:
            self._unput(path)
            self.problems[path] = Problem(path, f"the link {path} is not carried: {fault}",
                                          "make it relative to a place inside the project, or"
                                          " ignore it")
            return RACY
        if self.problems:
            self.problems.pop(path, None)
        old = self.manifest.get(path)
        if old is None or old.kind is not Kind.LINK or old.target != target:
            self._put(link_entry(path, target))
        return RACY

    # -- small parts --------------------------------------------------------------------------

    def _list(self, folder: str) -> list[Listed]:
        return list_folder(self._base + folder if folder else self.root,
                           self._scopes[folder].only)

    def _scope(self, folder: str) -> Scope:
        own = self._ignore.lists.get(folder)
        if not folder:
            return self._ignore.rules.top(own)
        above, _, name = folder.rpartition("/")
        scope = self._scopes[above].enter(folder, name, own,
                                          repository=self._ignore.is_repository(folder))
        # Entered, hence not ignored: an own list speaks of what is inside, not of the folder.
        assert scope is not None
        return scope

    def _is_venv(self, folder: str) -> bool:
        scope = self._scopes[folder]
        return not scope.passing and not scope.included

    def _put(self, entry: Entry) -> None:
        self._before.setdefault(entry.path, self.manifest.get(entry.path))
        self.manifest[entry.path] = entry

    def _unput(self, path: str) -> None:
        old = self.manifest.pop(path, None)
        if old is not None:
            self._before.setdefault(path, old)

    def _drop(self, path: str, look: Look) -> None:
        """Forget a path, with all below it."""
        waiting = [path]
        while waiting:
            at = waiting.pop()
            children = self._known.pop(at, None)
            if children is not None:
                waiting += children
                look.gone_dirs[at] = None
                self._scopes.pop(at, None)
                self._passed.pop(at, None)
                self._passing.discard(at)
                self._ignore.drop(at)
            if self.problems:
                self.problems.pop(at, None)
            self._unput(at)
        above = self._known.get(path.rpartition("/")[0])
        if above is not None:
            above.pop(path, None)

    def _settle_passing(self) -> None:
        """An ignored folder that was only led through is an entry while it holds a kept one."""
        for folder in sorted(self._passing, reverse=True):
            holds = any(child in self.manifest for child in self._known.get(folder, ()))
            if not holds:
                self._unput(folder)
            elif folder not in self.manifest:
                self._put(dir_entry(folder, mode_of(self._base + folder)))

    def _count_ignored(self, folder: str) -> None:
        ignored, special = self._passed.get(folder, (0, 0))
        self._passed[folder] = (ignored + 1, special)

    def _unlisted(self, folder: str, error: OSError, look: Look) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            self._drop(folder, look)
            return
        # What was known below is kept: that it can't be seen does not mean that it was deleted.
        self._known.setdefault(folder, {})
        self._trouble(folder, error)

    def _trouble(self, path: str, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        self.problems[path] = Problem(path, f"can't read {path or self.root}: {reason}",
                                      "mend its rights, or ignore it")

    def _cacheable(self) -> Iterator[tuple[str, bytes, bytes]]:
        for children in self._known.values():
            for path, mark in children.items():
                entry = self.manifest.get(path)
                if entry is not None and entry.kind is Kind.FILE and mark != RACY:
                    yield path, mark, entry.digest


def _same(old: Entry | None, new: Entry | None) -> bool:
    return old is new if old is None or new is None else old.same(new)
