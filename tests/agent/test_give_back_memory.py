"""Memory that was used once does not stay ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

USE = """
from hyperbox_agent.trim import give_back_memory
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4
kept, gone = [], []
for number in range(200_000):
    (kept if number % 4000 == 0 else gone).append(bytearray(700))
before = rss()
gone.clear()
freed = rss()
give_back_memory()
print(before, freed, rss())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_lies_between_used_pieces_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    before, freed, after = map(int, done.stdout.split())
    assert before - after > 100_000
    assert freed - after > 50_000
