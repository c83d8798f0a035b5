"""The rung for each kind of change, and its reason: one table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox_langpacks.base import Command, Detection, FileChange, RunFacts, Rung
from hyperbox_langpacks.python import PACK
from hyperbox_langpacks.view import MemoryView

LOADED = frozenset({"app.py", "shop/api.py", "templates/mail.html", "data/prices.json", "plugins/",
                    "local_settings.py"})
WARM = RunFacts(running=True, loaded=LOADED, warm_ready=True, modules=frozenset({"requests"}))
UNKNOWN = RunFacts(running=True, warm_ready=True)
VIEW = MemoryView({".venv/pyvenv.cfg": "", "app.py": ""})
FOUND = Detection("python", Command(("python", "app.py")), "", 1.0)


def rung_of(facts: RunFacts, *changes: FileChange) -> tuple[str, str]:
    choice = PACK.choose(VIEW, FOUND, changes, facts)
    return choice.rung.word, choice.why


def modified(path: str) -> FileChange:
    return FileChange(path, "modified")


TABLE = [
    # what the program holds is started anew
    (WARM, modified("app.py"), "warm", "app.py is loaded by the program"),
    (WARM, modified("shop/api.py"), "warm", "loaded"),
    (WARM, modified("data/prices.json"), "warm", "loaded"),
    (WARM, modified("templates/mail.html"), "warm", "loaded"),
    (WARM, FileChange("app.py", "deleted"), "warm", "gone"),
    (WARM, FileChange("local_settings.py", "added"), "warm", "new where the program looked"),
    (WARM, FileChange("plugins/new.py", "added"), "warm", "new where the program looked"),
    (WARM, FileChange("plugins/old.py", "deleted"), "warm", "gone"),
    (WARM, FileChange("shop", "deleted", "dir"), "warm", "gone"),
    (RunFacts(True, LOADED | {"./"}, True), FileChange("new.py", "added"), "warm", "looked"),
    (WARM, FileChange("requests.py", "added"), "warm", "has the name of a library"),
    # what it does not hold is not
    (WARM, modified("tests/test_api.py"), "nothing", "not loaded"),
    (WARM, modified("shop/unused.py"), "nothing", "not loaded"),
    (WARM, FileChange("shop/new.py", "added"), "nothing", "not loaded"),
    (WARM, modified("plugins/unused.py"), "nothing", "not loaded"),
    (WARM, modified("README.md"), "nothing", "not read"),
    (WARM, modified("docs/guide.txt"), "nothing", "not read"),
    (WARM, modified("data/other.json"), "nothing", "not read"),
    # pages
    (WARM, modified("templates/page.html"), "notify", "read anew"),
    (WARM, modified("static/site.CSS"), "notify", "read anew"),
    (WARM, modified("static/logo.png"), "notify", "read anew"),
    # unknown is not the same as unread
    (UNKNOWN, modified("tests/test_api.py"), "warm", "not known"),
    (UNKNOWN, modified("data/other.json"), "warm", "not known"),
    (UNKNOWN, modified("README.md"), "warm", "not known"),
    (UNKNOWN, modified("docs/guide.txt"), "warm", "not known"),
    (UNKNOWN, modified("tests/data.txt"), "warm", "not known"),
    (UNKNOWN, modified("templates/page.html"), "warm", "not known"),
    (UNKNOWN, modified("static/app.js"), "warm", "not known"),
    (RunFacts(running=True), modified("static/app.js"), "cold", "not known"),
    (RunFacts(running=True, told=True), modified("index.html"), "notify", "read anew"),
    (RunFacts(running=True, told=True, warm_ready=True), modified("data.bin"), "warm", "not known"),
    (RunFacts(running=True, told=True, warm_ready=True), modified("app.py"), "warm", "not known"),
    (UNKNOWN, modified(".github/workflows/ci.yml"), "nothing", "not read"),
    (UNKNOWN, modified("shop/.gitignore"), "nothing", "not read"),
    # the environment and the interpreter's own files
    (WARM, modified("uv.lock"), "reinstall", "uv.lock says what is installed"),
    (WARM, modified("requirements.txt"), "reinstall", "installed"),
    (WARM, modified("requirements/dev.txt"), "reinstall", "installed"),
    (WARM, modified("requirements-dev.in"), "reinstall", "installed"),
    (WARM, modified("docs/requirements.md"), "nothing", "not read"),
    (WARM, modified("pyproject.toml"), "reinstall", "may say"),
    (WARM, modified("Pipfile.lock"), "reinstall", "installed"),
    (WARM, modified("environment.yml"), "reinstall", "installed"),
    (WARM, modified(".env"), "cold", "environment"),
    (WARM, modified(".env.local"), "cold", "environment"),
    (WARM, modified("deploy/.env.d/web"), "cold", "environment"),
    (WARM, modified("sitecustomize.py"), "cold", "when Python starts"),
    (WARM, modified("src/shop.egg-info/entry_points.txt"), "cold", "when Python starts"),
    (WARM, modified(".venv/lib/python3.11/site-packages/x/__init__.py"), "cold", "environment"),
    # no prepared parent
    (RunFacts(True, LOADED, False, "grpc started a thread"), modified("app.py"), "cold",
     "not warm: grpc started a thread"),
    (RunFacts(True, LOADED), modified("app.py"), "cold", "no prepared parent is ready"),
    # not running: any change may mend it
    (RunFacts(False, LOADED, True), modified("README.md"), "warm", "is not running"),
    (RunFacts(False, LOADED), modified("static/a.css"), "cold", "is not running"),
    (RunFacts(False, LOADED), modified("uv.lock"), "reinstall", "installed"),
    # never above what is allowed
    (RunFacts(True, LOADED, True, highest=Rung.NOTIFY), modified("app.py"), "notify",
     "warm is above the highest rung allowed, notify"),
    (RunFacts(True, LOADED, True, highest=Rung.COLD), modified("uv.lock"), "cold", "above"),
]


@pytest.mark.parametrize(("facts", "change", "rung", "why"), TABLE,
                         ids=lambda value: str(getattr(value, "path", ""))[:40])
def test_the_rung_is_the_cheapest_that_is_right(facts: RunFacts, change: FileChange, rung: str,
                                                why: str) -> None:
    chosen, reason = rung_of(facts, change)
    assert (chosen, why in reason) == (rung, True), reason


def test_the_highest_need_of_a_batch_decides() -> None:
    batch = [modified(path) for path in ("README.md", "static/a.css", "app.py")]
    assert rung_of(WARM, *batch) == ("warm", "app.py is loaded by the program")
    assert rung_of(WARM, *batch, modified("uv.lock"))[0] == "reinstall"
    assert rung_of(WARM) == ("nothing", "nothing has changed")


PATHS = st.sampled_from(["app.py", "x.py", "README.md", "a.css", "uv.lock", ".env", "data/b.json",
                         "templates/mail.html", "plugins/p.py"])
CHANGES = st.builds(FileChange, PATHS, st.sampled_from(["added", "modified", "deleted"]))


@given(st.lists(CHANGES, max_size=6), st.sampled_from(list(Rung)), st.booleans(), st.booleans())
def test_never_above_the_allowed_and_never_below_for_more_changes(
        changes: list[FileChange], highest: Rung, running: bool, warm: bool) -> None:
    facts = RunFacts(running, LOADED, warm, highest=highest)
    whole = PACK.choose(VIEW, FOUND, changes, facts)
    assert whole.rung <= highest
    assert whole.why
    for change in changes:
        assert PACK.choose(VIEW, FOUND, [change], facts).rung <= whole.rung


def test_a_project_file_that_only_sets_tools_installs_nothing() -> None:
    view = MemoryView({"pyproject.toml": "[tool.ruff]\nline-length = 100\n"})
    choice = PACK.choose(view, FOUND, [modified("pyproject.toml")], WARM)
    assert choice.rung is Rung.NOTHING
    view = MemoryView({"pyproject.toml": "[project]\nname = 'x'\ndependencies = []\n"})
    choice = PACK.choose(view, FOUND, [modified("pyproject.toml")], WARM)
    assert choice.rung is Rung.REINSTALL
