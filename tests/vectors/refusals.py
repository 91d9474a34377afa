"""Vectors of messages that are rejected, and of tasks that a network does not admit."""

from typing import Any

from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import canonical
from protocol.wire.messages import Message, Task
from protocol.wire.signing import Envelope, sign
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors, refused

DOCUMENT = fixtures.network_document()
NET = Network.of(DOCUMENT)
TASK = fixtures.task(NET)
PEER = fixtures.peer(0)
COMMIT = fixtures.commit(NET, TASK, PEER)
REVEAL = fixtures.reveal(NET, TASK, PEER, {fixtures.peer(1): "ab" * 32})
ABSTAIN = fixtures.abstain(NET, TASK, PEER)


def rejections() -> Vectors:
    """Envelopes, tasks and times."""
    return {
        "description": "Read each text of `envelopes` for `network` (a network document): it must"
        " be refused for `reason`; with `padded_to`, spaces are added to that many bytes first."
        " Each text of `tasks` is a well-formed task that the network document does not admit."
        " `times`: at the Unix time `now`, the task `text` is refused for `reason`, or timely if"
        " that is null.",
        "network": DOCUMENT,
        "envelopes": [
            *(refused(n, r, text, _read) for n, (r, text) in _envelopes().items()),
            _too_large(),
        ],
        "tasks": [
            refused(name, reason, _task(changes, body).envelope.encode(), _admit)
            for name, (reason, changes, body) in TASKS.items()
        ],
        "times": [_time(seconds) for seconds in (-60.001, -60, 0, 599.999, 600, 601)],
    }


def _read(text: bytes) -> Message:
    return codec.decode(text, NET.id)


def _changed(message: Message, **changes: Any) -> bytes:
    """Return the signed envelope of a changed body; a value of None removes the member."""
    body = {k: v for k, v in {**message.envelope.body, **changes}.items() if v is not None}
    return sign(body, fixtures.key(0)).encode()


def _envelopes() -> dict[str, tuple[Rejection, bytes]]:
    text = COMMIT.envelope.encode()
    document = COMMIT.envelope.document()
    forged = Envelope(COMMIT.envelope.body, fixtures.peer(1), COMMIT.envelope.signature)
    invalid = {
        "no object": b"[]",
        "a member of the envelope is missing": canonical({**document, "signer": "x"}),
        "an unknown member of the envelope": canonical({**document, "extra": 1}),
        "an unknown member of the body": _changed(COMMIT, extra=1),
        "an unknown type": _changed(COMMIT, type="certificate"),
        "another type's body": _changed(COMMIT, type="abstain"),
        "an attempt beyond 63": _changed(COMMIT, attempt=64),
        "an attempt that is no integer": _changed(COMMIT, attempt=0.5),
        "an attempt that is a boolean": _changed(COMMIT, attempt=False),
        "a hash in capitals": _changed(COMMIT, commitment="AB" * 32),
        "a commit without a commitment": _changed(COMMIT, commitment=None),
        "a reveal without a salt": _changed(REVEAL, salt=None),
        "an outcome of two kinds": _changed(
            REVEAL, outcome={**fixtures.outcome(), "error": "no-notes"}
        ),
        "an error that is an abstention": _changed(REVEAL, outcome={"error": "busy"}),
        "a commit of no peer": _changed(REVEAL, commits={"someone": "ab" * 32}),
        "a reason that is none": _changed(ABSTAIN, reason="tired"),
        "a nonce too short": _changed(TASK, nonce="0" * 31),
        "a deadline of nothing": _changed(TASK, deadline=0),
        "a time before 1970": _changed(TASK, created=-1),
    }
    return {name: (Rejection.INVALID_FIELD, body) for name, body in invalid.items()} | {
        "cut off": (Rejection.MALFORMED, text[:-1]),
        "a byte too many": (Rejection.MALFORMED, text + b"}"),
        "a member twice": (Rejection.MALFORMED, text[:-1] + b',"signer":"x"}'),
        "another network": (Rejection.WRONG_NETWORK, _changed(COMMIT, network="0" * 16)),
        "another signer": (Rejection.BAD_SIGNATURE, forged.encode()),
        "a changed body": (Rejection.BAD_SIGNATURE, text.replace(b'"attempt":0', b'"attempt":1')),
        "a trace too large": (
            Rejection.OVER_LIMIT,
            _changed(REVEAL, trace={"a": ["x" * 1024] * 8}),
        ),
        "too deep": (Rejection.TOO_DEEP, b'{"body":' + b"[" * 16 + b"]" * 16 + b"}"),
    }


def _too_large() -> Entry:
    text = COMMIT.envelope.encode()
    assert _read(text.ljust(65_536)) == COMMIT
    entry = refused("too large", Rejection.TOO_LARGE, text.ljust(65_537), _read)
    return entry | {"text": text.decode(), "padded_to": 65_537}


TASKS: dict[str, tuple[Rejection, Entry, Entry]] = {
    "an unknown model": (Rejection.UNKNOWN_MODEL, {"model": "no/such"}, {}),
    "an unknown class": (Rejection.UNKNOWN_CLASS, {}, {"class": "tpu"}),
    "a deadline too long": (Rejection.OVER_LIMIT, {}, {"deadline": 3601}),
    "a kind not supported": (Rejection.UNSUPPORTED_KIND, {}, {"kind": "pop2piano"}),
    "more tokens than the model's limit": (
        Rejection.OVER_LIMIT,
        {"generation_config": {"max_new_tokens": 1504}},
        {},
    ),
    "more sequences than the model's limit": (
        Rejection.OVER_LIMIT,
        {"generation_config": {"num_return_sequences": 5}},
        {},
    ),
    "no seed": (Rejection.INVALID_FIELD, {}, {"args": {"model": fixtures.MODEL, "prompt": "x"}}),
    "a seed below 0": (Rejection.INVALID_FIELD, {"seed": -1}, {}),
    "a seed of 2^32": (Rejection.INVALID_FIELD, {"seed": 2**32}, {}),
    "no prompt": (Rejection.INVALID_FIELD, {"prompt": ""}, {}),
    "a control character in the prompt": (Rejection.INVALID_FIELD, {"prompt": "a\u0007"}, {}),
    "an unknown argument": (Rejection.INVALID_FIELD, {"extra": 1}, {}),
    "an unknown member of generation_config": (
        Rejection.INVALID_FIELD,
        {"generation_config": {"beams": 2}},
        {},
    ),
    "a temperature below 0": (
        Rejection.INVALID_FIELD,
        {"generation_config": {"temperature": -0.1}},
        {},
    ),
    "a quantization that is none": (Rejection.INVALID_FIELD, {"quantize_bits": 3}, {}),
}


def _task(changes: Entry, body: Entry) -> Task:
    message = fixtures.signed(NET, {**fixtures.task(NET, **changes).envelope.body, **body}, 1000)
    assert isinstance(message, Task)
    return message


def _admit(text: bytes) -> None:
    task = _read(text)
    assert isinstance(task, Task)
    NET.admit(task)


def _time(seconds: float) -> Entry:
    now = fixtures.START + seconds
    entry: Entry = {"text": TASK.envelope.encode().decode(), "now": now, "reason": None}
    try:
        NET.check_timely(TASK, now)
    except Rejected as found:
        entry["reason"] = str(found.reason)
    return entry
