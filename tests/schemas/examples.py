"""One small valid document per schema; each call returns new objects."""

import json
from typing import Any

PEERS = tuple("12D3KooW" + letter * 44 for letter in "abc")
HASH = "0123456789abcdef" * 4
NETWORK = HASH

Document = dict[str, Any]


def documents() -> dict[str, Document]:
    bodies = _bodies()
    envelope = {"body": bodies["task"], "signer": PEERS[0], "signature": "A-_b" * 21 + "Zz"}
    vote = {**envelope, "body": bodies["reveal"]}
    certificate = {
        "type": "certificate",
        "version": 2,
        "network": NETWORK,
        "task": envelope,
        "attempt": 1,
        "votes": [vote, vote],
    }
    examples = {
        "text-to-music": _text_to_music(),
        "pop2piano": _pop2piano(),
        "network": _network(),
        "envelope": envelope,
        **bodies,
        "outcome": bodies["reveal"]["outcome"],
        "certificate": certificate,
        "evidence": {"type": "evidence", "kind": "equivocation", "envelopes": [vote, vote]},
        **_exchanges(envelope, certificate),
        **_worker_messages(bodies["reveal"]),
    }
    copies: dict[str, Document] = json.loads(json.dumps(examples))
    return copies


def _text_to_music() -> Document:
    return {
        "model": "facebook/musicgen-small",
        "prompt": "a slow piano\nin the rain",
        "generation_config": {
            "max_new_tokens": 503,
            "do_sample": True,
            "temperature": 0.7,
            "top_k": 250,
            "top_p": 0.95,
            "num_return_sequences": 2,
            "guidance_scale": 3.0,
        },
        "seed": 42,
        "dtype": "auto",
        "quantize_bits": 8,
    }


def _pop2piano() -> Document:
    return {
        "model": "sweetcocoa/pop2piano",
        "audio": [{"sha256": HASH, "size": 1}, {"sha256": HASH, "size": 33554432}],
        "composer": "composer21",
        "generation_config": {
            "max_new_tokens": 256,
            "do_sample": True,
            "temperature": 0.7,
            "top_k": 50,
            "top_p": 0.95,
            "num_beams": 4,
            "num_return_sequences": 1,
        },
        "seed": 42,
        "dtype": "auto",
        "quantize_bits": None,
    }


def _network() -> Document:
    return {
        "name": "testnet",
        "version": 2,
        "created": "2025-01-31T12:00:00Z",
        "parameters": {
            "committee_size": 3,
            "committee_max": 7,
            "commit_grace_seconds": 2,
            "attempt_seconds": 120,
            "max_deadline_seconds": 3600,
            "clock_skew_seconds": 60,
            "max_input_bytes": 33554432,
            "max_output_bytes": 134217728,
            "follow": 12,
        },
        "classes": {"cpu-avx2": {"torch": "2.13.0", "threads": 1, "mkldnn": False, "gpu": ""}},
        "models": [
            {
                "id": "helium/tiny",
                "revision": "1",
                "digest": HASH,
                "tasks": ["text-to-music"],
                "limits": {
                    "max_new_tokens": 1500,
                    "num_return_sequences": 4,
                    "generation_config": ["max_new_tokens", "top_k"],
                    "dtypes": ["float32"],
                    "quantize_bits": [8],
                    "frame_rate": 49.9,
                    "delay": 3,
                },
                "attempt_seconds": 600,
            }
        ],
        "roster": [{"peer": peer, "operator": "anna", "classes": ["cpu-avx2"]} for peer in PEERS],
    }


def _bodies() -> dict[str, Document]:
    vote = {"network": NETWORK, "task": HASH, "attempt": 0}
    waveform = {
        "media": "audio/f32",
        "sampling_rate": 32000,
        "frames": 2,
        "channels": 1,
        "sha256": HASH,
        "size": 8,
        "chunks": [HASH],
    }
    midi = {"media": "audio/midi", "sha256": HASH, "size": 64, "notes": 1, "chunks": [HASH]}
    return {
        "task": {
            "type": "task",
            "network": NETWORK,
            "kind": "text-to-music",
            "args": _text_to_music(),
            "class": "cpu-avx2",
            "created": 1738324800000,
            "deadline": 600,
            "nonce": "0123456789abcdef" * 2,
            "requester": PEERS[0],
        },
        "withdraw": {"type": "withdraw", "network": NETWORK, "task": HASH},
        "commit": {"type": "commit", **vote, "commitment": HASH},
        "reveal": {
            "type": "reveal",
            **vote,
            "outcome": {"result": {"outputs": [midi, waveform]}},
            "salt": HASH,
            "commits": dict.fromkeys(PEERS, HASH),
            "trace": {"weights": HASH, "tokens": [[HASH], []], "seconds": 1.5, "at": {"a": None}},
        },
        "abstain": {"type": "abstain", **vote, "reason": "busy"},
    }


def _worker_messages(reveal: Document) -> dict[str, Document]:
    return {
        "worker-ready": {
            "kind": "ready",
            "runtime": {"device": "cpu", "threads": 1, "onednn": False},
            "ok": True,
            "reason": "",
            "sandbox": {"files": "landlock 6"},
        },
        "worker-progress": {"kind": "progress", "share": 0.5},
        "worker-output": {"kind": "output", "size": 8},
        "worker-abstained": {
            "kind": "abstained",
            "reason": "out-of-memory",
            "detail": "too little",
        },
        "worker-deferred": {"kind": "deferred"},
        "worker-different": {"kind": "different", "sequence": 0, "step": 64, "column": 3},
        "worker-failed": {
            "kind": "failed",
            "code": "generation-rejected",
            "error": "IndexError: index out of range",
            "trace": reveal["trace"],
        },
        "worker-done": {"kind": "done", "outcome": reveal["outcome"], "trace": reveal["trace"]},
    }


def _exchanges(envelope: Document, certificate: Document) -> dict[str, Document]:
    moment = {"state": "agreed", "attempt": 1}
    running = {"time": 1738324800000, "instance": "0123456789abcdef" * 2}
    return {
        "hello-request": {"network": NETWORK, "agent": "helium/0.1.0", **running},
        "hello-answer": {
            "network": NETWORK,
            "agent": "helium/0.1.0",
            "classes": ["cpu-avx2"],
            "ready": False,
            "reasons": ["the worker is starting"],
            "models": {"cpu-avx2": ["helium/tiny"]},
            "duplicate": False,
            **running,
        },
        "submit-request": {"task": envelope, "blobs": [1, 33554432]},
        "submit-answer": {"task": HASH, "committee": list(PEERS)},
        "task-request": {"task": HASH},
        "task-answer": {**moment, "envelopes": [envelope], "certificate": certificate},
        "watch-request": {"task": HASH},
        "watch-frame": {**moment, "progress": 0.5},
        "blob-request": {"sha256": HASH, "offset": 0},
        "blob-answer": {"size": 8},
        "feed-request": {"feed": "", "cursor": 0, "limit": 1000, "wait": 60},
        "feed-answer": {"feed": "k3", "cursor": 1, "ids": [HASH]},
        "envelopes-request": {"ids": [HASH]},
        "envelopes-answer": {"envelopes": [envelope], "gone": [HASH]},
        "failure": {"reason": "unknown-task", "detail": "no such task"},
    }
