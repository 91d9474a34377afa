"""Vectors of work and tokens: digests, blobs, and the tasks and outcomes that prove work."""

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from protocol import work
from protocol.consensus import certificate
from protocol.errors import Rejected, Rejection
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import canonical
from protocol.wire.messages import Task
from protocol.work import MAX_TOKENS_BYTES, kept_steps, parse_tokens, tokens_blob, work_digest
from tests.protocol.certificates import certificate_document, reveals
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors, refused
from tests.vectors.manifests import score, waveform

HASH = "ab" * 32
WORK: Entry = {"work": HASH}
VOCABULARY = 3
PAD = 6  # the token of a row that has ended


def _document() -> Entry:
    document = fixtures.helium_document(5, committee_max=5, max_output_bytes=1_000_000)
    any_kind = {"engine": "helium", "arithmetic": 2}
    document["classes"] |= {
        "helium-any": any_kind,
        "transformers": {"engine": "transformers", "torch": "2.13.0"},
        "one-kind": {"device": "cpu", "task": "pop2piano"},
        "in-capitals": {"engine": "HELIUM"},
        "a-number": {"engine": True},
    }
    for model in document["models"]:
        model["limits"] = {}
    document["models"] += [
        {**document["models"][0], "id": "helium/not-replayed", "replay": False},
        {**document["models"][0], "id": "helium/both", "tasks": ["pop2piano", "text-to-music"]},
        {**document["models"][1], "id": "helium/piano", "replay": False},
    ]
    for member in document["roster"]:
        member["classes"] = [*document["classes"]]
    return document


DOCUMENT = _document()
NET = Network.of(DOCUMENT)


# Digests

Tokens = list[list[int]]
Logits = list[list[str | None]]


def _sequence(steps: int, columns: int, ends: tuple[int, ...] = ()) -> tuple[Tokens, Logits]:
    """Return a sequence; `ends` are the steps at which its columns draw their last token."""
    ends = ends or (steps - 1,) * columns
    tokens = [
        [(5 * step + column) % 6 if step <= end else PAD for column, end in enumerate(ends)]
        for step in range(steps)
    ]
    logits = [
        [_logits(step, column) if step <= end else None for column, end in enumerate(ends)]
        for step in range(steps)
    ]
    return tokens, logits


def _logits(step: int, column: int) -> str:
    numbers = [((31 * step + 7 * column + 3 * n) % 17 - 8) / 4 for n in range(VOCABULARY)]
    return struct.pack(f">{VOCABULARY}f", *numbers).hex()


def _edges() -> tuple[Tokens, Logits]:
    """Return a sequence of the least and greatest tokens and of logits at binary32's edges."""
    tokens = [[0, 2**31 - 1, -1, -(2**31)]]
    edges = ["00000000", "80000000", "00000001", "7f7fffff"]
    return tokens, [[*edges]]


SEQUENCES: dict[str, list[tuple[Tokens, Logits]]] = {
    "one step": [_sequence(1, 1)],
    "two steps of four codebooks": [_sequence(2, 4)],
    "63 steps": [_sequence(63, 2)],
    "64 steps": [_sequence(64, 2)],
    "65 steps": [_sequence(65, 2)],
    "127 steps": [_sequence(127, 1)],
    "128 steps": [_sequence(128, 2)],
    "129 steps": [_sequence(129, 1)],
    "three sequences": [_sequence(65, 2), _sequence(65, 2), _sequence(64, 2)],
    "sequences of different columns": [_sequence(3, 1), _sequence(1, 3)],
    "a row that ends before the others": [_sequence(5, 3, (4, 1, 4))],
    "a row that ends at the first step": [_sequence(2, 2, (0, 1))],
    "rows that end before, at and after a kept step": [_sequence(70, 4, (62, 63, 64, 69))],
    "a row that ends before the last step, within the same 64 steps": [_sequence(8, 2, (6, 7))],
    "the least and the greatest numbers": [_edges()],
}


def _digest(name: str, sequences: list[tuple[Tokens, Logits]]) -> Entry:
    parts = [_part(tokens, logits) for tokens, logits in sequences]
    blobs = [tokens_blob(part.steps, part.tokens) for part in parts]
    return {
        "name": name,
        "sequences": [{"tokens": tokens, "logits": logits} for tokens, logits in sequences],
        "kept": [list(kept_steps(part.steps)) for part in parts],
        "tokens": [{"sha256": hashlib.sha256(b).hexdigest(), "size": len(b)} for b in blobs],
        "work": work_digest(parts),
    }


def _part(tokens: Tokens, logits: Logits) -> work.Sequence:
    columns = len(tokens[0])
    drawn = b"".join(struct.pack(f"<{columns}i", *step) for step in tokens)
    kept = [hexed for step in kept_steps(len(tokens)) for hexed in logits[step] if hexed]
    return work.Sequence(len(tokens), drawn, b"".join(map(_little, kept)))


def _little(hexed: str) -> bytes:
    """Return numbers that are hex of big-endian binary32 as little-endian bytes."""
    raw = bytes.fromhex(hexed)
    return b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))


# Blobs

BLOBS: dict[str, bytes] = {
    "one token": tokens_blob(1, struct.pack("<i", 5)),
    "a token below 0": tokens_blob(1, struct.pack("<i", -5)),
    "two steps of three columns": tokens_blob(2, struct.pack("<6i", *range(6))),
    "three steps of two columns": tokens_blob(3, struct.pack("<6i", *range(6))),
    "258 steps": tokens_blob(258, bytes(4 * 258)),
    "no steps": bytes(4),
}

MALFORMED: dict[str, bytes] = {
    "no bytes": b"",
    "three bytes": bytes(3),
    "a token, but no steps": bytes(8),
    "steps, but no token": tokens_blob(1, b""),
    "as many steps as there can be": b"\xff" * 4,
    "a byte too few": tokens_blob(1, bytes(3)),
    "a byte too many": tokens_blob(1, bytes(5)),
    "a token for two steps": tokens_blob(2, bytes(4)),
    "three tokens for two steps": tokens_blob(2, bytes(12)),
    "the number of steps in the other byte order": struct.pack(">I", 2) + bytes(8),
}


def _blob(name: str, blob: bytes) -> Entry:
    steps, columns, tokens = parse_tokens(blob)
    numbers = [number for (number,) in struct.iter_unpack("<i", tokens)]
    rows = [numbers[at : at + columns] for at in range(0, len(numbers), columns or 1)]
    return {
        "name": name,
        "blob": blob.hex(),
        "steps": steps,
        "columns": columns,
        "tokens": rows,
    }


def _malformed(name: str, blob: bytes) -> Entry:
    try:
        parse_tokens(blob)
    except Rejected as found:
        return {"name": name, "blob": blob.hex(), "reason": str(found.reason)}
    raise AssertionError(f"{name}: was not rejected")


def _too_large() -> Entry:
    blob = tokens_blob(1, bytes(MAX_TOKENS_BYTES))
    entry = _malformed("a blob of 16,777,220 bytes", blob)
    return entry | {"blob": blob[:4].hex(), "padded_to": len(blob)}


# Tasks


def _task(compute_class: str, **changes: Any) -> Task:
    return fixtures.task(NET, compute_class=compute_class, **changes)


def _song(compute_class: str, songs: int = 1, **changes: Any) -> Task:
    args = fixtures.piano_args(*(b"song %d" % n for n in range(songs)), **changes)
    body = {**_task(compute_class, kind="pop2piano").envelope.body, "args": args}
    message = fixtures.signed(NET, body, 1000)
    assert isinstance(message, Task)
    return message


def _beams(number: int | None) -> Entry:
    return {"generation_config": {"num_beams": number}}


HELIUM, PIANO, ANY = fixtures.HELIUM, fixtures.HELIUM_PIANO, "helium-any"

TASKS: dict[str, Task] = {
    "music in a helium class": _task(HELIUM),
    "a song in a helium class": _song(PIANO),
    "music in a helium class of both kinds": _task(ANY),
    "a song in a helium class of both kinds": _song(ANY),
    "a model of both kinds": _task(HELIUM, model="helium/both"),
    "a model without replay": _task(HELIUM, model=fixtures.UNREPLAYED),
    "a model whose replay is false": _task(HELIUM, model="helium/not-replayed"),
    "a class without engine": _task(fixtures.CLASS),
    "the engine transformers": _task("transformers"),
    "the engine HELIUM": _task("in-capitals"),
    "an engine that is a boolean": _task("a-number"),
    "a song in a class of songs, without engine": _song("one-kind"),
    "a song in a class of music": _song(HELIUM),
    "music in a class of songs": _task(PIANO),
    "music in a class of songs, without engine": _task("one-kind"),
    "one beam": _song(PIANO, **_beams(1)),
    "beams that are null": _song(PIANO, **_beams(None)),
    "two beams": _song(PIANO, **_beams(2)),
    "two beams in a helium class of both kinds": _song(ANY, **_beams(2)),
    "two beams in a class that is not helium": _song(fixtures.CLASS, **_beams(2)),
    "two beams of a model without replay": _song(ANY, **_beams(2), model="helium/piano"),
}


def _admitted(name: str, task: Task) -> Entry:
    entry = {"name": name, "text": task.envelope.encode().decode()}
    try:
        NET.admit(task)
    except Rejected as found:
        return entry | {"proves_work": None, "reason": str(found.reason)}
    return entry | {"proves_work": NET.proves_work(task), "reason": None}


# Outcomes


def tokens(size: float = 8, **changes: Any) -> Entry:
    return {"tokens": {"sha256": HASH, "size": size} | changes}


def _result(*outputs: Entry, **members: Any) -> Entry:
    return {"result": {"outputs": [*outputs]}, **members}


MUSIC, TWO = (
    TASKS["music in a helium class"],
    _task(HELIUM, generation_config={"num_return_sequences": 2}),
)
SONG, TWO_SONGS = TASKS["a song in a helium class"], _song(PIANO, 2)
UNPROVEN = TASKS["a model without replay"]
PLAIN, SOUND = waveform(100), waveform(100, **tokens())
MOST = 1_000_000


def _fitting() -> Iterator[tuple[str, Task, Entry]]:
    yield "a sound with tokens", MUSIC, _result(SOUND, **WORK)
    yield "two sounds with tokens", TWO, _result(SOUND, waveform(1, **tokens(12)), **WORK)
    yield "a song with tokens", SONG, _result(score(), SOUND, **WORK)
    yield "two songs with tokens", TWO_SONGS, _result(*[score(), SOUND] * 2, **WORK)
    yield "the least tokens", MUSIC, _result(waveform(1, **tokens(4)), **WORK)
    yield "max_output_bytes", MUSIC, _result(waveform((MOST - 12) // 4, **tokens(12)), **WORK)
    yield (
        "tokens that are nearly all of it",
        MUSIC,
        _result(waveform(1, **tokens(MOST - 4)), **WORK),
    )
    yield "no replay, no tokens", UNPROVEN, _result(PLAIN)
    yield "another class, no tokens", TASKS["a class without engine"], _result(PLAIN)
    yield "an error", MUSIC, {"error": "non-finite-output"}
    yield "an error without replay", UNPROVEN, {"error": "no-notes"}


def _breaking() -> Iterator[tuple[str, int | None, Task, Entry]]:
    """Yield the name, the rule of 8.2 (None: the form), the task and the outcome."""
    yield "work alone", None, MUSIC, WORK
    yield "an error with work", None, MUSIC, {"error": "no-notes", **WORK}
    yield "a result, an error and work", None, MUSIC, _result(SOUND, error="no-notes", **WORK)
    yield "work in capitals", None, MUSIC, _result(SOUND, work="AB" * 32)
    yield "work of 32 characters", None, MUSIC, _result(SOUND, work="ab" * 16)
    yield "a line feed after work", None, MUSIC, _result(SOUND, work=HASH + "\n")
    yield "work that is null", None, MUSIC, _result(SOUND, work=None)
    yield "tokens that are null", None, MUSIC, _result(waveform(1, tokens=None), **WORK)
    yield (
        "tokens without a size",
        None,
        MUSIC,
        _result(waveform(1, tokens={"sha256": HASH}), **WORK),
    )
    yield "tokens without a hash", None, MUSIC, _result(waveform(1, tokens={"size": 8}), **WORK)
    yield "tokens with chunks", None, MUSIC, _result(waveform(1, **tokens(chunks=[HASH])), **WORK)
    yield "tokens of a score", None, SONG, _result(score(**tokens()), SOUND, **WORK)
    yield "tokens of no bytes", 3, MUSIC, _result(waveform(1, **tokens(0)), **WORK)
    yield "tokens of three bytes", 3, MUSIC, _result(waveform(1, **tokens(3)), **WORK)
    yield "tokens of five bytes", 3, MUSIC, _result(waveform(1, **tokens(5)), **WORK)
    yield "tokens of ten bytes", 3, MUSIC, _result(waveform(1, **tokens(10)), **WORK)
    yield "tokens over their limit", 3, MUSIC, _result(waveform(1, **tokens(16_777_220)), **WORK)
    yield "half a byte of tokens", 3, MUSIC, _result(waveform(1, **tokens(size=4.5)), **WORK)
    yield "one sound of two", 5, TWO, _result(SOUND, **WORK)
    yield "a sound before its score", 6, SONG, _result(SOUND, score(), **WORK)
    yield (
        "over max_output_bytes by tokens",
        7,
        MUSIC,
        _result(waveform((MOST - 8) // 4, **tokens(12)), **WORK),
    )
    yield (
        "over max_output_bytes by the tokens of two",
        7,
        TWO,
        _result(*[waveform(MOST // 8 - 1, **tokens())] * 2, **WORK),
    )
    yield "no work, no tokens", 8, MUSIC, _result(PLAIN)
    yield "no work", 8, MUSIC, _result(SOUND)
    yield "no tokens", 8, MUSIC, _result(PLAIN, **WORK)
    yield "tokens of the first sound only", 8, TWO, _result(SOUND, PLAIN, **WORK)
    yield "tokens of the second sound only", 8, TWO, _result(PLAIN, SOUND, **WORK)
    yield "a song without tokens", 8, SONG, _result(score(), PLAIN, **WORK)
    yield "work without replay", 8, UNPROVEN, _result(PLAIN, **WORK)
    yield "tokens without replay", 8, UNPROVEN, _result(SOUND)
    yield "work and tokens without replay", 8, UNPROVEN, _result(SOUND, **WORK)
    yield (
        "work and tokens in another class",
        8,
        TASKS["a class without engine"],
        _result(SOUND, **WORK),
    )


def _judged(name: str, task: Task, outcome: Entry, rule: int | None = 0) -> Entry:
    """Return the entry of an outcome; `rule` is the one that it breaks, 0 for none."""
    NET.admit(task)
    text = task.envelope.encode().decode()
    entry: Entry = {"name": name, "task": text, "outcome": outcome, "reason": None}
    body = fixtures.reveal(NET, task, fixtures.peer(0), {}).envelope.body
    alone = True  # whether the reveal alone shows the fault
    try:
        codec.check_body({**body, "outcome": outcome}, fixtures.peer(0))
        alone = False
        NET.check_outcome(task, outcome)
    except Rejected as found:
        entry["reason"] = str(found.reason)
        assert alone == (rule in (None, 1, 2, 3, 4)), name
    assert (entry["reason"] is None) == (rule == 0), name
    return entry if rule == 0 else {"name": name, "rule": rule, **entry}


# Certificates


def _certificate(name: str, task: Task, outcome: Entry) -> Entry:
    text = canonical(certificate_document(NET, task, reveals(NET, task, outcome)))
    verified = certificate.verify_bytes(text, NET)
    return {
        "name": name,
        "certificate": text.decode(),
        "task": verified.task.id,
        "attempt": verified.attempt,
        "signers": list(verified.signers),
        "outcome": verified.outcome,
    }


def _invalid() -> Iterator[tuple[str, Rejection, Entry]]:
    def of(task: Task, outcome: Entry) -> Entry:
        return certificate_document(NET, task, reveals(NET, task, outcome))

    other = _result(SOUND, work="cd" * 32)
    mixed = [*reveals(NET, MUSIC, _result(SOUND, **WORK))[:2], reveals(NET, MUSIC, other)[2]]
    yield "a result without work", Rejection.INVALID_FIELD, of(MUSIC, _result(PLAIN))
    yield "work without tokens", Rejection.INVALID_FIELD, of(MUSIC, _result(PLAIN, **WORK))
    yield "tokens without work", Rejection.INVALID_FIELD, of(MUSIC, _result(SOUND))
    yield "work without replay", Rejection.INVALID_FIELD, of(UNPROVEN, _result(SOUND, **WORK))
    yield (
        "votes that differ in their work",
        Rejection.OUTCOMES_DIFFER,
        certificate_document(NET, MUSIC, mixed),
    )
    music = TASKS["music in a class of songs"]
    yield "a class of the other kind", Rejection.UNSUPPORTED_KIND, of(music, _result(SOUND, **WORK))
    beams = TASKS["two beams"]
    yield "beams", Rejection.OVER_LIMIT, of(beams, _result(score(), SOUND, **WORK))


def work_vectors() -> Vectors:
    """Digests of work, tokens blobs, and which tasks, outcomes and certificates are valid."""
    return {
        "description": "Sections 3.4, 3.5, 3.8, 8.2 and 8.11. `digests`: `tokens` of each of"
        " `sequences` holds the tokens of each step, a column after the other, and `logits` those"
        " of each step and column, as hex of big-endian binary32; null stands for a row that has"
        " ended. `kept` are the kept steps of each sequence, `tokens` the hash and size of each"
        " tokens blob. `blobs`: what a tokens blob (hex) holds; each of `malformed` is rejected."
        " With `padded_to`, zero bytes are added to that many bytes first. Each text of `tasks` is"
        " an envelope that is valid for `network` (a network document) if `reason` is null;"
        " `proves_work` says whether the task proves work. `fitting` and `breaking` are as in"
        " manifests.json, `valid` and `invalid` as in certificates.json.",
        "network": DOCUMENT,
        "digests": [_digest(name, sequences) for name, sequences in SEQUENCES.items()],
        "blobs": [_blob(name, blob) for name, blob in BLOBS.items()],
        "malformed": [
            *(_malformed(name, blob) for name, blob in MALFORMED.items()),
            _too_large(),
        ],
        "tasks": [_admitted(name, task) for name, task in TASKS.items()],
        "fitting": [_judged(name, task, outcome) for name, task, outcome in _fitting()],
        "breaking": [
            _judged(name, task, outcome, rule) for name, rule, task, outcome in _breaking()
        ],
        "valid": [
            _certificate("music", MUSIC, _result(SOUND, **WORK)),
            _certificate("songs", TWO_SONGS, _result(*[score(), SOUND] * 2, **WORK)),
            _certificate("an error", MUSIC, {"error": "non-finite-output"}),
            _certificate("no replay", UNPROVEN, _result(PLAIN)),
        ],
        "invalid": [
            refused(name, reason, canonical(document), lambda t: certificate.verify_bytes(t, NET))
            for name, reason, document in _invalid()
        ],
    }
