"""Putting a session together from a configuration, and ending what a lost one left."""

from __future__ import annotations

import asyncio
import glob
import hashlib
import os
from collections.abc import Callable, Mapping

from hyperbox_agent.clock import SystemClock
from hyperbox_agent.core.clock import Clock
from hyperbox_agent.core.ignore import IgnoreOptions
from hyperbox_agent.errors import AgentError, LinkLostError, LinkTimeoutError
from hyperbox_agent.home import find_run_folder
from hyperbox_agent.supervise.family import end, marked
from hyperbox_agent.supervise.mend import mark_of
from hyperbox_agent.watch.choose import choose_watcher
from hyperbox_agent.watch.gitlock import GitLock
from hyperbox_agent.watch.source import Source
from hyperbox_agent.watch.tree import SourceTree
from hyperbox_devcontainer.config import Config
from hyperbox_devcontainer.errors import TargetTimeoutError, WorkstationError
from hyperbox_devcontainer.history import History
from hyperbox_devcontainer.homes import LOCAL, Home, known_homes, remember_home
from hyperbox_devcontainer.paths import (
    Project,
    history_file,
    private_dir,
    project_home,
    session_socket,
    target_home,
)
from hyperbox_devcontainer.session.ahead import Ahead
from hyperbox_devcontainer.session.archived import (
    ArchiveBase,
    forget_built,
    forget_unfinished,
)
from hyperbox_devcontainer.session.base import Base, MirrorBase
from hyperbox_devcontainer.session.connect import (
    Connector,
    make_connector,
    reach_hard,
)
from hyperbox_devcontainer.session.connection import Connection
from hyperbox_devcontainer.session.held import forget_held
from hyperbox_devcontainer.session.options import SessionOptions
from hyperbox_devcontainer.session.session import OnEvent, Session
from hyperbox_devcontainer.verbs.server import forget_socket


def options_from(config: Config, environ: Mapping[str, str]) -> SessionOptions:
    """The session's options out of a configuration."""
    project, target = config.project, config.target
    mirrored = target.mode == "mirror"
    home = target_home(project, target.name, environ)
    tree = project.root
    if mirrored:
        tree = target.path or os.path.join(home, "tree")
        home = mirror_home(tree) if target.path else home
    return SessionOptions(
        project=project.name, root=project.root, target=target.name, kind=target.kind,
        mode="mirror" if mirrored else "in-place", home=home, tree=tree,
        state_dir=project_home(project, environ), app=config.as_app_config(),
        ignore=config.sync.ignore, include=config.sync.include, pull=config.sync.pull,
        watcher=environ.get("HYPERBOX_WATCHER"))


def mirror_home(tree: str) -> str:
    """The home of a mirrored tree that the user placed: beside it, on the same filesystem."""
    parent, name = os.path.split(tree.rstrip("/"))
    return os.path.join(parent, f".hyperbox-{name}")


async def open_session(config: Config, *, on_event: OnEvent, clock: Clock,
                       connect: Callable[[SessionOptions, Clock], Connector] = make_connector,
                       ) -> Session:
    """Bring a project up. Events come from the first moment on. ``connect`` says how the target's
    agent is reached, where its kind alone does not.

    Where it raises or is cancelled, nothing of it is left running. Raises AgentError,
    WorkstationError.
    """
    options = options_from(config, os.environ)
    private_dir(options.state_dir)
    remember_home(options.state_dir, Home(options.target, options.kind, options.home))
    source = make_source(options, clock)
    history = History(history_file(config.project, os.environ))
    base: Base = MirrorBase() if options.mode == "mirror" else ArchiveBase(
        options, source, clock)
    connection = Connection(options, connect(options, clock), session_id(options))
    session = Session(options, source, base, history, connection, clock, on_event,
                      config.values())
    ahead = Ahead(clock, compress=options.compress) if options.mode == "mirror" else None
    try:
        connection.begin(ahead)
        await source.open(ahead)
        await session.open()
    except BaseException:
        await session.abandon()
        raise
    return session


def session_id(options: SessionOptions) -> str:
    """Names this project on this target: the same in every session of it."""
    named = f"{options.root}\0{options.target}\0{options.tree}"
    return hashlib.sha256(os.fsencode(named)).hexdigest()[:32]


def make_source(options: SessionOptions, clock: Clock) -> Source:
    """The source of a session, not opened yet."""
    # The target's version of a conflict lies in the source until somebody has looked at it.
    beside = (f"*.from-{options.target}*",) if options.pull else ()
    tree = SourceTree(
        options.root,
        # In place the program's database is not saved but written, and not of any generation: an
        # older one that is gone back to works on the same rows.
        options=IgnoreOptions(ignore=(*options.ignore, *beside), include=options.include,
                              databases=options.mode == "mirror"),
        cache_file=os.path.join(options.state_dir, "scan"))
    return Source(
        tree, lambda sink: choose_watcher(options.root, sink, prefer=options.watcher), clock,
        lock=GitLock(options.root))


HARD_SECONDS = 15.0
"""What ending by force may take: the start of an agent on a busy machine, twice."""
_TOO_LONG = (TimeoutError, LinkTimeoutError, TargetTimeoutError)


def down(project: Project, *, timeout: float) -> bool:
    """Without a session: end what a lost one left. Gives whether there was anything. Blocking."""
    forget_socket(session_socket(project, os.environ))
    state = project_home(project, os.environ)
    forget_unfinished(state)
    forget_held(state)
    homes = [home for home in known_homes(state) if _may_live(home)]
    ended = bool(homes) and asyncio.run(_down_all(project, homes, timeout))
    forget_built(state)
    return ended


def _may_live(home: Home) -> bool:
    """Whether a socket of ours stands there: an agent's or a port holder's. Elsewhere than on this
    machine only its agent knows."""
    if home.kind != LOCAL:
        return True
    run = find_run_folder(home.home)
    return run is not None and bool(glob.glob(os.path.join(glob.escape(run), "*.sock")))


async def _down_all(project: Project, homes: list[Home], timeout: float) -> bool:
    """Each home within ``timeout``, and by force where that is over. Raises the first error, when
    all the others have been brought down."""
    ended = False
    wrong: Exception | None = None
    for home in homes:
        try:
            ended = await _down_within(project, home, timeout) or ended
        except (AgentError, WorkstationError, OSError) as error:
            wrong = wrong or error
    if wrong is not None:
        raise wrong
    return ended


async def _down_within(project: Project, home: Home, timeout: float) -> bool:
    try:
        return await asyncio.wait_for(_down(project, home), timeout)
    except _TOO_LONG:
        pass
    try:
        return await asyncio.wait_for(_down_hard(project, home), HARD_SECONDS)
    except _TOO_LONG as error:
        raise WorkstationError(
            f"what runs for {home.home} did not end within {timeout:g} s, nor by force",
            file=home.home,
            hint=f"look at it: grep -l {mark_of(home.home)} /proc/[0-9]*/environ") from error


async def _down_hard(project: Project, home: Home) -> bool:
    """End what did not end in time: no grace for anything, then what is left is cleared away."""
    connector = make_connector(_options_of(project, home), SystemClock())
    try:
        await connector.end_agent()
    finally:
        await connector.close()
    if home.kind == LOCAL:
        mark = f"{mark_of(home.home)}-"
        await end(lambda: marked(mark, frozenset()), 0.0, SystemClock())
    await _down(project, home, fast=True)
    return True


async def _down(project: Project, home: Home, *, fast: bool = False) -> bool:
    connector = make_connector(_options_of(project, home), SystemClock())
    link = await reach_hard(connector)
    if link is None:
        return False
    try:
        answer = await link.call("stop", {"leftovers": True, "fast": fast}, timeout=None)
        return bool(answer.body.get("ended", True))
    except (LinkLostError, LinkTimeoutError):
        return True  # the agent ended before its answer was out
    finally:
        await link.close()
        await connector.close()


def _options_of(project: Project, home: Home) -> SessionOptions:
    """What it takes to reach the agent of a home: not to run anything."""
    return SessionOptions(project=project.name, root=project.root, target=home.target,
                          kind=home.kind, mode="in-place", home=home.home, tree=project.root,
                          state_dir="")
