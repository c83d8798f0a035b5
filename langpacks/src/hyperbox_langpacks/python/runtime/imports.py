"""Calls us back when a module that we have to adapt has been imported, and not before.

Nothing is imported on the program's behalf: a program without sockets never pays for ours.
"""

from __future__ import annotations

import sys

from .loading import hide
from .report import guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import Any

    Adapt = Callable[[ModuleType], None]


class _Adapting:
    """Stands in for a module's loader for the time of its import."""

    __slots__ = ("adapt", "loader")

    def __init__(self, loader: Any, adapt: Adapt) -> None:
        self.loader = loader
        self.adapt = adapt

    def create_module(self, spec: Any) -> ModuleType | None:
        result: ModuleType | None = self.loader.create_module(spec)
        return result

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        guarded(self.adapt, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


hide(_Adapting.exec_module)


class ImportWatch:
    """A finder that finds nothing itself; it stands first, so it sees every import."""

    __slots__ = ("adapts",)

    def __init__(self, adapts: Mapping[str, Adapt]) -> None:
        self.adapts = dict(adapts)

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> Any:
        """The spec of a module to adapt, with our loader around its own; else None."""
        adapt = self.adapts.get(name)
        if adapt is None:
            return None
        spec = _find_elsewhere(self, name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Adapting(spec.loader, adapt)
        return spec

    def install(self) -> None:
        """Stand first among the finders; adapt at once what is already there."""
        for name in [name for name in self.adapts if name in sys.modules]:
            guarded(self.adapts[name], sys.modules[name])
        sys.meta_path.insert(0, self)


def _find_elsewhere(ours: ImportWatch, name: str, path: Sequence[str] | None,
                    target: ModuleType | None) -> Any:
    for finder in sys.meta_path:
        if finder is ours or not hasattr(finder, "find_spec"):
            continue
        spec = finder.find_spec(name, path, target)
        if spec is not None:
            return spec
    return None


class MissWatch:
    """A finder that stands last, so it hears of just those imports that nobody could do."""

    __slots__ = ("missed",)

    def __init__(self, missed: Callable[[str, Sequence[str]], None]) -> None:
        self.missed = missed

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: object = None) -> None:
        """Always None."""
        guarded(self.missed, name, sys.path if path is None else path)

    def install(self) -> None:
        """Stand last among the finders."""
        sys.meta_path.append(self)
