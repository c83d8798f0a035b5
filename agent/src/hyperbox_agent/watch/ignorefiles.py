"""Finds and reads the files that say what is ignored; ``core/ignore.py`` decides what they mean."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Container, Mapping
from dataclasses import dataclass

from hyperbox_agent.core.ignore import (
    VENV,
    IgnoreOptions,
    IgnoreRules,
    Pattern,
    PatternList,
    parse_docker,
    parse_git,
)
from hyperbox_agent.core.wildmatch import byte_text

GITIGNORE = ".gitignore"
DOCKERIGNORE = ".dockerignore"
VENV_MARK = "pyvenv.cfg"
GIT_TIMEOUT = 5.0

@dataclass(frozen=True, slots=True)
class Repository:
    """The git work tree that a folder lies in."""

    top: str
    git_dir: str
    common_dir: str
    """Where ``info/exclude`` is: in a worktree not its own git dir."""


def find_repository(root: str) -> Repository | None:
    """The innermost work tree that holds ``root``; None outside of any."""
    folder = os.path.abspath(root)
    while True:
        found = repository_at(folder)
        if found is not None:
            return found
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def repository_at(folder: str) -> Repository | None:
    """The work tree whose top is ``folder``; None if it is not one."""
    dot_git = os.path.join(folder, ".git")
    git_dir: str | None = dot_git
    if os.path.isfile(dot_git):
        git_dir = _pointer(dot_git, "gitdir:")
    # An empty ".git" folder is none for git either: it goes on to look above.
    if git_dir is None or not os.path.exists(os.path.join(git_dir, "HEAD")):
        return None
    common = _pointer(os.path.join(git_dir, "commondir"), "") or git_dir
    return Repository(folder, git_dir, common)


def _pointer(file: str, word: str) -> str | None:
    """The path in a one-line file of git's, relative ones from the file's folder."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as handle:
            line = handle.readline().rstrip("\n")
    except OSError:
        return None
    if not line.startswith(word):
        return None
    return os.path.normpath(os.path.join(os.path.dirname(file), line[len(word):].strip()))


def read_small(path: str, *, follow: bool) -> bytes | None:
    """A file's bytes; None if there is none to be read. Never blocks on a fifo."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except OSError:
        return None
    try:
        with open(fd, "rb") as handle:
            return handle.read()
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class GitConfig:
    """The two settings of git that ignoring depends on."""

    excludes_file: str
    ignore_case: bool = False


def read_git_config(root: str, environ: Mapping[str, str]) -> GitConfig:
    """Asks git once; without a git program the usual files are read plainly."""
    values = _ask_git(root, environ)
    if values is None:
        values = _read_config_files(root, environ)
    home = environ.get("HOME", "")
    default = os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"),
                           "git", "ignore")
    excludes = values.get("core.excludesfile", default)
    if excludes.startswith("~/"):
        excludes = os.path.join(home, excludes[2:])
    fold = values.get("core.ignorecase", "false").lower() in ("true", "yes", "on", "1", "")
    return GitConfig(excludes and os.path.join(root, excludes), fold)


def _ask_git(root: str, environ: Mapping[str, str]) -> dict[str, str] | None:
    argv = ["git", "config", "-z", "--get-regexp", r"^core\.(excludesfile|ignorecase)$"]
    try:
        ran = subprocess.run(argv, cwd=root, env=dict(environ), stdin=subprocess.DEVNULL,
                             capture_output=True, timeout=GIT_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # 1: nothing is set. Anything else: a broken configuration, of which git says so itself.
    if ran.returncode not in (0, 1):
        return None
    values = {}
    for record in os.fsdecode(ran.stdout).split("\0"):
        key, newline, value = record.partition("\n")
        if key:
            values[key.lower()] = value if newline else ""
    return values


def _read_config_files(root: str, environ: Mapping[str, str]) -> dict[str, str]:
    home = environ.get("HOME", "")
    config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    files = [os.path.join(config_home, "git", "config"), os.path.join(home, ".gitconfig")]
    repository = find_repository(root)
    if repository is not None:
        files.append(os.path.join(repository.common_dir, "config"))
    values: dict[str, str] = {}
    for file in files:
        values |= _core_section(os.fsdecode(read_small(file, follow=True) or b""))
    return values


def _core_section(text: str) -> dict[str, str]:
    values = {}
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[]").strip().lower()
        elif section == "core" and line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            values["core." + key.strip().lower()] = value.strip().strip('"') if equals else ""
    return values


class IgnoreFiles:
    """The ignore files of one root: those of its folders, and those that lie outside.

    ``rules`` and ``lists`` are what was read last. Reading is asked for; what changed is said.
    """

    def __init__(self, root: str, options: IgnoreOptions, environ: Mapping[str, str]) -> None:
        self.root = os.path.abspath(root)
        self.lists: dict[str, PatternList] = {}
        self._texts: dict[str, tuple[bool, bytes, bytes]] = {}
        self._global: list[Pattern] = []
        self._options = options
        self._environ = environ
        self._fold = False
        self._outside: dict[str, tuple[int, int, int] | None] = {}
        self._exclude: str | None = None
        self.rules = IgnoreRules(options)

    def load(self) -> None:
        """Read all that lies outside of the folders: git's settings, excludes, parents' files."""
        self._outside.clear()
        self._exclude = None
        above = self._read_above() if self._options.git else ()
        docker: list[Pattern] = []
        if self._options.docker:
            docker = parse_docker(self._note(os.path.join(self.root, DOCKERIGNORE), follow=True),
                                  DOCKERIGNORE)
        self.rules = IgnoreRules(self._options, above=above, docker=docker)

    def outside_changed(self) -> bool:
        """Whether a file that ``load`` read, or missed, is another one now. A stat each."""
        if self._options.git and self._exclude is None and repository_at(self.root) is not None:
            return True
        return any(_identity(path) != seen for path, seen in self._outside.items())

    @property
    def exclude_file(self) -> str | None:
        """The repository's ``info/exclude``, relative to the root; None outside of git."""
        return self._exclude and os.path.relpath(self._exclude, self.root)

    def read_own(self, folder: str, names: Container[str]) -> bool:
        """Read the patterns of ``folder`` itself, which holds ``names``; whether they changed.

        The top of another work tree (a submodule, a clone inside) has git's excludes anew.
        """
        if not self._options.git or not (GITIGNORE in names or folder in self._texts
                                         or (folder and ".git" in names)):
            return False
        full = os.path.join(self.root, folder)
        own = read_small(os.path.join(full, GITIGNORE), follow=False) if GITIGNORE in names else b""
        nested = repository_at(full) if folder and ".git" in names else None
        exclude = b""
        if nested is not None:
            file = os.path.join(nested.common_dir, "info", "exclude")
            exclude = read_small(file, follow=True) or b""
        text = (nested is not None, exclude, own or b"")
        if text == self._texts.get(folder, (False, b"", b"")):
            return False
        if text == (False, b"", b""):
            self.drop(folder)
            return True
        self._texts[folder] = text
        at = f"{folder}/" if folder else ""
        patterns = [*self._global, *parse_git(exclude, f"{at}.git/info/exclude")] if nested else []
        patterns += parse_git(own or b"", at + GITIGNORE)
        self.lists[folder] = PatternList(patterns, fold=self._fold, folder=at)
        return True

    def reason(self, path: str, is_dir: bool) -> Pattern | None:
        """The pattern that has ``path`` ignored; None if it is not."""
        nested = {folder for folder in self._texts if self.is_repository(folder)}
        found = self.rules.reason(path, is_dir, self.lists, nested)
        return found or (VENV if self._in_venv(path, is_dir) else None)

    def _in_venv(self, path: str, is_dir: bool) -> bool:
        parts = path.split("/")
        folders = ["/".join(parts[:i]) for i in range(1, len(parts) + is_dir)]
        return any(os.path.exists(os.path.join(self.root, folder, VENV_MARK))
                   for folder in folders)

    def is_repository(self, folder: str) -> bool:
        """Whether ``folder``, below the root, is the top of a work tree of its own."""
        return self._texts.get(folder, (False,))[0]

    def drop(self, folder: str) -> None:
        """Forget a folder that is gone."""
        self._texts.pop(folder, None)
        self.lists.pop(folder, None)

    def _note(self, path: str, *, follow: bool) -> bytes:
        self._outside[path] = _identity(path)
        return read_small(path, follow=follow) or b""

    def _read_above(self) -> tuple[PatternList, ...]:
        config = read_git_config(self.root, self._environ)
        repository = find_repository(self.root)
        self._fold = config.ignore_case and repository is not None
        top = repository.top if repository else self.root
        prefix = os.path.relpath(self.root, top)
        parts = [] if prefix == "." else prefix.split("/")
        self._global = (parse_git(self._note(config.excludes_file, follow=True),
                                  config.excludes_file) if config.excludes_file else [])
        patterns = [list(self._global)]
        if repository is not None:
            self._exclude = os.path.join(repository.common_dir, "info", "exclude")
            patterns[0] += parse_git(self._note(self._exclude, follow=True), ".git/info/exclude")
        for i in range(len(parts)):
            file = os.path.join(top, *parts[:i], GITIGNORE)
            patterns.append(parse_git(self._note(file, follow=False), file))
        bases = [0, *range(len(parts))]
        if self._chosen_although_ignored(list(zip(bases, patterns, strict=True)), parts):
            return ()
        return tuple(PatternList(found, prefix="".join(p + "/" for p in parts[base:]),
                                 fold=self._fold)
                     for base, found in zip(bases, patterns, strict=True) if found)

    def _chosen_although_ignored(self, levels: list[tuple[int, list[Pattern]]],
                                 parts: list[str]) -> bool:
        """Whether the root itself is ignored from above: then the person wants it nevertheless."""
        for depth in range(1, len(parts) + 1):
            for base, patterns in reversed(levels):
                if base >= depth:
                    continue
                below = byte_text("/".join(parts[base:depth]))
                found = PatternList(patterns, fold=self._fold).match(
                    below, byte_text(parts[depth - 1]), True)
                if found is not None:
                    if not found.negative:
                        return True
                    break
        return False


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
