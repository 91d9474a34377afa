"""The manifest of an outcome: its outputs and their blobs (specification 8).

The one definition of manifest entries: an executor makes them with `waveform_entry` and
`score_entry`; every reader takes `outputs_of` or `blobs_of`. `check_consistent` compares a manifest
with itself, `check_fits` and `check_work` with its task. All are part of the validity of a reveal.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.constants import TOKEN_BYTES
from protocol.errors import Rejected, Rejection

# The media of a waveform: binary32, little-endian, C order of shape (frames, channels).
WAVEFORM = "audio/f32"

# The media of a MIDI file.
SCORE = "audio/midi"

# Bytes of a waveform's sample: binary32.
_SAMPLE_BYTES = 4

# Bytes of a MIDI file without notes, and the least of a note's two events (section 8.8).
_EMPTY_SCORE_BYTES, _NOTE_BYTES = 56, 8

# Bytes of content per entry in `chunks`, so that a download is verified while it runs (8.2).
CHUNK_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob; `chunks` is empty for one whose chunks no manifest lists: an input, or tokens."""

    sha256: str
    size: int
    chunks: tuple[str, ...]


def waveform_entry(
    content: bytes,
    *,
    sampling_rate: int,
    frames: int,
    channels: int,
    tokens: bytes | None = None,
) -> dict[str, object]:
    """Return the manifest entry of a waveform's canonical bytes; `sampling_rate` in Hz.

    `tokens` is the sequence's blob (`work.tokens_blob`), if the task proves work.
    """
    entry = {
        "media": WAVEFORM,
        "sampling_rate": sampling_rate,
        "frames": frames,
        "channels": channels,
        **_content(content),
    }
    if tokens is not None:
        entry["tokens"] = {"sha256": hashlib.sha256(tokens).hexdigest(), "size": len(tokens)}
    return entry


def score_entry(content: bytes, *, notes: int) -> dict[str, object]:
    """Return the manifest entry of a MIDI file with so many notes."""
    return {
        "media": SCORE,
        "notes": notes,
        **_content(content),
    }


def _content(content: bytes) -> dict[str, object]:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "chunks": [
            hashlib.sha256(content[start : start + CHUNK_BYTES]).hexdigest()
            for start in range(0, len(content), CHUNK_BYTES)
        ],
    }


def check_consistent(outcome: Mapping[str, Any]) -> None:
    """Raise Rejected(INVALID_FIELD) if a manifest contradicts itself (specification 8.2).

    `outcome` fits its schema. Otherwise a client could promise a length of audio by `frames` and
    download another by `size`.
    """
    for index, output in enumerate(outputs_of(outcome)):
        field = f"outcome.result.outputs[{index}]"
        size, chunks = output["size"], len(output["chunks"])
        if output["media"] == WAVEFORM:
            expected = output["frames"] * output["channels"] * _SAMPLE_BYTES
            if size != expected:
                raise _inconsistent(f"{field}.size", f"is {size}, frames and channels: {expected}")
            tokens = tokens_of(output)
            if tokens is not None and tokens.size % TOKEN_BYTES:
                raise _inconsistent(f"{field}.tokens.size", f"{tokens.size} is no multiple of 4")
        else:
            least = _EMPTY_SCORE_BYTES + _NOTE_BYTES * output["notes"]
            if size < least:
                raise _inconsistent(f"{field}.size", f"is {size}, notes need {least}")
        if chunks != -(-size // CHUNK_BYTES):
            raise _inconsistent(f"{field}.chunks", f"has {chunks} hashes for {size} bytes")


def check_fits(
    outcome: Mapping[str, Any], kind: str, args: Mapping[str, Any], max_output_bytes: int
) -> None:
    """Raise Rejected(INVALID_FIELD) if a manifest is not one that its task can have.

    `kind` and `args` are those of an admitted task; `max_output_bytes` is the network's parameter.
    These are the faults that a task can cause; `check_work` finds those of a member.
    """
    outputs = outputs_of(outcome)
    media, expected = [output["media"] for output in outputs], media_of(kind, args)
    if "result" in outcome and media != expected:
        raise _inconsistent(
            "outcome.result.outputs",
            f"are {len(media)}, not the {len(expected)} of the task's media",
        )
    size = sum(blob.size for blob in blobs_of(outcome))
    if size > max_output_bytes:
        raise _inconsistent(
            "outcome.result.outputs", f"have {size} bytes, at most {max_output_bytes}"
        )


def check_work(outcome: Mapping[str, Any], *, proves_work: bool) -> None:
    """Raise Rejected(INVALID_FIELD) unless an outcome proves the work that its task asks it to.

    `proves_work` is `Network.proves_work` of the task. An outcome of any other task has neither
    `work` nor tokens.
    """
    if "result" not in outcome:
        return
    problem = "is missing: the task proves work" if proves_work else "is there: no work to prove"
    if ("work" in outcome) != proves_work:
        raise _inconsistent("outcome.work", problem)
    for index, output in enumerate(outputs_of(outcome)):
        if output["media"] == WAVEFORM and ("tokens" in output) != proves_work:
            raise _inconsistent(f"outcome.result.outputs[{index}].tokens", problem)


def media_of(kind: str, args: Mapping[str, Any]) -> list[str]:
    """Return the media of the outputs that an admitted task asks for, in order."""
    if kind == "pop2piano":
        return [SCORE, WAVEFORM] * len(args["audio"])
    config = args.get("generation_config") or {}
    return [WAVEFORM] * (config.get("num_return_sequences") or 1)


def _inconsistent(field: str, problem: str) -> Rejected:
    return Rejected(Rejection.INVALID_FIELD, f"{field}: {problem}")


def outputs_of(outcome: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the manifest entries of an outcome; none for an error."""
    manifest: Any = outcome.get("result", {"outputs": []})
    return manifest["outputs"]  # type: ignore[no-any-return]  # the schema of outcomes says so


def blobs_of(outcome: Mapping[str, Any]) -> tuple[Blob, ...]:
    """Return the blobs of an outcome's manifest; none for an error.

    Each output's blob is followed by that of its tokens, if it has any.
    """
    blobs: list[Blob] = []
    for output in outputs_of(outcome):
        tokens = tokens_of(output)
        blobs += [blob_of(output)] if tokens is None else [blob_of(output), tokens]
    return tuple(blobs)


def blob_of(output: Mapping[str, Any]) -> Blob:
    """Return the blob of an output."""
    return Blob(output["sha256"], output["size"], tuple(output["chunks"]))


def tokens_of(output: Mapping[str, Any]) -> Blob | None:
    """Return the blob of an output's tokens; None if it has none."""
    tokens = output.get("tokens")
    return None if tokens is None else Blob(tokens["sha256"], tokens["size"], ())
