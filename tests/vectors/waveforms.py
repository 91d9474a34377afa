"""Vectors of waveforms, their manifests, and the seeds of further sequences."""

import struct

import numpy as np
from numpy.typing import NDArray

from executor.audio import manifest
from executor.errors import TaskFailed
from protocol.wire.encoding import tagged_hash
from tests.vectors.entries import Entry, Vectors

SHORT: dict[str, list[list[float]]] = {
    "mono": [[0.0, 0.5, -0.25, 1.0, -1.0]],
    "minus zero is written as zero": [[-0.0, 0.0, -0.5, -0.0]],
    "stereo is interleaved by frame": [[1.0, 2.0, -0.0], [-1.0, -2.0, 0.5]],
    "the smallest and the largest": [
        [1.401298464324817e-45, -1.1754943508222875e-38, 3.4028234e38]
    ],
}
LONG = {"a whole chunk": (65_536, 1), "a frame more": (65_537, 1), "stereo": (98_304, 2)}
REFUSED = {"NaN": "7fc00000", "infinity": "7f800000", "minus infinity": "ff800000"}
SEEDS = (0, 1, 42, 2_147_483_648, 4_294_967_295)


def waveforms() -> Vectors:
    """Samples to bytes to manifests."""
    return {
        "description": "Sections 8.1, 8.2 and 8.5. `short`: `channels` holds, for each channel, its"
        " samples as hex of big-endian binary32; `bytes` (hex) is the waveform, `output` its entry"
        " in the manifest, at 32,000 Hz. `long`: sample i of channel c, both from 0,"
        " is ((i + c) mod 4096) / 4096; the rate is 44,100 Hz."
        " `refused`: one such sample anywhere makes the outcome {'error': `error`}. `sequences`:"
        " the seed of the task, and those of its sequences 0 to 3.",
        "short": [_short(name, channels) for name, channels in SHORT.items()],
        "long": [_long(name, *shape) for name, shape in LONG.items()],
        "refused": [_refused(name, bits) for name, bits in REFUSED.items()],
        "sequences": [{"seed": s, "seeds": [_seed(s, i) for i in range(4)]} for s in SEEDS],
    }


def _short(name: str, channels: list[list[float]]) -> Entry:
    frames = manifest.canonical_frames(np.array(channels, dtype=np.float32))
    return {
        "name": name,
        "channels": [
            [struct.pack(">f", sample).hex() for sample in channel] for channel in channels
        ],
        "bytes": frames.tobytes().hex(),
        "output": manifest.waveform_output(frames, 32_000).entry,
    }


def _long(name: str, frames: int, channels: int) -> Entry:
    at: NDArray[np.int64] = np.arange(frames) + np.arange(channels)[:, None]
    audio = (at % 4096).astype(np.float32) / np.float32(4096)
    output = manifest.waveform_output(manifest.canonical_frames(audio), 44_100)
    return {"name": name, "frames": frames, "channels": channels, "output": output.entry}


def _refused(name: str, bits: str) -> Entry:
    audio = np.frombuffer(bytes.fromhex("3f000000" + bits), dtype=">f4")
    try:
        manifest.canonical_frames(audio)
    except TaskFailed as failed:
        return {"name": name, "sample": bits, "error": failed.code}
    raise AssertionError(f"{name} was taken")


def _seed(seed: int, index: int) -> int:
    """Computed by section 8; the tests of text-to-music compare it with the executor."""
    if index == 0:
        return seed
    return int.from_bytes(tagged_hash("sequence", struct.pack(">QI", seed, index))[:4], "big")
