"""What a lost `up` left, as `status` shows it: the agent's own record says which generation."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox_agent.supervise import records
from hyperbox_devcontainer.homes import Home, remember_home
from hyperbox_langpacks.base import Rung
from hyperbox_tui.cli.orphans import orphan_targets


@pytest.fixture
def run(runtime_dir: str) -> Iterator[Path]:
    """The folder of an agent that listens, noted in the project's folder: two above it."""
    project = Path(tempfile.mkdtemp(dir=runtime_dir))  # the path of a unix socket is short
    folder = project / "target-process" / "run"
    folder.mkdir(parents=True, mode=0o700)
    for target, kind, home in (("board", "process", str(folder.parent)),
                               ("away", "ssh", str(folder.parent)),
                               ("gone", "process", str(project / "gone"))):
        remember_home(str(project), Home(target, kind, home))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(folder / "agent.sock"))
        agent.listen()
        yield folder


def shown(run: Path) -> tuple[object, ...]:
    (target,) = orphan_targets(str(run.parents[1]))
    return tuple(target[key] for key in ("name", "state", "number", "rung", "pid"))


def test_the_record_says_what_is_live(run: Path) -> None:
    old = records.Record(1, 6, 100, 1, "m-1")
    new = records.Record(2, 7, 200, 2, "m-2", rung=int(Rung.WARM))
    path = str(run / records.FILE)
    records.save(path, records.Records({}, 7, 2, 2, (old, new)))
    assert shown(run) == ("board", "live", 7, "warm", 200)
    records.save(path, records.Records({}, None, None, 2, ()))
    assert shown(run) == ("board", "broken", None, None, None)
    Path(path).write_text("damaged")
    assert shown(run) == ("board", "live", None, None, None)
