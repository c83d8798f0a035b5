"""Sessions: one project kept live on one target. ``open_session`` and ``down`` are the way in."""

from hyperbox_devcontainer.session.opening import down, open_session
from hyperbox_devcontainer.session.session import Session

__all__ = ["Session", "down", "open_session"]
