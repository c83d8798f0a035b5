"""Which paths of a tree are ignored, by which pattern of which file.

Decided from plain values: the text of ignore files and the path asked for. Nothing here reads a
disk. A scan walks down with a ``Scope`` for each folder; whoever asks for one path walks the same
way (``IgnoreRules.reason``), so that both can't differ.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from hyperbox_agent.core.wildmatch import (
    ascii_lower,
    byte_text,
    docker_regex,
    file_text,
    git_regex,
    literal_length,
)

BUILT_IN = "built in"
"""The source that the verdict names for excludes of our own."""

LEFTOVERS = (
    ".git", ".hg/", ".svn/", "__pycache__/", "*.pyc",
    # Editors: emacs locks and autosaves, backups, vim swap files and its write probe, JetBrains,
    # GLib (gedit), kate.
    ".#*", "#*#", "*~", ".*.sw?", "4913", "!4913/", "*___jb_tmp___", "*___jb_old___",
    ".goutputstream-*", ".*.kate-swp",
)
"""Never content, not even inside a folder that the user included."""

ENVIRONMENTS = (
    ".venv/", "node_modules/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".tox/", ".nox/", ".hypothesis/",
)
"""Made by tools, again on each target; a user may include one by name."""


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


class _Shape(Enum):
    NAME = 0
    """Compared with the last part of a path."""
    PATH = 1
    """Compared with the path below the list's base."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an ignore file."""

    text: str
    source: str
    line: int
    negative: bool
    only_dir: bool
    shape: _Shape
    body: str
    """Byte text, without ``!``, anchor and trailing slash."""
    docker: bool = False

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.text}"


VENV = Pattern(text="a folder with pyvenv.cfg", source=BUILT_IN, line=0, negative=False,
               only_dir=True, shape=_Shape.NAME, body="")
"""Why a virtual environment is ignored, whatever its name is."""


def parse_git(data: bytes, source: str) -> list[Pattern]:
    """The patterns of a ``.gitignore``, line by line as git reads it. Never fails."""
    text = data.decode("latin-1").removeprefix("\xef\xbb\xbf")
    found = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r").partition("\0")[0]
        if line.startswith("#"):
            continue
        pattern = _git_pattern(_trim(line), source, number)
        if pattern is not None:
            found.append(pattern)
    return found


def _trim(line: str) -> str:
    """Without trailing spaces, unless a backslash keeps one. Tabs stay, as in git."""
    if not line.endswith(" "):
        return line
    last = None
    i = 0
    while i < len(line):
        if line[i] == " ":
            last = i if last is None else last
        else:
            last = None
            if line[i] == "\\":
                i += 1
                if i == len(line):
                    return line
        i += 1
    return line if last is None else line[:last]


def _git_pattern(line: str, source: str, number: int) -> Pattern | None:
    negative = line.startswith("!")
    body = line[1:] if negative else line
    only_dir = body.endswith("/")
    if only_dir:
        body = body[:-1]
    if not body or body == "/":
        return None
    shape = _Shape.PATH if "/" in body else _Shape.NAME
    return Pattern(text=_shown(line), source=source, line=number, negative=negative,
                   only_dir=only_dir, shape=shape, body=body.removeprefix("/"))


def _shown(line: str) -> str:
    return line.encode("latin-1").decode("utf-8", "surrogateescape")


def parse_docker(data: bytes, source: str) -> list[Pattern]:
    """The patterns of a ``.dockerignore``: all are anchored at the root, ``!`` brings back."""
    text = data.decode("latin-1").removeprefix("\xef\xbb\xbf")
    found = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or raw.startswith("#"):
            continue
        negative = line.startswith("!")
        body = line[1:].strip() if negative else line
        body = posixpath.normpath(body).lstrip("/") if body else ""
        # "." would ignore the root itself, which docker does not do either.
        if body and body != ".":
            found.append(Pattern(text=_shown(line), source=source, line=number, negative=negative,
                                 only_dir=False, shape=_Shape.PATH, body=body, docker=True))
    return found


def _fixed(texts: Iterable[str], source: str) -> list[Pattern]:
    lines = "\n".join(texts).encode("utf-8", "surrogateescape")
    return [replace(pattern, line=0) for pattern in parse_git(lines, source)]


class _Index:
    """The patterns of a list that can match one kind of entry, ready to be asked.

    Most patterns are a name, an extension or a path: those are look-ups. The rest is one regular
    expression each for names and for paths, newest pattern first, so that the first alternative
    that matches is the last line that matches.
    """

    __slots__ = ("exts", "name_at", "name_glob", "names", "path_at", "path_glob", "paths",
                 "suffixes", "wants_path")

    def __init__(self, numbered: Sequence[tuple[int, Pattern]], fold: bool) -> None:
        self.names: dict[str, int] = {}
        self.exts: dict[str, int] = {}
        self.suffixes: dict[str, int] = {}
        self.paths: dict[str, int] = {}
        names: list[tuple[int, str]] = []
        paths: list[tuple[int, str]] = []
        for number, pattern in numbered:
            if pattern.shape is _Shape.NAME:
                self._add_name(number, pattern.body, names, fold)
            elif literal_length(pattern.body) == len(pattern.body):
                self.paths[ascii_lower(pattern.body) if fold else pattern.body] = number
            else:
                body = _path_regex(pattern, fold)
                if body is not None:
                    paths.append((number, body))
        self.name_glob, self.name_at = _combine(names)
        self.path_glob, self.path_at = _combine(paths)
        self.wants_path = bool(self.paths) or self.path_glob is not None

    def _add_name(self, number: int, body: str, globs: list[tuple[int, str]], fold: bool) -> None:
        plain = ascii_lower(body) if fold else body
        length = literal_length(body)
        if length == len(body):
            self.names[plain] = number
        elif body[0] == "*" and literal_length(body[1:]) == len(body) - 1:
            suffix = plain[1:]
            if suffix.startswith(".") and "." not in suffix[1:]:
                self.exts[suffix[1:]] = number
            else:
                self.suffixes[suffix] = number
        else:
            regex = git_regex(body, pathname=False, fold=fold)
            if regex is not None:
                globs.append((number, regex))

    def last(self, path: str, name: str) -> int:
        """The highest number of a pattern that matches, -1 if none does."""
        best = self.names.get(name, -1)
        if self.exts:
            _, dot, ext = name.rpartition(".")
            if dot:
                best = max(best, self.exts.get(ext, -1))
        for suffix, number in self.suffixes.items():
            if number > best and name.endswith(suffix):
                best = number
        if self.name_glob is not None:
            found = self.name_glob.fullmatch(name)
            if found:
                best = max(best, self.name_at[found.lastindex or 0])
        if self.wants_path:
            best = max(best, self.paths.get(path, -1))
            if self.path_glob is not None:
                found = self.path_glob.fullmatch(path)
                if found:
                    best = max(best, self.path_at[found.lastindex or 0])
        return best


def _path_regex(pattern: Pattern, fold: bool) -> str | None:
    if pattern.docker:
        return docker_regex(pattern.body)
    # git compares the literal beginning by itself and gives wildmatch only the rest, so that "**"
    # right behind it counts as the beginning of a pattern: "foo**/bar" matches "foobar".
    cut = literal_length(pattern.body)
    head, rest = pattern.body[:cut], pattern.body[cut:]
    regex = git_regex(rest, pathname=True, fold=fold)
    return None if regex is None else re.escape(ascii_lower(head) if fold else head) + regex


def _combine(numbered: list[tuple[int, str]]) -> tuple[re.Pattern[str] | None, tuple[int, ...]]:
    if not numbered:
        return None, ()
    newest_first = numbered[::-1]
    regex = re.compile("|".join(f"({body})" for _, body in newest_first), re.DOTALL)
    return regex, (-1, *(number for number, _ in newest_first))


class PatternList:
    """Patterns with one base, in their order; the last one that matches decides.

    How a path of the tree becomes a path below the base: ``cut`` characters are taken off, or
    ``prefix`` is put before it where the base lies above the tree.
    """

    __slots__ = ("_cut", "_dirs", "_files", "_prefix", "fold", "patterns")

    def __init__(self, patterns: Sequence[Pattern], *, cut: int = 0, prefix: str = "",
                 fold: bool = False) -> None:
        self.patterns = tuple(patterns)
        self.fold = fold
        # In characters of byte text.
        self._cut = cut
        self._prefix = byte_text(prefix)
        if fold:
            self._prefix = ascii_lower(self._prefix)
        numbered = list(enumerate(self.patterns))
        self._dirs = _Index(numbered, fold)
        files = [(n, p) for n, p in numbered if not p.only_dir]
        self._files = self._dirs if len(files) == len(numbered) else _Index(files, fold)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def last(self, path: str, name: str, is_dir: bool) -> int:
        """Index of the last pattern that matches, -1 if none. ``path``, ``name``: byte text."""
        index = self._dirs if is_dir else self._files
        if self.fold:
            path, name = ascii_lower(path), ascii_lower(name)
        if index.wants_path:
            path = path[self._cut:] if self._cut else self._prefix + path
        return index.last(path, name)

    def match(self, path: str, name: str, is_dir: bool) -> Pattern | None:
        """The pattern that decides, None if none does."""
        at = self.last(path, name, is_dir)
        return self.patterns[at] if at >= 0 else None


class _Reach:
    """Which ignored folders must be entered for what patterns bring back inside them."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        # A pattern without a slash is looked for in kept folders only: to follow it everywhere
        # would mean to walk through all that is ignored.
        self._ways = [p.body.split("/") for p in patterns if p.shape is _Shape.PATH]

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
        self.built_in = PatternList(_fixed(LEFTOVERS + ENVIRONMENTS, BUILT_IN))
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

    def reason(self, path: str, is_dir: bool, lists: Mapping[str, PatternList]) -> Pattern | None:
        """The pattern that has ``path`` ignored, None if it is kept.

        ``lists``: each folder's own git patterns, by the folder's path.
        """
        scope = self.top(lists.get(""))
        parts = path.split("/")
        for i in range(1, len(parts)):
            folder = "/".join(parts[:i])
            entered = scope.enter(folder, parts[i - 1], lists.get(folder))
            if entered is None:
                return scope.ignored_by(folder, parts[i - 1], True)
            scope = entered
        return scope.ignored_by(path, parts[-1], is_dir)


class _Inside(Enum):
    PLAIN = 0
    INCLUDED = 1
    """In a folder that the user brought back."""
    IGNORED = 2
    """In an ignored folder, on the way to something that the user brought back."""


class Scope:
    """The rules as they stand for what lies directly in one folder. Immutable; often shared."""

    __slots__ = ("_because", "_docker_at", "_git", "_inside", "_rules", "only")

    def __init__(self, rules: IgnoreRules, *, git: tuple[PatternList, ...] = (),
                 docker_at: int = -1, inside: _Inside = _Inside.PLAIN,
                 because: Pattern | None = None, only: frozenset[str] | None = None) -> None:
        self._rules = rules
        self._git = git
        self._docker_at = docker_at
        self._inside = inside
        self._because = because
        self.only = only
        """Where not None: just these names are to be looked for, the folder is not listed."""

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
