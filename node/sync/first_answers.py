"""Requests to several peers at once. Silent peers hold nothing up (specification 6.10)."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")

# Seconds that peers still have once another one has answered. An honest one needs a round trip.
PATIENCE_SECONDS = 3.0


async def first_answers(
    requests: Iterable[Coroutine[Any, Any, _T | None]],
    patience: float = PATIENCE_SECONDS,
    timeout: float | None = None,
) -> list[_T]:
    """Return the results that are not None, in the order of the requests.

    Once the first request has ended, the others are cancelled after `patience` seconds. If none
    has ended after `timeout` seconds, all are cancelled.
    """
    tasks = [asyncio.create_task(request) for request in requests]
    try:
        if tasks:
            first = asyncio.FIRST_COMPLETED
            ended, _ = await asyncio.wait(tasks, timeout=timeout, return_when=first)
            if ended:
                await asyncio.wait(tasks, timeout=patience)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    results = [task.result() for task in tasks if not task.cancelled()]
    return [result for result in results if result is not None]
