"""Starts one version of the program, cold or from a child that was forked ahead."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hyperbox_agent.core.clock import Clock
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.control import Control
from hyperbox_agent.supervise.instance import Identity, Instance, Sink
from hyperbox_agent.supervise.launch import (
    Surroundings,
    env_stamps,
    hyperbox_env,
    is_settled,
    launch_spec,
    plan_launch,
    program_env,
    working_dir,
)
from hyperbox_agent.supervise.output import Room
from hyperbox_agent.supervise.process import Child, Pipes, open_pipes, open_terminal, spawn
from hyperbox_agent.supervise.warm import Spare, Start
from hyperbox_langpacks.base import (
    Detection,
    LaunchSpec,
    Pack,
    PackError,
    ProjectView,
    Rung,
    WorkerSpec,
)
from hyperbox_langpacks.view import FolderView

OnReport = Callable[[Instance, Mapping[str, Any]], None]
_ACTIVATED = ("PATH", "VIRTUAL_ENV")
"""What a pack sets to activate the project's own environment."""


class Starter:
    """Knows how; whether the version is any good is for health to say."""

    def __init__(self, config: AppConfig, pack: Pack | None, found: Detection, view: ProjectView,
                 code_dir: str, run_dir: str, mark: str, environ: Mapping[str, str], clock: Clock,
                 sink: Sink, on_report: OnReport, room: Room | None) -> None:
        self.pack = pack
        self.found = found
        self.environ = environ
        """The agent's own variables."""
        self.peers: str | None = None
        """The table of client addresses, where there is a port."""
        self._config = config
        self._view = view
        self._code_dir = code_dir
        self._run_dir = run_dir
        self._mark = mark
        self._clock = clock
        self._sink = sink
        self._on_report = on_report
        self._room = room
        self._spec: tuple[str, LaunchSpec] | None = None
        self._known: tuple[object, Mapping[str, str]] | None = None

    def fit(self, pack: Pack | None, found: Detection) -> None:
        """From now on this is what is started; the pack is asked again how, for the environment
        may have changed, too."""
        self.pack, self.found = pack, found
        self._spec = self._known = None

    def worker_spec(self) -> WorkerSpec | None:
        """How its worker is started, where it has one."""
        if self.pack is None:
            return None
        try:
            return self.pack.worker(self._view, self.found, self._code_dir)
        except PackError as error:
            self._sink({"event": "problem", "message": error.message})
            return None

    def view(self, root: str) -> ProjectView:
        """The project as it is at ``root``."""
        return self._view if root == self._view.root else FolderView(root)

    def env(self, root: str) -> dict[str, str]:
        """The environment of a command that is not the program itself: the same programs are found.

        Raises ProgramError."""
        launched = self._launch(root).env
        added = {name: launched[name] for name in _ACTIVATED if name in launched}
        return program_env(self._config, root, self.environ, {**self.found.command.env, **added})

    def cold(self, serial: int, number: int, root: str) -> Instance:
        """A new process. Raises ProgramError."""
        spec = self._launch(root)
        config = self._config
        here = self._here(serial, number, root)
        plan = plan_launch(config, spec, self.found, here, self.environ)
        control = Control(here.control)
        try:
            ends = open_terminal(plan.spawn.size) if config.tty else open_pipes()
            child = spawn(plan.spawn, ends, self._clock)
        except BaseException:
            control.close()
            raise
        instance = self._instance(Identity(serial, number, Rung.COLD, root, here.mark), child,
                                  ends.ours, control)
        if plan.backend is not None:
            instance.backend.set_result(plan.backend)
            instance.was_given_port = True
        return instance

    def warm(self, serial: int, number: int, root: str, spare: Spare) -> Instance | None:
        """Let a spare go. None: it is dead (and discarded). Raises ProgramError."""
        try:
            here = self._here(serial, number, root)
            what = self.start_of(root)
            what = replace(what, env={**what.env, **hyperbox_env(here)})
        except ProgramError:
            spare.discard()
            raise
        identity = Identity(serial, number, Rung.WARM, root, here.mark, spare.mark)
        instance = self._instance(identity, spare.child, spare.pipes, Control(here.control))
        if spare.start(what):
            return instance
        spare.release()
        instance.close()
        return None

    def start_of(self, root: str) -> Start:
        """What a forked child becomes, as far as it is known ahead. Raises ProgramError."""
        spec = self._launch(root)
        env = self._env(root, spec)
        port = str(self._config.port)
        argv = tuple(part.replace("{port}", port) for part in spec.argv)
        return Start(argv, env, working_dir(self._config, self.found, root))

    def _env(self, root: str, spec: LaunchSpec) -> Mapping[str, str]:
        """Kept until an env file changes: the next version waits while it is worked out."""
        stamps = env_stamps(self._config, root)
        basis = (root, spec, stamps)
        if self._known is not None and self._known[0] == basis:
            return self._known[1]
        env = program_env(self._config, root, self.environ, spec.env)
        if self._config.port is not None:
            env.setdefault("PORT", str(self._config.port))
        self._known = (basis, env) if is_settled(stamps) else None
        return env

    @property
    def can_fork(self) -> bool:
        """Whether a forked child can become this program."""
        if self._config.tty:
            return False
        return self._config.port is None or self._launch(self._view.root).port_mapped

    def adopt(self, identity: Identity, child: Child, pipes: Pipes, control: str) -> Instance:
        """An instance that another agent started."""
        instance = self._instance(identity, child, pipes, Control(control))
        instance.was_adopted = True
        return instance

    def _launch(self, root: str) -> LaunchSpec:
        if self._spec is None or self._spec[0] != root:
            try:
                spec = launch_spec(self._config, self.pack, self.found, self.view(root),
                                   self._code_dir)
            except PackError as error:
                raise ProgramError(error.message, file=error.file, line=error.line,
                                   hint=error.hint) from error
            self._spec = (root, spec)
        return self._spec[1]

    def _here(self, serial: int, number: int, root: str) -> Surroundings:
        return Surroundings(
            number=number, root=root, mark=f"{self._mark}-{serial}",
            control=os.path.join(self._run_dir, f"c{serial}.sock"),
            public_port=self._config.port, peers=self.peers, code_dir=self._code_dir,
            own_port=self.found.port)

    def _instance(self, identity: Identity, child: Child, pipes: Pipes, control: Control
                  ) -> Instance:
        return Instance(identity, child, pipes, control, self._clock, self._sink,
                        port=self._config.port, ready=self._config.ready, room=self._room,
                        on_report=self._on_report)
