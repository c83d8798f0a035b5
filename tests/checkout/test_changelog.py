"""The changelog is what the news fragments make of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def generate(tmp_path: Path) -> ModuleType:
    """The generator, at work in an empty project."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.NEWS, module.CHANGELOG = tmp_path / "news", tmp_path / "CHANGELOG.md"
    module.NEWS.mkdir()
    return module


def test_the_generated_files_are_fresh() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs/generate.py"), "--check"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_release_moves_the_news_under_its_version(generate: ModuleType) -> None:
    (generate.NEWS / "a.added.md").write_text("A thing\nis new.\n")
    first = generate.changelog("", "## 0.1.0 (2026-01-01)")
    assert "## 0.1.0 (2026-01-01)\n\n### Added\n\n- A thing is new.\n" in first
    (generate.NEWS / "a.added.md").rename(generate.NEWS / "b.fixed.md")
    second = generate.changelog(first, generate.UNRELEASED)
    assert second.index("## Not released yet") < second.index("## 0.1.0")
    assert second.count("A thing is new.") == 2
    assert generate.changelog(second, generate.UNRELEASED) == second


def test_a_fragment_without_a_kind_is_refused(generate: ModuleType) -> None:
    (generate.NEWS / "thing.md").write_text("text")
    with pytest.raises(SystemExit, match="KIND one of"):
        generate.fragments()
