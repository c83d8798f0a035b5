"""A program that runs from the source itself: what was gated must still be what is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.supervise.in_place import InPlace
from hyperbox_agent.supervise.transaction import Permit, Work


@pytest.mark.parametrize("first", [False, True])
async def test_a_file_that_changes_on_the_way_takes_a_save_back_and_no_first_start(
        tmp_path: Path, first: bool) -> None:
    log = tmp_path / "a.log"
    log.write_text("1\n")
    changes = (Change("a.log", None, Entry("a.log", Kind.FILE, size=2, digest=b"1" * 32)),)
    stage, work = InPlace(str(tmp_path)), Work(1, changes, Permit(), first=first)
    await stage.prepare(work)
    assert stage.untouched(work)
    log.write_text("1\n2\n")
    assert stage.untouched(work) is first
