"""Vectors of manifests: outcomes that fit their tasks, and one that breaks each rule."""

from collections.abc import Iterator
from typing import Any

from protocol import manifest
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Task
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors

CHUNK = 262_144
MOST = 3 * CHUNK
HASH = "ab" * 32


def _document() -> Entry:
    document = fixtures.network_document(max_output_bytes=MOST)
    (model,) = document["models"]
    model["limits"] = {}
    document["models"].append({**model, "id": fixtures.PIANO, "tasks": ["pop2piano"]})
    return document


DOCUMENT = _document()
NET = Network.of(DOCUMENT)


def waveform(frames: int, channels: int = 1, /, **changes: Any) -> Entry:
    size = 4 * frames * channels
    entry = {
        "media": "audio/f32",
        "sampling_rate": 32_000,
        "frames": frames,
        "channels": channels,
        "sha256": HASH,
        "size": size,
        "chunks": [HASH] * -(-size // CHUNK),
    }
    return _changed(entry, changes)


def score(size: int = 64, notes: int = 1, /, **changes: Any) -> Entry:
    entry = {
        "media": "audio/midi",
        "sha256": HASH,
        "size": size,
        "notes": notes,
        "chunks": [HASH] * -(-size // CHUNK),
    }
    return _changed(entry, changes)


def _changed(entry: Entry, changes: Entry) -> Entry:
    """Return the entry with other members; a value of `...` removes the member."""
    return {name: value for name, value in {**entry, **changes}.items() if value is not ...}


def _result(*outputs: Entry) -> Entry:
    return {"result": {"outputs": list(outputs)}}


def _music(**config: Any) -> Task:
    return fixtures.task(NET, generation_config=config)


def _piano(songs: int) -> Task:
    body = fixtures.task(NET, kind="pop2piano").envelope.body
    args = fixtures.piano_args(*(b"song %d" % n for n in range(songs)))
    message = fixtures.signed(NET, {**body, "args": args}, 1000)
    assert isinstance(message, Task)
    return message


PLAIN, ONE_SONG, TWO_SONGS = fixtures.task(NET), _piano(1), _piano(2)
SOUND = waveform(100)


def _fitting() -> Iterator[tuple[str, Task, Entry]]:
    yield "one sound", PLAIN, _result(SOUND)
    yield "no generation_config", fixtures.task(NET, generation_config=None), _result(SOUND)
    yield "num_return_sequences null", _music(num_return_sequences=None), _result(SOUND)
    yield "three sounds", _music(num_return_sequences=3), _result(SOUND, waveform(1), SOUND)
    yield "eight channels", PLAIN, _result(waveform(5, 8))
    yield "the least", PLAIN, _result(waveform(1, sampling_rate=1))
    yield "the highest rate", PLAIN, _result(waveform(1, sampling_rate=384_000))
    yield "a whole chunk", PLAIN, _result(waveform(CHUNK // 4))
    yield "a frame more than a chunk", PLAIN, _result(waveform(CHUNK // 4 + 1))
    yield "max_output_bytes", PLAIN, _result(waveform(MOST // 4))
    yield (
        "max_output_bytes in two",
        _music(num_return_sequences=2),
        _result(waveform(MOST // 4 - 100), SOUND),
    )
    yield "one song", ONE_SONG, _result(score(), SOUND)
    yield "two songs", TWO_SONGS, _result(score(), SOUND, score(), SOUND)
    yield "eight songs", _piano(8), _result(*[score(), SOUND] * 8)
    yield "the smallest score of 100 notes", ONE_SONG, _result(score(856, 100), SOUND)
    yield "a score of two chunks", ONE_SONG, _result(score(CHUNK + 1, 9), SOUND)
    for code in ("input-undecodable", "generation-rejected", "non-finite-output", "no-notes"):
        yield f"{code} of music", PLAIN, {"error": code}
        yield f"{code} of a song", ONE_SONG, {"error": code}


def _breaking() -> Iterator[tuple[str, int | None, Task, Entry]]:
    """Yield the name, the rule of 8.2 (None: the form), the task and the outcome."""
    yield "no output", None, PLAIN, _result()
    yield "17 outputs", None, _music(num_return_sequences=16), _result(*[SOUND] * 17)
    yield "a result and an error", None, PLAIN, {**_result(SOUND), "error": "no-notes"}
    yield "neither", None, PLAIN, {}
    yield "an unknown code", None, PLAIN, {"error": "busy"}
    yield "another media", None, PLAIN, _result(waveform(9, media="audio/wav"))
    yield "an unknown member", None, PLAIN, _result(waveform(9, notes=1))
    yield "an unknown member of a score", None, ONE_SONG, _result(score(frames=1), SOUND)
    yield "a waveform without chunks", None, PLAIN, _result(waveform(9, chunks=...))
    yield "a score without chunks", None, ONE_SONG, _result(score(chunks=...), SOUND)
    yield "a hash in capitals", None, PLAIN, _result(waveform(9, sha256="AB" * 32))
    yield "a line feed after a hash", None, PLAIN, _result(waveform(9, chunks=[HASH + "\n"]))
    yield "no rate", 1, PLAIN, _result(waveform(9, sampling_rate=0))
    yield "a rate of 384,001", 1, PLAIN, _result(waveform(9, sampling_rate=384_001))
    yield "half a Hertz", 1, PLAIN, _result(waveform(9, sampling_rate=0.5))
    yield "no frame", 1, PLAIN, _result(waveform(0))
    yield "no frame, and a chunk", 1, PLAIN, _result(waveform(0, chunks=[HASH]))
    yield "no channel", 1, PLAIN, _result(waveform(9, channels=0))
    yield "nine channels", 1, PLAIN, _result(waveform(9, 9))
    yield "a frame too many", 1, PLAIN, _result(waveform(9, frames=134_217_729))
    yield "a byte too many", 2, PLAIN, _result(waveform(9, size=37))
    yield "a byte too few", 2, PLAIN, _result(waveform(9, size=35))
    yield "the size of one channel", 2, PLAIN, _result(waveform(9, 2, size=36))
    yield "no note", 3, ONE_SONG, _result(score(notes=0), SOUND)
    yield "a million notes and one", 3, ONE_SONG, _result(score(notes=1_000_001), SOUND)
    yield "too small for one note", 3, ONE_SONG, _result(score(63), SOUND)
    yield "too small for 100 notes", 3, ONE_SONG, _result(score(855, 100), SOUND)
    yield "a chunk too many", 4, PLAIN, _result(waveform(9, chunks=[HASH] * 2))
    yield "a chunk too few", 4, PLAIN, _result(waveform(CHUNK // 4 + 1, chunks=[HASH]))
    yield "no chunk", 4, PLAIN, _result(waveform(9, chunks=[]))
    yield "a chunk too many of a score", 4, ONE_SONG, _result(score(chunks=[HASH] * 2), SOUND)
    yield "a sound too many", 5, PLAIN, _result(SOUND, SOUND)
    yield "a sound too few", 5, _music(num_return_sequences=2), _result(SOUND)
    yield "two of none asked", 5, _music(num_return_sequences=None), _result(SOUND, SOUND)
    yield "a score for music", 5, PLAIN, _result(score())
    yield "a score and a sound for music", 5, PLAIN, _result(score(), SOUND)
    yield "a score without a sound", 6, ONE_SONG, _result(score())
    yield "a sound without a score", 6, ONE_SONG, _result(SOUND)
    yield "a sound before its score", 6, ONE_SONG, _result(SOUND, score())
    yield "scores before sounds", 6, TWO_SONGS, _result(score(), score(), SOUND, SOUND)
    yield "one song of two", 6, TWO_SONGS, _result(score(), SOUND)
    yield "two songs of one", 6, ONE_SONG, _result(*[score(), SOUND] * 2)
    yield "over max_output_bytes", 7, PLAIN, _result(waveform(MOST // 4 + 1))
    yield (
        "over max_output_bytes in two",
        7,
        _music(num_return_sequences=2),
        _result(waveform(MOST // 4 - 99), SOUND),
    )
    yield "over max_output_bytes by a score", 7, ONE_SONG, _result(score(), waveform(MOST // 4))


def manifests() -> Vectors:
    """Outcomes that fit their tasks, and outcomes that no reveal may hold."""
    return {
        "description": "Section 8.2. `task` is an envelope, valid for `network` (a network"
        " document). Each `outcome` of `fitting` fits its task. Each of `breaking` makes a reveal"
        " invalid: it breaks `rule` of 8.2, or its form is not that of the schema if that is null."
        " Rules 5 to 7 need the task.",
        "network": DOCUMENT,
        "fitting": [
            {"name": n, **_case(task, outcome), "reason": _verdict(task, outcome, 0)}
            for n, task, outcome in _fitting()
        ],
        "breaking": [
            {
                "name": n,
                "rule": r,
                **_case(task, outcome),
                "reason": _verdict(task, outcome, r),
            }
            for n, r, task, outcome in _breaking()
        ],
    }


def _case(task: Task, outcome: Entry) -> Entry:
    return {"task": task.envelope.encode().decode(), "outcome": outcome}


def _verdict(task: Task, outcome: Entry, rule: int | None) -> str | None:
    """Return the product's reason; asserts that the reveal alone shows faults of rules 1 to 4.

    `rule` is None for another form, 0 if none is broken.
    """
    NET.admit(task)
    try:
        codec.check_body({**_reveal(task), "outcome": outcome}, fixtures.peer(0))
    except Rejected as rejected:
        assert rule in (None, 1, 2, 3, 4), outcome
        return str(rejected.reason)
    try:
        manifest.check_fits(outcome, task.kind, task.args, MOST)
    except Rejected as rejected:
        assert rule in (5, 6, 7), outcome
        return str(rejected.reason)
    assert rule == 0, outcome
    return None


def _reveal(task: Task) -> Any:
    return fixtures.reveal(NET, task, fixtures.peer(0), {}).envelope.body
