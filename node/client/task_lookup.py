"""Find a task's whole id by its beginning, in the feeds of the connected nodes.

A feed may be long, so it is read from its end: people ask for recent tasks. An id is a hash: a node
can hide a task, but not show another one under its id.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from node.client.arguments import InvalidArgument
from node.rpc.client import RequestRefused, send_request
from node.rpc.codec import ProtocolViolation
from node.rpc.feeds import feed_request
from node.sync.feeds.fetching import MAX_IDS, fetch
from node.sync.task_tracker import UnknownTask
from node.transport.interface import Transport
from protocol.constants import MAX_INTEGER
from protocol.wire.messages import task_id

# Ids that are read at a time, and how often: the last 16,384 of a feed.
_PAGE, _MAX_PAGES = 256, 64


async def find_task(transport: Transport, peers: Iterable[str], prefix: str) -> str:
    """Return the only task id that begins with `prefix`, as the first node knows that has one.

    Raises InvalidArgument for several, UnknownTask for none.
    """
    for peer in peers:
        try:
            matches = await _matches(transport, peer, prefix)
        except (RequestRefused, ProtocolViolation, ConnectionError):
            continue
        if len(matches) > 1:
            shown = ", ".join(sorted(matches)[:4])
            raise InvalidArgument(f"task: {len(matches)} ids begin with {prefix}: {shown}")
        if matches:
            return matches.pop()
    raise UnknownTask(
        f"no connected node has a recent task whose id begins with {prefix}: give the whole id"
    )


async def _matches(transport: Transport, peer: str, prefix: str) -> set[str]:
    """Return the matching ids of the last page of a peer's feed that has one."""
    feed, end = await _end_of(transport, peer)
    for _ in range(_MAX_PAGES):
        start = max(0, end - _PAGE)
        matches, cursor = set[str](), start
        while cursor < end:
            page = await _read(transport, peer, feed, cursor, _PAGE)
            if page["feed"] != feed or page["cursor"] <= cursor:
                break
            tasks = await _tasks_of(transport, peer, page["ids"])
            matches |= {task for task in tasks if task.startswith(prefix)}
            cursor = page["cursor"]
        if matches or start == 0:
            return matches
        end = start
    return set()


async def _end_of(transport: Transport, peer: str) -> tuple[str, int]:
    """Return a feed's id, and a cursor that nothing follows, by bisection."""
    first = await _read(transport, peer, "", 0, 1)
    feed, low, high = str(first["feed"]), 0, 1
    while high < MAX_INTEGER and (await _read(transport, peer, feed, high, 1))["ids"]:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if (await _read(transport, peer, feed, middle, 1))["ids"]:
            low = middle
        else:
            high = middle
    return feed, high


async def _read(transport: Transport, peer: str, feed: str, cursor: int, limit: int) -> Any:
    request = feed_request(feed, min(cursor, MAX_INTEGER), limit)
    return await send_request(transport, peer, "feed", request)


async def _tasks_of(transport: Transport, peer: str, ids: Sequence[str]) -> list[str]:
    """Return the ids of the tasks among envelopes; what the peer does not give is left out."""
    tasks: list[str] = []
    rest = list(ids)
    while rest:
        try:
            fetched = await fetch(transport, peer, rest[:MAX_IDS])
        except ValueError:
            return tasks
        bodies: list[Any] = [envelope["body"] for _, envelope in fetched.envelopes]
        tasks += [task_id(body) for body in bodies if body.get("type") == "task"]
        answered = {id_ for id_, _ in fetched.envelopes} | set(fetched.gone)
        rest = [id_ for id_ in rest if id_ not in answered]
    return tasks
