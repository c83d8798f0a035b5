"""Distributions as wheels, and environments made of them offline, for what installs."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from hyperbox_agent.supervise import relocation


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel with one module, which knows its version, and a console script, which prints it and
    where it runs."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"import sys\nV = '{version}'\ndef main():\n    print(V, sys.prefix)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
                         "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


@functools.cache
def _with_pip() -> Path:
    """An environment with pip: once a run, for that is seconds of work."""
    folder = Path(tempfile.mkdtemp(prefix="hbt-venv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "v"], check=True, timeout=120)
    return folder / "v"


def make_environment(folder: Path, *wheels: Path) -> None:
    """A virtual environment with pip and these wheels."""
    relocation.copy(str(_with_pip()), str(folder))
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", "--no-index",
                    "--disable-pip-version-check", *wheels], check=True, timeout=120)


def asks_for(*wheels: str) -> str:
    """A requirements file that names wheels by their path, and needs no network."""
    return "\n".join(("--no-index", *wheels, ""))
