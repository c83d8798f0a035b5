"""What finishes a batch of a killed agent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hyperbox_agent.apply import home as homes
from hyperbox_agent.supervise.mend import CONFIGURED, mend


def test_a_tree_that_the_next_agent_has_already_is_left_to_it_without_a_word(
        tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "tree").mkdir()
    (home / CONFIGURED).write_text(json.dumps(
        {"mode": "mirror", "root": str(tmp_path / "tree"), "session": "s"}))
    held = homes.lock(str(home))
    try:
        mend(str(home))
    finally:
        os.close(held)
    assert capfd.readouterr().err == ""
