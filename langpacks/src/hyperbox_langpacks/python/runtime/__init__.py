"""What runs inside the project's own interpreter: the shim and the worker.

These files run on Python 3.8 and newer and import nothing but small built-in modules. They are
copied to a folder of their own as the package ``_hyperbox`` (see ``python/files.py``), so they only
import each other relatively.
"""

import sys

AT_START = frozenset(sys.modules)
"""What the interpreter and ``site`` had imported before us: in every process of the program too."""
