"""The README's picture of the demo is one that the demo of today could have made."""

from __future__ import annotations

import ast
import inspect
import re

from docs import picture

from hyperbox_tui.cli import demo

SHOWN = picture.PICTURE.read_text("utf-8")


def fixed_words(function: str, argument: int) -> set[str]:
    """What the demo always hands to this function of its as this argument."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(demo)))
             if isinstance(node, ast.Call) and len(node.args) > argument
             and function == getattr(node.func, "attr", getattr(node.func, "id", ""))]
    return {words.value for call in calls
            if isinstance(words := call.args[argument], ast.Constant)}


def test_it_shows_the_steps_that_the_demo_has() -> None:
    steps = fixed_words("Step", 0) | fixed_words("_good_edit", 0)
    assert len(steps) == 7
    assert set(picture.steps_of(SHOWN)) == steps


def test_it_says_what_the_demo_says_of_them() -> None:
    sentences = {words for words in fixed_words("Span", 0) | fixed_words("_good_edit", 2)
                 if len(words.split()) > 4}
    assert len(sentences) == 5
    shown = "\n".join(piece for line in picture.pieces_of(SHOWN) for piece in line)
    assert [words for words in sentences if words.strip() not in shown] == []


def test_it_asks_nobody_for_anything() -> None:
    addresses = set(re.findall(r"https?://[\w.]+", SHOWN))
    assert addresses <= {"http://www.w3.org", "https://www.textualize.io", "http://127.0.0.1"}
    assert "url(h" not in SHOWN
