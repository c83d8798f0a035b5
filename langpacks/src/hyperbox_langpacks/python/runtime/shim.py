"""Puts all hooks in place: what ``sitecustomize`` calls in each Python process of the program."""

from __future__ import annotations

import atexit
import sys

from . import loading
from .codes import CodeStore
from .imports import ImportWatch, MissWatch
from .notice import NOTICED
from .peers import PEERS
from .ports import PORTS
from .report import REPORTER, guarded
from .servers import ADAPTS
from .tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class _State:
    """What the hooks look up each time, because a prepared parent learns it after they stand."""

    __slots__ = ("audited", "codes", "tree")

    def __init__(self) -> None:
        self.audited = False
        self.tree: Tree | None = None
        self.codes: CodeStore | None = None


_STATE = _State()


def start(environ: Mapping[str, str]) -> None:
    """Install and configure; never raises."""
    guarded(install)
    guarded(configure, environ)


def install() -> None:
    """Put the hooks in place. They do nothing before ``configure``."""
    if loading.is_installed():
        return
    loading.install(lambda: _STATE.tree, lambda: _STATE.codes, NOTICED.loaded)
    ImportWatch(ADAPTS).install()
    MissWatch(NOTICED.missed).install()
    PORTS.on_traffic = NOTICED.traffic
    atexit.register(guarded, NOTICED.tell)


def configure(environ: Mapping[str, str]) -> None:
    """Take the instance's own values from its environment, and begin to notice."""
    root, codes = environ.get("HYPERBOX_ROOT", ""), environ.get("HYPERBOX_CODE", "")
    REPORTER.path = environ.get("HYPERBOX_CONTROL", "")
    PEERS.configure(environ.get("HYPERBOX_PEERS", ""))
    PORTS.configure(environ)
    _STATE.codes = CodeStore(codes) if codes else None
    _STATE.tree = Tree(root)
    NOTICED.configure(_STATE.tree, _STATE.codes, has_port=PORTS.public is not None)
    if REPORTER.path and not _STATE.audited:
        # It can't be taken off again, so it must not be put on twice.
        _STATE.audited = True
        sys.addaudithook(NOTICED.hook())
