"""What is started for a version: command line and environment. Pure but for reading env files."""

from __future__ import annotations

import os
import random
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperbox_agent.core.words import argv_of
from hyperbox_agent.errors import ProgramError
from hyperbox_agent.supervise.config import AppConfig
from hyperbox_agent.supervise.probe import Address
from hyperbox_agent.supervise.process import MARK, Spawn
from hyperbox_langpacks.base import Detection, LaunchSpec, Pack, ProjectView

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*?)\s*$")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_JOINED = ("PATH", "PYTHONPATH", "NODE_PATH")
"""Search paths: the pack's part comes first, the user's stays behind it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an instance is told of where it runs."""

    number: int
    root: str
    mark: str
    control: str
    public_port: int | None
    peers: str | None
    code_dir: str
    own_port: int | None = None
    """The port that the program asks for by itself, where that may be another."""


def hyperbox_env(here: Surroundings) -> dict[str, str]:
    """The variables that the shim reads."""
    env = {"HYPERBOX_CONTROL": here.control, "HYPERBOX_NUMBER": str(here.number),
           "HYPERBOX_ROOT": here.root, "HYPERBOX_CODE": here.code_dir, MARK: here.mark}
    if here.public_port is not None:
        env["HYPERBOX_PUBLIC_PORT"] = str(here.public_port)
        if here.own_port not in (None, here.public_port):
            env["HYPERBOX_OWN_PORT"] = str(here.own_port)
    if here.peers is not None:
        env["HYPERBOX_PEERS"] = here.peers
    return env


def base_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The agent's environment as a program should see it: without what is ours."""
    return {name: value for name, value in environ.items() if not name.startswith("HYPERBOX_")}


def program_env(config: AppConfig, root: str, environ: Mapping[str, str],
                added: Mapping[str, str]) -> dict[str, str]:
    """The program's whole environment but for ``hyperbox_env``. Raises ProgramError."""
    env = base_env(environ)
    for path in config.env_files:
        env.update(read_env_file(os.path.join(root, path), path))
    env.update(config.env)
    for name, value in added.items():
        if name in _JOINED:
            entries = value.split(os.pathsep)
            users = [one for one in env.get(name, "").split(os.pathsep)
                     if one and one not in entries]
            value = os.pathsep.join([*entries, *users])
        env[name] = value
    return env


Stamp = tuple[int, int, int, int]
_COARSE = 2.5
"""Seconds within which a file can be written twice without a change of its times (FAT: 2)."""


def env_stamps(config: AppConfig, root: str) -> tuple[Stamp | None, ...]:
    """What changes whenever an env file does, once it ``is_settled``."""
    return tuple(_stamp(os.path.join(root, path)) for path in config.env_files)


def _stamp(file: str) -> Stamp | None:
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def is_settled(stamps: Sequence[Stamp | None]) -> bool:
    """Whether a further write would show: a file that was just written may be written again within
    the same tick of its clock."""
    old = (time.time() - _COARSE) * 1e9
    return all(stamp is None or max(stamp[2:]) < old for stamp in stamps)


def read_env_file(file: str, shown: str) -> dict[str, str]:
    """The variables of a ``.env`` file. Raises ProgramError naming file and line."""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as opened:
            text = opened.read(1 << 20)
    except OSError as error:
        raise ProgramError(f"the env file can't be read: {error.strerror}", file=shown,
                           key="env_file") from error
    return parse_env(text, shown)


def parse_env(text: str, shown: str = ".env") -> dict[str, str]:
    """``NAME=value`` lines: comments, ``export``, single and double quotes. Raises ProgramError."""
    env: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None or "\0" in line:
            raise ProgramError(f"not NAME=value: {line.strip()[:60]!r}", file=shown, line=number)
        env[match[1]] = _env_value(match[2], shown, number)
    return env


def _env_value(raw: str, shown: str, number: int) -> str:
    quote = raw[:1]
    if quote not in ("'", '"'):
        return re.split(r"\s+#", raw, maxsplit=1)[0]
    pattern = r"'([^']*)'" if quote == "'" else r'"((?:[^"\\]|\\.)*)"'
    match = re.match(pattern + r"\s*(?:#.*)?$", raw)
    if match is None:
        raise ProgramError("the quote is not closed", file=shown, line=number)
    if quote == "'":
        return match[1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), match[1])


@dataclass(frozen=True, slots=True)
class Plan:
    """A version ready to be spawned."""

    spawn: Spawn
    backend: Address | None
    """Where it will answer, when its port is given to it; None: its shim will tell."""


def plain_launch(config: AppConfig, found: Detection) -> LaunchSpec:
    """How a program without a pack is started."""
    argv = argv_of(config.command) if config.command is not None else found.command.argv
    return LaunchSpec(argv, dict(found.command.env), port_mapped=False)


def launch_spec(config: AppConfig, pack: Pack | None, found: Detection, view: ProjectView,
                code_dir: str) -> LaunchSpec:
    """The pack's way of starting the program, or the plain one."""
    if pack is None:
        return plain_launch(config, found)
    return pack.launch(view, found, config.port, code_dir)


def plan_launch(config: AppConfig, spec: LaunchSpec, found: Detection, here: Surroundings,
                environ: Mapping[str, str]) -> Plan:
    """Everything that a cold start needs. Raises ProgramError (env file, folder)."""
    env = program_env(config, here.root, environ, spec.env)
    env.update(hyperbox_env(here))
    argv, backend = spec.argv, None
    if config.port is not None and not spec.port_mapped:
        private = free_port()
        env["PORT"] = str(private)
        argv = tuple(part.replace("{port}", str(private)) for part in argv)
        backend = ("127.0.0.1", private)
    elif config.port is not None:
        env.setdefault("PORT", str(config.port))
        argv = tuple(part.replace("{port}", str(config.port)) for part in argv)
    return Plan(Spawn(argv, env, working_dir(config, found, here.root), tty=config.tty), backend)


def working_dir(config: AppConfig, found: Detection, root: str) -> str:
    """Where the program starts. Raises ProgramError for a folder outside the root."""
    relative = config.cwd or found.command.cwd
    path = os.path.normpath(os.path.join(root, relative))
    if path == root:
        return path
    real, top = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath((real, top)) != top:
        raise ProgramError(f"the folder to start in is outside the project: {relative}", key="cwd")
    return path


def free_port() -> int:
    """A loopback port that nobody has now, for a program that is going to bind it.

    Not one of those that the kernel hands out by itself: any connection of anybody could get it
    before the program does, and a probe of ours could even connect to itself.
    """
    low, high = _ephemeral_ports()
    candidates = range(max(low - 16_000, 1024), low) if low > 6_000 else range(high + 1, 65_536)
    for _ in range(200 if len(candidates) > 100 else 0):
        port = random.choice(candidates)  # noqa: S311 - nothing secret about it
        if _can_bind(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ephemeral_ports() -> tuple[int, int]:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = file.read().split()
            return int(low), int(high)
    except (OSError, ValueError):
        return 32_768, 60_999


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
