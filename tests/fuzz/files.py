"""Targets: files that strangers made, or that an owner may have spoilt."""

import contextlib
import functools
import io
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from executor.audio.decode import FRAMES, LOUDEST, RATES, decoded
from executor.errors import ModelRefused, TaskFailed
from executor.models import folders, safetensors
from executor.models.folders import EMBEDDED, SHIPPED
from node.config import keystore, settings
from node.config.keystore import UnusableKeyFile
from node.config.settings import InvalidSetting
from tests.fuzz import mutation
from tests.fuzz.target import Target
from tests.support import fixtures

FORMS = (
    *(("WAV", form) for form in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE")),
    *(("WAVEX", "PCM_16"), ("WAVEX", "FLOAT")),
    *(("FLAC", form) for form in ("PCM_S8", "PCM_16", "PCM_24")),
)


@functools.cache
def songs() -> tuple[bytes, ...]:
    """A short stereo sound in every form that is heard."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (700, 2))
    made = []
    for form, subtype in FORMS:
        file = io.BytesIO()
        soundfile.write(file, sound, 44_100, format=form, subtype=subtype)
        made.append(file.getvalue())
    return tuple(made)


def make_audio(dice: Random) -> bytes:
    """A song whose head, where most meaning is, is changed more often than the rest."""
    song = dice.choice(songs())
    head = dice.choice((64, 128, len(song)))
    return mutation.raw(song[:head], dice, 3) + song[head:]


def check_audio(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        audio, rate = decoded(Path(file.name))
    assert audio.dtype == np.float32
    assert audio.ndim == 1
    assert 1 <= len(audio) <= FRAMES
    assert RATES[0] <= rate <= RATES[1]
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() <= LOUDEST


CONFIGURATIONS = (
    {
        "model_type": "musicgen",
        "decoder": {"max_position_embeddings": 2048, "num_codebooks": 4, "audio_channels": 1},
        "audio_encoder": {"sampling_rate": 32000, "upsampling_ratios": [8, 5, 4, 4]},
        "torch_dtype": "float16",
    },
    {"model_type": "bark", "semantic_config": {"block_size": 1024}, "codec_config": {}},
    {"model_type": "csm", "codec_config": {"sampling_rate": 24000, "frame_rate": 12.5}},
    {"model_type": "speecht5", "architectures": ["SpeechT5ForTextToSpeech"]},
    {"model_type": "fastspeech2_conformer", "vocoder_config": {"sampling_rate": 22050}},
    {"model_type": "vits", "sampling_rate": 16000, "tokenizer_class": "VitsTokenizer"},
    {"model_type": "seamless_m4t", "max_position_embeddings": 4096},
    {"model_type": "pop2piano", "dtype": "float32"},
    {"semantic_config": {"max_input_semantic_length": 256, "semantic_rate_hz": 49.9}},
    {"weight_map": {"a": "model.safetensors"}, "tokenizer_file": "tokenizer.json"},
)
NAMES = (
    "config.json",
    "generation_config.json",
    "vocoder/config.json",
    "model.safetensors.index.json",
    "tokenizer_config.json",
)
KINDS = {"musicgen", "bark", "csm", "speecht5", "fastspeech2_conformer", "vits", "seamless_m4t"}


def make_configuration(dice: Random) -> bytes:
    """The number of a file, the number of the config.json beside it, and the content."""
    where = bytes((dice.choice((0, 0, 0, 1, 2, 3, 4)), dice.randrange(len(CONFIGURATIONS))))
    return where + mutation.spoilt(CONFIGURATIONS, dice)


def check_configuration(content: bytes) -> None:
    place, beside = (*content[:2], 0, 0)[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocoder").mkdir()
        (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
        other = mutation.bytes_of(CONFIGURATIONS[beside % len(CONFIGURATIONS)], Random(0))
        (folder / "config.json").write_bytes(other)
        (folder / NAMES[place % len(NAMES)]).write_bytes(content[2:])
        told = folders.describe_model(folder)
    assert told["tasks"] in (["text-to-music"], ["pop2piano"])
    assert told["dtype"] in ("float32", "float16", "bfloat16")
    assert type(told.get("sampling_rate", 1)) is int
    limits = told["limits"]
    assert isinstance(limits, dict)
    assert type(limits.get("max_new_tokens", 1)) is type(limits.get("delay", 1)) is int
    assert limits.get("max_new_tokens", 1) > 0 <= limits.get("delay", 0)
    assert type(limits.get("frame_rate", 1)) in (int, float)
    assert limits.get("frame_rate", 1) > 0


@functools.cache
def tensors() -> bytes:
    """The head of a real file of weights, with zeros for weights."""
    path = next((SHIPPED / EMBEDDED).glob("*.safetensors"))
    return path.read_bytes()[:100_000]


SMALL = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
}


def make_weights(dice: Random) -> bytes:
    header = mutation.spoilt([SMALL], dice)
    content = len(header).to_bytes(8, "little") + header + bytes(40)
    return mutation.raw(content, dice, 2) if dice.random() < 0.2 else content


def check_weights(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.safetensors"
        path.write_bytes(content)
        found = safetensors.tensor_offsets(path)
        safetensors.first_nan_tensor(path)
    assert all(0 <= first <= end <= len(content) for _, first, end in found.values())
    places = sorted((first, end) for _, first, end in found.values())
    assert sum(end - first for first, end in places) <= len(content) - 8


PASSPHRASE = "correct horse"


@functools.cache
def pems() -> tuple[bytes, ...]:
    """A key as it is kept, plain and encrypted."""
    key = fixtures.key(0)
    ways = (NoEncryption(), BestAvailableEncryption(PASSPHRASE.encode()))
    return tuple(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, way) for way in ways)


def make_key(dice: Random) -> bytes:
    pem = pems()[0] if dice.random() < 0.9 else pems()[1]  # to decrypt is slow on purpose
    return mutation.raw(pem, dice, 2) if dice.random() < 0.9 else mutation.noise(dice)


def check_key(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(content)
        path.chmod(0o600)
        key = keystore.load(path, PASSPHRASE)
    assert len(key.private_bytes_raw()) == 32


TOML = b"""\
data_dir = "data"
network = "network.json"
key = "keys/key.pem"
models_dir = ["models", "/srv/models"]
listen = "/ip4/127.0.0.1/tcp/4001"
announce = ["/dns4/node.example.org/tcp/4001"]
peers = ["/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gJ8W"]
requester_tasks = 64
feed_seconds = 5.5
log_level = "info"
log_format = "json"
[limits]
max_connections = 64
"""


def make_settings(dice: Random) -> bytes:
    if dice.random() < 0.05:
        return mutation.noise(dice)
    lines = TOML.splitlines(keepends=True)
    for _ in range(dice.randrange(3)):
        at = dice.randrange(len(lines))
        name = lines[at].partition(b"=")[0]
        odd = dice.choice(mutation.ODD)
        with contextlib.suppress(ValueError, TypeError):
            lines[at] = name + b"= " + mutation.bytes_of(odd, dice) + b"\n"
    content = b"".join(lines)
    return mutation.raw(content, dice, 3) if dice.random() < 0.5 else content


def check_settings(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "helium.toml"
        path.write_bytes(content)
        found = settings.load({}, {}, path)
    assert found.data_dir.is_absolute()
    assert found.key.is_absolute()
    assert all(folder.is_absolute() for folder in found.models_dir)
    assert 0 <= found.requester_tasks <= 1_000_000
    assert 4 <= found.limits.max_connections <= 100_000
    assert 0.05 <= found.feed_seconds <= 3600
    assert found.listen.startswith("/ip")


TARGETS = (
    Target("audio", make_audio, check_audio, (TaskFailed,)),
    Target("model", make_configuration, check_configuration, (ModelRefused,)),
    Target("weights", make_weights, check_weights, (ModelRefused,)),
    Target("key", make_key, check_key, (UnusableKeyFile,)),
    Target("settings", make_settings, check_settings, (InvalidSetting,)),
)
