"""What takes how many times as long as what: true on a busy machine too.

Whoever is compared takes turns, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from bench.apps import Project
from bench.cli import time_command
from bench.probe import Prober
from bench.reload import SETTLED_SECONDS, WARM_UP_EDITS, pause, timed_edit
from bench.stats import percentile
from bench.subjects import BenchError, Subject, free_port

ROUNDS = 12


class Edited:
    """A subject that is up, and how long its edits took."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
        self.project = Project(folder / "app", subject.framework)
        self.took: list[float] = []
        port = free_port()
        self._prober = Prober(port, keep=False)
        folder.mkdir(parents=True)
        subject.start(self.project, port)

    def edit(self) -> None:
        """Save once, and wait for the first answer that shows it. Raises BenchError."""
        took = timed_edit(self.subject, self.project, self._prober)
        if took is None:
            raise BenchError(f"{self.subject.name}: an edit never went live")
        self.took.append(took)


def edits(subjects: Sequence[Subject], scratch: Path, rounds: int = ROUNDS) -> dict[str, float]:
    """The median of edit → new answer in ms, by the subject's name. Raises BenchError."""
    rng = random.Random(1)
    up: list[Edited] = []
    try:
        for number, subject in enumerate(subjects):
            up.append(Edited(subject, scratch / str(number)))
        time.sleep(SETTLED_SECONDS)
        for _ in range(WARM_UP_EDITS + rounds):
            for one in up:
                pause(rng)
                one.edit()
        return {one.subject.name: percentile(one.took[WARM_UP_EDITS:], 0.5) for one in up}
    finally:
        for subject in subjects:
            subject.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def commands(argvs: Sequence[Sequence[str]], cwd: Path, env: dict[str, str],
             rounds: int = ROUNDS) -> list[float]:
    """The median time in ms of each command, in their order. Raises BenchError."""
    took: list[list[float]] = [[] for _ in argvs]
    for number in range(rounds + 1):
        for argv, mine in zip(argvs, took, strict=True):
            ms = time_command(argv, cwd, env)
            if number:  # the first one reads from disk
                mine.append(ms)
    return [percentile(mine, 0.5) for mine in took]
