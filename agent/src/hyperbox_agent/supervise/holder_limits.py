"""Every figure that the relay lives by, and why it is that figure."""

from __future__ import annotations

# One conversation.
READ = 64 * 1024
INBOX_LIMIT = 64 * 1024
"""What is read ahead of a client whose message waits or whose last message is not answered yet."""
REPLAY_LIMIT = 64 * 1024
"""A request up to this size can be sent again where the instance never read it."""
LINE_TIME = 1.0
"""How long (s) a request line may stay without its end before the bytes pass as opaque."""
PART = 0.5
"""How long (s) an instance may take to close a connection whose last answer is complete."""
LINGER = 2.0
"""How long (s) a client that is still sending is read after the last byte to it; closing at once
would reset the connection and could destroy the answer on its way."""

# All of them together.
ACCEPTS = 64
"""Connections taken in one turn, so that a flood of them does not hold up the others."""
BUFFER_LIMIT = 64 * 1024 * 1024
"""Bytes of waiting messages; above it, clients are not read (the kernel keeps their bytes)."""
REFUSED_FOR = 1.0
"""An instance that refuses connections for longer (s) is given up: requests get a 502."""
RETRY = 0.005
PATIENCE = 0.001
PATIENCE_LIMIT = 0.016
"""How long (s) a handshake may stay open, doubled with every few attempts. Where the instance's
queue is full the kernel drops the SYN and repeats it after a whole second; asking anew costs one
ms. Only one handshake is open at a time: of several, all may be answered although the queue has
room for one, and the others then hang until the kernel repeats their first bytes (200 ms)."""
SPENT_PAUSE = 0.05
"""Out of descriptors: asking again at once would spin."""
DRAINS = 2
REMEMBERED = 16
"""Numbers whose counts are kept."""
STREAM_AFTER = 1.0
"""An exchange in flight for longer (s) counts as a stream: nothing waits for its end."""
