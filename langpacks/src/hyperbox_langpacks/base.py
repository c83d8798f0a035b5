"""The contract of a language pack.

A pack is plain data plus a few pure functions that return plans. It never runs a process itself:
the supervisor carries the plans out. Packs run next to the program, on every target, so they are
standard library only and work on Python 3.10 and newer.

Its values are named tuples: `hyperbox config` loads this module, and a frozen dataclass takes four
times as long to make, with `inspect` to be imported first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable


class Rung(IntEnum):
    """The ways of reloading, cheapest first. The order is the ladder: compare with ``<``."""

    NOTHING = 0
    NOTIFY = 1
    PATCH = 2
    WARM = 3
    RESTORE = 4
    COLD = 5
    REINSTALL = 6
    REBUILD = 7

    @property
    def word(self) -> str:
        """The word that events, history and screens use."""
        return self.name.lower()


class PackError(Exception):
    """A pack can't do what was asked: says what, where and the way out."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None,
                 hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.hint = hint


class ProjectView(Protocol):
    """A read-only look at a project's tree. Paths are POSIX, relative to the root.

    Absolute paths are allowed for looking at the environment (interpreters, what is installed),
    which may lie outside the tree.
    """

    @property
    def root(self) -> str:
        """Absolute path of the root on the machine where the program runs."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or a folder stands at ``path``."""
        ...

    def is_dir(self, path: str) -> bool:
        """Whether a folder stands at ``path``."""
        ...

    def read_text(self, path: str, limit: int = 262_144) -> str | None:
        """The first ``limit`` bytes as text (UTF-8, errors replaced); None: no file."""
        ...

    def list_dir(self, path: str = "") -> Sequence[str]:
        """Names in a folder, sorted; empty where there is none."""
        ...


class Command(NamedTuple):
    """How the program is started."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = MappingProxyType({})
    cwd: str = ""
    """Relative to the root."""


class Detection(NamedTuple):
    """What a pack found in a project, and why it thinks so."""

    pack: str
    command: Command
    why: str
    """One sentence: what was seen that decided."""
    certainty: float
    """0–1; the highest of all packs wins."""
    framework: str | None = None
    port: int | None = None
    health: str | None = None
    """A path that must answer 200–399, or None for "any complete answer to GET /"."""
    interpreter: str | None = None
    """Absolute path of the project's own interpreter on this machine."""
    ready: str | None = None
    notes: tuple[str, ...] = ()
    """Sentences for the user: what was switched off, what is missing and the way out."""
    environment: str | None = None
    """Absolute folder of the environment that is this project's own: what installs for it may
    change this one and no other. None: it has none, and runs in one that others use, too."""
    pinned: bool = False
    """Whether the command names its interpreter by its path: no other environment is of use."""


class FileChange(NamedTuple):
    """One changed path as a pack sees it."""

    path: str
    what: str
    """``"added"``, ``"modified"`` or ``"deleted"``."""
    kind: str = "file"
    """``"file"``, ``"dir"`` or ``"link"``."""


class RungChoice(NamedTuple):
    """The rung for a set of changes and the reason, as the trace says it."""

    rung: Rung
    why: str


class RunFacts(NamedTuple):
    """What the supervisor knows about the running program when a rung is chosen."""

    running: bool
    loaded: frozenset[str] = frozenset()
    """Paths relative to the root of the files that the program has loaded or opened, as far as its
    shim told; empty when unknown."""
    warm_ready: bool = False
    warm_refused: str | None = None
    """Why there is no prepared parent (names the library), or None."""
    highest: Rung = Rung.REBUILD
    modules: frozenset[str] = frozenset()
    """Names of the libraries' modules that the program, or an earlier version of it, has loaded."""
    told: bool = False
    """Whether its shim has told of what it loads: ``loaded`` is then known, even where empty."""


class Diagnostic(NamedTuple):
    """One thing that is wrong in a file, as a gate reports it."""

    path: str
    line: int | None
    column: int | None
    message: str


class WorkerSpec(NamedTuple):
    """How to start a pack's worker: the process that gates staged files and is the prepared parent.

    The worker speaks the protocol of ``docs/pack-workers.md`` on the file descriptor whose number
    is in ``HYPERBOX_WORKER_FD``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]


class LaunchSpec(NamedTuple):
    """A command line and the environment additions that put a program behind the agent's port."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    port_mapped: bool
    """True when the shim maps the program's own ``bind`` (it reports its private port itself);
    False when the program is given a private port by ``PORT`` or ``{port}``."""


class InstallPlan(NamedTuple):
    """What brings the environment in line with a lock or requirements file."""

    steps: tuple[Command, ...]
    why: str
    environment: str | None = None
    """Absolute folder of the environment that the steps make or change. None: they change one that
    can't stand anywhere else, so that no copy of it can be tried first."""


@runtime_checkable
class Pack(Protocol):
    """What a language needs. Every method is pure: it reads its arguments and returns a plan."""

    name: str

    def detect(self, view: ProjectView, environ: Mapping[str, str]) -> Detection | None:
        """What this project is in this pack's language, or None.

        Reads only through ``view`` and ``environ`` (``PATH`` is used to find interpreters).
        """
        ...

    def complete(self, view: ProjectView, environ: Mapping[str, str],
                 command: Command) -> Detection:
        """As ``detect`` for a command that the user gave: finds interpreter, framework, notes.

        Raises PackError where the command can't be this pack's.
        """
        ...

    def wants_gate(self, path: str) -> bool:
        """Whether a staged file with this path is checked before it is applied."""
        ...

    def worker(self, view: ProjectView, found: Detection, code_dir: str) -> WorkerSpec | None:
        """The worker of this project, or None where the pack has none.

        ``code_dir``: an existing folder of the owner's alone, where compiled code is kept.
        """
        ...

    def launch(self, view: ProjectView, found: Detection, public_port: int | None,
               code_dir: str) -> LaunchSpec:
        """How to start the program cold."""
        ...

    def choose(self, view: ProjectView, found: Detection, changes: Sequence[FileChange],
               facts: RunFacts) -> RungChoice:
        """The cheapest rung that is right for these changes, and why."""
        ...

    def install(self, view: ProjectView, found: Detection,
                changes: Sequence[FileChange]) -> InstallPlan | None:
        """What a changed lock or requirements file needs, or None if nothing.

        Where ``found.environment`` is a copy of the project's, the steps change that copy. Raises
        PackError where the project has no environment of its own: nothing is installed for it into
        one that others use.
        """
        ...

    def make(self, view: ProjectView, environ: Mapping[str, str],
             found: Detection) -> InstallPlan | None:
        """What makes the project's own environment below its root, or None where it has one, or
        its files ask for nothing to be installed, or its command would not use it.

        Raises PackError where that can't be done here: says what is missing and the way out.
        """
        ...
