"""The project's environment: made where there is none, and changed in a copy that is tried first.

The version that serves goes on in the environment that it was started in. What a changed lock or
requirements file asks for is installed into a copy; the new version is started from that copy, and
when it is live, what has changed there is repeated in the environment itself. So a failed install,
or a version that is not healthy, leaves the environment as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hyperbox_agent.errors import ProgramError
from hyperbox_agent.home import make_private
from hyperbox_agent.jsonfile import read_json, write_json
from hyperbox_agent.supervise import relocation
from hyperbox_agent.supervise.chores import Chores
from hyperbox_agent.supervise.instance import Sink
from hyperbox_agent.supervise.starter import Starter
from hyperbox_langpacks.base import Detection, FileChange, InstallPlan, Pack, PackError, ProjectView
from hyperbox_langpacks.moved import MovedView, moved

Detect = Callable[[ProjectView], "tuple[Pack | None, Detection]"]
"""What the program is, asked anew. Raises ProgramError where nothing that can be run is found."""

FOLDER = "environment"
"""In the home: copies of the environment, by the number of the version that runs from it."""
_UNDER_WAY = "under-way.json"
"""Beside them while the environment itself is being written."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy of the environment in which something was installed."""

    folder: str
    """The environment itself."""
    path: str
    before: relocation.Looks
    pack: Pack | None
    after: Detection
    """The program as it will be found when the environment is as its copy."""


@dataclass(slots=True)
class Trial:
    """What a new version is started with, and the way back."""

    pack: Pack | None
    found: Detection
    """As it was found before."""
    done: str = ""
    """What was done to the environment."""
    live: bool = False
    """For the caller to say: the version is live."""
    is_other: bool = False
    """Whether versions are started otherwise than before, or in another environment."""
    made: str | None = None
    """The environment, where it was made."""
    copy: _Copy | None = None


class Environments:
    """Of one program. One version at a time is prepared."""

    def __init__(self, starter: Starter, chores: Chores, home: str, sink: Sink, *,
                 detect: Detect | None, makes: bool) -> None:
        """``makes``: the tree is ours, and its environment is ours to make."""
        self._starter = starter
        self._chores = chores
        self._home = os.path.join(home, FOLDER)
        self._sink = sink
        self._detect = detect
        self._makes = makes
        self._trial: Trial | None = None
        self._used = frozenset(self._copies())
        """Copies that a version may run from."""

    # -- life -------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Finish or drop what a killed agent had begun."""
        left = read_json(self._under_way)
        if not isinstance(left, dict):
            return
        folder, copy, before = left.get("folder"), left.get("copy"), left.get("before")
        if isinstance(folder, str) and isinstance(before, dict) and isinstance(copy, str):
            looks = {path: tuple(seen) for path, seen in before.items()}
            try:
                await asyncio.to_thread(relocation.bring_over, copy, looks, folder)
            except OSError as error:
                self._problem(f"{folder} is half changed: {error}", None,
                              "make it anew: remove it, and install once more")
        elif isinstance(folder, str):
            await asyncio.to_thread(shutil.rmtree, folder, True)
        self._forget_under_way()

    def close(self) -> None:
        """Nothing runs any more: leave no copy behind."""
        shutil.rmtree(self._home, ignore_errors=True)

    # -- a new version ----------------------------------------------------------------------------

    @asynccontextmanager
    async def tried(self, number: int, root: str, changes: Sequence[FileChange], *,
                    first: bool) -> AsyncIterator[Trial]:
        """Inside, the program is started as it is found now, in an environment that has what it
        asks for. Afterwards, where the trial is not live, all is as before; but what was made for
        a ``first`` version stays, for its next try needs the same.

        Raises ProgramError: nothing has changed then.
        """
        await asyncio.to_thread(self._drop_unused)
        starter = self._starter
        trial = self._trial = Trial(starter.pack, starter.found)
        try:
            await self._see_to(trial, starter.view(root), number, changes)
            yield trial
        finally:
            if not trial.live:
                self.back_out()
            self._trial = None
            await self._settle(trial, first=first)

    def back_out(self) -> None:
        """The new version failed: what is started from now on is started as before."""
        if self._trial is not None:
            self._starter.fit(self._trial.pack, self._trial.found)

    async def _see_to(self, trial: Trial, view: ProjectView, number: int,
                      changes: Sequence[FileChange]) -> None:
        pack, found = self._look(view)
        self._starter.fit(pack, found)
        if pack is not None and self._makes and found.environment is None:
            await self._make(trial, pack, found, view, number)
        elif pack is not None:
            await self._install(trial, pack, found, view, number, changes)
        after = trial.copy.after if trial.copy is not None else self._starter.found
        trial.is_other = bool(trial.done) or (pack, found) != (trial.pack, trial.found)
        if self._detect is not None and trial.is_other:
            self._sink({"event": "detection", **as_facts(after)})

    async def _settle(self, trial: Trial, *, first: bool) -> None:
        unwanted: str | None = None
        if trial.live and trial.copy is not None:
            await self._bring_over(trial.copy)
        elif not trial.live and trial.copy is not None:
            unwanted = trial.copy.path
        elif not trial.live and not first:
            unwanted = trial.made
        if unwanted is not None:
            await asyncio.to_thread(shutil.rmtree, unwanted, True)

    # -- where there is none ----------------------------------------------------------------------

    async def _make(self, trial: Trial, pack: Pack, found: Detection, view: ProjectView,
                    number: int) -> None:
        """Where that can't be done it is told, and the program is started without."""
        try:
            plan = pack.make(view, self._starter.environ, found)
            if plan is None or plan.environment is None:
                return
            await self._carry_out_making(plan, plan.environment, number, view.root)
        except (PackError, ProgramError) as error:
            self._problem(f"there is no environment for this tree: {error.message}; the program "
                          f"is started with {found.interpreter or 'what is on PATH'}", error.file,
                          error.hint or "mend that, then hyperbox down and up")
            return
        trial.made, trial.done = plan.environment, plan.why
        self._starter.fit(*self._look(view))

    async def _carry_out_making(self, plan: InstallPlan, folder: str, number: int,
                                root: str) -> None:
        if os.path.lexists(folder):
            raise ProgramError(f"{folder} is there, and is no environment",
                               hint=f"look at it, then remove it: rm -r {folder}")
        self._note_under_way({"folder": folder})
        try:
            await self._carry_out(plan, number, root)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._forget_under_way()

    # -- where there is one -----------------------------------------------------------------------

    async def _install(self, trial: Trial, pack: Pack, found: Detection, view: ProjectView,
                       number: int, changes: Sequence[FileChange]) -> None:
        try:
            plan = pack.install(view, found, changes)
        except PackError as error:
            # The program may run all the same; where it does not, this says why.
            self._problem(error.message, error.file, error.hint)
            return
        if plan is None:
            return
        if plan.environment is None:
            await self._carry_out(plan, number, view.root)
        else:
            trial.copy = await self._changed_copy(pack, found, plan.environment, view, number,
                                                  changes)
            self._starter.fit(trial.copy.pack, moved(trial.copy.after, trial.copy.folder,
                                                     trial.copy.path))
        trial.done = plan.why

    async def _changed_copy(self, pack: Pack, found: Detection, folder: str, view: ProjectView,
                            number: int, changes: Sequence[FileChange]) -> _Copy:
        make_private(self._home)
        path = os.path.join(self._home, str(number))
        await asyncio.to_thread(shutil.rmtree, path, True)
        try:
            before = await asyncio.to_thread(relocation.copy, folder, path)
            plan = pack.install(view, moved(found, folder, path), changes)
            if plan is not None:
                await self._carry_out(plan, number, view.root)
            return _Copy(folder, path, before, *self._look(MovedView(view, folder, path)))
        except BaseException as error:
            shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, OSError):
                raise ProgramError(f"{folder} can't be copied to be changed: {error}") from error
            raise

    async def _bring_over(self, copy: _Copy) -> None:
        """The version that is live runs from the copy to its end; all others from what it was a
        copy of."""
        self._used = frozenset((copy.path,))
        try:
            self._note_under_way({"folder": copy.folder, "copy": copy.path, "before": copy.before})
            await asyncio.to_thread(relocation.bring_over, copy.path, copy.before, copy.folder)
        except OSError as error:
            # It is whole in the copy, so that is where the program goes on being started.
            self._problem(f"{copy.folder} could not be brought in line with what was installed: "
                          f"{error}", None, "install it there by hand, then hyperbox down and up")
            return
        self._forget_under_way()
        self._starter.fit(copy.pack, copy.after)

    async def _carry_out(self, plan: InstallPlan, number: int, root: str) -> None:
        for step in plan.steps:
            await self._chores.step("the install step", step.argv, number, root, step.env, step.cwd)

    # -- small things -----------------------------------------------------------------------------

    def _look(self, view: ProjectView) -> tuple[Pack | None, Detection]:
        if self._detect is None:
            return self._starter.pack, self._starter.found
        return self._detect(view)

    def _copies(self) -> list[str]:
        with contextlib.suppress(OSError):
            return [one.path for one in os.scandir(self._home) if one.is_dir()]
        return []

    def _drop_unused(self) -> None:
        for copy in self._copies():
            if copy not in self._used:
                shutil.rmtree(copy, ignore_errors=True)

    @property
    def _under_way(self) -> str:
        return os.path.join(self._home, _UNDER_WAY)

    def _note_under_way(self, what: dict[str, Any]) -> None:
        make_private(self._home)
        write_json(self._under_way, what)

    def _forget_under_way(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._under_way)

    def _problem(self, message: str, path: str | None, hint: str | None) -> None:
        self._sink({"event": "problem", "message": message, "path": path, "hint": hint})


def as_facts(found: Detection) -> dict[str, Any]:
    """What was found, as it crosses the link."""
    return {"pack": found.pack, "why": found.why, "command": list(found.command.argv),
            "port": found.port, "notes": list(found.notes), "framework": found.framework}
