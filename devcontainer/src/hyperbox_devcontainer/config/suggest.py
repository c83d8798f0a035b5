"""Near misses: the word that was probably meant."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def near(word: str, words: Iterable[str]) -> str | None:
    """The one of ``words`` that is most like ``word``, or None where none is like it."""
    import difflib  # only where something is wrong already: 10 ms
    plain = word.lower().replace("-", "_")
    known = {candidate.lower().replace("-", "_"): candidate for candidate in words}
    if plain in known:
        return known[plain]
    found = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
    if found:
        return known[found[0]]
    begun = [candidate for candidate in known if len(plain) > 1 and candidate.startswith(plain)]
    return known[begun[0]] if len(begun) == 1 else None
