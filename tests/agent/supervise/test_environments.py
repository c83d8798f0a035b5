"""The environment is made where there is none, and changed in a copy that is tried first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise import relocation
from hyperbox_agent.supervise.environments import FOLDER, Environments
from hyperbox_langpacks.base import Command, Detection, InstallPlan, PackError, ProjectView
from hyperbox_langpacks.view import FolderView


class FakePack:
    """Its environment is a folder ``env``, and to install is to write a file in it."""

    name = "fake"
    refuses = False

    def detect(self, view: ProjectView) -> Detection:
        folder = f"{view.root}/env"
        if not view.exists("env/bin/run"):
            return Detection("fake", Command(("/usr/run",)), "", 1.0, interpreter="/usr/run")
        why = view.read_text("env/v") or ""
        return Detection("fake", Command((f"{folder}/bin/run",)), why, 1.0,
                         interpreter=f"{folder}/bin/run", environment=folder)

    def install(self, view: ProjectView, found: Detection, changes: object) -> InstallPlan:
        if found.environment is None:
            raise PackError("not this project's own", hint="make one")
        return InstallPlan((Command(("install", found.environment)),), "installed",
                           found.environment)

    def make(self, view: ProjectView, environ: object, found: Detection) -> InstallPlan:
        if self.refuses:
            raise PackError("there is no maker", hint="get one")
        folder = f"{view.root}/env"
        return InstallPlan((Command(("make", folder)),), "made", folder)


class FakeStarter:
    def __init__(self, root: Path, pack: Any) -> None:
        self.pack: Any = pack
        self.found = pack.detect(FolderView(str(root)))
        self.environ: Mapping[str, str] = {}

    def fit(self, pack: Any, found: Detection) -> None:
        self.pack, self.found = pack, found

    def view(self, root: str) -> FolderView:
        return FolderView(root)


class FakeChores:
    """Runs ``make FOLDER`` and ``install FOLDER``."""

    fails = False

    async def step(self, what: str, argv: Sequence[str], *_: object) -> None:
        folder = Path(argv[1])
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "v").write_text("new")
        if self.fails:
            raise ProgramError("no network")
        (folder / "bin/run").write_text(f"#!{folder}/bin/x\n")


class Case:
    def __init__(self, tmp_path: Path, *, has_one: bool, makes: bool) -> None:
        self.root, self.home = tmp_path / "p", tmp_path / "h"
        self.folder = self.root / "env"
        self.folder.parent.mkdir()
        if has_one:
            (self.folder / "bin").mkdir(parents=True)
            (self.folder / "bin/run").write_text(f"#!{self.folder}/bin/x\n")
            (self.folder / "v").write_text("old")
        self.pack, self.chores, self.events = FakePack(), FakeChores(), list[Mapping[str, Any]]()
        self.starter = FakeStarter(self.root, self.pack)
        self.makes = makes
        self.tested = self.again()

    def again(self) -> Environments:
        """As the next agent has it."""
        return Environments(self.starter, self.chores, str(self.home),  # type: ignore[arg-type]
                            self.events.append,
                            detect=lambda view: (self.pack, self.pack.detect(view)),  # type: ignore[arg-type,return-value]
                            makes=self.makes)

    def tried(self, *, first: bool = False) -> Any:
        return self.tested.tried(7, str(self.root), (), first=first)

    @property
    def version(self) -> str:
        return (self.folder / "v").read_text()

    def copies(self) -> list[str]:
        return [one.name for one in (self.home / FOLDER).glob("*")]

    def problems(self) -> list[str]:
        return [event["message"] for event in self.events if event["event"] == "problem"]


async def test_the_version_that_is_tried_runs_from_the_copy(tmp_path: Path) -> None:
    case = Case(tmp_path, has_one=True, makes=False)
    async with case.tried() as trial:
        argv = case.starter.found.command.argv
        assert argv == (f"{case.home}/{FOLDER}/7/bin/run",)
        assert Path(argv[0]).read_text() == f"#!{case.home}/{FOLDER}/7/bin/x\n"
        assert (case.version, trial.done) == ("old", "installed")
        trial.live = True
    assert case.version == "new"
    assert case.starter.found.command.argv == (f"{case.folder}/bin/run",)
    assert case.copies() == ["7"]  # what is live runs from it
    case.tested.close()
    assert not (case.home / FOLDER).exists()


async def test_what_is_not_live_leaves_no_trace(tmp_path: Path) -> None:
    case = Case(tmp_path, has_one=True, makes=False)
    before = relocation.look(str(case.folder))
    async with case.tried():
        case.tested.back_out()
        assert case.starter.found.command.argv == (f"{case.folder}/bin/run",)
    case.chores.fails = True
    with pytest.raises(ProgramError, match="no network"):
        async with case.tried():
            pass
    assert relocation.look(str(case.folder)) == before
    assert case.copies() == []
    assert case.starter.found.command.argv == (f"{case.folder}/bin/run",)


async def test_it_is_not_made_in_the_users_own_folder(tmp_path: Path) -> None:
    case = Case(tmp_path, has_one=False, makes=False)
    async with case.tried():
        assert case.starter.found.command.argv == ("/usr/run",)
    assert case.problems() == ["not this project's own"]
    assert not case.folder.exists()


async def test_what_was_made_for_a_first_version_stays_for_its_next_try(tmp_path: Path) -> None:
    case = Case(tmp_path, has_one=False, makes=True)
    async with case.tried(first=True) as trial:
        assert trial.done == "made"
        assert case.starter.found.command.argv == (f"{case.folder}/bin/run",)
    assert case.version == "new"


async def test_what_was_made_for_a_later_one_goes_with_it(tmp_path: Path) -> None:
    case = Case(tmp_path, has_one=False, makes=True)
    async with case.tried():
        assert case.folder.exists()
    assert not case.folder.exists()
    assert case.starter.found.command.argv == ("/usr/run",)


async def test_where_it_cannot_be_made_the_program_is_started_without(tmp_path: Path) -> None:
    case = Case(tmp_path, has_one=False, makes=True)
    case.chores.fails = True
    async with case.tried(first=True) as trial:
        assert case.starter.found.command.argv == ("/usr/run",)
        trial.live = True
    assert not case.folder.exists()
    assert case.problems() == [
        "there is no environment for this tree: no network; the program is started with /usr/run"]
    case.pack.refuses = True
    async with case.tried(first=True):
        pass
    assert case.events[-1]["hint"] == "get one"


async def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    case = Case(tmp_path, has_one=False, makes=True)
    case.folder.mkdir()
    (case.folder / "mine").write_text("")
    async with case.tried(first=True):
        assert case.starter.found.command.argv == ("/usr/run",)
    assert (case.folder / "mine").exists()
    assert "is no environment" in case.problems()[0]


async def test_the_next_agent_finishes_what_a_killed_one_was_writing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, has_one=True, makes=False)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(relocation, "bring_over", killed)
        async with case.tried() as trial:
            trial.live = True
    assert case.version == "old"
    await case.again().recover()
    assert case.version == "new"
    assert (case.folder / "bin/run").read_text() == f"#!{case.folder}/bin/x\n"
    (case.folder / "v").write_text("the user's")
    await case.again().recover()
    assert case.version == "the user's"


async def test_the_next_agent_removes_what_a_killed_one_was_making(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, has_one=False, makes=True)
    monkeypatch.setattr(case.tested, "_forget_under_way", lambda: None)
    async with case.tried(first=True):
        pass
    assert case.folder.exists()
    await case.again().recover()
    assert not case.folder.exists()
