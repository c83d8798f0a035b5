"""Every key that ``hyperbox.toml`` knows, as one table: reading, checking and docs go by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hyperbox_devcontainer.config import checks

MODES = ("in-place", "mirror")


class Key(NamedTuple):
    """One key: how its value is checked, what it is when nobody says anything, what it does."""

    section: str
    name: str
    check: Callable[[Any], Any]
    default: Any
    says: str

    @property
    def dotted(self) -> str:
        """``app.port``: the name in messages, ``config`` output and flags."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return f"HYPERBOX_{self.section}_{self.name}".upper()


APP = (
    Key("app", "command", checks.command, None,
        "What runs: a list of arguments, or a string for the shell. Unset: detected."),
    Key("app", "port", checks.port, None,
        "The port that the program is reached at. Unset: detected; none: a program without one."),
    Key("app", "host", checks.host, "localhost",
        "Where the port is held: `localhost` (both loopbacks) or an address of this machine."),
    Key("app", "health", checks.health, None,
        "A path that must answer 200–399 before a new version takes traffic. "
        "Unset: any complete answer to `GET /`."),
    Key("app", "env", checks.environment, {}, "Environment variables of the program, as a table."),
    Key("app", "env_file", checks.texts, (),
        "Files of `NAME=value` lines that are read into the program's environment."),
    Key("app", "cwd", checks.inner_path, "", "The folder it runs in, below the project's root."),
    Key("app", "tty", checks.flag, False, "Give the program a terminal in place of pipes."),
    Key("app", "stdin", checks.flag, None,
        "Whether what is typed into `up` goes to the program. Unset: where it is a terminal."),
    Key("app", "grace", checks.seconds, 3.0, "Seconds between SIGTERM and SIGKILL."),
    Key("app", "start_timeout", checks.seconds, 30.0,
        "Seconds that a new version may take until it is healthy."),
)

SYNC = (
    Key("sync", "ignore", checks.patterns, (),
        "What is left out beside `.gitignore` and `.dockerignore`, in gitignore's words."),
    Key("sync", "include", checks.patterns, (),
        "Ignored files that a mirrored target gets all the same (`.env`, built assets)."),
    Key("sync", "mode", checks.mode, "in-place",
        "`in-place`: the program runs from the folder that is edited. "
        "`mirror`: it gets a tree of its own."),
    Key("sync", "pull", checks.patterns, (),
        "Files that come back from a mirrored target (`uv.lock`, `migrations/`)."),
)

RELOAD = (
    Key("reload", "rung", checks.rung, "rebuild",
        "The highest rung that may be taken: nothing, notify, patch, warm, restore, cold, "
        "reinstall or rebuild."),
    Key("reload", "overlap", checks.flag, None,
        "Whether two versions may run at once. Unset: with a port yes, without one no."),
    Key("reload", "drain", checks.seconds, 3.0,
        "Seconds that the old version gets for what it is still answering."),
    Key("reload", "ready", checks.pattern, None,
        "A regular expression: the line of output that says that the program is ready."),
    Key("reload", "ready_after", checks.seconds, 1.0,
        "Seconds alive that count as ready, for a program without port and `ready`."),
    Key("reload", "notify", checks.patterns, (),
        "Files whose change is only told to clients: nothing is reloaded."),
    Key("reload", "pre", checks.commands, (), "Commands that run before each new version starts."),
    Key("reload", "post", checks.commands, (),
        "Commands that run after each version that went live."),
)

TARGET = (
    Key("target", "kind", checks.kind, "process", "Where it runs: `process`."),
    Key("target", "path", checks.tree_path, None,
        "Mirrored: the folder that holds the tree. Unset: one beside our own state."),
    Key("target", "mode", checks.mode, None, "As `[sync] mode`, for this target alone."),
)

SECTIONS = {"app": APP, "sync": SYNC, "reload": RELOAD}
KEYS = {key.dotted: key for section in SECTIONS.values() for key in section}
TOP = (*SECTIONS, "target")
