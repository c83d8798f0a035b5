"""What a verb loads: the quick ones stay quick because of what they don't import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hyperbox_tui.cli.verbs import VERBS

Played = Any

NEVER = {"textual", "rich", "asyncssh", "opentelemetry", "watchfiles", "tomlkit"}
HEAVY = {"asyncio", "sqlite3", "argparse", "inspect", "dataclasses", "subprocess", "threading",
         "importlib.metadata", "logging", "tempfile", "shutil", "http", "email", "ssl", "difflib",
         "hyperbox_agent.supervise", "hyperbox_agent.watch", "hyperbox_langpacks",
         "hyperbox_devcontainer.session", "hyperbox_devcontainer.config.load"}
PROBE = """
import json, sys
before = set(sys.modules)
from hyperbox_tui.cli.main import main
for words in json.loads(sys.argv[1]):
    main(words)
sys.stdout.flush()
sys.stderr.write("\\nLOADED" + json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(played: Played, *commands: Sequence[str]) -> set[str]:
    """Every module that the commands load in one process, and the packages that they are in."""
    done = subprocess.run([sys.executable, "-c", PROBE, json.dumps(commands)], cwd=played.folder,
                          env=played.environ, capture_output=True, timeout=60, check=True,
                          stdin=subprocess.DEVNULL)
    return set(json.loads(done.stderr.decode().rpartition("LOADED")[2]))


ALLOWED = {
    (): set(),
    ("--help",): set(),
    ("--version",): set(),
    ("status",): set(),
    ("flush",): set(),
    ("logs", "-n", "1"): set(),
    ("staus",): set(),
    ("history",): {"sqlite3"},
    ("completion", "bash"): set(),
}


@pytest.mark.parametrize("words", ALLOWED, ids=" ".join)
def test_a_quick_verb_loads_nothing_heavy(live: Played, words: tuple[str, ...]) -> None:
    assert loaded(live, words) & HEAVY <= ALLOWED[words]


def test_config_loads_nothing_heavy_but_the_packs(played: Played) -> None:
    needed = {"hyperbox_langpacks", "hyperbox_devcontainer.config.load"}
    forbidden = NEVER | (HEAVY - needed) | {"importlib.resources", "pathlib", "base64"}
    assert not loaded(played, ["config"]) & forbidden


def test_no_verb_loads_what_is_not_its_own(played: Played) -> None:
    """Every verb but those that would run for long; ``up`` by its module."""
    long = {"demo", "bench"}
    quick = [[verb.name] for verb in VERBS if verb.name not in {*long, "up", "exec"}]
    assert not loaded(played, *quick) & NEVER
    code = ("import sys, hyperbox_tui.cli.up, hyperbox_tui.cli.demo, hyperbox_tui.cli.bench, "
            "hyperbox_tui.cli.exec_, hyperbox_devcontainer.session, "
            "hyperbox_devcontainer.selfbench; print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60,
                          check=True, text=True, env=played.environ)
    assert not set(done.stdout.split()) & (NEVER - {"watchfiles"})


def test_a_projects_own_modules_never_stand_in_the_way_of_ours(played: Played) -> None:
    for name in ("json", "socket", "typing", "hyperbox_tui", "re"):
        (played.folder / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    hyperbox = Path(sys.executable).with_name("hyperbox")
    for argv in ([str(hyperbox)], played.argv()):
        done = subprocess.run([*argv, "status"], cwd=played.folder, env=played.environ,
                              capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert os.listdir(played.folder)
