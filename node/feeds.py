"""Reading other nodes' feeds, so that what gossip lost arrives all the same (specification 7)."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from node.actions import Action
from node.coordinator import Busy, Coordinator
from node.requests import Misbehaved, Refused, ask
from node.store import Store
from node.transport.base import Transport
from node.version import AGENT
from protocol.canonical import Document, canonical
from protocol.errors import Rejected, Rejection

log = structlog.get_logger("feeds")

BATCH = 256  # envelopes asked for at once; an answer is bounded by its size anyway
BARREN = 8  # batches in a row with nothing new, after which a feed, endless perhaps, has to wait
PATIENCE = 8  # a peer without a feed (a client, say) is asked that many times less often

# What an honest node may have accepted though we do not, now or any more.
_HARMLESS = (Rejection.UNKNOWN_TASK, Rejection.EXPIRED)


@dataclass(frozen=True, slots=True)
class Batch:
    """One answer to a feed request: what stands in a feed up to a cursor."""

    feed: str
    cursor: int
    envelopes: tuple[bytes, ...]


class Feeds:
    """Follows the feeds of all connected peers of this network."""

    def __init__(
        self,
        transport: Transport,
        coordinator: Coordinator,
        store: Store,
        seconds: float,
        act: Callable[[list[Action]], None],
    ) -> None:
        """Each feed is read on connecting and every `seconds`; `act` takes what follows from it."""
        self._transport, self._coordinator, self._store = transport, coordinator, store
        self._seconds, self._act = seconds, act
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, set[str]] = {}  # for certificates of which tasks, by peer

    def follow(self, peer: str) -> None:
        """Read a peer's feed from now on; called when it connects."""
        if peer not in self._followers:
            self._followers[peer] = asyncio.create_task(self._follow(peer))

    def leave(self, peer: str) -> None:
        """Stop reading; called when the peer disconnects."""
        self._asked.pop(peer, None)
        follower = self._followers.pop(peer, None)
        if follower is not None:
            follower.cancel()

    def close(self) -> None:
        """Stop reading all feeds."""
        for peer in list(self._followers):
            self.leave(peer)

    async def _follow(self, peer: str) -> None:
        greeted = False
        while True:
            pause = self._seconds
            try:
                greeted = greeted or await self._same_network(peer)
                if not greeted:
                    return
                await self.read_on(peer)
            except (Refused, Misbehaved, ConnectionError) as error:
                log.debug("feed not read", peer=peer, error=str(error))
                pause *= PATIENCE
            except sqlite3.Error as error:
                log.error("the store failed", error=str(error))
            except Exception:
                log.exception("a fault of ours in reading a feed", peer=peer)
            await asyncio.sleep(pause)

    async def read_on(self, peer: str) -> None:
        """Read until the end, or until it has brought nothing new for a while.

        Then ask the peer for what a feed alone may not show.
        """
        barren = 0
        while barren < BARREN:
            tip = self._store.tip()
            if not await self.read(peer):
                break
            barren = 0 if self._store.tip() > tip else barren + 1
        await self._read_certificates(peer)

    async def _read_certificates(self, peer: str) -> None:
        """Ask for the certificates of tasks of which votes may be missing here (correction 6h).

        Those are the tasks in which a member contradicted itself; a peer is asked anew when its
        feed has brought a vote, as that may have completed a certificate there.
        """
        asked = self._asked.setdefault(peer, set())
        asked &= self._coordinator.contradicted
        for task in sorted(self._coordinator.contradicted - asked):
            shown = await self._fetch_certificate(peer, task)
            if shown is not None:
                try:
                    self._act(self._coordinator.certified(shown))
                except Rejected as rejected:
                    raise Misbehaved(f"the certificate it shows is none: {rejected}") from None
            asked.add(task)

    async def _same_network(self, peer: str) -> bool:
        network = self._coordinator.network.id
        greeting = await ask(self._transport, peer, "hello", {"network": network, "agent": AGENT})
        if greeting["network"] == network:
            return True
        log.warning("peer of another network", peer=peer, network=greeting["network"])
        return False

    async def read(self, peer: str) -> bool:
        """Read one batch of a peer's feed; return whether there may be more.

        Raises Misbehaved for a feed with what no honest node accepts, or that does not move on.
        """
        feed, cursor = self._store.cursor(peer)
        batch = await self._fetch(peer, feed, cursor)
        if batch.feed == feed and batch.cursor < cursor:
            raise Misbehaved("the feed went backwards")
        if not batch.envelopes:
            return False
        if batch.feed == feed and batch.cursor == cursor:
            raise Misbehaved("the feed gives envelopes without moving on")
        if len(batch.envelopes) > BATCH:
            raise Misbehaved("the feed gives more than was asked for")
        for envelope in batch.envelopes:
            if not self._take(peer, envelope):
                return False
            await self._breathe()
            self._asked.get(peer, set()).discard(_task_of(envelope))
        self._store.put_cursor(peer, batch.feed, batch.cursor)
        return True

    async def _fetch_certificate(self, peer: str, task: str) -> Document | None:
        try:
            found = await ask(self._transport, peer, "task", {"task": task})
        except Refused as refused:
            if refused.reason == Rejection.UNKNOWN_TASK:
                return None
            raise
        certificate: Document | None = found["certificate"]
        return certificate

    async def _breathe(self) -> None:
        """Let others go on: taking an envelope is a signature check and a write to disk."""
        await asyncio.sleep(0)

    async def _fetch(self, peer: str, feed: str, cursor: int) -> Batch:
        request: Document = {"feed": feed, "cursor": cursor, "limit": BATCH}
        found = await ask(self._transport, peer, "feed", request)
        envelopes = tuple(canonical(e) for e in found["envelopes"])
        return Batch(found["feed"], found["cursor"], envelopes)

    def _take(self, peer: str, envelope: bytes) -> bool:
        """Take one envelope; return False if it must be asked for again later."""
        try:
            self._act(self._coordinator.receive(envelope))
        except Busy:
            return False
        except Rejected as rejected:
            if rejected.reason is Rejection.CREATED_AHEAD:  # our clocks differ: later it will do
                return False
            if rejected.reason not in _HARMLESS:
                raise Misbehaved(f"the feed holds what is not acceptable: {rejected}") from None
            log.debug("skipped from a feed", peer=peer, reason=str(rejected.reason))
        return True


def _task_of(envelope: bytes) -> str:
    """Return the task that an accepted vote is for; "" for a task."""
    return str(json.loads(envelope)["body"].get("task", ""))
