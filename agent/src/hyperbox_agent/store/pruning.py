"""How many generations, and how many bytes of them, stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hyperbox_agent.store.blobs import BlobStore
from hyperbox_agent.store.history import History


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays of the older generations. The one place that has the default."""

    count: int = 20
    """At least this many of the newest generations; twice as many before some go."""
    max_bytes: int = 512 << 20
    """Bytes of what they replaced; more than that and the oldest go, whatever their number."""


def forget_old(history: History, store: BlobStore, keep: Keep, spare: Iterable[bytes] = ()
               ) -> int | None:
    """Keep the records that ``keep`` says, and what they replaced.

    Contents that no kept record leads back to go from the store, those of ``spare`` excepted. Cheap
    when there is nothing to do: None then, else the seq of the oldest record kept. Raises OSError.
    """
    if not history.is_long(keep.count) and store.usage()[1] <= keep.max_bytes:
        return None
    oldest = history.oldest_of(keep.count)
    held: set[bytes] = set()
    size = 0
    for seq, contents in history.old_contents():
        if seq < oldest:
            break
        fresh = {digest: length for digest, length in contents if digest not in held}
        size += sum(fresh.values())
        if size > keep.max_bytes:
            oldest = seq + 1
            break
        held.update(fresh)
    history.trim(oldest)
    store.prune(held.union(spare))
    return oldest
