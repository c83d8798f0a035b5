"""How long the verbs that people type all day take, as whole commands, beside a running ``up``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.apps import Project
from bench.stats import summary
from bench.subjects import BenchError, HyperBox, clean_environment, free_port

COMMANDS = (("--help",), ("--version",), ("status",), ("status", "--json"), ("history",),
            ("config",))


def time_command(argv: Sequence[str], cwd: Path, env: dict[str, str]) -> float:
    """How long this command takes as a whole, in ms. Raises BenchError where it fails."""
    before = time.perf_counter()
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, check=False)
    took = (time.perf_counter() - before) * 1000
    if done.returncode:
        raise BenchError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.decode()}")
    return took


def _time(command: tuple[str, ...], times: int, cwd: Path, env: dict[str, str]) -> dict[str, Any]:
    argv = ["hyperbox", *command]
    row: dict[str, Any] = {"command": " ".join(argv)}
    try:
        time_command(argv, cwd, env)
        return row | {"ms": summary(time_command(argv, cwd, env) for _ in range(times))}
    except BenchError as error:
        return row | {"skipped": str(error)}


def run(times: int, scratch: Path) -> list[dict[str, Any]]:
    """One row a command."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    print("cli: hyperbox up", file=sys.stderr, flush=True)
    subject, project = HyperBox("stdlib", "warm"), Project(scratch / "app", "stdlib")
    env = clean_environment({f"XDG_{name}_HOME": str(scratch / name.lower())
                             for name in ("STATE", "CONFIG", "CACHE", "DATA")})
    try:
        subject.start(project, free_port())
        return [_time(command, times, project.folder, env) for command in COMMANDS]
    finally:
        subject.stop()
        shutil.rmtree(scratch, ignore_errors=True)
