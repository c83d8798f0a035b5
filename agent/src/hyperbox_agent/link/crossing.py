"""Errors on the wire: an AgentError of one side is raised as the same class on the other."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from hyperbox_agent import errors
from hyperbox_agent.errors import AgentError, FaultError
from hyperbox_agent.link.fields import Fields, dump, load_object

_OWN = ("file", "line", "key", "hint")
_TEXT_LIMIT = 16 * 1024
_LIST_LIMIT = 4096
_PLAIN = (str, int, float, bool, type(None))


def encode_error(error: BaseException) -> bytes:
    """Any exception as JSON. What is not an AgentError becomes a FaultError with its traceback."""
    if not isinstance(error, AgentError):
        error = fault(error)
    fields = {name: _encode(value) for name, value in vars(error).items()
              if name != "message" and _crosses(value)}
    return dump({"type": type(error).__name__, "message": _cut(error.message), "fields": fields})


def decode_error(raw: bytes) -> AgentError:
    """The error that a peer sent. A class that is not known here comes as plain AgentError.

    Raises ProtocolError when it is no error at all.
    """
    read = Fields(load_object(raw, "error"), "error")
    message, fields = read.text("message"), read.table("fields", {})
    kind = _classes().get(read.text("type"), AgentError)
    error = _make(kind, message)
    AgentError.__init__(error, message, **_known(fields))
    for name, value in fields.items():
        if name not in _OWN and name.isidentifier() and not name.startswith("_") \
                and not hasattr(kind, name):
            setattr(error, name, _decode(value))
    return error


def _make(kind: type[AgentError], message: str) -> AgentError:
    try:
        return kind(message)  # so that fields which did not come have their defaults
    except TypeError:
        return kind.__new__(kind, message)


def _crosses(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(isinstance(item, (*_PLAIN, bytes)) for item in value)
    return value is not None and isinstance(value, (*_PLAIN, bytes))


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value[:_TEXT_LIMIT].hex()}
    if isinstance(value, (tuple, list)):
        # An error must fit a frame whatever it is about; who gets a part can ask for the rest.
        return [_encode(item) for item in value[:_LIST_LIMIT]]
    return _cut(value)


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if isinstance(value, dict):
        try:
            return bytes.fromhex(str(value.get("hex", "")))
        except ValueError:
            return b""
    return value


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for name in _OWN:
        value = fields.get(name)
        wanted = int if name == "line" else str
        if isinstance(value, wanted) and not isinstance(value, bool):
            known[name] = value
    return known


def _classes() -> dict[str, type[AgentError]]:
    return {name: kind for name, kind in vars(errors).items()
            if isinstance(kind, type) and issubclass(kind, AgentError)}


def fault(error: BaseException) -> FaultError:
    """An exception that nobody foresaw, as an error of ours that says where it came from."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return FaultError(f"a fault of ours: {type(error).__name__}: {error}",
                      details="".join(lines)[-_TEXT_LIMIT:],
                      hint="this is a bug in HyperBox; the details hold the traceback")


def _cut(value: Any) -> Any:
    return value[:_TEXT_LIMIT] if isinstance(value, str) else value
