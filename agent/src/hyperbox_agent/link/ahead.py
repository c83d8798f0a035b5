"""The op ``ahead``: files of a first generation that are sent while the source is still being read.

Each call brings some: their entries, ``listed`` bytes long, and then their contents, one behind the
other in the same order; ``deflated`` all together where that is worth it. A call is answered when
they are verified and written. The generation then says only what is otherwise by then.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hyperbox_agent.core.codec import encode_entries
from hyperbox_agent.core.entries import Entry
from hyperbox_agent.core.inflate import inflate
from hyperbox_agent.errors import ProtocolError
from hyperbox_agent.link.connection import Request
from hyperbox_agent.link.fields import Fields
from hyperbox_agent.link.messages import unpack_manifest
from hyperbox_agent.link.serving import Handler

Files = Sequence[tuple[Entry, memoryview]]

LIMIT = 16 << 20
"""Bytes of one call's entries and contents."""

LEVEL = 3
"""Of zlib: more costs a small board's processor more than it saves its line."""


def pack_files(files: Sequence[tuple[Entry, bytes]], *, compress: bool
               ) -> tuple[dict[str, Any], bytes]:
    """The body and the payload of a call."""
    head = encode_entries([entry for entry, _ in files])
    contents = [data for _, data in files]
    if compress:
        contents = [zlib.compress(b"".join(contents), LEVEL)]
    return {"listed": len(head), "deflated": compress}, b"".join((head, *contents))


def unpack_files(body: object, payload: bytes) -> list[tuple[Entry, memoryview]]:
    """The inverse. Raises ProtocolError; a path that leaves the root is one."""
    read = Fields(body, "ahead")
    listed = read.number("listed", most=len(payload))
    entries = list(unpack_manifest(payload[:listed]).values())
    size = sum(entry.size for entry in entries)
    if size > LIMIT:
        raise ProtocolError(f"ahead: {size} bytes of content where {LIMIT} are allowed")
    contents = memoryview(payload)[listed:]
    if read.flag("deflated"):
        contents = memoryview(inflate(contents, size, "ahead: the content",
                                      "is not what was announced"))
    if len(contents) != size:
        raise ProtocolError(f"ahead: {size} bytes were announced and {len(contents)} came")
    files: list[tuple[Entry, memoryview]] = []
    at = 0
    for entry in entries:
        files.append((entry, contents[at:at + entry.size]))
        at += entry.size
    return files


def ahead_op(take: Callable[[Files], Awaitable[None]]) -> Handler:
    """The op's handler. ``take`` verifies and keeps some files."""

    async def ahead(request: Request) -> Mapping[str, Any]:
        await take(unpack_files(request.body, await request.payload.read(LIMIT)))
        return {}

    return ahead
