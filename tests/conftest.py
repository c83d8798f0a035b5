"""What every test stands on: what the machine must have, a home of its own, and no leftovers.

Runs under Python 3.10 with nothing but pytest, pytest-asyncio and hypothesis, as the agent's and
the packs' tests do.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from pythons import find_python

RUN_MARK = "PYTEST_RUN_MARK"
"""Environment variable that every process started by this run's tests inherits."""

ENDING_SECONDS = 30.0
"""How long processes and mounts may take to go after the last test."""

# ------------------------------------------------------------------------------- what is needed


@dataclass(frozen=True)
class Need:
    """One thing that a test can't do without: how to see it, and what brings it."""

    present: Callable[[], bool]
    brought_by: str


def _runs(*argv: str) -> bool:
    try:
        done = subprocess.run(argv, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _program(name: str, package: str | None = None) -> Need:
    return Need(lambda: shutil.which(name) is not None, f"apt-get install {package or name}")


def _module(name: str, brought_by: str = "uv sync --all-packages") -> Need:
    return Need(lambda: importlib.util.find_spec(name) is not None, brought_by)


def _other_python(version: str) -> Need:
    return Need(lambda: find_python(version) is not None,
                f"apt-get install python{version}, or pyenv install {version}")


NEEDS = {
    "root": Need(lambda: os.geteuid() == 0, "run as root"),
    "linux": Need(lambda: sys.platform == "linux", "Linux"),
    "inotify": Need(lambda: sys.platform == "linux", "Linux"),
    "userns": Need(lambda: _runs("unshare", "--user", "--map-root-user", "true"),
                   "sysctl kernel.unprivileged_userns_clone=1"),
    "mount": Need(lambda: _runs("unshare", "--mount", "true"), "run as root"),
    "netns": Need(lambda: _runs("unshare", "--net", "true"), "run as root"),
    "git": _program("git"),
    "strace": _program("strace"),
    "rsync": _program("rsync"),
    "ss": _program("ss", "iproute2"),
    "ip": _program("ip", "iproute2"),
    "sshd": _program("sshd", "openssh-server"),
    "bwrap": _program("bwrap", "bubblewrap"),
    "bash": _program("bash"),
    "zsh": _program("zsh"),
    "fish": _program("fish"),
    # exFAT folds names and has neither modes nor links: the file system of many a memory card.
    "exfat": Need(lambda: all(map(shutil.which, ("mount.exfat-fuse", "mkfs.exfat")))
                  and os.access("/dev/fuse", os.W_OK), "apt-get install exfat-fuse exfatprogs"),
    # What some of the rivals need that are measured beside us.
    "python3.12+": Need(lambda: any(map(find_python, ("3.12", "3.13", "3.14"))),
                        "apt-get install python3.13, or pyenv install 3.13"),
    "venv": _module("ensurepip", "apt-get install python3-venv"),
    # Modules whose name is also a program's: one may be there without the other.
    **{name: _module(name) for name in ("flask", "gunicorn", "pytest", "uvicorn", "watchfiles")},
}


def need(what: str) -> Need:
    """The need of that name; a name outside the table is a Python, a program or a module."""
    if what in NEEDS:
        return NEEDS[what]
    if what.startswith("python3."):
        return _other_python(what.removeprefix("python"))
    module = _module(what)
    return Need(lambda: shutil.which(what) is not None or module.present(), module.brought_by)


@functools.cache
def is_present(what: str) -> bool:
    """Whether this machine has it; each thing is looked for once a run."""
    return need(what).present()


def _missing_in(item: pytest.Item) -> list[str]:
    wanted = [what for mark in item.iter_markers("needs") for what in mark.args]
    return sorted({what for what in wanted if not is_present(what)})


# -------------------------------------------------------------------------------------- options


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hyperbox")
    group.addoption("--all", action="store_true", dest="run_all",
                    help="also run the tests that are marked slow")
    group.addoption("--strict-needs", action="store_true",
                    default=os.environ.get("HYPERBOX_STRICT") == "1",
                    help="what is missing on this machine fails a test instead of skipping it")
    group.addoption("--may-lack", action="append", default=[], metavar="WHAT",
                    help="with --strict-needs: this may be missing all the same")


def pytest_configure(config: pytest.Config) -> None:
    os.environ[RUN_MARK] = uuid.uuid4().hex
    suppressed = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    # The same examples each time: a run that fails by chance blocks everybody. Fresh ones are for
    # who looks for them: pytest --hypothesis-profile=explore.
    settings.register_profile("everyday", deadline=None, derandomize=True, max_examples=60,
                              database=None, suppress_health_check=suppressed)
    settings.register_profile("explore", deadline=None, max_examples=2000,
                              suppress_health_check=suppressed)
    settings.load_profile(config.getoption("--hypothesis-profile", None) or "everyday")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("run_all") or any("::" in arg for arg in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


# Before fixtures are made: what is missing may be what a fixture would trip over.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = _missing_in(item)
    if not missing:
        return
    item.user_properties.extend(("missing", what) for what in missing)
    reason = "missing: " + ", ".join(f"{what} ({need(what).brought_by})" for what in missing)
    unforgiven = set(missing) - set(item.config.getoption("may_lack"))
    if unforgiven and item.config.getoption("strict_needs"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("skipped", "error", "failed")
               for report in terminalreporter.stats.get(kind, [])]
    counts: dict[str, int] = {}
    for report in reports:
        for key, what in getattr(report, "user_properties", ()):
            if key == "missing":
                counts[what] = counts.get(what, 0) + 1
    if counts:
        terminalreporter.section("missing on this machine")
    for what, count in sorted(counts.items()):
        terminalreporter.write_line(
            f"{what}: {count} test{'s' * (count > 1)}, brought by: {need(what).brought_by}")


# ------------------------------------------------------------------------------- a home of its own


def _set_up_home(patch: pytest.MonkeyPatch, home: Path, runtime: str) -> None:
    """Point everything that a process looks up for its user at ``home``; drop what would leak."""
    for name in list(os.environ):
        leaks = name.startswith(("HYPERBOX_", "GIT_", "XDG_", "VIRTUAL_ENV", "CONDA_", "UV_RUN"))
        if leaks or name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH",
                             "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"):
            patch.delenv(name)
    patch.setenv("HOME", str(home))
    for name, folder in (("CONFIG", ".config"), ("STATE", ".local/state"), ("CACHE", ".cache"),
                         ("DATA", ".local/share")):
        patch.setenv(f"XDG_{name}_HOME", str(home / folder))
    patch.setenv("XDG_RUNTIME_DIR", runtime)
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    patch.setenv("GIT_TERMINAL_PROMPT", "0")
    for who in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{who}_NAME", "Test")
        patch.setenv(f"GIT_{who}_EMAIL", "test@example.org")


@pytest.fixture(scope="session")
def tool_caches() -> dict[str, str]:
    """Where the tools of this machine keep what they would otherwise fetch again."""
    home = os.path.expanduser("~")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    found = {"UV_CACHE_DIR": os.path.join(cache, "uv"), "PIP_CACHE_DIR": os.path.join(cache, "pip"),
             "PYENV_ROOT": os.path.join(home, ".pyenv")}
    return {name: os.environ.get(name, path) for name, path in found.items()}


@pytest.fixture(scope="session")
def runtime_dir() -> Iterator[str]:
    """A short folder: a unix socket's path has 107 bytes, and pytest's own folders are deep."""
    path = tempfile.mkdtemp(prefix="hbt-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory: pytest.TempPathFactory, runtime_dir: str,
                 tool_caches: dict[str, str]) -> Iterator[None]:
    """The home that fixtures wider than one test see."""
    with pytest.MonkeyPatch.context() as patch:
        _set_up_home(patch, tmp_path_factory.mktemp("home"), runtime_dir)
        for name, path in tool_caches.items():
            patch.setenv(name, path)
        yield


@pytest.fixture(autouse=True)
def own_home(session_home: None, tmp_path_factory: pytest.TempPathFactory, runtime_dir: str,
             monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, for this test alone."""
    path = tmp_path_factory.mktemp("home")
    _set_up_home(monkeypatch, path, tempfile.mkdtemp(dir=runtime_dir))
    return path


@pytest.fixture
def other_python() -> Callable[[str], str]:
    """Finds an interpreter by version; the test says ``needs("python3.10")`` beside it."""

    def find(version: str) -> str:
        path = find_python(version)
        assert path is not None, f"the test lacks @pytest.mark.needs('python{version}')"
        return path

    return find


# ------------------------------------------------------------------------------------- leftovers


def _environ_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _command_of(pid: int) -> str:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "(it has just ended)"
    return argv.replace(b"\0", b" ").decode(errors="replace").strip()


def _started_by_this_run() -> dict[int, str]:
    """The living processes, by command line, that carry this run's mark; not ourselves."""
    mark = f"{RUN_MARK}={os.environ[RUN_MARK]}".encode()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = {}
    for pid in pids:
        if pid != os.getpid() and mark in _environ_of(pid).split(b"\0"):
            found[pid] = _command_of(pid)
    return found


def _mounts_below(folder: Path) -> list[str]:
    text = Path("/proc/self/mounts").read_text(errors="surrogateescape")
    points = [line.split(" ")[1] for line in text.split("\n") if line]
    return [point for point in points if point.startswith(f"{folder}/")]


@pytest.fixture(scope="session", autouse=True)
def no_leftovers(session_home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the last test of this process: no process that a test started, no mount."""
    yield
    if sys.platform != "linux":
        return
    deadline = time.monotonic() + ENDING_SECONDS
    while (left := _started_by_this_run()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, "the tests left these processes behind:\n" + "\n".join(
        f"  {pid}: {command}" for pid, command in left.items())
    # Only our own folder: other workers of this run, and other runs, mount in theirs.
    base = tmp_path_factory.getbasetemp().resolve()
    while (mounts := _mounts_below(base)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not mounts, f"the tests left mounts behind: {mounts}"
