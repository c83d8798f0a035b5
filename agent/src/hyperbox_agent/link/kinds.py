"""The kinds of frames, and what a kind's body is.

A call lives on a channel number that its caller chose: sessions take odd ones, agents even ones, so
both may call at the same time. Payloads go on the same number in both directions:

    caller                                   callee
    CALL {op, body, payload} ─────────────▶
    DATA… END ────────────────────────────▶
             ◀──────────────────────────── CREDIT           (as the payload is consumed)
             ◀──────────────────────────── REPLY {body, payload} or ERROR
             ◀──────────────────────────── DATA… END        (if the reply has a payload)
    CREDIT ───────────────────────────────▶
    CANCEL ───────────────────────────────▶                 (at any time; no answer follows)

A byte channel begins with OPEN, is accepted by REPLY, carries DATA, SIDE and NOTE both ways, each
direction ended by END, and is over with DONE or ERROR from the side that accepted it.
"""

from __future__ import annotations

HELLO = 1
"""JSON, the first frame after the magic, see ``hello``."""
CALL = 2
REPLY = 3
ERROR = 4
"""An error as JSON: instead of REPLY, or of DONE on a byte channel."""
NOTIFY = 5
"""JSON {op, body} on channel 0; nothing answers."""
DATA = 6
END = 7
"""u64: how many bytes of DATA and SIDE were sent. A payload without it is not whole."""
ABORT = 8
"""An error as JSON: the payload ends here and is not whole."""
CANCEL = 9
CREDIT = 10
"""u64: so many bytes more may be sent in the direction of the receiver of this frame."""
PING = 11
PONG = 12
OPEN = 13
SIDE = 14
"""Bytes of a byte channel's second stream (standard error)."""
NOTE = 15
"""JSON between two bytes of a byte channel (window size, signal)."""
DONE = 16
"""JSON {body}: the byte channel is over."""
BYE = 17
"""JSON {message}: the sender closes the link on purpose."""

CHUNK = 256 * 1024
"""Bytes of a DATA or SIDE frame at most."""
