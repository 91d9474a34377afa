"""Pages of feeds, requests for envelopes by their ids, and who is asked for which (7.9)."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from node.rpc.client import send_request
from node.transport.interface import Transport
from protocol.wire.encoding import Document

# Ids in one request for envelopes.
MAX_IDS = 128
# A member that has not given what it listed after this time does not keep others from being asked:
# of a third of the members, all would have to stall in a row to hold an envelope back for long.
CLAIM_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a feed request: the feed's name, ids, and the cursor after them."""

    feed: str
    cursor: int
    ids: tuple[str, ...]

    def is_end(self, feed: str, cursor: int) -> bool:
        """Return whether nothing follows `cursor` of `feed`, which this page was requested with.

        Raises ValueError for a page that no honest node gives.
        """
        start = cursor if self.feed == feed else 0  # a cursor of another feed counts as 0
        if self.cursor < start:
            raise ValueError("the cursor of the feed went backwards")
        if self.ids and self.cursor == start:
            raise ValueError("the feed listed envelopes without a new cursor")
        return self.cursor == start


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an answer says about the first of the requested ids; it may leave the last ones open."""

    envelopes: tuple[tuple[str, Document], ...]  # each with the id that it was requested by
    gone: tuple[str, ...]


async def fetch(transport: Transport, peer: str, ids: Sequence[str]) -> Fetched:
    """Ask a peer for envelopes, at most `MAX_IDS`. Whether each has its id is for the caller.

    Raises ValueError for an answer that no honest node gives, and what `send_request` does.
    """
    return match(ids, await send_request(transport, peer, "envelopes", {"ids": list(ids)}))


def match(ids: Sequence[str], answer: Mapping[str, Any]) -> Fetched:
    """Return the envelopes of an answer with the ids that they were requested by.

    Raises ValueError for an answer that says nothing about the first id, or more than was asked.
    """
    gone = tuple(answer["gone"])
    if not set(gone) <= set(ids):
        raise ValueError("it calls envelopes gone that were not requested")
    named = set(gone)
    expected = [id_ for id_ in ids if id_ not in named]
    envelopes = answer["envelopes"]
    if len(envelopes) > len(expected):
        raise ValueError("it has more envelopes than requested")
    if expected and not envelopes and ids[0] not in named:
        raise ValueError("it neither gives what the feed lists nor calls it gone")
    return Fetched(tuple(zip(expected, envelopes, strict=False)), gone)


class Claims:
    """The ids that members are being asked for, so that no second one is asked meanwhile."""

    def __init__(self) -> None:
        self._claims: dict[str, asyncio.Future[None]] = {}

    def free(self, ids: Sequence[str]) -> list[str]:
        """Return those of `ids` that nobody is being asked for."""
        return [id_ for id_ in ids if id_ not in self._claims]

    @contextmanager
    def hold(self, ids: Sequence[str]) -> Iterator[None]:
        """Claim ids that are free, for the block and at most `CLAIM_SECONDS`."""
        loop = asyncio.get_running_loop()
        claim: asyncio.Future[None] = loop.create_future()
        self._claims.update(dict.fromkeys(ids, claim))
        lapse = loop.call_later(CLAIM_SECONDS, self._release, ids, claim)
        try:
            yield
        finally:
            lapse.cancel()
            self._release(ids, claim)

    async def released(self, id_: str) -> None:
        """Wait until the claim on an id has ended."""
        claim = self._claims.get(id_)
        if claim is not None:
            await asyncio.wait([claim])

    def _release(self, ids: Sequence[str], claim: "asyncio.Future[None]") -> None:
        for id_ in ids:
            if self._claims.get(id_) is claim:
                del self._claims[id_]
        if not claim.done():
            claim.set_result(None)
