"""Which paths of a tree are ignored, by which pattern of which file.

Decided from plain values: the text of ignore files and the path asked for. Nothing here reads a
disk. A scan walks down with a ``Scope`` for each folder; whoever asks for one path walks the same
way (``IgnoreRules.reason``), so that both can't differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from hyperbox_agent.core.patterns import Pattern, PatternList, Shape, parse_docker, parse_git
from hyperbox_agent.core.wildmatch import byte_text, file_text, git_regex, literal_length

__all__ = ["VENV", "IgnoreOptions", "IgnoreRules", "Pattern", "PatternList", "Scope",
           "parse_docker", "parse_git"]

BUILT_IN = "built in"
"""The source that the verdict names for excludes of our own."""

LEFTOVERS = (
    ".git", ".hg/", ".svn/", "__pycache__/", "*.pyc",
    # Editors: emacs locks and autosaves, backups, vim swap files and its write probe, JetBrains,
    # GLib (gedit), kate.
    ".#*", "\\#*#", "*~", ".*.sw?", "4913", "!4913/", "*___jb_tmp___", "*___jb_old___",
    ".goutputstream-*", ".*.kate-swp",
)
"""Never content, not even inside a folder that the user included."""

ENVIRONMENTS = (
    ".venv/", "node_modules/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".tox/", ".nox/", ".hypothesis/",
    # An install writes it into the tree; taken for saves, each install would be superseded by what
    # it writes and begin anew, for ever.
    "*.egg-info/",
)
"""Made by tools, again on each target; a user may include one by name."""

DATABASES = tuple(f"*.{name}{tail}" for name in ("sqlite", "sqlite3", "db")
                  for tail in ("", "-journal", "-wal", "-shm"))
"""SQLite's, which the program writes while it runs; a user may include one by name."""


@dataclass(frozen=True, slots=True)
class IgnoreOptions:
    """What the user asked for. Patterns are written as in a ``.gitignore`` at the root."""

    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    """Brings back what is ignored; a folder with all below it. ``.git`` never."""
    git: bool = True
    """Follow git's ignore files."""
    docker: bool = True
    """Follow ``.dockerignore``."""
    databases: bool = True
    """Keep ``DATABASES``: a target with a tree of its own may need what is in them."""


VENV = Pattern(text="a folder with pyvenv.cfg", source=BUILT_IN, line=0, negative=False,
               only_dir=True, shape=Shape.NAME, body="")
"""Why a virtual environment is ignored, whatever its name is."""


def _fixed(texts: Iterable[str], source: str) -> list[Pattern]:
    lines = "\n".join(texts).encode("utf-8", "surrogateescape")
    return [replace(pattern, line=0) for pattern in parse_git(lines, source)]


class _Reach:
    """Which ignored folders must be entered for what patterns bring back inside them."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        # A pattern without a slash is looked for in kept folders only: to follow it everywhere
        # would mean to walk through all that is ignored.
        self._ways = [p.body.split("/") for p in patterns if p.shape is Shape.PATH]

    def leads_to(self, path: str) -> frozenset[str] | None:
        """The names to look for in the folder ``path``; empty: none, None: all of them."""
        parts = path.split("/")
        names: set[str] = set()
        for way in self._ways:
            following = _next_step(way, parts)
            if following is None:
                continue
            if literal_length(following) < len(following):
                return None
            names.add(file_text(following))
        return frozenset(names)


def _next_step(way: Sequence[str], parts: Sequence[str]) -> str | None:
    """The part of a pattern that stands for what lies in the folder ``parts``; None: no way."""
    for i, part in enumerate(parts):
        if i >= len(way) - 1 and way[i:i + 1] != ["**"]:
            return None
        if "**" in way[i]:
            return "**"
        regex = git_regex(way[i], pathname=True)
        if regex is None or re.fullmatch(regex, part, re.DOTALL) is None:
            return None
    return way[len(parts)]


class IgnoreRules:
    """All that is the same for every folder of one tree. Immutable."""

    def __init__(self, options: IgnoreOptions, *, above: Sequence[PatternList] = (),
                 docker: Sequence[Pattern] = ()) -> None:
        self.leftovers = PatternList(_fixed(LEFTOVERS, BUILT_IN))
        own = ENVIRONMENTS if options.databases else ENVIRONMENTS + DATABASES
        self.built_in = PatternList(_fixed(LEFTOVERS + own, BUILT_IN))
        self.user = PatternList(_fixed(options.ignore, "ignore"))
        self.include = PatternList(_fixed(options.include, "include"))
        self.docker = PatternList(docker)
        self.above = tuple(above)
        self.include_reach = _Reach(p for p in self.include.patterns if not p.negative)
        self.docker_reach = _Reach(p for p in self.docker.patterns if p.negative)

    def top(self, own: PatternList | None = None) -> Scope:
        """The scope of the root. ``own``: the patterns of the root's own ignore file."""
        git = (*self.above, own) if own else self.above
        return Scope(self, git=git)

    def reason(self, path: str, is_dir: bool, lists: Mapping[str, PatternList],
               repositories: Container[str] = ()) -> Pattern | None:
        """The pattern that has ``path`` ignored, None if it is kept.

        ``lists``: each folder's own git patterns, by the folder's path; ``repositories``: those of
        them that are work trees of their own.
        """
        scope = self.top(lists.get(""))
        parts = path.split("/")
        for i in range(1, len(parts)):
            folder = "/".join(parts[:i])
            entered = scope.enter(folder, parts[i - 1], lists.get(folder),
                                  repository=folder in repositories)
            if entered is None:
                return scope.ignored_by(folder, parts[i - 1], True)
            scope = entered
        return scope.ignored_by(path, parts[-1], is_dir)


class _Glance:
    """Whether no pattern at all speaks of a file, which is so for most files.

    A look-up or two instead of one list after the other.
    """

    __slots__ = ("_exts", "_globs", "_names", "_path_globs", "_paths", "_suffixes")

    def __init__(self, lists: Iterable[PatternList]) -> None:
        names: set[str] = set()
        exts: set[str] = set()
        suffixes: set[str] = set()
        paths: set[str | None] = set()
        globs = []
        path_globs = []
        for patterns in lists:
            index = patterns.for_files
            names |= index.names.keys()
            exts |= index.exts.keys()
            suffixes |= index.suffixes.keys()
            paths |= {patterns.in_tree(path) for path in index.paths}
            if index.name_glob is not None:
                globs.append((index.firsts, index.name_glob.fullmatch))
            if index.path_glob is not None:
                path_globs.append((patterns.below_base, index.path_glob.fullmatch))
        self._names = frozenset(names)
        self._exts = frozenset(exts)
        self._suffixes = tuple(suffixes)
        self._paths = frozenset(paths)
        self._globs = tuple(globs)
        self._path_globs = tuple(path_globs)

    def kept(self, path: str, name: str) -> bool:
        """False: some pattern may match. Only where no list folds case."""
        if (name in self._names or name.rpartition(".")[2] in self._exts
                or name.endswith(self._suffixes) or path in self._paths or not path.isascii()):
            return False
        for firsts, match in self._globs:
            if (firsts is None or name[0] in firsts) and match(name):
                return False
        return not self._path_globs or not any(match(b(path)) for b, match in self._path_globs)


def _never(path: str, name: str) -> bool:
    return False


class _Inside(Enum):
    PLAIN = 0
    INCLUDED = 1
    """In a folder that the user brought back."""
    IGNORED = 2
    """In an ignored folder, on the way to something that the user brought back."""


class Scope:
    """The rules as they stand for what lies directly in one folder. Immutable; often shared."""

    __slots__ = ("_because", "_docker_at", "_git", "_inside", "_rules", "only",
                 "surely_kept")

    def __init__(self, rules: IgnoreRules, *, git: tuple[PatternList, ...] = (),
                 docker_at: int = -1, inside: _Inside = _Inside.PLAIN,
                 because: Pattern | None = None, only: frozenset[str] | None = None) -> None:
        self._rules = rules
        self._git = git
        self._docker_at = docker_at
        self._inside = inside
        self._because = because
        glance = self._make_glance()
        self.surely_kept: Callable[[str, str], bool] = _never if glance is None else glance
        """Whether a file (path, name) is kept, told at a glance. False: ask ``ignored_by``."""
        self.only = only
        """Where not None: just these names are to be looked for, the folder is not listed."""

    def _make_glance(self) -> Callable[[str, str], bool] | None:
        """None where a glance can't tell: something is ignored already, or case is folded."""
        rules = self._rules
        if self._because is not None or self._docker_at >= 0 or any(p.fold for p in self._git):
            return None
        if self._inside is _Inside.INCLUDED:
            return _Glance((rules.leftovers, rules.user)).kept
        return _Glance((rules.built_in, rules.user, *self._git, rules.docker)).kept

    @property
    def passing(self) -> bool:
        """Whether the folder itself is ignored and only led through."""
        return self._because is not None

    @property
    def included(self) -> bool:
        """Whether the folder, or one above it, was brought back by the user."""
        return self._inside is _Inside.INCLUDED

    def ignored_by(self, path: str, name: str, is_dir: bool) -> Pattern | None:
        """The pattern that has this entry of the folder ignored; None: it is kept."""
        if not is_dir and self.surely_kept(path, name):
            return None
        if not path.isascii():
            path, name = byte_text(path), byte_text(name)
        rules = self._rules
        if rules.include and name != ".git":
            found = rules.include.match(path, name, is_dir)
            if found is not None and not found.negative:
                return None
        if self._inside is _Inside.IGNORED:
            return self._because
        own = rules.leftovers if self._inside is _Inside.INCLUDED else rules.built_in
        found = own.match(path, name, is_dir)
        if found is not None and not found.negative:
            return found
        if rules.user:
            found = rules.user.match(path, name, is_dir)
            if found is not None and not found.negative:
                return found
        if self._inside is _Inside.INCLUDED:
            return None
        return self._by_git(path, name, is_dir) or self._by_docker(path, name, is_dir)

    def _by_git(self, path: str, name: str, is_dir: bool) -> Pattern | None:
        for patterns in reversed(self._git):
            found = patterns.match(path, name, is_dir)
            if found is not None:
                return None if found.negative else found
        return None

    def _by_docker(self, path: str, name: str, is_dir: bool) -> Pattern | None:
        docker = self._rules.docker
        if not docker:
            return None
        at = max(self._docker_at, docker.last(path, name, is_dir))
        return docker.patterns[at] if at >= 0 and not docker.patterns[at].negative else None

    def enter(self, path: str, name: str, own: PatternList | None = None, *,
              repository: bool = False) -> Scope | None:
        """The scope of the folder ``path`` of this one; None: it is ignored, with all below it.

        ``own``: the patterns of its own ``.gitignore``. ``repository``: it is the top of another
        git work tree, where the patterns from above do not count.
        """
        because = self.ignored_by(path, name, True)
        if because is not None:
            return self._lead_through(path, name, because, own)
        git = () if repository else self._git
        if own:
            git = (*git, own)
        rules = self._rules
        inside = self._inside
        if rules.include and inside is not _Inside.INCLUDED:
            found = rules.include.match(byte_text(path), byte_text(name), True)
            if found is not None and not found.negative:
                inside = _Inside.INCLUDED
        docker_at = self._docker_at
        if rules.docker:
            docker_at = max(docker_at, rules.docker.last(byte_text(path), byte_text(name), True))
        if (git == self._git and docker_at == self._docker_at and inside is self._inside
                and self._because is None):
            return self
        return Scope(rules, git=git, docker_at=docker_at, inside=inside)

    def _lead_through(self, path: str, name: str, because: Pattern,
                      own: PatternList | None) -> Scope | None:
        rules = self._rules
        text = byte_text(path)
        git = (*self._git, own) if own else self._git
        if because.docker and rules.docker_reach.leads_to(text) != frozenset():
            at = max(self._docker_at, rules.docker.last(text, byte_text(name), True))
            return Scope(rules, git=git, docker_at=at, because=because)
        if name == ".git":
            return None
        only = rules.include_reach.leads_to(text)
        if only == frozenset():
            return None
        return Scope(rules, git=git, inside=_Inside.IGNORED, because=because, only=only)
