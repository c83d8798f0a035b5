"""At most one agent a home: a lock in its run folder, which ends with the process, however that
ends, and is removed with the folder's last use."""

from __future__ import annotations

import contextlib
import fcntl
import os

from hyperbox_agent.errors import AgentError
from hyperbox_agent.home import LOCK, run_folder


class OnlyAgent:
    """The right to be the agent of a home, and its run folder."""

    def __init__(self, home: str, *, hint: str = "hyperbox down") -> None:
        """Raises AgentError with ``hint`` where another agent has it."""
        while True:
            self.run = run_folder(home)
            self._fd = _locked(self.run, hint)
            if self._fd >= 0:
                break
        self._inside = self.run == os.path.join(home, "run")

    def close(self) -> None:
        """Let go, and leave nothing: whoever opened the lock before finds that it is gone."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.run, LOCK))
            if not self._inside:
                os.rmdir(self.run)  # not where something is left that the next one has to see
        os.close(self._fd)


def _locked(run: str, hint: str) -> int:
    """The lock's descriptor; -1: its last owner removed it between our open and our lock."""
    path = os.path.join(run, LOCK)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise AgentError("another agent already runs for this home", file=run,
                         hint=hint) from error
    if os.fstat(fd).st_nlink:
        return fd
    os.close(fd)
    return -1
