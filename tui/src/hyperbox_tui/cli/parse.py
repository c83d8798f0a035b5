"""The command line, read by the table of verbs. Its own parser: argparse alone costs 12 ms."""

from __future__ import annotations

from typing import NamedTuple

from hyperbox_tui.cli.exits import UsageError
from hyperbox_tui.cli.verbs import BY_NAME, SHELLS, Flag, Verb, flags_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 86_400.0


class Args(NamedTuple):
    """A verb and what it was given, checked."""

    verb: str
    values: dict[str, bool | int | float | str]
    rest: tuple[str, ...] = ()
    """The command of ``exec``."""

    def on(self, key: str) -> bool:
        """Whether a flag without value was given."""
        return bool(self.values.get(key))

    def text(self, key: str) -> str | None:
        """A text, or None where it was not given."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def whole(self, key: str) -> int | None:
        """A whole number, or None where it was not given."""
        value = self.values.get(key)
        return value if isinstance(value, int) else None

    def seconds(self, key: str, default: float) -> float:
        """A number of seconds."""
        value = self.values.get(key)
        return float(value) if isinstance(value, int | float) else default

    @property
    def path(self) -> str:
        """The project's folder as it was said; default: here."""
        return self.text("path") or self.text("project") or "."


def parse(argv: Sequence[str]) -> Args:
    """The verb and its arguments. Raises UsageError with a near miss where there is one."""
    if not argv:
        return Args("", {})
    first = argv[0]
    if first in ("-h", "--help"):
        return Args("help", {})
    if first in ("-V", "--version"):
        return Args("version", {})
    verb = BY_NAME.get(first)
    if verb is None:
        raise _unknown_verb(first)
    return _Parser(verb).run(list(argv[1:]))


class _Parser:
    def __init__(self, verb: Verb) -> None:
        self._verb = verb
        self._values: dict[str, bool | int | float | str] = {}
        self._positional: list[str] = []
        flags = flags_of(verb)
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}

    def run(self, words: list[str]) -> Args:
        takes_rest = "CMD" in self._verb.takes
        while words:
            word = words.pop(0)
            if word == "--":
                break
            if word.startswith("--"):
                self._take_long(word, words)
            elif word.startswith("-") and len(word) > 1:
                self._take_short(word, words)
            elif takes_rest:
                words.insert(0, word)
                break
            else:
                self._positional.append(word)
        if self._values.get("help"):
            return Args("help", {"verb": self._verb.name})
        if takes_rest:
            return Args(self._verb.name, self._values, tuple(words))
        self._place([*self._positional, *words])
        return Args(self._verb.name, self._values)

    def _place(self, words: list[str]) -> None:
        takes = self._verb.takes
        if len(words) > len(takes):
            raise self._wrong(f"{words[len(takes)]!r} is one argument too many")
        for name, word in zip(takes, words, strict=False):
            if name == "PATH" and "project" in self._values:
                raise self._wrong("the folder is said twice")
            self._values[name.lower()] = self._number(word) if name == "N" else word
            if name == "SHELL" and word not in SHELLS:
                raise self._wrong(f"{word!r} is none of the shells {', '.join(SHELLS)}")
            if name == "VERB" and word not in BY_NAME:
                raise _unknown_verb(word)

    def _number(self, word: str) -> int:
        plain = word.removeprefix("#")
        if not (plain.isascii() and plain.isdigit()) or len(plain) > 15:
            raise self._wrong(f"{word!r} is no generation's number")
        return int(plain)

    def _take_long(self, word: str, words: list[str]) -> None:
        name, equals, value = word.partition("=")
        flag = self._long.get(name)
        if flag is None:
            from hyperbox_devcontainer.suggest import near
            close = near(name, self._long)
            raise self._wrong(f"unknown flag {name}", f"did you mean `{close}`?" if close else None)
        if equals and not flag.takes:
            raise self._wrong(f"{name} takes no value")
        self._set(flag, name, [value] if equals else words)

    def _take_short(self, word: str, words: list[str]) -> None:
        for at in range(1, len(word)):
            name = f"-{word[at]}"
            flag = self._short.get(name)
            if flag is None:
                raise self._wrong(f"unknown flag {name}" + (f" in {word}" if len(word) > 2 else ""))
            rest = word[at + 1:]
            if flag.takes and rest:
                self._set(flag, name, [rest.removeprefix("=")])
                return
            self._set(flag, name, words)

    def _set(self, flag: Flag, name: str, words: list[str]) -> None:
        if not flag.takes:
            self._values[flag.key] = True
            return
        if not words:
            raise self._wrong(f"{name} needs {flag.takes}")
        self._values[flag.key] = self._value(flag, name, words.pop(0))

    def _value(self, flag: Flag, name: str, word: str) -> int | float | str:
        if flag.choices and word not in flag.choices:
            from hyperbox_devcontainer.suggest import near
            close = near(word, flag.choices)
            raise self._wrong(f"{name} is one of {', '.join(flag.choices)}, not {word!r}",
                              f"did you mean `{close}`?" if close else None)
        if flag.kind == "whole":
            if not (word.isascii() and word.isdigit()) or len(word) > 15:
                raise self._wrong(f"{name} needs a whole number, not {word!r}")
            return int(word)
        if flag.kind == "seconds":
            return self._seconds(name, word)
        if "\0" in word:
            raise self._wrong(f"{name} can't have a NUL")
        return word

    def _seconds(self, name: str, word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = -1.0
        if not 0 <= value <= LONGEST:
            raise self._wrong(f"{name} needs a number of seconds, not {word!r}")
        return value

    def _wrong(self, message: str, hint: str | None = None) -> UsageError:
        verb = self._verb.name
        return UsageError(f"{verb}: {message}", hint=hint or f"`hyperbox {verb} --help` shows it")


def _unknown_verb(word: str) -> UsageError:
    from hyperbox_devcontainer.suggest import near
    close = near(word.lstrip("-"), BY_NAME)
    what = "unknown flag" if word.startswith("-") else "unknown verb"
    return UsageError(f"{what} {word!r}", hint=f"did you mean `hyperbox {close}`?" if close else
                      "`hyperbox --help` lists the verbs")
