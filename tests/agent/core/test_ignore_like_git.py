"""The verdicts equal those of the real git, over generated patterns and trees."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperbox_agent.core.ignore import IgnoreOptions, IgnoreRules, PatternList, parse_git

pytestmark = [pytest.mark.needs("git"),
              pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")]

GIT_ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
           "LC_ALL": "C"}

FILES = [
    "a", "b.txt", "foo", "foobar", "Foo", "a b", "trail ", "#hash", "!bang", "back\\slash", "é.txt",
    "x.log", ".hidden", "[x]", "a-b", "*star", "new\nline",
    "foo2/bar", "foo2/baz/y", "dir/a.test", "dir/sub/b.test", "build/keep", "pkg/build/o",
    "pkg/tools/build/o", "pkg/foo", "pkg/deep/er/foo", "pkg/deep/x.log", "dir/foo/bar", "dir/é/z",
    "dir/a b/c d", "foobaz/y/bar",
]
DIRS = sorted({path.rpartition("/")[0] for path in FILES if "/" in path}
              | {"pkg", "pkg/deep", "pkg/tools", "dir", "build"})
FOLDERS = ["", "pkg", "pkg/deep", "dir", "dir/foo", "build"]


def git_says(repo: Path, paths: list[str], *config: str) -> dict[str, tuple[str, int] | None]:
    """(source, line) of the pattern that has a path ignored, None where it is kept."""
    argv = ["git", *config, "check-ignore", "-v", "-n", "--no-index", "--stdin", "-z"]
    ran = subprocess.run(argv, cwd=repo, env=GIT_ENV, input=b"\0".join(map(os.fsencode, paths)),
                         capture_output=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    fields = ran.stdout.split(b"\0")[:-1]
    verdicts: dict[str, tuple[str, int] | None] = {}
    for i in range(0, len(fields), 4):
        source, line, pattern, path = fields[i:i + 4]
        ignored = bool(source) and not pattern.startswith(b"!")
        verdicts[os.fsdecode(path)] = (os.fsdecode(source), int(line)) if ignored else None
    return verdicts


def we_say(texts: Mapping[str, bytes], entries: Mapping[str, bool], *,
           fold: bool = False) -> dict[str, tuple[str, int] | None]:
    rules = IgnoreRules(IgnoreOptions())
    lists = {folder: PatternList(parse_git(text, f"{folder}/.gitignore".lstrip("/")), fold=fold,
                                 folder=folder and folder + "/")
             for folder, text in texts.items()}
    verdicts: dict[str, tuple[str, int] | None] = {}
    for path, is_dir in entries.items():
        found = rules.reason(path, is_dir, lists)
        verdicts[path] = (found.source, found.line) if found else None
    return verdicts


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repo")
    subprocess.run(["git", "init", "-q"], cwd=root, env=GIT_ENV, check=True)
    shutil.rmtree(root / ".git" / "info")
    for path in FILES:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root


pieces = st.sampled_from([
    "a", "b", "foo", "bar", "dir", "pkg", "build", "sub", "deep", "x", "log", "test", "y", "er",
    "*", "**", "***", "?", "/", "/", ".", "-", "!", "#", " ", "\\", "\\*", "\\ ", "\\!", "\\#",
    "[a-z]", "[!a]", "[^f]", "[]x]", "[a", "[[:alpha:]]", "[[:nope:]]", "[\\]x]", "[a-]", "[.-/]",
    "é", "\t", "F", "[A-Z]", "[[:upper:]]", "\\F", "[b-\\o]", "[[x]",
])
lines = st.one_of(
    st.lists(pieces, min_size=1, max_size=6).map("".join),
    st.sampled_from(["*.log", "!*.log", "build/", "/build", "foo/*", "!foo/bar", "**/foo", "dir/**",
                     "!dir/", "dir/*", "!dir/foo", "# comment", "", " ", "!", "/", "//", "!/",
                     "foo**/bar", "pkg/**/foo", "**", "*/", "**/", "/**", "/*/foo", "trail\\ ",
                     "trail ", "foo2/**/y", "/foo*", "a?b", "é.txt", "?.txt", "??.txt", "*\\"]),
).flatmap(lambda line: st.sampled_from([line, line, "!" + line, line + "/", "/" + line]))
text = st.builds(
    lambda found, end, bom, last: (b"\xef\xbb\xbf" if bom else b"")
    + end.join(line.encode() for line in found) + (end if last else b""),
    st.lists(lines, min_size=1, max_size=6), st.sampled_from([b"\n", b"\n", b"\r\n"]),
    st.booleans(), st.booleans())
texts = st.dictionaries(st.sampled_from(FOLDERS), text, min_size=1, max_size=3)


def agree(repo: Path, chosen: Mapping[str, bytes], *, fold: bool) -> None:
    for folder, content in chosen.items():
        (repo / folder / ".gitignore").write_bytes(content)
    try:
        entries = dict.fromkeys(FILES, False) | dict.fromkeys(DIRS, True)
        config = ("-c", f"core.ignorecase={'true' if fold else 'false'}")
        assert we_say(chosen, entries, fold=fold) == git_says(repo, list(entries), *config)
    finally:
        for folder in chosen:
            (repo / folder / ".gitignore").unlink()


@settings(max_examples=120, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(chosen=texts, fold=st.booleans())
def test_generated_patterns_have_the_verdict_of_git(
        repo: Path, chosen: dict[str, bytes], fold: bool) -> None:
    agree(repo, chosen, fold=fold)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(chosen=texts, fold=st.booleans())
def test_many_generated_patterns_have_the_verdict_of_git(
        repo: Path, chosen: dict[str, bytes], fold: bool) -> None:
    agree(repo, chosen, fold=fold)
