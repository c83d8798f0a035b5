"""A tree mirrored over a pipe: first sync, edits, a checkout, writes into an ignored folder."""

from __future__ import annotations

import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import tree
from bench.probe import Prober
from bench.processes import Family
from bench.stats import summary
from bench.subjects import BenchError
from bench.sync_subjects import SyncSubject

FIRST_SYNC_SECONDS = 240.0
EDIT_SECONDS = 20.0
CONVERGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    size: tree.Size = field(default_factory=tree.Size)
    edits: int = 40
    edits_meanwhile: int = 8
    idle_seconds: float = 10.0
    seed: int = 1


def _wait(done: Callable[[], bool], seconds: float, pause: float) -> bool:
    deadline = time.perf_counter() + seconds
    while not done():
        if time.perf_counter() > deadline:
            return False
        time.sleep(pause)
    return True


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _edit(source: Path, target: Path, number: int, text: str) -> float | None:
    """Milliseconds from before the write of one file until its copy holds it; None: never."""
    name, content = tree.data_file(number), text.encode()
    before = time.perf_counter()
    (source / name).write_bytes(content)
    seen = _wait(lambda: _holds(target / name, content), EDIT_SECONDS, 0.0003)
    return (time.perf_counter() - before) * 1000 if seen else None


def _edits(source: Path, target: Path, plan: Plan, count: int, tag: str) -> dict[str, Any]:
    rng = random.Random(tag)
    highest = plan.size.files - plan.size.branch - 4
    taken = []
    for _ in range(count):
        time.sleep(rng.uniform(0.1, 0.3))
        # Text that no earlier edit has written: equal files would be there already. As long as it
        # was: what shrinks to an eighth looks like a file that an editor is still writing.
        text = f"{tag} {time.time_ns()} ".ljust(plan.size.bytes_per_file, "x")
        taken.append(_edit(source, target, rng.randint(0, highest), text))
    return summary(took for took in taken if took is not None) | {"lost": taken.count(None)}


# -------------------------------------------------------------------------------------- checkout


@dataclass
class Reader:
    """Looks at the same sixty files of the target again and again: which branch are they of?"""

    paths: Sequence[Path]
    samples: int = 0
    mixed: int = 0
    missing: int = 0
    half: int = 0
    first_mixed: float | None = None
    last_mixed: float | None = None

    def look(self) -> None:
        """One sample."""
        seen = {self._letter(path) for path in self.paths}
        now = time.perf_counter()
        self.samples += 1
        self.missing += "missing" in seen
        self.half += "empty" in seen
        if {"A", "B"} <= seen:
            self.mixed += 1
            self.first_mixed = self.first_mixed or now
            self.last_mixed = now

    @staticmethod
    def _letter(path: Path) -> str:
        try:
            with path.open("rb", buffering=0) as file:
                return file.read(1).decode() or "empty"
        except FileNotFoundError:
            return "missing"

    @property
    def window_ms(self) -> float:
        """From the first mixed sample to the last."""
        if self.first_mixed is None or self.last_mixed is None:
            return 0.0
        return round((self.last_mixed - self.first_mixed) * 1000, 1)


@contextmanager
def _again_and_again(action: Callable[[], object], pause: float) -> Iterator[None]:
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(pause):
            action()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _checkout(subject: SyncSubject, source: Path, target: Path, plan: Plan) -> dict[str, Any]:
    reader = Reader([target / name for name in tree.sampled_files(plan.size)])
    names = [tree.branch_file(n) for n in range(plan.size.branch)]
    answers: list[str | None] = []
    with _again_and_again(reader.look, 0.003):
        if subject.port is None:
            taken = _switch(source, target, names)
        else:
            prober = Prober(subject.port, keep=False)
            with _again_and_again(lambda: answers.append(prober.ask()), 0.003):
                taken = _switch(source, target, names)
                time.sleep(0.5)
    managed = {} if subject.port is None else {
        "managed_answers": len(answers), "managed_failed": answers.count(None),
        "managed_mixed": sum(answer not in (None, "A", "B") for answer in answers)}
    return taken | {"mixed": reader.mixed, "missing": reader.missing, "half": reader.half,
                    "samples": reader.samples, "mixed_window_ms": reader.window_ms} | managed


def _switch(source: Path, target: Path, names: Sequence[str]) -> dict[str, Any]:
    before = time.perf_counter()
    tree.git(source, "checkout", "-q", "other")
    git_done = time.perf_counter()
    last = [target / name for name in names]

    def arrived() -> bool:
        # Files that were seen to be there are not read again.
        while last and Reader._letter(last[-1]) == "B":
            last.pop()
        return not last

    converged = _wait(arrived, CONVERGE_SECONDS, 0.005)
    end = time.perf_counter()
    return {"seconds": round(end - before, 2) if converged else None,
            "git_s": round(git_done - before, 2),
            "after_git_s": round(end - git_done, 2) if converged else None}


# --------------------------------------------------------------------------------------- ignored


def _ignored(source: Path, target: Path, plan: Plan, family: Family) -> dict[str, Any]:
    def write() -> None:
        for number in range(plan.size.ignored):
            path = source / f"node_modules/{number // 100:03}/{number % 100:03}.js"
            if number % 100 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(b"x" * 200)

    before = family.cpu_s()
    writer = threading.Thread(target=write)
    writer.start()
    edits = _edits(source, target, plan, plan.edits_meanwhile, "meanwhile")
    writer.join()
    cpu = max(0.0, family.cpu_s() - before)
    shutil.rmtree(source / "node_modules")
    return {"cpu_s": round(cpu, 2), "edit_ms": edits}


def _idle(family: Family, seconds: float) -> dict[str, Any]:
    time.sleep(2.0)  # the last edit's work is not idleness
    before = family.cpu_s()
    time.sleep(seconds)
    used = max(0.0, family.cpu_s() - before)
    memory = family.usage(memory=True)
    return {"cpu_percent": round(100 * used / seconds, 2),
            "pss_mb": round(sum(one.pss_kb for one in memory) / 1024, 1)}


# --------------------------------------------------------------------------------------- the run


def measure(subject: SyncSubject, plan: Plan, source: Path, scratch: Path) -> dict[str, Any]:
    """All figures of one subject; ``source`` stands on ``main`` before and after."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    target, family = scratch / "target", Family()
    before = time.perf_counter()
    try:
        subject.start(source, target, scratch, family)
        expected = tree.count_files(source) - (source / ".stignore").exists()
        if not _wait(lambda: tree.count_files(target) >= expected, FIRST_SYNC_SECONDS, 0.1):
            raise BenchError(f"{subject.name} did not sync within {FIRST_SYNC_SECONDS:.0f} s")
        first = time.perf_counter() - before
        last = tree.data_file(plan.size.files - plan.size.branch - 4)
        _wait(lambda: _holds(target / last, (source / last).read_bytes()), 10.0, 0.05)
        first_cpu = family.cpu_s()
        # Some go on with checks of their own after the last file.
        _edit(source, target, 0, f"a first edit {time.time_ns()}")
        row = {"first_s": round(first, 2), "first_cpu_s": round(first_cpu, 2),
               "edit_ms": _edits(source, target, plan, plan.edits, "edits"),
               "idle": _idle(family, plan.idle_seconds),
               "ignored": _ignored(source, target, plan, family),
               "checkout": _checkout(subject, source, target, plan)}
    finally:
        subject.stop()
        tree.git(source, "checkout", "-qf", "main")
        (source / ".stignore").unlink(missing_ok=True)
    size = plan.size
    return {"subject": subject.name, "files": size.files, "branch": size.branch,
            "ignored_files": size.ignored,
            "mb": round(size.files * size.bytes_per_file / 1e6)} | row


def run(subjects: Sequence[SyncSubject], plan: Plan, scratch: Path) -> list[dict[str, Any]]:
    """Measure every subject that this machine can run; the others are named with the reason."""
    source = scratch / "source"
    shutil.rmtree(source, ignore_errors=True)
    print("sync: making the tree", file=sys.stderr, flush=True)
    tree.create(source, plan.size)
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        lacking = subject.missing()
        print(f"sync: {subject.name}", file=sys.stderr, flush=True)
        if lacking is not None:
            rows.append({"subject": subject.name, "skipped": f"missing {lacking}"})
            continue
        try:
            rows.append(measure(subject, plan, source, scratch / "run"))
        except BenchError as error:
            rows.append({"subject": subject.name, "skipped": str(error)})
    shutil.rmtree(scratch, ignore_errors=True)
    return rows
