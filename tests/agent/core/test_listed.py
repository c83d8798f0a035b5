from __future__ import annotations

import pytest

from hyperbox_agent.core.listed import Listed


@pytest.mark.parametrize(("patterns", "named", "others"), [
    (["static/**"], ["static/a.css", "static/deep/a.css"], ["other/static/a.css", "a.css"]),
    (["assets/"], ["assets/x", "web/assets/x"], ["assets.py"]),
    (["*.css", "!keep.css"], ["a.css", "deep/é.css"], ["keep.css", "a.js"]),
    (["/top.txt"], ["top.txt"], ["deep/top.txt"]),
    ([], [], ["a"]),
])
def test_patterns_name_paths_as_in_a_gitignore(patterns: list[str], named: list[str],
                                               others: list[str]) -> None:
    listed = Listed(patterns, "a test")
    assert bool(listed) == bool(patterns)
    assert [path for path in [*named, *others] if listed(path)] == named


def test_a_folder_is_named_only_as_one() -> None:
    listed = Listed(["assets/"], "a test")
    assert listed("assets", is_dir=True)
    assert not listed("assets")


def test_each_folder_on_the_way_has_its_own_verdict() -> None:
    assert list(Listed([".git", "!4913/"], "a test").verdicts(".git/4913/x")) == [True, False]
