"""Runs a program with the hooks where the interpreter is told to ignore PYTHONPATH (``-I, -E``).

``python -I run.py app.py x`` is ``python -I app.py x`` with the hooks; processes that the program
starts itself don't get them.
"""

import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, _folder)

from _hyperbox import argv, codes, program, shim  # type: ignore[import-not-found]  # noqa: E402

sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != _folder]

if __name__ == "__main__":
    _invocation = argv.read_arguments(sys.argv[1:])
    program.set_arguments(_invocation, sys.executable)
    shim.start(os.environ)
    _code = os.environ.get("HYPERBOX_CODE")
    program.run(_invocation, codes.CodeStore(_code) if _code else None)
