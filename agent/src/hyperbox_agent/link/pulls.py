"""The ops of ``pull``: what the program wrote, the bytes of it, and that the source has it.

``written`` answers with two manifests as its payload, the first ``recorded`` bytes long: what was
put at the pulled paths and what stands there. ``content`` gives one file. ``adopt`` names, as a
manifest, what both ends hold now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperbox_agent.core.entries import Manifest
from hyperbox_agent.errors import AgentError
from hyperbox_agent.link.connection import Reply, Request
from hyperbox_agent.link.fields import Fields
from hyperbox_agent.link.messages import pack_manifest, unpack_manifest
from hyperbox_agent.link.paths import check_path
from hyperbox_agent.link.serving import Handler
from hyperbox_agent.supervise.host import Host
from hyperbox_agent.supervise.pulling import Pulls


def pull_ops(host: Host) -> Mapping[str, Handler]:
    """Handlers that serve what ``host`` pulls at the time of the call."""

    def pulls() -> Pulls:
        if host.pulls is None:
            raise AgentError("nothing is pulled from this target", key="pull")
        return host.pulls

    async def written(request: Request) -> Reply:
        recorded, found = await pulls().look()
        return pack_written(recorded, found)

    async def content(request: Request) -> Reply:
        path = check_path(Fields(request.body, "content").text("path"))
        return Reply({}, await pulls().content(path))

    async def adopt(request: Request) -> Mapping[str, Any]:
        entries = unpack_manifest(await request.payload.read())
        await pulls().adopt(list(entries.values()))
        return {}

    return {"written": written, "content": content, "adopt": adopt}


def pack_written(recorded: Manifest, found: Manifest) -> Reply:
    """The answer to ``written``."""
    first = pack_manifest(recorded)
    return Reply({"recorded": len(first)}, first + pack_manifest(found))
