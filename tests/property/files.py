"""Parsers of files: audio, model configurations, weights, keys and settings."""

import functools
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import strategies as st

from executor.audio.decode import MAX_AMPLITUDE, MAX_FRAMES, MAX_RATE, MIN_RATE, decode
from executor.errors import ModelRefused, TaskFailed
from executor.models import folders, safetensors
from node.config import keystore, settings
from node.config.keystore import UnusableKeyFile
from node.config.settings import InvalidSetting
from tests.property import strategies
from tests.property.parsers import Parser
from tests.support import fixtures

FORMS = (
    *(("WAV", form) for form in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE")),
    *(("WAVEX", "PCM_16"), ("WAVEX", "FLOAT")),
    *(("FLAC", form) for form in ("PCM_S8", "PCM_16", "PCM_24")),
)


@functools.cache
def songs() -> tuple[bytes, ...]:
    """Return a short stereo sound in every supported encoding."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (400, 2))
    files = []
    for form, subtype in FORMS:
        file = io.BytesIO()
        soundfile.write(file, sound, 44_100, format=form, subtype=subtype)
        files.append(file.getvalue())
    return (*files, *map(without_length, (files[1], files[-2])), *map(with_chunks, files[:2]))


def without_length(song: bytes) -> bytes:
    """Return a WAV or FLAC as a pipe's: without its length."""
    if song[:4] == b"fLaC":
        return song[:21] + bytes((song[21] & 0xF0,)) + bytes(4) + song[26:]
    place = song.index(b"data")
    return song[: place + 4] + bytes(4) + song[place + 8 :]


def with_chunks(song: bytes) -> bytes:
    """Return a WAV with other chunks before its format, one of them not padded."""
    return song[:12] + b"LIST\3\0\0\0odd" + b"bext\2\0\0\0ok" + song[12:]


@st.composite
def audio_inputs(draw: st.DrawFn) -> bytes:
    """Draw an audio file. Most edits are in the header, which has most of the meaning."""
    song = draw(st.sampled_from(songs()))
    header = draw(st.sampled_from((64, 128, len(song))))
    return draw(strategies.edited(song[:header], 3)) + song[header:]


def check_audio(content: bytes) -> None:
    recording = decode(io.BytesIO(content))
    audio, rate = recording.samples, recording.rate
    assert audio.dtype == np.float32
    assert audio.ndim == 1
    assert 1 <= len(audio) <= MAX_FRAMES
    assert MIN_RATE <= rate <= MAX_RATE
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() <= MAX_AMPLITUDE


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

# The index of a file name, the index of the config.json beside it, and the content.
model_inputs = st.builds(
    lambda name, config, content: bytes((name, config)) + content,
    st.sampled_from((0, 0, 0, 1, 2, 3, 4)),
    st.integers(0, len(CONFIGURATIONS) - 1),
    strategies.near(CONFIGURATIONS),
)


def check_configuration(content: bytes) -> None:
    name_index, config_index = (*content[:2], 0, 0)[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocoder").mkdir()
        (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
        config = json.dumps(CONFIGURATIONS[config_index % len(CONFIGURATIONS)])
        (folder / "config.json").write_text(config)
        (folder / NAMES[name_index % len(NAMES)]).write_bytes(content[2:])
        described = folders.describe_model(folder)
    assert described["tasks"] in (["text-to-music"], ["pop2piano"])
    assert described["dtype"] in ("float32", "float16", "bfloat16")
    assert type(described.get("sampling_rate", 1)) is int
    limits = described["limits"]
    assert isinstance(limits, dict)
    assert type(limits.get("max_new_tokens", 1)) is type(limits.get("delay", 1)) is int
    assert limits.get("max_new_tokens", 1) > 0 <= limits.get("delay", 0)
    assert type(limits.get("frame_rate", 1)) in (int, float)
    assert limits.get("frame_rate", 1) > 0


SMALL = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
}


def _weights(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(40)


weight_inputs = strategies.near([SMALL]).map(_weights) | strategies.edited(
    _weights(json.dumps(SMALL).encode()), 2
)


def check_weights(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.safetensors"
        path.write_bytes(content)
        offsets = safetensors.tensor_offsets(path)
        safetensors.first_nan_tensor(path)
    spans = [(first, end) for _, first, end, _ in offsets.values()]
    assert all(0 <= first <= end <= len(content) for first, end in spans)
    assert sum(end - first for first, end in spans) <= len(content) - 8


PASSPHRASE = "correct horse"


@functools.cache
def pems() -> tuple[bytes, ...]:
    """Return a key file, plain and encrypted."""
    key = fixtures.key(0)
    ways = (NoEncryption(), BestAvailableEncryption(PASSPHRASE.encode()))
    return tuple(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, way) for way in ways)


# Mostly plain keys: decryption is slow on purpose.
key_inputs = st.one_of(
    st.deferred(lambda: st.just(pems()[0])),
    *[st.deferred(lambda: strategies.edited(pems()[0], 2))] * 4,
    st.deferred(lambda: st.sampled_from(pems()).flatmap(strategies.edited)),
    strategies.noise,
)


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


@st.composite
def _settings_files(draw: st.DrawFn) -> bytes:
    """Draw a settings file with up to two other values."""
    lines = TOML.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 2))):
        index = draw(st.integers(0, len(lines) - 1))
        name = lines[index].partition(b"=")[0]
        lines[index] = name + b"= " + draw(strategies.encoded(strategies.edge_values)) + b"\n"
    return b"".join(lines)


settings_inputs = st.one_of(
    _settings_files(),
    strategies.edited(TOML, 3),
    _settings_files().flatmap(strategies.edited),
    strategies.noise,
)


def check_settings(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "helium.toml"
        path.write_bytes(content)
        loaded = settings.load({}, {}, path)
    assert loaded.data_dir.is_absolute()
    assert loaded.key.is_absolute()
    assert all(folder.is_absolute() for folder in loaded.models_dir)
    assert 0 <= loaded.requester_tasks <= 1_000_000
    assert 4 <= loaded.limits.max_connections <= 100_000
    assert 0.05 <= loaded.feed_seconds <= 3600
    assert loaded.listen.startswith("/ip")


PARSERS = (
    Parser("audio", audio_inputs(), check_audio, (TaskFailed,)),
    Parser("model", model_inputs, check_configuration, (ModelRefused,)),
    Parser("weights", weight_inputs, check_weights, (ModelRefused,)),
    Parser("key", key_inputs, check_key, (UnusableKeyFile,)),
    Parser("settings", settings_inputs, check_settings, (InvalidSetting,)),
)
