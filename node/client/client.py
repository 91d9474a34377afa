"""Submitting tasks from a peer, and believing nobody about what comes back.

    async with Client.connect(network, peers) as client:
        task = await client.submit("text-to-music", {"model": …, "prompt": …, "seed": 42})
        result = await task.result()

The certificate is verified against the caller's own network document and the bytes against the
certificate; a node that lies, stalls or vanishes costs time, never the truth.
"""

import asyncio
import contextlib
import hashlib
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client.result import Result, Waveform, waveform_of
from node.clock import Clock, SystemClock
from node.config import log_setup
from node.rpc.client import (
    ANSWER_SECONDS,
    UPLOAD_SECONDS,
    ProtocolViolation,
    RequestRefused,
    Status,
    send_request,
)
from node.sync.blob_download import BlobDownloader, BlobUnavailable
from node.sync.dialer import keep_connected, peer_in
from node.sync.task_tracker import NoAgreement, NodeStatus, TaskTracker
from node.transport.interface import Stream, Transport, ValidationResult
from node.version import AGENT
from protocol.consensus.certificate import Certificate
from protocol.errors import Rejected, Rejection
from protocol.manifest import SCORE, Blob, blobs_of, outputs_of
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.codec import decode
from protocol.wire.encoding import Document
from protocol.wire.messages import Task
from protocol.wire.signing import sign
from schemas.errors import HeliumError

log = structlog.get_logger("client")

SUBMIT_TO = 2  # nodes that a task is handed to: one of them may keep it to itself
CONNECT_SECONDS = 15.0
DEFAULT_DEADLINE = 600  # seconds


class NoNodeReachable(HeliumError):
    """No node of the network can be reached, or none that is reached is ready."""


class TaskRejected(HeliumError):
    """Every node asked refused the task; `reason` is from the protocol's list."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class GenerationFailed(HeliumError):
    """The network agrees, with a certificate, that the task has no result; `code` says why.

    `details` are the signers' own words for it, each once; they are not part of the agreement.
    """

    def __init__(self, code: str, certificate: Certificate) -> None:
        super().__init__(f"the members agree that the task fails: {code}")
        self.code, self.certificate = code, certificate
        said = [vote.failure[1] for vote in certificate.votes]
        self.details = tuple(dict.fromkeys(detail for detail in said if detail is not None))


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    """What a node says of itself."""

    peer: str
    agent: str
    compute_class: str | None
    ready: bool
    reasons: tuple[str, ...]
    models: tuple[str, ...]


class Submission:
    """A task on its way: its id and committee, its progress, and at last its result."""

    def __init__(self, client: "Client", task: str, known: Task | None = None) -> None:
        self.id, self._client = task, client
        self._tracker = TaskTracker(client.network, client.transport, client.clock, task, known)

    @property
    def tracker(self) -> TaskTracker:
        """Who has voted what, as far as it is known here."""
        return self._tracker

    def watch(self) -> AsyncIterator[NodeStatus]:
        """Give each change that any node reports, until the task has ended."""
        return self._tracker.watch()

    async def certificate(self) -> Certificate:
        """Wait for the certificate. Raises NoAgreement when the task ends without one."""
        return await self._tracker.certificate()

    async def result(self) -> Result:
        """Wait for the certificate, fetch what it vouches for, and return it, verified.

        Raises NoAgreement, GenerationFailed for an agreed error, or fetching.Unavailable.
        """
        return await self._client.fetch(await self.certificate())


class Client:
    """A peer that holds a network document and is connected with some of its nodes."""

    def __init__(
        self,
        network: Network,
        transport: Transport,
        key: Ed25519PrivateKey,
        clock: Clock,
        entropy: Callable[[int], bytes],
        peers: Sequence[str],
    ) -> None:
        """Use `Client.connect`; this takes a transport that is started already."""
        self.network, self.transport, self.clock = network, transport, clock
        self._peers = peers
        self._key, self._entropy = key, entropy
        self._downloader = BlobDownloader(transport)

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
        """Connect with the nodes at the multiaddrs `peers`, at least one of which must answer.

        `network` is the document, parsed or as bytes; `key` signs the tasks (a fresh one is made if
        none is given). Transport, clock and entropy are the real ones unless a test says otherwise.
        Raises NoNodeReachable, ValueError for a bad address, Rejected for a bad document.
        """
        if not structlog.is_configured():  # used as a library: only what is wrong, on stderr
            log_setup.configure("warning", "auto")
        document = network if isinstance(network, Network) else Network.parse(network)
        for address in peers:
            peer_in(address)
        own = key or Ed25519PrivateKey.generate()
        carrier = transport or _libp2p(own)
        client = Client(document, carrier, own, clock or SystemClock(), entropy, peers)
        await carrier.start(_ClientListener(), (), ())
        keeping = asyncio.create_task(keep_connected(carrier, peers, _seeded_rng(entropy)))
        try:
            await client._reach()
            yield client
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            await carrier.stop()

    async def _reach(self) -> None:
        """Wait until every peer is connected, or some are and the others take too long."""
        peers = self._peers
        loop = asyncio.get_running_loop()
        start = loop.time()
        while len(self.transport.peers()) < len(set(peers)):
            waited = loop.time() - start
            if waited > CONNECT_SECONDS or (self.transport.peers() and waited > _STRAGGLERS):
                break
            await asyncio.sleep(_POLL)
        if not self.transport.peers():
            raise NoNodeReachable(f"none of {', '.join(peers) or 'no addresses'} can be reached")

    async def query_nodes(self) -> list[HelloAnswer]:
        """Ask every connected node of this network about itself."""
        peers = sorted(self.transport.peers())
        found = await asyncio.gather(*(self._query(peer) for peer in peers))
        return [greeting for greeting in found if greeting is not None]

    async def _query(self, peer: str) -> HelloAnswer | None:
        request = {"network": self.network.id, "agent": AGENT}
        try:
            said = await send_request(self.transport, peer, "hello", request)
        except (RequestRefused, ProtocolViolation, ConnectionError) as error:
            log.debug("no greeting", peer=peer, error=str(error))
            return None
        if said["network"] != self.network.id:
            return None
        reasons, models = tuple(said["reasons"]), tuple(said["models"])
        return HelloAnswer(peer, said["agent"], said["class"], said["ready"], reasons, models)

    async def submit(
        self,
        kind: str,
        args: Document,
        *,
        audio: Sequence[Path | bytes] = (),
        seconds: float | None = None,
        compute_class: str | None = None,
        deadline: int | None = None,
    ) -> Submission:
        """Sign a task and hand it, with its input files, to ready nodes.

        `args` as the kind's schema says; `audio` gives the files (or their bytes) of a pop2piano
        task, whose `args` need not name them then; `seconds` of audio stand for max_new_tokens;
        `deadline` in seconds; `compute_class` may be left out where the network has one. Raises
        OSError for a file, ValueError for `seconds` that no tokens give, Rejected if the task is
        not valid for the network document, TaskRejected if the nodes refuse it all the same,
        NoNodeReachable if none is ready.
        """
        if seconds is not None:
            args = self.network.with_max_new_tokens(args, seconds)
        blobs = [
            a if isinstance(a, bytes) else await asyncio.to_thread(a.read_bytes) for a in audio
        ]
        if blobs:
            args = {**args, "audio": [_named(blob) for blob in blobs]}
        task = self.task(kind, args, compute_class=compute_class, deadline=deadline)
        await self._submit_to_nodes(task, blobs)
        return Submission(self, task.id, task)

    def task(
        self,
        kind: str,
        args: Document,
        *,
        compute_class: str | None = None,
        deadline: int | None = None,
    ) -> Task:
        """Return the signed task without sending it. Raises Rejected, naming the field."""
        if deadline is None:
            deadline = min(DEFAULT_DEADLINE, self.network.parameters.max_deadline_seconds)
        body = messages.task_body(
            self.network.id,
            kind,
            args,
            compute_class or self._only_class(),
            int(self.clock.now() * 1000),
            deadline,
            self._entropy(16).hex(),
        )
        task = decode(sign(body, self._key).encode(), self.network.id)
        assert isinstance(task, Task)  # noqa: S101  # its body says so
        self.network.admit(task)
        return task

    def _only_class(self) -> str:
        if len(self.network.classes) != 1:
            raise Rejected(
                Rejection.UNKNOWN_CLASS, f"class: choose one of {', '.join(self.network.classes)}"
            )
        return next(iter(self.network.classes))

    async def _submit_to_nodes(self, task: Task, blobs: Sequence[bytes] = ()) -> None:
        if not self.transport.peers():  # they went away, and are being dialled again
            await self._reach()
        greetings = await self.query_nodes()
        ready = [g.peer for g in greetings if g.ready]
        if not ready:
            raise NoNodeReachable(_unready(greetings))
        taken, refusals = 0, list[RequestRefused]()
        for peer in ready:
            try:
                await self._submit_to(peer, task, blobs)
                taken += 1
            except RequestRefused as refused:
                refusals.append(refused)
            except (ProtocolViolation, ConnectionError) as error:
                log.warning("not submitted", peer=peer, error=str(error))
            if taken == SUBMIT_TO:
                return
        if not taken:
            raise _refusal(refusals)

    async def _submit_to(self, peer: str, task: Task, blobs: Sequence[bytes]) -> None:
        request: Document = {
            "task": task.envelope.document(),
            "blobs": [len(blob) for blob in blobs],
        }
        seconds = UPLOAD_SECONDS if blobs else ANSWER_SECONDS
        answer = await send_request(self.transport, peer, "submit", request, seconds, blobs)
        if answer["task"] != task.id:
            raise ProtocolViolation("the node answered with another task id")

    def follow(self, task: str) -> Submission:
        """Return a task that was submitted earlier, by anyone, by its id (64 hex)."""
        return Submission(self, task)

    async def fetch(self, certificate: Certificate) -> Result:
        """Fetch and check what a certificate vouches for, signers' copies first.

        Raises GenerationFailed for an agreed error, BlobUnavailable if no peer serves the bytes,
        and AudioMismatch for bytes that are not what the certificate says of them.
        """
        if "error" in certificate.outcome:
            raise GenerationFailed(str(certificate.outcome["error"]), certificate)
        outputs = outputs_of(certificate.outcome)
        self._check_size(outputs)
        waveforms: list[Waveform] = []
        scores: list[bytes] = []
        for blob, output in zip(blobs_of(certificate.outcome), outputs, strict=True):
            payload = await self._certified(blob, certificate.signers)
            if output["media"] == SCORE:
                scores.append(payload)
            else:
                waveforms.append(waveform_of(payload, output))
        return Result(tuple(waveforms), certificate, tuple(scores))

    async def blob(self, blob: Blob, holders: Sequence[str]) -> bytes:
        """Fetch the bytes that a manifest names, from `holders` first, and return them, checked.

        Raises BlobUnavailable if no peer serves them, and ProtocolViolation for more than the
        network allows.
        """
        most = self.network.parameters.max_output_bytes
        if blob.size > most:
            raise ProtocolViolation(f"an output of {blob.size} bytes, the network allows {most}")
        return await self._downloader.fetch(blob, sorted(self.transport.peers()), holders)

    async def _certified(self, blob: Blob, signers: Sequence[str]) -> bytes:
        """Fetch what is there somewhere, and do not give up with one connection that died."""
        for pause in _AGAIN:
            try:
                return await self.blob(blob, signers)
            except BlobUnavailable as error:
                log.warning("asking again", sha256=blob.sha256, seconds=pause, error=str(error))
                await asyncio.sleep(pause)
        return await self.blob(blob, signers)

    def _check_size(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        size, most = sum(o["size"] for o in outputs), self.network.parameters.max_output_bytes
        if size > most:
            raise ProtocolViolation(
                f"the certificate names {size} bytes, the network allows {most}"
            )


class _ClientListener:
    """A client's listener: it hears no gossip and serves nothing."""

    def validate(self, topic: str, payload: bytes) -> ValidationResult:
        return ValidationResult.IGNORE

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        return

    async def serve(self, protocol: str, stream: Stream) -> None:
        await stream.reset()

    def connected(self, peer: str) -> None:
        log.debug("connected", peer=peer)

    def disconnected(self, peer: str) -> None:
        log.debug("disconnected", peer=peer)


_POLL = 0.05  # seconds between looks at who is connected
_AGAIN = (2.0, 4.0)  # seconds; a lost connection is noticed after one, and dialled at once
_STRAGGLERS = 3.0  # seconds that the slower nodes are waited for once one is connected


def _named(blob: bytes) -> Document:
    return {"sha256": hashlib.sha256(blob).hexdigest(), "size": len(blob)}


def _seeded_rng(entropy: Callable[[int], bytes]) -> random.Random:
    return random.Random(entropy(8))  # noqa: S311  # spreads dialling in time, decides nothing


def _unready(greetings: Sequence[HelloAnswer]) -> str:
    if not greetings:
        return "the nodes reached are of another network or do not answer"
    return "no node is ready: " + "; ".join(
        f"{g.peer}: {', '.join(g.reasons) or 'no reason given'}" for g in greetings
    )


def _refusal(refusals: Sequence[RequestRefused]) -> Exception:
    invalid = [r for r in refusals if r.status is Status.INVALID]
    if invalid:
        return TaskRejected(invalid[0].reason, invalid[0].detail)
    return NoNodeReachable("; ".join(map(str, refusals)) or "the ready nodes went away")


def _libp2p(key: Ed25519PrivateKey) -> Transport:
    from node.transport.libp2p.transport import Libp2pTransport  # half a second to import

    return Libp2pTransport(key.private_bytes_raw(), "/ip4/127.0.0.1/tcp/0")


__all__ = [
    "Client",
    "GenerationFailed",
    "HelloAnswer",
    "NoAgreement",
    "NoNodeReachable",
    "Submission",
    "TaskRejected",
]
