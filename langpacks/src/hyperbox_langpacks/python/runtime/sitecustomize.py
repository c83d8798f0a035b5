"""Puts the hooks into every Python process of the program, then steps aside.

The folder of this file stands first in PYTHONPATH, so that wrappers, workers and grandchildren get
the hooks too. It must parse on any Python: a project's tools may run an older one.
"""

# mypy: ignore-errors

import os
import sys


def _step_aside(folder):
    """Take our folder off ``sys.path``: the program sees the path that it would have without us."""
    sys.path[:] = [entry for entry in sys.path
                   if not entry or os.path.abspath(entry) != folder]


def _run_the_next():
    """Run the ``sitecustomize`` that Python would have run without us.

    Its errors go through: ``site`` prints them as it would have.
    """
    ours = sys.modules.pop("sitecustomize", None)
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if getattr(error, "name", "sitecustomize") != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = ours


def _start_the_shim():
    # Compiling the shim costs 10 ms; our own folder may keep it whatever the user wants elsewhere.
    wanted, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        from _hyperbox import shim
    finally:
        sys.dont_write_bytecode = wanted
    shim.start(os.environ)


def _start():
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.version_info >= (3, 8) and os.environ.get("HYPERBOX_ROOT"):
        _start_the_shim()
    _step_aside(folder)
    _run_the_next()


_start()
