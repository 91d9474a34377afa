"""Who dialled this node, and since when they have wanted nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class IdleTracker:
    """Idle is who has made no request and sent no news for `seconds`; `now` is monotonic."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self.seconds, self._now = seconds, now
        self._last: dict[str, float] = {}
        self._served: dict[str, int] = {}

    def came(self, peer: str) -> None:
        """A peer has connected."""
        self._last[peer] = self._now()

    def left(self, peer: str) -> None:
        """A peer's last connection is gone."""
        self._last.pop(peer, None)

    def active(self, peer: str) -> None:
        """A peer has sent something of use."""
        if peer in self._last:
            self._last[peer] = self._now()

    @contextmanager
    def serving(self, peer: str) -> Iterator[None]:
        """A peer is not idle while the block runs, and has not been at its end."""
        self._served[peer] = self._served.get(peer, 0) + 1
        try:
            yield
        finally:
            self._served[peer] -= 1
            if not self._served[peer]:
                del self._served[peer]
            self.active(peer)

    def idle(self) -> list[str]:
        """Return who is idle now."""
        before = self._now() - self.seconds
        return [p for p, last in self._last.items() if last < before and p not in self._served]
