"""Edit → new answer, quiet and under load, for each way of reloading.

A figure runs from just before the write to the last byte of the first answer that shows it, asked
for on new connections and on a kept one in turn. Under load, single saves alternate with save-alls
of two to ten files 1–30 ms apart; an answer that shows a save-all half done is *mixed*. HyperBox
also gets edits that can't go live (a syntax error, an exception at import): the load must not see
them.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.apps import MODULES, Project
from bench.probe import Prober
from bench.stats import summary
from bench.subjects import BenchError, Subject, free_port

EDIT_SECONDS = 15.0
WARM_UP_EDITS = 3
"""Not measured, for every subject alike."""
SETTLED_SECONDS = 3.0
"""Between the first answer and the first edit: nobody edits sooner, and some prepare meanwhile."""
BROKEN = ("\ndef half(:\n", "\nraise RuntimeError('broken on purpose')\n")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    quiet_edits: int = 50
    load_edits: int = 30
    own_load_edits: int = 100
    stream_edits: int = 3
    rate: float = 300.0
    seed: int = 1


@dataclass
class Journal:
    """Every state of the tree that a consistent answer may show, in order."""

    answers: list[str]

    def mixed(self, bodies: dict[str, int]) -> int:
        """How many answers show a state that the tree never settled in."""
        return sum(count for body, count in bodies.items() if body not in set(self.answers))


def measure(subject: Subject, plan: Plan, scratch: Path) -> dict[str, Any]:
    """All figures of one subject. Raises BenchError where it does not come up."""
    folder = scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    project = Project(folder / "app", subject.framework)
    port = free_port()
    rng = random.Random(plan.seed)
    try:
        subject.start(project, port)
        time.sleep(SETTLED_SECONDS)
        quiet = _quiet(subject, project, port, plan.quiet_edits, rng)
        loaded = _under_load(subject, project, port, plan, rng)
        streamed = _beside_a_stream(subject, project, port, plan.stream_edits, rng)
    finally:
        subject.stop()
    return {"subject": subject.name, "framework": subject.framework, "own": subject.own,
            "quiet": quiet, "load": loaded, "stream": streamed}


def pause(rng: random.Random) -> None:
    """What a person takes between two edits, at the least."""
    # Pollers have a phase: edits at even intervals would always meet the same one.
    time.sleep(rng.uniform(0.15, 0.4))


def timed_edit(subject: Subject, project: Project, prober: Prober) -> float | None:
    """One edit, and how long in ms until an answer showed it; None: never."""
    before = time.perf_counter()
    subject.edit(project, project.version + 1)
    seen = prober.until(project.answer, EDIT_SECONDS)
    return None if seen is None else (seen - before) * 1000


def _quiet(subject: Subject, project: Project, port: int, edits: int,
           rng: random.Random) -> dict[str, Any]:
    probers = {"new": Prober(port, keep=False), "kept": Prober(port, keep=True)}
    samples: dict[str, list[float]] = {name: [] for name in probers}
    lost = 0
    for _ in range(WARM_UP_EDITS):
        pause(rng)
        timed_edit(subject, project, probers["new"])
    for number in range(edits):
        pause(rng)
        name = ("new", "kept")[number % 2]
        if name == "kept":
            # A connection that the old version has answered on. Only here: an idle one alone
            # holds up some peers' restarts.
            probers["kept"].ask()
        took = timed_edit(subject, project, probers[name])
        probers[name].close()
        if took is None:
            lost += 1
        else:
            samples[name].append(took)
    failures = {name: prober.failures for name, prober in probers.items()}
    return {"edit_ms": summary([*samples["new"], *samples["kept"]]),
            "new_connection_ms": summary(samples["new"]),
            "kept_connection_ms": summary(samples["kept"]), "lost": lost, "failures": failures}


@contextmanager
def load_process(port: int, rate: float, streams: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A load from a process of its own; the dict is filled with its report at the end."""
    argv = [sys.executable, "-m", "bench.load", str(port), str(rate)]
    argv += [word for stream in streams for word in ("--stream", stream)]
    report: dict[str, Any] = {}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          cwd=Path(__file__).resolve().parents[1]) as process:
        try:
            time.sleep(1.0)
            yield report
            time.sleep(0.5)
        finally:
            out, _ = process.communicate()
        report.update(json.loads(out))


def _save_all(project: Project, rng: random.Random) -> None:
    version = project.version + 1
    saves = [partial(project.write_app, version)]
    saves += [partial(project.write_part, n, version) for n in range(MODULES)]
    for number, save in enumerate(rng.sample(saves, rng.randint(2, MODULES))):
        if number:
            time.sleep(rng.uniform(0.001, 0.030))
        save()


def _load_edit(number: int, subject: Subject, project: Project, prober: Prober, journal: Journal,
               rng: random.Random) -> tuple[str, float | None]:
    """One edit under load: its kind, and how long until it was seen (None: never)."""
    before = time.perf_counter()
    if number % 2:
        kind = "save_all"
        _save_all(project, rng)
        before = time.perf_counter()
    else:
        kind = "single"
        subject.edit(project, project.version + 1)
    journal.answers.append(project.answer)
    seen = prober.until(project.answer, EDIT_SECONDS)
    return kind, None if seen is None else (seen - before) * 1000


def _break_and_mend(number: int, project: Project, prober: Prober, journal: Journal) -> bool:
    """A save that can't go live, then its mending; whether the old version answered throughout."""
    failed_before = sum(prober.failures.values())
    project.write_broken(BROKEN[number % len(BROKEN)])
    until = time.perf_counter() + 0.5
    held = True
    while time.perf_counter() < until:
        held = prober.ask() == journal.answers[-1] and held
        time.sleep(0.01)
    project.write_app(project.version + 1)
    journal.answers.append(project.answer)
    mended = prober.until(project.answer, EDIT_SECONDS) is not None
    return held and mended and sum(prober.failures.values()) == failed_before


def _under_load(subject: Subject, project: Project, port: int, plan: Plan,
                rng: random.Random) -> dict[str, Any]:
    prober = Prober(port, keep=False)
    journal = Journal([project.answer])
    samples: dict[str, list[float]] = {"single": [], "save_all": []}
    lost = broken = held = 0
    edits = plan.own_load_edits if subject.own else plan.load_edits
    with load_process(port, plan.rate, subject.streams) as report:
        for number in range(edits):
            pause(rng)
            if subject.own and number % 10 == 9:
                broken += 1
                held += _break_and_mend(number // 10, project, prober, journal)
                continue
            kind, took = _load_edit(number, subject, project, prober, journal, rng)
            if took is None:
                lost += 1
            else:
                samples[kind].append(took)
    bodies = report.pop("bodies", {})
    return {"edits": edits, "lost": lost, "broken": broken, "broken_held": held,
            "single_ms": summary(samples["single"]),
            "save_all_ms": summary(samples["save_all"]),
            "mixed_answers": journal.mixed(bodies), "answers": sum(bodies.values()),
            "streams_open": list(subject.streams)} | report


def _beside_a_stream(subject: Subject, project: Project, port: int, edits: int,
                     rng: random.Random) -> dict[str, Any]:
    """Edits while one client reads an event stream; ends at the first that is never seen."""
    prober = Prober(port, keep=False)
    samples: list[float] = []
    prober.until(project.answer, EDIT_SECONDS)  # a peer may be down between two versions just now
    with socket.create_connection(("127.0.0.1", port), EDIT_SECONDS) as stream:
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: bench\r\n\r\n")
        stream.recv(1024)
        while len(samples) < edits:
            pause(rng)
            took = timed_edit(subject, project, prober)
            if took is None:
                return {"edit_ms": summary(samples), "stopped": True}
            samples.append(took)
    return {"edit_ms": summary(samples), "stopped": False}


def _line(row: dict[str, Any]) -> str:
    quiet, load = row["quiet"]["edit_ms"], row["load"]
    return (f"  p50 {quiet.get('p50')} p95 {quiet.get('p95')} lost {row['quiet']['lost']}; load: "
            f"lost {load['lost']} failed {load['failed']} of {load['sent']} "
            f"p99.9 {load['wait_ms']['p999']} mixed {load['mixed_answers']} "
            f"held {load['broken_held']}/{load['broken']}")


def run(subjects: Sequence[Subject], plan: Plan, scratch: Path) -> list[dict[str, Any]]:
    """Measure every subject that this machine can run; the others are named with the reason."""
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        row = {"subject": subject.name, "framework": subject.framework, "own": subject.own}
        lacking = subject.missing()
        print(f"reload: {subject.name} ({subject.framework})", file=sys.stderr, flush=True)
        if lacking is not None:
            rows.append(row | {"skipped": f"missing {lacking}"})
            continue
        try:
            rows.append(measure(subject, plan, scratch))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
        except BenchError as error:
            print(error, file=sys.stderr)
            rows.append(row | {"skipped": str(error).splitlines()[0]})
    return rows
