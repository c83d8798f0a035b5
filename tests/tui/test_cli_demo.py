"""The demo, by the real product: every promise holds, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hyperbox_tui.cli.demo_load import Loader
from hyperbox_tui.cli.demo_stage import DemoError, Stage

COMMAND = [sys.executable, "-P", "-m", "hyperbox_tui.cli.main", "demo"]


@pytest.mark.slow
def test_every_promise_holds_and_nothing_is_left(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--json"], capture_output=True, timeout=120, check=False,
                          env={**os.environ, "TMPDIR": str(tmp_path)})
    report = json.loads(done.stdout)
    assert report["ok"], json.dumps(report)
    assert done.returncode == 0
    assert report["seconds"] < 60
    assert [step["name"] for step in report["steps"]] == [
        "up", "edit", "break", "mend", "switch", "roll back", "down"]
    assert report["load"]["requests"] > 50
    assert report["load"]["failed"] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "TMPDIR": str(tmp_path)}) as demo:
        assert demo.stdout is not None
        assert any("edit" in line for line in demo.stdout)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    assert not list(tmp_path.iterdir())


def test_an_app_that_does_not_come_up_is_one_error_and_leaves_nothing(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperbox_tui.cli.demo_stage.own_command", lambda *words: [
        sys.executable, "-c", "import sys; sys.exit('no such luck')"])
    with Stage(os.environ) as stage:
        stage.start()
        with pytest.raises(DemoError, match="no such luck"):
            stage.wait_generation(0)
        base = stage.base
    assert not os.path.exists(base)
    assert base.startswith(tempfile.gettempdir())


def test_the_load_counts_what_fails() -> None:
    loader = Loader(1)  # nobody listens there
    deadline = time.monotonic() + 60
    while loader.since().requests < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    loader.close()
    load = loader.since()
    assert load.failed == load.requests >= 5
    assert "ConnectionRefusedError" in str(load.first_failure)
