"""Starts the worker; in a forked child, becomes the program.

The program runs from here and not from within the worker's loop, so that few frames stand below it.
"""

import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, _folder)

from _hyperbox import program, worker  # type: ignore[import-not-found]  # noqa: E402

sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != _folder]

if __name__ == "__main__":
    _child = worker.start()
    if _child is not None:
        program.run(*_child.become())
