"""A project on disk, with the shim and a control socket."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packrun import Bench, WorkerEnd, bench


@pytest.fixture
def made(tmp_path: Path, runtime_dir: str) -> Iterator[Bench]:
    """An empty project; what was started in it is ended."""
    with bench(tmp_path, tempfile.mkdtemp(dir=runtime_dir)) as one:
        yield one


@pytest.fixture
def worker(made: Bench) -> WorkerEnd:
    """A worker in this Python, for the empty project."""
    return WorkerEnd(made, sys.executable)
