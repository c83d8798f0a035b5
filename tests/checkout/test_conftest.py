"""The promises of the shared fixtures: own home, skips that say why, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


def run_tests(folder: Path, source: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a test file beside a copy of the conftest, in a pytest of its own."""
    impatient = CONFTEST.read_text("utf-8").replace("ENDING_SECONDS = 30.0", "ENDING_SECONDS = 0.3")
    (folder / "conftest.py").write_text(impatient)
    (folder / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {CONFTEST.parent}\nmarkers =\n  slow: slow\n  needs(*what): n\n")
    (folder / "test_sample.py").write_text(source)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", *args]
    # The conftest needs none of the plugins, and they are half of the start.
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


def is_running(pid: int) -> bool:
    """Whether the process lives; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


LACKS = """
import pytest

@pytest.mark.needs("git", "no-such-program")
def test_it():
    assert True
"""


def test_what_is_missing_skips_and_is_summed_up(tmp_path: Path) -> None:
    done = run_tests(tmp_path, LACKS)
    assert done.returncode == 0
    assert "missing on this machine" in done.stdout
    assert "no-such-program: 1 test, brought by:" in done.stdout
    assert "1 skipped" in done.stdout


def test_the_strict_form_fails_instead(tmp_path: Path) -> None:
    done = run_tests(tmp_path, LACKS, "--strict-needs")
    assert done.returncode == 1
    assert "missing: no-such-program" in done.stdout
    assert "1 skipped" not in done.stdout


def test_what_a_machine_may_lack_is_skipped_in_the_strict_form_too(tmp_path: Path) -> None:
    done = run_tests(tmp_path, LACKS, "--strict-needs", "--may-lack", "no-such-program")
    assert done.returncode == 0
    assert "1 skipped" in done.stdout


def test_a_process_left_behind_fails_the_run(tmp_path: Path) -> None:
    done = run_tests(tmp_path, """
import subprocess, sys

def test_it():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                             start_new_session=True)
    open("pid", "w").write(str(child.pid))
    child.returncode = 0
""")
    assert done.returncode == 1
    assert "left these processes behind" in done.stdout
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_slow_tests_wait_for_all(tmp_path: Path) -> None:
    source = "import pytest\n\n@pytest.mark.slow\ndef test_a(): assert 1\ndef test_b(): assert 1\n"
    assert "1 passed, 1 deselected" in run_tests(tmp_path, source).stdout
    assert "2 passed" in run_tests(tmp_path, source, "--all").stdout


def test_a_test_has_a_home_of_its_own(own_home: Path) -> None:
    assert os.path.expanduser("~") == str(own_home)
    assert list(own_home.iterdir()) == []
    assert len(os.environ["XDG_RUNTIME_DIR"]) < 50
    name = subprocess.run(["git", "var", "GIT_AUTHOR_IDENT"], capture_output=True, text=True,
                          check=True).stdout
    assert name.startswith("Test <test@example.org>")
