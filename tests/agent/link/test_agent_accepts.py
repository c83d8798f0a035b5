"""The agent takes links for as long as it lives, and names what a peer asks wrongly."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
from typing import Any, cast

import pytest

from hyperbox_agent.errors import ProtocolError
from hyperbox_agent.link import server
from hyperbox_agent.link.server import AgentServer
from hyperbox_agent.link.stream import ByteStream
from hyperbox_langpacks.base import Rung

pytestmark = pytest.mark.needs("linux")


class Greeted:
    """In the place of a server: notes who came."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    async def serve(self, stream: ByteStream) -> None:
        self.came.set()
        await stream.close()


async def test_a_link_is_taken_after_no_descriptor_was_left(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(server, "ACCEPT_PAUSE", 0.0)
    loop, greeted = asyncio.get_running_loop(), Greeted()
    real, failures = loop.sock_accept, [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]

    async def accept(listener: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return await real(listener)

    monkeypatch.setattr(loop, "sock_accept", accept)
    with tempfile.TemporaryDirectory(prefix="hba") as folder:
        path = os.path.join(folder, "agent.sock")
        listener = server._listen(path)
        accepting = asyncio.ensure_future(server._accept(listener, cast("AgentServer", greeted)))
        with listener, socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            await asyncio.wait_for(greeted.came.wait(), 20)
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
    assert "Too many open files" in capsys.readouterr().err


def test_a_rung_is_a_word_that_is_known() -> None:
    assert server._rung("cold") is Rung.COLD
    for word in ("lukewarm", 3, None, ["cold"]):
        with pytest.raises(ProtocolError, match="there is no rung"):
            server._rung(word)
