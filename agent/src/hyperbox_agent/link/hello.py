"""The first words on a link: is this a HyperBox, the other role, and our version?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperbox_agent.core.frames import Frame, FrameDecoder, encode
from hyperbox_agent.errors import ProtocolError, VersionError
from hyperbox_agent.link import kinds
from hyperbox_agent.link.fields import Fields, dump, load_object
from hyperbox_agent.link.version import PROTOCOL, VERSION

MAGIC = b"\n\x00HyperBox-Link\x00"
"""Begins both directions. No shell, banner or log prints it: it holds NULs."""
NOISE_LIMIT = 64 * 1024
"""How much a login shell may say before the hello."""
QUOTED = 300


@dataclass(frozen=True, slots=True)
class Hello:
    """What one side says about itself."""

    role: str
    """``session`` or ``agent``."""
    window: int
    """Bytes that the other side may send on a channel before it gets more credit."""
    protocol: int = PROTOCOL
    version: str = VERSION
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the layer above."""

    def encode(self) -> bytes:
        """As it stands on the wire, magic included."""
        return MAGIC + encode(kinds.HELLO, 0, dump(
            {"hyperbox": self.protocol, "version": self.version, "role": self.role,
             "window": self.window, "facts": dict(self.facts)}))

    @classmethod
    def decode(cls, frame: Frame) -> Hello:
        """The inverse. Raises ProtocolError; reads only what every protocol number has."""
        if frame.kind != kinds.HELLO:
            raise ProtocolError(f"the link begins with a frame of kind {frame.kind}, not a hello")
        data = load_object(frame.payload, "hello")
        read = Fields(data, "hello")
        return cls(role=read.text("role"), window=read.number("window", least=1, most=1 << 30),
                   protocol=read.number("hyperbox"), version=read.text("version"),
                   facts=read.table("facts", {}))


def check_peer(ours: Hello, theirs: Hello) -> None:
    """Whether the two may talk. Raises VersionError naming both, or ProtocolError."""
    if ours.role == theirs.role:
        raise ProtocolError(f"both ends say that they are the {ours.role}: "
                            "the other side echoes what it gets, it is not a HyperBox agent",
                            hint="a terminal or a login shell stands in between")
    if (ours.protocol, ours.version) == (theirs.protocol, theirs.version):
        return
    raise VersionError(
        f"the {theirs.role} is HyperBox {theirs.version} (protocol {theirs.protocol}), "
        f"this {ours.role} is {ours.version} (protocol {ours.protocol})",
        ours=ours.version, theirs=theirs.version,
        hint="end the one that is running (`hyperbox down`) and bring it up again, so that both "
             "are of one version")


class HelloScanner:
    """Finds the hello in what a stream begins with. Pure: feed it, it keeps what is not ours."""

    def __init__(self, limit: int = NOISE_LIMIT) -> None:
        self._limit = limit
        self._held = b""
        self._decoder: FrameDecoder | None = None
        self.noise = b""
        """What came before the hello."""

    def feed(self, data: bytes) -> tuple[Frame, list[Frame], FrameDecoder] | None:
        """The hello's frame, the frames behind it, and the decoder to go on with; None: not yet.

        Raises ProtocolError when so much came without a hello that none will.
        """
        if self._decoder is None:
            data = self._find(data)
            if self._decoder is None:
                return None
        frames = self._decoder.feed(data)
        return (frames[0], frames[1:], self._decoder) if frames else None

    def said(self) -> str:
        """What the peer has said so far that is no hello, fit for a screen."""
        return quote(self.noise + (b"" if self._decoder else self._held))

    def _find(self, data: bytes) -> bytes:
        self._held += data
        at = self._held.find(MAGIC)
        if at > self._limit or (at < 0 and len(self._held) > self._limit + len(MAGIC)):
            raise not_ours(self.said())
        if at < 0:
            return b""
        rest = self._held[at + len(MAGIC):]
        self.noise, self._held = self._held[:at], b""
        self._decoder = FrameDecoder()
        return rest


def not_ours(said: str) -> ProtocolError:
    """The error for a peer that talks, but not our language."""
    return ProtocolError(f"this is not a HyperBox agent: it said {said!r}" if said
                         else "this is not a HyperBox agent: it said nothing")


def quote(raw: bytes) -> str:
    """Foreign bytes as short plain text: no control characters, the last lines where it is long."""
    text = raw.decode("utf-8", "replace")
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return plain if len(plain) <= QUOTED else "…" + plain[-QUOTED:]
