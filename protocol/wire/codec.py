"""Bytes to messages: the only parser of signed messages, bounded (specification 2 and 4).

A message that this module returns needs no further check of form, network or signature. Whether
the network admits a task is decided by `network.Network.admit`, and whether a voter is in the
committee by `agreement.Agreement.judge`: both depend on more than the bytes.
"""

from collections.abc import Mapping
from typing import Any

import schemas
from protocol import manifest
from protocol.constants import ENVELOPE_LIMIT, TRACE_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.wire import messages
from protocol.wire.encoding import Document, Json, canonical, parse, parse_form, tagged_hash
from protocol.wire.messages import Abstain, Abstention, Commit, Message, Reveal, Task, Withdraw
from protocol.wire.signing import SIGNATURE_CHARACTERS, Envelope

_TYPES = ("task", "commit", "reveal", "abstain", "withdraw")


def decode(payload: bytes, network: str) -> Message:
    """Return the message in the bytes of an envelope; `network` is the network id.

    Raises Rejected. The cheapest check comes first: size, depth, JSON, schema, network, limits of
    single fields, and the signature last.
    """
    document, is_canonical = parse_form(payload, ENVELOPE_LIMIT)
    return _message(_envelope(document, payload if is_canonical else None), network)


def decode_document(document: Json, network: str) -> Message:
    """Return the message of an envelope that is part of a parsed document; as `decode`."""
    return _message(_envelope(document), network)


def _message(envelope: Envelope, network: str) -> Message:
    kind = envelope.body.get("type")
    if kind not in _TYPES:
        raise Rejected(Rejection.INVALID_FIELD, f"body.type: must be one of {', '.join(_TYPES)}")
    check_schema(str(kind), envelope.body, "body")
    if envelope.body["network"] != network:
        raise Rejected(
            Rejection.WRONG_NETWORK,
            f"body.network: {envelope.body['network']} is not this network, {network}",
        )
    message = build_message(envelope)
    if isinstance(message, Task) and envelope.body["requester"] != envelope.signer:
        raise Rejected(
            Rejection.NOT_THE_REQUESTER, f"body.requester: {envelope.signer} signed the task"
        )
    if isinstance(message, Reveal):
        check_reveal(envelope.body)
    envelope.verify()
    return message


def check_body(body: Document, signer: str) -> None:
    """Raise Rejected if no envelope of `signer` with this body could be decoded."""
    try:
        # Every signature has this length, and nothing but its length matters here.
        envelope = Envelope(body, signer, "A" * SIGNATURE_CHARACTERS)
        document: Any = parse(envelope.encode(), ENVELOPE_LIMIT)
    except ValueError as error:  # no JSON value: NaN, an integer beyond 2^53-1
        raise Rejected(Rejection.MALFORMED, f"body: {error}") from None
    parsed = document["body"]  # as others will read it: 1.0 is the integer 1
    check_schema(str(parsed["type"]), parsed, "body")
    if parsed["type"] == "reveal":
        check_reveal(parsed)


def check_schema(name: str, document: Json, within: str = "") -> None:
    """Raise Rejected(INVALID_FIELD) unless the document fits the schema.

    `within` is the path of the document in its envelope: errors name the field with it.
    """
    try:
        schemas.check(name, document, at=within)
    except schemas.SchemaViolation as error:
        raise Rejected(Rejection.INVALID_FIELD, str(error)) from None


def check_reveal(body: Mapping[str, Any]) -> None:
    """Raise Rejected for a reveal whose manifest contradicts itself, or whose trace is too large.

    `body` fits its schema (specification 4 and 8.2).
    """
    manifest.check_consistent(body["outcome"])
    size = len(canonical(body["trace"]))
    if size > TRACE_LIMIT:
        raise Rejected(Rejection.OVER_LIMIT, f"body.trace: {size} bytes, at most {TRACE_LIMIT}")


def check_canonical(text: bytes, exact: bytes, what: str) -> None:
    """Raise Rejected(NOT_CANONICAL) unless a file's bytes are `exact`; a line feed may follow.

    JSON has several spellings of one value, such as `1E-7` and `1e-7`. Without this check, a byte
    of a file could change without failing verification (specification 4.7).
    """
    if text in (exact, exact + b"\n"):
        return
    pairs = enumerate(zip(text, exact, strict=False))
    first_difference = next((at for at, (a, b) in pairs if a != b), len(exact))
    raise Rejected(
        Rejection.NOT_CANONICAL,
        f"the {what} is valid but not written canonically, from byte {first_difference} on",
    )


def _envelope(document: Json, encoded: bytes | None = None) -> Envelope:
    """Return a checked envelope; `encoded` are its canonical bytes, if they are known."""
    check_schema("envelope", document)
    assert isinstance(document, Mapping)  # noqa: S101  # the schema says so
    fields: Mapping[str, Any] = document
    envelope = Envelope(fields["body"], fields["signer"], fields["signature"], encoded)
    size = len(envelope.encode())
    if size > ENVELOPE_LIMIT:
        raise Rejected(Rejection.TOO_LARGE, f"an envelope of {size} bytes")
    return envelope


def build_message(envelope: Envelope) -> Message:
    """Return the message of an envelope that needs no checks: this node has just signed it."""
    body: Mapping[str, Any] = envelope.body
    match body["type"]:
        case "task":
            return _task(envelope, body)
        case "commit":
            return Commit(envelope, body["task"], body["attempt"], body["commitment"])
        case "reveal":
            return _reveal(envelope, body)
        case "withdraw":
            return Withdraw(envelope, body["task"])
        case _:
            return Abstain(envelope, body["task"], body["attempt"], Abstention(body["reason"]))


def _task(envelope: Envelope, body: Mapping[str, Any]) -> Task:
    return Task(
        envelope,
        tagged_hash("task", envelope.body_bytes).hex(),  # `messages.task_id` of the body
        body["kind"],
        body["args"],
        body["class"],
        body["created"],
        body["deadline"],
    )


def _reveal(envelope: Envelope, body: Mapping[str, Any]) -> Reveal:
    task, attempt = body["task"], body["attempt"]
    digest = messages.outcome_digest(body["outcome"])
    opened = messages.commitment(task, attempt, envelope.signer, digest, body["salt"])
    return Reveal(
        envelope, task, attempt, body["outcome"], digest, opened, body["commits"], body["trace"]
    )
