"""A slip of the finger finds the word that was meant; another word finds none."""

from __future__ import annotations

import pytest

from hyperbox_devcontainer.config.schema import KEYS
from hyperbox_devcontainer.suggest import near

WORDS = [key.name for key in KEYS.values()]


@pytest.mark.parametrize(("word", "meant"), [
    ("comand", "command"), ("commnad", "command"), ("prot", "port"), ("Port", "port"),
    ("env-file", "env_file"), ("environment", "env"), ("healthcheck", "health"),
    ("timeout", "start_timeout"), ("includes", "include"), ("xyz", None), ("", None),
    ("database", None), ("p", None),
])
def test_near_misses(word: str, meant: str | None) -> None:
    assert near(word, WORDS) == meant


def test_without_words_there_is_nothing_near() -> None:
    assert near("a", []) is None
