"""The sound of a history: a few samples drawn from a hash, and the manifest of them."""

import hashlib
from collections.abc import Mapping
from typing import Any

RATE = 16_000
FRAMES = 64


def waveform(args: Mapping[str, object], label: str = "honest") -> bytes:
    """What every honest executor gives for a task: FRAMES mono samples, from a hash."""
    seed = f"{label}|{args.get('prompt')}|{args['seed']}".encode()
    noise = hashlib.shake_128(seed).digest(FRAMES)
    return b"".join(bytes((0, 0, byte, 0x3F)) for byte in noise)


def manifest(payload: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(payload).hexdigest()
    entry = {
        "media": "audio/f32",
        "sampling_rate": RATE,
        "frames": len(payload) // 4,
        "channels": 1,
        "sha256": sha256,
        "size": len(payload),
        "chunks": [sha256],
    }
    return {"outputs": [entry]}
