"""What is written from the tables is up to date, and does what it says in real shells."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from hyperbox_tui.cli.completion import bash, fish, zsh
from hyperbox_tui.cli.docs import reference
from hyperbox_tui.cli.verbs import BY_NAME, VERBS
from hyperbox_tui.cli.version import VERSION

Played = Any
ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_what_the_code_says() -> None:
    written = (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert written == reference(), "stale: python -m hyperbox_tui.cli.docs"


def test_the_version_is_the_one_of_the_package() -> None:
    import tomllib
    for room in ("tui", "devcontainer"):
        data = tomllib.loads((ROOT / room / "pyproject.toml").read_text("utf-8"))
        assert data["project"]["version"] == VERSION


def test_every_verb_says_what_it_does_in_one_line() -> None:
    for verb in VERBS:
        assert verb.says[0].islower() or not verb.says[0].isalpha(), verb.name
        assert not verb.says.endswith("."), verb.name
        assert len(verb.says) <= 66, verb.name


def completed(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = (f"{bash()}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _hyperbox; "
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True,
                          check=True, timeout=30, cwd=ROOT / "docs")
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.needs("bash")
def test_bash_completes_verbs_flags_values_and_folders() -> None:
    assert completed("hyperbox", "ro") == ["rollback"]
    assert set(completed("hyperbox", "")) >= set(BY_NAME)
    assert completed("hyperbox", "up", "--js") == ["--json"]
    assert completed("hyperbox", "restart", "--rung", "c") == ["cold"]
    assert completed("hyperbox", "completion", "z") == ["zsh"]
    assert completed("hyperbox", "up", "dec") == ["decisions"]
    assert completed("hyperbox", "status", "-C", "dec") == ["decisions"]


@pytest.mark.parametrize(("shell", "script"), [
    pytest.param("bash", bash, marks=pytest.mark.needs("bash")),
    pytest.param("zsh", zsh, marks=pytest.mark.needs("zsh")),
    pytest.param("fish", fish, marks=pytest.mark.needs("fish")),
])
def test_the_shells_take_their_scripts(shell: str, script: Any, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(script())
    subprocess.run([shell, "-n", str(path)], check=True, timeout=30)


@pytest.mark.needs("fish")
def test_fish_completes_verbs_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(fish())
    code = f"source {path}; complete -C 'hyperbox ro'; complete -C 'hyperbox up --js'"
    done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, check=True,
                          timeout=30)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["rollback", "--json"]


def test_scripts_name_every_verb_and_every_flag() -> None:
    for text in (bash(), zsh(), fish()):
        for verb in VERBS:
            assert verb.name in text
            for flag in verb.flags:
                assert flag.name.lstrip("-") in text
