"""A task of a client: signing it, and waiting for its result."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import schemas
from node.client import arguments
from node.client.arguments import InvalidArgument
from node.client.result import Result
from node.log import get_logger
from node.sync.task_tracker import TaskTracker
from protocol.consensus.certificate import Certificate
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.codec import decode
from protocol.wire.encoding import Document
from protocol.wire.messages import Task
from protocol.wire.signing import peer_of, sign
from schemas.errors import HeliumError, describe_value

log = get_logger("client")

_KINDS: Sequence[str] = schemas.load("common")["$defs"]["kind"]["enum"]

# The deadline of a task that names none leaves this many attempts their time, and as many seconds
# for the members' queues. The network's maximum may be lower.
_DEFAULT_ATTEMPTS, _QUEUE_SECONDS = 3, 600


# What an agreed error means (specification 4.4), and what to do about it.
_MEANINGS = {
    "input-undecodable": ("an input is not audio that a member may decode", "send another file"),
    "generation-rejected": (
        "the model cannot do what the task asks, or gave what is no result",
        "change the task's arguments",
    ),
    "non-finite-output": (
        "the model gave numbers that are no audio",
        "choose another seed, dtype or prompt",
    ),
    "no-notes": (
        "an input has no beat, or the model wrote no note",
        "choose another song, composer or seed",
    ),
}


class GenerationFailed(HeliumError):
    """The committee agrees, with a certificate, that the task has no result.

    `code` is the agreed error. `details` are the signers' explanations, without duplicates; the
    agreement does not cover them.
    """

    def __init__(self, code: str, certificate: Certificate) -> None:
        self.code, self.certificate = code, certificate
        details = [vote.failure[1] for vote in certificate.votes]
        self.details = tuple(dict.fromkeys(detail for detail in details if detail is not None))
        meaning, advice = _MEANINGS[code]
        words = f" (in a member's words: {self.details[0]})" if self.details else ""
        super().__init__(
            f"the members agree that the task fails, {code}: {meaning}{words}; {advice}, and submit"
            " it again"
        )


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
        compute_class: None takes that of `choose_class`.
        deadline: seconds from `created` until the task expires; None takes `default_deadline`.
        created: milliseconds since the Unix epoch.
        nonce: 32 hex digits, which make two tasks with equal arguments different.

    Raises:
        InvalidArgument: an argument is of a wrong type or form; the detail names it.
        Rejected: the task is not valid for this network; the detail names the field.
    """
    if isinstance(kind, str) and kind in _KINDS and isinstance(args, Mapping):
        # Before the form: a task of the wrong kind lacks arguments that its model would not take.
        network.check_kind(kind, str(args.get("model")))
    form = _json_args(kind, args)
    if deadline is None:
        deadline = default_deadline(network, str(form.get("model")))
    if compute_class is None:
        compute_class = choose_class(network, kind, str(form.get("model")))
    fields: dict[str, Any] = {"class": compute_class, "deadline": deadline}
    fields = {name: arguments.json_value(value, name) for name, value in fields.items()}
    body = messages.task_body(
        network.id, kind, form, fields["class"], created, fields["deadline"], nonce, peer_of(key)
    )
    try:
        # Decoded from bytes as a node decodes it, so an invalid task fails here, with its field.
        task = decode(sign(body, key).encode(), network.id)
        assert isinstance(task, Task)  # noqa: S101  # task_body wrote the type
        network.admit(task)
        network.check_defaults(task)
    except Rejected as rejected:
        raise arguments.as_invalid_argument(rejected) from None
    return task


def _json_args(kind: object, args: object) -> Document:
    """Return a task's arguments as JSON. Raises InvalidArgument, which names the field."""
    if not isinstance(kind, str) or kind not in _KINDS:
        described = describe_value(kind)
        raise InvalidArgument(f"kind: {described} is none of {', '.join(_KINDS)}")
    form = arguments.members(args)
    try:
        # Here too, because a large value would be named by the size of the whole message.
        schemas.check(kind, form, at="args")
    except schemas.SchemaViolation as violation:
        raise InvalidArgument(str(violation)) from None
    return form


def default_deadline(network: Network, model: str) -> int:
    """Return the deadline in seconds of a task that names none.

    It leaves time for three attempts and for the members' queues, as far as the network allows.
    """
    listed = network.models.get(model)
    seconds = network.parameters.attempt_seconds
    if listed is not None and listed.attempt_seconds is not None:
        seconds = listed.attempt_seconds
    wanted = math.ceil(_DEFAULT_ATTEMPTS * seconds) + _QUEUE_SECONDS
    return min(wanted, network.parameters.max_deadline_seconds)


def choose_class(network: Network, kind: str, model: str) -> str:
    """Return the class of a task that names none: the only one that can run it.

    Of several, it is the only helium class if the model's tasks prove work there, and otherwise the
    only other one: it is not known whether the engine computes the model. Raises Rejected if the
    requester has to choose.
    """
    if len(network.classes) == 1:
        return next(iter(network.classes))
    able = [n for n in network.classes if network.members(n) and network.runs(n, kind)]
    listed = network.models.get(model)
    replay = listed is not None and listed.replay
    preferred = [name for name in able if network.is_helium(name) == replay]
    for names in (able, preferred):
        if len(names) == 1:
            return names[0]
    choices = ", ".join(able or network.classes)
    raise Rejected(Rejection.UNKNOWN_CLASS, f"class: choose one of {choices}")
