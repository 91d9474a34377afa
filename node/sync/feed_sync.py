"""Synchronises feeds with connected peers, to receive what gossip has lost (specification 7.9).

A feed is the list of the envelopes that a node has accepted. This node keeps a cursor per peer and
reads each feed from there in batches. Cursors of members are stored. A peer outside the roster is
free to make: its cursor stays in memory, and its feed is read at a bounded rate.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from node.admission.lru_dict import LruDict
from node.admission.peer_score import PeerAction
from node.admission.rate_limits import TokenBuckets
from node.consensus.coordinator import Coordinator, Step
from node.errors import Busy
from node.log import get_logger
from node.rpc.client import RequestRefused, send_request
from node.rpc.codec import ProtocolViolation
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.handshakes import HELLO_SECONDS, Handshakes
from node.sync.task_tracker import TaskTracker
from node.transport.interface import Transport
from protocol.consensus.certificate import Certificate
from protocol.errors import Rejected, Rejection
from protocol.wire import codec
from protocol.wire.encoding import Document
from protocol.wire.messages import Message, Reveal

log = get_logger("feed_sync")

# Envelopes per request. The size of an answer is bounded separately.
BATCH = 256
# A malicious peer can serve an endless feed of envelopes we already have. Stop after this many
# useless batches and retry after `feed_seconds`.
MAX_EMPTY_BATCHES = 8
# Pause after each request about a task: the answer may hold 1 MiB of signatures to verify.
PAUSE_SECONDS = 0.1
# Envelopes without news per second and source, from peers outside the roster. Each costs a
# signature check of about 0.5 ms. The news in such a feed mostly comes by gossip too.
USELESS_PER_SECOND = 32.0
# What a peer outside the roster may show at once, for example when it connects.
USELESS_BURST_SECONDS = 64.0
# A peer whose feed cannot be read, such as a client, is retried this many times less often.
FAILURE_BACKOFF = 8

# Reasons for which we may reject what an honest peer accepted earlier, or with other settings.
_HARMLESS = (Rejection.UNKNOWN_TASK, Rejection.EXPIRED)
# Reasons for which we may reject what a peer of a newer version accepted.
_NEWER = (Rejection.INVALID_FIELD, Rejection.UNSUPPORTED_KIND, Rejection.OVER_LIMIT)


@dataclass(frozen=True, slots=True)
class Batch:
    """An answer to a feed request: the feed's id, envelopes, and the cursor after them."""

    feed: str
    cursor: int
    envelopes: tuple[Document, ...]


class FeedSync:
    """Reads the feeds of all connected peers of this network."""

    def __init__(
        self,
        transport: Transport,
        coordinator: Coordinator,
        journal: Journal,
        ledger: Ledger,
        seconds: float,
        act: Callable[[Step], None],
        source_of: Callable[[str], str],
        handshakes: Handshakes,
        on_end: Callable[[str], None] = lambda peer: None,
    ) -> None:
        """Each feed is read when its peer connects, and then every `seconds`.

        `act` carries out the coordinator's effects. `source_of` returns the source to charge for
        the tasks in a peer's feed. `on_end` is called with a peer whose feed has no more.
        """
        self._transport, self._coordinator = transport, coordinator
        self._journal, self._ledger = journal, ledger
        self._seconds, self._act, self._source_of = seconds, act, source_of
        self._handshakes, self._on_end = handshakes, on_end
        self._members = coordinator.network.roster
        self._cursors: LruDict[str, tuple[str, int]] = LruDict()  # of peers outside the roster
        clock = coordinator.clock
        self._useless = TokenBuckets(USELESS_PER_SECOND, USELESS_BURST_SECONDS, clock.now)
        # Peers and the reveals for which they were asked about the task.
        self._asked: LruDict[tuple[str, bytes], None] = LruDict()
        self._followers: dict[str, asyncio.Task[None]] = {}

    def follow(self, peer: str) -> None:
        """Start to read a peer's feed. Called when the peer connects."""
        if peer not in self._followers:
            self._followers[peer] = asyncio.create_task(self._follow(peer))

    def leave(self, peer: str) -> None:
        """Stop reading a peer's feed. Called when the peer disconnects."""
        follower = self._followers.pop(peer, None)
        if follower is not None:
            follower.cancel()
        self._handshakes.forget(peer)

    def close(self) -> None:
        """Stop reading all feeds."""
        for peer in list(self._followers):
            self.leave(peer)

    async def _follow(self, peer: str) -> None:
        greet_at = 0.0
        while True:
            pause = self._seconds
            try:
                now = asyncio.get_running_loop().time()
                if now >= greet_at:
                    if not await self._handshakes.greet(peer):
                        return
                    greet_at = now + HELLO_SECONDS
                pause = max(pause, await self.read_to_end(peer))
            except (RequestRefused, ProtocolViolation, ConnectionError) as error:
                log.debug("feed request failed", peer=peer, error=str(error))
                pause *= FAILURE_BACKOFF
            except sqlite3.Error as error:
                self._journal.report(error)
            except Exception:
                log.exception("internal error while reading feed", peer=peer)
            await asyncio.sleep(pause)

    async def read_to_end(self, peer: str) -> float:
        """Read batches until the end of the feed, or until several in a row had nothing new.

        Returns the seconds that the peer's source has to wait, 0 if it has been useful.
        """
        empty_batches = 0
        while empty_batches < MAX_EMPTY_BATCHES and not (wait := self._charge(peer, 0)):
            last_cursor = self._journal.last_cursor()
            if not await self.read(peer):
                return 0.0
            has_news = self._journal.last_cursor() > last_cursor
            empty_batches = 0 if has_news else empty_batches + 1
            self._charge(peer, 0 if has_news else BATCH)
        return wait

    def _charge(self, peer: str, useless: int) -> float:
        """Charge a peer's source for envelopes without news; return how long it has to wait."""
        if peer in self._members:
            return 0.0
        return self._useless.take_with_debt(self._source_of(peer), useless)

    async def read(self, peer: str) -> bool:
        """Read one batch of a peer's feed. Returns whether there may be more.

        Raises ProtocolViolation for a feed that no honest node can have.
        """
        feed, cursor = self._cursor(peer)
        batch = await self._fetch(peer, feed, cursor)
        if batch.feed == feed and batch.cursor < cursor:
            raise self._protocol_violation(peer, "the cursor of the feed went backwards")
        start = cursor if batch.feed == feed else 0  # a cursor of another feed counts as 0
        if batch.cursor == start:
            if not batch.envelopes:
                self._on_end(peer)
                return False
            raise self._protocol_violation(peer, "the feed returned envelopes without a new cursor")
        if len(batch.envelopes) > BATCH:
            raise self._protocol_violation(peer, "the feed returned more envelopes than requested")
        reveals: list[Reveal] = []
        for envelope in batch.envelopes:
            message = self._decode(peer, envelope)
            if not self._receive(peer, message):
                return False
            if isinstance(message, Reveal):
                reveals.append(message)
            await self._yield_to_loop()
        if peer in self._members:
            await self._ask_about_missing_votes(peer, reveals)
            with self._journal.transaction():
                self._ledger.put_cursor(peer, batch.feed, batch.cursor)
        else:
            self._cursors[peer] = (batch.feed, batch.cursor)
        return True

    def _cursor(self, peer: str) -> tuple[str, int]:
        if peer in self._members:
            return self._ledger.cursor(peer)
        return self._cursors.get(peer, ("", 0))

    def _protocol_violation(
        self, peer: str, detail: str, reason: Rejection = Rejection.MALFORMED
    ) -> ProtocolViolation:
        """Penalise the peer for a provably invalid feed, and build the exception to raise."""
        if reason not in _NEWER:
            self._transport.report(peer, PeerAction.INVALID_FEED)
        return ProtocolViolation(detail, reason)

    async def _ask_about_missing_votes(self, peer: str, reveals: Sequence[Reveal]) -> None:
        """Ask a member about the tasks of these reveals, once for each reveal that it showed."""
        new = [r for r in reveals if (peer, r.envelope.body_bytes) not in self._asked]
        for task in dict.fromkeys(reveal.task for reveal in new):  # in their order
            if self._ledger.votes_may_be_missing(task):
                await self._ask_about(peer, task)
                for reveal in new:
                    if reveal.task == task:
                        self._asked[peer, reveal.envelope.body_bytes] = None

    async def _ask_about(self, peer: str, task: str) -> None:
        """Take over a peer's certificates of a task for which votes may be missing here.

        A member equivocated in this task, and this node has kept only some of its votes. The peer
        may hold a certificate with one of the others (specification 6.4).
        """
        for certificate in await self._certificates_of(peer, task):
            self._act(partial(self._coordinator.receive_certificate, certificate))
        await self._yield_to_loop(PAUSE_SECONDS)

    async def _certificates_of(self, peer: str, task: str) -> tuple[Certificate, ...]:
        """Return a peer's verified certificates. Raises ConnectionError if it does not answer."""
        coordinator = self._coordinator
        tracker = TaskTracker(coordinator.network, self._transport, coordinator.clock, task, None)
        if await tracker.poll(peer) is None:
            raise ConnectionError(f"no answer about the task {task}, which is in the peer's feed")
        return tracker.certificates

    async def _yield_to_loop(self, seconds: float = 0.0) -> None:
        """Give way to other coroutines: an envelope costs a signature check and a disk write."""
        await asyncio.sleep(seconds)

    async def _fetch(self, peer: str, feed: str, cursor: int) -> Batch:
        request: Document = {"feed": feed, "cursor": cursor, "limit": BATCH}
        answer = await send_request(self._transport, peer, "feed", request)
        return Batch(answer["feed"], answer["cursor"], tuple(answer["envelopes"]))

    def _decode(self, peer: str, envelope: Document) -> Message:
        try:
            return codec.decode_document(envelope, self._coordinator.network.id)
        except Rejected as rejected:
            raise self._invalid_envelope(peer, rejected) from None

    def _invalid_envelope(self, peer: str, rejected: Rejected) -> ProtocolViolation:
        detail = f"the feed has an invalid envelope: {rejected}"
        return self._protocol_violation(peer, detail, rejected.reason)

    def _receive(self, peer: str, message: Message) -> bool:
        """Process one message. Returns False if it must be requested again later."""
        try:
            self._act(partial(self._coordinator.receive, message, self._source_of(peer)))
        except Busy:
            return False
        except Rejected as rejected:
            if rejected.reason is Rejection.CREATED_AHEAD:
                # The clocks differ. The message becomes acceptable with time.
                return False
            if rejected.reason not in _HARMLESS:
                raise self._invalid_envelope(peer, rejected) from None
            log.debug("envelope skipped", peer=peer, reason=str(rejected.reason))
        return True
