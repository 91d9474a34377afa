"""The Python client: it submits tasks from a peer of its own and trusts no node.

    async with Client.connect(network, peers) as client:
        submission = await client.submit("text-to-music", {"model": …, "prompt": …, "seed": 42})
        result = await submission.result()

It verifies the certificate against the caller's network document, and the audio against the
certificate. A node that lies, stalls or disconnects can delay a result but not forge one.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client import arguments
from node.client.arguments import InvalidArgument
from node.client.inputs import InputFile, read_inputs
from node.client.nodes import (
    HelloAnswer,
    NoNodeReachable,
    describe_foreign,
    say_hello,
    submit_to_nodes,
    why_not_ready,
)
from node.client.result import Result, Waveform, waveform_of
from node.client.submission import GenerationFailed, Submission, sign_task
from node.client.task_lookup import find_task
from node.client.withdrawal import withdraw
from node.clock import Clock, SystemClock
from node.log import get_logger
from node.rpc.codec import ProtocolViolation, protocol_id
from node.rpc.dispatcher import Dispatcher, hello_handler
from node.rpc.hello import INSTANCE_BYTES, Greeter, ServingStatus
from node.sync.blob_download import BlobDownloader, BlobUnavailable
from node.sync.dialer import DialFailures, keep_connected, peer_in
from node.sync.first_answers import first_answers
from node.sync.task_tracker import TaskTracker
from node.transport.interface import Stream, Transport, ValidationResult, topics
from protocol.consensus.certificate import Certificate
from protocol.manifest import SCORE, Blob, blob_of, outputs_of, tokens_of
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Message, Task
from protocol.wire.signing import peer_of
from schemas.errors import describe_value

log = get_logger("client")

# The time to wait for a first connection, in seconds: several dials with back-off.
CONNECT_SECONDS = 15.0
# Once one node is connected, the time that the others may still take, in seconds.
_SLOW_NODE_SECONDS = 3.0
_POLL_SECONDS = 0.05
# How long a submission waits for a ready node: a worker of transformers starts in 5 to 15 s.
READY_SECONDS = 30.0
# Pauses in seconds between questions whether a node is ready.
_READY_POLL_SECONDS = 1.0
# Pauses in seconds before a download is retried. The dialer notices a lost connection within a
# second, and dials again at once.
_RETRY_PAUSES = (2.0, 4.0)


class Client:
    """A peer that has a network document and is connected to some of the network's nodes."""

    def __init__(
        self,
        network: Network,
        transport: Transport,
        key: Ed25519PrivateKey,
        clock: Clock,
        entropy: Callable[[int], bytes],
        peers: Sequence[str],
    ) -> None:
        """Use `Client.connect`. This constructor needs a transport that has started."""
        self.network, self.transport, self.clock = network, transport, clock
        self._peers = peers
        self._dial_failures = DialFailures()
        self.foreign_nodes: Mapping[str, str] = {}
        """Nodes that are of another network, with its id, when they were asked last."""
        self._key, self._entropy = key, entropy
        self._downloader = BlobDownloader(transport)
        instance = entropy(INSTANCE_BYTES).hex()
        self._greeter = Greeter(network, transport.peer, instance, clock.now, _serves_nothing)
        self._rng = random.Random(entropy(8))  # noqa: S311  # orders nodes, and spreads dials

    @staticmethod
    @asynccontextmanager
    async def connect(
        network: Network | bytes,
        peers: Sequence[str],
        *,
        key: Ed25519PrivateKey | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> AsyncIterator["Client"]:
        """Connect to nodes, and disconnect at the end of the `async with` block.

        Args:
            network: the network document, parsed or as bytes.
            peers: multiaddrs of nodes, each ending in /p2p/<peer id>. One of them must answer.
            key: signs the tasks. Without it, a new key is generated, and is lost at the end. The
                connections always have a new key, so that several clients may share this one.
            transport: replaces libp2p, in tests.
            clock: replaces the system clock, in tests.
            entropy: returns n random bytes; replaces the operating system's, in tests.

        Raises:
            NoNodeReachable: no node answered within `CONNECT_SECONDS`.
            InvalidArgument: an address is not a multiaddr with a peer id, or another argument is of
                a wrong type.
            Rejected: the network document is not valid.
        """
        document = _network_of(network)
        peers = arguments.addresses(peers)
        # Before anything is started: a malformed address would fail only inside the dialer.
        for address in peers:
            try:
                peer_in(address)
            except ValueError as error:
                raise InvalidArgument(f"peers: {error}") from None
        if not isinstance(key, Ed25519PrivateKey | None):
            raise InvalidArgument(f"key: must be an Ed25519PrivateKey, not {describe_value(key)}")
        key = key or Ed25519PrivateKey.generate()
        transport = transport or _libp2p(Ed25519PrivateKey.generate())
        client = Client(document, transport, key, clock or SystemClock(), entropy, peers)
        # A client joins no topic; it only publishes withdrawals. It serves what every peer must.
        listener = _ClientListener(Dispatcher({"hello": hello_handler(client._greeter)}))
        protocols = (protocol_id("hello"),)
        await transport.start(listener, (), protocols, topics(document.id)[1:])
        dialer = asyncio.create_task(
            keep_connected(transport, peers, client._rng, client._dial_failures)
        )
        try:
            await client._wait_connected()
            yield client
        finally:
            dialer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await dialer
            await transport.stop()

    async def _wait_connected(self) -> None:
        """Wait until all peers are connected, or some are and the others are slow."""
        peers = self._peers
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not {peer_in(address) for address in peers} <= self.transport.peers():
            waited = loop.time() - start
            if waited > CONNECT_SECONDS:
                break
            if self.transport.peers() and waited > _SLOW_NODE_SECONDS:
                break
            await asyncio.sleep(_POLL_SECONDS)
        if not self.transport.peers():
            if not peers:
                raise NoNodeReachable("no node can be reached: peers is empty")
            raise NoNodeReachable(f"no node can be reached: {self._dial_failures.describe(peers)}")

    @property
    def requester(self) -> str:
        """The peer id that the tasks of this client have as their requester."""
        return peer_of(self._key)

    async def query_nodes(self) -> list[HelloAnswer]:
        """Return the `hello` answers of the connected nodes of this network, by peer id.

        Nodes that take seconds longer than the first one are left out. Those of another network
        are in `foreign_nodes` then.
        """
        request = self._greeter.request()
        answers = await first_answers(
            say_hello(self.transport, peer, request) for peer in sorted(self.transport.peers())
        )
        own = self.network.id
        # A node at a known address may have joined another network since.
        self.foreign_nodes = {a.peer: a.network for a in answers if a.network != own}
        return [answer for answer in answers if answer.network == own]

    async def submit(
        self,
        kind: str,
        args: Document,
        *,
        audio: Sequence[Path | str | bytes | InputFile] = (),
        seconds: float | None = None,
        compute_class: str | None = None,
        deadline: int | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> Submission:
        """Sign a task and hand it, with its input files, to ready nodes.

        If no node is ready yet, it waits for one, for at most `READY_SECONDS`.

        Args:
            kind: "text-to-music" or "pop2piano".
            args: the kind's arguments, as its schema describes them.
            audio: WAV or FLAC files of a pop2piano task, or their bytes; they set args["audio"].
                They are decoded here first, as the members will.
            seconds: the length of the audio; sets max_new_tokens for the model.
            compute_class: the class to compute on. None takes the only one that can run the task,
                or of several the one for its model (`submission.choose_class`).
            deadline: seconds until the task expires. The default leaves time for three attempts and
                the members' queues, as far as the network allows.
            on_wait: called with the nodes' reasons when the wait for a ready node begins.

        Raises:
            InvalidArgument: an argument is of a wrong type or form, an audio file cannot be read or
                is no WAV or FLAC, or no number of tokens gives `seconds`; the detail names it.
            Rejected: the task is not valid for the network document; the detail names the field.
            TaskRejected: the nodes refused the task.
            NoNodeReachable: no node is ready, or none can be reached.
        """
        args = arguments.members(args)
        length = arguments.seconds(seconds)
        if length is not None:
            try:
                args = self.network.with_max_new_tokens(args, length)
            except ValueError as error:
                raise InvalidArgument(f"seconds: {error}") from None
        # In a thread: decoding minutes of audio would stall the connections.
        inputs = await asyncio.to_thread(read_inputs, audio, self.network, args.get("model"))
        if inputs:
            args = {**args, "audio": [file.reference for file in inputs]}

        def sign() -> Task:
            return self.sign_task(kind, args, compute_class=compute_class, deadline=deadline)

        sign()  # a task that is not valid is refused before the wait
        ready = await self._wait_ready(on_wait)
        # After the wait, which must not count against the deadline.
        return await self._submit_to(ready, sign(), [file.content for file in inputs])

    def sign_task(
        self,
        kind: str,
        args: Document,
        *,
        compute_class: str | None = None,
        deadline: int | None = None,
    ) -> Task:
        """Return a signed task without sending it; the arguments are those of `submit`.

        Raises:
            InvalidArgument: an argument is of a wrong type or form; the detail names it.
            Rejected: the task is not valid for the network document; the detail names the field.
        """
        return sign_task(
            self.network,
            self._key,
            kind,
            args,
            compute_class=compute_class,
            deadline=deadline,
            # The network document bounds how far ahead of the nodes' clocks this may be.
            created=int(self.clock.now() * 1000),
            nonce=self._entropy(16).hex(),
        )

    async def submit_task(self, task: Task, blobs: Sequence[bytes] = ()) -> Submission:
        """Hand a signed task, with its input files, to ready nodes.

        Raises:
            TaskRejected: the nodes refused the task.
            NoNodeReachable: no node is ready, or none can be reached.
        """
        return await self._submit_to(await self._wait_ready(None), task, blobs)

    async def _submit_to(
        self, ready: Sequence[str], task: Task, blobs: Sequence[bytes]
    ) -> Submission:
        await submit_to_nodes(self.transport, ready, task, blobs, self._rng)
        return self._submission(task.id, task)

    async def _wait_ready(self, on_wait: Callable[[str], None] | None) -> list[str]:
        """Return the ready nodes. A network that was started just now gets time to become ready."""
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_SECONDS
        while True:
            if not self.transport.peers():  # all connections were lost; the dialer dials again
                await self._wait_connected()
            nodes = await self.query_nodes()
            self.check_network(nodes)
            ready = [node.peer for node in nodes if node.ready]
            if ready:
                return ready
            reasons = why_not_ready(nodes)
            if loop.time() >= end:
                raise NoNodeReachable(reasons)
            if on_wait:
                on_wait(reasons)
                on_wait = None
            await asyncio.sleep(_READY_POLL_SECONDS)

    def check_network(self, nodes: Sequence[HelloAnswer]) -> None:
        """Raise NoNodeReachable if all nodes that answered `query_nodes` are of another network."""
        if not nodes and self.foreign_nodes:
            raise NoNodeReachable(describe_foreign(self.foreign_nodes, self.network.id))

    async def cancel(self, task_id: str) -> frozenset[str]:
        """Withdraw a task of this client's key; return the nodes that show the withdrawal.

        It is a request: members that have begun to execute the task go on.

        Raises:
            InvalidArgument: it is no task id.
            UnknownTask: no connected node knows the task.
            Rejected: the task's requester is another key.
            WithdrawalNotShown: too few nodes have shown the withdrawal in time.
        """
        tracker = self.follow(task_id).tracker
        return await withdraw(self.network, self.transport, self.clock, self._key, tracker)

    async def find_task(self, prefix: str) -> str:
        """Return the id of the task that begins with `prefix`, 8 to 64 hex digits.

        Raises:
            InvalidArgument: it is no beginning of an id, or of several.
            UnknownTask: no connected node has it among its recent tasks.
            NoNodeReachable: all nodes that answer are of another network.
        """
        prefix = arguments.task_prefix(prefix)
        # Nodes of another network may have a task that begins so, whose votes are not valid here.
        self.check_network(await self.query_nodes())
        if len(prefix) == arguments.ID_DIGITS:
            return prefix
        return await find_task(self.transport, sorted(self.transport.peers()), prefix)

    def follow(self, task_id: str) -> Submission:
        """Return the submission of a task by its id (64 hex digits), whoever submitted it.

        Raises InvalidArgument if it is no task id.
        """
        return self._submission(arguments.task_id(task_id), None)

    def _submission(self, task_id: str, task: Task | None) -> Submission:
        tracker = TaskTracker(self.network, self.transport, self.clock, task_id, task)
        return Submission(task_id, tracker, self.fetch)

    async def fetch(self, certificate: Certificate) -> Result:
        """Fetch the blobs that a certificate names, from its signers first, and verify them.

        Raises:
            GenerationFailed: the certificate is of an agreed error.
            BlobUnavailable: no connected node served the right bytes.
            AudioMismatch: an output is not the waveform that the manifest describes.
        """
        if "error" in certificate.outcome:
            raise GenerationFailed(str(certificate.outcome["error"]), certificate)
        outputs = outputs_of(certificate.outcome)
        waveforms: list[Waveform] = []
        scores: list[bytes] = []
        tokens: list[bytes] = []
        for output in outputs:
            payload = await self._download(blob_of(output), certificate.signers)
            blob = tokens_of(output)
            if blob is not None:
                tokens.append(await self._download(blob, certificate.signers))
            if output["media"] == SCORE:
                scores.append(payload)
            else:
                waveforms.append(waveform_of(payload, output))
        return Result(tuple(waveforms), certificate, tuple(scores), tuple(tokens))

    async def fetch_blob(self, blob: Blob, preferred: Sequence[str]) -> bytes:
        """Return the verified bytes that a manifest names, from the `preferred` peers first.

        Raises:
            BlobUnavailable: no connected node served the right bytes.
            ProtocolViolation: the blob is larger than the network allows.
        """
        limit = self.network.parameters.max_output_bytes
        if blob.size > limit:
            raise ProtocolViolation(f"an output of {blob.size} bytes, the network allows {limit}")
        peers = sorted(self.transport.peers())
        return await self._downloader.fetch(blob, peers, lambda peer: peer not in preferred)

    async def _download(self, blob: Blob, signers: Sequence[str]) -> bytes:
        """Fetch certified bytes; retry, because some node has them and connections recover."""
        for pause in _RETRY_PAUSES:
            try:
                return await self.fetch_blob(blob, signers)
            except BlobUnavailable as error:
                log.warning(
                    "retrying blob download", sha256=blob.sha256, seconds=pause, error=str(error)
                )
                await asyncio.sleep(pause)
        return await self.fetch_blob(blob, signers)


class _ClientListener:
    """A client joins no topic, and serves hello alone."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        return ValidationResult.IGNORE, None

    def on_gossip(self, peer: str, message: Message) -> None:
        return

    async def serve(self, protocol: str, stream: Stream) -> None:
        await self._dispatcher.serve(protocol, stream)

    def connected(self, peer: str) -> None:
        log.debug("connected", peer=peer)

    def disconnected(self, peer: str) -> None:
        log.debug("disconnected", peer=peer)


def _serves_nothing() -> ServingStatus:
    return ServingStatus({}, ("a client executes no tasks",))


def _network_of(network: object) -> Network:
    """Return a network, parsed. Raises InvalidArgument for another type, Rejected as `parse`."""
    match network:
        case Network():
            return network
        case bytes() | bytearray():
            return Network.parse(bytes(network))
    described = describe_value(network)
    raise InvalidArgument(f"network: must be a Network or the document's bytes, not {described}")


def _libp2p(key: Ed25519PrivateKey) -> Transport:
    # Its import takes what an application has set at its logger, and writes to standard error.
    logger = logging.getLogger("libp2p")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    from node.transport.libp2p.transport import Libp2pTransport  # half a second to import

    logger.handlers[:], logger.propagate = handlers, propagate
    # It logs each lost peer as an error. An application that has set a level keeps it.
    logger.setLevel(level or logging.CRITICAL)
    return Libp2pTransport(key.private_bytes_raw(), "/ip4/127.0.0.1/tcp/0")
