"""Which project a verb is about."""

from __future__ import annotations

import os

from hyperbox_devcontainer.paths import find_project, session_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperbox_devcontainer.paths import Project
    from hyperbox_tui.cli.parse import Args


def project_of(args: Args, environ: Mapping[str, str]) -> Project:
    """The project that a verb is about.

    A folder that was named is taken as it is. Where none was, a folder inside a project that is up
    means that project: `hyperbox flush` works from every subfolder.
    """
    here = find_project(args.path)
    if args.path != ".":
        return here
    found = here
    while not os.path.exists(session_socket(found, environ)):
        parent = os.path.dirname(found.root)
        if parent == found.root:
            return here
        found = find_project(parent)
    return found
