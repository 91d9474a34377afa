"""A small network, a task in it, and a valid certificate, signed with fixed keys."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.consensus.certificate import Certificate, assemble
from protocol.consensus.committee import committees
from protocol.network import Network, NetworkParameters
from protocol.wire import messages
from protocol.wire.codec import decode
from protocol.wire.encoding import Document
from protocol.wire.messages import Reveal, Task
from protocol.wire.signing import peer_of, sign

# A number in every trace: its last digit can change without changing the binary64 value.
AWKWARD = 0.30000000000000004
RATE = 16_000


@dataclass(frozen=True, slots=True)
class Certified:
    """A network, a certificate in it, and the WAV file that the certificate covers."""

    network: Network
    certificate: Certificate
    wav: bytes


def keys(count: int = 4) -> list[Ed25519PrivateKey]:
    return [Ed25519PrivateKey.from_private_bytes(bytes((n,)) * 32) for n in range(1, count + 1)]


def network_of(
    owners: list[Ed25519PrivateKey], operators: Sequence[str], proves_work: bool
) -> Network:
    roster = [
        {"peer": peer_of(key), "operator": operator, "classes": ["cpu"]}
        for key, operator in zip(owners, operators, strict=True)
    ]
    model: dict[str, Any] = {
        "id": "helium/embedded-music",
        "revision": "main",
        "digest": "ab" * 32,
        "tasks": ["text-to-music"],
        "limits": {"max_new_tokens": 1000},
    }
    if proves_work:
        model["replay"] = True
    document: Any = {
        "name": "certified",
        "version": 2,
        "created": "2026-01-01T00:00:00Z",
        "parameters": asdict(NetworkParameters()),
        "classes": {"cpu": {"engine": "helium"} if proves_work else {"device": "cpu"}},
        "models": [model],
        "roster": roster,
    }
    return Network.of(document)


def task_of(network: Network, key: Ed25519PrivateKey) -> Task:
    args: Document = {"model": "helium/embedded-music", "prompt": "réveille\n", "seed": 42}
    body = messages.task_body(
        network.id, "text-to-music", args, "cpu", 1_700_000_000_000, 60, "0f" * 16, peer_of(key)
    )
    task = decode(sign(body, key).encode(), network.id)
    assert isinstance(task, Task)
    return task


OPERATORS = [f"operator-{n}" for n in range(4)]


TOKENS: dict[str, Any] = {"sha256": "cd" * 32, "size": 12}
WORK = "ef" * 32


def make(
    outcome: Document | None = None,
    operators: Sequence[str] = OPERATORS,
    *,
    proves_work: bool = False,
) -> Certified:
    """Return a certificate by the whole first committee; the audio is 100 frames of noise."""
    samples = np.random.default_rng(1).uniform(-1, 1, (100, 1)).astype("<f4")
    owners = {peer_of(key): key for key in keys()}
    network = network_of(list(owners.values()), operators, proves_work)
    task = task_of(network, next(iter(owners.values())))
    output = _output(samples.tobytes())
    agreed = outcome or {"result": {"outputs": [output]}}
    if proves_work:
        agreed = {"result": {"outputs": [{**output, "tokens": TOKENS}]}, "work": WORK}
    committee = committees(network, task)[0]
    digest = messages.outcome_digest(agreed)
    salts = {peer: hashlib.sha256(peer.encode()).hexdigest() for peer in committee}
    commits = {p: messages.commitment(task.id, 0, p, digest, salts[p]) for p in committee}
    reveals = []
    for peer in committee:
        trace: Document = {"seconds": AWKWARD}
        body = messages.reveal_body(network.id, task.id, 0, agreed, salts[peer], commits, trace)
        vote = decode(sign(body, owners[peer]).encode(), network.id)
        assert isinstance(vote, Reveal)
        reveals.append(vote)
    return Certified(network, assemble(task, 0, reveals, network), wav(samples, RATE))


def wav(samples: Any, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _output(payload: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(payload).hexdigest()
    return {
        "media": "audio/f32",
        "sampling_rate": RATE,
        "frames": len(payload) // 4,
        "channels": 1,
        "sha256": digest,
        "size": len(payload),
        "chunks": [digest],
    }
