"""A dictionary of bounded size, for what strangers can make new keys of."""

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

# Peer ids, addresses and task ids are free to make, memory is not. 4,096 entries take under 1 MB,
# and no honest network has as many peers or tasks at a time.
MAX_KEYS = 4096


class LruDict(OrderedDict[K, V]):
    """Keeps the `max_keys` entries that were written last; an older one is evicted."""

    def __init__(self, max_keys: int | None = None) -> None:
        """`max_keys` is `MAX_KEYS` if it is left out."""
        super().__init__()
        self._max_keys = MAX_KEYS if max_keys is None else max_keys

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._max_keys:
            self.popitem(last=False)
