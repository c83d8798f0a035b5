"""The port holder sends for help: see ``mend.py``. Here is what the holder itself imports of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import hyperbox_agent

if TYPE_CHECKING:
    import subprocess

_BOOTSTRAP = ("import sys; sys.path.insert(0, sys.argv[1]); "
              "from hyperbox_agent.supervise.mend import mend; mend(sys.argv[2])")


def start_mending(home: str | None) -> subprocess.Popen[bytes]:
    """Start the process that mends ``home``. Raises OSError, also where there is no home."""
    # Only here: it is large, and most holders never need it.
    import subprocess

    if home is None:
        raise FileNotFoundError("the agent did not say where its home is")
    code = os.path.dirname(os.path.dirname(os.path.abspath(hyperbox_agent.__file__)))
    argv = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, code, home]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd="/")
