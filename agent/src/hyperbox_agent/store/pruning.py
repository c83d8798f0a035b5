"""How many generations, and how many bytes of them, stay."""

from __future__ import annotations

from collections.abc import Iterable

from hyperbox_agent.store.blobs import BlobStore
from hyperbox_agent.store.history import History

KEEP_GENERATIONS = 20
KEEP_BYTES = 512 << 20


def forget_old(history: History, store: BlobStore, *, count: int = KEEP_GENERATIONS,
               max_bytes: int = KEEP_BYTES, keep: Iterable[bytes] = ()) -> int | None:
    """Keep the last ``count`` records at least, and what they replaced up to ``max_bytes``.

    Contents that no kept record leads back to go from the store, those of ``keep`` excepted. Cheap
    when there is nothing to do: None then, else the seq of the oldest record kept. Raises OSError.
    """
    if not history.is_long(count) and store.usage()[1] <= max_bytes:
        return None
    oldest = history.oldest_of(count)
    held: set[bytes] = set()
    size = 0
    for seq, contents in history.old_contents():
        if seq < oldest:
            break
        fresh = {digest: length for digest, length in contents if digest not in held}
        size += sum(fresh.values())
        if size > max_bytes:
            oldest = seq + 1
            break
        held.update(fresh)
    history.trim(oldest)
    store.prune(held.union(keep))
    return oldest
