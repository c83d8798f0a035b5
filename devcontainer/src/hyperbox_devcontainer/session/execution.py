"""``exec`` from the session's side: a byte channel of the link as the verbs need it."""

from __future__ import annotations

import signal

from hyperbox_agent.errors import AgentError, LinkLostError
from hyperbox_agent.link.channel import Channel, Data
from hyperbox_agent.link.connection import Link
from hyperbox_agent.link.messages import ExecRequest as Wire
from hyperbox_devcontainer.verbs.session import ExecRequest

START_TIMEOUT = 30.0


class RemoteCommand:
    """A running command of ``exec`` on the target."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @classmethod
    async def start(cls, link: Link, request: ExecRequest) -> RemoteCommand:
        """Start it. Raises AgentError where it can't be started."""
        wire = Wire(tuple(request.argv), request.tty, request.rows, request.columns,
                    dict(request.env))
        channel, _ = await link.open("exec", wire.as_json(), timeout=START_TIMEOUT)
        command = cls(channel)
        if not request.stdin:
            await command.write(b"")
        return command

    async def read(self) -> tuple[int, bytes] | None:
        """Some output with its stream, None at the end."""
        while True:
            item = await self._channel.receive()
            if item is None:
                return None
            if isinstance(item, Data):
                return (2 if item.side else 1), item.data

    async def write(self, data: bytes) -> None:
        """Bytes for standard input; empty: its end."""
        try:
            if data:
                await self._channel.send(data)
            else:
                await self._channel.note({"end": True})
        except LinkLostError:
            return  # the command has ended: there is nobody to read it

    async def resize(self, rows: int, columns: int) -> None:
        """The person's terminal has this size now."""
        await self._channel.note({"rows": rows, "cols": columns})

    async def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        await self._channel.note({"signal": int(signal.Signals(number))})

    async def status(self) -> int:
        """The exit status, 128 + n after signal n."""
        result = await self._channel.result()
        status = result.get("status")
        if not isinstance(status, int):
            raise AgentError("the target did not say how the command ended")
        return status

    async def close(self) -> None:
        """End the command if it still runs."""
        await self._channel.close()
