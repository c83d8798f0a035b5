"""What the language packs see in a project, for the words of ``up`` and ``config``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hyperbox_devcontainer.config.model import Command as Said
from hyperbox_devcontainer.config.model import Detected
from hyperbox_devcontainer.errors import ConfigError, InputError

Detect = Callable[[str, Mapping[str, str], Said | None, Mapping[str, str], str], Detected | None]
"""Root, environment, the command that was said, its own environment and folder."""


def detect(root: str, environ: Mapping[str, str], command: Said | None,
           env: Mapping[str, str], cwd: str) -> Detected | None:
    """Ask the packs. None where none of them knows the project and no command was said.

    Raises ConfigError where a pack knows that the project can't run as it is.
    """
    from hyperbox_agent.core.words import argv_of
    from hyperbox_langpacks.base import Command, PackError
    from hyperbox_langpacks.registry import find_pack
    from hyperbox_langpacks.view import FolderView
    try:
        pack, found = find_pack(FolderView(root), environ,
                                Command(argv_of(command), dict(env), cwd) if command else None)
    except PackError as error:
        if command is None:
            return None
        raise ConfigError([InputError(error.message, file=error.file, line=error.line,
                                      key="app.command", hint=error.hint)]) from error
    return Detected(pack.name if pack else "none", found.why, found.command.argv, found.port,
                    found.health, found.ready, found.framework, tuple(found.notes))
