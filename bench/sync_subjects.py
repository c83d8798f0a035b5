"""The tools that mirror a tree, each behind start and stop; their edits are plain writes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.processes import Family
from bench.subjects import BenchError, Tool, free_port

IGNORED = ("node_modules", "__pycache__", ".git")


class SyncSubject(Protocol):
    """A tool that keeps ``target`` equal to ``source``."""

    @property
    def name(self) -> str:
        """As the tables say it."""
        ...

    @property
    def port(self) -> int | None:
        """Where a program that it manages in the mirrored tree answers, if it manages one."""
        ...

    def missing(self) -> str | None:
        """What this machine lacks for it, and what brings that; None: nothing."""
        ...

    def start(self, source: Path, target: Path, scratch: Path, family: Family) -> None:
        """Begin; the first sync is under way when this returns. ``target`` does not exist yet."""
        ...

    def stop(self) -> None:
        """End everything that was started."""
        ...


def _lacking(programs: Mapping[str, str]) -> str | None:
    gone = [f"{name}: apt-get install {package}" for name, package in programs.items()
            if shutil.which(name) is None]
    return "; ".join(gone) or None


@dataclass
class HyperBoxMirror:
    """``hyperbox up`` with a process target that has a tree of its own, reached over a pipe."""

    name: str = "HyperBox"
    port: int | None = None
    _tool: Tool | None = field(default=None, init=False)

    def missing(self) -> str | None:
        return None if shutil.which("hyperbox") else "hyperbox: uv sync --all-packages"

    def start(self, source: Path, target: Path, scratch: Path, family: Family) -> None:
        self.port = free_port()
        (source / "hyperbox.toml").write_text(
            f"[app]\ncommand = [{sys.executable!r}, 'app.py', '{self.port}']\nport = {self.port}\n"
            f"[target.mirror]\nkind = 'process'\nmode = 'mirror'\npath = {str(target)!r}\n")
        homes = {f"XDG_{name}_HOME": str(scratch / name.lower())
                 for name in ("STATE", "CONFIG", "CACHE", "DATA")}
        self._tool = Tool.start(["hyperbox", "up", "--json", str(source)], source,
                                scratch / "tool.log", homes | family.environment)

    def stop(self) -> None:
        if self._tool is not None:
            self._tool.stop(signal.SIGINT)


@dataclass
class RsyncLoop:
    """inotifywait tells, rsync copies the whole tree: the shell loop that many people have."""

    name: str = "rsync + inotifywait"
    port: int | None = None
    _tool: Tool | None = field(default=None, init=False)

    def missing(self) -> str | None:
        return _lacking({"rsync": "rsync", "inotifywait": "inotify-tools"})

    def start(self, source: Path, target: Path, scratch: Path, family: Family) -> None:
        excludes = " ".join(f"--exclude={name}" for name in IGNORED)
        watched = "|".join(name.replace(".", r"\.") for name in IGNORED)
        script = (f"rsync -a --delete {excludes} '{source}/' '{target}/'\n"
                  f"inotifywait -q -m -r -e close_write,create,delete,move "
                  f"--exclude '/({watched})(/|$)' '{source}' | while read -r line; do\n"
                  # Drain what came meanwhile, then copy once.
                  f"  while read -r -t 0.01 line; do :; done\n"
                  f"  rsync -a --delete {excludes} '{source}/' '{target}/'\ndone\n")
        self._tool = Tool.start(["bash", "-c", script], source, scratch / "tool.log",
                                family.environment)

    def stop(self) -> None:
        if self._tool is not None:
            self._tool.stop()


@dataclass
class Lsyncd:
    """lsyncd with a delay of one second (its default is fifteen)."""

    name: str = "lsyncd, delay 1"
    port: int | None = None
    _tool: Tool | None = field(default=None, init=False)

    def missing(self) -> str | None:
        return _lacking({"lsyncd": "lsyncd", "rsync": "rsync"})

    def start(self, source: Path, target: Path, scratch: Path, family: Family) -> None:
        excludes = ", ".join(f"'{name}'" for name in IGNORED)
        config = scratch / "lsyncd.lua"
        config.write_text(
            f"settings {{ nodaemon = true }}\n"
            f"sync {{ default.rsync, source = '{source}', target = '{target}', delay = 1,\n"
            f"  exclude = {{ {excludes} }}, rsync = {{ archive = true }} }}\n")
        target.mkdir()
        self._tool = Tool.start(["lsyncd", str(config)], source, scratch / "tool.log",
                                family.environment)

    def stop(self) -> None:
        if self._tool is not None:
            self._tool.stop()


@dataclass
class Unison:
    """Unison, polling each second (Debian has no fsmonitor helper for it)."""

    name: str = "Unison, repeat 1"
    port: int | None = None
    _tool: Tool | None = field(default=None, init=False)

    def missing(self) -> str | None:
        return _lacking({"unison": "unison"})

    def start(self, source: Path, target: Path, scratch: Path, family: Family) -> None:
        target.mkdir()
        ignores = [word for name in IGNORED for word in ("-ignore", f"Name {name}")]
        argv = ["unison", str(source), str(target), "-batch", "-auto", "-silent",
                "-confirmbigdel=false", "-repeat", "1", *ignores]
        self._tool = Tool.start(argv, source, scratch / "tool.log",
                                {"UNISON": str(scratch / "unison")} | family.environment)

    def stop(self) -> None:
        if self._tool is not None:
            self._tool.stop()


@dataclass
class Syncthing:
    """Two Syncthings on loopback that know only each other; file watching, delay one second."""

    name: str = "Syncthing, delay 1"
    port: int | None = None
    _tools: list[Tool] = field(default_factory=list, init=False)

    def missing(self) -> str | None:
        return _lacking({"syncthing": "syncthing"})

    def start(self, source: Path, target: Path, scratch: Path, family: Family) -> None:
        target.mkdir()
        (source / ".stignore").write_text("\n".join([*IGNORED, ".stignore"]) + "\n")
        homes = [scratch / "syncthing-a", scratch / "syncthing-b"]
        environment = {"STNORESTART": "1", "STNOUPGRADE": "1", "HOME": str(scratch)}
        ids = []
        for home in homes:
            subprocess.run(["syncthing", "generate", f"--home={home}", "--skip-port-probing",
                            "--no-default-folder"], check=True, capture_output=True)
            done = subprocess.run(["syncthing", f"--home={home}", "--device-id"], check=True,
                                  capture_output=True, text=True)
            ids.append(done.stdout.strip())
        ports = [free_port(), free_port()]
        for home, folder, port, kind in zip(homes, (source, target), ports,
                                            ("sendonly", "receiveonly"), strict=True):
            _configure(home / "config.xml", folder, kind, port, ids, ports)
        for home in homes:
            self._tools.append(Tool.start(
                ["syncthing", "serve", f"--home={home}", "--no-browser", "--no-restart"], scratch,
                home / "tool.log", environment | family.environment))

    def stop(self) -> None:
        for tool in self._tools:
            tool.stop()


def _configure(path: Path, folder: Path, kind: str, port: int, ids: Sequence[str],
               ports: Sequence[int]) -> None:
    """Write a Syncthing configuration with one folder and no way to the outside."""
    own = ET.parse(path)
    root = own.getroot()
    for name in ("folder", "device"):
        for element in root.findall(name):
            root.remove(element)
    element = ET.SubElement(root, "folder", id="bench", label="bench", path=str(folder), type=kind,
                            rescanIntervalS="3600", fsWatcherEnabled="true", fsWatcherDelayS="1")
    for device in ids:
        ET.SubElement(element, "device", id=device)
    for device, there in zip(ids, ports, strict=True):
        peer = ET.SubElement(root, "device", id=device, name=device[:7], compression="never")
        ET.SubElement(peer, "address").text = f"tcp://127.0.0.1:{there}"
    options = root.find("options")
    if options is None:
        raise BenchError("Syncthing's configuration has no options")
    wanted = {"listenAddress": f"tcp://127.0.0.1:{port}", "globalAnnounceEnabled": "false",
              "localAnnounceEnabled": "false", "relaysEnabled": "false", "natEnabled": "false",
              "urAccepted": "-1", "crashReportingEnabled": "false", "startBrowser": "false"}
    for key, value in wanted.items():
        for element in options.findall(key):
            options.remove(element)
        ET.SubElement(options, key).text = value
    gui = root.find("gui")
    if gui is not None:
        root.remove(gui)
    ET.SubElement(ET.SubElement(root, "gui", enabled="false"), "address").text = "127.0.0.1:0"
    own.write(path)


def all_subjects() -> list[SyncSubject]:
    """Ours and the peers that Debian has."""
    return [HyperBoxMirror(), RsyncLoop(), Lsyncd(), Unison(), Syncthing()]
