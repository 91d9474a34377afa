"""Synchronises feeds with connected peers, to receive what gossip has lost (specification 7.9).

A feed is the list of the ids of the envelopes that a node has accepted. This node keeps a cursor
per peer, reads each feed from there in pages, and asks for the envelopes that it lacks. At the end
of a feed its request waits at the peer until there is more. Cursors of members are stored. A peer
outside the roster is free to make: its cursor stays in memory, and its feed is read at a bounded
rate.

    an id is     if                                       then
    read         its envelope is in the journal           -
                 it was judged, and will be no other way  -
                 its task is unknown here                 asked for again once the task is accepted
    claimed      a member is being asked for it           waited for, at most `CLAIM_SECONDS`
    lacking      else                                     asked of this peer
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial

from node.admission.lru_dict import LruDict
from node.admission.peer_score import PeerAction
from node.admission.rate_limits import TokenBuckets
from node.consensus.coordinator import Coordinator, Step, Voting
from node.errors import Busy
from node.log import get_logger
from node.rpc.client import ANSWER_SECONDS, RequestRefused, send_request
from node.rpc.codec import ProtocolViolation
from node.rpc.feeds import feed_request
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.sync.feeds.fetching import MAX_IDS, Claims, Page, fetch
from node.sync.feeds.selection import DRAW_SECONDS, Selection
from node.sync.handshakes import HELLO_SECONDS, Handshakes
from node.sync.task_tracker import TaskTracker
from node.transport.interface import Transport
from protocol.consensus.certificate import Certificate
from protocol.errors import Rejected, Rejection
from protocol.wire import codec
from protocol.wire.encoding import Document
from protocol.wire.messages import Message, Reveal, Task

log = get_logger("feed_sync")

# Seconds for which a peer with nothing new holds its answer: the most that it may be asked for.
WAIT_SECONDS = 60
# A malicious peer can serve an endless feed of envelopes we already have. Stop after this many
# useless pages and go on after `feed_seconds`.
MAX_USELESS_PAGES = 8
# The first pause after a page without news, once the feed's end is known: gossip was faster, and
# the next page lists what comes meanwhile. Doubled with each of them, up to `feed_seconds`.
MIN_PAUSE_SECONDS = 0.5
# A page without news costs as much as this many signature checks: the request, 1,024 lookups.
PAGE_COST = 16
# Between an accepted envelope and a new choice of whom to follow: a burst of tasks is one.
UPDATE_SECONDS = 1.0
# Verdicts on envelopes that are not in the journal. 65,536 take about 20 MB, and as many expired
# tasks are not asked of a second member.
MAX_VERDICTS = 65_536
# Envelopes that are made durable in one step: about 10 ms, in which nothing else is done.
BATCH = 16
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
class Verdict:
    """What became of an envelope that is not in the journal."""

    task: str
    is_reveal: bool
    needs_task: bool = False  # it was rejected because its task is unknown


class Progress(Enum):
    """What one page of a feed brought."""

    END = auto()  # nothing: all is read
    NEWS = auto()
    USELESS = auto()  # only what was known, or is not accepted
    STUCK = auto()  # envelopes that this node cannot take yet: the page is to be read again


class FeedSync:
    """Reads the feeds of connected peers of this network: of chosen members, and of strangers."""

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
        selection: Selection,
        on_end: Callable[[str], None] = lambda peer: None,
        batch: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Each feed is read from when its peer connects.

        `seconds` is the pause after a page that could not be taken, and the longest one after
        pages without news; after a failure it is `FAILURE_BACKOFF` times as long.
        `act` carries out the coordinator's effects. `source_of` returns the source to charge for
        the tasks in a peer's feed. `selection` chooses among the members. `on_end` is called with a
        peer whose feed has no more. `batch` makes the steps of a block durable together.
        """
        self._transport, self._coordinator = transport, coordinator
        self._journal, self._ledger = journal, ledger
        self._seconds, self._act, self._source_of = seconds, act, source_of
        self._handshakes, self._on_end, self._batch = handshakes, on_end, batch
        self._members = coordinator.network.roster
        self._cursors: LruDict[str, tuple[str, int]] = LruDict()  # of peers outside the roster
        self._claims = Claims()
        self._verdicts: LruDict[str, Verdict] = LruDict(MAX_VERDICTS)
        clock = coordinator.clock
        self._useless = TokenBuckets(USELESS_PER_SECOND, USELESS_BURST_SECONDS, clock.now)
        # Peers and the ids of the reveals for which they were asked about the task.
        self._asked: LruDict[tuple[str, str], None] = LruDict()
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._connected: dict[str, None] = {}  # peers, in the order in which they connected
        self._foreign: set[str] = set()  # connected peers of another network
        self._selection = selection
        self._update_at: asyncio.TimerHandle | None = None

    def connected(self, peer: str) -> None:
        """Read a peer's feed, if it is chosen. Called when the peer connects."""
        self._connected[peer] = None
        self.update()

    def disconnected(self, peer: str) -> None:
        """Stop reading a peer's feed. Called when the peer disconnects."""
        self._connected.pop(peer, None)
        self._foreign.discard(peer)
        self._leave(peer)
        self._handshakes.forget(peer)
        self.update()

    def note_accepted(self, ids: Sequence[str]) -> None:
        """Choose again soon: other tasks may be open, with other committees."""
        if not self._selection.has_all and self._update_at is None:
            loop = asyncio.get_running_loop()
            self._update_at = loop.call_later(UPDATE_SECONDS, self.update)

    async def run(self) -> None:
        """Draw other members every hour, forever."""
        while True:
            await asyncio.sleep(DRAW_SECONDS)
            self._selection.draw()
            self.update()

    def update(self) -> None:
        """Read the feeds of the peers that are chosen now, and of no other."""
        if self._update_at is not None:
            self._update_at.cancel()
            self._update_at = None
        chosen = self._chosen()
        for peer in [peer for peer in self._followers if peer not in chosen]:
            self._leave(peer)
        for peer in chosen:
            if peer not in self._followers:
                self._followers[peer] = asyncio.create_task(self._follow(peer))

    def wants(self, peers: Sequence[str], unreachable: Collection[str]) -> Sequence[str]:
        """Return those of the peers that its settings name to which this node is to connect."""
        if self._reads_all:
            return peers
        few = self._selection.near(unreachable) | self._voters()
        return [peer for peer in peers if peer in few or peer not in self._members]

    def close(self) -> None:
        """Stop reading all feeds."""
        self._connected.clear()
        self.update()

    def _leave(self, peer: str) -> None:
        follower = self._followers.pop(peer, None)
        if follower is not None:
            follower.cancel()

    @property
    def _reads_all(self) -> bool:
        # A member that starts looks for its own votes in the feeds of a majority (6.12).
        return self._selection.has_all or self._coordinator.voting is Voting.HELD

    def _voters(self) -> frozenset[str]:
        return self._coordinator.voters()

    def _chosen(self) -> list[str]:
        """Return the peers whose feeds are to be read, in the order in which they connected."""
        connected = [peer for peer in self._connected if peer not in self._foreign]
        members = [peer for peer in connected if peer in self._members]
        if not self._reads_all:
            few = {*self._selection.followed(members), *self._voters()}
            members = [peer for peer in members if peer in few]
        strangers = [peer for peer in connected if peer not in self._members]
        return members + strangers[: self._selection.follow]

    async def _follow(self, peer: str) -> None:
        greet_at = 0.0
        pace = _Pace(self._seconds)
        while True:
            try:
                now = asyncio.get_running_loop().time()
                if now >= greet_at:
                    if not await self._handshakes.greet(peer):
                        self._foreign.add(peer)  # it leaves its place to another
                        asyncio.get_running_loop().call_soon(self.update)
                        return
                    greet_at = now + HELLO_SECONDS
                pause = await self._read_one(peer, pace)
            except (RequestRefused, ProtocolViolation, ConnectionError) as error:
                log.debug("feed request failed", peer=peer, error=str(error))
                pause = self._seconds * FAILURE_BACKOFF
            except sqlite3.Error as error:
                self._journal.report(error)
                pause = self._seconds
            except Exception:
                log.exception("internal error while reading feed", peer=peer)
                pause = self._seconds
            await asyncio.sleep(pause)

    async def _read_one(self, peer: str, pace: "_Pace") -> float:
        """Read a page if the peer may be read now; return the seconds until the next one."""
        if debt := self._charge(peer, 0):
            return max(debt, self._seconds)
        began = asyncio.get_running_loop().time()
        progress = await self.read(peer, pace.wait)
        return pace.pause_after(progress, asyncio.get_running_loop().time() - began)

    async def read_to_end(self, peer: str) -> None:
        """Read pages until the end of the feed, or until one cannot be taken yet."""
        while await self.read(peer) in (Progress.NEWS, Progress.USELESS):
            pass

    def _charge(self, peer: str, useless: int) -> float:
        """Charge a peer's source for envelopes without news; return how long it has to wait."""
        if peer in self._members:
            return 0.0
        return self._useless.take_with_debt(self._source_of(peer), useless)

    async def read(self, peer: str, wait: int = 0) -> Progress:
        """Read one page of a peer's feed; at its end, wait for one, `wait` seconds at most.

        Raises ProtocolViolation for a feed that no honest node can have.
        """
        feed, cursor = self._cursor(peer)
        page = await self._request_page(peer, feed, cursor, wait)
        try:
            if page.is_end(feed, cursor):
                self._on_end(peer)
                return Progress.END
        except ValueError as unfit:
            raise self._protocol_violation(peer, str(unfit)) from None
        reading = _Reading(peer, page.ids)
        is_read = await self._take(reading)
        if not reading.news:
            self._charge(peer, PAGE_COST)
        if not is_read:
            return Progress.STUCK
        if peer in self._members:
            await self._ask_about_missing_votes(peer, self._reveals(reading))
            with self._journal.transaction():
                self._ledger.put_cursor(peer, page.feed, page.cursor)
        else:
            self._cursors[peer] = (page.feed, page.cursor)
        return Progress.NEWS if reading.news else Progress.USELESS

    async def _take(self, reading: "_Reading") -> bool:
        """Take what a page lists and this node lacks. Returns whether all of it is read now."""
        while True:
            free, claimed = self._lacking(reading)
            if not free:
                if claimed is None:
                    return True
                await self._claims.released(claimed)
                continue
            # Strangers are free to make. They claim nothing, and thus hold nothing up.
            is_member = reading.peer in self._members
            with self._claims.hold(free) if is_member else contextlib.nullcontext():
                if not await self._fetch(reading, free):
                    return False

    def _lacking(self, reading: "_Reading") -> tuple[list[str], str | None]:
        """Return the next ids to ask for; also one that a member is being asked for, if any.

        The second one may be None although there is one, where the first ones are enough.
        """
        free: list[str] = []
        claimed = None
        for id_ in reading.ids:
            if self._is_read(id_, reading):
                continue
            if not self._claims.free([id_]):
                claimed = claimed or id_
                continue
            free.append(id_)
            if len(free) == MAX_IDS:
                break
        return free, claimed

    async def _fetch(self, reading: "_Reading", ids: Sequence[str]) -> bool:
        """Ask for envelopes and judge them. Returns False if one must be requested again later."""
        peer = reading.peer
        try:
            fetched = await fetch(self._transport, peer, ids)
        except ValueError as unfit:
            raise self._protocol_violation(peer, f"the answer is unfit: {unfit}") from None
        reading.done.update(dict.fromkeys(fetched.gone))
        for start in range(0, len(fetched.envelopes), BATCH):
            violation = None
            with self._batch():
                for id_, envelope in fetched.envelopes[start : start + BATCH]:
                    try:
                        if not self._take_one(reading, id_, envelope):
                            return False
                    except ProtocolViolation as error:  # what came before it is taken
                        violation = error
                        break
            if violation is not None:
                raise violation
            await self._yield_to_loop()
        return True

    def _take_one(self, reading: "_Reading", id_: str, envelope: Document) -> bool:
        """Judge one envelope. Returns False if it must be requested again later."""
        message = self._decode(reading.peer, envelope)
        if message.envelope.id != id_:
            detail = "an envelope has another id than requested"
            raise self._protocol_violation(reading.peer, detail)
        known = self._journal.last_cursor()
        if not self._receive(reading, message):
            return False
        if self._journal.last_cursor() > known:
            reading.news += 1
        else:
            self._charge(reading.peer, 1)
        return True

    def _is_read(self, id_: str, reading: "_Reading") -> bool:
        if id_ in reading.done or self._find(id_, reading) is not None:
            return True
        verdict = self._verdicts.get(id_)
        if verdict is None:
            return False
        return not verdict.needs_task or self._journal.state(verdict.task) is None

    def _find(self, id_: str, reading: "_Reading") -> tuple[str, str] | None:
        """Return the task and the type of an envelope in the journal, which is asked once."""
        row = reading.found.get(id_)
        if row is None:
            row = self._journal.find(id_)
            if row is not None:
                reading.found[id_] = row
        return row

    def _reveals(self, reading: "_Reading") -> list[tuple[str, str]]:
        """Return the ids of the reveals that a page lists, each with its task."""
        reveals = []
        for id_ in reading.ids:
            row = self._find(id_, reading)
            verdict = self._verdicts.get(id_) or reading.done.get(id_)
            if row is not None and row[1] == "reveal":
                reveals.append((id_, row[0]))
            elif row is None and verdict is not None and verdict.is_reveal:
                reveals.append((id_, verdict.task))
        return reveals

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

    async def _ask_about_missing_votes(self, peer: str, reveals: Sequence[tuple[str, str]]) -> None:
        """Ask a member about the tasks of these reveals, once for each reveal that it listed."""
        new = [(id_, task) for id_, task in reveals if (peer, id_) not in self._asked]
        for task in dict.fromkeys(task for _, task in new):  # in their order
            if self._ledger.votes_may_be_missing(task):
                await self._ask_about(peer, task)
                for id_, its_task in new:
                    if its_task == task:
                        self._asked[peer, id_] = None

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
        """Give way to other coroutines: a batch costs signature checks and a disk write."""
        await asyncio.sleep(seconds)

    async def _request_page(self, peer: str, feed: str, cursor: int, wait: int) -> Page:
        request = feed_request(feed, cursor, wait=wait)
        seconds = ANSWER_SECONDS + wait
        answer = await send_request(self._transport, peer, "feed", request, seconds)
        return Page(answer["feed"], answer["cursor"], tuple(answer["ids"]))

    def _decode(self, peer: str, envelope: Document) -> Message:
        try:
            return codec.decode_document(envelope, self._coordinator.network.id)
        except Rejected as rejected:
            raise self._invalid_envelope(peer, rejected) from None

    def _invalid_envelope(self, peer: str, rejected: Rejected) -> ProtocolViolation:
        detail = f"the feed has an invalid envelope: {rejected}"
        return self._protocol_violation(peer, detail, rejected.reason)

    def _receive(self, reading: "_Reading", message: Message) -> bool:
        """Process one message. Returns False if it must be requested again later."""
        peer, id_ = reading.peer, message.envelope.id
        task = message.id if isinstance(message, Task) else message.task
        verdict = Verdict(task, isinstance(message, Reveal))
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
            needs_task = rejected.reason is Rejection.UNKNOWN_TASK
            self._verdicts[id_] = replace(verdict, needs_task=needs_task)
            return True
        self._verdicts.pop(id_, None)
        if self._journal.find(id_) is None:
            if self._journal.contains(message):  # with another signature
                self._verdicts[id_] = verdict
            else:  # a contradicting vote, which may be kept another time (specification 6.4)
                reading.done[id_] = verdict
        return True


@dataclass(slots=True)
class _Reading:
    """One page while it is read."""

    peer: str
    ids: tuple[str, ...]
    # The ids that are gone, or whose verdict holds for this page alone.
    done: dict[str, Verdict | None] = field(default_factory=dict)
    # Of those in the journal, the task and the type: it is not asked again for this page.
    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    news: int = 0


class _Pace:
    """How fast one feed is read: at once while it brings news, else with growing pauses."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_ended, self._useless = False, 0

    @property
    def wait(self) -> int:
        """How long the peer is to hold an answer: at first the feed's end is of interest."""
        return WAIT_SECONDS if self._has_ended else 0

    def pause_after(self, progress: Progress, took: float) -> float:
        """Return the seconds until the next page is requested; the last one took `took`."""
        match progress:
            case Progress.NEWS:
                self._useless = 0
                return 0.0
            case Progress.USELESS:
                self._useless += 1
                if self._has_ended:
                    pause: float = MIN_PAUSE_SECONDS * 2 ** min(self._useless - 1, 16)
                    return min(pause, self._seconds)
                return 0.0 if self._useless % MAX_USELESS_PAGES else self._seconds
            case Progress.END:
                # A peer that does not wait is not asked without end.
                waited, self._has_ended, self._useless = took >= self.wait, True, 0
                return 0.0 if waited else self._seconds
            case Progress.STUCK:
                return self._seconds
