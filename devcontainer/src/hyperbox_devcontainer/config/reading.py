"""``hyperbox.toml`` as data with places, or one error that says what is wrong with the file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from hyperbox_devcontainer.config.locate import Path, Place, locate
from hyperbox_devcontainer.errors import ConfigError, InputError

FILE_NAME = "hyperbox.toml"
SIZE_LIMIT = 1024 * 1024
_PLACE = r" \(at (?:line (\d+), column (\d+)|end of document)\)$"


class Source(NamedTuple):
    """A configuration file that could be read."""

    name: str
    data: Mapping[str, Any]
    places: Mapping[Path, Place]

    def place(self, path: Path) -> Place | None:
        """Where ``path`` stands, else the nearest thing around it."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[:-1]
        return None


def read(root: str) -> Source | None:
    """The project's file, or None where there is none. Raises ConfigError."""
    raw = _read_bytes(os.path.join(root, FILE_NAME))
    if raw is None:
        return None
    import tomllib  # most projects have no such file, and its import is a tenth of `config`
    text = _decode(raw)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _refused(*_syntax(str(error), text)) from None
    except RecursionError:
        raise _refused("it is nested too deeply") from None
    return Source(FILE_NAME, data, locate(text))


def _read_bytes(path: str) -> bytes | None:
    try:
        # A fifo in the file's place must not stop us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(path):
            raise _refused("it is a link that points nowhere") from None
        return None
    except OSError as error:
        raise _refused(f"it can't be read: {error.strerror}") from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise _refused("it is a folder" if stat.S_ISDIR(kind) else "it is not a plain file")
    with open(descriptor, "rb") as file:
        raw = file.read(SIZE_LIMIT + 1)
    if len(raw) > SIZE_LIMIT:
        raise _refused(f"it is larger than {SIZE_LIMIT // 1024} KiB")
    return raw


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = len(raw[raw.rfind(b"\n", 0, error.start) + 1:error.start].decode(
            "utf-8", "replace")) + 1
        raise _refused(f"byte 0x{raw[error.start]:02x} is not UTF-8", line, column,
                       hint="save the file as UTF-8") from None


def _syntax(message: str, text: str) -> tuple[str, int, int]:
    found = re.search(_PLACE, message)
    what = message[:found.start()] if found else message
    if found and found[1]:
        return f"not TOML: {what}", int(found[1]), int(found[2])
    lines = text.rstrip("\n").split("\n")
    return f"not TOML: {what}, at the end of the file", len(lines), len(lines[-1]) + 1


def _refused(message: str, line: int | None = None, column: int | None = None,
             hint: str | None = None) -> ConfigError:
    return ConfigError([InputError(message, file=FILE_NAME, line=line, column=column, hint=hint)])
