"""A network in virtual time of one real node, and members that speak by a script.

Of each task only the committee speaks, with real keys and signatures. All members list all of it in
their feeds, and some gossip it to the node, as its mesh would.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest import mock

from node.consensus.coordinator import Coordinator
from node.rpc import codec as rpc_codec
from node.rpc.codec import answer, answer_encoded, read_document
from node.sync.feeds.selection import MESH_MEMBERS
from node.transport.interface import Stream, ValidationResult, topics
from protocol.consensus import committee as ranks
from protocol.consensus.committee import committees
from protocol.wire import codec, messages, signing
from protocol.wire.messages import Message, Task
from protocol.wire.signing import sign
from scripts.bench_tool.large.roster import Roster
from tests.simulation import doubles
from tests.simulation.network import SimulatedNetwork, SimulatedNode
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryTransport

# The real node is the first member.
ME = 0
# Virtual seconds after a task at which its committee commits and reveals. The node itself executes
# for three to eight.
COMMIT_SECONDS, REVEAL_SECONDS = 9.0, 12.0
DEADLINE_SECONDS = 60
REQUESTER = 1_000_000  # the number of its key: no roster is so large
FEED = "shared"
COALESCING_SECONDS = 0.05


class History:
    """All envelopes that the members have accepted, in one order, and who waits for more."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._texts: dict[str, str] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def add(self, message: Message) -> None:
        """Accept an envelope; wake the readers that wait, a moment later."""
        envelope = message.envelope
        self.ids.append(envelope.id)
        self._texts[envelope.id] = envelope.encode().decode()
        asyncio.get_running_loop().call_later(COALESCING_SECONDS, self._wake)

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def page(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request for a page."""
        cursor = request["cursor"] if request["feed"] == FEED else 0
        if cursor >= len(self.ids) and request["wait"]:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            await asyncio.wait([waiting], timeout=request["wait"])
            self._waiting.discard(waiting)
        ids = self.ids[cursor : cursor + min(request["limit"], 1024)]
        return {"feed": FEED, "cursor": cursor + len(ids), "ids": ids}

    def envelopes(self, ids: Sequence[str]) -> bytes:
        """Return the answer to a request for envelopes, which are small here."""
        return f'{{"envelopes":[{",".join(self._texts[id_] for id_ in ids)}],"gone":[]}}'.encode()


class _Counted:
    """A stream that counts its bytes."""

    def __init__(self, stream: Stream, counts: Counter[str]) -> None:
        self._stream, self._counts = stream, counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read_exactly(self, n: int) -> bytes:
        payload = await self._stream.read_exactly(n)
        self._counts["stream_bytes"] += len(payload)
        return payload

    async def write(self, payload: bytes) -> None:
        self._counts["stream_bytes"] += len(payload)
        await self._stream.write(payload)


class _Member:
    """A member that answers hello, and lists and gives the shared history."""

    def __init__(self, network: str, history: History, counts: Counter[str]) -> None:
        self._network, self._history, self._counts = network, history, counts

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        return ValidationResult.IGNORE, None

    def on_gossip(self, peer: str, message: Message) -> None:
        pass

    async def serve(self, protocol: str, stream: Stream) -> None:
        name = protocol.rpartition("/")[2]
        counted: Any = _Counted(stream, self._counts)
        self._counts["requests"] += 1
        request = await read_document(counted, f"{name}-request")
        if name == "feed":
            page = await self._history.page(request)
            self._counts["ids"] += len(page["ids"])
            await answer(counted, page)
        elif name == "envelopes":
            self._counts["envelopes"] += len(request["ids"])
            await answer_encoded(counted, self._history.envelopes(request["ids"]))
        else:
            document = fixtures.hello_answer(self._network, time=int(fixtures.START * 1000))
            await answer(counted, document)

    def connected(self, peer: str) -> None:
        pass

    def disconnected(self, peer: str) -> None:
        pass


class _MeshTransport(MemoryTransport):
    """Gossips to the members of its mesh alone, and counts what it sends."""

    counts: Counter[str]

    def _forward(self, topic: str, payload: bytes, source: str = "") -> None:
        for peer in list(self._streams)[:MESH_MEMBERS]:
            if peer != source:
                self.counts["sent"] += 1
                self.counts["gossip_bytes"] += len(payload)
                self._network.send(self.peer, peer, topic, payload)


class _Node(SimulatedNode):
    """The real node."""

    counts: Counter[str]

    def make_transport(self) -> MemoryTransport:
        transport = _MeshTransport(self._world.medium, self.peer)
        transport.counts = self.counts
        return transport

    def skew(self) -> float:
        return 0.0


class World:
    """One real node and the members round it."""

    def __init__(self, roster: Roster, seed: int) -> None:
        self.roster, self.network = roster, roster.network
        self.counts: Counter[str] = Counter()
        self.history = History()
        self.simulated = SimulatedNetwork(seed, roster.network)
        self.me = fixtures.peer(ME)
        self._made = 0

    async def start(self) -> None:
        """Start all members, then the node."""
        protocols = [rpc_codec.protocol_id(name) for name in ("hello", "feed", "envelopes")]
        listener = _Member(self.network.id, self.history, self.counts)
        for peer in self.roster.keys:
            if peer != self.me:
                transport = MemoryTransport(self.simulated.medium, peer)
                await transport.start(listener, topics(self.network.id), protocols)
        self.node = _Node(self.simulated, ME, "honest")
        self.node.counts = self.counts
        await self.start_node()

    async def start_node(self) -> None:
        """Start the node, and wait until it is connected as it wants to be.

        It does not hold its votes: it would connect to all members first.
        """
        with mock.patch.object(Coordinator, "hold_votes"):
            await self.node.start()
        await asyncio.sleep(5)

    @property
    def coordinator(self) -> Any:
        """The node's coordinator."""
        return self.node.coordinator

    @property
    def followed(self) -> set[str]:
        """The members whose feeds the node reads."""
        node: Any = self.node.node
        return set(node._feeds._followers)

    async def draw_again(self) -> None:
        """Let the node follow other members, as it does every hour."""
        node: Any = self.node.node
        node._feeds._selection.draw()
        node._feeds.update()
        await asyncio.sleep(60)

    async def task(self, *, gossips: bool = True) -> Task:
        """Let a task be asked, and its committee vote on it; return it when that is done."""
        loop = asyncio.get_running_loop()
        now = fixtures.START + loop.time()
        self._made += 1
        task = self._asked(now)
        others = [peer for peer in committees(self.network, task)[0] if peer != self.me]
        self._say(task, gossips)
        outcome = doubles.outcome(task.args)
        digest = messages.outcome_digest(outcome)
        commits = {
            peer: messages.commitment(task.id, 0, peer, digest, fixtures.salt(peer))
            for peer in others
        }
        await asyncio.sleep(COMMIT_SECONDS)
        for peer, commitment in commits.items():
            body = messages.commit_body(self.network.id, task.id, 0, commitment)
            self._say(self._signed(body, peer), gossips)
        await asyncio.sleep(REVEAL_SECONDS - COMMIT_SECONDS)
        for peer in others:
            body = messages.reveal_body(
                self.network.id, task.id, 0, outcome, fixtures.salt(peer), commits, {"seconds": 1}
            )
            self._say(self._signed(body, peer), gossips)
        await asyncio.sleep(1)
        return task

    def _asked(self, now: float) -> Task:
        body = messages.task_body(
            self.network.id,
            "text-to-music",
            fixtures.args(),
            fixtures.CLASS,
            int(1000 * now),
            DEADLINE_SECONDS,
            f"{self._made:032x}",
            fixtures.peer(REQUESTER),
        )
        task = codec.build_message(sign(body, fixtures.key(REQUESTER)))
        assert isinstance(task, Task)
        return task

    def _signed(self, body: Any, peer: str) -> Message:
        return codec.build_message(sign(body, self.roster.keys[peer]))

    def _say(self, message: Message, gossips: bool) -> None:
        """Put a message into all members' feeds; the node's mesh gossips it to the node."""
        if gossips:
            self._gossip(message)
        self.history.add(message)

    def _gossip(self, message: Message) -> None:
        payload = message.envelope.encode()
        topic = topics(self.network.id)[0 if isinstance(message, Task) else 1]
        transport = self.simulated.medium.transport(self.me)
        for peer in sorted(transport.peers() if transport else ())[:MESH_MEMBERS]:
            self.counts["received"] += 1
            self.counts["gossip_bytes"] += len(payload)
            self.simulated.medium.send(peer, self.me, topic, payload)

    def journal_bytes(self) -> int:
        """Return the bytes of the node's database, without free pages."""
        names = ("page_count", "freelist_count", "page_size")
        connection = self.node.journal._db
        count, free, size = (connection.execute(f"PRAGMA {n}").fetchone()[0] for n in names)
        return int((count - free) * size)


@asynccontextmanager
async def world(roster: Roster, seed: int = 0) -> AsyncIterator[World]:
    """Run a world whose node votes."""
    made = World(roster, seed)
    await made.start()
    try:
        yield made
    finally:
        await made.node.crash()


@contextmanager
def counting(counts: Counter[str]) -> Iterator[None]:
    """Count signature checks, and rankings of a roster, of this process."""
    check, rank = signing.check_signature, ranks.ranking

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting_call(*arguments: Any) -> Any:
            counts[name] += 1
            return call(*arguments)

        return counting_call

    signing.check_signature = counted("signature_checks", check)
    ranks.ranking = counted("rankings", rank)
    try:
        yield
    finally:
        signing.check_signature, ranks.ranking = check, rank


class Meter:
    """What the node has cost from now on: processor time of this process, and counts."""

    def __init__(self, world: World) -> None:
        self._world, self._counts = world, Counter(world.counts)
        self._journal = world.journal_bytes()
        self._processor = time.process_time()
        self._began = asyncio.get_running_loop().time()

    def read(self) -> dict[str, float]:
        """Return the figures since the start; seconds of processor time, bytes, virtual seconds."""
        counts = self._world.counts
        return {
            "seconds": asyncio.get_running_loop().time() - self._began,
            "processor": time.process_time() - self._processor,
            "journal_bytes": self._world.journal_bytes() - self._journal,
            **{name: counts[name] - self._counts[name] for name in NAMES},
        }


NAMES = (
    "received",
    "sent",
    "gossip_bytes",
    "requests",
    "stream_bytes",
    "ids",
    "envelopes",
    "signature_checks",
    "rankings",
)
