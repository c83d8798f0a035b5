"""The settle rule as tables and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox_agent.core.entries import Change, Entry, Kind
from hyperbox_agent.core.settle import SettleConfig, Settler, proves_write

CONFIG = SettleConfig()


def entry(size: int, kind: Kind = Kind.FILE) -> Entry:
    return Entry("a.py", kind, size=size, digest=bytes(32))


def trained(*bursts: int) -> Settler:
    """A settler that has seen bursts of these many files, far apart."""
    settler = Settler()
    for index, files in enumerate(bursts):
        for file in range(files):
            settler.event(f"{file}.py", True, 100.0 * index)
        settler.taken()
    return settler


@pytest.mark.parametrize(
    ("old", "new", "proves"),
    [
        (entry(100), entry(101), True),
        (entry(100), entry(50), True),
        (entry(100), entry(49), False),
        (entry(100), entry(0), False),
        (None, entry(1), True),
        (None, entry(0), False),
        (entry(100), None, False),
        (None, entry(0, Kind.DIR), False),
    ],
)
def test_an_emptied_or_much_shorter_file_never_proves_a_write(old, new, proves) -> None:
    assert proves_write(Change("a.py", old, new)) is proves


def test_without_history_a_burst_is_expected() -> None:
    settler = Settler()
    settler.event("a.py", True, 10.0)
    assert settler.deadline() == pytest.approx(10.0 + CONFIG.begun)
    settler.event("b.py", True, 10.0)
    assert settler.deadline() == pytest.approx(10.0 + CONFIG.burst)


def test_one_single_save_lets_another_be_expected() -> None:
    """Where it was not one, the version before steps back, so a wrong guess is mended at once."""
    settler = trained(1)
    settler.event("a.py", True, 1000.0)
    assert settler.window() == CONFIG.proven


def test_a_proven_save_after_single_saves_settles_at_once() -> None:
    settler = trained(1, 1, 1, 1, 1)
    settler.event("a.py", True, 1000.0)
    assert settler.deadline() == pytest.approx(1000.0 + CONFIG.proven)


def test_an_unproven_event_waits_the_normal_window() -> None:
    settler = trained(1, 1, 1, 1, 1)
    settler.event("a.py", True, 1000.0)
    settler.event("a.py", False, 1000.001)
    assert settler.deadline() == pytest.approx(1000.001 + CONFIG.normal)


def test_a_second_file_means_that_more_may_follow() -> None:
    settler = trained(1, 1, 1, 1, 1)
    settler.event("a.py", True, 1000.0)
    settler.event("b.py", True, 1000.001)
    assert settler.deadline() == pytest.approx(1000.001 + CONFIG.burst)


def test_one_recent_save_of_several_files_widens_the_window_until_it_is_old() -> None:
    settler = trained(1, 1, 1, 3)
    for index in range(CONFIG.memory):
        settler.event("a.py", True, 2000.0 + 100 * index)
        assert settler.window() == CONFIG.begun
        settler.taken()
    settler.event("a.py", True, 9000.0)
    assert settler.window() == CONFIG.proven


@pytest.mark.parametrize(("path", "window"), [
    ("b.py", CONFIG.burst),
    ("a.py", CONFIG.proven)])
def test_another_file_right_behind_a_batch_belongs_to_its_burst_and_the_same_one_does_not(
        path: str, window: float) -> None:
    settler = trained(1, 1, 1, 1, 1)
    settler.event("a.py", True, 1000.0)
    settler.taken()
    settler.event(path, True, 1000.03)
    assert settler.window() == window


def test_two_batches_close_together_were_one_burst() -> None:
    settler = trained(1, 1, 1, 1, 1)
    settler.event("a.py", True, 1000.0)
    settler.taken()
    settler.event("b.py", True, 1000.03)
    settler.taken()
    settler.event("a.py", True, 2000.0)
    assert settler.window() == CONFIG.begun
    settler.event("a.py", False, 2000.0)
    assert settler.window() == CONFIG.burst


def test_the_cap_bounds_an_endless_burst() -> None:
    settler = Settler()
    for index in range(100):
        settler.event("log.txt", False, 50.0 + index * 0.01)
    assert settler.deadline() == pytest.approx(50.0 + CONFIG.cap)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 0.2)), min_size=1))
def test_the_deadline_is_never_before_the_last_event_nor_after_the_cap(events) -> None:
    settler = Settler()
    now = 1.0
    for path, proven, gap in events:
        now += gap
        settler.event(path, proven, now)
        deadline = settler.deadline()
        assert deadline is not None
        assert deadline <= 1.0 + events[0][2] + CONFIG.cap
        if now - (1.0 + events[0][2]) < CONFIG.cap:
            assert deadline >= min(now, 1.0 + events[0][2] + CONFIG.cap)
