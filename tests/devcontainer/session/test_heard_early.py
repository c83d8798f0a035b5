"""What is heard of a running program while the source is read: bounded, in order, state kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperbox_devcontainer.session.heard import KEPT, Heard


def test_of_much_output_the_newest_is_told_and_the_rest_is_counted() -> None:
    heard = Heard()
    heard.put({"event": "state", "state": "live"})
    for number in range(3 * KEPT):
        heard.put({"event": "log", "text": number})
    heard.put({"event": "state", "state": "broken"})
    told: list[Mapping[str, Any]] = []
    heard.tell(told.append)
    assert told[0] == {"event": "dropped", "count": 2 * KEPT}
    assert told[1] == {"event": "state", "state": "live"}
    assert [event["text"] for event in told[2:-1]] == list(range(2 * KEPT, 3 * KEPT))
    assert told[-1] == {"event": "state", "state": "broken"}
    heard.tell(told.append)
    assert len(told) == KEPT + 3, "nothing is told twice"
