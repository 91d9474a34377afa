"""The jobs that make a worker ready for a model, before its first task.

A job verifies the weights, imports the libraries of its kind and lets them compile. The first cover
of a Pop2Piano model takes a minute or more for that, all others a second or two.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path

from executor.job import Job
from node.execution.queue import model_ref
from protocol.network import Model

# Libraries compile for up to five minutes on a slow machine.
WARM_UP_SECONDS = 900.0
# New tokens of a warm-up: enough to run every part of a model once.
TOKENS = 8
PROMPT = "warm up"
# The song of a warm-up: four seconds of clicks, two in a second, over a chord.
RATE, SECONDS = 22_050, 4
CLICK, CHORD = 0.5, (220.0, 277.18, 329.63)


def warm_up_jobs(
    model: Model, scratch: Path, tokens: int = TOKENS, seconds: int = SECONDS
) -> Iterator[Job]:
    """Yield a job for each kind that a listed model serves, a small one by default.

    A generation has at most `tokens` new tokens; a song lasts `seconds`. The inputs are files in
    `scratch`, written when the job is taken. The caller deletes them.
    """
    for kind in model.tasks:
        args: dict[str, object] = {"model": model.id, "seed": 0}
        config = _generation_config(model, tokens)
        if config:
            args["generation_config"] = config
        inputs: tuple[Path, ...] = ()
        if kind == "pop2piano":
            song = _song(seconds)
            digest = hashlib.sha256(song).hexdigest()
            args["audio"] = [{"sha256": digest, "size": len(song)}]
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / f"warm-up-{digest[:16]}.wav"
            path.write_bytes(song)
            inputs = (path,)
        else:
            args["prompt"] = PROMPT
        yield Job(f"warm-up {model.id}", kind, args, model_ref(model), inputs)


def loading_jobs(model: Model) -> Iterator[Job]:
    """Yield a job for each kind that a listed model serves, which loads the model.

    Beyond that it does as little as it can: some tokens, or a cover of no song, for which nothing
    is compiled. What the job comes to is unimportant.
    """
    for kind in model.tasks:
        args: dict[str, object] = {"model": model.id, "seed": 0}
        if kind != "pop2piano":
            args["prompt"] = PROMPT
            if config := _generation_config(model, TOKENS):
                args["generation_config"] = config
        yield Job(f"load {model.id}", kind, args, model_ref(model))


def _generation_config(model: Model, tokens: int) -> dict[str, object]:
    """Return the settings of a generation, as far as the model's limits allow them."""
    settable = model.limits.get("generation_config", ["max_new_tokens"])
    assert isinstance(settable, list | tuple)  # noqa: S101  # the schema says so
    if "max_new_tokens" not in settable:
        return {}
    limit = model.limits.get("max_new_tokens", tokens)
    assert isinstance(limit, int)  # noqa: S101  # the schema says so
    return {"max_new_tokens": min(tokens, limit)}


def _song(seconds: int) -> bytes:
    """Return a WAV file, 16 bit mono, in which a beat tracker finds beats."""
    frames = RATE * seconds
    samples = []
    for index in range(frames):
        time = index / RATE
        click = math.exp(-60 * (time % CLICK)) * math.sin(2 * math.pi * 1000 * time)
        chord = sum(math.sin(2 * math.pi * frequency * time) for frequency in CHORD) / 12
        samples.append(round(16_000 * (click + chord)))
    content = struct.pack(f"<{frames}h", *samples)
    format_chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    data = struct.pack("<4sI", b"data", len(content)) + content
    return struct.pack("<4sI4s", b"RIFF", 4 + len(format_chunk) + len(data), b"WAVE") + (
        format_chunk + data
    )
