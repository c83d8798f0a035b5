"""B04: a big file that is written all the time holds nobody up and is never seen half."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest
from journey import Project, Steady, same_trees

SIZE = 30 << 20
SECONDS = 5.0


@pytest.mark.slow
def test_b04_a_file_changes_while_it_is_shipped(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror")
    project.write("big.bin", os.urandom(SIZE))
    with project.up() as up, Steady(project.port) as steady:
        big, there = project.root / "big.bin", project.tree / "big.bin"
        stop = threading.Event()
        sizes = set()

        def scribble() -> None:
            dice = random.Random(4)
            with open(big, "r+b", buffering=0) as file:
                while not stop.is_set():
                    file.seek(dice.randrange(SIZE))
                    file.write(b"x")
                    sizes.add(there.stat().st_size)
                    time.sleep(0.002)

        writer = threading.Thread(target=scribble)
        writer.start()
        try:
            time.sleep(SECONDS / 5)
            mark = up.mark()
            project.version("v2")
            landed = up.wait(lambda event: event.get("event") == "generation"
                             and event["verdict"] == "committed" and "ver.py" in event["paths"],
                             after=mark)
            assert writer.is_alive()
            assert project.ask() == "v2"
            assert landed["error"] is None
            time.sleep(SECONDS / 5)
        finally:
            stop.set()
            writer.join()
        assert project.hb("flush").returncode == 0
        assert same_trees(project.root, project.tree)
        assert sizes == {SIZE}
        assert not steady.failures
        assert not [event for event in up.generations() if event["verdict"] == "rolled_back"]
        count = len(up.generations())
        assert project.hb("flush").returncode == 0
        assert len(up.generations()) == count
