"""Notices what the program loads, reads and writes of its own tree, and tells the agent.

The agent chooses the rung by it: a changed file that the program has not taken in needs no restart,
and one that the program wrote itself is not a save. What counts as taken in:

- its own modules, and those that it looked for and did not find;
- other files that it opened for reading before it listened, for it may keep what they said; later
  ones too, unless they were opened by that part of a library which reads anew for each request;
- folders that it listed before it listened (``"folder/"``): a new file there is seen at a restart.
"""

from __future__ import annotations

import os
import sys
import time

from .codes import forget_ahead
from .report import REPORTER, guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

    from .codes import CodeStore
    from .tree import Tree

WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
DATA = (".json", ".toml", ".yaml", ".yml")
"""Files that the gate can check, if the program is known to read them."""
WROTE_AGAIN = 0.25
"""Seconds after which a further write to the same path is told again."""
BETWEEN_REPORTS = 0.2
_READ_ANEW = frozenset(("jinja2.loaders", "werkzeug.middleware.shared_data", "http.server",
                        "aiohttp.web_fileresponse", "django.views.static",
                        "falcon.routing.static"))
"""Modules that open a file again for each answer; jinja2 looks at its time (see ``servers.py``).
Not those that keep what they read, or a digest of it: the templates of Django and bottle, Tornado's
static files. Their files count as loaded, as does all that the program itself reads."""
_SENDS = frozenset((("werkzeug.utils", "send_file"), ("bottle", "static_file")))
"""Functions that do so, in modules that also read for other ends."""
_PASSED_BY = frozenset(("pathlib", "codecs", "io", "tokenize", "shutil", "concurrent"))
"""Packages through which others open files."""
_PASSED_BY_IN = frozenset(("jinja2.utils",))
_IMPORTS = frozenset(("_frozen_importlib_external", "importlib._bootstrap_external"))
"""The import system's own name, and the one that it has once ``importlib`` is imported."""
_CHANGES = frozenset(("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link",
                      "os.truncate", "sqlite3.connect"))
_LISTS = frozenset(("os.listdir", "os.scandir"))
_WATCHED = _CHANGES | _LISTS | {"open"}


class Noticed:
    """What this process has taken in so far, and what of it has been told."""

    __slots__ = ("_files", "_has_told", "_known_modules", "_known_size", "_last", "_tell_now",
                 "_told", "_wrote", "codes", "listening", "sent", "tree")

    def __init__(self) -> None:
        self.tree: Tree | None = None
        self.codes: CodeStore | None = None
        self.listening = False
        self.sent: Callable[[], str] | None = None
        """Gives the file that is the answer of the current context, for a framework that has it
        opened by a thread of its own, below which no frame says for whom."""
        self._files: list[str] = []
        self._told: set[str] = set()
        self._wrote: dict[str, float] = {}
        self._known_modules: set[str] = set()
        self._known_size = 0
        self._last = 0.0
        self._tell_now = False
        self._has_told = False

    def configure(self, tree: Tree, codes: CodeStore | None, *, has_port: bool) -> None:
        """Begin. Modules that are there by now are the interpreter's own or were prepared.

        A program that will never listen has no moment at which its start is over, so each of its
        files is told as it is loaded.
        """
        self.tree, self.codes = tree, codes
        self.listening = self._has_told = False
        self._tell_now = not has_port
        self._known_modules = set(sys.modules)
        self._known_size = len(sys.modules)

    # ------------------------------------------------------------------ called by the other hooks

    def loaded(self, path: str) -> None:
        """One of the project's own files is about to be loaded."""
        if path in self._told:
            return
        self._told.add(path)
        self._files.append(path)
        # Told before its code runs: a later edit must find it known, or it would change nothing.
        if self.listening or self._tell_now:
            self.tell()

    def missed(self, name: str, path: Sequence[str]) -> None:
        """A module that nobody found: one that appears below the root would be found next time."""
        tree = self.tree
        if tree is None:
            return
        base = name.rpartition(".")[2]
        for folder in path:
            if not folder or folder.startswith(tree.root):
                inside = tree.relative(os.path.join(folder or os.getcwd(), base))
                if inside is not None:
                    self.loaded_later(inside + ".py", inside + "/__init__.py")

    def loaded_later(self, *paths: str) -> None:
        """Note paths for the next report."""
        new = [path for path in paths if path not in self._told]
        self._told.update(new)
        self._files.extend(new)

    def traffic(self) -> None:
        """The program has begun to listen, or has taken a connection."""
        if not self.listening:
            self.listening = True
            self.tell()
            return
        forget_ahead()  # not before the first connection: some servers listen and import then
        if ((self._files or len(sys.modules) != self._known_size)
              and time.monotonic() - self._last >= BETWEEN_REPORTS):
            self.tell()

    def tell(self) -> None:
        """Report what is new since the last time, if anything."""
        self._note_script()
        names = self._new_modules()
        files, self._files = self._files, []
        self._last = time.monotonic()
        data = [path for path in files if path.endswith(DATA)]
        if data and self.codes is not None:
            self.codes.note_read(data)
        if names or files or not self._has_told:
            # That there is nothing of its own is worth a word, too.
            self._has_told = True
            REPORTER.event("modules", names=names, files=files)

    def _note_script(self) -> None:
        """The main script is opened in C, unheard by any hook."""
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        inside = self._inside(script)
        if inside is not None:
            self.loaded_later(inside)

    def _new_modules(self) -> list[str]:
        found = list(sys.modules.items())
        self._known_size = len(found)
        new = [(name, module) for name, module in found if name not in self._known_modules]
        self._known_modules.update(name for name, _ in new)
        return [name for name, module in new if self._is_library(name, module)]

    def _is_library(self, name: str, module: Any) -> bool:
        """Whether a prepared parent could import it: it stands outside the tree and is a module."""
        spec = getattr(module, "__spec__", None)
        if spec is None or spec.name != name or name.startswith("_hyperbox"):
            return False
        origin = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
        return self.tree is None or not origin.startswith("/") or self.tree.relative(origin) is None

    # -------------------------------------------------------------------------- the audit hook

    def hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        """A hook for ``sys.addaudithook``.

        It is called for each import, attribute and frame that is audited, so it is as short as can
        be; and a plain function, in which Python looks up ``__cantrace__`` faster each time.
        """
        watched, audited = _WATCHED, self._audited

        def audit(event: str, args: tuple[Any, ...]) -> None:
            if event in watched:
                audited(event, args)

        return audit

    def _audited(self, event: str, args: tuple[Any, ...]) -> None:
        if self.tree is None:
            return
        if event == "open":
            guarded(self._opened, *args)
        elif event in _LISTS:
            guarded(self._listed, args[0])
        else:
            guarded(self._changed, args)

    def _inside(self, path: object) -> str | None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str) or self.tree is None:
            return None
        return self.tree.relative(path)

    def _opened(self, path: object, mode: object, flags: int) -> None:
        inside = self._inside(path)
        if inside is None:
            return
        if flags & WRITES:
            self.wrote(inside)
        elif inside not in self._told and not inside.endswith(".pyc"):
            self._read(inside, str(path), _caller())

    def _read(self, inside: str, path: str, caller: FrameType | None) -> None:
        if self.listening and (_is_read_anew(caller)
                               or (self.sent is not None and self.sent() == path)):
            return
        if not os.path.exists(path):
            REPORTER.event("missing", path=inside)
        self.loaded(inside)

    def _listed(self, path: object) -> None:
        if self.listening or isinstance(path, int):
            return
        # The import system lists every folder that it looks into; that says nothing.
        caller = _caller()
        if caller is None or caller.f_globals.get("__name__") in _IMPORTS:
            return
        where = os.path.abspath(os.fsdecode("." if path is None else path))  # type: ignore[arg-type]
        inside = "." if self.tree and where == self.tree.root else self._inside(where)
        if inside is not None:
            self.loaded_later(inside.rstrip("/") + "/")

    def _changed(self, args: tuple[Any, ...]) -> None:
        for path in args[:2]:
            inside = self._inside(path)
            if inside is not None:
                self.wrote(inside)

    def wrote(self, path: str) -> None:
        """The program is about to change one of its own files."""
        now = time.monotonic()
        if now - self._wrote.get(path, -WROTE_AGAIN) >= WROTE_AGAIN:
            self._wrote[path] = now
            REPORTER.event("wrote", paths=[path])


def _caller() -> FrameType | None:
    """Who caused the audited act: the first frame that is not ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("_hyperbox"):
        frame = frame.f_back
    return frame


def _name_of(frame: FrameType) -> str:
    """The module's name; of one that was started by ``-m`` the one that it has there."""
    name = str(frame.f_globals.get("__name__", ""))
    spec = frame.f_globals.get("__spec__") if name == "__main__" else None
    return name if spec is None else str(spec.name)


def _is_read_anew(frame: FrameType | None) -> bool:
    """Whether it was such a library itself that opened the file, not the program below it."""
    while frame is not None:
        name = _name_of(frame)
        if name.partition(".")[0] not in _PASSED_BY and name not in _PASSED_BY_IN:
            return name in _READ_ANEW or (name, frame.f_code.co_name) in _SENDS
        frame = frame.f_back
    return False


NOTICED = Noticed()
