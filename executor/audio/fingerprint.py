"""From a waveform to its canonical bytes and their manifest (specification, section 8)."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from executor.errors import TaskFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 262_144  # bytes per chunk hash (section 8)
PREFIX = "helium/1/"


def tagged(tag: str, payload: bytes) -> str:
    """H(tag, payload) as 64 lowercase hex (section 2)."""
    return hashlib.sha256((PREFIX + tag).encode("ascii") + b"\0" + payload).hexdigest()


def waveform(audio: "NDArray[Any]") -> "NDArray[np.float32]":
    """The pipeline's audio, `(n,)` or `(channels, n)`, as canonical `(audio_length, channels)`.

    C-order, little-endian binary32, −0.0 as 0.0. Raises `TaskFailed` for NaN and infinity, also
    where a wider type overflows binary32.
    """
    import numpy as np

    if audio.ndim not in (1, 2):
        raise ValueError(f"a waveform of {audio.ndim} dimensions")
    with np.errstate(over="ignore"):
        frames = np.atleast_2d(audio).T.astype("<f4", order="C")
    if not np.isfinite(frames).all():
        raise TaskFailed("non-finite-output", "the waveform holds NaN or infinity")
    frames[frames == 0] = 0.0
    return frames


def described(frames: "NDArray[np.float32]", sampling_rate: int) -> dict[str, object]:
    """The manifest's entry for one canonical waveform; `sampling_rate` in Hz."""
    payload = frames.tobytes()
    return {
        "media": "audio/f32",
        "sampling_rate": sampling_rate,
        "frames": frames.shape[0],
        "channels": frames.shape[1],
        "sha256": hashlib.sha256(payload).hexdigest(),
        "size": len(payload),
        "chunks": [
            hashlib.sha256(payload[start : start + CHUNK]).hexdigest()
            for start in range(0, len(payload), CHUNK)
        ],
    }


def write(frames: "NDArray[np.float32]", path: Path) -> None:
    """Write the canonical bytes: exactly what the manifest's `sha256` is of."""
    path.write_bytes(frames.tobytes())
