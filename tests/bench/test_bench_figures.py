"""The parts of the benchmarks that decide what a figure says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench import report
from bench.apps import FRAMEWORKS, MODULES, Project, app_source
from bench.reload import Journal
from bench.stats import percentile, summary
from bench.sync import Reader


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 1), (0.5, 5), (0.95, 10), (0.999, 10),
                                               (1.0, 10)])
def test_a_percentile_is_a_sample_that_was_seen(share: float, wanted: float) -> None:
    assert percentile([10, 1, 2, 3, 4, 5, 6, 7, 8, 9], share) == wanted


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)
    assert summary([]) == {"n": 0}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_app_compiles_and_its_versions_differ_in_length(framework: str) -> None:
    first, second = app_source(framework, 11), app_source(framework, 12)
    assert compile(first, "app.py", "exec")
    assert len(first) != len(second)


def test_an_answer_between_two_states_of_the_tree_is_mixed(tmp_path: Path) -> None:
    project = Project(tmp_path / "app", "stdlib")
    project.create({})
    journal = Journal([project.answer])
    project.write_part(0, 1)
    half = project.answer
    project.write_part(1, 1)
    journal.answers.append(project.answer)
    assert journal.mixed({journal.answers[0]: 5, half: 2, journal.answers[1]: 9}) == 2
    assert project.answer == "v=0 m=1,1" + ",0" * (MODULES - 2)


def test_the_reader_tells_mixed_missing_and_half_files_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text("A")
    reader = Reader(paths)
    reader.look()
    paths[0].write_text("B")
    reader.look()
    paths[1].unlink()
    paths[2].write_text("")
    reader.look()
    assert (reader.samples, reader.mixed, reader.missing, reader.half) == (3, 1, 1, 1)


MACHINE = {"processor": "P", "cores": 2, "memory_gib": 24, "kernel": "6", "file_system": "ext4",
           "python": "3.11", "packages": {}, "programs": {}, "load_at_start": 0.1, "date": "d"}


def results(**more: Any) -> dict[str, Any]:
    return {"machine": MACHINE, "command": "./dev bench"} | more


def test_parts_of_another_machine_do_not_stay_on_the_page(tmp_path: Path) -> None:
    rows = [{"command": "hyperbox status", "ms": {"min": 1.0, "p50": 2.0, "p95": 3.0}}]
    report.write(results(cli=rows), tmp_path)
    report.write(results(), tmp_path)
    assert "hyperbox status" in (tmp_path / "benchmarks.md").read_text()
    report.write(results() | {"machine": MACHINE | {"cores": 64}}, tmp_path)
    assert "hyperbox status" not in (tmp_path / "benchmarks.md").read_text()
    assert json.loads((tmp_path / "benchmarks.json").read_text())["machine"]["cores"] == 64


def test_what_was_not_measured_is_named_with_the_reason() -> None:
    page = report.markdown(results(reload=[
        {"subject": "lsyncd", "framework": "", "own": False, "skipped": "missing lsyncd"}]))
    assert "- lsyncd: missing lsyncd" in page
