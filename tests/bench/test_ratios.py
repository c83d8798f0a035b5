"""HyperBox beside its rivals and beside a bare interpreter, by ratios: ``./dev ratios``.

The bounds are what must hold on a busy machine. What is aimed at on a quiet one stands in
docs/benchmarks.md, which is measured without anything beside it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bench import ratios
from bench.cli import COMMANDS
from bench.subjects import HyperBox, Peer, clean_environment, newer_python_peer, peers
from journey import Project
from pythons import find_python

pytestmark = pytest.mark.slow

SOONER_THAN_RELOAD = 8.0
"""A cold restart in place of the warm one takes about as long as that rival."""
SOONER_THAN_HMR = 1.0
BARE_STARTS = {"hyperbox --help": 5.0, "hyperbox --version": 5.0}
BARE_STARTS_OF_OTHERS = 8.0
"""How many starts of an interpreter that does nothing a verb may take. ``import asyncio`` alone is
four to five."""


def check_sooner(rival: Peer, times: float, folder: Path, config: pytest.Config) -> None:
    """An edit's answer comes from HyperBox ``times`` sooner."""
    if (lacking := rival.missing()) and not config.getoption("strict_needs"):
        pytest.skip(f"missing: {lacking}")
    own = HyperBox("fastapi", "warm")
    took = ratios.edits([own, rival], folder)
    print(took)
    assert took[rival.name] >= times * took[own.name], took


@pytest.mark.needs("uvicorn")
def test_an_edit_is_live_many_times_sooner_than_with_uvicorns_reload(
        tmp_path: Path, pytestconfig: pytest.Config) -> None:
    rival = next(peer for peer in peers() if peer.name == "uvicorn --reload")
    check_sooner(rival, SOONER_THAN_RELOAD, tmp_path / "edits", pytestconfig)


@pytest.mark.needs("uvicorn", "python3.12+")
def test_an_edit_is_live_no_later_than_with_hot_modules(tmp_path: Path,
                                                        pytestconfig: pytest.Config) -> None:
    newer = next(filter(None, map(find_python, ("3.12", "3.13", "3.14"))))
    rival = newer_python_peer(tmp_path, os.environ.get("UV", "uv"), newer)
    check_sooner(rival, SOONER_THAN_HMR, tmp_path / "edits", pytestconfig)


def test_a_verb_takes_a_few_starts_of_a_bare_interpreter(tmp_path: Path) -> None:
    project = Project(tmp_path)
    env = clean_environment(project.env)
    verbs = [["hyperbox", *command] for command in COMMANDS]
    with project.up():
        bare, *took = ratios.commands([[sys.executable, "-c", ""], *verbs], project.root, env)
    starts = {" ".join(verb): ms / bare for verb, ms in zip(verbs, took, strict=True)}
    print(starts)
    assert {verb: ratio for verb, ratio in starts.items()
            if ratio > BARE_STARTS.get(verb, BARE_STARTS_OF_OTHERS)} == {}, (bare, took)
