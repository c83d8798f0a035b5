"""`hyperbox down`: nothing that was started is left, whatever state it is in.

Three ways, each with a time limit: the session ends everything itself; a session that is silent is
ended by its process id; what a lost session left is ended without one.
"""

from __future__ import annotations

import os
import time

from hyperbox_devcontainer.errors import NoSessionError, SilentSessionError, WorkstationError
from hyperbox_devcontainer.paths import session_socket
from hyperbox_devcontainer.verbs.client import Client
from hyperbox_tui.cli.exits import DONE
from hyperbox_tui.cli.project import project_of
from hyperbox_tui.view.spans import Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hyperbox_devcontainer.paths import Project
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args

LIMIT_SECONDS = 20.0
KILL_SECONDS = 3.0


def run(args: Args, out: Output) -> int:
    """End it and say what was ended."""
    project = project_of(args, out.environ)
    limit = args.seconds("timeout", LIMIT_SECONDS)
    ended = _by_session(project, limit, out) or _without_session(project, limit, out)
    if out.as_json:
        out.json({"project": project.name, "path": project.root, "ended": ended})
    elif ended:
        out.line(Span(f"{out.style.mark('down')} {project.name} is down", "dim"))
    else:
        out.line(f"{project.name}: nothing was up")
    return DONE


def _by_session(project: Project, limit: float, out: Output) -> bool:
    try:
        client = Client.connect(session_socket(project, out.environ), project=project.root,
                                timeout=min(limit, 2.0))
    except NoSessionError:
        return False
    except SilentSessionError as error:
        _end_process(error.pid, out)
        return False  # what the process left is ended next
    with client:
        try:
            client.call("stop", timeout=limit)
            return True
        except NoSessionError:
            return True  # it went away while it was asked to
        except SilentSessionError:
            _end_process(client.pid, out)
            return False


def _end_process(pid: int | None, out: Output) -> None:
    """End a session's process that does not answer; the kernel named it as the listener."""
    if not pid:
        return
    import signal
    out.errors([[f"the session (process {pid}) does not answer; it is ended"]])
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + KILL_SECONDS
        while time.monotonic() < deadline:
            if not _lives(pid):
                return
            time.sleep(0.02)
    raise WorkstationError(f"process {pid} can't be ended", hint=f"look at it: ps -o stat= {pid}")


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[:1] != [b"Z"]
    except OSError:
        return False


def _without_session(project: Project, limit: float, out: Output) -> bool:
    """What a lost session left. Costs the session's imports only where something may be left."""
    from hyperbox_devcontainer.paths import project_home
    if not os.path.isdir(project_home(project, out.environ)):
        return False
    from hyperbox_devcontainer import session
    return bool(session.down(project, timeout=limit))
