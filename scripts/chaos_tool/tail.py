"""What a node's log says from some moment on."""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from scripts.testnet_tool.nodes import Place

Event = Mapping[str, Any]


class Tail:
    """Follows a log from its present end; to be used as a context."""

    def __init__(self, place: Place) -> None:
        self._file = place.log.open("rb")
        self._file.seek(0, 2)
        self._partial = b""

    def __enter__(self) -> "Tail":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def fresh(self) -> list[Event]:
        """Return the events logged since the last call."""
        *lines, self._partial = (self._partial + self._file.read()).split(b"\n")
        return [event for line in lines if (event := parsed(line)) is not None]

    async def find(
        self, wanted: Callable[[Event], bool], seconds: float, poll: float
    ) -> Event | None:
        """Wait for an event; None if it does not come in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            for event in self.fresh():
                if wanted(event):
                    return event
            await asyncio.sleep(poll)
        return None


def parsed(line: bytes) -> Event | None:
    """Return a line's event; None for one that is no event."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def at(event: Event) -> float:
    """Return when it was logged, in Unix seconds."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()
