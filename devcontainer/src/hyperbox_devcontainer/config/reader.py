"""Takes file, environment and flags in their order; keeps values, origins and all problems."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hyperbox_devcontainer.config.checks import Wrong, shown
from hyperbox_devcontainer.config.locate import Path
from hyperbox_devcontainer.config.model import DEFAULT, Origin, Target
from hyperbox_devcontainer.config.reading import Source
from hyperbox_devcontainer.config.schema import KEYS, SECTIONS, TARGET, TOP, Key
from hyperbox_devcontainer.config.variables import from_text
from hyperbox_devcontainer.errors import InputError, WorkstationError
from hyperbox_devcontainer.suggest import near

DEFAULT_TARGET = "process"
_PREFIXES = tuple(f"HYPERBOX_{section}_".upper() for section in SECTIONS)


class Reader:
    """Takes the sources in their order and keeps values, origins and problems."""

    def __init__(self, source: Source | None) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.problems: list[WorkstationError] = []
        self.program = "app"
        self._source = source
        self._targets: list[tuple[str, dict[str, Any]]] = []

    def section(self, name: str) -> dict[str, Any]:
        """Every key of a section by its own name."""
        return {key.name: self.values.get(key.dotted, key.default) for key in SECTIONS[name]}

    # The file

    def take_file(self, source: Source) -> None:
        for name, value in source.data.items():
            if name not in TOP:
                self._unknown((name,), TOP, "section")
            elif not isinstance(value, dict):
                self._wrong((name,), name, f"a table, `[{name}]`", value)
            elif name == "target":
                self._take_targets(value)
            elif name == "app":
                self._take_app(value)
            else:
                self._take_section((name,), value, SECTIONS[name])

    def _take_app(self, table: Mapping[str, Any]) -> None:
        names = [key.name for key in SECTIONS["app"]]
        programs = {name: value for name, value in table.items()
                    if isinstance(value, dict) and name not in names}
        own = {name: value for name, value in table.items() if name not in programs}
        self._take_section(("app",), own, SECTIONS["app"])
        for name, value in programs.items():
            self._take_program(name, value, alone=len(programs) == 1 and not own)
        if programs and own:
            self._problem(("app", next(iter(programs))), "app",
                          "`[app]` has keys of its own beside named programs",
                          hint="name every program: `[app.web]`, or none")
        elif len(programs) > 1:
            self._problem(("app", list(programs)[1]), "app",
                          f"{len(programs)} programs are named ({', '.join(programs)}); one "
                          "program a project is what this version runs",
                          hint="keep one of them; several come with a later version")

    def _take_program(self, name: str, table: Mapping[str, Any], *, alone: bool) -> None:
        if alone:
            self.program = name
            self._take_section(("app", name), table, SECTIONS["app"])
            return
        kept = self.values, self.origins
        self.values, self.origins = dict(self.values), dict(self.origins)
        self._take_section(("app", name), table, SECTIONS["app"])
        self.values, self.origins = kept

    def _take_section(self, path: Path, table: Mapping[str, Any], keys: tuple[Key, ...]) -> None:
        known = {key.name: key for key in keys}
        for name, value in table.items():
            key = known.get(name)
            if key is None:
                self._unknown((*path, name), known, "key")
            else:
                self._take(key, value, Origin("file", self._where((*path, name))), (*path, name))

    def _take_targets(self, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            path: Path = ("target", name)
            if not isinstance(value, dict):
                self._wrong(path, f"target.{name}", f"a table, `[target.{name}]`", value)
            elif not name.strip() or any(ord(c) < 33 or c in "/\x7f" for c in name):
                self._problem(path, "target", "a target's name has no blanks and no slash")
            else:
                self._targets.append((name, self._target_values(name, value)))

    def _target_values(self, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
        known = {key.name: key for key in TARGET}
        taken: dict[str, Any] = {}
        for key, value in table.items():
            path: Path = ("target", name, key)
            if key not in known:
                self._unknown(path, known, "key")
                continue
            dotted = f"target.{name}.{key}"
            checked = self._checked(known[key], value, path, dotted)
            if checked is not None:
                taken[key] = checked
                self.origins[dotted] = Origin("file", self._where(path))
        return taken

    # Environment and flags

    def take_environment(self, environ: Mapping[str, str]) -> None:
        variables = {key.variable: key for key in KEYS.values() if key.name != "env"}
        for name in sorted(environ):
            if not name.startswith(_PREFIXES):
                continue
            key = variables.get(name)
            if key is None:
                close = near(name, variables)
                self.problems.append(InputError(
                    f"unknown variable {name}", key=name,
                    hint=f"did you mean `{close}`?" if close else None))
                continue
            self._take(key, from_text(key, environ[name]), Origin("environment", name), None)

    def take_flags(self, flags: Mapping[str, Any]) -> None:
        for dotted, value in flags.items():
            if dotted in KEYS and value is not None:
                key = KEYS[dotted]
                flag = f"--{key.name.replace('_', '-')}"
                self._take(key, value, Origin("flag", flag), None)

    # Checks that see more than one value

    def check_files(self, root: str) -> None:
        """Files and folders that must exist."""
        cwd = self.values.get("app.cwd", "")
        if cwd and not os.path.isdir(os.path.join(root, cwd)):
            self._at_origin("app.cwd", f"there is no folder {cwd!r} in the project")
        for name in self.values.get("app.env_file", ()):
            if not os.path.isfile(os.path.join(root, name)):
                self._at_origin("app.env_file", f"there is no file {name!r}")

    def check_together(self, target: Target) -> None:
        """Values that exclude each other."""
        if target.mode == "in-place" and self.values.get("sync.pull"):
            self._at_origin("sync.pull", "nothing can be pulled from a target that runs in place",
                            hint='set `[sync] mode = "mirror"`, or drop `pull`')
        if target.mode == "in-place" and target.path is not None:
            self._at_origin(f"target.{target.name}.path",
                            "a target that runs in place has the source's own folder",
                            hint='set `mode = "mirror"`, or drop `path`')

    def targets(self, wanted: str | None) -> tuple[tuple[Target, ...], Target]:
        """All targets and the one that was asked for."""
        mode = self.values.get("sync.mode", KEYS["sync.mode"].default)
        given = self._targets or [(DEFAULT_TARGET, {})]
        made = tuple(self._target(name, values, mode) for name, values in given)
        names = {target.name: target for target in made}
        if wanted is not None and wanted not in names:
            close = near(wanted, names)
            self.problems.append(InputError(
                f"there is no target {wanted!r}; there is {', '.join(names)}", key="--target",
                hint=f"did you mean `{close}`?" if close else None))
        elif wanted is None and len(made) > 1:
            self._problem(("target", made[1].name), "target",
                          f"{len(made)} targets are configured, one is brought up at a time",
                          hint=f"say which: --target {made[0].name}")
        return made, names.get(wanted or "", made[0])

    def _target(self, name: str, values: Mapping[str, Any], mode: str) -> Target:
        if "mode" not in values and "sync.mode" in self.origins:
            self.origins[f"target.{name}.mode"] = self.origins["sync.mode"]
        path = values.get("path")
        return Target(name, values.get("kind", "process"), values.get("mode", mode),
                      os.path.expanduser(path) if path else None)

    # One value

    def _take(self, key: Key, value: Any, origin: Origin, path: Path | None) -> None:
        checked = self._checked(key, value, path, key.dotted, origin)
        if checked is not None:
            self.values[key.dotted] = checked
            self.origins[key.dotted] = origin

    def _checked(self, key: Key, value: Any, path: Path | None, dotted: str,
                 origin: Origin = DEFAULT) -> Any:
        try:
            return key.check(value)
        except Wrong as wrong:
            inner: Any = value
            for step in wrong.sub:
                inner = inner if isinstance(inner, str) else inner[step]
            name = dotted + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in wrong.sub)
            if path is None:
                self.problems.append(InputError(
                    f"{origin.where}: {wrong.expected} is wanted, not {shown(inner)}",
                    key=name, hint=wrong.hint))
            else:
                self._wrong((*path, *wrong.sub), name, wrong.expected, inner, wrong.hint)
            return None

    # Problems

    def _where(self, path: Path) -> str:
        assert self._source is not None
        place = self._source.place(path)
        return f"{self._source.name}:{place.line}" if place else self._source.name

    def _problem(self, path: Path, key: str, message: str, hint: str | None = None) -> None:
        place = self._source.place(path) if self._source else None
        self.problems.append(InputError(
            message, file=self._source.name if self._source else None,
            line=place.line if place else None, column=place.column if place else None,
            key=key, hint=hint))

    def _wrong(self, path: Path, key: str, expected: str, value: Any,
               hint: str | None = None) -> None:
        self._problem(path, key, f"`{key}` must be {expected}, not {shown(value)}", hint)

    def _unknown(self, path: Path, known: Any, what: str) -> None:
        name = str(path[-1])
        close = near(name, known)
        hint = f"did you mean `{close}`?" if close else f"known here: {', '.join(known)}"
        self._problem(path, ".".join(map(str, path)), f"unknown {what} `{name}`", hint)

    def _at_origin(self, dotted: str, message: str, hint: str | None = None) -> None:
        origin = self.origins.get(dotted, DEFAULT)
        if origin.kind == "file":
            file, _, line = origin.where.rpartition(":")
            self.problems.append(InputError(message, file=file, line=int(line), key=dotted,
                                            hint=hint))
        else:
            self.problems.append(InputError(f"{origin.where}: {message}", key=dotted, hint=hint))
