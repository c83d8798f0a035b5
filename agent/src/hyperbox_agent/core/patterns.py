"""Lines of ignore files as patterns, and lists of patterns ready to be asked."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from hyperbox_agent.core.wildmatch import (
    SPECIAL,
    ascii_lower,
    byte_text,
    docker_regex,
    git_regex,
    literal_length,
)


class Shape(Enum):
    """What a pattern is compared with."""

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
    shape: Shape
    body: str
    """Byte text, without ``!``, anchor and trailing slash."""
    docker: bool = False

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.text}"


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
    shape = Shape.PATH if "/" in body else Shape.NAME
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
                                 only_dir=False, shape=Shape.PATH, body=body, docker=True))
    return found


class Index:
    """The patterns of a list that can match one kind of entry, ready to be asked.

    Most patterns are a name, an extension or a path: those are look-ups. The rest is one regular
    expression each for names and for paths, newest pattern first, so that the first alternative
    that matches is the last line that matches.
    """

    __slots__ = ("exts", "firsts", "name_at", "name_glob", "names", "path_at", "path_glob",
                 "paths", "suffixes", "wants_path")

    def __init__(self, numbered: Sequence[tuple[int, Pattern]], fold: bool) -> None:
        self.names: dict[str, int] = {}
        self.exts: dict[str, int] = {}
        self.suffixes: dict[str, int] = {}
        self.paths: dict[str, int] = {}
        names: list[tuple[int, str]] = []
        paths: list[tuple[int, str]] = []
        for number, pattern in numbered:
            if pattern.shape is Shape.NAME:
                self._add_name(number, pattern.body, names, fold)
            elif literal_length(pattern.body) == len(pattern.body):
                self.paths[ascii_lower(pattern.body) if fold else pattern.body] = number
            else:
                body = _path_regex(pattern, fold)
                if body is not None:
                    paths.append((number, body))
        self.name_glob, self.name_at = _combine(names)
        self.path_glob, self.path_at = _combine(paths)
        self.firsts = _first_characters(pattern.body for number, pattern in numbered
                                        if number in self.name_at)
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


def _first_characters(bodies: Iterable[str]) -> frozenset[str] | None:
    """With which characters a name must begin to match one of these globs; None: any."""
    firsts = {body[0] for body in bodies}
    return None if firsts & set(SPECIAL) else frozenset(firsts)


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

    The base is a folder of the tree (``folder``, ending in a slash, or "" for the root), or one
    above it: then ``prefix`` is the tree's own path below the base.
    """

    __slots__ = ("_base", "_cut", "_dirs", "_files", "_prefix", "fold", "patterns")

    def __init__(self, patterns: Sequence[Pattern], *, folder: str = "", prefix: str = "",
                 fold: bool = False) -> None:
        self.patterns = tuple(patterns)
        self.fold = fold
        self._base = byte_text(folder)
        self._cut = len(self._base)
        self._prefix = byte_text(prefix)
        if fold:
            self._prefix = ascii_lower(self._prefix)
        numbered = list(enumerate(self.patterns))
        self._dirs = Index(numbered, fold)
        files = [(n, p) for n, p in numbered if not p.only_dir]
        self._files = self._dirs if len(files) == len(numbered) else Index(files, fold)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def last(self, path: str, name: str, is_dir: bool) -> int:
        """Index of the last pattern that matches, -1 if none. ``path``, ``name``: byte text."""
        index = self._dirs if is_dir else self._files
        if self.fold:
            path, name = ascii_lower(path), ascii_lower(name)
        if index.wants_path:
            path = self.below_base(path)
        return index.last(path, name)

    @property
    def for_files(self) -> Index:
        """What can match a file."""
        return self._files

    def in_tree(self, path: str) -> str | None:
        """A path below the base as a path of the tree; None: outside. Byte text."""
        if self._cut:
            return self._base + path
        return path[len(self._prefix):] if path.startswith(self._prefix) else None

    def below_base(self, path: str) -> str:
        """A path of the tree as a path below the base. Byte text."""
        return path[self._cut:] if self._cut else self._prefix + path

    def match(self, path: str, name: str, is_dir: bool) -> Pattern | None:
        """The pattern that decides, None if none does."""
        at = self.last(path, name, is_dir)
        return self.patterns[at] if at >= 0 else None
