"""The fixtures of the supervisor's own tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_FILE = Path(__file__).parents[2] / "agent" / "supervise" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("supervise_fixtures", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

program = _FIXTURES.program
helpers = _FIXTURES.helpers
fast_clock = _FIXTURES.fast_clock
