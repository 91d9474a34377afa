"""What a client asks of nodes: who they are, and to take its task."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.log import get_logger
from node.rpc.client import ANSWER_SECONDS, RequestRefused, send_request
from node.rpc.codec import UPLOAD_SECONDS, ProtocolViolation, Status
from node.sync.clock_check import clock_ahead
from node.transport.interface import Transport
from protocol.wire.encoding import Document
from protocol.wire.messages import Task
from schemas.errors import HeliumError

log = get_logger("client")

# Characters of a network id that people are shown.
_SHORT_ID = 16
# A task goes to this many nodes, because a faulty one may not forward it.
SUBMIT_TO = 2
# A node that has not answered a submission by then gets company: the next node is asked too.
SLOW_SECONDS = 5.0
# With inputs, which it has to receive first.
SLOW_UPLOAD_SECONDS = 60.0


class NoNodeReachable(HeliumError):
    """No node of the network can be reached, or no reachable node is ready."""


class TaskRejected(HeliumError):
    """Every node that was asked refused the task; `reason` is a value of `Rejection`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    """A node's answer to `hello`: its software, classes and warm models by class.

    `reasons` say why it executes no more. All of it is the node's own statement. By its clock it is
    `clock_ahead` seconds later than here, give or take half of `seconds`, which the answer took.
    """

    peer: str
    agent: str
    classes: tuple[str, ...]
    ready: bool
    reasons: tuple[str, ...]
    models: Mapping[str, tuple[str, ...]]
    network: str = ""
    clock_ahead: float = 0.0
    seconds: float = 0.0


async def say_hello(
    transport: Transport, peer: str, request: Mapping[str, Any]
) -> HelloAnswer | None:
    """Return a node's answer to `hello`, of whatever network it is; None if it does not answer.

    The request was made just now: its time is when it is sent.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    try:
        answer = await send_request(transport, peer, "hello", request)
    except (RequestRefused, ProtocolViolation, ConnectionError) as error:
        log.debug("hello failed", peer=peer, error=str(error))
        return None
    seconds = loop.time() - start
    return HelloAnswer(
        peer,
        answer["agent"],
        tuple(answer["classes"]),
        answer["ready"],
        tuple(answer["reasons"]),
        {name: tuple(models) for name, models in answer["models"].items()},
        answer["network"],
        round(clock_ahead(answer["time"], request["time"] / 1000, seconds), 3),
        round(seconds, 3),
    )


def describe_foreign(nodes: Mapping[str, str], own: str) -> str:
    """Return that nodes are of another network, by peer id; `own` is this network's id."""
    networks = "; ".join(
        f"{', '.join(peer for peer in sorted(nodes) if nodes[peer] == network)} of network"
        f" {network[:_SHORT_ID]}.."
        for network in sorted(set(nodes.values()))
    )
    return (
        f"the document is of network {own[:_SHORT_ID]}.., and other networks answer: {networks};"
        " check --network and --peer"
    )


async def submit_to_nodes(
    transport: Transport,
    ready: Sequence[str],
    task: Task,
    blobs: Sequence[bytes],
    rng: random.Random,
) -> None:
    """Hand a task and its input files to ready nodes until `SUBMIT_TO` of them accept it.

    `rng` orders the nodes, so that no node can count on being asked first. A node that does not
    answer holds nothing up.

    Raises:
        TaskRejected: every ready node refused it, at least one of them as invalid.
        NoNodeReachable: the ready nodes are busy or disconnected.
    """
    submissions = Submissions(transport, task, blobs)
    try:
        await submissions.run(rng.sample(ready, len(ready)))
    finally:
        await submissions.cancel()
    if not submissions.accepted:
        raise _submit_error(submissions.refusals)


class Submissions:
    """The submissions of one task: as many at a time as are still needed, and slow ones besides."""

    def __init__(self, transport: Transport, task: Task, blobs: Sequence[bytes]) -> None:
        self._transport, self._task, self._blobs = transport, task, blobs
        # With inputs, a task is uploaded to no more nodes than needed.
        self._slow_seconds = SLOW_UPLOAD_SECONDS if blobs else SLOW_SECONDS
        self._running: set[asyncio.Task[bool]] = set()
        self.accepted = 0
        self.refusals: list[RequestRefused] = []

    async def run(self, peers: Sequence[str]) -> None:
        """Ask the peers in this order until `SUBMIT_TO` have accepted the task, or none is left."""
        waiting = list(peers)
        while waiting or self._running:
            # The slow ones are not counted: those that are still needed are asked besides them.
            fresh = [self._start(waiting.pop(0)) for _ in range(min(self._needed, len(waiting)))]
            await self._wait(fresh or list(self._running))
            if self.accepted >= SUBMIT_TO or (self.accepted and not waiting):
                return

    @property
    def _needed(self) -> int:
        return SUBMIT_TO - self.accepted

    def _start(self, peer: str) -> "asyncio.Task[bool]":
        submission = asyncio.create_task(self._submit(peer))
        self._running.add(submission)
        return submission

    async def _wait(self, submissions: Sequence["asyncio.Task[bool]"]) -> None:
        """Wait for submissions, of which the slow ones go on. Counts all that have ended."""
        await asyncio.wait(submissions, timeout=self._slow_seconds)
        ended = {submission for submission in self._running if submission.done()}
        self._running -= ended
        self.accepted += sum(submission.result() for submission in ended)

    async def _submit(self, peer: str) -> bool:
        """Return whether the node accepted the task."""
        try:
            await submit_to_node(self._transport, peer, self._task, self._blobs)
        except RequestRefused as refusal:
            self.refusals.append(refusal)
            return False
        except (ProtocolViolation, ConnectionError) as error:
            log.warning("submit failed", peer=peer, error=str(error))
            return False
        return True

    async def cancel(self) -> None:
        """End the submissions that nobody waits for any more."""
        for submission in self._running:
            submission.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


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


def why_not_ready(nodes: Sequence[HelloAnswer]) -> str:
    """Return what nodes that are not ready say of it."""
    if not nodes:
        return "the connected nodes do not answer"
    return "no node is ready: " + "; ".join(
        f"{node.peer}: {', '.join(node.reasons) or 'no reason given'}" for node in nodes
    )


def _submit_error(refusals: Sequence[RequestRefused]) -> HeliumError:
    """Prefer what is wrong with the task to what is wrong with the nodes."""
    for refusal in refusals:
        if refusal.status is Status.INVALID:
            return TaskRejected(refusal.reason, refusal.detail)
    return NoNodeReachable("; ".join(map(str, refusals)) or "the ready nodes disconnected")
