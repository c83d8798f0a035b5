"""The short measure, driven by a reloader of a few lines in place of ``hyperbox up``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hyperbox_devcontainer import selfbench

RELOADER = """
import os, signal, subprocess, time, tomllib
signal.signal(signal.SIGINT, lambda *_: (app.kill(), app.wait(), os._exit(0)))
argv = tomllib.load(open("hyperbox.toml", "rb"))["app"]["command"]
seen = None
app = None
while True:
    text = open("app.py").read()
    if text and text != seen:
        if app:
            app.kill(), app.wait()
        app, seen = subprocess.Popen(argv), text
    time.sleep(0.01)
"""


def test_it_measures_edits_and_the_price_of_the_port(tmp_path: Path) -> None:
    reloader = tmp_path / "reloader.py"
    reloader.write_text(RELOADER)
    found = selfbench.measure([sys.executable, "-B", str(reloader)], edits=3, requests=20)
    assert found.edits == 3
    assert 5.0 < found.edit_p50 <= found.edit_p95
    assert abs(found.relay_kept) < 500.0
    assert found.as_json()["edit_ms"] == {"p50": found.edit_p50, "p95": found.edit_p95}


def test_an_app_that_does_not_come_up_is_an_error_with_a_hint(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfbench, "START_SECONDS", 1.0)
    with pytest.raises(selfbench.BenchError, match="did not answer") as caught:
        selfbench.measure([sys.executable, "-c", "pass"], edits=1, requests=1)
    assert caught.value.hint
