"""What the relay says in the program's place."""

from __future__ import annotations

_REASONS = {502: "Bad Gateway", 503: "Service Unavailable"}


def refusal(status: int, text: str, *, head_only: bool) -> bytes:
    """A whole answer in plain text after which the connection is closed."""
    body = f"hyperbox: {text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)
