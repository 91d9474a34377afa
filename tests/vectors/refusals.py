"""Vectors of messages that are rejected, and of tasks that a network does not admit."""

import json
from base64 import urlsafe_b64decode
from typing import Any

from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import canonical
from protocol.wire.messages import Message, Task
from protocol.wire.signing import Envelope, sign
from tests.support import fixtures
from tests.vectors import proofs, signatures
from tests.vectors.entries import Entry, Vectors, refused


def _document() -> Entry:
    document = fixtures.network_document()
    (model,) = document["models"]
    document["models"].append({**model, "id": fixtures.PIANO, "tasks": ["pop2piano"], "limits": {}})
    document["classes"]["gpu"] = {"device": "gpu"}
    return document


DOCUMENT = _document()
NET = Network.of(DOCUMENT)
TASK = fixtures.task(NET)
PEER = fixtures.peer(0)
COMMIT = fixtures.commit(NET, TASK, PEER)
REVEAL = fixtures.reveal(NET, TASK, PEER, {fixtures.peer(1): "ab" * 32})
ABSTAIN = fixtures.abstain(NET, TASK, PEER)
WITHDRAW = fixtures.withdraw(NET, TASK)


def rejections() -> Vectors:
    """Envelopes, tasks and times."""
    return {
        "description": "Sections 2.1, 2.4, 3.8 and 4. Read each text of `envelopes` for `network`"
        " (a network document): it must be rejected for `reason`, or accepted if that is null. With"
        " `padded_to`, spaces are added to that many bytes first. Each text of `tasks` is a"
        " well-formed task that is not valid for the network document, for `reason`. `times`: at"
        " the Unix time `now`, in milliseconds, the task `text` is rejected for `reason`, or timely"
        " if that is null.",
        "network": DOCUMENT,
        "envelopes": [
            *(_accepted(name, text) for name, text in _valid().items()),
            *(refused(n, r, text, _read) for n, (r, text) in _envelopes().items()),
            *(_line_feed(n, text) for n, text in _line_feeds().items()),
            _padded("padded with spaces to the limit", 65_536, None),
            _padded("too large", 65_537, Rejection.TOO_LARGE),
            *_sizes(),
        ],
        "tasks": [
            refused(name, reason, _task(changes, body).envelope.encode(), _admit)
            for name, (reason, changes, body) in TASKS.items()
        ],
        "times": [
            _time(created, created + ms)
            for created in (1_750_000_000_000, 1_750_000_000_123, 60_000)
            for ms in (-60_001, -60_000, -59_999, 0, 599_999, 600_000, 600_001)
        ],
    }


def _read(text: bytes) -> Message:
    return codec.decode(text, NET.id)


def _changed(message: Message, **changes: Any) -> bytes:
    """Return the signed envelope of a changed body; a value of None removes the member."""
    body = {k: v for k, v in {**message.envelope.body, **changes}.items() if v is not None}
    return sign(body, fixtures.key_of(message.envelope.signer)).encode()


def _accepted(name: str, text: bytes) -> Entry:
    _read(text)
    return {"name": name, "text": text.decode(), "reason": None}


def _line_feed(name: str, text: bytes) -> Entry:
    return refused(f"a line feed at the end of {name}", Rejection.INVALID_FIELD, text, _read)


def _valid() -> dict[str, bytes]:
    text = COMMIT.envelope.encode()
    details = {
        "a short detail": {"detail": "x"},
        "the longest detail": {"detail": "\U0001f600" * 256},
        "a trace of nothing": {},
        "a trace of 100 members": {f"t{n}": n for n in range(100)},
        "a trace of 8,192 bytes": {"a": ["x" * 1024] * 7 + ["x" * 989]},
        "a trace nested as deep as it may be": {"a": [[1, None, True, "x"], {"b": 0.5}]},
        "line feeds in a trace": {"note": "a\tb\r\nc"},
    }
    return {
        "a commit": text,
        "white space around it": b"\t\r\n " + text.replace(b":", b" : ") + b"\n\n",
        "another spelling of a number": text.replace(b'"attempt":0', b'"attempt":0e5'),
        "another order of members": _reordered(COMMIT),
        "another spelling of a string": text.replace(b"commit", rb"\u0063ommit", 1),
        **{name: _changed(REVEAL, trace=trace) for name, trace in details.items()},
        "31 commits": _changed(REVEAL, commits={fixtures.peer(n): "ab" * 32 for n in range(31)}),
        "a name in commits that is no peer id": _changed(
            REVEAL, commits={signatures.NO_PEER: "ab" * 32}
        ),
        "the last attempt that has a number": _changed(COMMIT, attempt=63),
        "the end of the year 9999": _changed(TASK, created=253_402_300_799_999),
        "args of 64 members": _changed(TASK, args={f"a{n}": n for n in range(64)}),
        "a withdrawal by anybody": fixtures.withdraw(NET, TASK, 1001).envelope.encode(),
    }


def _reordered(message: Message) -> bytes:
    body = dict(reversed(list(message.envelope.body.items())))
    document = {"signature": message.envelope.signature, "signer": message.envelope.signer}
    return json.dumps({**document, "body": body}).encode()


def _line_feeds() -> dict[str, bytes]:
    peers = {fixtures.peer(1) + "\n": "ab" * 32}
    long = fixtures.task(NET).envelope.body
    return {
        "a signer": canonical({**COMMIT.envelope.document(), "signer": PEER + "\n"}),
        "a signature": canonical(
            {**COMMIT.envelope.document(), "signature": COMMIT.envelope.signature + "\n"}
        ),
        "a peer id in a list": _changed(REVEAL, commits=peers),
        "a requester": _changed(TASK, requester=TASK.requester + "\n"),
        "a hash": _changed(COMMIT, commitment="ab" * 32 + "\n"),
        "a salt": _changed(REVEAL, salt="ab" * 32 + "\n"),
        "a network id": _changed(COMMIT, network=NET.id + "\n"),
        "a nonce": _changed(TASK, nonce=str(long["nonce"]) + "\n"),
        "a class": _changed(TASK, **{"class": "cpu\n"}),
        "a kind": _changed(TASK, kind="text-to-music\n"),
        "a type": _changed(COMMIT, type="commit\n"),
        "a reason": _changed(ABSTAIN, reason="busy\n"),
        "a detail": _changed(REVEAL, trace={"detail": "x\n"}),
        "a name in a trace": _changed(REVEAL, trace={"a\n": 1}),
    }


def _padded(name: str, size: int, reason: Rejection | None) -> Entry:
    text = COMMIT.envelope.encode()
    if reason is None:
        entry = _accepted(name, text.ljust(size))
    else:
        entry = refused(name, reason, text.ljust(size), _read)
    return entry | {"text": text.decode(), "padded_to": size}


def _sizes() -> list[Entry]:
    """Envelopes whose canonical bytes, and not only their spaces, are at the limit."""
    bodies = {size: proofs.oversized(size).body for size in (65_536, 65_537)}
    texts = {
        size: sign({**body, "network": NET.id}, fixtures.key_of(proofs.A)).encode()
        for size, body in bodies.items()
    }
    assert all(len(text) == size for size, text in texts.items())
    return [
        _accepted("65,536 canonical bytes", texts[65_536]),
        refused("65,537 canonical bytes", Rejection.TOO_LARGE, texts[65_537], _read),
    ]


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
        "a body of 17 members": _changed(COMMIT, **{f"x{n}": n for n in range(12)}),
        "a body without a type": _changed(COMMIT, type=None),
        "a body without a network": _changed(COMMIT, network=None),
        "another type's body": _changed(COMMIT, type="abstain"),
        "a number as a string": _changed(COMMIT, attempt="0"),
        "an attempt below 0": _changed(COMMIT, attempt=-1),
        "16 characters of a network id": _changed(COMMIT, network=NET.id[:16]),
        "32 commits": _changed(REVEAL, commits={fixtures.peer(n): "ab" * 32 for n in range(32)}),
        "a detail of nothing": _changed(REVEAL, trace={"detail": ""}),
        "a detail of 257 characters": _changed(REVEAL, trace={"detail": "x" * 257}),
        "a detail that is a number": _changed(REVEAL, trace={"detail": 1}),
        "a detail that is null": _changed(REVEAL, trace={"detail": None}),
        "a tab in a detail": _changed(REVEAL, trace={"detail": "a\tb"}),
        "a control character in a detail": _changed(REVEAL, trace={"detail": "a\u009b"}),
        "a control character in a trace": _changed(REVEAL, trace={"note": "a\u0007"}),
        "a trace of 101 members": _changed(REVEAL, trace={f"t{n}": n for n in range(101)}),
        "a trace nested too deep": _changed(REVEAL, trace={"a": [[[1]]]}),
        "a trace that is a list": _changed(REVEAL, trace=[]),
        "a size that is not that of the frames": _changed(REVEAL, outcome=_sound(size=68)),
        "a chunk too many": _changed(REVEAL, outcome=_sound(chunks=["ab" * 32] * 2)),
        "a chunk too few": _changed(REVEAL, outcome=_sound(frames=65_537, size=262_148)),
        "no frames": _changed(REVEAL, outcome=_sound(frames=0, size=0, chunks=[])),
        "a sampling rate of 0": _changed(REVEAL, outcome=_sound(sampling_rate=0)),
        "a task without a requester": _changed(TASK, requester=None),
        "a requester that is no peer": _changed(TASK, requester="someone"),
        "a withdrawal of nothing": _changed(WITHDRAW, task=None),
        "a withdrawal with a reason": _changed(WITHDRAW, reason="withdrawn"),
        "a deadline of 86,401 s": _changed(TASK, deadline=86_401),
        "a deadline of half a second": _changed(TASK, deadline=0.5),
        "a time in the year 10000": _changed(TASK, created=253_402_300_800_000),
        "args of 65 members": _changed(TASK, args={f"a{n}": n for n in range(65)}),
        "a class with a space": _changed(TASK, **{"class": "c pu"}),
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
        "an empty text": (Rejection.MALFORMED, b""),
        "a signer that is no peer id": (
            Rejection.MALFORMED,
            canonical({**document, "signer": signatures.NO_PEER}),
        ),
        "a signer whose key is not on the curve": (Rejection.MALFORMED, _keyed("all bits set")),
        "a signer whose key has mixed order": (
            Rejection.MALFORMED,
            _keyed("mixed order 2 L, with point 4"),
        ),
        "a signer whose key is the identity": (Rejection.MALFORMED, _keyed("order 1, point 0")),
        "another network": (Rejection.WRONG_NETWORK, _changed(COMMIT, network="0" * 64)),
        "a requester other than the signer": (
            Rejection.NOT_THE_REQUESTER,
            _changed(TASK, requester=PEER),
        ),
        "a task signed by another": (
            Rejection.NOT_THE_REQUESTER,
            sign(TASK.envelope.body, fixtures.key(1001)).encode(),
        ),
        "a signature with an unused bit": (
            Rejection.BAD_SIGNATURE,
            canonical({**document, "signature": _unused_bit(COMMIT.envelope.signature)}),
        ),
        "another signer": (Rejection.BAD_SIGNATURE, forged.encode()),
        "a changed body": (Rejection.BAD_SIGNATURE, text.replace(b'"attempt":0', b'"attempt":1')),
        "a trace too large": (
            Rejection.OVER_LIMIT,
            _changed(REVEAL, trace={"a": ["x" * 1024] * 8}),
        ),
        "too deep": (Rejection.TOO_DEEP, b'{"body":' + b"[" * 16 + b"]" * 16 + b"}"),
    }


BLOB: Entry = {"sha256": "ab" * 32, "size": 1}


def _song(**changes: Any) -> Entry:
    """Return the changes of a body that make it a task for pop2piano."""
    return {"kind": "pop2piano", "args": fixtures.piano_args(b"song") | changes}


def _sound(**changes: Any) -> Entry:
    (sound,) = fixtures.outcome()["result"]["outputs"]
    return {"result": {"outputs": [sound | changes]}}


def _keyed(name: str) -> bytes:
    """Return a commit under a signer with an invalid key, with a signature for that key."""
    peer = next(key["peer"] for key in signatures.key_entries() if key["name"] == name)
    return canonical({**COMMIT.envelope.document(), "signer": peer})


def _unused_bit(signature: str) -> str:
    raw = urlsafe_b64decode(signature + "==")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = signature[:-1] + last[last.index(signature[-1]) | 1]
    assert urlsafe_b64decode(other + "==") == raw
    return other


TASKS: dict[str, tuple[Rejection, Entry, Entry]] = {
    "an unknown model": (Rejection.UNKNOWN_MODEL, {"model": "no/such"}, {}),
    "an unknown class": (Rejection.UNKNOWN_CLASS, {}, {"class": "tpu"}),
    "a deadline too long": (Rejection.OVER_LIMIT, {}, {"deadline": 3601}),
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
    "a line feed at the end of a model id": (
        Rejection.INVALID_FIELD,
        {"model": fixtures.MODEL + "\n"},
        {},
    ),
    "a class without members": (Rejection.UNKNOWN_CLASS, {}, {"class": "gpu"}),
    "a class in other letters": (Rejection.UNKNOWN_CLASS, {}, {"class": "CPU"}),
    "no model": (Rejection.INVALID_FIELD, {}, {"args": {"prompt": "x", "seed": 1}}),
    "a prompt of 4,097 characters": (Rejection.INVALID_FIELD, {"prompt": "x" * 4097}, {}),
    "U+0085 in the prompt": (Rejection.INVALID_FIELD, {"prompt": "a\u0085b"}, {}),
    "a fraction of a token": (
        Rejection.INVALID_FIELD,
        {"generation_config": {"max_new_tokens": 1.5}},
        {},
    ),
    "17 sequences": (
        Rejection.INVALID_FIELD,
        {"generation_config": {"num_return_sequences": 17}},
        {},
    ),
    "beams for music": (Rejection.INVALID_FIELD, {"generation_config": {"num_beams": 2}}, {}),
    "a listed model of the other kind": (
        Rejection.UNSUPPORTED_KIND,
        {"model": fixtures.PIANO},
        {},
    ),
    "a song for a model of music": (
        Rejection.UNSUPPORTED_KIND,
        {},
        _song(model=fixtures.MODEL),
    ),
    "no songs": (Rejection.INVALID_FIELD, {}, _song(audio=[])),
    "nine songs": (Rejection.INVALID_FIELD, {}, _song(audio=[BLOB] * 9)),
    "an empty song": (Rejection.INVALID_FIELD, {}, _song(audio=[BLOB | {"size": 0}])),
    "a song without a size": (Rejection.INVALID_FIELD, {}, _song(audio=[{"sha256": "ab" * 32}])),
    "a line feed at the end of a song's hash": (
        Rejection.INVALID_FIELD,
        {},
        _song(audio=[BLOB | {"sha256": "ab" * 32 + "\n"}]),
    ),
    "a composer that is not ASCII": (Rejection.INVALID_FIELD, {}, _song(composer="é")),
    "a line feed at the end of a composer": (Rejection.INVALID_FIELD, {}, _song(composer="a\n")),
    "two covers": (
        Rejection.INVALID_FIELD,
        {},
        _song(generation_config={"num_return_sequences": 2}),
    ),
    "guidance for a song": (
        Rejection.INVALID_FIELD,
        {},
        _song(generation_config={"guidance_scale": 2}),
    ),
    "inputs too large together": (
        Rejection.OVER_LIMIT,
        {},
        _song(audio=[BLOB | {"size": 33_554_432}, BLOB]),
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


def _time(created: int, now: int) -> Entry:
    task = _read(_changed(TASK, created=created))
    assert isinstance(task, Task)
    entry: Entry = {
        "name": f"created {created}, {now - created:+} ms",
        "text": task.envelope.encode().decode(),
        "now": now,
        "reason": None,
    }
    try:
        NET.check_timely(task, now)
    except Rejected as found:
        entry["reason"] = str(found.reason)
    return entry
