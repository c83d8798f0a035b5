"""Reading JSON that a peer sent: every value is checked once, here, and named when it is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hyperbox_agent.errors import ProtocolError

_ABSENT: Any = object()
_COMPACT = json.JSONEncoder(separators=(",", ":"))
"""Made once: ``json.dumps`` with arguments makes an encoder for each call."""


class Fields:
    """One JSON object of a peer. A getter raises ProtocolError naming the message and the key."""

    __slots__ = ("_data", "_what")

    def __init__(self, data: object, what: str) -> None:
        if not isinstance(data, Mapping):
            raise ProtocolError(f"{what}: an object was expected, got {_kind(data)}")
        self._data = data
        self._what = what

    def text(self, key: str, default: str = _ABSENT) -> str:
        """A string."""
        return str(self._get(key, str, "a string", default))

    def number(self, key: str, default: int = _ABSENT, *, least: int = 0,
               most: int = 2**63 - 1) -> int:
        """An integer within its bounds."""
        value = self._get(key, int, "an integer", default)
        if not least <= value <= most:
            raise self._wrong(key, f"must be between {least} and {most}, got {value}")
        return int(value)

    def flag(self, key: str, default: bool = _ABSENT) -> bool:
        """True or false."""
        return bool(self._get(key, bool, "true or false", default))

    def texts(self, key: str, default: tuple[str, ...] = _ABSENT) -> tuple[str, ...]:
        """A list of strings."""
        items = self._get(key, (list, tuple), "a list of strings", default)
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(key, "must be a list of strings")
        return tuple(items)

    def text_map(self, key: str, default: Mapping[str, str] = _ABSENT) -> dict[str, str]:
        """An object whose values are strings."""
        table = self.table(key, default)
        if not all(isinstance(value, str) for value in table.values()):
            raise self._wrong(key, "must hold only strings")
        return table

    def table(self, key: str, default: Mapping[str, Any] = _ABSENT) -> dict[str, Any]:
        """An object."""
        return dict(self._get(key, Mapping, "an object", default))

    def items(self, key: str, default: tuple[Any, ...] = _ABSENT) -> list[Any]:
        """A list of anything."""
        return list(self._get(key, (list, tuple), "a list", default))

    def one_of(self, key: str, words: tuple[str, ...], default: str = _ABSENT) -> str:
        """One of a few words."""
        value = self.text(key, default)
        if value not in words:
            raise self._wrong(key, f"must be one of {', '.join(words)}, got {value[:40]!r}")
        return value

    def digest(self, key: str, default: bytes = _ABSENT) -> bytes:
        """A SHA-256 in hexadecimal, as raw bytes; empty text is an empty digest."""
        if key not in self._data and default is not _ABSENT:
            return default
        value = self.text(key)
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b"?"
        if len(raw) not in (0, 32):
            raise self._wrong(key, "must be a SHA-256 in hexadecimal")
        return raw

    def maybe(self, key: str) -> Any:
        """The value as it is, None where it is absent."""
        return self._data.get(key)

    def _get(self, key: str, types: Any, words: str, default: Any) -> Any:
        value = self._data.get(key, default)
        if value is _ABSENT:
            raise self._wrong(key, "is missing")
        # bool is an int to Python, not to us.
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise self._wrong(key, f"must be {words}, got {_kind(value)}")
        return value

    def _wrong(self, key: str, message: str) -> ProtocolError:
        return ProtocolError(f"{self._what}: {key} {message}", key=key)


def load_object(raw: bytes | memoryview, what: str) -> dict[str, Any]:
    """A JSON object out of bytes. Raises ProtocolError."""
    try:
        data = json.loads(str(raw, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ProtocolError(f"{what}: an object was expected, got {_kind(data)}")
    return data


def dump(data: object) -> bytes:
    """JSON as ASCII: path bytes that are not UTF-8 survive as escaped surrogates."""
    return _COMPACT.encode(data).encode("ascii")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false",
             int: "an integer", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
