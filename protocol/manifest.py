"""The manifest of an outcome: its outputs and their blobs (specification 8).

The one definition of manifest entries: an executor makes them with `waveform_entry` and
`score_entry`; every reader takes `outputs_of` or `blobs_of`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.wire.encoding import Document

# The media of a waveform: binary32, little-endian, C order of shape (frames, channels).
WAVEFORM = "audio/f32"

# The media of a MIDI file.
SCORE = "audio/midi"

# Bytes of content per entry in `chunks`, so that a download is verified while it runs (section 8).
CHUNK_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob of a manifest; `chunks` is empty if the manifest has no chunk hashes for it."""

    sha256: str
    size: int
    chunks: tuple[str, ...]


def waveform_entry(
    content: bytes, *, sampling_rate: int, frames: int, channels: int
) -> dict[str, object]:
    """Return the manifest entry of a waveform's canonical bytes; `sampling_rate` in Hz."""
    return {
        "media": WAVEFORM,
        "sampling_rate": sampling_rate,
        "frames": frames,
        "channels": channels,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "chunks": [
            hashlib.sha256(content[start : start + CHUNK_BYTES]).hexdigest()
            for start in range(0, len(content), CHUNK_BYTES)
        ],
    }


def score_entry(content: bytes, *, notes: int) -> dict[str, object]:
    """Return the manifest entry of a MIDI file with so many notes."""
    return {
        "media": SCORE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "notes": notes,
    }


def outputs_of(outcome: Document) -> Sequence[Mapping[str, Any]]:
    """Return the manifest entries of an outcome; none for an error."""
    manifest: Any = outcome.get("result", {"outputs": []})
    return manifest["outputs"]  # type: ignore[no-any-return]  # the schema of outcomes says so


def blobs_of(outcome: Document) -> tuple[Blob, ...]:
    """Return the blobs of an outcome's manifest, in its order; none for an error."""
    return tuple(
        Blob(o["sha256"], o["size"], tuple(o.get("chunks", ()))) for o in outputs_of(outcome)
    )
