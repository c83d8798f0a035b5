"""How a verb reaches the session of its project."""

from __future__ import annotations

from hyperbox_devcontainer.errors import NoSessionError
from hyperbox_devcontainer.paths import session_socket
from hyperbox_devcontainer.verbs.client import Client
from hyperbox_tui.cli.project import project_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from hyperbox_devcontainer.paths import Project
    from hyperbox_tui.cli.parse import Args

ANSWER_SECONDS = 5.0
"""For a verb that the session answers at once."""
SLACK_SECONDS = 5.0
"""What a verb with a limit of its own gets on top, so that the session's better error comes."""


def connect(project: Project, environ: Mapping[str, str]) -> Client:
    """The project's session. Raises NoSessionError that says what to do."""
    try:
        return Client.connect(session_socket(project, environ), project=project.root)
    except NoSessionError as error:
        raise NoSessionError(f"{project.name} is not up", file=project.root,
                             hint="`hyperbox up` brings it up") from error


def call(args: Args, environ: Mapping[str, str], verb: str,
         body: Mapping[str, Any] | None = None, *, timeout: float = ANSWER_SECONDS) -> Any:
    """One question to the project's session."""
    with connect(project_of(args, environ), environ) as client:
        return client.call(verb, body, timeout=timeout)
