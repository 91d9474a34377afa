"""Vectors of the limits of models: tasks within and over them, and frames of tokens."""

from typing import Any

from protocol import model_limits
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Task
from protocol.wire.signing import sign
from tests.support import fixtures
from tests.vectors.entries import Entry, Vectors

SONG: Entry = {"sha256": "ab" * 32, "size": 1000}
ALL_MEMBERS = [
    *("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "num_return_sequences"),
    *("guidance_scale", "num_beams"),
]
LARGEST_INPUTS = 33_554_432

# Limits by the name of the model that has them.
MODELS: dict[str, Entry] = {
    "none": {},
    "tokens": {"max_new_tokens": 1503},
    "sequences": {"num_return_sequences": 4},
    "prompt": {"prompt_characters": 8},
    "seconds": {"output_seconds": 10, "frame_rate": 50, "delay": 3},
    "fraction": {"output_seconds": 10, "frame_rate": 49.95},
    # 100 * 4.35 is less than 435 in binary64.
    "rounded": {"output_seconds": 100, "frame_rate": 4.35},
    "short": {"output_seconds": 1, "frame_rate": 4, "delay": 3},
    "no-rate": {"output_seconds": 1, "delay": 3},
    "config": {"generation_config": ["max_new_tokens", "temperature"]},
    "no-config": {"generation_config": []},
    "every-config": {"generation_config": ALL_MEMBERS},
    "dtypes": {"dtypes": ["float32", "bfloat16"]},
    "eight-bits": {"quantize_bits": [8]},
    "no-bits": {"quantize_bits": []},
    "unknown": {"seed": 1, "voices": [], "temperature": {"max": 0}, "prompt": 1},
    "composers": {"composers": ["composer1", "Composer 2"]},
    "without-default": {"composers": ["composer2"]},
    "piano": {
        "max_new_tokens": 256,
        "output_seconds": 1,
        "input_seconds": 1,
        "frame_rate": 1,
        "dtypes": ["float32"],
        "quantize_bits": [],
    },
}

# Tasks by model: the arguments besides the usual ones; a value of `...` leaves the member out.
MUSIC: dict[str, list[Entry]] = {
    "none": [
        {},
        {"generation_config": {"max_new_tokens": 65_536, "num_return_sequences": 16}},
        {"prompt": "x" * 4096},
        {"dtype": "float16", "quantize_bits": 4},
    ],
    "tokens": [
        *({"generation_config": {"max_new_tokens": n}} for n in (1, 1503, 1504, None)),
        {},
        {"generation_config": None},
        {"generation_config": {}},
    ],
    "sequences": [{"generation_config": {"num_return_sequences": n}} for n in (4, 5, None)],
    "prompt": [{"prompt": p} for p in ("12345678", "123456789", "é" * 8, "\U0001f600" * 8)]
    + [{"prompt": p} for p in ("\U0001f600" * 9, "e\u0301" * 4, "e\u0301" * 5)],
    "seconds": [{"generation_config": {"max_new_tokens": n}} for n in (503, 504, None)] + [{}],
    "fraction": [{"generation_config": {"max_new_tokens": n}} for n in (499, 500)],
    "rounded": [{"generation_config": {"max_new_tokens": n}} for n in (434, 435)],
    "short": [{"generation_config": {"max_new_tokens": n}} for n in range(1, 9)],
    "no-rate": [{"generation_config": {"max_new_tokens": 65_536}}],
    "config": [
        {"generation_config": {"max_new_tokens": 9, "temperature": 0.5}},
        {"generation_config": {"top_k": 5}},
        {"generation_config": {"top_k": None, "do_sample": None}},
        {"generation_config": {"do_sample": False}},
        {"generation_config": {}},
    ],
    "no-config": [
        {},
        {"generation_config": None},
        {"generation_config": {}},
        {"generation_config": {"top_k": None}},
        {"generation_config": {"top_k": 0}},
    ],
    "every-config": [{"generation_config": {"guidance_scale": 0, "top_p": 0}}],
    "dtypes": [{"dtype": d} for d in ("float32", "bfloat16", "auto", None, "float16")] + [{}],
    "eight-bits": [{"quantize_bits": b} for b in (8, 4, None)] + [{}],
    "no-bits": [{"quantize_bits": b} for b in (8, 4, None)] + [{}],
    "unknown": [{"generation_config": {"temperature": 100}}, {"seed": 2}],
}
PIANO: dict[str, list[Entry]] = {
    "none": [
        {},
        {"audio": [SONG] * 8},
        {"audio": [SONG | {"size": LARGEST_INPUTS}]},
        {"audio": [SONG | {"size": LARGEST_INPUTS + 1}]},
        {"audio": [SONG | {"size": LARGEST_INPUTS - 1000}, SONG]},
        {"audio": [SONG | {"size": LARGEST_INPUTS - 999}, SONG]},
        {"composer": "anybody"},
        {"generation_config": {"num_beams": 16, "num_return_sequences": 1}},
    ],
    "composers": [
        *({"composer": c} for c in ("composer1", "Composer 2", "composer 2", "composer3", None)),
        {"composer": ...},
    ],
    "without-default": [{"composer": "composer1"}, {"composer": None}, {"composer": ...}],
    "piano": [
        {},
        {"generation_config": {"max_new_tokens": 256}},
        {"generation_config": {"max_new_tokens": 257}},
        {"dtype": "float16"},
        {"quantize_bits": 8},
        {"audio": [SONG | {"size": 20_000_000}]},
    ],
    "no-config": [{"generation_config": {}}, {"generation_config": None}],
    "every-config": [{"generation_config": {"num_beams": 2, "top_p": 1}}],
    "config": [{"generation_config": {"num_beams": 2}}],
}


def _document() -> Entry:
    document = fixtures.network_document(max_input_bytes=LARGEST_INPUTS)
    (model,) = document["models"]
    document["models"] = [
        model | {"id": f"limits/{name}", "tasks": ["text-to-music", "pop2piano"], "limits": limits}
        for name, limits in MODELS.items()
    ]
    return document


DOCUMENT = _document()
NET = Network.of(DOCUMENT)


def limits() -> Vectors:
    """Tasks for models with limits, and frames of tokens."""
    return {
        "description": "Sections 3.6, 3.8 and 8.6. Each `text` of `tasks` is the envelope of a"
        " task: valid for `network` (a network document) if `reason` is null, else rejected for"
        " it. `frames`: n new `tokens` of a model with this `delay` are so many frames.",
        "network": DOCUMENT,
        "tasks": [
            _task(f"{kind}, {name}: {_difference(args)}", kind, name, args)
            for kind, cases in (("text-to-music", MUSIC), ("pop2piano", PIANO))
            for name, list_of_args in cases.items()
            for args in list_of_args
        ],
        "frames": [
            {"delay": delay, "tokens": tokens, "frames": _frames(delay, tokens)}
            for delay in (0, 1, 3)
            for tokens in range(10)
        ]
        + [
            {"delay": 3, "tokens": 503, "frames": _frames(3, 503)},
            {"delay": 65_535, "tokens": 65_536, "frames": _frames(65_535, 65_536)},
            {"delay": 32_768, "tokens": 65_536, "frames": _frames(32_768, 65_536)},
        ],
    }


def _frames(delay: int, tokens: int) -> int:
    return model_limits.frames({"delay": delay}, tokens)


def _difference(args: Entry) -> str:
    texts = []
    for name, value in args.items():
        if name == "audio":
            texts.append(f"{len(value)} inputs of {sum(blob['size'] for blob in value)} bytes")
        elif isinstance(value, str):
            texts.append(f"{name} of {len(value)} characters" if name == "prompt" else value)
        else:
            texts.append(f"{name} {'left out' if value is ... else value}")
    return ", ".join(texts) or "the usual"


def _task(name: str, kind: str, model: str, changes: Entry) -> Entry:
    usual = fixtures.args() if kind == "text-to-music" else fixtures.piano_args(b"song")
    args: Any = usual | {"model": f"limits/{model}"} | changes
    body = {
        **fixtures.task(NET, kind=kind).envelope.body,
        "args": {name: value for name, value in args.items() if value is not ...},
    }
    text = sign(body, fixtures.key(1000)).encode()
    return {"name": name, "text": text.decode(), "reason": _verdict(text)}


def _verdict(text: bytes) -> str | None:
    task = codec.decode(text, NET.id)
    assert isinstance(task, Task)
    try:
        NET.admit(task)
    except Rejected as rejected:
        return str(rejected.reason)
    return None
