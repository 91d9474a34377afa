"""The embedded models: small, whole, and what their cards say."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from executor.models.folders import EMBEDDED, SHIPPED
from scripts.models.common.export import WEIGHTS
from scripts.models.music.codec import codec_config
from scripts.models.music.model import (
    SHIPPED_SIZE,
    _decoder_config,
    build_tokenizer,
    generation_config,
)
from scripts.models.piano.model import build_piano_model, save_piano_model

FOLDER = SHIPPED / EMBEDDED
PIANO = SHIPPED / "helium/embedded-pop2piano"
FOLDERS = sorted(path.parent for path in SHIPPED.glob("*/*/config.json"))


def read(name: str) -> dict[str, object]:
    content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_they_are_small() -> None:
    sizes = {folder.name: (folder / "model.safetensors").stat().st_size for folder in FOLDERS}
    assert sum(sizes.values()) < 24_000_000
    assert sizes["embedded-pop2piano"] < 8_000_000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_shipped_model_has_a_card(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    for heading in ("## Data", "## Training", "## Measured", "## Limits"):
        assert heading in card


def test_it_is_a_musicgen_in_float32() -> None:
    config = read("config.json")
    assert config["architectures"] == ["MusicgenForConditionalGeneration"]
    assert config["dtype"] == "float32"


def test_its_shape_is_what_the_scripts_say() -> None:
    """So the weights are of today's architecture; the codec's are compared in tests/scripts."""
    config = read("config.json")
    decoder, audio = config["decoder"], config["audio_encoder"]
    assert isinstance(decoder, dict)
    assert isinstance(audio, dict)
    due = _decoder_config(SHIPPED_SIZE).to_dict()
    assert {name: decoder[name] for name in ("hidden_size", "num_hidden_layers", "vocab_size")} == {
        name: due[name] for name in ("hidden_size", "num_hidden_layers", "vocab_size")
    }
    due = codec_config().to_dict()
    assert {name: audio[name] for name in ("hidden_size", "num_filters", "upsampling_ratios")} == {
        name: due[name] for name in ("hidden_size", "num_filters", "upsampling_ratios")
    }


def test_its_generation_settings_are_the_scripts() -> None:
    due = generation_config().to_dict()
    for name in ("do_sample", "guidance_scale", "max_length", "temperature", "top_k"):
        assert read("generation_config.json")[name] == due[name]


def test_its_tokenizer_is_the_scripts(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name


def test_the_pianos_files_are_the_scripts(tmp_path: Path) -> None:
    """All but its weights and its card; of the weights, names and shapes."""
    save_piano_model(build_piano_model(), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written | {"README.md"} == {path.name for path in PIANO.iterdir()}
    for name in written - {WEIGHTS}:
        assert (tmp_path / name).read_bytes() == (PIANO / name).read_bytes(), name
    assert shapes(tmp_path / WEIGHTS) == shapes(PIANO / WEIGHTS)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in load_file(path).items()}
