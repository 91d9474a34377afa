"""Submitting a task: signing it, handing it to nodes, and waiting for its result."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client.result import Result
from node.rpc.client import ANSWER_SECONDS, RequestRefused, send_request
from node.rpc.codec import UPLOAD_SECONDS, ProtocolViolation, Status
from node.sync.task_tracker import TaskTracker
from node.transport.interface import Transport
from protocol.consensus.certificate import Certificate
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.codec import decode
from protocol.wire.encoding import Document
from protocol.wire.messages import Task
from protocol.wire.signing import peer_of, sign
from schemas.errors import HeliumError

log = structlog.get_logger("client")

# A task goes to this many nodes, because a faulty one may not forward it.
SUBMIT_TO = 2
# The deadline of a task that names none, in seconds. The network's maximum may be lower.
DEFAULT_DEADLINE = 600


class NoNodeReachable(HeliumError):
    """No node of the network can be reached, or no reachable node is ready."""


class TaskRejected(HeliumError):
    """Every node that was asked refused the task; `reason` is a value of `Rejection`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class GenerationFailed(HeliumError):
    """The committee agrees, with a certificate, that the task has no result.

    `code` is the agreed error. `details` are the signers' explanations, without duplicates; the
    agreement does not cover them.
    """

    def __init__(self, code: str, certificate: Certificate) -> None:
        super().__init__(f"the members agree that the task fails: {code}")
        self.code, self.certificate = code, certificate
        details = [vote.failure[1] for vote in certificate.votes]
        self.details = tuple(dict.fromkeys(detail for detail in details if detail is not None))


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    """A node's answer to `hello`: its software, classes and warm models by class.

    `reasons` say why it executes no more. All of it is the node's own statement.
    """

    peer: str
    agent: str
    classes: tuple[str, ...]
    ready: bool
    reasons: tuple[str, ...]
    models: Mapping[str, tuple[str, ...]]


class Submission:
    """A task that was submitted.

    `id` is the task's id, 64 hex digits. `tracker` has its progress, votes and certificates:
    `async for status in submission.tracker.watch()`, `await submission.tracker.certificate()`.
    """

    def __init__(
        self,
        task_id: str,
        tracker: TaskTracker,
        fetch: Callable[[Certificate], Awaitable[Result]],
    ) -> None:
        self.id, self.tracker = task_id, tracker
        self._fetch = fetch

    async def result(self) -> Result:
        """Wait for the certificate, fetch the audio, verify it, and return both.

        Raises:
            NoAgreement: the task ended without a certificate.
            UnknownTask: no connected node knows the task.
            GenerationFailed: the committee agreed on an error.
            BlobUnavailable: no connected node served the certified bytes.
            ProtocolViolation: the certificate names more bytes than the network allows.
            AudioMismatch: the certified bytes are not the waveform that the manifest describes.
        """
        return await self._fetch(await self.tracker.certificate())


def sign_task(
    network: Network,
    key: Ed25519PrivateKey,
    kind: str,
    args: Document,
    *,
    compute_class: str | None,
    deadline: int | None,
    created: int,
    nonce: str,
) -> Task:
    """Return a signed task.

    Args:
        network: the network document that the task must be valid for.
        key: the requester's key.
        kind: "text-to-music" or "pop2piano".
        args: the kind's arguments.
        compute_class: None takes the network's only class.
        deadline: seconds from `created` until the task expires; None takes a default.
        created: milliseconds since the Unix epoch.
        nonce: 32 hex digits, which make two tasks with equal arguments different.

    Raises:
        Rejected: the task is not valid for the network; the detail names the field.
    """
    if deadline is None:
        deadline = min(DEFAULT_DEADLINE, network.parameters.max_deadline_seconds)
    compute_class = compute_class or _only_class(network)
    body = messages.task_body(
        network.id, kind, args, compute_class, created, deadline, nonce, peer_of(key)
    )
    # Decoded from bytes as a node decodes it, so an invalid task fails here, with its field.
    task = decode(sign(body, key).encode(), network.id)
    assert isinstance(task, Task)  # noqa: S101  # task_body wrote the type
    network.admit(task)
    return task


def _only_class(network: Network) -> str:
    if len(network.classes) != 1:
        choices = ", ".join(network.classes)
        raise Rejected(Rejection.UNKNOWN_CLASS, f"class: choose one of {choices}")
    return next(iter(network.classes))


async def say_hello(
    transport: Transport, network: Network, peer: str, request: Document
) -> HelloAnswer | None:
    """Return a node's answer to `hello`; None if it does not answer or serves another network."""
    try:
        answer = await send_request(transport, peer, "hello", request)
    except (RequestRefused, ProtocolViolation, ConnectionError) as error:
        log.debug("hello failed", peer=peer, error=str(error))
        return None
    # A node at a known address may have joined another network since.
    if answer["network"] != network.id:
        return None
    return HelloAnswer(
        peer,
        answer["agent"],
        tuple(answer["classes"]),
        answer["ready"],
        tuple(answer["reasons"]),
        {name: tuple(models) for name, models in answer["models"].items()},
    )


async def submit_to_nodes(
    transport: Transport, nodes: Sequence[HelloAnswer], task: Task, blobs: Sequence[bytes]
) -> None:
    """Hand a task and its input files to ready nodes until `SUBMIT_TO` of them accept it.

    Raises:
        TaskRejected: every ready node refused it, at least one of them as invalid.
        NoNodeReachable: no node is ready, or the ready ones are busy or disconnected.
    """
    ready = [node.peer for node in nodes if node.ready]
    if not ready:
        raise NoNodeReachable(_why_not_ready(nodes))
    # One after the other: a task with inputs is uploaded to no more nodes than needed.
    accepted, refusals = 0, list[RequestRefused]()
    for peer in ready:
        try:
            await submit_to_node(transport, peer, task, blobs)
            accepted += 1
        except RequestRefused as refusal:
            refusals.append(refusal)
        except (ProtocolViolation, ConnectionError) as error:
            log.warning("submit failed", peer=peer, error=str(error))
        if accepted == SUBMIT_TO:
            return
    if not accepted:
        raise _submit_error(refusals)


async def submit_to_node(
    transport: Transport, peer: str, task: Task, blobs: Sequence[bytes]
) -> None:
    """Hand a task and its input files to one node.

    Raises:
        RequestRefused: the node refused it.
        ProtocolViolation: the node's answer breaks the protocol.
        ConnectionError: the node disconnected or did not answer in time.
    """
    request: Document = {
        "task": task.envelope.document(),
        "blobs": [len(blob) for blob in blobs],
    }
    # The answer comes after the upload, which may take minutes on a slow line.
    seconds = UPLOAD_SECONDS if blobs else ANSWER_SECONDS
    answer = await send_request(transport, peer, "submit", request, seconds, blobs)
    # Another id means that the node did not read the task that was signed.
    if answer["task"] != task.id:
        raise ProtocolViolation("the node answered with another task id")


def _why_not_ready(nodes: Sequence[HelloAnswer]) -> str:
    if not nodes:
        return "the connected nodes do not answer, or are of another network"
    return "no node is ready: " + "; ".join(
        f"{node.peer}: {', '.join(node.reasons) or 'no reason given'}" for node in nodes
    )


def _submit_error(refusals: Sequence[RequestRefused]) -> HeliumError:
    """Prefer what is wrong with the task to what is wrong with the nodes."""
    for refusal in refusals:
        if refusal.status is Status.INVALID:
            return TaskRejected(refusal.reason, refusal.detail)
    return NoNodeReachable("; ".join(map(str, refusals)) or "the ready nodes disconnected")
