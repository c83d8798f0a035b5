"""Near misses: the word that was probably meant."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORTEST_PART = 3


def near(word: str, words: Iterable[str]) -> str | None:
    """The one of ``words`` that is most like ``word``, or None where none is like it."""
    plain = _plain(word)
    known = {_plain(candidate): candidate for candidate in words}
    slips = sorted((_slips(plain, candidate), candidate) for candidate in known)
    if slips and slips[0][0] <= max(1, len(plain) // 3):
        return known[slips[0][1]]
    return _part_of(plain, known)


def _part_of(plain: str, known: dict[str, str]) -> str | None:
    """The only candidate that the word is a part of, or that is the beginning of the word."""
    if len(plain) < _SHORTEST_PART:
        return None
    found = [candidate for candidate in known if plain in candidate
             or (len(candidate) >= _SHORTEST_PART and plain.startswith(candidate))]
    return known[found[0]] if len(found) == 1 else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")


def _slips(a: str, b: str) -> int:
    """How many slips of the finger lie between two words: a letter more, less, other, swapped."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (char != other))
            if i > 1 and j > 1 and char == b[j - 2] and a[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
