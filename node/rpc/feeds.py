"""Serves this node's feed, and envelopes by their ids (specification 7.9).

A request for a page may wait for one: the follower of a quiet node sends one request a minute. A
waiting request holds no slot and no timer but that of its end. There is one of each peer, so that
their number is that of the connections.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from node.admission.request_limits import RequestLimiter
from node.rpc.codec import answer, answer_encoded
from node.storage.journal import Journal
from node.transport.interface import Stream
from protocol.constants import CERTIFICATE_LIMIT, DOCUMENT_LIMIT
from protocol.wire.encoding import Document

# Ids in one page of the feed, whatever limit is requested (specification 7.9).
MAX_PAGE_IDS = 1024
# Bytes of an answer that are kept free for what is no envelope: 128 ids take 8.6 kB.
OVERHEAD_BYTES = DOCUMENT_LIMIT - CERTIFICATE_LIMIT
# Between the first new envelope and the page that lists it, so that a burst is one page. Short
# against the two seconds in which commits are collected.
COALESCING_SECONDS = 0.05


class FeedServer:
    """Answers `feed` and `envelopes`. Used on the asyncio loop."""

    def __init__(self, journal: Journal, request_limiter: RequestLimiter) -> None:
        self._journal, self._request_limiter = journal, request_limiter
        # By peer: those that wait for news, and those that get the news with the next wake-up.
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._woken: dict[str, asyncio.Future[None]] = {}
        self._wake_up: asyncio.TimerHandle | None = None

    async def feed(self, request: Mapping[str, Any], stream: Stream) -> None:
        """Answer with a page of the feed, when there is one or the request's time is over."""
        key = self._request_limiter.slot_key(stream.peer, stream.rate_limit_key)
        with self._request_limiter.slot("feed", key):
            page = self._page(request)
            if page["ids"] or not request["wait"]:
                await answer(stream, page)
                return
        await self._news(stream.peer, request["wait"])
        await answer(stream, self._page(request))

    async def envelopes(self, request: Mapping[str, Any], stream: Stream) -> None:
        """Answer with as many of the requested envelopes as fit, in their order."""
        key = self._request_limiter.slot_key(stream.peer, stream.rate_limit_key)
        with self._request_limiter.slot("envelopes", key):
            await answer_encoded(stream, self._envelopes(request["ids"]))

    def wake(self, ids: Sequence[str] = ()) -> None:
        """Answer all waiting requests soon: this node has accepted envelopes.

        One that comes later has read them: it is not answered without further news.
        """
        self._woken |= self._waiting
        self._waiting = {}
        if self._woken and self._wake_up is None:
            loop = asyncio.get_running_loop()
            self._wake_up = loop.call_later(COALESCING_SECONDS, self._answer_all)

    def end(self, peer: str) -> None:
        """End the waiting request of a peer, if it has one: its page may be empty."""
        for requests in (self._waiting, self._woken):
            waiting = requests.pop(peer, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _answer_all(self) -> None:
        self._wake_up = None
        woken, self._woken = self._woken, {}
        for waiting in woken.values():
            if not waiting.done():
                waiting.set_result(None)

    async def _news(self, peer: str, seconds: float) -> None:
        """Wait until there may be something new, or until a peer's wait has ended otherwise."""
        self.end(peer)
        waiting = self._waiting[peer] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            for requests in (self._waiting, self._woken):
                if requests.get(peer) is waiting:
                    del requests[peer]

    def _page(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the page after the request's cursor; one of another feed counts as 0."""
        feed = self._journal.feed_id
        cursor = request["cursor"] if request["feed"] == feed else 0
        rows = self._journal.feed(cursor, min(request["limit"], MAX_PAGE_IDS))
        return {
            "feed": feed,
            "cursor": rows[-1][0] if rows else cursor,
            "ids": [id_ for _, id_ in rows],
        }

    def _envelopes(self, ids: list[str]) -> bytes:
        # The stored envelopes are sent as they are: parsing and encoding them again would take a
        # hundred times as long.
        texts: list[str] = []
        gone: list[str] = []
        room = DOCUMENT_LIMIT - OVERHEAD_BYTES
        for id_ in ids:
            text = self._journal.envelope(id_)
            if text is None:
                gone.append(f'"{id_}"')
            elif (room := room - len(text.encode()) - 1) < 0:
                break
            else:
                texts.append(text)
        return f'{{"envelopes":[{",".join(texts)}],"gone":[{",".join(gone)}]}}'.encode()


def feed_request(feed: str, cursor: int, limit: int = MAX_PAGE_IDS, wait: int = 0) -> Document:
    """Return a request for the page of `feed` after `cursor`; `wait` is in seconds, 0 to 60."""
    return {"feed": feed, "cursor": cursor, "limit": limit, "wait": wait}
