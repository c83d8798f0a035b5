"""What `doctor` looks at. A probe gives findings: what was probed, found, and what mends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from hyperbox_devcontainer.config import Config, load
from hyperbox_devcontainer.errors import ConfigError, WorkstationError
from hyperbox_devcontainer.paths import (
    Project,
    private_dir,
    project_home,
    runtime_dir,
    session_socket,
    state_dir,
)
from hyperbox_tui.cli.orphans import listens, orphan_targets
from hyperbox_tui.cli.output import speaks_unicode
from hyperbox_tui.cli.own import other_command
from hyperbox_tui.cli.report import place_of
from hyperbox_tui.cli.version import VERSION

FEW_WATCHES = 65_536
LITTLE_SPACE = 512 * 1024 * 1024


class Finding(NamedTuple):
    """One line of `doctor`."""

    probed: str
    verdict: str
    """``"good"``, ``"warning"`` or ``"bad"``."""
    found: str
    mend: str = ""
    """The one command, or the one thing to do, that mends it."""


Probe = Callable[[Project, Mapping[str, str]], Iterator[Finding]]


def probe_all(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Every finding, in the order of the screen. A probe that fails is a finding, too."""
    for probe in PROBES:
        try:
            yield from probe(project, environ)
        except (OSError, WorkstationError) as error:
            yield Finding(probe.__name__.strip("_"), "warning", f"can't be probed: {error}",
                          getattr(error, "hint", None) or "")


def _hyperbox(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("hyperbox", "good", f"{VERSION}, on Python {python} ({sys.executable})")
    other = other_command(environ)
    if other:
        yield Finding("PATH", "warning", f"another `hyperbox` is first: {other}",
                      "call this one `hyperbox-tui`; it is the same command")


def _locale(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    if speaks_unicode(environ):
        yield Finding("locale", "good", "UTF-8")
    else:
        yield Finding("locale", "warning", "not UTF-8: marks are shown in ASCII",
                      "export LC_ALL=C.UTF-8")


def _folders(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    for what, path in (("state", state_dir(environ)), ("sockets", runtime_dir(environ))):
        try:
            private_dir(path)
        except WorkstationError as error:
            yield Finding(what, "bad", error.message, error.hint or "")
            continue
        free = os.statvfs(path)
        left = free.f_bavail * free.f_frsize
        if what == "state" and left < LITTLE_SPACE:
            yield Finding(what, "warning", f"{path}: {left >> 20} MB left for kept generations",
                          f"df -h {path}")
        else:
            yield Finding(what, "good", path)


def _inotify(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    limit = _number("/proc/sys/fs/inotify/max_user_watches")
    instances = _number("/proc/sys/fs/inotify/max_user_instances")
    if limit is None or instances is None:
        return
    used, used_instances = _inotify_use()
    found = f"{used:,} of {limit:,} watches, {used_instances:,} of {instances:,} instances"
    if limit - used < FEW_WATCHES // 8 or instances - used_instances < 8:
        yield Finding("inotify", "warning", f"{found}: large trees will be polled",
                      f"sudo sysctl fs.inotify.max_user_watches={max(limit * 4, 524_288)} "
                      f"fs.inotify.max_user_instances={max(instances * 4, 512)}")
    else:
        yield Finding("inotify", "good", found)


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _inotify_use() -> tuple[int, int]:
    """Watches and instances of this user's processes, as far as /proc lets us see."""
    watches = instances = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.getuid():
                continue
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it ended, or is not ours to look into
        for number in descriptors:
            count = _watches_of(pid, number)
            if count is not None:
                instances += 1
                watches += count
    return watches, instances


def _watches_of(pid: str, number: str) -> int | None:
    try:
        if os.readlink(f"/proc/{pid}/fd/{number}") != "anon_inode:inotify":
            return None
        with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
            return file.read().count(b"\ninotify ")
    except OSError:
        return None


def _watcher(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    from hyperbox_agent.errors import AgentError
    from hyperbox_agent.watch.choose import choose_watcher, file_system
    try:
        watcher = choose_watcher(project.root, lambda hints: None, environ=environ)
    except AgentError as error:
        yield Finding("watcher", "bad", error.message, error.hint or "")
        return
    kind = file_system(project.root)
    where = f"{watcher.name}" + (f", on {kind}" if kind else "")
    problems = list(watcher.problems.values())
    watcher.close()
    for problem in problems:
        yield Finding("watcher", "warning", f"{where}: {problem.message}", problem.hint or "")
    if not problems:
        yield Finding("watcher", "good", where)


def _git(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    from shutil import which
    inside = _inside_repository(project.root)
    if which("git", path=environ.get("PATH")):
        yield Finding("git", "good", "present" + ("" if inside else "; this is no repository"))
    elif inside:
        yield Finding("git", "warning", "not on PATH; ignore rules work without it",
                      "apt-get install git")


def _inside_repository(root: str) -> bool:
    while not os.path.exists(os.path.join(root, ".git")):
        parent = os.path.dirname(root)
        if parent == root:
            return False
        root = parent
    return True


def _project(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        config = load(project.root, environ)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("configuration", "bad", f"{place_of(problem)}: {problem}".lstrip(": "),
                          getattr(problem, "hint", None) or "")
        return
    yield from _command(config)
    yield from _port(config, project, environ)


def _command(config: Config) -> Iterator[Finding]:
    command = config.app.command
    if command is None:
        yield Finding("project", "bad", "nothing that could run was found here",
                      'say it in hyperbox.toml: [app] command = ["python", "app.py"]')
        return
    origin = config.origin("app.command")
    shown = command if isinstance(command, str) else " ".join(command)
    yield Finding("project", "good", f"{shown}  ({origin.where or origin.word})")
    found = config.detected
    if found is None:
        return
    if found.pack == "none":
        yield Finding("language", "warning", "no language pack knows it: every reload is cold")
    else:
        framework = f", {found.framework}" if found.framework else ""
        yield Finding("language", "good", f"{found.pack}{framework}")
    for note in found.notes:
        yield Finding("language", "warning", note)


def _port(config: Config, project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    from hyperbox_agent.supervise.port_listen import find_owner
    port = config.app.port
    if port is None:
        yield Finding("port", "good", "none: the program is known by its life or `[reload] ready`")
        return
    owner = find_owner("127.0.0.1", port)
    if owner is None:
        yield Finding("port", "good", f"{port} is free")
    elif listens(session_socket(project, environ)):
        yield Finding("port", "good", f"{port} is held by this project's session")
    else:
        by = f"process {owner.pid} ({owner.command})" if owner.pid else f"user {owner.uid}"
        yield Finding("port", "bad", f"{port} is taken by {by}",
                      "end it, or choose another: hyperbox up --port PORT")


def _left_over(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    if listens(session_socket(project, environ)):
        return
    for target in orphan_targets(project_home(project, environ)):
        yield Finding("session", "warning", f"{target['name']}: its program has no session",
                      "hyperbox up takes it over, hyperbox down ends it")


PROBES: tuple[Probe, ...] = (
    _hyperbox, _locale, _folders, _inotify, _watcher, _git, _project, _left_over)
