"""Errors as they cross the socket: typed on both ends, with the fields that a screen needs."""

from __future__ import annotations

from hyperbox_devcontainer.errors import VerbError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_FIELDS = ("file", "line", "column", "key", "hint")


def error_json(error: BaseException) -> dict[str, Any]:
    """An error object. An error that is not ours names its class, as its text may say little."""
    message = getattr(error, "message", None)
    if message is None:
        text = str(error)
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    kind = error.kind if isinstance(error, VerbError) else type(error).__name__
    fields = {name: getattr(error, name, None) for name in _FIELDS}
    return {"kind": kind, "message": str(message),
            **{name: value for name, value in fields.items() if value is not None}}


def error_from_json(data: Mapping[str, Any]) -> VerbError:
    """The error that the other end raised."""
    line, column = data.get("line"), data.get("column")
    text = {name: str(data[name]) for name in ("file", "key", "hint") if data.get(name) is not None}
    return VerbError(str(data.get("message", "failed without a reason")),
                     kind=str(data.get("kind", "VerbError")),
                     line=line if isinstance(line, int) else None,
                     column=column if isinstance(column, int) else None, **text)
