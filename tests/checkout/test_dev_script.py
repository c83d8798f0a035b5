"""``./dev`` on machines that lack something, and from wherever it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NO_VENV = "No module named 'ensurepip'"


class Machine:
    """A PATH of a few programs, and a checkout (its name has a space) with only the script."""

    def __init__(self, base: Path) -> None:
        self.bin = base / "bin"
        self.checkout = base / "check out"
        self.bin.mkdir()
        self.checkout.mkdir()
        shutil.copy(ROOT / "dev", self.checkout / "dev")
        for name in ("sh", "dirname", "readlink", "rm", "mkdir", "cat", "chmod"):
            self.has(name, f'exec {shutil.which(name)} "$@"')

    def has(self, name: str, script: str) -> None:
        """Put a program on PATH."""
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + textwrap.dedent(script) + "\n")
        path.chmod(0o755)

    def dev(self, *args: str, script: Path | None = None,
            cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the script there."""
        argv = [str(script or self.checkout / "dev"), *args]
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd,
                              env={"PATH": str(self.bin), "HOME": os.environ["HOME"]})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


UV_THAT_TELLS = '[ "$1" = --version ] || for arg do echo "[$arg]"; done'


def test_a_machine_without_python_is_told_the_command(machine: Machine) -> None:
    done = machine.dev("test")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3 python3-venv" in done.stderr


def test_a_python_that_is_too_old_counts_as_none(machine: Machine) -> None:
    machine.has("python3", "exit 1")
    done = machine.dev("test")
    assert "Python 3.11 or newer is missing" in done.stderr


def test_a_python_without_venv_is_told_the_command(machine: Machine) -> None:
    machine.has("python3", f'case $2 in *ensurepip*) echo "{NO_VENV}" >&2; exit 1;; esac')
    done = machine.dev("test")
    assert done.returncode == 1
    assert "has no venv" in done.stderr
    assert "apt-get install python3-venv" in done.stderr
    assert not (machine.checkout / ".dev").exists()


def test_a_shim_that_does_not_run_is_passed_over(machine: Machine) -> None:
    machine.has("python3", "echo 'command not found' >&2; exit 127")
    machine.has("python3.12", "exit 0")
    machine.has("uv", UV_THAT_TELLS)
    done = machine.dev("test")
    assert f"[{machine.bin}/python3.12]" in done.stdout


def test_a_uv_that_does_not_run_is_brought(machine: Machine) -> None:
    machine.has("uv", "exit 127")
    brought = "echo '#!/bin/sh' > \"$3/bin/uv\"; echo 'echo own uv' >> \"$3/bin/uv\""
    machine.has("python3", f'''
        if [ "$1 $2" = "-m venv" ]; then
            mkdir -p "$3/bin"; echo '#!/bin/sh' > "$3/bin/pip"; {brought}
            chmod +x "$3/bin/pip" "$3/bin/uv"
        fi''')
    done = machine.dev("test")
    assert done.stdout.strip() == "own uv", done.stderr
    assert done.stderr.splitlines() == ["dev: bringing uv into .dev/ (only this once)",
                                        "dev: bringing the tools into .venv/ (only this once)"]


def test_it_is_silent_where_all_is_there(machine: Machine) -> None:
    machine.has("uv", "exit 0")
    machine.has("python3", "exit 0")
    (machine.checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(machine.bin / "python3", machine.checkout / ".venv" / "bin" / "python")
    done = machine.dev("test")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_works_from_another_folder_and_through_a_link(machine: Machine, tmp_path: Path) -> None:
    machine.has("python3", "exit 0")
    machine.has("uv", UV_THAT_TELLS)
    link = tmp_path / "a link"
    link.symlink_to(machine.checkout / "dev")
    done = machine.dev("hyperbox", "up", "a folder", "", script=link, cwd=tmp_path)
    words = done.stdout.splitlines()
    assert f"[{machine.checkout}]" in words
    assert words[-4:] == ["[hyperbox]", "[up]", "[a folder]", "[]"]


def test_no_python_is_ever_downloaded(machine: Machine) -> None:
    machine.has("python3", "exit 0")
    machine.has("uv", 'echo "$UV_PYTHON_DOWNLOADS"')
    assert machine.dev("test").stdout.strip() == "never"


def test_the_recipes_are_listed(tmp_path: Path) -> None:
    done = subprocess.run(["just", "--justfile", str(ROOT / "justfile")], capture_output=True,
                          text=True, check=True, cwd=tmp_path)
    for recipe in ("demo", "test", "check", "hyperbox", "bench", "wheels", "docs"):
        assert f"\n    {recipe} " in done.stdout
